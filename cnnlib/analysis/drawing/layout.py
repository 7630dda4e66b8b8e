"""Where the things of a structure stand: series and parallels exactly, one inside the other; what is left, general
graphs, in layers by longest paths, ordered to avoid crossings; what is too wide for a narrow page in one column, with
wires beside it.
"""

import bisect
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TypeGuard

from ..diagram.labels import CONTAINERS, JOINS, STRIPS, by
from .shapes import Item, boxed, broken, line, moved, size_of, text_width, tip
from ..diagram.structure import (ENDS, INPUT, OUTPUT, Box, Graph, Parallel, Part, Repeat, Series, Thing, Unit, is_join, rows_of,
                        topological)

GAP = 20  # between things in a row, for an arrow
ASIDE = 18  # between branches
PAD = 7
RADIUS = 10  # of the circle of a join


@dataclass
class Placed:
    """Something laid out: its reach to both sides of its axis, its height, its items around x = 0 below y = 0."""

    left: float
    right: float
    height: float
    items: list[Item]
    is_box: bool = True  # an arrow ends at its top; else lines go on inside

    @property
    def width(self) -> float:
        return self.left + self.right


@dataclass
class Style:
    numbers: bool = True
    label_width: float = 170  # at which labels of layers are broken
    nested: bool = True
    ends: float = 0  # room for a text that stands in for that of an input or output; 0 for the text itself
    room: float = math.inf  # pixels that branches may take beside each other; wider ones stand below each other
    aside: float = ASIDE
    pad: float = PAD
    placed: dict = field(default_factory=dict)  # what was placed: branches are tried beside and below each other

    def label(self, text: str) -> str:
        """The label, without channels where numbers are off."""
        return text if self.numbers else ", ".join(word for word in text.split(", ")
                                                   if not re.fullmatch(r"[\d,]+( to [\d,]+)?", word))

    def shape(self, shape: Sequence[int], before: str = "") -> list[tuple[str, str]]:
        """The shape as a line of text, none where numbers are off."""
        return [("small", before + shape_text(shape))] if self.numbers and shape else []


def shape_text(shape: Sequence[int]) -> str:
    return by(f"{length:,}" for length in shape)


# Layers, groups, series and branches


def place(thing: Thing, style: Style) -> Placed:
    if isinstance(thing, Series):
        return place_series(thing, style)
    if isinstance(thing, Unit):
        return place_unit(thing, style)
    if isinstance(thing, Box):
        return place_box(thing, style)
    if isinstance(thing, Repeat):
        return place_repeat(thing, style)
    return place_parallel(thing, None, style) if isinstance(thing, Parallel) else place_graph(thing, style)


def place_unit(unit: Unit, style: Style, least: float = 0) -> Placed:
    """A stack of layers: a row for what works, thin rows for norms and activations, as many in one as the width of
    labels allows; a join is a circle or a bar."""
    first = unit.layers[0]
    if first.kind in JOINS and first.kind != "concatenate" and len(unit.layers) == 1:
        return place_join(first)
    if first.kind in ENDS:
        return place_end(first, style)
    rows: list[list[tuple[Part, list]]] = []  # of parts with their lines of text

    def wide(row):
        return sum(size_of(lines)[0] + 2 * style.pad for _, lines in row)

    for part, label in rows_of(unit):
        cell = (part, [("small", part.label)])
        if part.kind not in STRIPS:
            text = style.label(label)
            if part.kind == "concatenate" and style.numbers and len(part.output_shape) == 3:
                last = f" to {part.details['last']:,}" if "last" in part.details else ""
                text = f"concatenate, {part.output_shape[0]:,}{last}"
            rows.append([(part, broken([("main", text)], style.label_width))])
        elif rows and rows[-1][0][0].kind in STRIPS and wide([*rows[-1], cell]) <= style.label_width:
            rows[-1].append(cell)
        else:
            rows.append([cell])
    width = max([least, *map(wide, rows)])
    items, y = [], 0.0
    for row in rows:
        margin, radius = (1.5, 2) if row[0][0].kind in STRIPS else (4.5, 3)
        spare, x = (width - wide(row)) / len(row), -width / 2
        for part, lines in row:
            room = size_of(lines)[0] + 2 * style.pad + spare if len(row) > 1 else width
            items.append(boxed(part.id, part.kind, lines, x, y, room, margin, radius))
            x += room
        y += size_of(row[0][1])[1] + 2 * margin
    return Placed(width / 2, width / 2, y, items)


