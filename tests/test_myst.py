"""The book stays ready for Jupyter Book 2: a copy of it is read by MyST, offline, where MyST is there (npm install mystmd)."""

import json
import os
import re
import shutil
import subprocess
from collections import Counter

import myst
import notebooks
import pytest
import yaml

# What MyST says of the copy, and why it may.
KNOWN = [
    r'unexpected option "(all|style)" provided \(in bibliography\)',  # it lists the works that are cited, in its own style
    r"index.md unknown format for raw content: html",  # the theme of a site shows it
    r"to an implicit heading reference",  # headings are addresses in both
    r"Cross reference target was not found: \d",  # headings that begin with a number have other addresses
]


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("myst") / "book"
    return folder, myst.convert(folder)


def explorers(name):
    return json.dumps(notebooks.read(notebooks.ROOT / name).cells).count(f'"{notebooks.WIDGET_VIEW}"') if name.endswith(".ipynb") else 0


def test_no_cell_has_the_name_of_another():
    names = Counter(cell.id for path in notebooks.chapter_files() for cell in notebooks.read(path).cells)
    assert [name for name, count in names.items() if count > 1] == []


def test_the_copy_has_every_page_and_explorer(copy):
    folder, names = copy
    toc = yaml.safe_load((folder / "myst.yml").read_text(encoding="utf-8"))["project"]["toc"]
    assert myst.pages(toc) == names and len(names) == (notebooks.ROOT / "_toc.yml").read_text().count("file:") + 1
    assert sum(map(explorers, names)) == len(list((folder / "_static" / "explorers").glob("*.mjs"))) > 100
    for name in names:
        text = (folder / name).read_text(encoding="utf-8")
        assert text.count("{anywidget}") == explorers(name) and notebooks.WIDGET_VIEW not in text


def test_explorers_show_by_the_directives_contract(copy, browser, serve):
    """`render({model, el})` with a model that holds nothing: what the directive gives."""
    folder = copy[0] / "_static" / "explorers"
    page = browser.new_page()
    page.goto(f"{serve(folder)}/01_components-1.css")
    for name in ("01_components-1", "07_resnet-1", "07_resnet-3", "13_choosing-1"):
        shown = page.evaluate("""async (name) => {
          const values = {}, el = document.createElement("div");
          const model = {get: (key) => values[key], set: (key, value) => { values[key] = value; }, on() {}, off() {}, save_changes() {}};
          document.body.append(el);
          await (await import(`./${name}.mjs`)).default.render({model, el});
          return el.innerText;
        }""", name)
        assert len(shown) > 40, name
    page.close()


def test_myst_reads_the_copy(copy):
    program = os.environ.get("MYST") or shutil.which("myst")
    if not program:
        pytest.skip("needs MyST: npm install mystmd, and MYST set to the path of its program")
    folder, names = copy
    done = subprocess.run([program, "build", "--site"], cwd=folder, capture_output=True, text=True, timeout=300)
    output = done.stdout + done.stderr  # without a network it ends at the theme, after the content
    assert f"Built {len(names)} pages" in output, output[-3000:]
    said = [line for line in output.splitlines() if re.match(r"\W*(⚠|⛔)", line) and not any(re.search(known, line) for known in KNOWN)]
    assert said == []
    kinds = Counter(re.findall(r'"type":"(anywidget|math|inlineMath)"', "".join(
        path.read_text(encoding="utf-8") for path in (folder / "_build" / "site" / "content").glob("*.json"))))
    text = "\n".join(cell.source for name in names if name.endswith(".ipynb")
                     for cell in notebooks.read(notebooks.ROOT / name).cells if cell.cell_type == "markdown")
    assert kinds["anywidget"] == sum(map(explorers, names)) and kinds["math"] >= text.count("$$") // 2 and kinds["inlineMath"] > 500
