"""What stands in a part of a network, for a layout: series, branches and repeats of layers and boxes, and their words.

All of it is read off the edges between layers. A structure is a `Series` of things: a `Unit` of layers, a `Box` for a
group, `Parallel` branches, a `Repeat`, or a `Graph` where nothing simpler fits.
"""

import heapq
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby, pairwise
from typing import TYPE_CHECKING, TypeGuard

from .labels import CONTAINERS, HEAVY, JOINS, STRIPS, scaled, sized, strided

if TYPE_CHECKING:
    from . import Diagram

INPUT, OUTPUT = -1, -2  # stand for the network's input and output among the ids of layers
ENDS = ("input", "output")  # kinds of what stands for one of several maps that come from outside, or go there
MOST_LAYERS = 14  # a network of no more units is drawn layer by layer, not stage by stage
MOST_PERIOD = 4  # things that repeat together
MOST_IN_ALL = 250  # convolutions that a network may have to be drawn layer by layer where this is asked for
MOST_IN_BLOCK = 24  # convolutions that a block may have to be drawn layer by layer


@dataclass
class Part:
    """A layer, or a group of parts, by plain numbers and texts.

    Attributes:
        id: its place in `Diagram.parts`; `parent` is that of the group it is in, None for the whole network.
        name: dotted name of the module (of a function, of the module that calls it), or of a run of modules:
            "features.0-2".
        kind: of a layer, what it does: "conv", "fc", "pool", "norm", "act", "add", "concatenate", "multiply", "split",
            "shuffle", "other", ...; of a group, "group"; in a structure also "input" and "output", see `ENDS`.
        label: in the words of papers, such as "3x3 conv, 64, /2"; of a group, the class of its module or its role.
        code: the line that makes the module, or the function's name.
        input_shape, output_shape: without the batch dimension.
        params, macs, activations: as in `cost_table`; a shared parameter counts once.
        children: ids, in forward order; empty for layers.
    """

    id: int
    name: str
    kind: str
    label: str
    code: str = ""
    input_shape: tuple[int, ...] = ()
    output_shape: tuple[int, ...] = ()
    params: int = 0
    macs: int = 0
    activations: int = 0
    parent: int | None = None
    children: list[int] = field(default_factory=list)
    details: dict = field(default_factory=dict)

    @property
    def is_layer(self) -> bool:
        return self.kind != "group"


class Thing:
    """What a structure consists of. Things of equal `key` look the same."""

    def things(self) -> list["Thing"]:
        """The things directly in it."""
        return []

    def parts(self) -> list[Part]:
        """All that is drawn there."""
        return [part for thing in self.things() for part in thing.parts()]


@dataclass
class Unit(Thing):
    """Layers drawn as one stack: a convolution with what belongs to it."""

    layers: list[Part]

    def key(self):
        # Shapes of concatenations, norms and activations follow from what is around: they grow through a dense block.
        # Constants by which maps are scaled may differ from block to block, as in NFNet: the drawing tells their range.
        # Where an input comes from differs from block to block; which of the inputs it is does not.
        return tuple((part.kind, part.details.get("sign", part.details.get("number", part.label)),
                      () if part.kind in ("concatenate", *STRIPS) else part.output_shape) for part in self.layers)

    def parts(self) -> list[Part]:
        return self.layers


@dataclass
class Box(Thing):
    """A group, drawn as one box, or with what is in it in a frame."""

    part: Part
    inner: "Series | None"
    summary: tuple
    results: list  # shapes of the maps that it gives out, if they are several
    looks: tuple  # what is inside, whether it is drawn or not: only what is the same throughout is a repeat

    def key(self):
        return ("box", self.part.label, self.looks)

    def parts(self) -> list[Part]:
        return [self.part]


@dataclass
class Parallel(Thing):
    """Branches between one fork and one join; an empty series is a shortcut."""

    branches: list["Series"]

    def key(self):
        return ("parallel", tuple(branch.key() for branch in self.branches))

    def things(self) -> list[Thing]:
        return self.branches


