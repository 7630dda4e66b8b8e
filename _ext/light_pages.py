"""Makes built pages light: icons drawn into the page, formulas' script only where there are formulas, images read as they come near.

What the theme ships for icons is one script of more than a megabyte, of which the book shows two dozen drawings; here they are taken from
it and put into the pages. The index of words goes to the page of search alone: the theme ships it with every page, before its first words, for
a search while one types that the book does not have. The theme's own look for what scrolls goes too (tab_stops.js does it in little time). MathJax
is left out of pages without formulas, and elsewhere it is fetched when the explorers are ready (formulas.js). Words in code that have no colour of their own have no element either. A page is light or dark from the start, not when the
theme's script comes. The first paragraph becomes the description that search engines and links shared elsewhere show. Figures and drawings
are given the width below which their letters would be too small; where that is too wide they scroll in their frame. Tables of many columns
and cells with sentences are marked, so that on a phone rows stay low and the first column stays in sight; names in headings may break behind
their underscores; marked is what cells print in columns, which must not wrap, long code, which may be divided on paper, and its long lines, which go on below their own beginning. Scripts of sphinx-thebe go: the book does not use it, and
Jupyter Book writes its settings out twice, which is an error.
"""

import html
import math
import re
from functools import lru_cache
from pathlib import Path
from urllib.parse import urljoin

from formula_widths import width
from sphinx.application import Sphinx
from sphinx.util import logging

ICON = re.compile(r"<(i|span)\b([^>]*\bclass=\"([^\"]*\bfa-[^\"]*)\"[^>]*)>\s*</\1>")
ICON_SCRIPT = re.compile(r"<script[^>]*src=\"([^\"?]*scripts/fontawesome\.js)[^\"]*\"[^>]*></script>\s*")
SEARCH_SCRIPT = re.compile(r'<script src="[^"]*(?:searchtools|language_data|searchindex)\.js"></script>\s*')
NO_SEARCH = "search_as_you_type = false"  # so the theme says on a page where these scripts have nothing to do
TAB_STOPS = ',"complete"===document.readyState?I():window.addEventListener("load",I)'  # the theme's own look for what scrolls
STYLES = {"fab": "brands", "fa-brands": "brands", "far": "regular", "fa-regular": "regular"}  # all others are solid
GLYPH = r'[{{,]"?{}"?:\[(\d+),(\d+),\[[^\]]*\],"[0-9a-f]+","([^"]+)"\]'
MATH_CONFIG = re.compile(r"<script>window\.MathJax = \{.*?\}</script>\s*")
MATH_SCRIPT = re.compile(r"<script[^>]*src=\"([^\"]*mathjax/[^\"]*)\"[^>]*></script>\s*")
FORMULAS_SCRIPT = re.compile(r'<script src="([^"]*formulas\.js[^"]*)"></script>\s*')  # Jupyter Book asks for all scripts on all pages
FORMULA = re.compile(r"class=\"[^\"]*\bmath\b[^\"]*\"")
IN_LINE = re.compile(r'<span class="math notranslate nohighlight">\\\((.*?)\\\)</span>', re.S)
PARAGRAPH = re.compile(r"</h1>\s*(?:<[^p][^>]*>\s*)*<p>(.*?)</p>", re.S)
PICTURE = re.compile(r"<img\b[^>]*\balt=\"([^\"]*)\"[^>]*\bsrc=\"([^\"]*_images/[^\"]*\.png)\"")
ROOT_OF = re.compile(r"data-content_root=\"([^\"]*)\"")  # the way from a page to the book's root
OPENER = re.compile(r"(<a class=\"[^\"]*reference internal\"[^>]*>([^<]*)</a><details[^>]*><summary)>")
FIGURE = re.compile(r"(<img\b[^>]*\bsrc=\"[^\"]*_images/[^>]*\bstyle=\"width: (\d+)px;[^\"]*)\"")
DRAWING = re.compile(r"(<svg [^>]*class=\"nd\"[^>]* width=\"([\d.]+)\"[^>]*)>(?=(.*?)</svg>)", re.S)
NETWORK = re.compile(r"<img (?=[^>]*\bsrc=\"([^\"]*_static/pictures/[^\"]*\.svg)\")(?![^>]*\bstyle=)")
SIZE = re.compile(r'viewBox="0 0 ([\d.]+) ([\d.]+)"')
TABLE = re.compile(r"<table class=\"table\">(.*?)</table>", re.S)
CELL = re.compile(r"(<tr[^>]*>\s*)?<td( class=\"[^\"]*)?(\"?)>(.*?)</td>", re.S)
COLUMNS, SOME, WORDS = 5, 3, 32  # from how many columns a table is wide, or has long cells, and from how many letters a cell is long
NAME = 12  # from how many letters the first cell of a row is a name of several words
PRINTED = re.compile(r'<div class="output (stream|text_plain)([^"]*)">(<div class="highlight"><pre>.*?</pre>)', re.S)
ALIGNED = re.compile(r"\S {2,}\S")  # more than one space within a line keeps something below something
HEADING = re.compile(r"<(h[1-4])>(.*?)(?=<a class=\"headerlink\")", re.S)
PART = re.compile(r"(?<=\w_)(?=[a-z])")  # where a name of several words may break
LEAST = 9  # pixels of the smallest letters as shown
FIGURE_LETTERS = 8 * 100 / 72  # pixels at a figure's own size: no figure has less than 8 points, at 100 dots an inch
DRAWING_LETTERS = {True: 10.5, False: 12}  # of a drawing with and without small words
CODE = re.compile(r"<pre>.*?</pre>", re.S)
LINES = 24  # from how many lines code is long: on paper it may go on over the page
LINE = 36  # from how many letters a line of code is long: on a phone it goes on in the next
FAR = 12  # from how many letters a long line begins far in: on a phone these are narrow
COLOURED = re.compile(r'<span class="(\w+)">([^<]*)</span>')
THEME = 'document.documentElement.dataset.theme = localStorage.getItem("theme") || "auto";'  # of the theme: light or dark only later
KNOWN_THEME = ('const {dataset} = document.documentElement; dataset.theme = ["light", "dark"].includes(dataset.mode) ? dataset.mode '
               ': matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";')
