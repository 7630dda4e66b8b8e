"""Built pages in a real browser, every other host blocked: first each explorer on a bare page, then the whole book."""

import csv
import functools
import io
import json
import os
import shutil
import subprocess
import sys
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from torch import nn

from cnnlib import create_model
from cnnlib.analysis import cost_table, receptive_field
from cnnlib.widgets import ConvolutionArithmetic, CostTableExplorer, ReceptiveFieldExplorer, StackDesigner
from explorers import EXAMPLES

ROOT = Path(__file__).resolve().parents[1]
NARROW = 360  # pixels


# --- a browser, a server, a page that notes what goes wrong ---


def give_up(message):
    """Without a browser the page tests are skipped, except where CI is set."""
    (pytest.fail if os.environ.get("CI") else pytest.skip)(message)


@pytest.fixture(scope="module")
def browser():
    path = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
    if not path:
        give_up("page tests need a browser: install one (Debian: apt-get install chromium), or set CHROMIUM to its path")
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, timeout=180_000, args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"])
        yield browser
        browser.close()


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def serve():
    """`serve(folder)`: the address of a server of the folder."""
    servers = []

    def start(folder):
        server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


WATCH_SHIFTS = """
window.shift = 0;
new PerformanceObserver((list) => {
  for (const entry of list.getEntries()) window.shift += entry.value;
}).observe({type: "layout-shift", buffered: true});
"""


class Watched:
    """A page with one theme and width; `problems` collects console errors, failed requests and other hosts."""

    def __init__(self, browser, address, theme="light", width=1280):
        self.problems = []
        self.page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=theme)
        self.page.set_default_timeout(60_000)
        self.page.add_init_script(WATCH_SHIFTS)
        self.page.route("**/*", functools.partial(self._route, address))
        self.page.on("console", lambda message: message.type in ("error", "warning") and self._note(message.text))
        self.page.on("pageerror", lambda error: self._note(str(error)))
        self.page.on("requestfailed", lambda request: self._note(f"failed: {request.url}"))
        self.page.on("response", lambda response: response.status >= 400 and self._note(f"missing: {response.url}"))

    def _note(self, text):
        self.problems.append(f"{self.page.url}: {text}")

    def _route(self, address, route):
        if route.request.url.startswith((address, "data:", "blob:")):
            route.continue_()
        else:
            self._note(f"another host: {route.request.url}")
            route.abort()

    def open(self, url):
        self.page.goto(url, wait_until="load")
        self.page.wait_for_function(
            "() => [...document.querySelectorAll('script[type$=\"widget-view+json\"]')].every("
            "(place) => place.nextElementSibling?.dataset.ready !== undefined)")
        return self.page


# --- each explorer alone, on a page made here ---


def bare_page(folder, *explorers, theme="light", sort_keys=False):
    """A page as the book has it: the state in the head, the places in the body, the book's script."""
    from ipywidgets.embed import embed_data

    data = embed_data(views=explorers, drop_defaults=False)
    state, *views = (json.dumps(part, sort_keys=sort_keys).replace("</script>", r"<\/script>") for part in (data["manager_state"], *data["view_specs"]))
    places = "".join(f'<div><script type="application/vnd.jupyter.widget-view+json">{view}</script></div>' for view in views)
    shutil.copy(ROOT / "_static" / "explorers.js", folder)
    (folder / "index.html").write_text(f"""<!doctype html>
<html lang="en" data-theme="{theme}"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><title>An explorer</title><link rel="icon" href="data:,">
<style>html[data-theme="dark"] body {{ background: #121212; color: #eee; }}</style>
<script type="application/vnd.jupyter.widget-state+json">{state}</script>
<script src="explorers.js"></script></head><body><main><h1>An explorer</h1>
{places}<p>Text after it.</p>
</main></body></html>""", encoding="utf-8")