@dataclass
class Repeat(Thing):
    """The same thing `times` over: drawn once; `copies` are the parts of every turn."""

    times: int
    body: "Series"
    copies: list[list[Part]]

    def key(self):
        return ("repeat", self.times, self.body.key())

    def things(self) -> list[Thing]:
        return [self.body]


@dataclass
class Graph(Thing):
    """What is neither series nor parallel: nodes with edges between them by number, each edge with a series on it."""

    nodes: list[Thing]
    edges: list[tuple[int, int, "Series"]]  # -1 is the beginning, -2 the end

    def key(self):
        return ("graph", tuple(node.key() for node in self.nodes),
                tuple((a, b, series.key()) for a, b, series in self.edges))

    def things(self) -> list[Thing]:
        return [*self.nodes, *(series for _, _, series in self.edges)]


@dataclass
class Series(Thing):
    """One thing behind the other."""

    items: list[Thing]

    def key(self):
        return tuple(item.key() for item in self.items)

    def things(self) -> list[Thing]:
        return self.items


def is_join(thing: object) -> TypeGuard[Unit]:
    return isinstance(thing, Unit) and thing.layers[0].kind in JOINS


# From edges between layers to a structure


def structure_of(diagram: "Diagram", part: Part, zoom: str) -> Series:
    """What a part looks like inside: by its groups ("network", "stage") or layer by layer ("block").

    Raises `ValueError` for other zooms.
    """
    if zoom not in ("network", "stage", "block"):
        raise ValueError(f"zoom={zoom!r}; choose 'network', 'stage' or 'block'")
    if part.is_layer:
        return Series([Unit([part])])
    groups, layers = diagram.children(part), diagram.layers(part)
    if zoom == "network":
        series = _structure(diagram, part, layers, period=1)
        single = [item.body.items[0] if isinstance(item, Repeat) else item for item in series.items]
        few = len(single) <= MOST_LAYERS and all(isinstance(item, Unit) for item in single)
        return series if few else _structure(diagram, part, groups, period=1)
    if zoom == "block" and part.details.get("stage"):
        return _structure(diagram, part, groups, nested=True)
    most = MOST_IN_BLOCK if part.parent is not None else MOST_IN_ALL
    deep = any(not child.is_layer for child in groups)
    if zoom == "stage" or deep and sum(layer.kind in HEAVY for layer in layers) > most:
        return _structure(diagram, part, groups)  # a searched cell, say: its separable convolutions in a few words each
    return _structure(diagram, part, layers)


def _structure(diagram: "Diagram", part: Part, things: list[Part], nested: bool = False,
               period: int = MOST_PERIOD) -> Series:
    """Series, branches and repeats of the things in `part`: its layers, or its children, with their insides if
    `nested`.

    What repeats in one row may consist of up to `period` things.
    """
    holder = diagram.holders(things)
    near = [(source, target) for source, target in diagram.edges if source in holder or target in holder]
    given, results = _ends(diagram, part, near, holder)
    places = {source: end.details["place"] for ends in (given, results) for source, end in ends.items()}
    own = {thing.id: thing for thing in things}
    own |= {end.details["place"]: end for end in (*given.values(), *results.values())}
    edges, seen = [_Edge(INPUT, places[source]) for source in given], set()
    for source, target in near:
        a, b = holder.get(source, INPUT), holder.get(target, OUTPUT)
        if source in given:
            a = places[source]
        elif b == OUTPUT and source in results:
            b = places[source]
        # Two groups are joined by one line for each layer that is read; one layer is read twice only by a join.
        if a == b or (source, b) in seen and not (b in own and own[b].is_layer and own[b].kind != "output"):
            continue
        seen.add((source, b))
        edges.append(_Edge(a, b))
    edges += [_Edge(places[source], OUTPUT) for source in results]

    def thing_of(id: int) -> Thing:
        thing = own[id]
        if thing.is_layer:
            return Unit([thing])
        inside = _structure(diagram, thing, diagram.layers(thing))
        results = [part.output_shape for part in inside.parts() if part.kind == "output"]
        told = tuple(contents(diagram, thing)) if thing.details.get("stage") else summary(inside)
        return Box(thing, inside if nested else None, told, results, inside.key())

    return _finish(_reduce(edges, thing_of), period)


