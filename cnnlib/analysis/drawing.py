"""A diagram laid out and written as SVG: the same bytes on every machine, readable in both themes, in print and by ear.

    draw(diagram(model, (3, 224, 224)))                     # the whole network
    draw(drawing, "layer1")                                 # a stage: its blocks
    draw(drawing, "layer1.0", highlight=["layer1.0.downsample"])
    draw(drawing, beside=other)                             # two networks, what differs is marked
    draw(drawing).save("resnet50.svg")

Layout: series and parallels are placed exactly, one inside the other; what is left, general graphs, in layers by
longest paths, ordered to avoid crossings. Branches and graphs that are too wide for a phone stand in one column there,
with wires beside it. Lengths are pixels at 12 px text. The width of text is that in DejaVu Sans,
the widest of the usual fonts of user interfaces: in every other font texts end earlier.
"""

import dataclasses
import difflib
import html
import math
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import TypeGuard

from .diagram import (CONTAINERS, ENDS, HEAVY, INPUT, JOINS, OUTPUT, STRIPS, Box, Diagram, Graph, Parallel, Part,
                      Repeat, Series, Unit, blocks_in, by, contents, rows_of)

# Advance widths of DejaVu Sans for the characters from 32 to 126, in hundredths of the font size.
ADVANCES = [
    32, 40, 46, 84, 64, 95, 78, 27, 39, 39, 50, 84, 32, 36, 32, 34, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 34, 34, 84,
    84, 84, 53, 100, 68, 69, 70, 77, 63, 58, 77, 75, 29, 29, 66, 56, 86, 75, 79, 60, 79, 69, 63, 61, 73, 68, 99, 69, 61,
    69, 39, 34, 39, 84, 50, 50, 61, 63, 55, 63, 62, 35, 63, 63, 28, 28, 58, 28, 97, 63, 61, 63, 63, 41, 52, 39, 63, 59,
    82, 59, 59, 52, 64, 34, 64, 84]
BOLD = 1.14  # how much wider bold text is, at most
SIZES = {"main": 12, "small": 10.5, "title": 12.5, "sign": 14}
LINE = {"main": 15, "small": 13.5, "title": 16, "sign": 16}
WIDE, NARROW = 900, 336  # pixels in which drawings of a network fit

GAP = 20  # between things in a row, for an arrow
ASIDE = 18  # between branches
PAD = 7
RADIUS = 10  # of the circle of a join


def text_width(text: str, style: str = "main") -> float:
    """Pixels that a line of text takes at most."""
    hundredths = sum(ADVANCES[ord(c) - 32] if 32 <= ord(c) < 127 else 100 for c in text)
    return hundredths * SIZES[style] / 100 * (BOLD if style == "title" else 1)


def wrap(text: str, width: float, style: str = "main") -> list[str]:
    """The text in lines of at most this width, broken at spaces; a longer word stays whole.

    A number stays with the word before it, but in "32 groups" with what it counts.
    """
    lines, line = [], ""
    for word in re.split(r" (?![/\d])|(?<=,) (?=[\d,]+\xa0)", re.sub(r"(?<=, )([\d,]+) (?=[a-z])", "\\1\xa0", text)):
        word = word.replace("\xa0", " ")
        longer = f"{line} {word}" if line else word
        if line and text_width(longer, style) > width:
            lines.append(line)
            line = word
        else:
            line = longer
    return [*lines, line]


# Pieces of a drawing

# A shape is a list of plain values: ["r", class, x, y, width, height, radius], ["p", class, points], ["l", class,
# points],
# ["b", class, points] (a curve), ["c", class, x, y, radius], ["t", class, x, y, anchor, text].


@dataclass
class Item:
    """Shapes that belong to one part of the network; `part` is None for lines and frames of their own."""

    part: int | None
    kind: str
    shapes: list[list]
    mark: str = ""  # "on", "off": highlighted or not; "new": what the network beside it does not have


@dataclass
class Placed:
    """Something laid out: its reach to both sides of its axis, its height, its items around x = 0 below y = 0."""

    left: float
    right: float
    height: float
    items: list[Item]
    is_box: bool = True  # an arrow ends at its top; else lines go on inside


@dataclass
class Scene:
    """All items of a drawing at their places, and the words that say the same.

    `stacked`: something stands in one column with wires that stands beside each other where there is room.
    """

    width: float
    height: float
    items: list[Item]
    title: str
    words: str
    stacked: bool = False

    def to_dict(self) -> dict:
        return dataclasses.asdict(self)


def moved(items: Iterable[Item], dx: float, dy: float) -> list[Item]:
    def move(shape):
        if shape[0] in "plb":
            return [*shape[:2], [v + (dy if i % 2 else dx) for i, v in enumerate(shape[2])]]
        return [*shape[:2], shape[2] + dx, shape[3] + dy, *shape[4:]]

    return [Item(item.part, item.kind, [move(shape) for shape in item.shapes], item.mark) for item in items]


def line(points: Sequence[float], arrow: bool = False) -> Item:
    """A line through the points, with rounded corners, and an arrow at its end."""
    points = list(points)
    shapes = [["l", "line", points]]
    if arrow:
        x, y = points[-2:]
        dx, dy = x - points[-4], y - points[-3]
        if dx and dy:
            along, across = 6 / math.hypot(dx, dy), 3.5 / math.hypot(dx, dy)
            a, b, c, d = x - along * dx, y - along * dy, across * dy, across * dx
            shapes.append(["p", "tip", [x, y, a + c, b - d, a - c, b + d]])
        elif dx:
            s = 1 if dx > 0 else -1
            shapes.append(["p", "tip", [x, y, x - 6 * s, y - 3.5, x - 6 * s, y + 3.5]])
        else:
            s = 1 if dy > 0 else -1
            shapes.append(["p", "tip", [x, y, x - 3.5, y - 6 * s, x + 3.5, y - 6 * s]])
    return Item(None, "line", shapes)


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


def shape_text(shape: Sequence[int]) -> str:
    return by(f"{length:,}" for length in shape)


# Layout of series and parallels


def place(item, style: Style) -> Placed:
    if isinstance(item, Unit):
        return place_unit(item, style)
    if isinstance(item, Box):
        return place_box(item, style)
    if isinstance(item, Repeat):
        return place_repeat(item, style)
    if isinstance(item, Parallel):
        return place_parallel(item, None, style)
    if isinstance(item, Graph):
        return place_graph(item, style)
    return place_series(item, style)


def place_unit(unit: Unit, style: Style, least: float = 0) -> Placed:
    """A stack of layers: a row for what works, thin rows for norms and activations; a join is a circle or a bar."""
    first = unit.layers[0]
    if first.kind in JOINS and first.kind != "concatenate" and len(unit.layers) == 1:
        return place_join(first)
    if first.kind in ENDS:
        return place_end(first, style)
    rows, width = [], least
    strips = []  # neighbouring strips share a row if they fit

    for part, label in rows_of(unit):
        if part.kind in STRIPS:
            strips.append(part)
            continue
        rows += strip_rows(strips, style)
        strips = []
        text = style.label(label)
        if part.kind == "concatenate" and style.numbers and len(part.output_shape) == 3:
            text = f"concatenate, {part.output_shape[0]:,}"
            if "last" in part.details:
                text += f" to {part.details['last']:,}"
        lines = wrap(text, style.label_width)
        rows.append([[(part, line)] for line in lines])
    rows += strip_rows(strips, style)
    for row in rows:
        for cells in row:
            width = max(width, sum(text_width(text, row_style(cells)) + 2 * style.pad for _, text in cells))
    items, y = [], 0
    for row in rows:
        small = row_style(row[0]) == "small"
        height = len(row) * (LINE["small"] if small else LINE["main"]) + (3 if small else 9)
        if small:
            lefts = -width / 2
            cells = row[0]
            spare = (width - sum(text_width(text, "small") + 2 * style.pad for _, text in cells)) / len(cells)
            for part, text in cells:
                wide = text_width(text, "small") + 2 * style.pad + spare
                items.append(Item(part.id, part.kind, [
                    ["r", "box", lefts, y, wide, height, 2],
                    ["t", "small", lefts + wide / 2, y + height / 2, "middle", text]]))
                lefts += wide
        else:
            part = row[0][0][0]
            shapes = [["r", "box", -width / 2, y, width, height, 3]]
            shapes += [["t", "main", 0, y + 4.5 + LINE["main"] * (i + 0.5), "middle", cells[0][1]]
                       for i, cells in enumerate(row)]
            items.append(Item(part.id, part.kind, shapes))
        y += height
    return Placed(width / 2, width / 2, y, items)


def row_style(cells) -> str:
    return "small" if cells[0][0].kind in STRIPS else "main"


def strip_rows(strips: Sequence[Part], style: Style) -> list:
    """Rows of norms and activations, as many in one as the width of labels allows."""
    rows, row = [], []
    for part in strips:
        cells = [*row, (part, part.label)]
        if row and sum(text_width(text, "small") + 2 * style.pad for _, text in cells) > style.label_width:
            rows.append([row])
            cells = [(part, part.label)]
        row = cells
    return rows + ([[row]] if row else [])