@pytest.fixture
def show(browser, serve, tmp_path):
    """`show(explorer)`: a page with it; afterwards, that nothing went wrong on any of them."""
    watched = []

    def open_one(explorer, theme="light", width=1280):
        bare_page(tmp_path, explorer, theme=theme)
        address = serve(tmp_path)
        watched.append(Watched(browser, address, theme, width))
        return watched[-1].open(f"{address}/index.html")

    yield open_one
    for one in watched:
        one.page.close()
        assert one.problems == []


def type_into(page, label, number):
    page.get_by_label(label, exact=True).and_(page.locator("input[type=number]")).fill(str(number))


def on_meta(name):
    with torch.device("meta"):
        return create_model(name)


def integers(texts):
    return [int(text.replace(",", "")) for text in texts]


def test_convolution_by_number_keyboard_and_mouse(show):
    page = show(ConvolutionArithmetic(7, 3, 1))
    answer = page.locator(".cx-formula strong")
    for length, kernel, stride, padding, dilation in [(7, 3, 1, 0, 1), (227, 11, 4, 0, 1), (224, 11, 4, 2, 1), (32, 5, 3, 4, 2)]:
        for label, number in zip(("Input W", "Kernel F", "Stride S", "Padding P", "Dilation D"),
                                 (length, kernel, stride, padding, dilation)):
            type_into(page, label, number)
        layer = nn.Conv2d(1, 1, kernel, stride, padding, dilation, device="meta")
        size = layer(torch.empty(1, 1, length, length, device="meta")).shape[-1]
        assert answer.inner_text() == str(size)
        assert f"output {size}\u00d7{size}" in page.get_by_role("status").inner_text()

    page.get_by_role("button", name="Back to the example").click()
    assert answer.inner_text() == "5"
    page.get_by_role("slider", name="Kernel F").focus()
    page.keyboard.press("ArrowRight")
    assert answer.inner_text() == "4"
    page.get_by_role("slider", name="Window row").focus()
    page.keyboard.press("End")
    assert "unit (3, 0) starts at input row 3, column 0" in page.get_by_role("status").inner_text()
    box = page.locator(".cx-drawing").bounding_box()
    page.mouse.click(box["x"] + 0.98 * box["width"] * 0.75, box["y"] + box["height"] / 2 + 5)
    assert "unit (3, 0)" not in page.get_by_role("status").inner_text()
    type_into(page, "Input W", 2)
    assert answer.inner_text() == "no output"
    assert "The kernel spans 4 values, but the padded input has only 2" in page.get_by_role("status").inner_text()


def test_cost_table_shows_the_numbers_of_the_analysis(show):
    page = show(CostTableExplorer("alexnet_227", "alexnet"))
    table = cost_table(on_meta("alexnet_227"), (3, 227, 227))

    def column(measure, place="tbody"):
        index = {"activations": 1, "params": 2, "macs": 3}[measure]
        return integers(page.locator(f".cx-scroll:first-child {place} tr").locator(
            f".cx-figure:nth-last-child({4 - index}) .cx-full").all_inner_texts())

    for measure in ("activations", "params", "macs"):
        assert column(measure) == [getattr(row, measure) for row in table]
        assert column(measure, "tfoot") == [getattr(table.total, measure)]

    page.get_by_role("button", name="Parameters").click()  # by mouse: largest first
    assert column("params") == sorted((row.params for row in table), reverse=True)
    assert page.locator("th[aria-sort=descending] button").evaluate("node => node === document.activeElement")
    page.keyboard.press("Enter")  # by keyboard: smallest first
    assert column("params") == sorted(row.params for row in table)
    page.keyboard.press("Space")  # forward order again
    assert column("params") == [row.params for row in table]

    page.get_by_label("multiply-adds").focus()
    page.keyboard.press("ArrowRight")
    assert column("macs") == [row.flops for row in table]
    page.get_by_label("stages").check()
    assert column("macs") == [stage.flops for stage in table.stages()]
    page.get_by_label("layers").check()
    page.get_by_label("Name or kind contains").press_sequentially("conv2d")
    convolutions = [row for row in table if row.kind == "Conv2d"]
    assert column("params") == [row.params for row in convolutions]
    assert f"{len(convolutions)} of {len(table)} layers" in page.get_by_role("status").inner_text()

    with page.expect_download() as download:
        page.get_by_role("button", name="Save as CSV").click()
    assert download.value.suggested_filename == "alexnet_227_3x227x227.csv"
    rows = list(csv.DictReader(io.StringIO(Path(download.value.path()).read_text(encoding="utf-8"))))
    assert [(row["layer"], int(row["flops"])) for row in rows] == [(row.name, row.flops) for row in convolutions]

    page.get_by_role("button", name="Back to the example").click()
    page.get_by_label("Beside it").select_option("alexnet at 3x224x224")
    assert page.locator(".cx-scroll").count() == 2
    theirs = cost_table(on_meta("alexnet"), (3, 224, 224)).total
    assert f"{theirs.params / table.total.params:#.3g} times the parameters" in page.get_by_role("status").inner_text()
    page.get_by_label("KB, MB").check()
    assert "1.162 MB" in page.locator(".cx-scroll").first.inner_text()  # 96x55x55 values of 4 bytes


