"""What tests with a browser share: a page that notes what goes wrong, and a page of explorers.

The fixtures `browser`, `serve` and `show` stand in conftest.py.
"""

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
            self._leaving, self._left = False, set(self._pending)

    def _leave(self):
        """Gives what is still on its way a moment; from now on the page is being left."""
        end = time.monotonic() + 2
        while self._pending and time.monotonic() < end:
            self.page.wait_for_timeout(10)
        self._leaving = True

    def open(self, url):
        """The page at the address, loaded, its explorers ready."""
        self._leave()
        self.page.goto(url, wait_until="load")
        self.page.wait_for_function(EXPLORERS_READY)
        return self.page

    def close(self):
        """Closes the page and returns its problems."""
        self._leave()
        self.page.close()
        return self.problems


def bare_page(folder, *explorers, theme="light", sort_keys=False):
    """A page as the book has it: the state in the head, the places in the body, the book's script."""
    from ipywidgets.embed import dependency_state, embed_data

    own = dependency_state(explorers, drop_defaults=False)  # not of every widget that the process has made
    data = embed_data(views=explorers, drop_defaults=False, state=own)
    state, *views = (json.dumps(part, sort_keys=sort_keys).replace("</script>", r"<\/script>")
                     for part in (data["manager_state"], *data["view_specs"]))
    kind = "application/vnd.jupyter.widget-view+json"
    places = "".join(f'<div><script type="{kind}">{view}</script></div>' for view in views)
    shutil.copy(ROOT / "_static" / "explorers.js", folder)
    (folder / "index.html").write_text(f"""<!doctype html>
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


def picture(explorer):
    """What an explorer shows: its text, its drawing and its fields."""
    return explorer.evaluate(PICTURE)


PICTURE = """node => node.innerHTML + [...node.querySelectorAll('input, select')].map(
  (input) => input.checked + input.value).join()"""


def wait_until_it_shows_another(explorer, before):
    """What an explorer shows as soon as that is not `before`."""
    place = explorer.element_handle()
    changed = f"([node, before]) => ({PICTURE})(node) !== before"
    explorer.page.wait_for_function(changed, arg=[place, before], polling=20)
    return picture(explorer)


# Rows of a long table are alike, and axe looks for what lies behind each word: twenty seconds for FractalNet's costs.
FEW_ROWS = "tr:nth-child(n+16):not(:last-child) { display: none !important }"


def violations(page, **options):
    """What axe finds that is serious or critical, as (rule, nodes), with the first rows and the last of long tables."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    page.add_style_tag(content=FEW_ROWS)
    found = axe.Axe().run(page, **options).response["violations"]
    return [(one["id"], [node["html"][:200] for node in one["nodes"]]) for one in found
            if one["impact"] in ("serious", "critical")]