COLOURS = re.compile(r'<link [^>]*href="([^"?]*pygments\.css)')
PLAIN = re.compile(r'html\[data-theme="(\w+)"\] \.highlight( \.\w+)? \{(?: background: #\w+;)? color: (#\w+) \}')


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
            kept = " ".join(one for one in words if one not in {*STYLES, "fas", "fa-solid"})  # as the script does: rules of letters are for letters
            attributes = attributes.replace(f'class="{names}"', f'class="svg-inline--fa {kept}"')
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


def _legible(page: str, folder: Path) -> str:
    """Figures and drawings never shrink so far that their smallest letters fall below `LEAST` pixels; pictures of networks have their size."""
    page = FIGURE.sub(lambda found: f'{found[1]} min-width: {math.ceil(int(found[2]) * LEAST / FIGURE_LETTERS)}px;"', page)

    def drawn(found: re.Match) -> str:
        least = float(found[2]) * LEAST / DRAWING_LETTERS['class="small"' in found[3]]
        return f'{found[1]} style="min-width: {math.ceil(least)}px">'

    def sized(found: re.Match) -> str:
        width, height = (float(one) for one in SIZE.search((folder / found[1]).read_text(encoding="utf-8")[:1000]).groups())
        return (f'<img width="{width:.0f}" height="{height:.0f}" style="min-width: {math.ceil(width * LEAST / DRAWING_LETTERS[True])}px" ')

    for frame in ('<div class="network-picture"', '<div class="nd-fit"'):  # they scroll, so keys must reach them
        page = page.replace(f"{frame}>", f'{frame} tabindex="0">')
    return NETWORK.sub(sized, DRAWING.sub(drawn, page))