def test_receptive_field_walks_by_keyboard_and_mouse(show):
    explorer = ReceptiveFieldExplorer("alexnet_227")
    page = show(explorer)
    fields = receptive_field(on_meta("alexnet_227"), (3, 227, 227))

    def fact(name):
        return page.locator(f"[data-fact={name}]").inner_text()

    page.get_by_role("slider", name="Layer", exact=True).focus()
    page.keyboard.press("Home")
    for layer in explorer.layers:
        field = fields[layer["name"]]
        size, stride, start = field.size[0], field.stride[0], field.start[0]
        assert fact("field") == f"{size} \u00d7 {size} pixels"
        assert fact("start") == str(start).replace("-", "\u2212")
        if field.units != (1, 1):
            assert fact("stride") == f"{stride} pixels"
            assert fact("overlap").startswith(f"{size - stride} of {size} columns")
        page.keyboard.press("ArrowRight")

    page.get_by_label("Layer, in forward order").select_option("stages.1.2.pool")
    box = page.locator(".cx-drawing").bounding_box()
    page.mouse.click(box["x"] + 0.2 * box["width"], box["y"] + 0.2 * box["height"])
    assert fact("span") == "rows \u221264 to 130, columns \u221264 to 130"
    assert fact("outside") == f"{100 * (1 - (131 / 195) ** 2):.0f}% of the field"
    page.get_by_role("slider", name="Unit column").focus()
    page.keyboard.press("End")
    assert fact("span") == "rows \u221264 to 130, columns 96 to 290"
    page.get_by_role("button", name="Back to the example").click()
    assert "unit (3, 3)" in page.get_by_role("status").inner_text()


