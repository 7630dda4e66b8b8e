"""A first visit is light: icons without a script, formulas' script only where there are formulas, late images."""

import functools
import gzip
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import notebooks
import pytest

from cnnlib.analysis.drawing.shapes import INK, style_sheet

sys.path.insert(0, str(notebooks.ROOT / "_ext"))
import light_pages

HTML = notebooks.ROOT / "_build" / "html"
PAGES = sorted([*HTML.glob("chapters/*.html"), HTML / "index.html"]) if HTML.exists() else []
ALL = [*PAGES, HTML / "genindex.html", HTML / "search.html"] if PAGES else []
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
        if "data-later" in values:  # formulas.js asks for it
            self.found.add(values["data-later"])
        if name and not name.startswith(("http", "data:")) and values.get("loading") != "lazy":
            name = name.partition("?")[0]
            if Path(name).suffix in KINDS:
                self.found.add(name)


assets = functools.cache(Assets)


@functools.cache
def weight(path: Path) -> int:
    return len(path.read_bytes() if path.suffix in (".png", ".woff2") else gzip.compress(path.read_bytes(), 6))


@pytest.mark.parametrize("page", ALL, ids=lambda page: page.stem)
def test_first_visit_is_light(page):
    limit = LANDING if page.stem == "index" else CHAPTER
    files = [page, *((page.parent / name).resolve() for name in assets(page).found)]
    weights = {file.name: weight(file) for file in files if file.exists()}
    assert sum(weights.values()) < limit, sorted(weights.items(), key=lambda item: -item[1])[:5]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_icons_are_drawn_and_formulas_bring_their_script(page):
    text = page.read_text(encoding="utf-8")
    assert "fontawesome.js" not in text
    assert not re.search(r"<(i|span)\b[^>]*\bfa-[\w-]+[^>]*>\s*</", text), "an icon without a drawing"
    assert text.count('class="svg-inline--fa') >= 10
    assert len(re.findall(r'<script src="[^"]*formulas\.js[^"]*" data-later="[^"]*tex-chtml\.js[^"]*">', text)) == \
        text.count("formulas.js") == text.count("tex-chtml.js") == bool(re.search(r'class="[^"]*\bmath\b', text))


def test_the_field_of_search_shows_its_icon_beside_its_words(browser):
    """An icon that is drawn has no class of an icon that is a letter, which would lie upon the words."""
    page = browser.new_page()
    page.goto((HTML / "search.html").as_uri())
    form = page.locator("article form.bd-search, .bd-search-container form.bd-search").first
    icon, field = (form.locator(which).bounding_box() for which in ("svg", "input"))
    page.close()
    assert 10 < icon["width"] < 30 and icon["x"] + icon["width"] <= field["x"] + 12


def test_the_index_of_words_comes_with_the_page_of_search_alone():
    """The theme puts its scripts into the head of every page; a page that searches while one types would need them."""
    words = re.compile(r'src="[^"]*(searchtools|language_data|searchindex)\.js"')
    assert [page.stem for page in ALL if words.search(page.read_text(encoding="utf-8"))] == ["search"]
    names = "_static/searchtools", "_static/language_data", "searchindex"
    scripts = "".join(f'<script src="../{name}.js"></script>\n' for name in names)
    for typed, rest in (("false", ""), ("true", scripts)):
        said = f"<script>DOCUMENTATION_OPTIONS.search_as_you_type = {typed};</script>\n"
        assert light_pages.lightened(said + scripts, HTML, "https://a.b/c") == said + rest


FRAMES = """() => [...document.querySelectorAll(
  "article :is(pre, .cell_output > .output, .pst-scrollable-table-container)")]
  .map((one) => [Boolean(one.closest("details:not([open])")), one.getAttribute("tabindex"),
                 one.scrollWidth > one.clientWidth || one.scrollHeight > one.clientHeight])"""
MARKED = f"() => ({FRAMES})().every(([closed, stop, scrolls]) => !closed && stop === (scrolls ? '0' : '-1'))"
OPEN = "() => document.querySelectorAll('article details').forEach((one) => { one.open = true; })"