def place_text(part: int | None, kind: str, lines: list, width: float, margin: float, radius: float) -> Placed:
    """A box of text alone, which stands on its axis."""
    height = size_of(lines)[1] + 2 * margin
    return Placed(width / 2, width / 2, height, [boxed(part, kind, lines, -width / 2, 0, width, margin, radius)])


def place_join(part: Part) -> Placed:
    sign, *_ = JOINS[part.kind]
    if len(sign) > 1:
        return place_text(part.id, part.kind, [("small", sign)], text_width(sign, "small") + 2 * PAD, 3.25, 10)
    arm = RADIUS * 0.55
    lines = [["l", "sign", [-arm, RADIUS, arm, RADIUS]], ["l", "sign", [0, RADIUS - arm, 0, RADIUS + arm]]]
    if part.kind == "multiply":
        arm *= 0.75
        lines = [["l", "sign", [-arm, RADIUS - arm, arm, RADIUS + arm]],
                 ["l", "sign", [-arm, RADIUS + arm, arm, RADIUS - arm]]]
    elif part.kind == "subtract":
        lines = lines[:1]
    return Placed(RADIUS, RADIUS, 2 * RADIUS, [Item(part.id, part.kind, [["c", "box", 0, RADIUS, RADIUS], *lines])])


def place_end(part: Part, style: Style) -> Placed:
    """One of several maps that come from outside, or go there: where from, where to, and its shape."""
    lines = [("small", stand_in(part))] if style.ends else broken([("small", part.label)], style.label_width)
    lines += style.shape(part.output_shape)
    width = max(style.ends, size_of(lines)[0]) + 2 * style.pad + 4
    shown = part.id if part.kind == "input" and part.id != INPUT else None
    return place_text(shown, part.kind, lines, width, 4, 12)


def stand_in(part: Part) -> str:
    """ "@1" for the first input, "#2" for the second output: what is the same in blocks that are equal inside."""
    return f"{'@' if part.kind == 'input' else '#'}{part.details['number']}"


def end_of(item, kind: str) -> int:
    """The number of the input that comes first in an item, or of the output that comes last; 0 if there is none.

    Where there are several, they are all there is: nothing else comes from outside, or goes there.
    """
    if isinstance(item, Series):
        return end_of(item.items[0 if kind == "input" else -1], kind) if item.items else 0
    if isinstance(item, Unit):
        part = item.layers[0 if kind == "input" else -1]
        return part.details["number"] if part.kind == kind else 0
    if isinstance(item, Parallel):
        return min(end_of(branch, kind) for branch in item.branches)
    if isinstance(item, Graph):
        ways = [(b, series) if kind == "input" else (a, series) for a, b, series in item.edges
                if (a == INPUT if kind == "input" else b == OUTPUT)]
        return min((end_of(series if series.items or node < 0 else item.nodes[node], kind) for node, series in ways),
                   default=0)
    return 0


