"""A first visit is light: icons without a script, formulas' script only where there are formulas, late images."""

import gzip
import re
from html.parser import HTMLParser
from pathlib import Path

import notebooks
import pytest

HTML = notebooks.ROOT / "_build" / "html"
PAGES = sorted([*HTML.glob("chapters/*.html"), HTML / "index.html"]) if HTML.exists() else []
LANDING, CHAPTER = 400_000, 900_000  # bytes, compressed, of a first visit; of a chapter before images below the fold
KINDS = {".js", ".css", ".svg", ".png", ".woff2"}

pytestmark = pytest.mark.skipif(not PAGES, reason="needs the built book: make book")


class Assets(HTMLParser):
    """What a page asks for before anything is scrolled: scripts, styles, images that do not wait."""

    def __init__(self, page: Path):
        super().__init__()
        self.found, self.images = set(), []
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        name = values.get("src") if tag in ("script", "img") else values.get("href") if tag == "link" else None
        if tag == "img":
            self.images.append(values)
        if name and not name.startswith(("http", "data:")) and values.get("loading") != "lazy":
            name = name.partition("?")[0]
            if Path(name).suffix in KINDS:
                self.found.add(name)


def weight(path: Path) -> int:
    return len(path.read_bytes() if path.suffix in (".png", ".woff2") else gzip.compress(path.read_bytes(), 6))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_first_visit_is_light(page):
    limit = LANDING if page.stem == "index" else CHAPTER
    files = [page, *((page.parent / name).resolve() for name in Assets(page).found)]
    weights = {file.name: weight(file) for file in files if file.exists()}
    assert sum(weights.values()) < limit, sorted(weights.items(), key=lambda item: -item[1])[:5]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_icons_are_drawn_and_formulas_bring_their_script(page):
    text = page.read_text(encoding="utf-8")
    assert "fontawesome.js" not in text
    assert not re.search(r"<(i|span)\b[^>]*\bfa-[\w-]+[^>]*>\s*</", text), "an icon without a drawing"
    assert text.count('class="svg-inline--fa') >= 10
    assert ("tex-chtml.js" in text) == bool(re.search(r'class="[^"]*\bmath\b', text))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_images_of_the_article_wait(page):
    images = [image for image in Assets(page).images if "_images/" in image["src"]]
    assert all(image.get("loading") == "lazy" for image in images[1:])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_shared_elsewhere_say_what_the_page_is(page):
    text = page.read_text(encoding="utf-8")
    [description] = re.findall(r'<meta name="description" content="([^"]*)"', text)
    assert 20 < len(description) <= 204 and 'property="og:title"' in text
