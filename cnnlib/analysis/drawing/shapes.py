"""The shapes of a drawing, and how they are written as SVG: the same bytes on every machine, readable in both themes.

A shape is a list of plain values: ["r", class, x, y, width, height, radius], ["c", class, x, y, radius], ["p", class,
points] (a polygon), ["l", class, points] (a line), ["b", class, points] (a curve), ["t", class, x, y, anchor, text].
Lengths are pixels at 12 px text. The width of text is that in DejaVu Sans, the widest of the usual fonts of user
interfaces: in every other font texts end earlier.
"""

import html
import math
import re
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..diagram.labels import JOINS

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
LIGHT_DARK = {
    "conv": ("#c5e2f5", "#1f4e6e"), "pool": ("#fbe1ad", "#6b4c12"), "norm": ("#e4d8f2", "#4a3a63"),
    "act": ("#cfeadb", "#21533d"), "fc": ("#f8d0c8", "#6e3327"), "attention": ("#f6cfe3", "#632c4b"),
    "join": ("#ffffff", "#16181c"), "other": ("#e8eaed", "#3a4048"), "group": ("#f4f6f8", "#23272d"),
}
COLOUR_OF = {
    **dict.fromkeys((*JOINS, "split"), "join"), "resize": "pool", "frame": "group", "repeat": "group",
    **dict.fromkeys(("drop", "scale", "flatten", "pad", "shuffle", "input", "output"), "other"),
}
INK, LINES, ACCENT = ("#1c1f24", "#e6e8eb"), ("#5b636c", "#9aa2ab"), ("#d55e00", "#f08a43")


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


def broken(lines: Iterable[tuple[str, str]], width: float, **widths: float) -> list[tuple[str, str]]:
    """Lines (style, text) in lines of at most this width, or of the one given for their style."""
    return [(style, piece) for style, text in lines for piece in wrap(text, widths.get(style, width), style)]


def size_of(lines: Sequence[tuple[str, str]]) -> tuple[float, float]:
    """Width and height of lines (style, text) below each other."""
    widths, heights = [text_width(text, style) for style, text in lines], [LINE[style] for style, _ in lines]
    return max(widths, default=0), sum(heights)


@dataclass
class Item:
    """Shapes that belong to one part of the network; `part` is None for lines and frames of their own."""

    part: int | None
    kind: str
    shapes: list[list]
    mark: str = ""  # "on", "off": highlighted or not; "new": what the network beside it does not have


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


def moved(items: Iterable[Item], dx: float, dy: float) -> list[Item]:
    def move(shape):
        if shape[0] in "plb":
            return [*shape[:2], [v + (dy if i % 2 else dx) for i, v in enumerate(shape[2])]]
        return [*shape[:2], shape[2] + dx, shape[3] + dy, *shape[4:]]

    return [Item(item.part, item.kind, [move(shape) for shape in item.shapes], item.mark) for item in items]


def texts(lines: Iterable[tuple[str, str]], x: float, y: float, anchor: str = "middle") -> list[list]:
    """Lines (style, text) below each other, from y on."""
    shapes = []
    for style, text in lines:
        shapes.append(["t", style, x, y + LINE[style] / 2, anchor, text])
        y += LINE[style]
    return shapes


def boxed(part: int | None, kind: str, lines: Sequence[tuple[str, str]], x: float, y: float, width: float,
          margin: float, radius: float) -> Item:
    """Lines (style, text) in the middle of a box with its left upper corner at (x, y)."""
    box = ["r", "box", x, y, width, size_of(lines)[1] + 2 * margin, radius]
    return Item(part, kind, [box, *texts(lines, x + width / 2, y + margin)])


def line(points: Sequence[float], arrow: bool = False) -> Item:
    """A line through the points, with rounded corners, and an arrow at its end."""
    *_, from_x, from_y, x, y = points
    return Item(None, "line", [["l", "line", list(points)], *([tip(x, y, x - from_x, y - from_y)] if arrow else [])])


def tip(x: float, y: float, dx: float, dy: float) -> list:
    """The head of an arrow that ends at (x, y) and comes from (x - dx, y - dy)."""
    length = math.hypot(dx, dy)
    dx, dy = dx / length, dy / length
    across, down = (-3.5 * dy, 3.5 * dx) if dx and dy else (3.5 * abs(dy), 3.5 * abs(dx))
    x_low, y_low = x - 6 * dx, y - 6 * dy
    return ["p", "tip", [x, y, x_low - across, y_low - down, x_low + across, y_low + down]]


# Writing


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


def svg_of(scene: Scene, sheet: bool = True) -> str:
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
            f'width="{width}" height="{height}" role="img" aria-labelledby="t{key} d{key}">'
            f'<title id="t{key}">{escaped(scene.title)}</title>'
            f'<desc id="d{key}">{escaped(scene.words)}</desc>{style}{text}</svg>')
