"""Reduced motion, 200% zoom and reflow, wide letter spacing, forced colours, print: each explorer, and a chapter with several."""

import pytest

from browsing import EXPLORERS_READY, TYPESET, as_if_just_started, bare_page
from chromium import PATIENCE
from explorers import EXAMPLES, example, long_table
from test_light_pages import HTML

CHAPTER = "chapters/01_components"
# Animations that run by themselves; those that follow scrolling move only as far as the reader does.
MOVING = """() => document.getAnimations({subtree: true}).filter((one) => one.timeline instanceof DocumentTimeline
  && one.playState === "running").map((one) => one.transitionProperty ?? one.animationName)"""
# Explorers that follow their own width have done so after a frame.
SETTLED = "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done))))"
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


@pytest.fixture(scope="module")
def look(browser, serve, tmp_path_factory):
    """`look(name, **how)`: the page of an example, or of a chapter, as a reader sees it who has set the browser so.

    One page for all, and another for each other number of dots a pixel.
    """
    pages, folder = {}, tmp_path_factory.mktemp("explorers")
    addresses = [serve(folder), serve(HTML)]

    def open_one(name, width=1280, height=900, scale=1, **media):
        if name in EXAMPLES:
            address = f"{addresses[0]}/{name}.html"
            if not (folder / f"{name}.html").exists():
                bare_page(folder, example(name), name=name)
        elif HTML.exists():
            address = f"{addresses[1]}/{name}.html"
        else:
            pytest.skip("needs the built book: make book")
        if scale not in pages:
            pages[scale] = browser.new_page(device_scale_factor=scale)
            pages[scale].set_default_timeout(PATIENCE)
        page = pages[scale]
        as_if_just_started(page, width, height, **media)
        page.goto(address)
        page.wait_for_function(EXPLORERS_READY)
        page.evaluate(f"""async () => {{
          if (window.MathJax) {{ {TYPESET} }}
          await {SETTLED};
        }}""")
        return page

    yield open_one
    for page in pages.values():
        page.close()


# The place of one of the controls that a pointer can rest on, scrolled into view; and what moves once it does so.
PLACE = """([controls, number]) => {
  const node = document.querySelectorAll(controls)[number];
  if (!node?.checkVisibility({visibilityProperty: true}) || !node.getClientRects().length) return null;
  node.scrollIntoView({block: "center", behavior: "instant"});
  const {x, y, width, height} = node.getBoundingClientRect();
  window.control = node;
  return [x + width / 2, y + height / 2];
}"""


@pytest.mark.parametrize("name", [*EXAMPLES, CHAPTER])
def test_nothing_moves_for_readers_who_asked_for_that(look, name):
    """Not by itself, nor when something is chosen or a pointer rests on it."""
    page = look(name, reduced_motion="reduce")
    moving, reached = page.evaluate(MOVING), 0
    for number in range(12):
        if place := page.evaluate(PLACE, ["article summary, .cx :is(button, input, select), .bd-header button", number]):
            page.mouse.move(*place)
            found, rests = page.evaluate(f"() => [({MOVING})(), window.control.matches(':hover')]")
            moving, reached = moving + found, reached + rests
    assert reached > 2
    page.evaluate("() => { document.documentElement.dataset.theme = 'dark'; }")
    assert moving + page.evaluate(MOVING) == []


@pytest.mark.parametrize("name", [*EXAMPLES, CHAPTER])
def test_zoom_and_spaced_letters_lose_nothing(look, name):
    """At 200% in a window of 1280 pixels, at 400% (a width of 320), and with letters, words and lines apart."""
    page = look(name, 640, 450, scale=2)
    lost = f"""async (root) => {{
      await {SETTLED};
      return [({LOST})(root), document.documentElement.scrollWidth];
    }}"""
    root = ".cx" if name in EXAMPLES else "article"
    for width in (640, 320):
        page.set_viewport_size({"width": width, "height": 450})
        found, widest = page.evaluate(lost, root)
        assert found == [] and widest <= width, width
    page.set_viewport_size({"width": 640, "height": 450})
    page.add_style_tag(content=SPACED)
    found, widest = page.evaluate(lost, root)
    assert found == [] and widest <= 640


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
def test_nothing_vanishes_in_forced_colours(look, name):
    page = look(name, 900, forced_colors="active")
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        active, gone = page.evaluate(f"""(scheme) => {{
          document.documentElement.dataset.theme = scheme;
          return [matchMedia(`(forced-colors: active) and (prefers-color-scheme: ${{scheme}})`).matches, ({VANISHED})()];
        }}""", scheme)
        assert active and gone == [], scheme


def test_a_pressed_value_shows_in_forced_colours(look):
    page = look("normalization", forced_colors="active")  # in groups
    pressed, other = (page.locator(f".cx button[aria-pressed={state}]").first.evaluate("node => getComputedStyle(node).backgroundColor")
                      for state in ("true", "false"))
    assert pressed != other


SHEET = round((297 - 20 - 22) / 25.4 * 96 / 0.8)  # pixels within the margins of tools/pdf.py


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_explorer_fits_a_sheet_of_paper(look, name):
    """Whole: nothing is cut at its right edge, and it is no higher than a page of A4 within its margins."""
    page = look(name, 813, 1100, media="print")
    page.add_style_tag(path=HTML.parents[1] / "_static" / "book.css")
    page.evaluate("() => { const article = document.createElement('article'); article.append(...document.querySelector('main').childNodes); "
                  "document.querySelector('main').append(article); }")
    lost, height = page.evaluate(f"() => [({LOST})('.cx'), document.querySelector('.explorer').offsetHeight]")
    more = 60 if name == "map" else 0  # for families that are not here yet
    assert lost == [] and height + more < SHEET


def test_long_tables_are_cut_on_paper_and_say_so(show):
    page = show(long_table(), width=813)
    page.wait_for_function("() => document.querySelectorAll('.cx-table tbody tr').length > 400", polling=50)
    page.evaluate("() => { const article = document.createElement('article'); article.append(document.querySelector('.explorer')); document.body.append(article); }")
    page.add_style_tag(path=HTML.parents[1] / "_static" / "book.css")
    page.emulate_media(media="print")
    assert page.locator(".cx-table tbody tr:visible").count() == 9
    assert "further rows" in page.locator(".cx-table tbody").evaluate("node => getComputedStyle(node, '::after').content")