def place_box(box: Box, style: Style) -> Placed:
    """A group in a frame with its inside, or, where there is no room for that, in a few words."""
    part, title = box.part, title_of(box.part)
    if box.inner is not None and style.nested:
        inner, head, foot = place_series(box.inner, style), 22, 10
        left, height = inner.left + 10, inner.height + head + foot
        # The title stands on the right of the line that enters.
        right = max(inner.right + 10, text_width(title, "title") + 2 * PAD + 4)
        frame = Item(part.id, "frame", [["r", "frame", -left, 0, left + right, height, 6],
                                        ["t", "title", PAD + 2, 12, "start", title]])
        lines = [] if end_of(box.inner, "input") else [line([0, 0, 0, head])]
        lines += [] if end_of(box.inner, "output") else [line([0, head + inner.height, 0, height])]
        return Placed(left, right, height, [frame, *lines, *moved(inner.items, 0, head)])
    words = [style.label(text) for text in box.summary]
    if len(words) > 6:
        words = [*words[:5], f"\u2026 {len(words) - 5} more"]
    lines = [("title", title), *broken([("small", text) for text in words], style.label_width)]
    for shape in box.results or [part.output_shape]:
        lines += style.shape(shape, "\u2192 ")
    return place_text(part.id, "group", lines, size_of(lines)[0] + 2 * style.pad, 5, 6)


def title_of(part: Part) -> str:
    """The class of a group; of one without a class of its own, the end of its name, such as "branches.0"."""
    pieces = part.name.split(".")
    kept = 2 if pieces[-1].isdigit() else 1
    return ".".join(pieces[-kept:]) if part.label in CONTAINERS and part.name else part.label


def place_repeat(repeat: Repeat, style: Style) -> Placed:
    inner, top = place_series(repeat.body, style), 10
    text = f"\u00d7 {repeat.times}"
    left, right, height = inner.left + 9, inner.right + 9, inner.height + 2 * top
    frame = Item(None, "repeat", [["r", "repeat", -left, 0, left + right, height, 6],
                                  ["t", "title", right + 5, height / 2, "start", text]])
    return Placed(left, right + (text_width(text, "title") + 4) + 5, height, [
        frame, line([0, 0, 0, top], arrow=starts_with_box(repeat.body)), *moved(inner.items, 0, top),
        line([0, top + inner.height, 0, height])], is_box=False)


def starts_with_box(thing: Thing) -> bool:
    """Whether an arrow ends at the beginning; into the frame of a repeat goes a line, whose arrow is inside."""
    if isinstance(thing, Series):
        return bool(thing.items) and isinstance(thing.items[0], (Unit, Box))
    return isinstance(thing, (Unit, Box))


def place_series(series: Series, style: Style) -> Placed:
    """One thing below the other on one axis, with arrows between them; branches run into the join that follows them."""
    if id(series) not in style.placed:
        style.placed[id(series)] = series, _place_series(series, style)  # held, so that its id stays its own
    return style.placed[id(series)][1]


def _place_series(series: Series, style: Style) -> Placed:
    left = right = 6.0
    y, items = 0.0, []
    before: Thing | None = None
    for thing, following in zip(series.items, [*series.items[1:], None]):
        joined = is_join(thing) and isinstance(before, (Parallel, Graph))
        before = thing
        if joined:  # with the branches
            continue
        join = following if is_join(following) else None
        if isinstance(thing, Parallel):
            placed = place_parallel(thing, join, style)
        else:
            placed = place(with_join(thing, join) if isinstance(thing, Graph) and join else thing, style)
        if thing is not series.items[0]:
            gap = GAP if placed.is_box or isinstance(thing, Repeat) else 10
            items.append(line([0, y, 0, y + gap], arrow=placed.is_box))
            y += gap
        items += moved(placed.items, 0, y)
        y += placed.height
        left, right = max(left, placed.left), max(right, placed.right)
    return Placed(left, right, y, items, starts_with_box(series))


def place_parallel(parallel: Parallel, join: Unit | None, style: Style) -> Placed:
    """Branches between a fork and, if there is one, the join below them: side by side, or, where there is no room for
    that, below each other."""
    placed = place_abreast(parallel, join, style)
    if placed.width <= style.room:
        return placed
    graph = Graph([], [(INPUT, OUTPUT, branch) for branch in parallel.branches])
    return place_column(with_join(graph, join) if join else graph, style)


