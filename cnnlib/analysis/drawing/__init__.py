"""A diagram laid out and written as SVG: the same bytes on every machine, readable in both themes, in print and by ear.

    draw(diagram(model, (3, 224, 224)))                     # the whole network
    draw(drawing, "layer1")                                 # a stage: its blocks
    draw(drawing, "layer1.0", highlight=["layer1.0.downsample"])
    draw(drawing, beside=other)                             # two networks, what differs is marked
    draw(drawing).save("resnet50.svg")

Networks in a row are drawn as solids, all else as boxes joined by lines. Branches and graphs that are too wide for a
phone stand in one column there.
"""

import difflib
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

from ..diagram import Diagram, diagram as diagram_of
from ..diagram.labels import JOINS
from .layout import Placed, Style, end_of, place_series, shape_text, stand_in, starts_with_box
from .shapes import (COLOUR_OF, LIGHT_DARK, LINE, NARROW, WIDE, Item, Scene, escaped, line, moved, number, svg_of,
                     text_width, texts, wrap)
from .strips import Cell, cells_of, input_cell, largest_side, place_network, solid
from ..diagram.structure import ENDS, Box, Graph, Parallel, Part, Repeat, Series, Unit

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


def fitted(series: Series, narrow: bool, nested: bool, **options) -> tuple[Placed, bool]:
    """The series in the first style that fits the page, else in the last, on a narrow page in the narrowest; and
    whether branches had to stand below each other."""
    tried = []
    for style in styles(narrow, nested, **options):
        tried.append((place_series(series, style), style.room < math.inf))
        if tried[-1][0].width <= (NARROW if narrow else WIDE):
            break
    return min(tried, key=lambda one: one[0].width) if narrow else tried[-1]


def scene(diagram: Diagram, part: str = "", zoom: str | None = None, *, numbers: bool = True, narrow: bool = False,
          highlight: Sequence[str] = (), new: frozenset = frozenset(), ends: float = 0) -> Scene:
    """The drawing of one part at one zoom, placed: what `draw` writes as SVG and the network explorer shows.

    `new` holds ids of parts to be marked as different; `ends` is the room for names of inputs and outputs where
    `stand_in` is written in their place. Raises `ValueError` for names and zooms that are not there.
    """
    found = diagram.find(part)
    zoom = zoom or diagram.zoom_of(found)
    series = diagram.structure(part, zoom)
    placed, stacked = None, False
    if zoom == "network":
        placed = place_network(diagram, found, series, Style(numbers=numbers, ends=ends), narrow)
    if placed is None:
        inner, stacked = fitted(series, narrow, zoom == "block", numbers=numbers, ends=ends)
        shapes = [shape_text(shape) for shape in (found.input_shape or diagram.input_shape, found.output_shape)]
        placed = with_ends(inner, series, shapes if numbers else None)
    items = moved(placed.items, MARGIN + placed.left, MARGIN)
    width, height = placed.width + 2 * MARGIN, placed.height + 2 * MARGIN
    if found.parent is None and diagram.idle:
        lines = [("small", text) for text in wrap(idle_text(diagram.idle), max(placed.width, NARROW - 60), "small")]
        items += [Item(None, "shape", [shape]) for shape in texts(lines, MARGIN, height, "start")]
        width = max(width, *(text_width(text, "small") + 2 * MARGIN for _, text in lines))
        height += len(lines) * LINE["small"] + MARGIN / 2
    title = f"{diagram.title}, {found.label} ({found.name})" if found.name else diagram.title
    _mark(diagram, items, highlight, new)
    return Scene(round(width, 1), round(height, 1), items, title, words(diagram, found, series, bool(ends)), stacked)