def test_stack_designer_by_keyboard_and_mouse(show):
    page = show(StackDesigner("AlexNet's beginning"))

    def check(*layers, side=227):
        network = nn.Sequential(*layers)
        table = cost_table(network, (3, side, side))
        field = list(receptive_field(network, (3, side, side)).values())[-1]
        assert [integers([text.split()[0]])[0] for text in page.locator("[data-result=params]").all_inner_texts()] == \
            [row.params for row in table]
        assert integers([page.locator("[data-versus=macs-stack]").inner_text()]) == [table.total.macs]
        size = field.size[0]
        assert f"sees {size}\u00d7{size}" in page.get_by_role("status").inner_text()
        channels, height, width = table[-1].output_shape
        large = nn.Conv2d(3, channels, size, device="meta")
        assert integers([page.locator("[data-versus=params-one]").inner_text()]) == [sum(p.numel() for p in large.parameters())]

    with torch.device("meta"):
        stack = [nn.Conv2d(3, 96, 11, 4), nn.MaxPool2d(3, 2), nn.Conv2d(96, 256, 5, padding=2), nn.MaxPool2d(3, 2)]
        third = nn.Conv2d(256, 256, 3, padding=1)
    check(*stack)
    page.get_by_role("button", name="Add convolution").click()
    check(*stack, third)
    page.get_by_role("button", name="Remove layer 4").focus()
    page.keyboard.press("Enter")
    check(*stack[:3], third)
    assert page.locator(":focus").get_attribute("aria-label") == "Remove layer 4"
    page.get_by_role("button", name="Move layer 2 up").press("Space")
    with torch.device("meta"):
        check(nn.MaxPool2d(3, 2), stack[0], stack[2], third)
    page.get_by_label("Kernel of layer 1").fill("15")
    page.get_by_label("Input height").fill("10")
    assert "Layer 1: The window of 15 does not fit into 10 values" in page.get_by_role("status").inner_text()
    page.get_by_label("Stack", exact=True).select_option("three 3x3")
    assert integers(page.locator("[data-versus^=params]").all_inner_texts()) == [27 * 64**2, 49 * 64**2]
    page.get_by_label("Count biases").check()
    assert integers(page.locator("[data-versus^=params]").all_inner_texts()) == [27 * 64**2 + 3 * 64, 49 * 64**2 + 64]


@pytest.mark.parametrize("name", EXAMPLES)
def test_explorers_are_accessible_and_narrow(show, name):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    for theme, width in (("light", 1280), ("dark", NARROW)):
        page = show(EXAMPLES[name](), theme, width)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        found = axe.Axe().run(page).response["violations"]
        serious = [(one["id"], [node["html"][:200] for node in one["nodes"]]) for one in found
                   if one["impact"] in ("serious", "critical")]
        assert serious == []
        # Everything that takes a click can be reached and is at least as large as text.
        assert page.locator(".cx :is(button, select, input):visible").count() >= 3


@pytest.mark.parametrize("name", EXAMPLES)
def test_explorers_follow_the_theme_and_clean_up(show, name):
    page = show(EXAMPLES[name](), "light")
    frame = page.locator("section.cx")

    def paper():
        return frame.evaluate("node => getComputedStyle(node).backgroundColor")

    light = paper()
    page.evaluate("document.documentElement.dataset.theme = 'dark'")
    assert paper() != light
    assert page.evaluate("""async () => {
      const script = document.querySelector('script[type$="widget-state+json"]');
      const {state} = JSON.parse(script.textContent);
      const one = Object.values(state).map((entry) => entry.state).find((entry) => entry._esm);
      const url = URL.createObjectURL(new Blob([one._esm], {type: "text/javascript"}));
      const listeners = new Set();
      const model = {get: (key) => one[key], set() {}, save_changes() {},
        on: (event, callback) => listeners.add(callback), off: (event, callback) => listeners.delete(callback)};
      const el = document.createElement("div");
      const cleanUp = (await import(url)).default.render({model, el});
      const [filled, listening] = [el.children.length, listeners.size];
      cleanUp();
      return [filled, listening, el.children.length, listeners.size];
    }""") == [1, 1, 0, 0]


def test_two_views_share_one_model(browser, serve, tmp_path):
    bare_page(tmp_path, ConvolutionArithmetic(7, 3, 1))
    page_file = tmp_path / "index.html"
    text = page_file.read_text(encoding="utf-8")
    start = text.index("<div><script")
    view = text[start:text.index("</div>", start) + 6]
    page_file.write_text(text.replace(view, view + view), encoding="utf-8")
    address = serve(tmp_path)
    watched = Watched(browser, address)
    page = watched.open(f"{address}/index.html")
    page.get_by_role("slider", name="Stride S").first.press("ArrowRight")
    assert page.locator(".cx-formula strong").all_inner_texts() == ["3", "3"]
    page.close()
    assert watched.problems == []


# --- the whole book ---


