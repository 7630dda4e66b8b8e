"""Reduced motion, 200% zoom and reflow, wide letter spacing, forced colours, print: each explorer, and a chapter with several."""

import pytest

from browsing import EXPLORERS_READY, bare_page
from chromium import PATIENCE
from cnnlib.widgets import CostTableExplorer, NormalizationAxes
from explorers import EXAMPLES
from test_light_pages import HTML

CHAPTER = "chapters/01_components"
# Animations that run by themselves; those that follow scrolling move only as far as the reader does.
MOVING = """() => document.getAnimations({subtree: true}).filter((one) => one.timeline instanceof DocumentTimeline
  && one.playState === "running").map((one) => one.transitionProperty ?? one.animationName)"""
# WCAG 1.4.12: text may be spaced like this without a loss.
SPACED = """*:not(svg *) { line-height: 1.5 !important; letter-spacing: 0.12em !important; word-spacing: 0.16em !important; }
  p { margin-bottom: 2em !important; }"""
# What is wider than the page or than a frame that cannot be scrolled, and text whose box hides a part of it.
LOST = """(root) => [...document.querySelectorAll(`${root} *`)].filter((node) => {
  const box = node.getBoundingClientRect(), style = getComputedStyle(node);
  if (box.width < 2 || box.height < 2 || !node.checkVisibility({checkOpacity: true, checkVisibilityCSS: true})) return false;
  if (node.closest("svg *, mjx-container *, .visually-hidden, .sr-only, .headerlink, .copybtn, option")) return false;
  let frame = node.parentElement;
  while (frame && !/auto|scroll|hidden|clip/.test(getComputedStyle(frame).overflowX)) frame = frame.parentElement;
  const scrolls = frame && /auto|scroll/.test(getComputedStyle(frame).overflowX);
  const beyond = !scrolls && box.right > (frame?.getBoundingClientRect().right ?? document.documentElement.clientWidth) + 1;
  const own = [...node.childNodes].some((one) => one.nodeType === 3 && one.data.trim());
  const hides = own && /hidden|clip/.test(style.overflow) && (node.scrollHeight > node.clientHeight + 2 || node.scrollWidth > node.clientWidth + 2);
  return beyond || hides;
}).map((node) => node.tagName + "." + node.className + ": " + node.textContent.trim().slice(0, 40))"""


@pytest.fixture
def seen(browser, serve, tmp_path):
    """`seen(name, **how)`: the page of an example, or of a chapter, in a browser that is set so."""
    opened = []

    def open_one(name, **how):
        if name in EXAMPLES:
            bare_page(tmp_path, EXAMPLES[name]())
            address = f"{serve(tmp_path)}/index.html"
        elif HTML.exists():
            address = f"{serve(HTML)}/{name}.html"
        else:
            pytest.skip("needs the built book: make book")
        opened.append(browser.new_page(**{"viewport": {"width": 1280, "height": 900}} | how))
        opened[-1].set_default_timeout(PATIENCE)
        opened[-1].goto(address)
        opened[-1].wait_for_function(EXPLORERS_READY)
        opened[-1].wait_for_function("() => !window.MathJax || MathJax.startup?.promise")
        opened[-1].evaluate("() => window.MathJax?.startup.promise")
        return opened[-1]

    yield open_one
    for page in opened:
        page.close()


@pytest.mark.parametrize("name", [*EXAMPLES, CHAPTER])
def test_nothing_moves_for_readers_who_asked_for_that(seen, name):
    """Not by itself, nor when something is chosen or a pointer rests on it."""
    page = seen(name, reduced_motion="reduce")
    moving = page.evaluate(MOVING)
    for control in page.locator("article summary, .cx :is(button, input, select), .bd-header button").all()[:12]:
        if control.is_visible():
            control.hover()
            moving += page.evaluate(MOVING)
    page.evaluate("() => { document.documentElement.dataset.theme = 'dark'; }")
    assert moving + page.evaluate(MOVING) == []


@pytest.mark.parametrize("name", [*EXAMPLES, CHAPTER])
def test_zoom_and_spaced_letters_lose_nothing(seen, name):
    """At 200% in a window of 1280 pixels, at 400% (a width of 320), and with letters, words and lines apart."""
    root = ".cx" if name in EXAMPLES else "article"
    page = seen(name, viewport={"width": 640, "height": 450}, device_scale_factor=2)
    for width in (640, 320):
        page.set_viewport_size({"width": width, "height": 450})
        page.wait_for_timeout(100)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, width
        assert page.evaluate(LOST, root) == [], width
    page.set_viewport_size({"width": 640, "height": 450})
    page.add_style_tag(content=SPACED)
    page.wait_for_timeout(100)
    assert page.evaluate("document.documentElement.scrollWidth") <= 640
    assert page.evaluate(LOST, root) == []