def place_join(part: Part) -> Placed:
    sign = JOINS[part.kind]
    if len(sign) > 1:
        wide = text_width(sign, "small") + 2 * PAD
        return Placed(wide / 2, wide / 2, 20, [Item(part.id, part.kind, [
            ["r", "box", -wide / 2, 0, wide, 20, 10], ["t", "small", 0, 10, "middle", sign]])])
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
    lines = [stand_in(part)] if style.ends else wrap(part.label, style.label_width, "small")
    if style.numbers and part.output_shape:
        lines.append(shape_text(part.output_shape))
    width = max(style.ends, *(text_width(text, "small") for text in lines)) + 2 * style.pad + 4
    height = len(lines) * LINE["small"] + 8
    shapes: list[list] = [["r", "box", -width / 2, 0, width, height, 12]]
    shapes += [["t", "small", 0, 4 + LINE["small"] * (i + 0.5), "middle", text] for i, text in enumerate(lines)]
    shown = part.id if part.kind == "input" and part.id != INPUT else None
    return Placed(width / 2, width / 2, height, [Item(shown, part.kind, shapes)])


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
        mine = [end_of(series, kind) or end_of(item.nodes[b if kind == "input" else a], kind)
                if not series.items and (b if kind == "input" else a) >= 0 else end_of(series, kind)
                for a, b, series in item.edges if (a == INPUT if kind == "input" else b == OUTPUT)]
        return min(mine, default=0)
    return 0


def place_box(box: Box, style: Style) -> Placed:
    """A group in a frame with its inside, or, where there is no room for that, in a few words."""
    part = box.part
    if box.inner is not None and style.nested:
        inner = place_series(box.inner, style)
        title = title_of(part)
        wide = text_width(title, "title") + 2 * PAD
        left = inner.left + 10
        right = max(inner.right + 10, wide + 4)  # the title stands on the right of the line that enters
        head = 22
        items = [Item(part.id, "frame", [["r", "frame", -left, 0, left + right, inner.height + head + 10, 6],
                                         ["t", "title", PAD + 2, 12, "start", title]])]
        lines = [] if end_of(box.inner, "input") else [line([0, 0, 0, head])]
        if not end_of(box.inner, "output"):
            lines.append(line([0, head + inner.height, 0, head + inner.height + 10]))
        return Placed(left, right, inner.height + head + 10, [*items, *lines, *moved(inner.items, 0, head)])
    lines = [("title", title_of(part))]
    words = [style.label(text) for text in box.summary]
    if len(words) > 6:
        words = [*words[:5], f"\u2026 {len(words) - 5} more"]
    lines += [("small", piece) for text in words for piece in wrap(text, style.label_width, "small")]
    if style.numbers and part.output_shape:
        lines += [("small", f"\u2192 {shape_text(shape)}") for shape in box.results or [part.output_shape]]
    width = max(text_width(text, kind) for kind, text in lines) + 2 * style.pad
    shapes, y = [], 5.0
    for kind, text in lines:
        shapes.append(["t", kind, 0, y + LINE[kind] / 2, "middle", text])
        y += LINE[kind]
    height = y + 5
    return Placed(width / 2, width / 2, height, [Item(part.id, "group",
                                                      [["r", "box", -width / 2, 0, width, height, 6], *shapes])])


def title_of(part: Part) -> str:
    """The class of a group; of one without a class of its own, the end of its name, such as "branches.0"."""
    pieces = part.name.split(".")
    kept = 2 if pieces[-1].isdigit() else 1
    return ".".join(pieces[-kept:]) if part.label in CONTAINERS and part.name else part.label


def place_repeat(repeat: Repeat, style: Style) -> Placed:
    inner = place_series(repeat.body, style)
    text = f"\u00d7 {repeat.times}"
    wide = text_width(text, "title") + 4
    top = 10
    left, right = inner.left + 9, inner.right + 9
    height = inner.height + 2 * top
    items = [Item(None, "repeat", [["r", "repeat", -left, 0, left + right, height, 6],
                                   ["t", "title", right + 5, height / 2, "start", text]])]
    return Placed(left, right + wide + 5, height, [
        *items, line([0, 0, 0, top], arrow=starts_with_box(repeat.body)), *moved(inner.items, 0, top),
        line([0, top + inner.height, 0, height])], is_box=False)


def starts_with_box(series: Series) -> bool:
    """Whether an arrow ends at the beginning; into the frame of a repeat goes a line, whose arrow is inside."""
    return bool(series.items) and isinstance(series.items[0], (Unit, Box))


def place_series(series: Series, style: Style) -> Placed:
    """One thing below the other on one axis, with arrows between them; branches run into the join that follows them."""
    if id(series) not in style.placed:
        style.placed[id(series)] = series, _place_series(series, style)  # held, so that its id stays its own
    return style.placed[id(series)][1]


def _place_series(series: Series, style: Style) -> Placed:
    left = right = 6.0
    y, items = 0.0, []
    things = list(series.items)
    before = None
    i = 0
    while i < len(things):
        thing, join = things[i], None
        following = things[i + 1] if i + 1 < len(things) else None
        if isinstance(thing, (Parallel, Graph)) and is_join(following):
            join = following
            i += 1
            if isinstance(thing, Graph):
                thing = with_join(thing, join)
        placed = place_parallel(thing, join, style) if isinstance(thing, Parallel) else place(thing, style)
        if before is not None:
            gap = GAP if placed.is_box or isinstance(thing, Repeat) else 10
            items.append(line([0, y, 0, y + gap], arrow=placed.is_box))
            y += gap
        items += moved(placed.items, 0, y)
        y += placed.height
        left, right = max(left, placed.left), max(right, placed.right)
        before = placed
        i += 1
    return Placed(left, right, y, items, starts_with_box(series))


def place_parallel(parallel: Parallel, join: Unit | None, style: Style) -> Placed:
    """Branches between a fork and, if there is one, the join below them: side by side, or, where there is no room for
    that, below each other."""
    placed = place_abreast(parallel, join, style)
    if placed.left + placed.right <= style.room:
        return placed
    end = 0 if join else OUTPUT
    edges = [(INPUT, end, branch) for branch in parallel.branches]
    return place_column(Graph([join] if join else [], [*edges, *([(0, OUTPUT, Series([]))] if join else [])]), style)


def place_abreast(parallel: Parallel, join: Unit | None, style: Style) -> Placed:
    """Branches side by side; shortcuts are plain lines.

    One branch beside shortcuts stays on the axis and the shortcuts pass on the right; a gate, which multiplies, hangs
    on the right, and what it scales stays on the axis. More branches stand symmetrically, and so do those of different
    inputs, which begin beside each other without a fork.
    """
    fed, gives = (bool(end_of(parallel, kind)) for kind in ENDS)
    if fed or gives:  # in the order of the inputs, or of the outputs
        parallel = Parallel(sorted(parallel.branches, key=lambda branch: end_of(branch, "input" if fed else "output")))
    full = [branch for branch in parallel.branches if branch.items]
    count = len(parallel.branches) - len(full)
    columns = [place_series(branch, style) for branch in full]
    heads = [starts_with_box(branch) for branch in full]
    kind = join.layers[0].kind if join else ""
    is_bar = kind == "concatenate"
    bare = Placed(4, 4, 0, [], False)
    if len(full) == 1 and count:
        if kind == "multiply":
            columns, heads, on_axis = [bare] * count + columns, [False] * count + heads, 0
        else:
            columns, heads, on_axis = columns + [bare] * count, heads + [False] * count, 0
    elif len(full) == 2 and not count and not is_bar and not fed and not gives:
        longer = 0 if columns[0].height >= columns[1].height else 1
        columns, heads = [columns[longer], columns[1 - longer]], [heads[longer], heads[1 - longer]]
        on_axis = 0
    else:
        columns, heads, on_axis = columns + [bare] * count, heads + [False] * count, None
    xs, x = [], 0.0
    for i, column in enumerate(columns):
        x += column.left if i else 0
        xs.append(x)
        x += column.right + style.aside
    if on_axis is None:
        middle = (xs[0] + xs[-1]) / 2
        xs = [x - middle for x in xs]
    fork = 12
    tall = max(column.height for column in columns)
    top = 0 if fed else fork + GAP - 4
    bottom = top + tall
    items = []
    end = bottom + (GAP - 2 if not gives else 0)
    if is_bar:
        low, high = min(xs), max(xs)
        joined = place_unit(join, style, least=max(2 * max(-low, high) + 24, 0))
    elif join:
        joined = place_unit(join, style)
    else:
        joined = None
    for x, column, has_head in zip(xs, columns, heads):
        start = top if fed else bottom - column.height if gives else top + (tall - column.height) / 2
        lead = [x, start] if column.items else [x, bottom]
        path = [0, 0, 0, lead[1]] if x == 0 else [0, 0, 0, fork - 4, x, fork - 4, *lead]
        if not fed:
            items.append(line(path, arrow=has_head))
        items += moved(column.items, x, start)
        low = start + column.height if column.items else bottom
        if gives:
            continue
        if joined is None:
            items.append(line([x, low, x, end - 8, 0, end - 8, 0, end] if x else [0, low, 0, end]))
        elif is_bar or x == 0:
            items.append(line([x, low, x, end], arrow=True))
        else:
            reach = joined.left if x < 0 else joined.right
            at = end + joined.height / 2
            items.append(line([x, low, x, at, (-reach if x < 0 else reach), at], arrow=True))
    height = end
    if joined is not None:
        items += moved(joined.items, 0, end)
        height += joined.height
    left = max([column.left - x for x, column in zip(xs, columns)] + ([joined.left] if joined else []))
    right = max([column.right + x for x, column in zip(xs, columns)] + ([joined.right] if joined else []))
    return Placed(left, right, height, items, False)


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


