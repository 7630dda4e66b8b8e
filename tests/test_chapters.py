"""The chapters keep the rules; and the tools that say so notice each breach."""

import copy
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import execute
import lint_chapters
import nbformat
import notebooks
import pytest
import set_repository

SCRIPT = '''
# %% [markdown]
# # Sums
#
# What is a sum? **Objectives:** add. **Prerequisites:** [numbers](#exercises).

# %%
import time

import ipywidgets
import matplotlib.pyplot as plt

# %% [markdown]
# Look at $1 + 1$, as [one paper](https://doi.org/10.1145/3065386) does.

# %%
total = 1 + 1
total

# %% [markdown]
# The same as a picture.

# %% caption="One and two" alt="A bar of height one beside a bar of height two"
plt.figure().gca().bar([0, 1], [1, 2]);

# %% [markdown]
# Only this machine knows the next number.

# %% tags=["nbval-ignore-output"]
print(time.time_ns())
assert total == 2

# %% [markdown]
# A slider.

# %%
ipywidgets.IntSlider(total)

# %% [markdown]
# ## Summary
#
# It is two.
#
# ## Exercises
#
''' + "\n".join(f'''# ### {n}. Add {n}
#
# <details><summary>Solution</summary>
#
# ```python
# assert total + {n} == {n + 2}
# ```
#
# </details>
#''' for n in range(1, 6)) + '''
# ## References
#
# - None.
'''
UNLISTED = ["must be listed in _toc.yml"]  # the one breach of a chapter that lies outside the book


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """A small chapter, made by the tools from a script."""
    folder = tmp_path_factory.mktemp("chapter")
    (folder / "script.py").write_text(SCRIPT.lstrip())
    path = folder / "02_sums.ipynb"
    well, line = execute.renew(path, script=folder / "script.py")
    assert well, line
    return path


@pytest.fixture
def chapter(executed, tmp_path):
    return Path(shutil.copy(executed, tmp_path))


def change(path, edit):
    notebook = notebooks.read(path)
    edit(notebook)
    path.write_text(notebooks.dumps(notebook))


@pytest.mark.parametrize("path", notebooks.chapter_files(), ids=lambda path: path.stem)
def test_chapter_keeps_the_rules(path):
    assert lint_chapters.breaches(path) == []


TEMPLATE = notebooks.CHAPTERS / "_template.ipynb"


@pytest.mark.skipif(not TEMPLATE.exists(), reason="there is no template yet")
@pytest.mark.parametrize("rule", [
    lint_chapters.one_title, lint_chapters.sections_in_order, lint_chapters.setup_and_imports,
    lint_chapters.text_before_code, lint_chapters.plain_markdown, lint_chapters.exercises_have_solutions,
    lint_chapters.metadata_is_ours,
], ids=lambda rule: rule.__name__)
def test_template_has_the_form_of_a_chapter(rule):
    assert list(rule(lint_chapters.Chapter(TEMPLATE))) == []


def test_a_proper_chapter_passes(chapter):
    assert lint_chapters.breaches(chapter) == UNLISTED


def test_executing_again_changes_nothing(executed):
    before = executed.read_bytes()
    assert execute.renew(executed) == (True, f"{executed}: unchanged")
    assert executed.read_bytes() == before


def test_check_mode_notices_a_change_and_writes_nothing(chapter):
    change(chapter, lambda notebook: notebook.cells[4].outputs[0].data.update({"text/plain": "3"}))
    before = chapter.read_bytes()
    well, line = execute.renew(chapter, check=True)
    assert not well and "changes the file" in line
    assert chapter.read_bytes() == before


def test_a_failing_cell_leaves_the_file_as_it_was(chapter):
    change(chapter, lambda notebook: notebook.cells[4].update(source="1 / 0"))
    before = chapter.read_bytes()
    well, line = execute.renew(chapter)
    assert not well and "ZeroDivisionError" in line
    assert chapter.read_bytes() == before


def test_equal_cells_get_ids_of_their_own_and_pieces_of_a_stream_are_joined():
    pieces = [nbformat.v4.new_output("stream", name=name, text=text) for name, text in
              [("stdout", "a"), ("stdout", "b"), ("stderr", "c"), ("stdout", "d")]]
    cells = [nbformat.v4.new_code_cell("print()", outputs=copy.deepcopy(pieces)) for _ in range(3)]
    tidied = notebooks.tidy(nbformat.v4.new_notebook(cells=cells), "a chapter")
    ids = [cell.id for cell in tidied.cells]
    assert ids[1:] == [f"{ids[0]}-2", f"{ids[0]}-3"]
    assert [(one.name, one.text) for one in tidied.cells[0].outputs] == [("stdout", "ab"), ("stderr", "c"), ("stdout", "d")]