def place_abreast(parallel: Parallel, join: Unit | None, style: Style) -> Placed:
    """Branches side by side; shortcuts are plain lines.

    One branch beside shortcuts stays on the axis and the shortcuts pass on the right; a gate, which multiplies, hangs
    on the right, and what it scales stays on the axis. More branches stand symmetrically, and so do those of different
    inputs, which begin beside each other without a fork.
    """
    fed, gives = (bool(end_of(parallel, kind)) for kind in ENDS)
    branches = parallel.branches
    if fed or gives:  # in the order of the inputs, or of the outputs
        branches = sorted(branches, key=lambda branch: end_of(branch, "input" if fed else "output"))
    wide, gate = is_bar(join), join is not None and join.layers[0].kind == "multiply"
    full, shortcuts = ([branch for branch in branches if bool(branch.items) == works] for works in (True, False))
    unequal = len(full) == 2 and not shortcuts and not (wide or fed or gives)
    if unequal:  # the longer one on the axis
        full.sort(key=lambda branch: -place_series(branch, style).height)
    branches = shortcuts + full if gate and len(full) == 1 else full + shortcuts
    columns = [place_series(branch, style) if branch.items else Placed(4, 4, 0, [], False) for branch in branches]
    xs = [0.0]
    for before, column in pairwise(columns):
        xs.append(xs[-1] + (before.right + style.aside) + column.left)
    if not (unequal or len(full) == 1 and shortcuts):
        middle = (xs[0] + xs[-1]) / 2
        xs = [x - middle for x in xs]
    fork, tall = 12, max(column.height for column in columns)
    top = 0 if fed else fork + GAP - 4
    bottom = top + tall
    end = bottom if gives else bottom + GAP - 2
    joined = place_unit(join, style, least=2 * max(-min(xs), max(xs)) + 24 if wide else 0) if join else None
    items = []
    for x, column, branch in zip(xs, columns, branches):
        start = top if fed else bottom - column.height if gives else top + (tall - column.height) / 2
        enters, leaves = (start, start + column.height) if column.items else (bottom, bottom)
        if not fed:
            turn = [0, fork - 4, x, fork - 4] if x else []
            items.append(line([0, 0, *turn, x, enters], arrow=starts_with_box(branch)))
        items += moved(column.items, x, start)
        if gives:
            continue
        if joined is None:
            items.append(line([x, leaves, x, end - 8, 0, end - 8, 0, end] if x else [0, leaves, 0, end]))
        elif wide or x == 0:
            items.append(line([x, leaves, x, end], arrow=True))
        else:
            at = end + joined.height / 2
            items.append(line([x, leaves, x, at, -joined.left if x < 0 else joined.right, at], arrow=True))
    around = [*zip(xs, columns), *([(0.0, joined)] if joined else [])]
    left, right = max(placed.left - x for x, placed in around), max(placed.right + x for x, placed in around)
    if joined:
        items += moved(joined.items, 0, end)
        end += joined.height
    return Placed(left, right, end, items, False)


# Layout of general graphs


def opened(graph: Graph, style: Style) -> tuple[list, list[Placed], list[tuple[int, int]]]:
    """Things, their layouts, and edges between them: a series on an edge is a thing, too, and so is each branch between
    the same two nodes, which nothing joins before who reads them, or which only a join ends."""
    things, edges = [*graph.nodes], []

    def add(a, b, series):
        items = series.items
        if not items:
            edges.append((a, b))
        elif isinstance(items[0], Parallel) and len(items) == 1:
            for branch in items[0].branches:
                add(a, b, branch)
        elif isinstance(items[0], Parallel) and len(items) == 2 and is_join(items[1]):
            things.append(items[1])
            join = len(things) - 1
            for branch in items[0].branches:
                add(a, join, branch)
            edges.append((join, b))
        else:
            things.append(series)
            edges.extend([(a, len(things) - 1), (len(things) - 1, b)])

    for a, b, series in graph.edges:
        add(a, b, series)
    return things, [place(thing, style) for thing in things], edges


def is_bar(thing: object) -> TypeGuard[Unit]:
    return is_join(thing) and thing.layers[0].kind == "concatenate"


