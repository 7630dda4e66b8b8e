"""A network as solids, one for each of its maps: in a strip, or, where it goes down and up again, in two columns."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, product
from typing import NamedTuple

from ..diagram import Diagram
from ..diagram.labels import HEAVY, STRIPS
from .layout import Placed, Style, shape_text
from .shapes import NARROW, WIDE, Item, broken, line, moved, size_of, texts
from ..diagram.structure import INPUT, OUTPUT, Box, Parallel, Part, Repeat, Series, Unit, blocks_in, contents, repeated

TOWERS = 7  # pixels between solids of one cell
ARROW = 16  # and for an arrow between cells


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
    others: Sequence[tuple[int, ...]] = ()
    widths: Sequence[int] = ()
    towers: int = 1
    mixes: bool = True
    streams: bool = False


class Solid(NamedTuple):
    """A cell's map, with its left upper corner at (0, 0)."""

    width: float
    height: float
    item: Item

    def at(self, x: float, y: float, words: Sequence[list] = ()) -> Item:
        """It at another place, with its words, which are there already."""
        place, = moved([self.item], x, y)
        return replace(place, shapes=[*place.shapes, *words])


def place_network(diagram: Diagram, part: Part, series: Series, style: Style, narrow: bool) -> Placed | None:
    """The network as solids; None if it is neither a row nor goes down and up again."""
    cells = cells_of(diagram, series, style)
    if cells is not None:
        return strip(cells, narrow)
    ladder = ladder_of(diagram) if part.parent is None else None
    return two_columns(diagram, ladder, style, narrow) if ladder else None


# Cells


def cells_of(diagram: Diagram, series: Series, style: Style) -> list[Cell] | None:
    """A cell for each part in a row, beginning with the input; None if the network is no row."""
    cells = [input_cell(diagram)]
    for item in series.items:
        times = 1
        if isinstance(item, Repeat):
            times, item = item.times, item.body.items[0]
        if isinstance(item, Unit):
            works = [layer for layer in item.layers if layer.kind not in STRIPS]
            main = (works or item.layers)[0]
            others = [style.label(layer.label) for layer in works[1:]]
            others += [layer.label for layer in item.layers if layer.kind in STRIPS]
            lines = [("main", repeated(times, style.label(main.label)))]
            lines += [("small", ", ".join(others))] if others else []
            cells.append(Cell(main.id, main.kind, main.output_shape, times, lines))
        elif isinstance(item, Box):
            cell = cell_of(diagram, item.part, style, times)
            cell.shape, *cell.others = dict.fromkeys(item.results or [cell.shape])
            cell.streams = len(ending(diagram, item.part)) == 1
            cells.append(cell)
        elif not isinstance(item, Parallel) or item.parts():
            return None
    divide(diagram, cells)
    return with_shapes(cells, style)


def input_cell(diagram: Diagram) -> Cell:
    return Cell(None, "input", diagram.input_shape, 1, [("title", "input")])


def cell_of(diagram: Diagram, part: Part, style: Style, times: int = 1) -> Cell:
    """A group as the map that it gives out, with its blocks in words."""
    lines = [("title", part.label if times == 1 else f"{times} \u00d7 {part.label}")]
    lines += [("small", style.label(text)) for text in contents(diagram, part)]
    if len(part.output_shape) == 1:  # the answer, however many blocks lead to it
        last = [layer.kind for layer in diagram.layers(part) if layer.kind in HEAVY][-1:]
        return Cell(part.id, "fc" if last == ["fc"] else "conv", part.output_shape, times, lines)
    maps = [shape for shapes in blocks_in(diagram, part).values() for shape in shapes]
    widths = [shape[0] for shape in maps if shape] if times == 1 else []
    return Cell(part.id, "conv", part.output_shape, max(times, len(maps)), lines, widths=widths)


def with_shapes(cells: list[Cell], style: Style) -> list[Cell]:
    """The cells with their shapes as last lines, where the words have not said them."""
    for cell in cells:
        said = any(text.rstrip(")").endswith(f", {shape_text(cell.shape)}") for _, text in cell.lines)
        if not (said and len(cell.shape) == 1):
            cell.lines += [text for shape in (cell.shape, *cell.others) for text in style.shape(shape)]
    return cells


def ending(diagram: Diagram, part: Part) -> set[int]:
    """The children of a part whose maps are read outside it, or are the answer."""
    holder = diagram.holders(diagram.children(part))
    return {holder[source] for source, target in diagram.edges if source in holder and target not in holder}


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


# Solids


def largest_side(cells: list[Cell]) -> int:
    return max([max(cell.shape[1:]) for cell in cells if len(cell.shape) == 3], default=1)


