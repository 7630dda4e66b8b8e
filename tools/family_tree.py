"""The family tree of ideas on the landing page, drawn from `data/family_tree.csv`: `python tools/family_tree.py`.

Two drawings of one table, of which a page shows the one that fits: wide, a row for each time and a column for each line of ideas;
narrow, an idea a row and the lines as rails beside them. Each idea is a link to its chapter. Writes `_static/family_tree.html`.
"""

import csv
import html
from pathlib import Path

import notebooks

from cnnlib.analysis.drawing.shapes import text_width

SOURCE, TARGET = notebooks.ROOT / "data" / "family_tree.csv", notebooks.ROOT / "_static" / "family_tree.html"
WIDE, NARROW = 770, 336  # pixels; letters are 12 and 10.5 pixels in both
COLUMNS = {"lanes": 4, "box": 150, "height": 42, "row": 74, "left": 52}
RAILS = {"gap": 15, "row": 42, "left": 12}
WORDS = RAILS["left"] + RAILS["gap"] * (COLUMNS["lanes"] - 1) + 18  # where they begin beside the rails

STYLE = """<style>
.family-tree{display:block;max-width:100%;height:auto;margin:1rem 0 1.5rem;font-family:inherit}
.family-tree a,.family-tree a:hover{text-decoration:none}
.family-tree text{font-size:12px;fill:var(--pst-color-text-base,#222)}
.family-tree .idea,.family-tree .year{font-size:10.5px;fill:var(--pst-color-text-muted,#555)}
.family-tree .name{font-weight:bold;fill:var(--pst-color-link,#0055aa)}
.family-tree rect{fill:var(--pst-color-surface,#f4f4f4);stroke:var(--pst-color-border,#999)}
.family-tree a:hover rect,.family-tree a:focus rect{stroke:var(--pst-color-link,#0055aa);stroke-width:2}
.family-tree path{fill:none;stroke:var(--pst-color-text-muted,#555);stroke-width:1.5}
.family-tree circle{fill:var(--pst-color-link,#0055aa)}
.family-tree.narrow{display:none}
@media (max-width:900px){.family-tree.wide{display:none}.family-tree.narrow{display:block}}
</style>"""


def read(path: Path = SOURCE) -> list[dict]:
    """The ideas in order of years; parents as a list of names."""
    with open(path, encoding="utf-8", newline="") as file:
        rows = [{**row, "year": int(row["year"]), "lane": int(row["lane"]), "parents": [name for name in row["parents"].split(";") if name]}
                for row in csv.DictReader(file)]
    return sorted(rows, key=lambda row: row["year"])


def wide_places(rows: list[dict]) -> dict[str, tuple[float, float]]:
    """Upper left corner of each box: a column for each lane, a row for each year."""
    years = sorted({row["year"] for row in rows})
    step = (WIDE - COLUMNS["left"] - COLUMNS["box"] - 1) / (COLUMNS["lanes"] - 1)
    return {row["name"]: (COLUMNS["left"] + step * row["lane"], 1.0 + COLUMNS["row"] * years.index(row["year"])) for row in rows}


def narrow_places(rows: list[dict]) -> dict[str, tuple[float, float]]:
    """Centre of each dot on its rail: a row for each idea."""
    return {row["name"]: (RAILS["left"] + RAILS["gap"] * row["lane"], RAILS["row"] * (i + 0.5)) for i, row in enumerate(rows)}


def link(row: dict, inside: str) -> str:
    return f'<a href="chapters/{row["page"]}.html" aria-label="{html.escape(row["name"])}, {row["year"]}: {html.escape(row["idea"])}">{inside}</a>'


def text(x: float, y: float, kind: str, words: str, anchor: str = "start") -> str:
    return f'<text class="{kind}" x="{x:g}" y="{y:g}" text-anchor="{anchor}">{html.escape(words)}</text>'


def svg(kind: str, width: int, height: float, parts: list[str]) -> str:
    return (f'<svg class="family-tree {kind}" viewBox="0 0 {width} {height:g}" width="{width}" role="group" aria-label="Family tree of ideas, '
            f'from 1998 to 2022; every idea is a link to its chapter">\n' + "\n".join(parts) + "\n</svg>")


def blocked(rows: list[dict], parent: str, child: dict) -> bool:
    """Whether another idea stands below the parent in its lane, so that the line changes lanes at once and not at the end."""
    start = next(row for row in rows if row["name"] == parent)
    return start["lane"] != child["lane"] and any(
        row["lane"] == start["lane"] and start["year"] < row["year"] < child["year"] for row in rows)


def curve(x: float, y: float, to_x: float, end: float, to_y: float) -> str:
    """A line down from (x, y), over to `to_x` in the 28 pixels above `end`, and down to `to_y`."""
    bend = f"V{end - 28:g}C{x:g} {end - 8:g} {to_x:g} {end - 20:g} {to_x:g} {end:g}" if x != to_x else ""
    return f'<path d="M{x:g} {y:g}{bend}V{to_y:g}"/>'


def wide(rows: list[dict]) -> str:
    places, box, height = wide_places(rows), COLUMNS["box"], COLUMNS["height"]
    parts, years = [], {row["year"]: places[row["name"]][1] for row in rows}
    for row in rows:
        x, y = places[row["name"]]
        for parent in row["parents"]:
            from_x, from_y = places[parent][0] + box / 2, places[parent][1] + height
            beside = (places[parent][0] > x) - (places[parent][0] < x)  # each line ends on the side that it comes from
            end = from_y + 28 if blocked(rows, parent, row) else y
            parts.append(curve(from_x, from_y, x + box / 2 + beside * box / 5, end, y))
    for year, y in years.items():
        parts.append(text(0, y + height / 2 + 4, "year", str(year)))
    for row in rows:
        x, y = places[row["name"]]
        parts.append(link(row, f'<rect x="{x:g}" y="{y:g}" width="{box}" height="{height}" rx="6"/>'
                               + text(x + box / 2, y + 18, "name", row["name"], "middle")
                               + text(x + box / 2, y + 33, "idea", row["idea"], "middle")))
    return svg("wide", WIDE, max(y for _, y in places.values()) + height + 1, parts)


def narrow(rows: list[dict]) -> str:
    places, parts = narrow_places(rows), []
    for row in rows:
        x, y = places[row["name"]]
        for parent in row["parents"]:
            from_x, from_y = places[parent]
            parts.append(curve(from_x, from_y, x, from_y + 28 if blocked(rows, parent, row) else y, y))
    for row in rows:
        x, y = places[row["name"]]
        area = f'<rect x="{WORDS - 6:g}" y="{y - 18:g}" width="{NARROW - WORDS + 5:g}" height="36" rx="6"/>'
        parts.append(link(row, area + f'<circle cx="{x:g}" cy="{y:g}" r="5"/>' + text(WORDS, y - 3, "name", row["name"])
                               + text(WORDS, y + 12, "idea", row["idea"]) + text(NARROW - 8, y - 3, "year", str(row["year"]), "end")))
    return svg("narrow", NARROW, RAILS["row"] * len(rows), parts)


def page() -> str:
    rows = read()
    return "\n".join((STYLE, wide(rows), narrow(rows))) + "\n"


def fits(row: dict) -> bool:
    """Whether the words of an idea fit into its boxes."""
    return (max(text_width(row["name"], "title"), text_width(row["idea"], "small")) <= COLUMNS["box"] - 6
            and text_width(row["name"], "title") + text_width("2020", "small") + 8 <= NARROW - 8 - WORDS)


if __name__ == "__main__":
    TARGET.write_text(page(), encoding="utf-8")