def with_join(graph: Graph, join: Unit) -> Graph:
    """The graph with the join that follows it as its last node, so that branches come to it one by one."""
    number = len(graph.nodes)
    edges = [(a, number if b == OUTPUT else b, series) for a, b, series in graph.edges]
    return Graph([*graph.nodes, join], [*edges, (number, OUTPUT, Series([]))])


def place_graph(graph: Graph, style: Style) -> Placed:
    """Layers by longest paths, orders by the means of neighbours, places by least squares without overlap; where there
    is no room for that, everything below each other.

    An edge over several layers keeps a lane of its own in each; a concatenation alone in its layer is as wide as what
    it joins.
    """
    things, nodes, edges = opened(graph, style)
    heads = [*map(starts_with_box, things), False, False]
    lane = Placed(5, 5, 0, [], False)
    source, sink, count = len(nodes), len(nodes) + 1, len(nodes) + 2
    nodes += [lane, lane]
    edges = [(source if a == INPUT else a, sink if b == OUTPUT else b) for a, b in edges]
    fed, gives = ({node for node, thing in enumerate(things) if end_of(thing, kind)} for kind in ENDS)
    rank = ranks(count, edges, source, sink, fed)
    for node in gives:
        rank[node] = rank[sink] - 1
    links = []  # (upper, lower) between neighbouring layers
    for a, b in edges:
        upper = a
        for level in range(rank[a] + 1, rank[b]):
            links.append((upper, len(nodes)))
            upper = len(nodes)
            nodes.append(lane)
            heads.append(False)
            rank.append(level)
        links.append((upper, b))
    links = [(a, b) for a, b in links if not (a == source and b in fed or a in gives and b == sink)]
    levels = [[] for _ in range(max(rank) + 1)]
    for node, level in enumerate(rank):
        levels[level].append(node)
    above, below = defaultdict(list), defaultdict(list)
    for a, b in links:
        above[b].append(a)
        below[a].append(b)
    levels = ordered(levels, above, below)
    xs = balanced(levels, above, below, nodes, count, style.aside)
    bars = widened(levels, above, things, nodes, xs, style, None if fed else xs[source])

    def at(node, x):
        low, high = bars.get(node, (xs[node], xs[node]))
        return min(max(x, low), high)

    axis = xs[sink] if fed and not gives else xs[source]
    left = max(nodes[node].left - (xs[node] - axis) for node in range(len(nodes)))
    right = max(nodes[node].right + (xs[node] - axis) for node in range(len(nodes)))
    if left + right > style.room:
        return place_column(graph, style)
    y, items = 0.0, []
    tops, bounds = {}, []
    for i, level in enumerate(levels):
        if i and not (i == 1 and fed or i == len(levels) - 1 and gives):
            span = max((abs(at(a, xs[b]) - at(b, xs[a])) for b in level for a in above[b]), default=0)
            y += max(GAP + 4, min(64, 18 + 0.12 * span))
        tall = max(nodes[node].height for node in level)
        bounds.append((y, y + tall))
        for node in level:
            room = tall - nodes[node].height
            tops[node] = y + (0 if node in fed else room if node in gives else room / 2)
        y += tall
    for a, b in links:
        (_, out), (into, _) = bounds[rank[a]], bounds[rank[b]]
        start, end = tops[a] + nodes[a].height, tops[b]
        items.append(curve(at(a, xs[b]) - axis, start, out, at(b, xs[a]) - axis, into, end, heads[b]))
    for level in levels:
        for node in level:
            items += moved(nodes[node].items, xs[node] - axis, tops[node])
    if not gives and abs(xs[sink] - axis) > 0.05:  # what follows stands on the axis
        items.append(curve(xs[sink] - axis, y, y, 0, y + GAP, y + GAP, False))
        y += GAP
    return Placed(left, right, y, items, False)


