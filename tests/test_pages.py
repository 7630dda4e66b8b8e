"""The built book in a real browser, every other host blocked: each page wide and light, then narrow and dark."""

import fcntl
import re
import subprocess
import sys

import pytest

from browsing import NARROW, ROOT, TYPESET, Watched, changed, keep_only, remember, violations

CONTENTS = re.findall(r"^(?:root| +- file): (\S+)$", (ROOT / "_toc.yml").read_text(encoding="utf-8"), re.M)
ENLARGED = 320  # pixels that a window of 1280 has where letters are four times as large
NAMES = sorted([*CONTENTS, "genindex", "search"])


def newest_source():
    files = [ROOT / name for name in ("_config.yml", "_toc.yml", "index.md", "references.bib")]
    for pattern in ("_static/*", "_ext/*.*", "chapters/*.ipynb", "chapters/*.md"):
        files += ROOT.glob(pattern)
    return max(file.stat().st_mtime for file in files if file.exists())


def is_new(built):
    return (built / "index.html").exists() and (built / "index.html").stat().st_mtime > newest_source()


@pytest.fixture(scope="module")
def book(browser, tmp_path_factory):
    """The built book: the one in `_build`, if newer than its sources, else one that the first worker builds for all."""
    if is_new(ROOT / "_build" / "html"):
        return ROOT / "_build" / "html"
    folder = tmp_path_factory.getbasetemp().parent / "book"
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not is_new(folder / "_build" / "html"):
            code = "from jupyter_book.cli.main import main; main()"
            done = subprocess.run([sys.executable, "-c", code, "build", str(ROOT), "--path-output", str(folder), "-q"],
                                  cwd=ROOT, capture_output=True, text=True, timeout=1500)
            assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return folder / "_build" / "html"


@pytest.fixture(scope="module")
def view(browser, book, serve):
    """A page that visits one address after the other, so that scripts that all share are fetched once."""
    view = Watched(browser, serve(book))
    yield view
    view.close()


def test_every_page_is_in_the_table_of_contents(book):
    """And so is visited; a page whose source is gone was left by an earlier build."""
    pages = (path.relative_to(book).with_suffix("") for path in book.rglob("*.html"))
    built = {page.as_posix() for page in pages if not page.parts[0].startswith("_")}
    assert set(NAMES) <= built
    assert not [name for name in built - set(NAMES) if list(ROOT.glob(f"{name}.*"))]


# What every explorer has first of all: a slider, a number or a choice, each of which the arrow keys change.
PROBE = ".cx :is(input[type=range], input[type=number], input[type=radio]):visible"


# How many formulas are not typeset and how many are errors, once the page's script has typeset what it has.
UNSET = f"""async () => {{
  if (!document.querySelector(".math")) return [0, 0];
  {TYPESET}
  return [".math:not(:has(mjx-container))", "mjx-merror"].map((one) => document.querySelectorAll(one).length);
}}"""


def answers(explorer):
    """The explorer shows another picture after a key, and again another after its button of return."""
    remember(explorer)
    if (probe := explorer.locator(PROBE)).count():
        probe.first.press("ArrowUp")
        if not changed(explorer, 30):
            probe.first.press("ArrowDown")  # it stood at its end
            assert changed(explorer)
    else:
        if (photographs := explorer.locator("button[data-photograph][aria-pressed=false]")).count():
            photographs.first.press("Enter")  # nothing is fetched for it
        elif (moves := explorer.locator(".cx-order button:enabled")).count():
            moves.first.press("Enter")
        else:  # a question with a field for its answer
            field = explorer.locator("input[type=text]")
            field.fill("1")
            remember(explorer)  # an answer is more than its field
            field.press("Enter")
        assert changed(explorer)
    explorer.get_by_role("button", name="Back to the example").click()
    assert changed(explorer)


# Whether the page has turned to a theme, within ten seconds, and is no wider than its window.
FITS = """async ([theme, width]) => {
  const root = document.documentElement;
  for (let i = 0; i < 1000 && root.dataset.theme !== theme; i++) await new Promise((done) => setTimeout(done, 10));
  return root.dataset.theme === theme && root.scrollWidth <= width;
}"""
# Names of explorers whose button of return is hidden by something else on the page.
COVERED = """() => [...document.querySelectorAll(".explorer")].filter((one) => {
  const button = [...one.querySelectorAll("button")].find((node) => node.textContent.includes("Back to the example"));
  button.scrollIntoView({block: "center", behavior: "instant"});
  const {x, y, width, height} = button.getBoundingClientRect();
  return !button.contains(document.elementFromPoint(x + width / 2, y + height / 2));
}).map((one) => one.dataset.explorer)"""


@pytest.mark.parametrize("number, name", enumerate(NAMES), ids=NAMES)
def test_page(view, number, name):
    """Quiet, typeset, still while it loads; explorers answer and are accessible; narrow, it fits in both themes.

    Of each chapter's two pages one is opened wide and light, the other narrow and dark; of the next one's the other.
    The explorers are asked when the rest of the page has been taken away, which would be laid out anew for each answer.
    """
    page, opened = view.page, "light" if (number + number // 2) % 2 == 0 else "dark"
    size = {"light": 1280, "dark": NARROW}[opened]

    def set_to(theme, width):
        page.set_viewport_size({"width": width, "height": 900})
        page.emulate_media(color_scheme=theme)

    def fits(theme, width):
        set_to(theme, width)
        return page.evaluate(FITS, [theme, width])

    view.leave()
    view.problems.clear()
    set_to(opened, size)
    for _ in range(3):  # a busy machine paints in pieces; what the page itself moves, it moves each time
        view.open(f"{view.address}/{name}.html")
        assert page.evaluate(UNSET) == [0, 0]
        if (moved := page.evaluate("window.shift")) <= 0.15:
            break
    else:
        raise AssertionError(f"parts of the page move by {moved:.2f}")
    assert page.evaluate("document.documentElement.dataset.theme") == opened
    assert page.evaluate("document.documentElement.scrollWidth") <= size
    explorers = page.locator(".explorer").all()
    assert page.evaluate(COVERED) == []

    for theme in ("light", "dark") if opened == "light" else ("light",):
        assert fits(theme, NARROW), theme
    assert fits(theme, ENLARGED)
    assert view.problems == []
    if not explorers:
        return

    keep_only(page, ".explorer, #pst-header")  # the theme's script looks for its header
    assert fits("light", 1280)
    for explorer in explorers:
        answers(explorer)
    assert view.problems == []
    for width in (NARROW, ENLARGED, 1280):
        assert fits("light", width), width
    assert violations(page, ".explorer") == []