def _ends(diagram: "Diagram", part: Part, edges: list[tuple[int, int]],
          inside: dict[int, int]) -> tuple[dict[int, Part], dict[int, Part]]:
    """Source -> a part that stands for it, for the maps that come into `part` if they are several, and for those that
    leave it.

    `place` is its number among the nodes: inputs before all layers, outputs behind them.
    """
    read = sorted({source for source, _ in edges if source not in inside})
    left = defaultdict(list)  # source -> what reads it
    for source, target in edges:
        if target not in inside:
            left[source].append(target)
    given, results = {}, {}
    if len(read) > 1:
        for i, (source, name) in enumerate(zip(read, _where(diagram, part, read, distinct=True))):
            image = Part(INPUT, "", "input", "", output_shape=diagram.input_shape)
            made_by = image if source == INPUT else diagram.parts[source]
            given[source] = Part(source, made_by.name, "input", f"from {name}", made_by.code,
                                 output_shape=made_by.output_shape,
                                 details={"number": i + 1, "place": OUTPUT - len(read) + i})
    if len(left) > 1:
        targets = list(dict.fromkeys(target for source in sorted(left) for target in left[source]))
        names = dict(zip(targets, _where(diagram, part, targets, distinct=False)))
        for i, source in enumerate(sorted(left)):
            readers = list(dict.fromkeys(names[target] for target in left[source]))
            words = " and ".join(readers) if len(readers) < 3 else f"{readers[0]} and {len(readers) - 1} more"
            results[source] = Part(source, diagram.parts[source].name, "output", f"to {words}",
                                   output_shape=diagram.parts[source].output_shape,
                                   details={"number": i + 1, "place": len(diagram.parts) + i})
    return given, results


def _where(diagram: "Diagram", part: Part, ids: Sequence[int], distinct: bool) -> list[str]:
    """Where these layers are, seen from `part`: the names of the largest groups that do not hold it.

    If they are to be `distinct`, those that would share a name get longer ones; outputs of one module are counted.
    """
    around = [part]
    while around[-1].parent is not None:
        around.append(diagram.parts[around[-1].parent])
    choices = [_names_of(diagram, id, around) for id in ids]  # of each the shortest first
    short = [names[0] for names in choices]

    def shared() -> list[int]:
        names = [first for first, *_ in choices]
        return [i for i, name in enumerate(names) if names.count(name) > 1]

    while distinct and (longer := [i for i in shared() if len(choices[i]) > 1]):
        for i in longer:
            choices[i].pop(0)
    same = shared()
    names = [short[i] if i in same else choices[i][0] for i in range(len(ids))]
    return [f"{name}, output {names[: i + 1].count(name)}" if distinct and names.count(name) > 1 else name
            for i, name in enumerate(names)]


def _names_of(diagram: "Diagram", id: int, around: list[Part]) -> list[str]:
    """What a layer may be called from within the groups `around`: by the largest group that holds it and not them, by
    smaller ones, by its own name. Parts of the whole are told by their labels."""
    if id in (INPUT, OUTPUT):
        return ["the input" if id == INPUT else "the output"]
    layer = thing = diagram.parts[id]
    holders = {group.id for group in around}
    while thing.parent not in holders:
        thing = diagram.parts[thing.parent]
    name = thing.label if thing.parent == 0 and not thing.is_layer else thing.name  # "encoder 2", "stem"
    block, own = thing.name.rpartition(".")[0], {group.name for group in around}
    if thing.is_layer and thing.name in own:
        _, result, _ = JOINS.get(layer.kind, ("", layer.label, ""))
        name = f"the {result} in {layer.name}" if layer.name else f"the {result}"
    elif thing.is_layer and block in diagram.aliases and block not in own:
        name = block  # the convolution with its norm and activation
    pieces = layer.name.split(".")
    longer = (".".join(pieces[: i + 1]) for i in range(len(pieces)))
    return [name, *(one for one in longer if len(one) > len(thing.name))]