def widened(levels, above: dict, things: list, nodes: list[Placed], xs: list[float], style: Style,
            axis: float | None) -> dict[int, tuple[float, float]]:
    """Concatenations alone in their layers made as wide as what they join: node -> the places between which lines may
    end at it. What follows one stands on the axis, if it is below the bar, else below its middle."""
    reach, settled = {}, {}  # settled: node -> where what follows it stands
    for node in (level[0] for level in levels if len(level) == 1):
        near = [xs[other] for other in above[node]]
        if len(near) > 1 and node < len(things) and is_bar(things[node]):
            nodes[node] = place_unit(things[node], style, least=max(near) - min(near) + 24)
            middle = xs[node] = (min(near) + max(near)) / 2
            low, high = reach[node] = (middle - nodes[node].left + 12, middle + nodes[node].right - 12)
            settled[node] = axis if axis is not None and low <= axis <= high else middle
        elif len(near) == 1 and above[node][0] in settled:
            xs[node] = settled[node] = settled[above[node][0]]
    return reach


def curve(x: float, start: float, out: float, to_x: float, into: float, end: float, arrow: bool) -> Item:
    """Straight down through both layers, bent only between them, where no node stands."""
    if abs(x - to_x) < 0.05:
        return line([x, start, x, end], arrow)
    shapes = [["l", "line", [x, start, x, out]]] if out - start > 0.05 else []
    tail = 7 if arrow and end - into < 0.05 else 0
    shapes.append(["b", "line", [x, out, to_x, into - tail]])
    if end > into - tail:
        shapes.append(["l", "line", [to_x, into - tail, to_x, end]])
    if arrow:
        shapes.append(tip(to_x, end, 0, 1))
    return Item(None, "line", shapes)


def ranks(count: int, edges: Sequence[tuple[int, int]], source: int, sink: int, fixed: Iterable[int] = ()) -> list[int]:
    """Longest paths from the source; what nothing holds from above moves down to what reads it, but for the `fixed`."""
    sources, readers = ([[] for _ in range(count)] for _ in range(2))
    for a, b in edges:
        sources[b].append(a)
        readers[a].append(b)
    rank, order = [0 if node == source else 1 for node in range(count)], topological(count, edges)
    for node in order:
        rank[node] = max([rank[node], *(rank[above] + 1 for above in sources[node])])
    rank[sink] = max(rank[sink], max(rank[node] for node in range(count) if node != sink) + 1)
    for node in reversed(order):
        free = node not in (source, sink, *fixed) and len(sources[node]) <= 1
        if free and len(readers[node]) == 1 and readers[node][0] != sink:
            rank[node] = rank[readers[node][0]] - 1
    return rank


def ordered(levels: list[list[int]], above: dict, below: dict) -> list[list[int]]:
    """Nodes of each layer by the mean place of their neighbours, down and up; the order with fewest crossings wins."""
    place = {node: i for level in levels for i, node in enumerate(level)}

    def crossings() -> int:
        total = 0
        for level in levels[1:]:
            passed = []  # places above from which lines came so far, sorted
            for upper in [place[a] for b in level for a in sorted(above[b], key=place.get)]:
                total += len(passed) - bisect.bisect_right(passed, upper)
                bisect.insort(passed, upper)
        return total

    best, fewest = [level[:] for level in levels], crossings()
    for sweep in range(8):
        downwards = sweep % 2 == 0
        neighbours = above if downwards else below
        for level in levels if downwards else levels[::-1]:
            level.sort(key=lambda node: (sum(place[other] for other in neighbours[node]) / len(neighbours[node])
                                         if neighbours[node] else place[node], place[node]))
            place.update({node: i for i, node in enumerate(level)})
        if (found := crossings()) < fewest:
            best, fewest = [level[:] for level in levels], found
    return best


def balanced(levels, above, below, nodes, real: int, aside: float) -> list[float]:
    """Places across: nodes near the mean of their neighbours, lanes of a long edge in one line, nothing overlapping."""
    xs = [0.0] * len(nodes)
    for level in levels:
        x = 0.0
        for node in level:
            x += nodes[node].left
            xs[node] = x
            x += nodes[node].right + aside
        for node in level:
            xs[node] -= x / 2
    for turn in range(12):
        for level in levels if turn % 2 == 0 else levels[::-1]:
            targets, weights = [], []
            for node in level:
                near = above[node] + below[node] if turn > 3 else (above if turn % 2 == 0 else below)[node]
                straight = [other for other in near if node >= real and other >= real]
                weight = 1.0 + 8 * bool(straight)
                near = straight or near
                targets.append(sum(xs[other] for other in near) / len(near) if near else xs[node])
                weights.append(weight)
            for node, x in zip(level, spread(targets, weights, level, nodes, aside)):
                xs[node] = x
    return xs