def with_join(graph: Graph, join: Unit) -> Graph:
    """The graph with the join that follows it as its last node, so that branches come to it one by one."""
    number = len(graph.nodes)
    edges = [(a, number if b == OUTPUT else b, series) for a, b, series in graph.edges]
    return Graph([*graph.nodes, join], [*edges, (number, OUTPUT, Series([]))])


def is_join(item: object) -> TypeGuard[Unit]:
    return isinstance(item, Unit) and item.layers[0].kind in JOINS


def ends_with_arrow(thing) -> bool:
    return starts_with_box(thing) if isinstance(thing, Series) else isinstance(thing, (Unit, Box))


def place_graph(graph: Graph, style: Style) -> Placed:
    """Layers by longest paths, orders by the means of neighbours, places by least squares without overlap; where there
    is no room for that, everything below each other.

    An edge over several layers keeps a lane of its own in each; a concatenation alone in its layer is as wide as what
    it joins.
    """
    things, nodes, edges = opened(graph, style)
    heads = list(map(ends_with_arrow, things))
    lane = Placed(5, 5, 0, [], False)
    source, sink = len(nodes), len(nodes) + 1
    nodes += [lane, lane]
    heads += [False, False]
    edges = [(source if a == INPUT else a, sink if b == OUTPUT else b) for a, b in edges]
    fed, gives = ({node for node, thing in enumerate(things) if end_of(thing, kind)} for kind in ENDS)
    rank = ranks(len(nodes), edges, source, sink, fed)
    for node in gives:
        rank[node] = rank[sink] - 1
    count = len(nodes)
    links = []  # (upper, lower) between neighbouring layers
    for a, b in edges:
        upper = a
        for level in range(rank[a] + 1, rank[b]):
            nodes.append(lane)
            heads.append(False)
            rank.append(level)
            links.append((upper, len(nodes) - 1))
            upper = len(nodes) - 1
        links.append((upper, b))
    links = [(a, b) for a, b in links if not (a == source and b in fed or a in gives and b == sink)]
    levels = [[] for _ in range(max(rank) + 1)]
    for node, level in enumerate(rank):
        levels[level].append(node)
    above = {node: [] for node in range(len(nodes))}
    below = {node: [] for node in range(len(nodes))}
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
    tops = {}
    bounds = []
    for i, level in enumerate(levels):
        if i and not (i == 1 and fed or i == len(levels) - 1 and gives):
            span = max((abs(at(a, xs[b]) - at(b, xs[a])) for b in level for a in above[b]), default=0)
            y += max(GAP + 4, min(64, 18 + 0.12 * span)) if i < len(levels) else GAP
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
        if len(near) > 1 and node < len(things) and things[node].layers[0].kind == "concatenate":
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
        shapes.append(["p", "tip", [to_x, end, to_x - 3.5, end - 6, to_x + 3.5, end - 6]])
    return Item(None, "line", shapes)


def ranks(count: int, edges: Sequence[tuple[int, int]], source: int, sink: int, fixed: Iterable[int] = ()) -> list[int]:
    """Longest paths from the source; what nothing holds from above moves down to what reads it, but for the `fixed`."""
    readers = [[] for _ in range(count)]
    waiting = [0] * count
    for a, b in edges:
        readers[a].append(b)
        waiting[b] += 1
    rank = [0 if node == source else 1 for node in range(count)]
    order, ready = [], [node for node in range(count) if not waiting[node]]
    while ready:
        node = ready.pop()
        order.append(node)
        for reader in readers[node]:
            rank[reader] = max(rank[reader], rank[node] + 1)
            waiting[reader] -= 1
            if not waiting[reader]:
                ready.append(reader)
    rank[sink] = max(rank[sink], max(rank[node] for node in range(count) if node != sink) + 1)
    sources = [0] * count
    for _, b in edges:
        sources[b] += 1
    for node in reversed(order):
        free = node not in (source, sink, *fixed) and sources[node] <= 1
        if free and len(readers[node]) == 1 and readers[node][0] != sink:
            rank[node] = rank[readers[node][0]] - 1
    return rank


def ordered(levels: list[list[int]], above: dict, below: dict) -> list[list[int]]:
    """Nodes of each layer by the mean place of their neighbours, down and up; the order with fewest crossings wins."""
    def crossings(levels):
        total = 0
        for level in levels[1:]:
            upper = [place[a] for b in level for a in sorted(above[b], key=place.get)]
            total += sum(first > second for i, first in enumerate(upper) for second in upper[i + 1 :])
        return total

    def number(levels):
        return {node: i for level in levels for i, node in enumerate(level)}

    place = number(levels)
    links = sum(map(len, above.values()))
    best, fewest = [level[:] for level in levels], crossings(levels) if links < 2500 else 0
    for sweep in range(8 if links < 2500 else 2):
        neighbours = above if sweep % 2 == 0 else below
        for level in levels if sweep % 2 == 0 else levels[::-1]:
            level.sort(key=lambda node: (sum(place[other] for other in neighbours[node]) / len(neighbours[node])
                                         if neighbours[node] else place[node], place[node]))
            place.update({node: i for i, node in enumerate(level)})
        if links < 2500 and (found := crossings(levels)) < fewest:
            best, fewest = [level[:] for level in levels], found
    return best if links < 2500 else levels


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


def place_column(graph: Graph, style: Style) -> Placed:
    """Everything below each other: what is read at once by the next stands above it, all else comes by wires.

    A wire on the left leads from a map to all that read it, one on the right from the end of a branch to the join that
    alone reads it.
    """
    things, nodes, edges = opened(graph, style)
    fed, gives = ({node: number for node, thing in enumerate(things) if (number := end_of(thing, kind))}
                  for kind in ENDS)
    edges = [(a, b) for a, b in edges if not (a == INPUT and b in fed or a in gives and b == OUTPUT)]
    order = column_order(edges, [sorted(numbers, key=numbers.get) for numbers in (fed, gives)],
                         {node for node, thing in enumerate(things) if is_join(thing)})
    last = len(order)
    row = {node: i for i, node in enumerate(order)} | {INPUT: -1, OUTPUT: last}
    direct, wires = set(), []  # direct: rows that the one above them leads into
    for node in (INPUT, *order):
        rows = sorted({row[b] for a, b in edges if a == node})
        below = row[node] + 1
        if below in rows:
            direct.add(rows.pop(0))
        elif len(rows) == 1 and node != INPUT and (rows[0] == last or is_join(things[order[rows[0]]])):
            wires.append(Wire(row[node], rows, on_right=True))
            continue
        if rows:
            wires.append(Wire(row[node], rows, on_right=False))
    sides = [in_lanes([wire for wire in wires if wire.on_right == on_right]) for on_right in (False, True)]
    reach = [max((side(placed) for placed in nodes), default=0) + 2
             for side in (lambda placed: placed.left, lambda placed: placed.right)]

    def across(wire: Wire) -> float:
        place = reach[wire.on_right] + LANE * (wire.lane + 1)
        return place if wire.on_right else -place

    left, right = (room + LANE * (lanes + 1) if lanes else room for room, lanes in zip(reach, sides))
    y, items = 0.0, []
    come = {}  # the points through which each wire has come
    for i, node in enumerate((*order, OUTPUT)):
        thing, placed = (None, Placed(0, 0, 0, [])) if node == OUTPUT else (things[node], nodes[node])
        head = thing is not None and ends_with_arrow(thing)
        is_bar = is_join(thing) and thing.layers[0].kind == "concatenate"
        leaving = next((wire for wire in wires if wire.start == i - 1), None)
        ending = sorted((wire for wire in wires if i in wire.rows), key=lambda wire: wire.lane)
        spans = is_bar and not any(wire.start < i < wire.rows[-1] for wire in wires)
        sideways = is_join(thing) and not is_bar  # wires end at the side of a circle
        turning = 0 if spans or sideways else len(ending)  # others turn to the axis above the row
        gap = 0.0 if node == OUTPUT or i == 0 and node in fed else 14.0 if node in fed else GAP
        if leaving:
            come[id(leaving)] = [0, y, 0, y + 8, across(leaving), y + 8]
            gap = max(gap, GAP + 8.0)
        turn = y + (20 if leaving else 6)
        if turning:
            gap = max(gap, turn - y + 8 * turning + 8)
        entries = [0.0] * len(ending)
        if spans:
            entries = list(map(across, ending))
        elif is_bar or head and (i in direct or turning > 1):
            entries = beside_middle(ending, i in direct)
        if is_bar:
            placed = place_unit(thing, style, least=2 * max([0.0, *map(abs, entries)]) + 16)
            left, right = max(left, placed.left), max(right, placed.right)
        top = y + gap
        if i in direct and gap:
            items.append(line([0, y, 0, top], arrow=head))
        for wire, entry in zip(ending, entries):
            x = across(wire)
            if spans:
                end = [x, top]
            elif sideways:
                middle = top + placed.height / 2
                end = [x, middle, placed.right if wire.on_right else -placed.left, middle]
            else:
                end = [x, turn, entry, turn, entry, top]
                turn += 8
            items.append(line([*come[id(wire)], *end], arrow=head))
            come[id(wire)] = [x, end[1] - BEND]
        items += moved(placed.items, 0, top)
        y = top + placed.height
    return Placed(left, right, y, items, False)


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
    sources, readers = {}, {}
    for a, b in edges:
        sources.setdefault(b, []).append(a)
        readers.setdefault(a, []).append(b)
    order, done = [], {INPUT}

    def put(node):
        order.append(node)
        done.add(node)

    for node in ends[0]:
        put(node)
        while len(after := set(readers.get(node, ()))) == 1:
            node, = after
            if node in {OUTPUT, *joins, *ends[1]} or not done.issuperset(sources[node]):
                break
            put(node)
    for end in (*ends[1], OUTPUT):
        stack = [end]
        while stack:
            missing = next((source for source in sources.get(stack[-1], ()) if source not in done), None)
            if missing is not None:
                stack.append(missing)
            elif (node := stack.pop()) != OUTPUT:
                put(node)
    return order


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