# What is written or drawn in the colour of the ground it lies on, and what can be pressed without an edge.
VANISHED = """() => {
  const paint = (colour) => { const pen = new OffscreenCanvas(1, 1).getContext("2d"); pen.fillStyle = colour; pen.fillRect(0, 0, 1, 1);
    return [...pen.getImageData(0, 0, 1, 1).data]; };
  const ground = (node) => { for (; node; node = node.parentElement) { const colour = paint(getComputedStyle(node).backgroundColor);
    if (colour[3] > 200) return colour; } return paint("Canvas"); };
  const light = (colour) => { const [r, g, b] = colour.map((one) => { one /= 255; return one <= 0.04045 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4; });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const ratio = (a, b) => { const [x, y] = [light(a), light(b)].sort((p, q) => q - p); return (x + 0.05) / (y + 0.05); };
  const gone = [];
  for (const node of document.querySelectorAll(".cx *")) {
    if (!node.checkVisibility({checkOpacity: true, checkVisibilityCSS: true}) || node.closest(":disabled")) continue;
    const style = getComputedStyle(node), text = [...node.childNodes].some((one) => one.nodeType === 3 && one.data.trim());
    if (text && !node.closest("svg, option") && ratio(paint(style.color), ground(node)) < 3) gone.push("text " + node.textContent.slice(0, 30));
    if (/^(rect|path|polygon|circle|line)$/.test(node.tagName) && !node.closest("defs, clipPath, symbol, button")) {
      const [fill, stroke] = ["fill", "stroke"].map((name) => style[name] !== "none" && +style[name + "Opacity"] > 0.2 ? paint(style[name]) : null);
      if ((fill || stroke) && ![fill, stroke].some((one) => one && one[3] > 50 && ratio(one, ground(node)) >= 1.25)
          && !node.matches(".cx-ground, .cx-unseen, .cx-sheet, .cx-shade, .cx-halo")) gone.push(node.tagName + "." + node.className.baseVal);
    }
    if (node.matches("button, select, input[type=number], input[type=text]") && parseFloat(style.borderTopWidth) < 0.5
        && style.textDecorationLine === "none" && style.outlineStyle === "none") gone.push("edge of " + node.textContent.slice(0, 30));
  }
  return [...new Set(gone)];
}"""


@pytest.mark.parametrize("name", EXAMPLES)
def test_nothing_vanishes_in_forced_colours(seen, name):
    page = seen(name, forced_colors="active", viewport={"width": 900, "height": 900})
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        page.evaluate("(scheme) => { document.documentElement.dataset.theme = scheme; }", scheme)
        assert page.evaluate("(scheme) => matchMedia(`(forced-colors: active) and (prefers-color-scheme: ${scheme})`).matches", scheme)
        assert page.evaluate(VANISHED) == [], scheme


def test_a_pressed_value_shows_in_forced_colours(browser, serve, tmp_path):
    bare_page(tmp_path, NormalizationAxes("group"))
    page = browser.new_page(forced_colors="active")
    page.goto(f"{serve(tmp_path)}/index.html")
    page.wait_for_function(EXPLORERS_READY)
    pressed, other = (page.locator(f".cx button[aria-pressed={state}]").first.evaluate("node => getComputedStyle(node).backgroundColor")
                      for state in ("true", "false"))
    page.close()
    assert pressed != other


SHEET = round((297 - 20 - 22) / 25.4 * 96 / 0.8)  # pixels within the margins of tools/pdf.py


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_explorer_fits_a_sheet_of_paper(seen, name):
    """Whole: nothing is cut at its right edge, and it is no higher than a page of A4 within its margins."""
    page = seen(name, viewport={"width": 813, "height": 1100})
    page.emulate_media(media="print")
    page.add_style_tag(path=HTML.parents[1] / "_static" / "book.css")
    page.evaluate("() => { const article = document.createElement('article'); article.append(...document.querySelector('main').childNodes); "
                  "document.querySelector('main').append(article); }")
    assert page.evaluate(LOST, ".cx") == []
    more = 60 if name == "map" else 0  # for families that are not here yet
    assert page.locator(".explorer").evaluate("node => node.offsetHeight") + more < SHEET


def test_long_tables_are_cut_on_paper_and_say_so(seen, browser, serve, tmp_path):
    bare_page(tmp_path, CostTableExplorer("densenet121"))
    page = browser.new_page(viewport={"width": 813, "height": 1100})
    page.goto(f"{serve(tmp_path)}/index.html")
    page.wait_for_function("() => document.querySelectorAll('.cx-table tbody tr').length > 400")
    page.evaluate("() => { const article = document.createElement('article'); article.append(document.querySelector('.explorer')); document.body.append(article); }")
    page.add_style_tag(path=HTML.parents[1] / "_static" / "book.css")
    page.emulate_media(media="print")
    assert page.locator(".cx-table tbody tr:visible").count() == 9
    assert "further rows" in page.locator(".cx-table tbody").evaluate("node => getComputedStyle(node, '::after').content")
    page.close()