def spread(targets: Sequence[float], weights: Sequence[float], level: Sequence[int], nodes, aside) -> list[float]:
    """Places nearest to the targets, in weighted squares, that keep the order and the room: pool adjacent violators."""
    offset, offsets = 0.0, []
    for before, node in zip([None, *level], level):
        offset += 0 if before is None else nodes[before].right + aside + nodes[node].left
        offsets.append(offset)
    pools = []  # [sum of weight x place, weight, count]
    for target, weight, offset in zip(targets, weights, offsets):
        pools.append([weight * (target - offset), weight, 1])
        while len(pools) > 1 and pools[-2][0] / pools[-2][1] > pools[-1][0] / pools[-1][1]:
            total, weight, count = pools.pop()
            pools[-1] = [pools[-1][0] + total, pools[-1][1] + weight, pools[-1][2] + count]
    places = [total / weight for total, weight, count in pools for _ in range(count)]
    return [x + offset for x, offset in zip(places, offsets)]


# One column with wires, for what is too wide for a narrow page


LANE = 9  # between wires beside a column
BEND = 7  # above a turn, a wire that branches off another begins


@dataclass
class Wire:
    """From below the row `start` of a column to the `rows` that read it; `lane` counts from the column outwards."""

    start: int
    rows: list[int]
    on_right: bool
    lane: int = 0
    x: float = 0.0
    points: list[float] = field(default_factory=list)  # through which it has come


def place_column(graph: Graph, style: Style) -> Placed:
    """Everything below each other: what is read at once by the next stands above it, all else comes by wires."""
    things, nodes, edges = opened(graph, style)
    fed, gives = ({node: number for node, thing in enumerate(things) if (number := end_of(thing, kind))}
                  for kind in ENDS)
    edges = [(a, b) for a, b in edges if not (a == INPUT and b in fed or a in gives and b == OUTPUT)]
    joins = {node for node, thing in enumerate(things) if is_join(thing)}
    order = column_order(edges, [sorted(numbers, key=numbers.get) for numbers in (fed, gives)], joins)
    direct, wires = wired(order, edges, joins)
    reach = [max(placed.left for placed in nodes) + 2, max(placed.right for placed in nodes) + 2]
    for on_right in (False, True):
        own, beside = [wire for wire in wires if wire.on_right == on_right], reach[on_right]
        if own:
            reach[on_right] += LANE * (in_lanes(own) + 1)
        for wire in own:
            wire.x = (beside + LANE * (wire.lane + 1)) * (1 if on_right else -1)
    left, right = reach
    y, items = 0.0, []
    for i, node in enumerate((*order, OUTPUT)):
        thing, placed = (None, Placed(0, 0, 0, [])) if node == OUTPUT else (things[node], nodes[node])
        head = thing is not None and starts_with_box(thing)
        leaving = next((wire for wire in wires if wire.start == i - 1), None)
        ending = sorted((wire for wire in wires if i in wire.rows), key=lambda wire: wire.lane)
        spans = is_bar(thing) and not any(wire.start < i < wire.rows[-1] for wire in wires)
        sideways = is_join(thing) and not is_bar(thing)  # wires end at the side of a circle
        turning = 0 if spans or sideways else len(ending)  # others turn to the axis above the row
        gap = 0.0 if node == OUTPUT or i == 0 and node in fed else 14.0 if node in fed else GAP
        if leaving:
            leaving.points = [0, y, 0, y + 8, leaving.x, y + 8]
            gap = max(gap, GAP + 8.0)
        turn = y + (20 if leaving else 6)
        if turning:
            gap = max(gap, turn - y + 8 * turning + 8)
        entries = [0.0] * len(ending)
        if spans:
            entries = [wire.x for wire in ending]
        elif is_bar(thing) or head and (i in direct or turning > 1):
            entries = beside_middle(ending, i in direct)
        if is_bar(thing):
            placed = place_unit(thing, style, least=2 * max([0.0, *map(abs, entries)]) + 16)
            left, right = max(left, placed.left), max(right, placed.right)
        top = y + gap
        if i in direct and gap:
            items.append(line([0, y, 0, top], arrow=head))
        for wire, entry in zip(ending, entries):
            if spans:
                end = [wire.x, top]
            elif sideways:
                middle = top + placed.height / 2
                end = [wire.x, middle, placed.right if wire.on_right else -placed.left, middle]
            else:
                end = [wire.x, turn, entry, turn, entry, top]
                turn += 8
            items.append(line([*wire.points, *end], arrow=head))
            wire.points = [wire.x, end[1] - BEND]
        items += moved(placed.items, 0, top)
        y = top + placed.height
    return Placed(left, right, y, items, False)


