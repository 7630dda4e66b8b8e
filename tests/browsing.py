"""What tests with a browser share: a page that notes what goes wrong, and a page of explorers.

The fixtures `browser`, `serve` and `show` stand in conftest.py.
"""

import itertools
import json
import shutil
import time
from pathlib import Path

import pytest

from chromium import PATIENCE

ROOT = Path(__file__).resolve().parents[1]
NARROW = 360  # pixels


WATCH_SHIFTS = """
window.shift = 0;
new PerformanceObserver((list) => {
  for (const entry of list.getEntries()) window.shift += entry.value;
}).observe({type: "layout-shift", buffered: true});
"""
EXPLORERS_READY = """() => [...document.querySelectorAll('script[type$="widget-view+json"]')].every(
  (place) => place.nextElementSibling?.dataset.ready !== undefined)"""


class Watched:
    """A page with one theme and width; `problems` collects console errors, failed requests and other hosts.

    A request that the browser cancels because its page is left (a late icon, say) is no problem of the page; every
    other failure is one.
    """

    def __init__(self, browser, address, theme="light", width=1280):
        self.problems = []
        self.address = address
        self._leaving, self._pending, self._left = False, set(), set()
        self.page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=theme)
        self.page.set_default_timeout(PATIENCE)
        self.page.add_init_script(WATCH_SHIFTS)
        self.page.on("console", lambda message: message.type in ("error", "warning") and self._note(message.text))
        self.page.on("pageerror", lambda error: self._note(str(error)))
        self.page.on("request", self._begins)
        self.page.on("requestfinished", lambda request: self._pending.discard(request))
        self.page.on("requestfailed", self._fails)
        self.page.on("response", lambda response: response.status >= 400 and self._note(f"missing: {response.url}"))
        self.page.on("framenavigated", self._arrives)

    def _note(self, text):
        self.problems.append(f"{self.page.url}: {text}")

    def _begins(self, request):
        self._pending.add(request)
        if not request.url.startswith((self.address, "data:", "blob:")):
            self._note(f"another host: {request.url}")

    def _fails(self, request):
        self._pending.discard(request)
        cancelled = request.failure == "net::ERR_ABORTED" and (self._leaving or request in self._left)
        if not cancelled:
            self._note(f"failed ({request.failure}): {request.url}")

    def _arrives(self, frame):
        if frame == self.page.main_frame:
            self._leaving = False
            self._left |= self._pending

    def _leave(self):
        """Gives what is still on its way a moment; from now on the page is being left."""
        end = time.monotonic() + 2
        while self._pending - self._left and time.monotonic() < end:
            self.page.wait_for_timeout(10)
        self._leaving = True
        self._left |= self._pending  # not waited for again

    def open(self, url):
        """The page at the address, loaded, its explorers ready."""
        self._leave()
        self.page.goto(url, wait_until="load")
        self.page.wait_for_function(EXPLORERS_READY)
        return self.page

    def leave(self):
        """Leaves the page for an empty one, which costs nothing when the window changes."""
        self._leave()
        self.page.goto("about:blank")

    def rest(self):
        """The problems since the last call, once nothing is on its way; what the page stored is forgotten."""
        self._leave()
        if self.page.url.startswith("http"):
            self.page.evaluate("() => localStorage.clear()")
        found, self.problems = self.problems, []
        return found

    def close(self):
        """Closes the page and returns its problems."""
        self._leave()
        self.page.close()
        return self.problems


class Tab(Watched):
    """A page that shows one explorer after the other, from files in a folder of its own: no test starts a renderer."""

    def __init__(self, browser, serve, folder, **options):
        super().__init__(browser, serve(folder), **options)
        self.folder, self._written = folder, itertools.count()

    def show(self, *explorers, theme="light", width=1280, **options):
        """The page with these explorers, in a browser as if just started: theme, width, no medium, no pointer on it."""
        name = f"page{next(self._written)}"
        bare_page(self.folder, *explorers, theme=theme, name=name, **options)
        as_if_just_started(self.page, width, color_scheme=theme)
        return self.open(f"{self.address}/{name}.html")


def as_if_just_started(page, width=1280, height=900, **media):
    """The window of this size, no medium but those given (a theme is light), and no pointer on the page."""
    page.set_viewport_size({"width": width, "height": height})
    none = {"media": "null", "color_scheme": "light", "reduced_motion": "null", "forced_colors": "null"}
    page.emulate_media(**none | media)
    page.mouse.move(0, 0)


# Waits, in an async function, until a page with formulas has typeset them.
TYPESET = """while (!window.MathJax?.startup?.promise) await new Promise((done) => setTimeout(done, 10));
  await MathJax.startup.promise;"""