def solid(cell: Cell, most: float, largest: int, thin: float = 1.0, least: float = 2.5) -> Solid:
    """A cell's map: height and depth show rows and columns, the thickness channels.

    Lengths grow with the 0.55th power of the size, thicknesses with the 0.4th of the channels, so that 7x7 beside
    224x224 can still be seen. A vector is an upright bar.
    """
    shape = cell.shape
    if len(shape) == 3:
        channels, rows, columns = shape
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
    d = 0.72 * depth
    width = sum(thicks) + (copies - 1) * 1.2 * least + d
    x, shapes = 0.0, []
    for thick in thicks:
        if depth:
            shapes.append(["p", "side", [x + thick, d, x + thick + d, 0, x + thick + d, tall, x + thick, tall + d]])
            shapes.append(["p", "top", [x, d, x + d, 0, x + thick + d, 0, x + thick, d]])
        shapes.append(["p", "face", [x, d, x + thick, d, x + thick, tall + d, x, tall + d]])
        x += thick + 1.2 * least
    return Solid(width, tall + d, Item(cell.part, cell.kind, shapes))


def solids_of(cell: Cell, most: float, largest: int, beside: bool) -> Solid:
    """All solids of a cell, below or beside each other: towers, or maps that go out together."""
    channels, *space = cell.shape or (1,)
    shapes = [(max(1, channels // cell.towers), *space)] * cell.towers + list(cell.others if cell.streams else ())
    drawn = [solid(replace(cell, shape=shape), most, largest) for shape in shapes]
    width, height = max(one.width for one in drawn), max(one.height for one in drawn)
    at, found = 0.0, []
    for one in drawn:
        found += one.at(*((at, (height - one.height) / 2) if beside else ((width - one.width) / 2, at))).shapes
        at += (one.width if beside else one.height) + TOWERS
    size = (at - TOWERS, height) if beside else (width, at - TOWERS)
    return Solid(*size, replace(drawn[0].item, shapes=found))


def between(before: Cell, after: Cell, sizes: tuple[float, float], ends: tuple[float, float], middle: float,
            down: bool = False) -> list[Item]:
    """Arrows from each tower to the one behind it, or, where what is behind reads them all, from each to each.

    `sizes` of both across the arrows, around `middle`; `ends` of the arrows along them.
    """
    places = [[middle + size * ((k + 0.5) / cell.towers - 0.5) for k in range(cell.towers)]
              for cell, size in zip((before, after), sizes)]
    pairs = product(*places) if after.mixes or before.towers != after.towers else zip(*places)
    return [line([a, ends[0], b, ends[1]] if down else [ends[0], a, ends[1], b], arrow=True) for a, b in pairs]


# Strips


def strip(cells: list[Cell], narrow: bool) -> Placed:
    """The cells in rows, or, on a narrow page, one below the other, with text on the right."""
    largest = largest_side(cells)
    solids = [solids_of(cell, 72 if narrow else 104, largest, narrow and cell.towers > 1) for cell in cells]
    if narrow:
        return column(cells, solids)
    words = [broken(cell.lines, 104, small=132) for cell in cells]
    widths = [max(one.width, size_of(lines)[0]) + 6 for one, lines in zip(solids, words)]
    one_row = sum(widths) + ARROW * (len(widths) - 1) <= WIDE
    rows = [list(range(len(cells)))] if one_row else even_rows(widths, WIDE - 2 * ARROW - 4)

    def apart(at: int, reader: int, ends: tuple[float, float]) -> list[Item]:
        """Arrows at a cell as far as they go within a row: one, or one for each tower that is read by itself."""
        alone = not cells[reader].mixes and cells[reader - 1].towers == cells[reader].towers
        cell = replace(cells[at], mixes=False, towers=cells[at].towers if alone else 1)
        return between(cell, cell, (solids[at].height,) * 2, ends, middle)

    items, y, right = [], 0.0, 0.0
    for row in rows:
        tall = max(solids[i].height for i in row)
        middle, low = y + tall / 2, y + tall + 8
        x = ARROW + 4 if row[0] else 0.0
        for i in row:
            one, spare = solids[i], (widths[i] - solids[i].width) / 2
            if i > row[0] and cells[i - 1].towers + cells[i].towers > 2:
                ends = (x - ARROW - (widths[i - 1] - solids[i - 1].width) / 2 + 3, x + spare - 3)
                items += between(cells[i - 1], cells[i], (solids[i - 1].height, one.height), ends, middle)
            elif i:
                items += apart(i, i, (x - ARROW + 1 if i > row[0] else 2, x - 1))
            items.append(one.at(x + spare, y + (tall - one.height) / 2, texts(words[i], x + widths[i] / 2, low)))
            x += widths[i] + ARROW
        right = max(right, x - ARROW)
        if row[-1] < len(cells) - 1:
            items += apart(row[-1], row[-1] + 1, (x - ARROW + 1, x - 1))
            right = max(right, x)
        y = low + max(size_of(words[i])[1] for i in row) + 18
    return Placed(0, right, y - 18, items)


def even_rows(widths: Sequence[float], most: float) -> list[list[int]]:
    """The cells in as few rows as go, the widest of these as short as it can be."""
    def fill(limit):
        rows, row, used = [], [], 0.0
        for i, wide in enumerate(widths):
            if row and used + ARROW + wide > limit:
                rows.append(row)
                row, used = [], 0.0
            used += wide + (ARROW if row else 0)
            row.append(i)
        return [*rows, row]

    low, high, count = max(widths), most, len(fill(most))
    for _ in range(24):
        middle = (low + high) / 2
        low, high = (low, middle) if len(fill(middle)) <= count else (middle, high)
    return fill(high)


def column(cells: list[Cell], solids: list[Solid]) -> Placed:
    room = max(one.width for one in solids)
    items, y, right, spare = [], 0.0, 0.0, 0.0
    for i, (cell, one) in enumerate(zip(cells, solids)):
        words = broken(cell.lines, NARROW - room - 12)
        wide, high = size_of(words)
        tall = max(one.height, high)
        if i:
            plain = cells[i - 1].towers + cell.towers == 2
            gap = 16 if plain or not cell.mixes else 26
            over, under = (0, 0) if plain else (spare, (tall - one.height) / 2)
            items += between(cells[i - 1], cell, (solids[i - 1].width, one.width),
                             (y + 2 - over, y + gap - 2 + under), room / 2, down=True)
            y += gap
        spare = (tall - one.height) / 2
        items.append(one.at((room - one.width) / 2, y + spare, texts(words, room + 12, y + (tall - high) / 2, "start")))
        right = max(right, room + 12 + wide)
        y += tall
    return Placed(0, right, y, items)


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
    parts = diagram.children()
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
    beside = {b: a + 1 for a, b in across}
    if not all(0 <= a < turn <= b for a, b in across) or len(beside) < len(across):
        return None
    rows = [i + 1 for i in range(turn)]
    for i in range(turn, len(parts)):
        rows.append(beside.get(i, rows[-1] - 1))
    if any(row >= lower for lower, row in pairwise(rows[turn - 1 :])):
        return None
    return Ladder(parts, rows, turn, across)


def two_columns(diagram: Diagram, ladder: Ladder, style: Style, narrow: bool) -> Placed:
    """The way down on the left and the way up on the right, a row for each size, words on the outer sides."""
    cells = [Cell(part.id, part.kind, part.output_shape, 1, [("main", style.label(part.label))]) if part.is_layer else
             replace(cell_of(diagram, part, style), copies=1) for part in ladder.parts]
    cells = with_shapes([input_cell(diagram), *cells], style)
    rows, turn, largest = [0, *ladder.rows], ladder.turn + 1, largest_side(cells)
    solids = [solid(cell, 44 if narrow else 88, largest, 0.75 if narrow else 1.0) for cell in cells]
    room, middle = max(one.width for one in solids), 34 if narrow else 96
    words = [broken(cell.lines, (NARROW - 2 * room - middle - 16) / 2 if narrow else 190) for cell in cells]
    wide = [max((size_of(lines)[0] for lines in some), default=0) for some in (words[:turn], words[turn:])]
    axes = (wide[0] + 8 + room / 2, wide[0] + 8 + room + middle + room / 2)  # of the solids on both sides
    y, centre = 0.0, {}
    for row in range(min(rows), max(rows) + 1):
        tall = max(max(solids[i].height, size_of(words[i])[1]) for i in range(len(cells)) if rows[i] == row)
        centre[row] = y + tall / 2
        y += tall + 18
    items = []
    for i, one in enumerate(solids):
        axis, y_here, before = axes[i >= turn], centre[rows[i]], centre[rows[i - 1]]
        x, anchor = (axis - room / 2 - 8, "end") if i < turn else (axis + room / 2 + 8, "start")
        if i == turn:
            start, end = axes[0] + solids[i - 1].width / 2 + 3, y_here + one.height / 2 + 2
            items.append(line([start, before, axis, before, axis, end], arrow=True))
        elif i:
            sign = 1 if i < turn else -1
            start, end = before + sign * (solids[i - 1].height / 2 + 2), y_here - sign * (one.height / 2 + 2)
            items.append(line([axis, start, axis, end], arrow=True))
        items.append(one.at(axis - one.width / 2, y_here - one.height / 2,
                            texts(words[i], x, y_here - size_of(words[i])[1] / 2, anchor)))
    for a, b in ladder.across:
        y_here = centre[rows[a + 1]]
        left, right = axes[0] + solids[a + 1].width / 2 + 3, axes[1] - solids[b + 1].width / 2 - 3
        items.append(line([left, y_here, right, y_here], arrow=True))
    return Placed(0, axes[1] + room / 2 + 8 + wide[1], y - 18, items)