@dataclass(eq=False)
class _Edge:
    """From a node to a node, with what lies on the way."""

    start: int
    end: int
    items: list[Thing] = field(default_factory=list)

    def branches(self) -> list[Series]:
        first = self.items[0] if len(self.items) == 1 else None
        return first.branches if isinstance(first, Parallel) else [Series(self.items)]


def _reduce(edges: list[_Edge], thing_of) -> Series:
    """Series-parallel reduction: a node of one way in and one way out lies on an edge, edges between the same nodes
    merge; what is left is a graph."""
    into, out = {}, {}
    for edge in edges:
        into.setdefault(edge.end, []).append(edge)
        out.setdefault(edge.start, []).append(edge)
    pending = dict.fromkeys([*into, *out])
    while pending:
        node, _ = pending.popitem()
        if node == OUTPUT or node not in out:
            continue
        targets = {}
        for edge in out[node]:
            targets.setdefault(edge.end, []).append(edge)
        for target, (first, *others) in targets.items():
            if others:  # of several plain lines one stays
                plain = [edge for edge in (first, *others) if not edge.items]
                branches = [branch for edge in (first, *others) if edge not in plain[1:] for branch in edge.branches()]
                if len(branches) > 1:
                    first.items = [Parallel(branches)]
                for edge in others:
                    out[node].remove(edge)
                    into[target].remove(edge)
                pending[target] = pending[node] = None
        if node != INPUT and len(into.get(node, ())) == 1 and len(out[node]) == 1:
            first, second = into.pop(node)[0], out.pop(node)[0]
            first.items = [*first.items, thing_of(node), *second.items]
            first.end = second.end
            ways = into[second.end]
            ways[ways.index(second)] = first
            pending[first.start] = pending[first.end] = None
    left = [edge for edges in out.values() for edge in edges]
    if len(left) == 1:
        return Series(left[0].items)
    nodes = sorted({end for edge in left for end in (edge.start, edge.end)} - {INPUT, OUTPUT})
    number = {node: i for i, node in enumerate(nodes)} | {INPUT: INPUT, OUTPUT: OUTPUT}
    left.sort(key=lambda edge: (number[edge.start], edge.end if edge.end != OUTPUT else math.inf))
    return Series(_split_graph(Graph([thing_of(node) for node in nodes],
                                     [(number[edge.start], number[edge.end], Series(edge.items)) for edge in left])))


def _split_graph(graph: Graph) -> list[Thing]:
    """The graph cut at nodes that every path goes through, so that what is simple between them stays simple."""
    order = topological(len(graph.nodes), [(a, b) for a, b, _ in graph.edges])
    place = {node: i for i, node in enumerate(order)} | {INPUT: -1, OUTPUT: len(order)}
    spans = [(place[a], place[b], series) for a, b, series in graph.edges]
    passed = {i for start, end, _ in spans for i in range(start + 1, end)}
    cuts = [i for i in range(len(order)) if i not in passed]
    if not cuts:
        return [graph]
    items = []
    for low, high in pairwise([-1, *cuts, len(order)]):
        edges = [(start - low - 1 if start > low else INPUT, end - low - 1 if end < high else OUTPUT, series)
                 for start, end, series in spans if low <= start and end <= high]
        if high - low > 1:
            items.append(Graph([graph.nodes[node] for node in order[low + 1 : high]], edges))
        elif len(edges) == 1:
            items += edges[0][2].items
        elif edges:
            items.append(Parallel([series for _, _, series in edges]))
        if high < len(order):
            items.append(graph.nodes[order[high]])
    return items