def test_widget_ids_come_from_their_order(executed):
    notebook = notebooks.read(executed)
    state = notebook.metadata.widgets[notebooks.WIDGET_STATE]["state"]
    views = [output.data[notebooks.WIDGET_VIEW]["model_id"] for cell in notebook.cells
             for output in cell.get("outputs", []) if notebooks.WIDGET_VIEW in output.get("data", {})]
    assert views == [f"{1:032x}"]
    assert sorted(state) == [f"{n:032x}" for n in range(1, len(state) + 1)]
    assert set(lint_chapters.re.findall(r"IPY_MODEL_(\w+)", json.dumps(state))) <= set(state)


def test_tidying_gives_explorers_their_present_script(chapter):
    from cnnlib.widgets import ConvolutionArithmetic

    def put_explorer_in(notebook):
        view = {notebooks.WIDGET_VIEW: {"model_id": "abc", "version_major": 2, "version_minor": 0}}
        notebook.cells[4].outputs.append(nbformat.v4.new_output("display_data", data=view))
        notebook.metadata.widgets[notebooks.WIDGET_STATE]["state"]["abc"] = {
            "model_module": "anywidget", "model_module_version": "*", "model_name": "AnyModel",
            "state": {"_anywidget_id": "cnnlib.widgets.convolution.ConvolutionArithmetic", "_esm": "old", "_css": "old"},
        }

    change(chapter, put_explorer_in)
    assert any("explorers with their present JavaScript" in breach for breach in lint_chapters.breaches(chapter))
    assert execute.renew(chapter, tidy=True) == (True, f"{chapter}: written")
    state = notebooks.read(chapter).metadata.widgets[notebooks.WIDGET_STATE]["state"][f"{1:032x}"]["state"]
    assert state["_esm"] == str(ConvolutionArithmetic._esm) and state["_css"] == str(ConvolutionArithmetic._css)


def test_captions_reach_the_metadata_of_the_book(executed):
    figure = notebooks.read(executed).cells[6].metadata.mystnb
    assert figure == {"figure": {"caption": "One and two"},
                      "image": {"alt": "A bar of height one beside a bar of height two"}}


def strip(notebook):
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None


def markdown(text):
    return lambda notebook: notebook.cells[3].update(source=notebook.cells[3].source + "\n\n" + text)


def output(text):
    return lambda notebook: notebook.cells[4].outputs.append(
        nbformat.v4.new_output("stream", name="stdout", text=text))


def source(number, text):
    return lambda notebook: notebook.cells[number].update(source=text)


def replace(old, new):
    def edit(notebook):
        for cell in notebook.cells:
            cell.source = cell.source.replace(old, new)
    return edit