def newest_source():
    files = [ROOT / name for name in ("_config.yml", "_toc.yml", "index.md", "references.bib")]
    files += [*(ROOT / "_static").glob("*"), *(ROOT / "_ext").glob("*.py"), *(ROOT / "chapters").glob("*.ipynb"), *(ROOT / "chapters").glob("*.md")]
    return max(file.stat().st_mtime for file in files if file.exists())


@pytest.fixture(scope="module")
def book(browser, tmp_path_factory):
    """The built book: the one in `_build`, if it is newer than its sources, else one built for the tests."""
    built = ROOT / "_build" / "html"
    if (built / "index.html").exists() and (built / "index.html").stat().st_mtime > newest_source():
        return built
    folder = tmp_path_factory.mktemp("book")
    command = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()", "build", str(ROOT), "--path-output", str(folder), "-q"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1500)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return folder / "_build" / "html"


def pages_of(book):
    names = (path.relative_to(book) for path in book.rglob("*.html"))
    return sorted(name.as_posix() for name in names if not name.parts[0].startswith("_"))


@pytest.fixture(scope="module")
def address(book, serve):
    return serve(book)


# What every explorer has first of all: a slider, a number or a choice, each of which the arrow keys change.
PROBE = ".cx :is(input[type=range], input[type=number], input[type=radio]):visible"


def picture(explorer):
    """What an explorer shows: its text, its drawing and its fields."""
    return explorer.evaluate("node => node.innerHTML + [...node.querySelectorAll('input, select')].map("
                             "(input) => input.checked + input.value).join()")


def test_every_page_is_quiet_and_its_explorers_answer(browser, book, address):
    watched = Watched(browser, address)
    silent, untypeset, shifts = [], [], {}
    for name in pages_of(book):
        page = watched.open(f"{address}/{name}")
        if page.locator(".math").count():
            page.wait_for_function("() => window.MathJax?.startup?.promise")
            page.evaluate("() => MathJax.startup.promise")
            count = page.locator(".math:not(:has(mjx-container))").count()
            untypeset += [f"{name}: {count} formulas"] if count or page.locator("mjx-merror").count() else []
        shifts[name] = page.evaluate("window.shift")
        for explorer in page.locator(".explorer").all():
            before = picture(explorer)
            if explorer.locator(PROBE).count():
                explorer.locator(PROBE).first.focus()
                page.keyboard.press("ArrowUp")
            else:  # a question with a field for its answer
                explorer.locator("input[type=text]").fill("1")
                explorer.get_by_role("button", name="Check").click()
            page.wait_for_timeout(30)
            after_keys = picture(explorer)
            if after_keys == before:
                page.keyboard.press("ArrowDown")  # it stood at its end
                page.wait_for_timeout(30)
                after_keys = picture(explorer)
            explorer.get_by_role("button", name="Back to the example").click()
            page.wait_for_timeout(30)
            if not before != after_keys != picture(explorer):
                silent.append(f"{name}: {explorer.get_attribute('data-explorer')}")
    watched.page.close()
    assert watched.problems == []
    assert untypeset == []
    assert silent == []
    assert {name: shift for name, shift in shifts.items() if shift > 0.15} == {}  # a busy machine paints in pieces


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_no_page_is_wider_than_a_narrow_screen(browser, book, address, theme):
    watched = Watched(browser, address, theme, NARROW)
    wide = {}
    for name in pages_of(book):
        page = watched.open(f"{address}/{name}")
        width = page.evaluate("document.documentElement.scrollWidth")
        if width > NARROW:
            wide[name] = width
        assert page.evaluate("document.documentElement.dataset.theme") == theme
    watched.page.close()
    assert wide == {}


def test_pages_with_explorers_are_accessible(browser, book, address):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    watched = Watched(browser, address)
    serious = []
    for name in pages_of(book):
        page = watched.open(f"{address}/{name}")
        if page.locator(".explorer").count():
            found = axe.Axe().run(page, context=".explorer").response["violations"]
            serious += [f"{name}: {one['id']}" for one in found if one["impact"] in ("serious", "critical")]
    watched.page.close()
    assert serious == []