# The network as a strip of solids


@dataclass
class Cell:
    """One place of a strip: a map drawn as a solid, `copies` of it, lines of text; `others` go out beside it.

    `widths` are the channels behind each copy, where they grow. `towers` are the parts into which grouped convolutions
    divide the channels, and `mixes` says that what makes this map reads all of those before it; with `streams` one
    block gives out all of the maps, and all are drawn.
    """

    part: int | None
    kind: str
    shape: tuple[int, ...]
    copies: int
    lines: list[tuple[str, str]]
    mark: str = ""
    others: Sequence[tuple[int, ...]] = ()
    widths: Sequence[int] = ()
    towers: int = 1
    mixes: bool = True
    streams: bool = False


def cells_of(diagram: Diagram, series: Series, style: Style) -> list[Cell] | None:
    """A cell for each part in a row, beginning with the input; None if the network is no row."""
    cells = [Cell(None, "input", diagram.input_shape, 1, [("title", "input")])]
    for item in series.items:
        times = 1
        if isinstance(item, Repeat):
            times = item.times
            item = item.body.items[0]
        if isinstance(item, Unit):
            main = next((layer for layer in item.layers if layer.kind not in STRIPS), item.layers[0])
            strips = [layer.label for layer in item.layers if layer.kind in STRIPS]
            label = style.label(main.label)
            lines = [("main", label if times == 1 else f"{times} \u00d7 ({label})")]
            others = [style.label(layer.label) for layer in item.layers if layer is not main
                      and layer.kind not in STRIPS]
            lines += [("small", ", ".join(others + strips))] if others or strips else []
            cells.append(Cell(main.id, main.kind, main.output_shape, times, lines))
        elif isinstance(item, Box):
            cell = cell_of(diagram, item.part, style, times)
            cell.shape, *cell.others = dict.fromkeys(item.results or [cell.shape])
            cell.streams = len(ending(diagram, item.part)) == 1
            cells.append(cell)
        elif isinstance(item, Parallel) and not any(branch.items for branch in item.branches):
            continue
        else:
            return None
    divide(diagram, cells)
    return with_shapes(cells, style)


def ending(diagram: Diagram, part: Part) -> set[int]:
    """The children of a part whose maps are read outside it, or are the answer."""
    inside, found = {layer.id for layer in diagram.layers(part)}, set()
    for layer in {source for source, target in diagram.edges if source in inside and target not in inside}:
        while (parent := diagram.parts[layer].parent) not in (part.id, None):
            layer = parent
        found.add(layer)
    return found


def divide(diagram: Diagram, cells: list[Cell]) -> None:
    """Find the towers: a convolution in a few groups reads its map in as many parts, and makes one, as AlexNet's on two
    processors; pooling works on each channel alone and keeps them; a convolution in one group makes any."""
    layers = [Part(-1, "", cell.kind, "") if cell.part is None else diagram.parts[cell.part] for cell in cells]
    for i, layer in enumerate(layers):
        groups = layer.details.get("groups", 1)
        cells[i].mixes = layer.kind != "pool" and groups == 1
        if 1 < groups <= 4 and not layer.details["depthwise"]:
            first, last = i - 1, i + 1
            while layers[first].kind == "pool":
                first -= 1
            while last < len(layers) and layers[last].kind == "pool":
                last += 1
            for cell in cells[first + (layers[first].kind != "conv"):last]:
                cell.towers = groups


def cell_of(diagram: Diagram, part: Part, style: Style, times: int = 1) -> Cell:
    """A group as the map that it gives out, with its blocks in words."""
    lines = [("title", part.label if times == 1 else f"{times} \u00d7 {part.label}")]
    lines += [("small", style.label(text)) for text in contents(diagram, part)]
    if len(part.output_shape) == 1:  # the answer, however many blocks lead to it
        last = [layer.kind for layer in diagram.layers(part) if layer.kind in HEAVY]
        return Cell(part.id, "fc" if last and last[-1] == "fc" else "conv", part.output_shape, times, lines)
    maps = [shape for shapes in blocks_in(diagram, part).values() for shape in shapes]
    widths = [shape[0] for shape in maps if shape] if times == 1 else []
    return Cell(part.id, "conv", part.output_shape, max(times, len(maps)), lines, widths=widths)


def with_shapes(cells: list[Cell], style: Style) -> list[Cell]:
    """The cells with their shapes as a last line, where the words have not said them."""
    for cell in cells:
        said = any(text.rstrip(")").endswith(f", {shape_text(cell.shape)}") for _, text in cell.lines)
        if style.numbers and cell.shape and not (said and len(cell.shape) == 1):
            cell.lines += [("small", shape_text(shape)) for shape in (cell.shape, *cell.others)]
    return cells


def solid(cell: Cell, most: float, largest: int, thin: float = 1.0, least: float = 2.5) -> tuple[float, float, Item]:
    """Width, height and shapes of a cell's map: height and depth show rows and columns, the thickness channels.

    Lengths grow with the 0.55th power of the size, thicknesses with the 0.4th of the channels, so that 7x7 beside
    224x224 can still be seen. A vector is an upright bar.
    """
    shape = cell.shape
    if len(shape) == 3:
        channels, rows, columns = shape if shape[0] != min(shape) or shape[0] <= 4 or shape[1] != shape[0] else shape
        tall = max(4.0, most * (rows / largest) ** 0.55)
        depth = max(2.0, 0.42 * most * (columns / largest) ** 0.55)
        thick = max(least, 2.0 * thin * channels**0.4)
    elif len(shape) == 2:  # tokens
        tall, depth, thick = min(most, 8 * shape[0] ** 0.4), 4.0, max(3.0, 2.0 * shape[1] ** 0.4)
    else:
        values = shape[0] if shape else 1
        tall, depth, thick = min(most, max(14.0, 6.0 * values**0.3)), 0.0, 7.0
    copies = min(cell.copies, 4)
    if copies > 1:
        thick = max(1.2 * least, thick / copies**0.5)
    thicks = [thick] * copies
    if copies > 1 and len(cell.widths) == cell.copies and cell.widths == sorted(cell.widths):
        shown = [cell.widths[round(i * (cell.copies - 1) / (copies - 1))] for i in range(copies)]
        thicks = [max(1.2 * least, thick * (wide / shown[-1]) ** 0.4) for wide in shown]
    dx, dy = 0.72 * depth, 0.72 * depth
    width = sum(thicks) + (copies - 1) * 1.2 * least + dx
    shapes = []
    x = 0.0
    for thick in thicks:
        if depth:
            shapes.append(["p", "side", [x + thick, dy, x + thick + dx, 0, x + thick + dx, tall, x + thick, tall + dy]])
            shapes.append(["p", "top", [x, dy, x + dx, 0, x + thick + dx, 0, x + thick, dy]])
        shapes.append(["p", "face", [x, dy, x + thick, dy, x + thick, tall + dy, x, tall + dy]])
        x += thick + 1.2 * least
    return width, tall + dy, Item(cell.part, cell.kind, shapes, cell.mark)


TOWERS = 7  # pixels between solids of one cell


def together(drawn: Sequence[tuple[float, float, Item]], beside: bool) -> tuple[float, float, Item]:
    """Solids of one cell, below or beside each other: towers, or maps that go out together."""
    width, height = max(wide for wide, _, _ in drawn), max(high for _, high, _ in drawn)
    at, shapes = 0.0, []
    for wide, high, item in drawn:
        dx, dy = (at, (height - high) / 2) if beside else ((width - wide) / 2, at)
        shapes += moved([item], dx, dy)[0].shapes
        at += (wide if beside else high) + TOWERS
    size = (at - TOWERS, height) if beside else (width, at - TOWERS)
    return *size, dataclasses.replace(drawn[0][2], shapes=shapes)