def wired(order: list[int], edges: list[tuple[int, int]], joins: set[int]) -> tuple[set[int], list[Wire]]:
    """Rows that the one above them leads into, and wires for all else.

    A wire on the left leads from a map to all that read it, one on the right from the end of a branch to the join that
    alone reads it, or out of the column.
    """
    row = {node: i for i, node in enumerate(order)} | {INPUT: -1, OUTPUT: len(order)}
    direct, wires = set(), []
    for node in (INPUT, *order):
        readers = {b for a, b in edges if a == node}
        rows = sorted(row[reader] for reader in readers)
        on_right = len(rows) == 1 and node != INPUT and readers <= {OUTPUT, *joins}
        if row[node] + 1 in rows:
            direct.add(rows.pop(0))
            on_right = False
        if rows:
            wires.append(Wire(row[node], rows, on_right))
    return direct, wires


def beside_middle(wires: Sequence[Wire], direct: bool) -> list[float]:
    """Where wires that end at one box enter it: beside its middle, if that is taken, the outer ones further out."""
    places, taken = [], [int(direct), int(direct)]
    for wire in wires:
        places.append(10.0 * taken[wire.on_right] * (1 if wire.on_right else -1))
        taken[wire.on_right] += 1
    return places


def column_order(edges: Sequence[tuple[int, int]], ends: Sequence[Sequence[int]], joins: set[int]) -> list[int]:
    """Nodes from top to bottom: what a node reads stands right above it as far as that goes, inputs first with what
    only prepares them, each of several outputs as soon as it is there."""
    sources, readers = defaultdict(list), defaultdict(list)
    for a, b in edges:
        sources[b].append(a)
        readers[a].append(b)
    done = {INPUT: None}  # in this order
    for node in ends[0]:
        done[node] = None
        while len(after := set(readers[node])) == 1:
            node, = after
            if node in {OUTPUT, *joins, *ends[1]} or not done.keys() >= set(sources[node]):
                break
            done[node] = None
    for end in (*ends[1], OUTPUT):
        stack = [end]
        while stack:
            missing = next((source for source in sources[stack[-1]] if source not in done), None)
            if missing is not None:
                stack.append(missing)
            elif (node := stack.pop()) != OUTPUT:
                done[node] = None
    return list(done)[1:]


def in_lanes(wires: list[Wire]) -> int:
    """Give each wire the innermost lane that is free where it runs, short ones first; the number of lanes."""
    taken = []  # sets of gaps between rows, by lane
    for wire in sorted(wires, key=lambda wire: (wire.rows[-1] - wire.start, wire.start)):
        gaps = set(range(wire.start, wire.rows[-1]))
        wire.lane = next((lane for lane, others in enumerate(taken) if not gaps & others), len(taken))
        if wire.lane == len(taken):
            taken.append(set())
        taken[wire.lane] |= gaps
    return len(taken)
