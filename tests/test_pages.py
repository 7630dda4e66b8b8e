"""The built book in a real browser, every other host blocked: each page wide and light, then narrow and dark."""

import fcntl
import re
import subprocess
import sys

import pytest

from browsing import NARROW, ROOT, Watched, picture, violations, wait_until_it_shows_another

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


def is_typeset(page):
    """Whether the page has formulas; then all are typeset, without an error."""
    if not page.locator(".math").count():
        return False
    page.wait_for_function("() => window.MathJax?.startup?.promise")
    page.evaluate("() => MathJax.startup.promise")
    assert page.locator(".math:not(:has(mjx-container))").count() == 0
    assert page.locator("mjx-merror").count() == 0
    return True


def answers(page, explorer):
    """The explorer shows another picture after a key, and again another after its button of return."""
    before = picture(explorer)
    if (probe := explorer.locator(PROBE)).count():
        probe.first.press("ArrowUp")
        page.wait_for_timeout(30)
        if picture(explorer) == before:
            probe.first.press("ArrowDown")  # it stood at its end
    elif (photographs := explorer.locator("button[data-photograph][aria-pressed=false]")).count():
        photographs.first.press("Enter")  # nothing is fetched for it
    elif (moves := explorer.locator(".cx-order button:enabled")).count():
        moves.first.press("Enter")
    else:  # a question with a field for its answer
        explorer.locator("input[type=text]").fill("1")
        explorer.get_by_role("button", name="Check").click()
    after = wait_until_it_shows_another(explorer, before)
    explorer.get_by_role("button", name="Back to the example").click()
    wait_until_it_shows_another(explorer, after)


@pytest.mark.parametrize("number, name", enumerate(NAMES), ids=NAMES)
def test_page(view, number, name):
    """Quiet, typeset, still while it loads; explorers answer and are accessible; narrow, it fits in both themes.

    Of each chapter's two pages one is opened wide and light, the other narrow and dark; of the next one's the other.
    """
    view.problems.clear()
    theme, width = ("light", 1280) if (number + number // 2) % 2 == 0 else ("dark", NARROW)
    view.page.set_viewport_size({"width": width, "height": 900})
    view.page.emulate_media(color_scheme=theme)
    page = view.open(f"{view.address}/{name}.html")
    is_typeset(page)
    for _ in range(3):  # a busy machine paints in pieces; what the page itself moves, it moves each time
        if page.evaluate("window.shift") <= 0.15:
            break
        is_typeset(view.open(page.url))
    else:
        raise AssertionError(f"parts of the page move by {page.evaluate('window.shift'):.2f}")
    assert page.evaluate("document.documentElement.dataset.theme") == theme
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert view.problems == []

    page.set_viewport_size({"width": 1280, "height": 900})
    page.emulate_media(color_scheme="light")
    page.wait_for_function("document.documentElement.dataset.theme === 'light'")
    for explorer in page.locator(".explorer").all():
        answers(page, explorer)
    assert view.problems == []
    if page.locator(".explorer").count():
        assert violations(page, context=".explorer") == []  # what it asks for itself is no problem of the page
        view.problems.clear()

    page.set_viewport_size({"width": NARROW, "height": 900})
    for theme in ("dark", "light"):
        page.emulate_media(color_scheme=theme)
        page.wait_for_function("theme => document.documentElement.dataset.theme === theme", arg=theme)
        assert page.evaluate("document.documentElement.scrollWidth") <= NARROW, theme
    page.set_viewport_size({"width": ENLARGED, "height": 900})
    assert page.evaluate("document.documentElement.scrollWidth") <= ENLARGED
    assert view.problems == []