def with_ends(placed: Placed, series: Series, shapes: Sequence[str] | None) -> Placed:
    """Lines into the top and out of the bottom, with the shapes of what flows there; not for inputs and outputs that
    are drawn."""
    enters, leaves = (not end_of(series, kind) for kind in ENDS)
    reach, height = 0.0, placed.height
    length, above, below = (17, 32 * enters, 34 * leaves) if shapes else (18, 18, 18)
    top = [line([0, -length, 0, 0], arrow=starts_with_box(series))] if enters else []
    bottom = [line([0, height, 0, height + length], arrow=True)] if leaves else []
    if shapes:
        at = [(text, y) for text, y, there in zip(shapes, (-25, height + 26), (enters, leaves)) if there]
        reach = max((text_width(text, "small") / 2 for text, _ in at), default=0)
        told = [Item(None, "shape", [["t", "small", 0, y, "middle", text]]) for text, y in at]
        top, bottom = told[:enters] + top, bottom + told[enters:]
    items = moved([*top, *placed.items, *bottom], 0, above)
    return Placed(max(placed.left, reach), max(placed.right, reach), height + above + below, items)


def idle_text(idle: dict[str, str]) -> str:
    """ "Not used in evaluation: aux1, aux2 (AuxiliaryHead)"."""
    classes = defaultdict(list)
    for name, kind in idle.items():
        classes[kind].append(name)
    groups = [", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "") + f" ({kind})"
              for kind, names in classes.items()]
    return "Not used in evaluation: " + "; ".join(groups[:3]) + ("; and more" if len(groups) > 3 else "")


def _mark(diagram: Diagram, items: list[Item], highlight: Sequence[str], new: frozenset) -> None:
    chosen = set()
    for name in highlight:
        inside = diagram.find(name)  # raises for a name that is not there
        chosen |= {part.id for part in diagram.parts if part.name == name or part.name.startswith(name + ".")}
        chosen |= {inside.id, *(layer.id for layer in diagram.layers(inside))}
    for item in items:
        if highlight and item.part is not None:
            item.mark = "on" if item.part in chosen else "off"
        if item.part in new:
            item.mark = "new"


# In words


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
    said = []
    for item in series.items:
        if isinstance(item, Unit):
            first = item.layers[0]
            said.append(JOINS[first.kind][2] if first.kind in JOINS else ", ".join(
                stand_in(layer) if stand_ins and layer.kind in ENDS else layer.label for layer in item.layers))
        elif isinstance(item, Box):
            said.append(f"{item.part.label} ({', '.join(item.summary)})")
        elif isinstance(item, Repeat):
            said.append(f"{item.times} times ({say(item.body, stand_ins)})")
        elif isinstance(item, Parallel):
            full = [f"({say(branch, stand_ins)})" for branch in item.branches if branch.items]
            shortcut = ["a shortcut"] if len(full) < len(item.branches) else []
            said.append(f"{len(item.branches)} branches: " + " beside ".join(full + shortcut))
        elif isinstance(item, Graph):
            nodes = ", ".join(say(Series([node]), stand_ins) for node in item.nodes[:8])
            said.append(f"a graph of {len(item.nodes)} nodes: {nodes}" + (" and more" if len(item.nodes) > 8 else ""))
    return "; then ".join(said)


# The public face


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
        input_cell(diagram), *(Cell(part.id, part.kind if part.is_layer else "conv", part.output_shape, 1, [])
                               for part in diagram.children())]
    largest = largest_side(cells)
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
            out += _flat(item.inner) if item.inner else [((*item.key(), item.part.output_shape), [item.part.id])]
        elif isinstance(item, Repeat):
            out += [((f"x {item.times}", *map(str, key)), ids) for key, ids in _flat(item.body)]
        elif isinstance(item, Parallel):
            for branch in item.branches:  # where one begins is compared, too: like layers of two branches stay apart
                out += [(("branch",), []), *(_flat(branch) or [(("shortcut",), [])])]
        elif isinstance(item, Graph):
            out += _flat(Series(item.nodes))
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


def draw_file(model, input_size: Sequence[int], path: str | Path, *, title: str = "", part: str = "",
              zoom: str | None = None) -> Path:
    """Draw any network into an SVG file: what `python -m cnnlib.analysis NETWORK --draw FILE` does."""
    return draw(diagram_of(model, input_size, title=title), part, zoom=zoom).save(path)
