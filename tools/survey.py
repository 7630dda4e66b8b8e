"""Every page of the built book as readers meet it, in a table: widths, letters, contrast, what moves while a page loads.

    .venv/bin/python tools/survey.py /tmp/survey.csv [page ...]

A row for each page, width and theme. `overflow` is by how many pixels the page is wider than the window; `cut` counts what reaches over an edge
behind which nothing can be scrolled; `text`, `drawing` and `figure` are the
smallest letters in pixels as shown, of words, of drawings (SVG) and of figures (images, by the 8 points that no figure goes below); `shift` is the
cumulative layout shift while the page loads; `problems` counts what the browser complains of while the page opens, and pictures of it in the
other theme's colours (a page is opened light at every second width, and dark at the others); `contrast` and `serious` count what axe finds of
serious or critical violations, of contrast and of all other rules, dark on a phone and light on a wide screen. Needs a browser, as the page tests
do, and axe-playwright-python.
"""

import argparse
import contextlib
import csv
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from chromium import Server, chromium

ROOT = Path(__file__).resolve().parents[1]
WIDTHS = (360, 390, 820, 1280, 1440)
AXE_AT = ((390, "dark"), (1280, "light"))
THEMES = ("light", "dark")
NUMBERS = ("overflow", "cut", "shift", "problems", "text", "drawing", "figure", "contrast", "serious")
LOOK = Path(__file__).with_suffix(".js").read_text(encoding="utf-8").partition("\n")[2]
SHIFTS = """window.shift = 0; new PerformanceObserver((list) => {
  for (const entry of list.getEntries()) if (!entry.hadRecentInput) window.shift += entry.value;
}).observe({type: "layout-shift", buffered: true});
window.flashes = 0; (function look() {
  const theme = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  if (document.body && document.documentElement.dataset.theme !== theme) window.flashes += 1;
  if (document.readyState !== "complete") requestAnimationFrame(look);
})();"""
READY = """() => [...document.querySelectorAll('script[type$="widget-view+json"]')].every(
  (place) => place.nextElementSibling?.dataset.ready !== undefined) && (!window.MathJax || MathJax.startup?.promise)"""


# Colours that fade from one theme to the other have faded; in a closed cell they would stand still.
SETTLE = "() => { for (const one of document.getAnimations()) if (one instanceof CSSTransition) one.finish(); }"


def contents() -> list[str]:
    """The pages of `_toc.yml`, the index and the page of search."""
    toc = (ROOT / "_toc.yml").read_text(encoding="utf-8")
    return [*re.findall(r"^(?:root| +- file): (\S+)$", toc, re.M), "genindex", "search"]


def violations(page) -> tuple[int, int, str]:
    """The serious and critical nodes of the rule of contrast and of all others that axe finds, and the first of each rule."""
    from axe_playwright_python.sync_playwright import Axe

    found = [one for one in Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"] if one["impact"] in ("serious", "critical")]
    counts = [sum(len(one["nodes"]) for one in found if (one["id"] == "color-contrast") == contrast) for contrast in (True, False)]
    return *counts, "; ".join(f"{one['id']}: {one['nodes'][0]['html'][:150]}" for one in found)


def rows(page, address: str, name: str, widths=WIDTHS, axe_at=AXE_AT) -> Iterator[dict]:
    """The rows of a page, which `page` of a browser visits; each with `what`, the violations and the words of its smallest letters."""
    heard = []
    listeners = {"console": lambda message: heard.extend([message.text] * (message.type in ("error", "warning"))),
                 "pageerror": lambda error: heard.append(str(error))}
    for event, listener in listeners.items():
        page.on(event, listener)
    for number, width in enumerate(widths):
        heard.clear()
        page.set_viewport_size({"width": width, "height": 900})
        page.emulate_media(color_scheme=THEMES[number % 2])
        page.goto(f"{address}/{name}.html", wait_until="load")
        page.wait_for_function(READY)
        page.evaluate("() => window.MathJax?.startup?.promise")
        shift, flashes = page.evaluate("[window.shift, window.flashes]")
        problems = [*heard, *["the other theme's colours"] * flashes]
        page.evaluate("() => document.querySelectorAll('img').forEach((image) => { image.loading = 'eager'; })")
        for theme in THEMES:
            page.emulate_media(color_scheme=theme)
            page.wait_for_function("theme => document.documentElement.dataset.theme === theme", arg=theme)
            page.evaluate(SETTLE)
            seen = page.evaluate(LOOK)
            row = {"page": name, "width": width, "theme": theme, "overflow": seen["overflow"], "cut": seen["cut"][0], "shift": round(shift, 3),
                   "problems": len(problems)}
            row |= {kind: "" if seen[kind][0] is None else round(seen[kind][0], 1) for kind in ("text", "drawing", "figure")}
            contrast, serious, said = violations(page) if (width, theme) in axe_at else ("", "", "")
            what = "; ".join(f"{kind}: {seen[kind][1]}" for kind in ("cut", "text", "drawing", "figure") if seen[kind][1])
            yield row | {"contrast": contrast, "serious": serious, "what": f"{'; '.join(problems[:1])} {said} | {what}".strip()}
    for event, listener in listeners.items():
        page.remove_listener(event, listener)


def worst(table: list[dict]) -> list[str]:
    """The worst value of each column, a width at a time, with the page that has it."""
    lines = []
    for width in sorted({row["width"] for row in table}):
        parts = []
        for name in NUMBERS:
            values = [row for row in table if row["width"] == width and row[name] not in ("", None)]
            if values:
                row = (min if name in ("text", "drawing", "figure") else max)(values, key=lambda row: row[name])
                parts.append(f"{name} {row[name]} ({row['page']}, {row['theme']})")
        lines.append(f"{width}: " + ", ".join(parts))
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("table", type=Path, help="where the table goes (.csv)")
    parser.add_argument("pages", nargs="*", help="pages, without .html; by default all of the contents")
    parser.add_argument("--widths", nargs="+", type=int, default=WIDTHS, help="in pixels (default: %(default)s)")
    parser.add_argument("--no-axe", action="store_true", help="leave out contrast and serious, which take the longest")
    parser.add_argument("--book", type=Path, default=ROOT / "_build" / "html")
    options = parser.parse_args()
    table = []
    with options.table.open("w", encoding="utf-8", newline="") as file, chromium() as page, contextlib.closing(Server(options.book)) as server:
        page.add_init_script(SHIFTS)
        writer = csv.DictWriter(file, ["page", "width", "theme", *NUMBERS, "what"])
        writer.writeheader()
        for name in options.pages or contents():
            for row in rows(page, server.address, name, options.widths, () if options.no_axe else AXE_AT):
                writer.writerow(row)
                table.append(row)
            file.flush()
            print(name, file=sys.stderr)
    print(*worst(table), sep="\n")


if __name__ == "__main__":
    main()
