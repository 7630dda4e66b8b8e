"""The survey of all pages: that it sees what it should, and (slow) that the whole table is in order."""

import survey
import pytest

from chromium import Server
from cnnlib.widgets import NetworkExplorer

HTML = survey.ROOT / "_build" / "html"
LETTERS = 9  # pixels as shown
MOVES = 0.15  # cumulative layout shift; a busy machine paints in pieces, and up to 0.1 counts as good
BAD = """<!doctype html><html lang="en" data-theme="light"><head><title>A page</title><link rel="icon" href="data:,">
<script>const dark = matchMedia("(prefers-color-scheme: dark)"), set = () => document.documentElement.dataset.theme = dark.matches ? "dark" : "light";
dark.addEventListener("change", set); set();</script></head><body><main class="bd-main"><article><h1>A page</h1><p style="font-size: 11px">Small words</p>
<p style="display: none; font-size: 3px">Hidden</p><p class="math" style="font-size: 2px">x</p>
<svg width="200" height="20" viewBox="0 0 400 40"><text x="5" y="20" font-size="14">Drawn</text></svg>
<div class="cell_output"><img alt="A figure" style="width: 400px; max-width: 200px; height: 9px" src="data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7"></div>
<p style="color: #ccc; background: #fff">Pale</p>
<div style="width: 60px; overflow: hidden"><code style="white-space: nowrap">This_is_cut_off</code></div>
<div class="columns"><pre tabindex="0" style="width: 60px; overflow: auto">Printed   in   columns</pre></div>
<div tabindex="0" style="width: 60px; overflow: auto"><code style="white-space: nowrap">This_can_be_scrolled</code></div><input><div style="width: {width}px">Wide</div></article></main></body></html>"""


@pytest.fixture
def rows(browser, serve, tmp_path):
    """`rows(text)`: the survey of a page with this text at two widths."""
    pytest.importorskip("axe_playwright_python")
    page = browser.new_page()
    page.add_init_script(survey.SHIFTS)

    def seen(text):
        (tmp_path / "page.html").write_text(text)
        return list(survey.rows(page, serve(tmp_path), "page", (390, 1280), ((390, "dark"),)))

    yield seen
    page.close()


def test_the_survey_sees_what_is_wrong(rows):
    found = rows(BAD.replace("{width}", "500"))
    assert [(row["width"], row["theme"]) for row in found] == [(390, "light"), (390, "dark"), (1280, "light"), (1280, "dark")]
    assert {row["problems"] for row in found} == {0}
    assert found[0]["overflow"] > 100 and found[2]["overflow"] == 0
    assert {(row["text"], row["drawing"], row["figure"]) for row in found} == {(11, 7, 5.6)}
    assert "Small words" in found[0]["what"] and "Drawn" in found[0]["what"] and "A figure" in found[0]["what"]
    assert (found[2]["cut"], found[0]["what"].partition("cut: ")[2][:15]) == (1, "This_is_cut_off")
    assert found[1]["contrast"] == 1 and found[1]["serious"] == 1 and "label" in found[1]["what"]
    assert found[0]["contrast"] == found[0]["serious"] == ""
    lines = survey.worst(found)
    assert lines[0].startswith("390: overflow ") and "text 11 (page, light)" in lines[0] and "contrast 1" in lines[0]


def test_the_survey_hears_what_the_browser_says_while_a_page_opens_and_sees_the_wrong_colours(rows):
    found = rows(BAD.replace(" set();</script>", "</script><script>console.warn('Oh')</script>"))  # and light until it is told
    assert found[0]["problems"] == 1 and "Oh" in found[0]["what"] and found[2]["problems"] > 1


def test_the_survey_sees_code_whose_ends_are_out_of_sight(rows):
    found = rows(BAD.replace('<div class="columns">', "<div>"))
    assert found[2]["cut"] == 2


def test_the_survey_waits_until_colours_have_faded(rows):
    """From one theme to the other: what axe sees on the way is no page's contrast."""
    fading = BAD.replace('<p style="color: #ccc; background: #fff">', '<p class="fades">').replace("<input>", "").replace("<script>", """<style>
      .fades { transition: color 1s; color: #111; background: #fff } [data-theme=dark] .fades { color: #fff; background: #111 }</style><script>""", 1)
    assert rows(fading)[1]["contrast"] == 0


def test_the_survey_sees_what_moves(rows):
    moving = BAD.replace("{width}", "50").replace("<h1>", '<div id="late"></div><h1>').replace(
        "</body>", "<script>requestAnimationFrame(() => setTimeout(() => { late.style.height = '300px'; }, 50));"
                   "addEventListener('load', () => { const end = Date.now() + 300; while (Date.now() < end); });</script>"
                   '<img alt="" src="data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7"></body>')
    assert rows(BAD.replace("{width}", "50"))[2]["shift"] == 0
    assert rows(moving.replace("<script>requestAnimationFrame", "<script>window.MathJax = {startup: {promise: new Promise((done) => "
                               "setTimeout(done, 600))}}; requestAnimationFrame"))[2]["shift"] > 0.05


def test_the_pages_are_those_of_the_contents():
    names = survey.contents()
    assert names[0] == "index" and "chapters/07_resnet_depth" in names and len(names) == len(set(names)) > 40


@pytest.mark.slow
@pytest.mark.timeout(4 * 3600)
def test_every_page_at_every_width_light_and_dark(browser):
    """No page is too wide, cuts anything off, moves, or shows letters that are too small; axe finds nothing serious."""
    if not HTML.exists():
        pytest.skip("needs the built book: make book")
    pytest.importorskip("axe_playwright_python")
    server = Server(HTML)
    page = browser.new_page()
    page.set_default_timeout(180_000)
    page.add_init_script(survey.SHIFTS)
    wrong = []
    for name in survey.contents():
        for row in survey.rows(page, server.address, name):
            letters = [row[kind] for kind in ("text", "drawing", "figure") if row[kind] != ""]
            if row["overflow"] > 0 or row["cut"] or min(letters) < LETTERS or row["shift"] > MOVES or row["problems"] or row["contrast"] or row["serious"]:
                wrong.append(row)
    page.close()
    server.close()
    assert wrong == []


@pytest.mark.parametrize("width", [360, 700])
def test_drawings_of_networks_keep_their_letters(show, width):
    """In the explorer, on a page as the book has it, before and after a part is opened."""
    page = show(NetworkExplorer("alexnet_227"), "light", width)
    for _ in range(2):
        sizes = page.evaluate("() => [...document.querySelectorAll('.cx-net')].map((one) => one.clientWidth / one.viewBox.baseVal.width)")
        assert len(sizes) == 1 and sizes[0] * 10.5 >= LETTERS
        page.locator(".cx-part").nth(2).press("Enter")