def _tables(page: str) -> str:
    """Tables of `COLUMNS` and more are called wide, and cells of more than `WORDS` letters long in tables of `SOME` columns and more.

    The first cell of a row with more than `NAME` letters, which heads it, is called name.
    """
    def table(found: re.Match) -> str:
        columns = found[1].partition("</tr>")[0].count("<th")  # the opening of thead counts too

        def cell(found: re.Match) -> str:
            letters = len(html.unescape(re.sub(r"<[^>]+>", "", found[4])).strip())
            kind = "long" if letters > WORDS and columns > SOME else "name" if letters > NAME and found[1] and columns > 2 else ""
            if not kind:
                return found[0]
            return f'{found[1] or ""}<td{found[2] or " class=" + chr(34)}{" " if found[2] else ""}{kind}">{found[4]}</td>'

        return f'<table class="table{" wide" * (columns > COLUMNS)}">{CELL.sub(cell, found[1])}</table>'

    return TABLE.sub(table, page)


def _printed(page: str) -> str:
    """What cells print in columns is called so: other lines may wrap."""
    return PRINTED.sub(lambda found: found[0].replace('<div class="output ', '<div class="output columns ', 1)
                       if ALIGNED.search(re.sub(r"<[^>]+>", "", found[3])) else found[0], page)


@lru_cache
def _uncoloured(sheet: Path) -> set[str]:
    """The classes of words in code that have the colour of the code itself, light and dark, by the style sheet of colours."""
    colours: dict[str, dict[str, str]] = {"light": {}, "dark": {}}
    for theme, name, colour in PLAIN.findall(sheet.read_text(encoding="utf-8")):
        colours[theme][name.strip(" .")] = colour
    light, dark = colours["light"], colours["dark"]
    return {name for name in light if name and light[name] == light[""] and dark.get(name) == dark[""]}


def _fewer(page: str, plain: set[str]) -> str:
    """Words in code without elements of their own where those show nothing: a third of all elements of a page."""
    return CODE.sub(lambda code: COLOURED.sub(lambda word: word[2] if word[1] in plain else word[0], code[0]), page)


def _breakable(page: str) -> str:
    """Names in headings may break behind an underscore, and so need not within a word."""
    def broken(found: re.Match) -> str:
        return f"<{found[1]}>" + re.sub(r"(?:^|>)[^<]+", lambda text: PART.sub("<wbr>", text[0]), found[2])

    return HEADING.sub(broken, page)


def _long(page: str) -> str:
    """Code of `LINES` lines and more is called long."""
    return CODE.sub(lambda code: code[0].replace("<pre>", '<pre class="long">', 1) if code[0].count("\n") >= LINES else code[0], page)


def _hanging(page: str) -> str:
    """Lines of code of more than `LINE` letters in elements that know where they begin; others need none. Words are whole within a line."""
    def line(text: str) -> str:
        letters = html.unescape(re.sub(r"<[^>]+>", "", text))
        if len(letters) <= LINE or text.count("<span") != text.count("</span"):
            return text
        begin = len(letters) - len(letters.lstrip(" "))
        if begin > FAR and text.startswith(" " * begin):
            text = f'<span class="indent">{text[:begin]}</span>{text[begin:]}'
        return f'<span class="hangs" style="--from: {begin}ch">{text}</span>'

    def code(found: re.Match) -> str:
        return f"{found[1]}{''.join(map(line, found[2].splitlines(keepends=True)))}</pre>"

    return re.sub(r"(<pre[^>]*>)(.*?)</pre>", code, page, flags=re.S)


def _kept(page: str) -> str:
    """Formulas in a line with their width, so that the line is broken before they are typeset as it will be."""
    return IN_LINE.sub(lambda found: found[0].replace(">", f' style="--width: {width(html.unescape(found[1])):.2f}em">', 1), page)