def between(before: Cell, after: Cell, sizes: tuple[float, float], ends: tuple[float, float],
            middles: tuple[float, float], down: bool) -> list[Item]:
    """Arrows from each tower to the one behind it, or, where what is behind reads them all, from each to each.

    `sizes` of both across the arrows, `ends` and `middles` of the arrows along and across them.
    """
    places = [[middle + size * ((k + 0.5) / cell.towers - 0.5) for k in range(cell.towers)]
              for cell, size, middle in zip((before, after), sizes, middles)]
    pairs = product(*places) if after.mixes or before.towers != after.towers else zip(*places)
    return [line([a, ends[0], b, ends[1]] if down else [ends[0], a, ends[1], b], arrow=True) for a, b in pairs]


def apart(cells: list[Cell], solids: list, at: int, reader: int, ends: tuple[float, float],
          middle: float) -> list[Item]:
    """Arrows at a cell as far as they go within a row: one, or one for each tower that is read by itself."""
    alone = not cells[reader].mixes and cells[reader - 1].towers == cells[reader].towers
    cell = dataclasses.replace(cells[at], mixes=False, towers=cells[at].towers if alone else 1)
    return between(cell, cell, (solids[at][1],) * 2, ends, (middle, middle), down=False)


def strip(cells: list[Cell], width: float, narrow: bool) -> tuple[float, float, list[Item]]:
    """The cells in rows of at most `width`; on a narrow page one below the other, with text on the right."""
    largest = max([max(cell.shape[1:]) for cell in cells if len(cell.shape) == 3] or [1])
    most, solids = 72 if narrow else 104, []
    for cell in cells:
        channels, *space = cell.shape or (1,)
        shapes = [(max(1, channels // cell.towers), *space)] * cell.towers + list(cell.others if cell.streams else ())
        solids.append(together([solid(dataclasses.replace(cell, shape=shape), most, largest) for shape in shapes],
                               beside=narrow and cell.towers > 1))
    if narrow:
        return column(cells, solids, width)
    arrow = 16
    texts = [[(kind, piece) for kind, text in cell.lines for piece in wrap(text, 132 if kind == "small" else 104, kind)]
             for cell in cells]
    widths = [max([wide, *(text_width(text, kind) for kind, text in lines)]) + 6
              for (wide, _, _), lines in zip(solids, texts)]
    one_row = sum(widths) + arrow * (len(widths) - 1) <= width
    rows = [list(range(len(cells)))] if one_row else even_rows(widths, arrow, width - 2 * arrow - 4)
    items, y, right = [], 0.0, 0.0
    for number, row in enumerate(rows):
        tall = max(solids[i][1] for i in row)
        x = 0.0 if number == 0 else arrow + 4
        for place_in_row, i in enumerate(row):
            wide, high, item = solids[i]
            middle = y + tall / 2
            if place_in_row and cells[i - 1].towers + cells[i].towers > 2:
                start, end = x - arrow - (widths[i - 1] - solids[i - 1][0]) / 2 + 3, x + (widths[i] - wide) / 2 - 3
                items += between(cells[i - 1], cells[i], (solids[i - 1][1], high), (start, end), (middle, middle),
                                 down=False)
            elif place_in_row or number:
                items += apart(cells, solids, i, i, (x - arrow + 1 if place_in_row else 2, x - 1), middle)
            cell = Item(item.part, item.kind, [], item.mark)
            cell.shapes += moved([item], x + (widths[i] - wide) / 2, y + (tall - high) / 2)[0].shapes
            text_y = y + tall + 8
            for kind, text in texts[i]:
                cell.shapes.append(["t", kind, x + widths[i] / 2, text_y + LINE[kind] / 2, "middle", text])
                text_y += LINE[kind]
            items.append(cell)
            x += widths[i] + arrow
            right = max(right, x - arrow)
        bottom = y + tall + 8 + max(sum(LINE[kind] for kind, _ in texts[i]) for i in row)
        if number < len(rows) - 1:
            items += apart(cells, solids, row[-1], row[-1] + 1, (x - arrow + 1, x - 1), y + tall / 2)
            right = max(right, x)
        y = bottom + 18
    return right, y - 18, items


def even_rows(widths: Sequence[float], arrow: float, most: float) -> list[list[int]]:
    """The cells in as few rows as go, the widest of these as short as it can be."""
    def fill(limit):
        rows, row, used = [], [], 0.0
        for i, wide in enumerate(widths):
            if row and used + arrow + wide > limit:
                rows.append(row)
                row, used = [], 0.0
            used += wide + (arrow if row else 0)
            row.append(i)
        return [*rows, row]

    low, high, count = max(widths), most, len(fill(most))
    for _ in range(24):
        middle = (low + high) / 2
        low, high = (low, middle) if len(fill(middle)) <= count else (middle, high)
    return fill(high)


def column(cells: list[Cell], solids, width: float) -> tuple[float, float, list[Item]]:
    room = max(wide for wide, _, _ in solids)
    texts = [[(kind, piece) for kind, text in cell.lines for piece in wrap(text, width - room - 12, kind)]
             for cell in cells]
    items, y, right, spare = [], 0.0, 0.0, 0.0
    for i, ((wide, high, item), lines) in enumerate(zip(solids, texts)):
        words = sum(LINE[kind] for kind, _ in lines)
        tall = max(high, words)
        if i:
            plain = cells[i - 1].towers + cells[i].towers == 2
            gap = 16 if plain or not cells[i].mixes else 26
            over, under = (0, 0) if plain else (spare, (tall - high) / 2)
            items += between(cells[i - 1], cells[i], (solids[i - 1][0], wide), (y + 2 - over, y + gap - 2 + under),
                             (room / 2, room / 2), down=True)
            y += gap
        spare = (tall - high) / 2
        one = Item(item.part, item.kind, [], item.mark)
        one.shapes += moved([item], (room - wide) / 2, y + (tall - high) / 2)[0].shapes
        text_y = y + (tall - words) / 2
        for kind, text in lines:
            one.shapes.append(["t", kind, room + 12, text_y + LINE[kind] / 2, "start", text])
            right = max(right, room + 12 + text_width(text, kind))
            text_y += LINE[kind]
        items.append(one)
        y += tall
    return right, y, items


# A network that goes down and up again, as two columns


@dataclass
class Ladder:
    """Down one side and up the other: parts in forward order, (row, side) of each, and what passes across."""

    parts: list[Part]
    rows: list[int]  # the input stands in row 0
    turn: int  # number of parts on the way down
    across: list[tuple[int, int]]


def ladder_of(diagram: Diagram) -> Ladder | None:
    """How a network is laid out that goes down and up again beside its own maps, such as a U-Net; None for others.

    All parts must follow one after the other, maps become smaller and then larger, and what else is read goes from a
    part on the way down to one on the way up, the later the earlier.
    """
    parts = [diagram.parts[child] for child in diagram.parts[0].children]
    holder = {layer.id: i for i, part in enumerate(parts) for layer in diagram.layers(part)} | {INPUT: -1}
    pairs = {(holder[a], holder[b]) for a, b in diagram.edges if b != OUTPUT and holder[a] != holder[b]}
    if not all(len(part.output_shape) == 3 and (i - 1, i) in pairs for i, part in enumerate(parts)):
        return None
    across = sorted(pair for pair in pairs if pair[1] - pair[0] > 1)
    sides = [part.output_shape[1] for part in parts]
    turn = sides.index(min(sides)) + 1
    down, up = sides[:turn], sides[turn:]
    if not across or down != sorted(down, reverse=True) or up != sorted(up):
        return None
    if not all(0 <= a < turn <= b for a, b in across) or len({b for _, b in across}) < len(across) or [
            a for a, _ in sorted(across, key=lambda pair: pair[1])] != sorted((a for a, _ in across), reverse=True):
        return None
    beside = {b: a + 1 for a, b in across}
    rows = [i + 1 for i in range(turn)]
    for i in range(turn, len(parts)):
        rows.append(beside.get(i, rows[-1] - 1))
    if len(set(rows[turn:])) < len(parts) - turn or rows[turn:] != sorted(rows[turn:], reverse=True) or (
            rows[turn] >= turn):
        return None
    return Ladder(parts, rows, turn, across)


def two_columns(diagram: Diagram, ladder: Ladder, style: Style, narrow: bool) -> tuple[float, float, list[Item]]:
    """The way down on the left and the way up on the right, a row for each size, words on the outer sides."""
    cells = [Cell(part.id, part.kind, part.output_shape, 1, [("main", style.label(part.label))]) if part.is_layer else
             cell_of(diagram, part, style) for part in ladder.parts]
    cells = with_shapes([Cell(None, "input", diagram.input_shape, 1, [("title", "input")]), *cells], style)
    for cell in cells:
        cell.copies = 1
    rows, turn = [0, *ladder.rows], ladder.turn + 1
    largest = max(max(cell.shape[1:]) for cell in cells)
    solids = [solid(cell, 44 if narrow else 88, largest, 0.75 if narrow else 1.0) for cell in cells]
    room = max(wide for wide, _, _ in solids)
    middle = 34 if narrow else 96
    most = (NARROW - 2 * room - middle - 16) / 2 if narrow else 190
    texts = [[(kind, piece) for kind, text in cell.lines for piece in wrap(text, most, kind)] for cell in cells]
    wide = [max((text_width(text, kind) for lines in some for kind, text in lines), default=0)
            for some in (texts[:turn], texts[turn:])]
    axes = (wide[0] + 8 + room / 2, wide[0] + 8 + room + middle + room / 2)  # of the solids on both sides
    tall = [max(max(solids[i][1], sum(LINE[kind] for kind, _ in texts[i])) for i in range(len(cells)) if rows[i] == row)
            for row in range(min(rows), max(rows) + 1)]
    tops = {row: sum(tall[: row - min(rows)]) + 18 * (row - min(rows)) for row in set(rows)}
    centre = {row: tops[row] + tall[row - min(rows)] / 2 for row in tops}
    items = []
    for i, (cell, (w, h, shapes)) in enumerate(zip(cells, solids)):
        axis, y = axes[i >= turn], centre[rows[i]]
        one = Item(shapes.part, shapes.kind, moved([shapes], axis - w / 2, y - h / 2)[0].shapes, shapes.mark)
        text_y = y - sum(LINE[kind] for kind, _ in texts[i]) / 2
        for kind, text in texts[i]:
            x, anchor = (axis - room / 2 - 8, "end") if i < turn else (axis + room / 2 + 8, "start")
            one.shapes.append(["t", kind, x, text_y + LINE[kind] / 2, anchor, text])
            text_y += LINE[kind]
        if i:
            before = centre[rows[i - 1]]
            if i == turn:
                start, end = axes[0] + solids[i - 1][0] / 2 + 3, y + h / 2 + 2
                items.append(line([start, before, axis, before, axis, end], arrow=True))
            else:
                sign = 1 if i < turn else -1
                start, end = before + sign * (solids[i - 1][1] / 2 + 2), y - sign * (h / 2 + 2)
                items.append(line([axis, start, axis, end], arrow=True))
        items.append(one)
    for a, b in ladder.across:
        y = centre[rows[a + 1]]
        items.append(line([axes[0] + solids[a + 1][0] / 2 + 3, y, axes[1] - solids[b + 1][0] / 2 - 3, y], arrow=True))
    return axes[1] + room / 2 + 8 + wide[1], max(tops[row] + tall[row - min(rows)] for row in tops), items


# A whole drawing


MARGIN = 8
LABELS = (170, 110, 74)  # pixels at which labels are broken
BOXES = {False: (190, 120, 74), True: (150, 74)}  # and texts of boxes, on a wide and on a narrow page


def styles(narrow: bool, nested: bool, **options) -> Iterator[Style]:
    """What is tried until a drawing fits the page: labels broken earlier, and on narrow pages less room between
    branches, and then branches below each other."""
    for width in LABELS if nested else BOXES[narrow]:
        yield Style(label_width=width, nested=nested, **options)
    if narrow:
        yield Style(label_width=66, nested=nested, aside=10, pad=5, **options)
        for width, taken in product((190, 130, 74), (0, 50, 100)):
            yield Style(label_width=width, nested=nested, aside=10, pad=5, room=NARROW - taken, **options)


def scene(diagram: Diagram, part: str = "", zoom: str | None = None, *, numbers: bool = True, narrow: bool = False,
          highlight: Sequence[str] = (), new: frozenset = frozenset(), ends: float = 0) -> Scene:
    """The drawing of one part at one zoom, placed: what `draw` writes as SVG and the network explorer shows.

    `new` holds ids of parts to be marked as different; `ends` is the room for names of inputs and outputs where
    `stand_in` is written in their place. Raises `ValueError` for names and zooms that are not there.
    """
    found = diagram.find(part)
    zoom = zoom or diagram.zoom_of(found)
    style = Style(numbers=numbers, ends=ends)
    series = diagram.structure(part, zoom)
    title = f"{diagram.title}, {found.label} ({found.name})" if found.name else diagram.title
    stacked = False
    cells = cells_of(diagram, series, style) if zoom == "network" else None
    ladder = ladder_of(diagram) if zoom == "network" and cells is None and found.parent is None else None
    if cells is not None or ladder is not None:
        width, height, items = (two_columns(diagram, ladder, style, narrow) if cells is None else
                                strip(cells, NARROW if narrow else WIDE, narrow))
        placed = Placed(0, width, height, items)
        x, y = MARGIN, MARGIN
    else:
        tried = []
        for style in styles(narrow, zoom == "block", numbers=numbers, ends=ends):
            tried.append((place_series(series, style), style.room))
            if tried[-1][0].left + tried[-1][0].right <= (NARROW if narrow else WIDE):
                break
        inner, room = min(tried, key=lambda one: one[0].left + one[0].right) if narrow else tried[-1]
        stacked = room < math.inf
        x, y = MARGIN + inner.left, MARGIN
        items = list(inner.items)
        height = inner.height
        first, last = [], []
        if numbers and (found.input_shape or diagram.input_shape):
            shape = found.input_shape or diagram.input_shape
            outs = [layer.output_shape for layer in diagram.layers(found)]
            end = shape_text(found.output_shape or outs[-1])
            inner, first, last = _with_ends(inner, None if end_of(series, "input") else shape_text(shape),
                                            None if end_of(series, "output") else end, starts_with_box(series))
            items = [*first, *items, *last]
            x, y, height = MARGIN + inner.left, MARGIN + (32 if first else 0), inner.height
        else:
            if not end_of(series, "input"):
                items.insert(0, line([0, -18, 0, 0], arrow=starts_with_box(series)))
            if not end_of(series, "output"):
                items.append(line([0, height, 0, height + 18], arrow=True))
            y, height = MARGIN + 18, height + 36
        placed = dataclasses.replace(inner, items=items, height=height)
    items = moved(placed.items, x, y)
    width = placed.left + placed.right + 2 * MARGIN
    height = placed.height + 2 * MARGIN
    if found.parent is None and diagram.idle:
        for text in wrap(idle_text(diagram.idle), max(width - 2 * MARGIN, NARROW - 60), "small"):
            items.append(Item(None, "shape", [["t", "small", MARGIN, height + LINE["small"] / 2, "start", text]]))
            width, height = max(width, text_width(text, "small") + 2 * MARGIN), height + LINE["small"]
        height += MARGIN / 2
    marked = _marked(diagram, items, highlight, new)
    return Scene(round(width, 1), round(height, 1), marked, title, words(diagram, found, series, bool(ends)), stacked)


def idle_text(idle: dict[str, str]) -> str:
    """ "Not used in evaluation: aux1, aux2 (AuxiliaryHead)"."""
    classes = {}
    for name, kind in idle.items():
        classes.setdefault(kind, []).append(name)
    groups = [", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "") + f" ({kind})"
              for kind, names in classes.items()]
    return "Not used in evaluation: " + "; ".join(groups[:3]) + ("; and more" if len(groups) > 3 else "")


def _with_ends(inner: Placed, first: str | None, last: str | None, arrow: bool) -> tuple[Placed, list, list]:
    """Lines into the top and out of the bottom, with the shapes of what flows there; None for an end that has its
    own."""
    reach = max(text_width(text, "small") for text in (first or "", last or "")) / 2
    height, top, bottom = inner.height, [], []
    if first is not None:
        top = [Item(None, "shape", [["t", "small", 0, -25, "middle", first]]), line([0, -17, 0, 0], arrow=arrow)]
        height += 32
    if last is not None:
        bottom = [line([0, inner.height, 0, inner.height + 17], arrow=True),
                  Item(None, "shape", [["t", "small", 0, inner.height + 26, "middle", last]])]
        height += 34
    return Placed(max(inner.left, reach), max(inner.right, reach), height, []), top, bottom


def _marked(diagram: Diagram, items: list[Item], highlight: Sequence[str], new: frozenset) -> list[Item]:
    if highlight:
        chosen = set()
        for name in highlight:
            diagram.find(name)  # raises for a name that is not there
            chosen |= {part.id for part in diagram.parts if part.name == name or part.name.startswith(name + ".")}
            inside = diagram.find(name)
            chosen |= {inside.id, *(layer.id for layer in diagram.layers(inside))}
        for item in items:
            if item.part is not None:
                item.mark = "on" if item.part in chosen else "off"
    for item in items:
        if item.part in new:
            item.mark = "new"
    return items


def words(diagram: Diagram, part: Part, series: Series, stand_ins: bool = False) -> str:
    """The drawing in words, for those who hear it."""
    start, end = shape_text(part.input_shape or diagram.input_shape), shape_text(part.output_shape)
    if any(ends_in(series, kind) for kind in ENDS):
        told = [" and ".join(f"{stand_in(end) if stand_ins else end.label} ({shape_text(end.output_shape)})"
                             for end in ends_in(series, kind)) for kind in ENDS]
        start, end = told[0].removeprefix("from ") or start, told[1].removeprefix("to ") or end
    text = f"From {start} to {end}: {say(series, stand_ins)}."
    text = text if len(text) < 1500 else text[:1500].rsplit(";", 1)[0] + "; and so on."
    return f"{text} {idle_text(diagram.idle)}." if part.parent is None and diagram.idle else text


def ends_in(series: Series, kind: str) -> list[Part]:
    """The inputs or outputs that a series names, by number."""
    found = {part.details["number"]: part for part in series.parts() if part.kind == kind}
    return [found[number] for number in sorted(found)]


def say(series: Series, stand_ins: bool = False) -> str:
    names = {"add": "added", "multiply": "multiplied", "concatenate": "concatenated", "mean": "averaged",
             "subtract": "subtracted", "maximum": "joined by their maximum"}
    said = []
    for item in series.items:
        if isinstance(item, Unit):
            first = item.layers[0]
            if first.kind in names:
                said.append(names[first.kind])
            else:
                said.append(", ".join(stand_in(layer) if stand_ins and layer.kind in ENDS else layer.label
                                      for layer in item.layers))
        elif isinstance(item, Box):
            said.append(f"{item.part.label} ({', '.join(item.summary)})")
        elif isinstance(item, Repeat):
            said.append(f"{item.times} times ({say(item.body, stand_ins)})")
        elif isinstance(item, Parallel):
            full = [f"({say(branch, stand_ins)})" for branch in item.branches if branch.items]
            shortcuts = len(item.branches) - len(full)
            full += ["a shortcut"] * min(shortcuts, 1)
            said.append(f"{len(item.branches)} branches: " + " beside ".join(full))
        elif isinstance(item, Graph):
            nodes = ", ".join(say(Series([node]), stand_ins) for node in item.nodes[:8])
            said.append(f"a graph of {len(item.nodes)} nodes: {nodes}" + (" and more" if len(item.nodes) > 8 else ""))
    return "; then ".join(said)


# Writing


LIGHT_DARK = {
    "conv": ("#c5e2f5", "#1f4e6e"), "pool": ("#fbe1ad", "#6b4c12"), "norm": ("#e4d8f2", "#4a3a63"),
    "act": ("#cfeadb", "#21533d"),
    "fc": ("#f8d0c8", "#6e3327"), "attention": ("#f6cfe3", "#632c4b"), "join": ("#ffffff", "#16181c"),
    "other": ("#e8eaed", "#3a4048"), "group": ("#f4f6f8", "#23272d"),
}
COLOUR_OF = {
    "drop": "other", "scale": "other", "flatten": "other", "pad": "other", "split": "join", "shuffle": "other",
    "resize": "pool",
    "concatenate": "join", "add": "join", "multiply": "join", "mean": "join", "subtract": "join", "maximum": "join",
    "input": "other", "output": "other", "frame": "group", "repeat": "group",
}
INK, LINES, ACCENT = ("#1c1f24", "#e6e8eb"), ("#5b636c", "#9aa2ab"), ("#d55e00", "#f08a43")


def style_sheet() -> str:
    """The colours, once for both themes: a light colour first, for programs that do not know `light-dark`."""
    def paint(selector, name, colours):
        return f"{selector}{{{name}:{colours[0]};{name}:light-dark({colours[0]},{colours[1]})}}"

    rules = [
        ".nd{color-scheme:light dark;"
        "font-family:system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',Arial,sans-serif}",
        "[data-theme=light] .nd,[data-jp-theme-light=true] .nd{color-scheme:light}"
        "[data-theme=dark] .nd,[data-jp-theme-light=false] .nd{color-scheme:dark}",
        "@media print{.nd,[data-theme=dark] .nd{color-scheme:light;print-color-adjust:exact}}",
        ".nd text{font-size:12px;dominant-baseline:central}.nd .small{font-size:10.5px}",
        ".nd .title{font-size:12.5px;font-weight:600}",
        paint(".nd text", "fill", INK), paint(".nd .small", "fill", INK),
        ".nd .line,.nd .sign{fill:none;stroke-width:1.3}", paint(".nd .line", "stroke", LINES),
        paint(".nd .tip", "fill", LINES),
        ".nd .sign{stroke-width:1.6}", paint(".nd .sign", "stroke", INK),
        ".nd .box,.nd .face,.nd .side,.nd .top{stroke-width:.8}",
        paint(".nd .box,.nd .face,.nd .side,.nd .top", "stroke", LINES),
        ".nd .frame,.nd .repeat{fill:none;stroke-width:1}", paint(".nd .frame,.nd .repeat", "stroke", LINES),
        ".nd .repeat{stroke-dasharray:5 4}.nd .side{filter:brightness(.86)}.nd .top{filter:brightness(.94)}",
        ".nd .off{opacity:.66;filter:saturate(.25)}.nd .on .box,.nd .on .face{stroke-width:2.4}",
        paint(".nd .on .box,.nd .on .face,.nd .new .box,.nd .new .face,.nd .new .frame", "stroke", ACCENT),
        ".nd .new .box,.nd .new .face,.nd .new .frame{stroke-width:2.2;stroke-dasharray:6 3}",
    ]
    rules += [paint(f".nd .k-{kind} :is(.box,.face,.side,.top)", "fill", colours)
              for kind, colours in LIGHT_DARK.items()]
    return "".join(rules)


def number(value: float) -> str:
    text = f"{value:.1f}"
    return text.removesuffix(".0").replace("-0", "0") if text in ("-0.0", "0.0") else text.removesuffix(".0")


def path_of(kind: str, points: Sequence[float]) -> str:
    """SVG path data of a line with rounded corners, or of a curve from the first point to the second."""
    pairs = list(zip(points[::2], points[1::2]))
    if kind == "b":
        (x, y), (to_x, to_y) = pairs
        middle = (y + to_y) / 2
        x, y, to_x, to_y, middle = map(number, (x, y, to_x, to_y, middle))
        return f"M{x} {y}C{x} {middle} {to_x} {middle} {to_x} {to_y}"
    text = f"M{number(pairs[0][0])} {number(pairs[0][1])}"
    for before, at, after in zip(pairs, pairs[1:], pairs[2:]):
        def towards(end):
            length = abs(end[0] - at[0]) + abs(end[1] - at[1])
            step = min(6, length / 2) / length if length else 0
            return f"{number(at[0] + (end[0] - at[0]) * step)} {number(at[1] + (end[1] - at[1]) * step)}"

        text += f"L{towards(before)}Q{number(at[0])} {number(at[1])} {towards(after)}"
    return text + f"L{number(pairs[-1][0])} {number(pairs[-1][1])}"


def escaped(text: str) -> str:
    """The text for XML, which has no place for control characters."""
    return html.escape(re.sub("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]", "\ufffd", text), quote=False)


def element(shape: list) -> str:
    kind, name = shape[:2]
    if kind == "r":
        x, y, width, height, radius = map(number, shape[2:])
        return f'<rect class="{name}" x="{x}" y="{y}" width="{width}" height="{height}" rx="{radius}"/>'
    if kind == "c":
        x, y, radius = map(number, shape[2:])
        return f'<circle class="{name}" cx="{x}" cy="{y}" r="{radius}"/>'
    if kind == "t":
        x, y, anchor, text = shape[2:]
        name = "" if name == "main" else f' class="{name}"'
        where = "" if anchor == "start" else f' text-anchor="{anchor}"'
        return f'<text{name} x="{number(x)}" y="{number(y)}"{where}>{escaped(text)}</text>'
    if kind == "p":
        return f'<polygon class="{name}" points="{" ".join(map(number, shape[2]))}"/>'
    return f'<path class="{name}" d="{path_of(kind, shape[2])}"/>'


def strokes(items: Iterable[Item]) -> tuple[str, str]:
    """All lines as the data of one path, and all arrow heads as that of another."""
    lines, tips = [], []
    for item in items:
        if item.kind == "line":
            for kind, _, points in item.shapes:
                if kind == "p":
                    pairs = [f"{number(x)} {number(y)}" for x, y in zip(points[::2], points[1::2])]
                    tips.append("M" + "L".join(pairs) + "Z")
                else:
                    lines.append(path_of(kind, points))
    return "".join(lines), "".join(tips)


def svg_of(scene: Scene, sheet: bool = True, role: str = "img") -> str:
    """The scene as one SVG element; lines first, then parts in forward order."""
    body = [f'<path class="{name}" d="{data}"/>' for name, data in zip(("line", "tip"), strokes(scene.items)) if data]
    for item in scene.items:
        if item.kind != "line":
            mark = f" {item.mark}" if item.mark else ""
            inner = "".join(map(element, item.shapes))
            body.append(f'<g class="k-{COLOUR_OF.get(item.kind, item.kind)}{mark}">{inner}</g>')
    text = "".join(body)
    key = f"{zlib.crc32((scene.title + text).encode()):08x}"
    style = f"<style>{style_sheet()}</style>" if sheet else ""
    width, height = number(scene.width), number(scene.height)
    return (f'<svg xmlns="http://www.w3.org/2000/svg" class="nd" viewBox="0 0 {width} {height}" '
            f'width="{width}" height="{height}" role="{role}" aria-labelledby="t{key} d{key}">'
            f'<title id="t{key}">{escaped(scene.title)}</title>'
            f'<desc id="d{key}">{escaped(scene.words)}</desc>{style}{text}</svg>')


def fit_rules(name: str) -> str:
    """Style of the frame of a drawing on a page: never wider than its own pixels, never wider than the page.

    The book's theme puts a light ground under outputs in its dark mode; a drawing has dark colours of its own.
    """
    return ("<style>html[data-theme=dark] .bd-content div.cell_output .text_html.text_html:has(.nd)"
            f"{{background:none;padding:0}}</style><style>.{name}{{container-type:inline-size;max-width:100%;overflow-x:auto}}"
            f".{name} svg{{display:block;max-width:100%;height:auto;margin:0 auto}}</style>")


@dataclass
class Drawing:
    """SVG for wide and for narrow places; in notebooks and on pages the one that fits is shown."""

    wide: Scene
    narrow: Scene = field(repr=False)

    @property
    def svg(self) -> str:
        return svg_of(self.wide)

    def save(self, path: str | Path, *, narrow: bool = False) -> Path:
        """Write the drawing as an SVG file of its own; it follows the theme of what shows it."""
        path = Path(path)
        path.write_text(svg_of(self.narrow if narrow else self.wide) + "\n", encoding="utf-8")
        return path

    def _repr_html_(self) -> str:
        if self.wide == self.narrow or self.wide.width <= NARROW:
            return f'<div class="nd-fit">{fit_rules("nd-fit")}{self.svg}</div>'
        limit = round(min(self.wide.width, WIDE) * 0.8)
        least = round(0.75 * self.narrow.width)  # where even this is too wide, it scrolls by itself
        name = f"nd-fit{limit}-{least}"
        rules = fit_rules(name) + (
            f"<style>.{name} svg+svg{{display:none;min-width:{least}px}}@container(max-width:{limit}px)"
            f"{{.{name} svg:has(+svg){{display:none}}.{name} svg+svg{{display:block}}}}</style>")
        return f'<div class="{name}" tabindex="0">{rules}{self.svg}{svg_of(self.narrow, sheet=False)}</div>'

    def __repr__(self) -> str:
        return f"Drawing({self.wide.title}, {number(self.wide.width)} x {number(self.wide.height)})"


def draw(diagram: Diagram, part: str = "", *, zoom: str | None = None, numbers: bool = True,
         highlight: Sequence[str] = (), beside: Diagram | None = None) -> Drawing:
    """A network, or the part of this name, as a `Drawing`.

    `zoom` is "network" (a strip of maps), "stage" (boxes with their blocks in words) or "block" (layer by layer); by
    default the one that suits the part. `numbers=False` leaves out channels and shapes. `highlight` names parts that
    stand out. `beside` is a second network, drawn next to the first; what one has and the other has not is outlined in
    both. Raises `ValueError` for a name or a zoom that is not there.
    """
    if isinstance(highlight, str):
        highlight = [highlight]
    options = {"zoom": zoom, "numbers": numbers, "highlight": highlight}
    if beside is None:
        return Drawing(*(scene(diagram, part, narrow=narrow, **options) for narrow in (False, True)))
    new, missing = differences(diagram, beside, part, zoom)
    pairs = [[scene(one, part if one is diagram or part in _names(one) else "", narrow=narrow, new=marks, **options)
              for one, marks in ((diagram, new), (beside, missing))] for narrow in (False, True)]
    return Drawing(*(side_by_side(*pair, stacked=narrow or sum(one.width for one in pair) > WIDE)
                     for narrow, pair in zip((False, True), pairs)))


SMALL = (176, 44)  # pixels of a small picture


def small_picture(diagram: Diagram) -> str:
    """A strip of the maps alone, without words, as an SVG file of one or two kilobytes for a list of many networks.

    All are equally high, and at most `SMALL` wide: deep networks are drawn with thinner maps closer together.
    """
    cells = cells_of(diagram, diagram.structure(), Style(numbers=False)) or [
        Cell(None, "input", diagram.input_shape, 1, []),
        *(Cell(part.id, "conv" if part.kind == "group" else part.kind, part.output_shape, 1, [])
          for part in map(diagram.parts.__getitem__, diagram.parts[0].children))]
    largest = max([max(cell.shape[1:]) for cell in cells if len(cell.shape) == 3] or [1])
    solids, width, gap = [], 0.0, 0
    for thin, gap in ((0.55, 5), (0.4, 4), (0.3, 3), (0.2, 2), (0.1, 1), (0.1, -3)):
        solids = [solid(cell, 30, largest, thin, least=4.5 * thin) for cell in cells]
        width = sum(wide + gap for wide, _, _ in solids) - gap + 4
        if width <= SMALL[0]:
            break
    x, groups = 2.0, []
    for wide, high, item in solids:
        faces = {}
        for shape in moved([item], x, (SMALL[1] - high) / 2)[0].shapes:
            faces[shape[1]] = faces.get(shape[1], "") + _outline(shape[2])
        inner = "".join(f'<path class="{name}" d="{data}"/>' for name, data in faces.items())
        groups.append((COLOUR_OF.get(item.kind, item.kind), inner))
        x += wide + gap
    sheet = ".nd{color-scheme:light dark}path{stroke-width:.5;stroke:#888}.side{filter:brightness(.86)}" + "".join(
        f".k-{kind}{{fill:{light};fill:light-dark({light},{dark})}}" for kind, (light, dark) in LIGHT_DARK.items()
        if kind in dict(groups))
    body = "".join(f'<g class="k-{kind}">{inner}</g>' for kind, inner in groups)
    size = f"{number(max(width, SMALL[0]))} {SMALL[1]}"
    return (f'<svg xmlns="http://www.w3.org/2000/svg" class="nd" viewBox="0 0 {size}" width="{SMALL[0]}" '
            f'height="{SMALL[1]}"><title>{escaped(diagram.title)}</title><style>{sheet}</style>{body}</svg>')


def _outline(points: Sequence[float]) -> str:
    """A closed path from the first point by steps to the others."""
    pairs = [(round(10 * x), round(10 * y)) for x, y in zip(points[::2], points[1::2])]
    steps = (f"{number((to_x - x) / 10)} {number((to_y - y) / 10)}" for (x, y), (to_x, to_y) in zip(pairs, pairs[1:]))
    return f"M{number(pairs[0][0] / 10)} {number(pairs[0][1] / 10)}l{' '.join(steps)}z".replace(" -", "-")


def _names(diagram: Diagram) -> set[str]:
    return {part.name for part in diagram.parts} | set(diagram.aliases)


def differences(one: Diagram, other: Diagram, part: str = "", zoom: str | None = None) -> tuple[frozenset, frozenset]:
    """Ids of the parts that the other diagram does not have at this place, in both; compared by kind, label and
    shape."""
    found = []
    for diagram in (one, other):
        series = diagram.structure(part if diagram is one or part in _names(diagram) else "", zoom)
        found.append(_flat(series))
    keys = [[key for key, _ in entries] for entries in found]
    marks = [set(), set()]
    for tag, a, b, c, d in difflib.SequenceMatcher(None, *keys, autojunk=False).get_opcodes():
        if tag != "equal":
            for side, (low, high) in enumerate(((a, b), (c, d))):
                marks[side] |= {id for _, ids in found[side][low:high] for id in ids}
    return frozenset(marks[0]), frozenset(marks[1])


def _flat(series: Series) -> list[tuple[tuple, list[int]]]:
    """What is drawn, in reading order: key and ids of each layer or box; where branches are, how many."""
    out = []
    for item in series.items:
        if isinstance(item, Unit):
            out += [((part.kind, part.details["number"] if part.kind in ENDS else part.label, part.output_shape),
                     [part.id]) for part in item.layers]
        elif isinstance(item, Box):
            layers = ((*item.key(), item.part.output_shape), [item.part.id])
            out += [layers] if item.inner is None else _flat(item.inner)
        elif isinstance(item, Repeat):
            out += [((f"x {item.times}", *map(str, key)), ids) for key, ids in _flat(item.body)]
        elif isinstance(item, Parallel):
            for branch in item.branches:  # where one begins is compared, too: like layers of two branches stay apart
                out += [(("branch",), []), *(_flat(branch) or [(("shortcut",), [])])]
        else:
            for node in item.nodes:
                out += _flat(Series([node]))
            for _, _, branch in item.edges:
                out += _flat(branch)
    return out


def side_by_side(one: Scene, other: Scene, stacked: bool) -> Scene:
    """Two scenes in one, each under its title."""
    items, x, y, width, height = [], 0.0, 0.0, 0.0, 0.0
    for scene in (one, other):
        wide = max(scene.width, text_width(scene.title, "title") + 2 * MARGIN)
        items.append(Item(None, "shape", [["t", "title", x + wide / 2, y + 12, "middle", scene.title]]))
        items += moved(scene.items, x + (wide - scene.width) / 2, y + 22)
        width, height = max(width, x + wide), max(height, y + 22 + scene.height)
        x, y = (0.0, height + 10) if stacked else (x + wide + 16, 0.0)
    return Scene(round(width, 1), round(height, 1), items, f"{one.title} beside {other.title}",
                 f"{one.title}: {one.words} {other.title}: {other.words}")


def draw_file(model, input_size: Sequence[int], path: str | Path, *, title: str = "", part: str = "", zoom: str
              | None = None) -> Path:
    """Draw any network into an SVG file: what `python -m cnnlib.analysis NETWORK --draw FILE` does."""
    from .diagram import diagram

    return draw(diagram(model, input_size, title=title), part, zoom=zoom).save(path)