def topological(count: int, edges: Iterable[tuple[int, int]]) -> list[int]:
    """Numbers of nodes in an order in which every edge goes forward; of those ready, the smallest first.

    Edges from or to a negative number do not count. Without the nodes on a cycle, and behind one.
    """
    waiting, readers = [0] * count, [[] for _ in range(count)]
    for a, b in edges:
        if a >= 0 and b >= 0:
            waiting[b] += 1
            readers[a].append(b)
    ready, order = [node for node in range(count) if not waiting[node]], []
    while ready:
        order.append(heapq.heappop(ready))
        for reader in readers[order[-1]]:
            waiting[reader] -= 1
            if not waiting[reader]:
                heapq.heappush(ready, reader)
    return order


# Stacks and repeats


def _finish(series: Series, period: int) -> Series:
    """Fuse layers into units, and fold repeats, in every series."""
    items = []
    for item in series.items:
        if isinstance(item, Parallel):
            branches = [_finish(branch, period) for branch in item.branches]
            item = Parallel(sorted(branches, key=lambda branch: not branch.items))  # shortcuts last
        elif isinstance(item, Graph):
            item = _with_strips(item)
            item = Graph(item.nodes, [(a, b, _finish(inner, period)) for a, b, inner in item.edges])
        items.append(item)
    return Series(fold(fuse(items), period))


def _with_strips(graph: Graph) -> Graph:
    """The graph with norms and activations that are nodes, since several things read them, on the layer they follow."""
    nodes, edges = graph.nodes[:], graph.edges[:]
    for i, node in enumerate(nodes):
        into = [j for j, edge in enumerate(edges) if edge[1] == i]
        if len(into) == 1 and isinstance(node, Unit) and node.layers[0].kind in STRIPS:
            a, b, series = edges[into[0]]
            *rest, last = fuse([*series.items, node])
            if len(last.layers) > 1:
                nodes[i], edges[into[0]] = last, (a, b, Series(rest))
    return Graph(nodes, edges)


def fuse(items: list[Thing]) -> list[Thing]:
    """Neighbouring layers as stacks of one convolution, linear layer or pooling with the strips that belong to it.

    Norms and activations belong to the layer before them; where they come first (pre-activation), to the one behind.
    """
    out = []
    stack = []

    def close():
        nonlocal stack
        if stack:
            out.append(Unit(stack))
        stack = []

    for i, item in enumerate(items):
        part = item.layers[0] if isinstance(item, Unit) and len(item.layers) == 1 else None
        if part is None or part.kind not in (*STRIPS, *HEAVY):
            close()
            out.append(item)
            continue
        body = next((layer for layer in stack if layer.kind not in STRIPS), None)
        if part.kind in HEAVY:
            if body is None and part.kind in ("pool", "fc"):  # only convolutions are pre-activated
                close()
            elif body is not None and not (body is stack[-1] and is_separable(body, part)):
                close()
        elif body is not None and stack[0].kind in STRIPS:
            following = next((other.layers[0] for other in items[i + 1 :]
                              if isinstance(other, Unit) and other.layers[0].kind in HEAVY), None)
            if following is not None and (part.parent != body.parent or following.parent == body.parent):
                close()
        stack.append(part)
    close()
    return out


def is_separable(depthwise: Part, pointwise: Part) -> bool:
    """Whether a convolution of each channel alone and one of single pixels make a separable convolution."""
    return (depthwise.details.get("depthwise") and pointwise.kind == "conv" and pointwise.details["groups"] == 1
            and set(pointwise.details["kernel"]) == {1} and pointwise.parent == depthwise.parent)


