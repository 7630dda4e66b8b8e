"""Makes built pages light: icons drawn into the page, formulas' script only where there are formulas, images read as they come near.

What the theme ships for icons is one script of more than a megabyte, of which the book shows two dozen drawings; here they are taken from it
and put into the pages. MathJax is left out of pages without formulas, and elsewhere it begins when the explorers are ready. The first paragraph
becomes the description that search engines and links shared elsewhere show. Scripts of sphinx-thebe go: the book does not use it, and
Jupyter Book writes its settings out twice, which is an error.
"""

import html
import re
from functools import lru_cache
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.util import logging

ICON = re.compile(r"<(i|span)\b([^>]*\bclass=\"([^\"]*\bfa-[^\"]*)\"[^>]*)>\s*</\1>")
ICON_SCRIPT = re.compile(r"<script[^>]*src=\"([^\"?]*scripts/fontawesome\.js)[^\"]*\"[^>]*></script>\s*")
STYLES = {"fab": "brands", "fa-brands": "brands", "far": "regular", "fa-regular": "regular"}  # all others are solid
GLYPH = r'[{{,]"?{}"?:\[(\d+),(\d+),\[[^\]]*\],"[0-9a-f]+","([^"]+)"\]'
MATH_CONFIG = re.compile(r"<script>window\.MathJax = (\{.*?\})</script>\s*")
MATH_SCRIPT = re.compile(r"<script[^>]*src=\"[^\"]*mathjax/[^\"]*\"[^>]*></script>\s*")
FORMULA = re.compile(r"class=\"[^\"]*\bmath\b[^\"]*\"")
PARAGRAPH = re.compile(r"</h1>\s*(?:<[^p][^>]*>\s*)*<p>(.*?)</p>", re.S)
START = ("{startup: {pageReady: () => Promise.resolve(window.explorersReady)"
         ".then(() => MathJax.startup.defaultPageReady())}, ...%s}")


def _drop_thebe(app: Sphinx, pagename: str, templatename: str, context: dict, doctree) -> None:
    context["script_files"] = [
        script for script in context["script_files"]
        if "thebe" not in f"{getattr(script, 'filename', script)} {getattr(script, 'attributes', {}).get('body', '')}".lower()
    ]


@lru_cache
def _sets(script: Path) -> dict[str, str]:
    """The script's three tables of drawings. Raises `ValueError` if they are not where the present theme has them."""
    tables = re.split(r"var \w+=(?=\{\"?[\w-]+\"?:\[\d+,\d+,\[)", script.read_text(encoding="utf-8"))[1:]
    return dict(zip(("brands", "regular", "solid"), tables, strict=True))


def _drawn(script: Path, attributes: str, names: str) -> str:
    """The icon as SVG, with the attributes that its element had. Raises `LookupError` for one that the theme does not have."""
    words = names.split()
    style = next((STYLES[word] for word in words if word in STYLES), "solid")
    for word in words:
        if word.startswith("fa-") and (found := re.search(GLYPH.format(re.escape(word[3:])), _sets(script)[style])):
            width, height, path = found.groups()
            attributes = re.sub(r"class=\"", 'class="svg-inline--fa ', attributes, count=1)
            hidden = "" if "aria-" in attributes else ' aria-hidden="true"'
            return (f'<svg{attributes}{hidden} focusable="false" viewBox="0 0 {width} {height}">'
                    f'<path fill="currentColor" d="{path}"/></svg>')
    raise LookupError(f"the theme has no icon {names!r}")


def _lazy(page: str) -> str:
    """All images of the article but the first wait until they come near."""
    head, article, rest = page.partition("<article")
    first = re.search(r"<img\b", rest)
    if not first:
        return page
    begin, later = rest[: first.end()], rest[first.end():]
    return head + article + begin + re.sub(r"<img (?![^>]*\bloading=)", '<img loading="lazy" decoding="async" ', later)


def _described(page: str, title: str) -> str:
    """With the first paragraph as description, for search engines and for links shared elsewhere."""
    found = PARAGRAPH.search(page)
    if not found or 'name="description"' in page:
        return page
    text = " ".join(html.unescape(re.sub(r"<[^>]+>", "", found[1])).split())
    text = text if len(text) <= 200 else text[:200].rpartition(" ")[0] + " ..."
    text, title = html.escape(text, quote=True), html.escape(title, quote=True)
    tags = (f'<meta name="description" content="{text}" />\n<meta property="og:title" content="{title}" />\n'
            f'<meta property="og:description" content="{text}" />\n<meta property="og:type" content="article" />\n')
    return page.replace("<title>", tags + "<title>", 1)


def lightened(page: str, folder: Path) -> str:
    """The text of a built page that lies in `folder`, made light."""
    if script := ICON_SCRIPT.search(page):
        drawings = (folder / script[1]).resolve()
        page = ICON.sub(lambda icon: _drawn(drawings, icon[2], icon[3]), ICON_SCRIPT.sub("", page))
    if FORMULA.search(page):
        page = MATH_CONFIG.sub(lambda found: f"<script>window.MathJax = {START % found[1]};</script>\n", page)
    else:
        page = MATH_SCRIPT.sub("", MATH_CONFIG.sub("", page))
    title = re.search(r"<h1>(.*?)<a", page, re.S)
    page = _described(page, re.sub(r"<[^>]+>", "", title[1]) if title else "")
    return _lazy(page)


def _lighten(app: Sphinx, exception: Exception | None) -> None:
    if exception or app.builder.format != "html":
        return
    for path in Path(app.outdir).rglob("*.html"):
        page = path.read_text(encoding="utf-8")
        if "fontawesome.js" not in page:
            continue  # no page of the theme, or one of an earlier build that is light already
        try:
            path.write_text(lightened(page, path.parent), encoding="utf-8")
        except LookupError as error:
            logging.getLogger(__name__).warning(f"{path.name}: {error}")


def setup(app: Sphinx) -> dict:
    app.connect("html-page-context", _drop_thebe, priority=900)
    app.connect("build-finished", _lighten)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