@pytest.mark.parametrize("edit, sentence", [
    (strip, "must be executed from top to bottom"),
    (lambda notebook: notebook.cells[4].update(execution_count=9), "must be executed from top to bottom"),
    (source(1, "import google.colab"), "must start its code with the set-up cell"),
    (source(2, "x = 1"), "must have its import cell right after"),
    (source(4, 'Question("?", 1, choices=[1, 2, 3], usual=[(2, "no")])'), "no reply to the wrong choice 3"),
    (source(4, "import os"), "imports belong in the import cell"),
    (source(4, "x = 1\n" * 21), "21 lines; 20 at most"),
    (lambda notebook: [source(i, "x = 1\n" * 9)(notebook) for i in (4, 6)], "2 of 4 code cells have more than 8"),
    (lambda notebook: notebook.cells.pop(5), "text before a code cell"),
    (markdown("# Another"), "must start with one '# Title'"),
    (replace("Objectives", "Aims"), "must name its objectives"),
    (replace("## Summary", "## In short"), "must have a section '## Summary'"),
    (replace("## Summary", "## References"), "must have a section '## Summary'"),
    (lambda notebook: [replace(*pair)(notebook) for pair in (("## Summary", "## x"), ("## References", "## Summary"), ("## x", "## References"))],
     "must have '## References' further down"),
    (markdown("```{note}\nx\n```"), "a MyST directive"),
    (markdown("{doc}`x`"), "a MyST role"),
    (markdown("(here)=\n## Here"), "a MyST target"),
    (markdown("[x](nowhere.ipynb)"), "no such file"),
    (markdown("[x](#nowhere)"), "no such heading"),
    (markdown("[x](http://example.org)"), "https, please"),
    (markdown("[x](https://dx.doi.org/10.1145/3065386)"), "not of the form https://doi.org"),
    (markdown("[x](https://arxiv.org/pdf/1404.5997)"), "not of the form https://arxiv.org/abs"),
    (markdown("[x](https://arxiv.org/abs/9999.99999)"), "9999.99999 is not in references.bib"),
    (markdown("![](../_static/logo.svg)"), "a picture without alternative text"),
    (lambda notebook: notebook.cells[6].metadata.pop("mystnb"), "a figure without alternative text"),
    (replace("### 5. Add 5", "Add 5"), "must have 5 or more exercises"),
    (replace("<details><summary>Solution</summary>\n\n```python\nassert total + 5", "```python\nassert total + 5"),
     "must hide one solution"),
    (replace("assert total + 4 == 6", "assert total +"), "solution 4 does not parse"),
    (output("<object at 0x7f0123456789>"), "a memory address"),
    (output("see /home/someone/x"), "a path of this machine"),
    (output("12:30:01"), "a time"),
    (lambda notebook: notebook.cells[4].outputs.append(nbformat.v4.new_output("stream", name="stderr", text="w")),
     "an error or a warning"),
    (lambda notebook: notebook.cells[4].metadata.update(tags=["nbval-ignore-output"]), "at most a third"),
    (replace("assert total == 2", "total"), "so it asserts the claim"),
    (lambda notebook: notebook.cells[4].metadata.update(tags=["nbval-skip"]), "nbval runs every cell"),
    (lambda notebook: notebook.metadata.pop("accelerator"), "notebook metadata"),
    (lambda notebook: notebook.cells[4].metadata.update(collapsed=True), "in tidy form"),
])
def test_each_breach_is_noticed(chapter, edit, sentence):
    change(chapter, edit)
    assert any(sentence in breach for breach in lint_chapters.breaches(chapter))


def test_a_cell_of_another_chapter_is_noticed(chapter):
    shutil.copy(chapter, chapter.with_name("14_other.ipynb"))
    found = [breach for breach in lint_chapters.breaches(chapter) if "the same cell stands in 14_other.ipynb" in breach]
    assert len(found) == len(notebooks.read(chapter).cells)
    assert execute.renew(chapter.with_name("14_other.ipynb"), tidy=True)[0]
    setup, = (f"cell {i}:" for i, cell in enumerate(notebooks.read(chapter).cells) if notebooks.is_setup_cell(cell))
    assert not any(breach.startswith(setup) for breach in lint_chapters.breaches(chapter))


def test_family_chapters_need_all_sections(chapter):
    found = lint_chapters.breaches(chapter.rename(chapter.with_name("03_sums.ipynb")))
    missing = [name for name in lint_chapters.FAMILY_SECTIONS if f"must have a section '## {name}'" in found]
    assert missing == ["Problem", "Idea", "Smallest code", "Library code", "Agreement", "Network", "Evidence", "Explorer"]


def test_the_set_up_cell_is_written_from_the_configuration(chapter, monkeypatch):
    monkeypatch.setattr(notebooks, "repository", lambda: {"url": "https://example.org/book", "branch": "draft"})
    cell = notebooks.setup_cell()
    assert '"https://example.org/book", "draft"' in cell.source
    assert any("set-up cell" in breach for breach in lint_chapters.breaches(chapter))
    change(chapter, lambda notebook: notebook.cells[1].update(source=cell.source))
    assert not any("set-up cell" in breach for breach in lint_chapters.breaches(chapter))