def fold(items: list[Thing], most: int) -> list[Thing]:
    """Neighbours that look the same as a `Repeat`, the shortest period first; a period holds at most `most` things."""
    keys = [item.key() for item in items]

    def ends_a_block(i: int) -> bool:
        """A join, or the activation right behind it: what repeats does not begin there."""
        strips = isinstance(items[i], Unit) and all(layer.kind in STRIPS for layer in items[i].layers)
        return is_join(items[i]) or strips and i > 0 and is_join(items[i - 1])

    out, i = [], 0
    while i < len(items):
        period, times = 1, 1
        for length in range(1, 1 if ends_a_block(i) else most + 1):
            turns = 1
            while keys[i + turns * length : i + (turns + 1) * length] == keys[i : i + length] and (
                    i + (turns + 1) * length <= len(items)):
                turns += 1
            if turns > 1 and turns * length > period * times:
                period, times = length, turns
        turns = [items[i + turn * period : i + (turn + 1) * period] for turn in range(times)]
        only_joins = all(isinstance(item, Unit) and item.layers[0].kind not in HEAVY for item in turns[0])
        if times > 1 and not only_joins:
            body = [_spanned(*pair) for pair in zip(turns[0], turns[-1])]
            copies = [[part for item in turn for part in item.parts()] for turn in turns]
            out.append(Repeat(times, Series(body), copies))
            i += period * times
        else:
            out.append(items[i])
            i += 1
    return out


def _spanned(first: Thing, last: Thing) -> Thing:
    """What changes from turn to turn as it is in the first and in the last: channels of a concatenation, constants.

    Everything else as it is, and what is in boxes, which show their first turn.
    """
    if isinstance(first, Unit):
        return Unit([_spanned_layer(*pair) for pair in zip(first.layers, last.layers)])
    if isinstance(first, Parallel):
        return Parallel([Series([_spanned(*pair) for pair in zip(a.items, b.items)])
                         for a, b in zip(first.branches, last.branches)])
    return first


def _spanned_layer(first: Part, last: Part) -> Part:
    if first.kind == "concatenate" and first.output_shape != last.output_shape:
        return replace(first, details={"last": last.output_shape[0]})
    if "sign" in first.details and first.label != last.label:
        ends = (f"{layer.details['number']:.3g}" for layer in (first, last))
        return replace(first, label=scaled(first.details["sign"], " to ".join(ends)))
    return first


# In words


def rows_of(unit: Unit) -> list[tuple[Part, str]]:
    """The layers of a unit with their labels; a depthwise convolution and the 1x1 right behind it as one, separable."""
    rows = []
    for part in unit.layers:
        if rows and rows[-1][0].details.get("depthwise") and part.kind == "conv":
            first = rows[-1][0].details
            label = f"{sized(first['kernel'], 'separable conv')}, {part.details['out']:,}{strided(first['stride'])}"
            rows[-1] = (part, label)
        else:
            rows.append((part, part.label))
    return rows


def repeated(count: int, what: str) -> str:
    """ "3x3 conv", or "2 x (3x3 conv)"."""
    return f"{count} \u00d7 ({what})" if count > 1 else what


def summary(series: Series) -> tuple[str, ...]:
    """A block in a few words, a line for each layer of its longest branch, and how its branches are joined."""
    lines = []
    for item in series.items:
        if isinstance(item, Unit):
            lines += [label for layer, label in rows_of(item) if layer.kind not in (*STRIPS, *JOINS, *ENDS, "split")]
        elif isinstance(item, Parallel):
            branches = [branch for branch in item.branches if branch.items]
            if len(branches) > 2:
                lines.append(f"{len(item.branches)} branches")
            elif branches:  # the longer one; of two as long, the one that works more
                told = [(summary(branch), sum(part.macs for part in branch.parts())) for branch in branches]
                lines += max(told, key=lambda one: (len(one[0]), one[1]))[0]
        elif isinstance(item, Repeat):
            inside = summary(item.body)
            lines.append(f"{item.times} \u00d7 " + (f"({inside[0]})" if len(inside) == 1 else f"{len(inside)} layers"))
        elif isinstance(item, Graph):
            found = Counter(label for thing in [*(series for _, _, series in item.edges), *item.nodes]
                            for label in _main_labels(thing))
            lines += [repeated(count, label) for label, count in found.items()]
        elif isinstance(item, Box):
            lines += item.summary if item.part.label in CONTAINERS else [item.part.label]
    return tuple(repeated(len(list(run)), line) for line, run in groupby(lines))


