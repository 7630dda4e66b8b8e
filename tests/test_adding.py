"""The page on adding an architecture is true: its family file works as it stands, and joins the book by the page's four edits alone."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import notebooks
import pytest

PAGE = Path(__file__).parents[1] / "chapters" / "adding.md"
pytestmark = pytest.mark.skipif((notebooks.ROOT / "cnnlib" / "models" / "meannet.py").exists(), reason="this is the copy with the example in it")
USE = """
import sys, torch
sys.path.insert(0, sys.argv[1])
import meannet
from cnnlib import create_model, describe, list_models
from cnnlib.analysis import cost_table, receptive_field

assert list_models(family="meannet") == ["meannet", "meannet_cifar"]
model = create_model("meannet_cifar", num_classes=4).eval()
assert model(torch.rand(2, 3, 32, 32)).shape == (2, 4)
total = cost_table(model, (3, 32, 32)).total
assert total.params == sum(p.numel() for p in model.parameters()) and 1e6 < total.macs < 80e6
assert receptive_field(model, (3, 32, 32))["stages.0"].size > (3, 3)
for child in ("stem", "stages", "head"):
    assert hasattr(model, child)
try:
    create_model("meannet", depths=(1,))
except ValueError as error:
    assert "depths=(1,)" in str(error)
else:
    raise AssertionError("unequal lengths passed")
"""


def family_file():
    (source,) = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    return source


def test_the_example_is_a_family_file_that_works(tmp_path):
    (tmp_path / "meannet.py").write_text(family_file(), encoding="utf-8")
    done = subprocess.run([sys.executable, "-c", USE, str(tmp_path)], capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr


# a copy of the book, and what a contributor does and runs


ENTRY = """
@misc{meannet2026,
  author = {Somebody},
  title = {A network made up for one page},
  year = {2026},
}
"""


class Copy:
    """A repository with a copy of the working tree, without what git ignores; `run` is a command in it, which must succeed."""

    def __init__(self, folder):
        self.folder = folder
        unwanted = shutil.ignore_patterns(".git", ".venv", "_build", "runs", "__pycache__", ".*_cache", ".hypothesis", "*.egg-info")
        shutil.copytree(notebooks.ROOT, folder, ignore=unwanted)
        (folder / ".venv").symlink_to(sys.prefix, target_is_directory=True)  # this Python's environment in place of one of its own
        self.run("git", "init", "--quiet")
        (folder / ".git" / "info" / "exclude").write_text(".venv\n")
        self.commit()

    def commit(self):
        self.run("git", "add", "--all")
        self.run("git", "-c", "user.name=test", "-c", "user.email=test@example.org", "commit", "--quiet", "--message", "book")

    def run(self, *command, seconds=1500):
        environment = {**os.environ, "PYTHONPATH": str(self.folder), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=seconds)
        assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout[-5000:]}{done.stderr[-3000:]}"
        return done.stdout

    def make(self, *targets, **options):
        return self.run("make", "-o", ".venv/.installed", *targets, **options)


@pytest.fixture(scope="module")
def added(tmp_path_factory):
    """The book with the example's family, chapter, line and entry."""
    book = Copy(tmp_path_factory.mktemp("adding") / "book")
    (book.folder / "cnnlib" / "models" / "meannet.py").write_text(family_file(), encoding="utf-8")
    template = (book.folder / "chapters" / "_template.ipynb").read_text(encoding="utf-8")
    chapter = book.folder / "chapters" / "18_meannet.ipynb"
    chapter.write_text(template.replace("alexnet", "meannet"), encoding="utf-8")
    contents, bibliography = book.folder / "_toc.yml", book.folder / "references.bib"
    line = "          - file: chapters/17_shipping_and_stress_depth\n"
    assert contents.read_text().count(line) == 1
    contents.write_text(contents.read_text().replace(line, line + "      - file: chapters/18_meannet\n"))
    bibliography.write_text(bibliography.read_text(encoding="utf-8") + ENTRY, encoding="utf-8")
    book.run(sys.executable, "tools/execute.py", chapter.relative_to(book.folder))
    table = (book.folder / "data" / "zoo.csv").read_text(encoding="utf-8").splitlines()
    book.commit()
    book.make("pages", "FAMILY=meannet")
    changed = book.run("git", "diff", "--name-only").split()
    assert changed == ["chapters/gallery.md", "chapters/reference.md", "chapters/zoo.md", "data/zoo.csv"]
    rows = (book.folder / "data" / "zoo.csv").read_text(encoding="utf-8").splitlines()
    assert [row for row in rows if row not in table] == [row for row in rows if row.startswith("meannet")] and len(rows) == len(table) + 2
    assert set(table) < set(rows), "a row that was there changes: the table of all networks is not up to date"
    book.run(sys.executable, "tools/lint_chapters.py", chapter.relative_to(book.folder))
    book.run(sys.executable, "-m", "ruff", "check", "--no-cache", ".")
    book.commit()
    return book


# What looks at all networks or chapters, besides the tests that have the new one in their name.
OTHERS = """rows_are_complete every_network_can_be_checked every_network_is_on_the_map page_is_up_to_date the_table_has_every_network
    the_page_shows_the_table every_row_of_the_zoo_page everything_public cover_the_chapters first_are_of_all names_one_machine""".split()


@pytest.mark.timeout(1800)  # with the fixture, which does what a contributor does
def test_an_added_family_passes_what_would_notice_it(added):
    """Of what a contributor runs, the tests of the new network and chapter, and those that look at all, or at what is generated."""
    shown = added.run(sys.executable, "-m", "pytest", "--nbval", "-q", "-n", "0", "-m", "not slow", "-p", "no:cacheprovider",
                      "-k", " or ".join(["meannet", *OTHERS]), "--ignore", "tests/test_pages.py", "tests", "chapters/18_meannet.ipynb")
    assert int(re.search(r"(\d+) passed", shown)[1]) > 40, shown


@pytest.mark.slow
def test_an_added_family_passes_make_test(added):
    """All of it: every row counted again, the chapters' rules, unit tests, chapters with their outputs compared, pages built anew."""
    added.make("pages")
    assert not added.run("git", "diff", "--name-only"), "rows of other families had changed"
    added.make("lint")
    added.make("book")
    added.make("test", seconds=3000)