def test_what_scrolls_is_reached_by_keys_and_closed_cells_are_not_laid_out(browser):
    """As the theme does it, whose own way is taken out; a listing in a closed cell is looked at when it is opened."""
    [path] = [page for page in PAGES if page.stem == "06_googlenet"]
    script = HTML / "_static" / "scripts" / "pydata-sphinx-theme.js"
    assert light_pages.TAB_STOPS not in script.read_text(encoding="utf-8")
    page = browser.new_page(viewport={"width": 360, "height": 800})
    page.goto(path.as_uri())
    frames = page.evaluate(FRAMES)
    assert {stop for closed, stop, _ in frames if closed} == {None}
    assert {(stop, scrolls) for closed, stop, scrolls in frames if not closed} == {("0", True), ("-1", False)}
    page.evaluate(OPEN)
    page.wait_for_function(MARKED)
    narrow = page.evaluate(FRAMES)
    page.set_viewport_size({"width": 1440, "height": 800})
    page.wait_for_function(MARKED)
    assert page.evaluate(FRAMES) != narrow
    page.close()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_images_of_the_article_wait(page):
    images = [image for image in assets(page).images if "_images/" in image["src"]]
    assert all(image.get("loading") == "lazy" for image in images[1:])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_shared_elsewhere_say_what_the_page_is(page):
    text = page.read_text(encoding="utf-8")
    [description] = re.findall(r'<meta name="description" content="([^"]*)"', text)
    assert 20 < len(description) <= 204
    said = dict(re.findall(r'<meta (?:property|name)="(og:[\w:]+|twitter:card)" content="([^"]*)"', text))
    wanted = {"title", "description", "type", "url", "image", "image:alt", "twitter:card"}
    assert {name.removeprefix("og:") for name in said} == wanted
    assert all(said.values())
    assert said["og:description"] == description
    site = said["og:url"].removesuffix(page.relative_to(HTML).as_posix())
    assert re.fullmatch(r"https://[\w-]+\.github\.io/[\w-]+/", site)
    picture = HTML / said["og:image"].removeprefix(site)
    assert picture.suffix == ".png" and picture.exists(), "named in full, and there"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_opens_has_a_name(page):
    text = page.read_text(encoding="utf-8")
    assert not [found for found in re.findall(r"<summary([^>]*)>(.*?)</summary>", text, re.S)
                if "aria-label=" not in found[0] and not re.sub(r"<[^>]+>", "", found[1]).strip()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_is_called_a_list_holds_items(page):
    text = page.read_text(encoding="utf-8")
    assert not re.search(r'<(?!ul|ol)\w+[^>]* role="list"', text)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_figures_and_drawings_keep_their_letters(page):
    """Each has a least width, at which its smallest letters are 9 pixels."""
    text = page.read_text(encoding="utf-8")
    for width, style in re.findall(r'<img\b[^>]*\bsrc="[^"]*_images/[^>]*\bstyle="width: (\d+)px;([^"]*)"', text):
        least = int(re.search(r"min-width: (\d+)px", style)[1])
        assert 9 <= 8 * 100 / 72 * least / int(width) < 9.2
    for head, body in re.findall(r'<svg\b([^>]*class="nd"[^>]*)>(.*?)</svg>', text, re.S):
        width, least = float(re.search(r' width="([\d.]+)"', head)[1]), float(re.search(r"min-width: (\d+)px", head)[1])
        assert 9 <= (10.5 if 'class="small"' in body else 12) * least / width < 9.5


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_pictures_of_networks_have_their_size_and_keep_their_letters(page):
    for tag in re.findall(r'<img\b[^>]*_static/pictures/(?!small/)[^>]*\.svg"[^>]*>', page.read_text(encoding="utf-8")):
        shown = re.search(r'width="(\d+)" height="(\d+)" style="min-width: (\d+)px"', tag)
        width, height, least = map(int, shown.groups())
        source = re.search(r'src="([^"]*)"', tag)[1]
        own = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', (page.parent / source).read_text(encoding="utf-8")).groups()
        assert [round(float(one)) for one in own] == [width, height]
        assert 9 <= 10.5 * least / float(own[0]) < 9.1


def test_pictures_that_scroll_are_reached_by_keys():
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        assert not re.search('<div class="(network-picture|nd-fit)">', text), page.stem


def test_words_in_code_without_a_colour_have_no_element(tmp_path):
    rules = [("light", " .n", "#000"), ("light", " .k", "#F00"), ("light", " .o", "#000"),
             ("dark", " .n", "#FFF"), ("dark", " .k", "#F00"), ("dark", " .o", "#F00")]
    text = "".join(f'html[data-theme="{theme}"] .highlight {{ background: #123; color: {colour} }}\n'
                   for theme, colour in (("light", "#000"), ("dark", "#FFF")))
    text += "".join(f'html[data-theme="{theme}"] .highlight{name} {{ color: {colour} }} /* A word */\n'
                    for theme, name, colour in rules)
    (tmp_path / "pygments.css").write_text(text)
    assert light_pages._uncoloured(tmp_path / "pygments.css") == {"n"}, "o has the text's colour on light ground only"
    words = '<span class="n">x</span> <span class="k">is</span> <span class="o">=</span>'
    assert light_pages._fewer(f"{words}<pre><span></span>{words}</pre>", {"n"}) == \
        f'{words}<pre><span></span>x <span class="k">is</span> <span class="o">=</span></pre>'
    assert light_pages._uncoloured(HTML / "_static" / "pygments.css") >= {"n", "p", "w"}
    code = re.findall(r"<pre>.*?</pre>", (HTML / "chapters" / "07_resnet.html").read_text(encoding="utf-8"), re.S)
    assert len(code) > 5 and not re.search(r'<span class="(n|p|w)">', "".join(code))


@pytest.mark.parametrize("tex, em", [
    ("y = Wx + b", 6.48), ("y_k", 1.09), (r"\mathrm{ReLU}(x) = \max(0, x)", 11.95), (r"5 \times 5", 2.83),
    (r"W' = \lfloor (W + 2P - F)/S \rfloor + 1", 16.1), (r"\sigma^2", 1.18), ("32 - 5 + 1 = 28", 8.62)])
def test_formulas_keep_their_width(tex, em):
    """Widths as MathJax makes them."""
    assert light_pages.width(tex) == pytest.approx(em, rel=0.15)
    page = f'<p>If <span class="math notranslate nohighlight">\\({tex}\\)</span></p>'
    assert re.search(r'nohighlight" style="--width: [\d.]+em">\\\(', light_pages._kept(page))


def test_lines_break_before_formulas_are_typeset_as_after(browser):
    """In the paragraphs of a page with many formulas: at most one in ten has another number of lines."""
    [path] = [page for page in PAGES if page.stem == "05_vgg_depth"]
    page = browser.new_page(viewport={"width": 820, "height": 900})
    page.goto(path.as_uri())
    lines = ("() => [...document.querySelectorAll('article p:has(span.math)')]"
             ".map((one) => Math.round(one.offsetHeight / 27))")
    page.wait_for_function("() => window.MathJax?.startup?.promise")
    page.evaluate("() => MathJax.startup.promise")
    after = page.evaluate(lines)
    page.evaluate("""() => { for (const one of document.querySelectorAll("span.math.typeset")) {
      one.classList.remove("typeset");
      one.textContent = "x".repeat(60);
    } }""")
    before = page.evaluate(lines)
    page.close()
    assert len(before) == len(after) > 20 and sum(a != b for a, b in zip(before, after)) <= len(before) / 10


def test_a_page_is_light_or_dark_from_its_first_line(browser):
    """Not only when the theme's script has come: a dark page is never light first."""
    page = browser.new_page(color_scheme="dark")
    page.route("**/*.js*", lambda route: route.abort())
    page.goto((HTML / "chapters" / "07_resnet.html").as_uri())
    assert page.locator("html").get_attribute("data-theme") == "dark"
    page.evaluate("localStorage.setItem('mode', 'light')")
    page.reload()
    assert page.locator("html").get_attribute("data-theme") == "light"
    page.close()


SLOW_MATHJAX = """
MathJax.typesetPromise = async (places) => {
  steps.push(places.length);
  for (const end = performance.now() + 30 * places.length; performance.now() < end;);
  for (const place of places) { order.push(place.id); place.innerHTML = "<mjx-container><i></i></mjx-container>"; }
  setTimeout(() => turns.push(order.length));
};
window.late = window.ready <= performance.now();
MathJax.startup.promise = MathJax.startup.pageReady();
"""
FORMULAS = """<!doctype html><html lang="en"><head><link rel="icon" href="data:,"><script>
const order = [], steps = [], turns = [];
window.MathJax = {"options": {}};
window.explorersReady = new Promise((done) => setTimeout(() => { window.ready = performance.now(); done(); }, 400));
</script><script src="formulas.js" data-later="mathjax.js"></script></head><body><article>PLACES</article>
<script>scrollTo(0, 3000);</script></body></html>"""


def test_formulas_are_typeset_in_steps_and_those_in_sight_first(browser, serve, tmp_path):
    """After the explorers; what waits has its turn between two steps."""
    (tmp_path / "formulas.js").write_bytes((notebooks.ROOT / "_static" / "formulas.js").read_bytes())
    (tmp_path / "mathjax.js").write_text(SLOW_MATHJAX)
    places = "".join(f'<p style="margin: 0 0 300px"><span class="math" id="m{i}">x</span></p>' for i in range(20))
    (tmp_path / "index.html").write_text(FORMULAS.replace("PLACES", places))
    page = browser.new_page(viewport={"width": 390, "height": 800})
    page.goto(f"{serve(tmp_path)}/index.html")
    page.wait_for_function("order.length === 20")
    page.evaluate("MathJax.startup.promise")
    found = page.evaluate("({order, steps, turns, late, options: MathJax.options})")
    page.close()
    assert found["late"] and found["options"] == {}, "after the explorers, with the page's own settings"
    assert sorted(found["order"]) == sorted(f"m{i}" for i in range(20)) and found["order"][0] not in ("m0", "m1")
    assert max(found["steps"]) == 4 and len(found["steps"]) > 6, "slow formulas: small steps"
    assert [count for count in found["turns"] if count < 20], "what waits gets its turn between steps"


def test_tables_of_many_columns_are_marked():
    """And cells with sentences where there are some; other tables stay as they are."""
    row = "<tr><th>a</th><th>b</th>{}</tr>"
    cells = f'<tr><td class="text-right"><p>{"many words " * 4}</p></td><td>few</td><td>{"many words " * 4}</td></tr>'
    narrow, some, wide = (f'<table class="table"><thead>{row.format(last)}</thead><tbody>{cells}</tbody></table>'
                          for last in ("", "<th>c</th>", "<th>c</th><th>d</th><th>e</th>"))
    assert light_pages._tables(narrow) == narrow.replace('right"><p>', 'right name"><p>', 1)
    for table, kind in ((some, "table"), (wide, "table wide")):
        found = light_pages._tables(table)
        assert found.startswith(f'<table class="{kind}">') and '<td class="text-right long"><p>' in found
        assert "<td>few</td>" in found and '<td class="long">many' in found


def test_long_lines_of_code_know_where_they_begin():
    code = '<span></span>def f(x):\n    <span class="k">return</span> {}\n    x'
    long = "x" * light_pages.LINE
    page = "<p>{}</p><pre>{}\n</pre>"
    assert light_pages._hanging(page.format(long, code.format("x"))) == page.format(long, code.format("x"))
    line = f'    <span class="k">return</span> {long}\n'
    before = page.format(long, code.format(long))
    after = before.replace(line, f'<span class="hangs" style="--from: 4ch">{line}</span>')
    assert light_pages._hanging(before) == after
    far = f'<pre>{16 * " "}{long}\n</pre>'
    assert light_pages._hanging(far) == \
        f'<pre><span class="hangs" style="--from: 16ch"><span class="indent">{16 * " "}</span>{long}\n</span></pre>'
    cut = f'<pre><span class="s">{long}x\n{long}</span>\n</pre>'
    assert light_pages._hanging(cut) == cut, "an element that goes on over several lines"


SHOWN_CODE = """() => [...document.querySelectorAll("article pre:not(.columns *)")].filter(
  (one) => one.checkVisibility()).map((one) => {
  getSelection().selectAllChildren(one);
  const two = (line) => line.offsetHeight > 1.9 * parseFloat(getComputedStyle(line).lineHeight);
  const further = [...one.querySelectorAll(".hangs")].filter(two).map((line) => {
    const range = document.createRange();
    range.selectNodeContents(line);
    const boxes = [...range.getClientRects()].filter((box) => box.width > 1), first = boxes[0].top;
    const lead = line.querySelector(".indent"); // behind it words begin, however far in, if the first has room
    const room = lead && line.getBoundingClientRect().right - lead.getBoundingClientRect().right;
    if (lead) {
      const walker = document.createTreeWalker(line, NodeFilter.SHOW_TEXT);
      while (lead.contains(walker.nextNode()));
      range.setStart(walker.currentNode, 0);
      range.setEnd(walker.currentNode, walker.currentNode.data.match(/^\\S*/)[0].length);
      const [word] = range.getClientRects();
      if (word && word.width < room && word.top > first + 5) return false;
    }
    return boxes.every((box) => box.top < first + 5 || box.left > line.getBoundingClientRect().left + 20);
  });
  return [one.scrollWidth <= one.clientWidth, getSelection().toString().trim() === one.textContent.trim(), further];
})"""


@pytest.mark.parametrize("width", [390, 1280])
def test_code_shows_the_ends_of_its_lines_and_is_copied_as_it_was(browser, width):
    """A line that is too long goes on below, further in than it begins."""
    [path] = [page for page in PAGES if page.stem == "17_shipping_and_stress_depth"]
    page = browser.new_page(viewport={"width": width, "height": 800})
    page.goto(path.as_uri())
    found = page.evaluate(SHOWN_CODE)
    page.close()
    assert len(found) > 20 and all(fits and copied for fits, copied, _ in found), [one[:2] for one in found]
    assert sum(len(further) for *_, further in found) > 10 and all(all(further) for *_, further in found)


@pytest.mark.parametrize("heading, broken", [
    ("dense_against_residual", "dense_<wbr>against_<wbr>residual"), ("degradation_30", "degradation_30"),
    ('<code class="a_b">grad_cam</code> of', '<code class="a_b">grad_<wbr>cam</code> of')])
def test_names_in_headings_break_behind_underscores(heading, broken):
    page = '<h3>{}<a class="headerlink" href="#a_b">#</a></h3><p>a_b</p>'
    assert light_pages._breakable(page.format(heading)) == page.format(broken)


def test_a_formula_that_is_too_wide_scrolls_in_the_frame_that_fades(browser):
    """The frame itself, not the formula within it, whose edge would look like its end; its beginning shows first."""
    [path] = [page for page in PAGES if page.stem == "05_vgg"]
    page = browser.new_page(viewport={"width": 360, "height": 800})
    page.goto(path.as_uri())
    page.wait_for_function("() => window.MathJax?.startup?.promise")
    page.evaluate("() => MathJax.startup.promise")
    wide = page.evaluate("""() => [...document.querySelectorAll("article div.math")].map((one) =>
      [one.scrollWidth > one.clientWidth, getComputedStyle(one.firstElementChild).overflowX,
       one.querySelector("mjx-math").getBoundingClientRect().left >= one.getBoundingClientRect().left - 1])""")
    page.close()
    assert any(scrolls for scrolls, *_ in wide) and {tuple(one) for _, *one in wide} == {("visible", True)}


@pytest.mark.parametrize("text, columns", [
    ("one sentence, in a line. And one.", False), ("a   1\nbc  23", True), ("    indented\nlines", False),
    ("<span>a</span>  <span>b</span>", True)])
def test_what_is_printed_in_columns_does_not_wrap(text, columns):
    page = ('<div class="output stream highlight-myst-ansi notranslate"><div class="highlight">'
            f"<pre><span></span>{text}\n</pre></div>\n</div>")
    assert light_pages._printed(page) == (page.replace('"output ', '"output columns ', 1) if columns else page)


def test_no_figure_has_smaller_letters_than_it_is_shown_by():
    """The least width of a figure rests on letters of 8 points."""
    small, letters = [], re.compile(r"(?:font|label)_?size[\"'\\]*\s*[=:]\s*([\d.]+)|size=\"(x+-small)")
    for path in [*notebooks.chapter_files(), *notebooks.ROOT.glob("cnnlib/**/*.py")]:
        found = letters.findall(path.read_text(encoding="utf-8"))
        small += [(path.name, number or word) for number, word in found if word or float(number) < 8]
    assert small == []


def test_the_themes_lines_that_are_replaced_stand_in_the_theme():
    """Otherwise nothing would be replaced: a dark page would be light first, and every page heavier."""
    folder = Path(pytest.importorskip("pydata_sphinx_theme").__file__).parent
    layout = (folder / "theme" / "pydata_sphinx_theme" / "layout.html").read_text(encoding="utf-8")
    assert light_pages.THEME.replace('"auto"', '"{{ default_mode }}"') in layout
    script = folder / "theme" / "pydata_sphinx_theme" / "static" / "scripts" / "pydata-sphinx-theme.js"
    assert script.read_text(encoding="utf-8").count(light_pages.TAB_STOPS) == 1
    shipped = re.sub(r"\{\{ pathto\('(.*?)', 1\).*?\}\}", r"\1", layout)
    assert len(light_pages.SEARCH_SCRIPT.findall(shipped)) == 3


def test_long_code_goes_on_over_the_page_on_paper_and_short_code_does_not(browser, tmp_path):
    """Which would otherwise end half empty before it."""
    cell = '<div class="cell_input"><div class="highlight-x"><div class="highlight"><pre>{}</pre></div></div></div>'
    text = "".join(cell.format("a line\n" * lines) for lines in (light_pages.LINES - 1, light_pages.LINES))
    style = (notebooks.ROOT / "_static" / "book.css").read_text(encoding="utf-8")
    theme = "div.highlight { break-inside: avoid; display: flex }"
    styles = f"<style>{theme}</style><style>{style}</style>"
    (tmp_path / "page.html").write_text(f"{styles}<article>{light_pages._long(text)}</article>")
    page = browser.new_page()
    page.goto((tmp_path / "page.html").as_uri())
    page.emulate_media(media="print")
    found = page.evaluate("() => [...document.querySelectorAll('.cell_input')].map((cell) => "
                          "[cell, ...cell.querySelectorAll('div')].map((one) => getComputedStyle(one).breakInside))")
    page.close()
    assert "avoid" in found[0] and set(found[1]) == {"auto"}


@pytest.mark.parametrize("theme, ground", enumerate(((255, 255, 255), (18, 18, 18))))
def test_what_a_drawing_shows_dimly_can_be_read(theme, ground):
    """Its labels have a contrast of 4.5 to the ground of the page, light and dark, and of a slide."""
    share = float(re.search(r"\.nd \.off\{opacity:([\d.]+)", style_sheet())[1])
    ink = [int(INK[theme][i:i + 2], 16) for i in (1, 3, 5)]

    def light(colour):
        parts = [one / 255 / 12.92 if one <= 10 else ((one / 255 + 0.055) / 1.055) ** 2.4 for one in colour]
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

    shown = light([share * a + (1 - share) * b for a, b in zip(ink, ground)])
    low, high = sorted((shown, light(ground)))
    assert (high + 0.05) / (low + 0.05) >= 4.5


def test_rows_of_wide_tables_are_low_on_a_phone(browser, tmp_path):
    """As of the table of all networks: a name over a small picture, and a paper whose name stays on one line."""
    row = '<td><code class="literal">name</code><br><img width="132" height="33" src="data:,"></td>' + "<td>1</td>" * 5
    row += '<td><a href="#">Zeiler and Fergus 2014</a></td>'
    frame = '<article class="pst-scrollable-table-container"><table class="wide"><tr>{}</tr></table></article>'
    style = (notebooks.ROOT / "_static" / "book.css").read_text(encoding="utf-8")
    (tmp_path / "page.html").write_text(f"<!doctype html><style>{style}</style>{frame.format(row)}")
    page = browser.new_page(viewport={"width": 360, "height": 600})
    page.goto((tmp_path / "page.html").as_uri())
    assert page.locator("tr").evaluate("node => node.offsetHeight") < 60
    page.close()