def _main_labels(thing: Thing) -> Iterator[str]:
    """A label for each box and each unit in a thing, for all turns of what repeats; of a unit that of its last layer
    that works."""
    if isinstance(thing, Unit):
        yield from [label for part, label in rows_of(thing) if part.kind in HEAVY][-1:]
    elif isinstance(thing, Box):
        yield thing.part.label
    else:
        turns = thing.times if isinstance(thing, Repeat) else 1
        yield from [label for inside in thing.things() for label in _main_labels(inside)] * turns


def contents(diagram: "Diagram", part: Part) -> list[str]:
    """What a stage consists of: "6 x Bottleneck" for its blocks, with their channels where these grow, and the
    convolutions and poolings between them; its layers where it has no blocks."""
    rows = _rows_of_blocks(diagram, part)
    in_a_row = rows[0][0] is part
    is_block = part.details.get("block") and part.label.startswith("stage ")
    if is_block and part.code.isidentifier() and part.code not in CONTAINERS and not in_a_row:
        return [part.code]
    blocks, lines, answers = blocks_in(diagram, part), [], len(part.output_shape) == 1
    if not blocks:
        lines = list(summary(diagram.structure(part.name, "block")))
        return lines if len(lines) <= 5 else [*lines[:4], f"\u2026 {len(lines) - 4} more"]
    for kind, shapes in list(blocks.items())[:3]:
        line = f"({kind})" if ", " in kind and len(shapes) > 1 else kind
        line = f"{len(shapes)} \u00d7 {line}" if len(shapes) > 1 else line
        first, last = shapes[0][:1], shapes[-1][:1]
        lines.append(f"{line}, {first[0]:,} to {last[0]:,}" if first < last and not answers else line)
    if answers:  # and what makes it of the last block's map
        behind = rows[1 + max(i for i, (_, row) in enumerate(rows) if row) :]
        works = [layer.label for child, _ in behind for layer in diagram.layers(child) if layer.kind in HEAVY]
        return lines + works[-2:]
    told = [child for child, _ in rows if child.kind in ("conv", "pool", "group")]
    between = [child.label for child in told if child.is_layer]
    if len(between) > 2:
        return lines
    return between + lines if told[0].is_layer else lines + between


def blocks_in(diagram: "Diagram", part: Part) -> dict[str, list[tuple[int, ...]]]:
    """Classes of the blocks in a stage, and the map behind each block; of a dense block, and of a row of blocks in a
    module of its own, those of its layers."""
    found = defaultdict(list)
    for _, row in _rows_of_blocks(diagram, part):
        for label, shapes in row.items():
            found[label] += shapes
    return found


def _rows_of_blocks(diagram: "Diagram", part: Part) -> list[tuple[Part, dict[str, list[tuple[int, ...]]]]]:
    """Each child of a part with the blocks that it is, or holds in a row, as words -> the map behind each: {} for a
    layer, and for what holds several kinds of things; the part itself in the place of its children if these are a
    row."""
    if row := _in_a_row(diagram, part):
        return [(part, row)]
    rows = []
    for child in diagram.children(part):
        block = {} if child.is_layer or child.label in CONTAINERS else {child.label.strip("_"): [child.output_shape]}
        rows.append((child, _in_a_row(diagram, child) or block))
    return rows


def _in_a_row(diagram: "Diagram", part: Part) -> dict[str, list[tuple[int, ...]]]:
    """What a group consists of if that is blocks of one class alone, or layers of a dense block in the same words, what
    each makes being concatenated with all before it: words -> the map behind each; {} for other groups."""
    inside = diagram.children(part)
    joins = [one.output_shape for one in inside if one.kind == "concatenate"]
    works = [one for one in inside if not one.is_layer or one.kind in HEAVY]
    labels = {one.label for one in works}
    others = {one.kind for one in inside if one.is_layer} - {"concatenate"}
    dense = len(joins) == len(works)
    if len(works) < 2 or len(labels) > 1 or others and not dense or others - {*STRIPS, *HEAVY}:
        return {}
    label = labels.pop().strip("_")
    return {} if label in CONTAINERS else {label: joins if dense else [one.output_shape for one in works]}