def bare_page(folder, *explorers, theme="light", sort_keys=False, name="index"):
    """A page as the book has it: the state in the head, the places in the body, the book's script."""
    from ipywidgets.embed import dependency_state, embed_data

    own = dependency_state(explorers, drop_defaults=False)  # not of every widget that the process has made
    data = embed_data(views=explorers, drop_defaults=False, state=own)
    state, *views = (json.dumps(part, sort_keys=sort_keys).replace("</script>", r"<\/script>")
                     for part in (data["manager_state"], *data["view_specs"]))
    kind = "application/vnd.jupyter.widget-view+json"
    places = "".join(f'<div><script type="{kind}">{view}</script></div>' for view in views)
    shutil.copy(ROOT / "_static" / "explorers.js", folder)
    (folder / f"{name}.html").write_text(f"""<!doctype html>
<html lang="en" data-theme="{theme}"><head><meta charset="utf-8"><title>An explorer</title>
<link rel="icon" href="data:,"><meta name="viewport" content="width=device-width, initial-scale=1">
<style>html[data-theme="dark"] body {{ background: #121212; color: #eee; }}</style>
<script type="application/vnd.jupyter.widget-state+json">{state}</script>
<script src="explorers.js"></script></head><body><main><h1>An explorer</h1>
{places}<p>Text after it.</p>
</main></body></html>""", encoding="utf-8")


def type_into(page, label, number):
    page.get_by_label(label, exact=True).and_(page.locator("input[type=number]")).fill(str(number))


def integers(texts):
    return [int(text.replace(",", "")) for text in texts]


def remember(explorer):
    """Notes in the page what an explorer shows, for `changed`."""
    explorer.evaluate(f"node => {{ node.shown = ({PICTURE})(node); }}")


def changed(explorer, within=PATIENCE):
    """Whether an explorer shows something else than was noted, as soon as it does or after `within` ms; notes it."""
    return explorer.evaluate(f"""async (node, within) => {{
      for (const end = performance.now() + within; ; await new Promise((done) => setTimeout(done, 10))) {{
        const shown = ({PICTURE})(node), other = shown !== node.shown;
        if (other || performance.now() >= end) {{ node.shown = shown; return other; }}
      }}
    }}""", within)


def picture(explorer):
    """What an explorer shows: its text, its drawing and its fields."""
    return explorer.evaluate(PICTURE)


PICTURE = """node => node.innerHTML + [...node.querySelectorAll('input, select')].map(
  (input) => input.checked + input.value).join()"""


# Rows of a long table are alike, and axe looks for what lies behind each word: twenty seconds for FractalNet's costs.
FEW_ROWS = "tr:nth-child(n+16):not(:last-child)"
# Takes away what is neither in such elements nor around one, but no style. Returns names of elements in them that
# others have, too.
ONLY = """(only) => {
  const named = [...document.querySelectorAll(only)].flatMap((one) => [...one.querySelectorAll("[id]")]);
  const twice = named.map(({id}) => id).filter((name) => document.querySelectorAll("#" + CSS.escape(name)).length > 1);
  const around = new Set();
  for (let one of document.querySelectorAll(only)) for (; one; one = one.parentElement) around.add(one);
  const look = (node) => { for (const one of [...node.children]) {
    if (!around.has(one) && !one.matches("style, link")) one.remove();
    else if (!one.matches(only)) look(one);
  } };
  look(document.body);
  return twice;
}"""


def keep_only(page, selector):
    """Takes away all but these elements and what is around them: axe goes through the whole page for every rule."""
    assert page.evaluate(ONLY, selector) == [], "elements of one name"


WRONG = """async ([context, options]) => (await axe.run(context ?? document, options)).violations
  .filter(({impact}) => ["serious", "critical"].includes(impact))
  .map(({id, nodes}) => [id, nodes.map(({html}) => html.slice(0, 200))])"""


def violations(page, context=None):
    """What axe finds that is serious or critical, as (rule, nodes), with the first rows and the last of long tables."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    page.add_style_tag(content=FEW_ROWS + " { display: none !important }")  # and those that are still to come
    page.evaluate("(rows) => document.querySelectorAll(rows).forEach((row) => row.remove())", FEW_ROWS)
    if not page.evaluate("() => Boolean(window.axe)"):
        page.evaluate(axe.Axe().axe_script)
    options = {"resultTypes": ["violations"], "preload": False}  # no rule that is on reads style sheets
    return [tuple(one) for one in page.evaluate(WRONG, [context, options])]