def _described(page: str, title: str, address: str) -> str:
    """With the first paragraph as description and the first figure as picture, for search engines and for links shared elsewhere.

    `address` is that of the page where the book is published; pictures must be named in full.
    """
    found = PARAGRAPH.search(page)
    if not found or 'name="description"' in page:
        return page
    text = " ".join(html.unescape(re.sub(r"<[^>]+>", "", found[1])).split())
    text = text if len(text) <= 200 else text[:200].rpartition(" ")[0] + " ..."
    image = PICTURE.search(page, page.find("<article"))
    source, words = (image[2], html.unescape(image[1])) if image else (ROOT_OF.search(page)[1] + "_static/explorer.png", "An explorer of this book")
    tags = {"og:title": title, "og:description": text, "og:type": "article", "og:url": address,
            "og:image": urljoin(address, source), "og:image:alt": words, "twitter:card": "summary_large_image"}
    lines = [f'<meta name="description" content="{html.escape(text)}" />',
             *(f'<meta {"name" if name.startswith("twitter") else "property"}="{name}" content="{html.escape(value)}" />' for name, value in tags.items())]
    return page.replace("<title>", "\n".join([*lines, "<title>"]), 1)


def lightened(page: str, folder: Path, address: str) -> str:
    """The text of a built page that lies in `folder` and will be published at `address`, made light."""
    if script := ICON_SCRIPT.search(page):
        drawings = (folder / script[1]).resolve()
        page = ICON.sub(lambda icon: _drawn(drawings, icon[2], icon[3]), ICON_SCRIPT.sub("", page))
    page = page.replace(THEME, KNOWN_THEME)
    if NO_SEARCH in page and 'id="search-results"' not in page:
        page = SEARCH_SCRIPT.sub("", page)
    if FORMULA.search(page):
        page = _kept(page)
        later = MATH_SCRIPT.search(page)
        page = FORMULAS_SCRIPT.sub(lambda found: f'<script src="{found[1]}" data-later="{later[1]}"></script>\n', page)
    else:
        page = FORMULAS_SCRIPT.sub("", MATH_CONFIG.sub("", page))
    page = MATH_SCRIPT.sub("", page)
    title = re.search(r"<h1>(.*?)<a", page, re.S)
    page = _described(page, html.unescape(re.sub(r"<[^>]+>", "", title[1])).strip() if title else "", address)
    page = page.replace('<div role="list" class="citation-list">', '<div class="citation-list">')  # it holds no items of a list
    page = OPENER.sub(lambda found: f'{found[1]} aria-label="Pages below {found[2]}">', page)
    if colours := COLOURS.search(page):
        page = _fewer(page, _uncoloured((folder / colours[1]).resolve()))
    return _lazy(_hanging(_long(_breakable(_printed(_tables(_legible(page, folder)))))))


def _lighten(app: Sphinx, exception: Exception | None) -> None:
    if exception or app.builder.format != "html":
        return
    script = Path(app.outdir, "_static", "scripts", "pydata-sphinx-theme.js")
    script.write_text(script.read_text(encoding="utf-8").replace(TAB_STOPS, ""), encoding="utf-8")
    owner, name = app.config.html_theme_options["repository_url"].rstrip("/").split("/")[-2:]
    for path in Path(app.outdir).rglob("*.html"):
        page = path.read_text(encoding="utf-8")
        if "fontawesome.js" not in page:
            continue  # no page of the theme, or one of an earlier build that is light already
        try:
            address = f"https://{owner}.github.io/{name}/{path.relative_to(app.outdir).as_posix()}"
            path.write_text(lightened(page, path.parent, address), encoding="utf-8")
        except LookupError as error:
            logging.getLogger(__name__).warning(f"{path.name}: {error}")


def setup(app: Sphinx) -> dict:
    app.connect("html-page-context", _drop_thebe, priority=900)
    app.connect("build-finished", _lighten, priority=900)  # after the theme has written its style sheet of colours
    return {"parallel_read_safe": True, "parallel_write_safe": True}
