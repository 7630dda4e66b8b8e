"""Pictures of every page and every explorer of the built book: light, dark, and on a narrow screen.

    .venv/bin/python tools/screenshots.py /tmp/screenshots [page ...]

Pages are paths below `_build/html`, such as `chapters/03_alexnet`; by default all of them. The pictures are for
looking at; nothing compares them. Needs a browser, as the page tests do.
"""

import argparse
import contextlib
from pathlib import Path

from chromium import Server, browser

ROOT = Path(__file__).resolve().parents[1]
VIEWS = {"light": ("light", 1280), "dark": ("dark", 1280), "narrow": ("light", 360), "narrow-dark": ("dark", 360)}
FLAT = ".bd-header-article, .skip-link { display: none !important; }"  # they would lie across the pictures
NOT_CHAPTERS = {"genindex", "search", "py-modindex"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, help="where the pictures go")
    parser.add_argument("pages", nargs="*", help="pages, without .html")
    parser.add_argument("--book", type=Path, default=ROOT / "_build" / "html")
    options = parser.parse_args()

    found = sorted(path.relative_to(options.book).with_suffix("").as_posix() for path in options.book.rglob("*.html")
                   if not any(part.startswith("_") for part in path.relative_to(options.book).parts))
    pages = options.pages or [page for page in found if page not in NOT_CHAPTERS]
    options.folder.mkdir(parents=True, exist_ok=True)

    with browser() as opened, contextlib.closing(Server(options.book)) as server:
        for view, (theme, width) in VIEWS.items():
            page = opened.new_page(viewport={"width": width, "height": 900}, color_scheme=theme)
            for name in pages:
                page.goto(f"{server.address}/{name}.html", wait_until="load")
                page.wait_for_function("() => document.querySelectorAll('.explorer').length === "
                                       "document.querySelectorAll('.explorer[data-ready]').length")
                page.add_style_tag(content=FLAT)
                stem = options.folder / f"{name.replace('/', '_')}-{view}"
                page.screenshot(path=f"{stem}.png", full_page=True)
                for number, explorer in enumerate(page.query_selector_all(".explorer"), start=1):
                    explorer.screenshot(path=f"{stem}-explorer{number}.png")
            page.close()
    print(f"{len(pages)} pages in {options.folder}")


if __name__ == "__main__":
    main()