def test_a_new_address_reaches_chapters_and_pages(chapter, tmp_path, monkeypatch):
    old = notebooks.repository()["url"]
    page = tmp_path / "index.md"
    page.write_text(f"[here]({old}#top)")
    for name in ("pyproject.toml", "CITATION.cff"):
        (tmp_path / name).write_text((notebooks.ROOT / name).read_text(encoding="utf-8"), encoding="utf-8")
    monkeypatch.setattr(notebooks, "CHAPTERS", tmp_path)
    monkeypatch.setattr(notebooks, "repository", lambda: {"url": "https://example.org/book", "branch": "draft"})
    wanted = notebooks.setup_cell()
    monkeypatch.setattr(notebooks, "ROOT", tmp_path)
    monkeypatch.setattr(notebooks, "setup_cell", lambda: wanted)
    set_repository.main()
    assert page.read_text() == "[here](https://example.org/book#top)"
    assert notebooks.read(chapter).cells[1].source == wanted.source
    assert old not in chapter.read_text()
    assert all(old not in (tmp_path / name).read_text() for name in ("pyproject.toml", "CITATION.cff"))


def nbval(folder, *options):
    """pytest over the notebooks of a folder, with the chapters' conftest.py in it."""
    shutil.copy(notebooks.CHAPTERS / "conftest.py", folder)
    search = os.pathsep.join(filter(None, [str(notebooks.ROOT / "tools"), os.environ.get("PYTHONPATH")]))
    return subprocess.run(
        [sys.executable, "-m", "pytest", "--nbval", "-q", "-rfE", "-p", "no:cacheprovider", "--rootdir", folder,
         "-c", os.devnull, *options, folder],
        capture_output=True, text=True, timeout=500,
        env={**os.environ, "PYTHONPATH": search, "JUPYTER_PATH": str(folder), "JUPYTER_PREFER_ENV_PATH": "0"},
    )


def test_nbval_runs_chapter_and_solutions_and_notices_changes(executed, tmp_path):
    """One run over three copies: as it is, with a changed number in an output, and with a wrong solution."""
    edits = {"02_same": lambda notebook: None,
             "02_number": lambda notebook: notebook.cells[4].outputs[0].data.update({"text/plain": "3"}),
             "02_solution": replace("assert total + 4 == 6", "assert total + 4 == 7")}
    for name, edit in edits.items():
        change(Path(shutil.copy(executed, tmp_path / f"{name}.ipynb")), edit)
    shutil.copy(executed, tmp_path / "_template.ipynb")
    run = nbval(tmp_path)
    failed = [line.split("::", 1) for line in run.stdout.splitlines() if line.startswith("FAILED")]
    assert [(file.rpartition("/")[2], test.partition(" - ")[0]) for file, test in failed] == [
        ("02_number.ipynb", "Cell 2"), ("02_solution.ipynb", "Solution 4")], run.stdout + run.stderr
    assert "2 failed, 31 passed" in run.stdout


def cells_and_kernel(folder, start, *sources):
    """A notebook of these cells in `folder`, and a kernel "own" that the shell starts by the line `start`."""
    kernel = folder / "kernels" / "own"
    kernel.mkdir(parents=True)
    spec = {"argv": ["sh", "-c", start, "sh", "{connection_file}"], "display_name": "own", "language": "python"}
    (kernel / "kernel.json").write_text(json.dumps(spec))
    cells = [nbformat.v4.new_code_cell(source, execution_count=number) for number, source in enumerate(sources, 1)]
    notebook = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": {"name": "own", "display_name": "own"}})
    (folder / "appendix.ipynb").write_text(notebooks.dumps(notebook))


def test_a_kernel_that_starts_late_is_waited_for(tmp_path):
    cells_and_kernel(tmp_path, f'sleep 3; exec "{sys.executable}" -m ipykernel_launcher -f "$1"', "1;", "2;")
    run = nbval(tmp_path, "--nbval-kernel-startup-timeout", "299")
    assert "2 passed" in run.stdout, run.stdout + run.stderr


def test_a_kernel_that_dies_fails_its_cell_and_those_after_it(tmp_path):
    cells_and_kernel(tmp_path, f'exec "{sys.executable}" -m ipykernel_launcher -f "$1"', "1;",
                     "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", "3;")
    run = nbval(tmp_path)
    assert "2 failed, 1 passed" in run.stdout and "kernel died" in run.stdout, run.stdout + run.stderr


@pytest.mark.parametrize("start, patience, said", [("exec sleep 600", 2, "Kernel didn't respond"), ("exit 1", 299, "Kernel died")])
def test_a_kernel_that_never_starts_is_reported_and_not_waited_for(tmp_path, start, patience, said):
    cells_and_kernel(tmp_path, start, "1;", "2;")
    run = nbval(tmp_path, "--nbval-kernel-startup-timeout", str(patience))
    assert "2 errors" in run.stdout and said in run.stdout, run.stdout + run.stderr
