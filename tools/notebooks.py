"""What every chapter file has in common: where it lies, its set-up cell, its metadata, and its tidy form on disk."""

import hashlib
import importlib
import json
import re
from pathlib import Path
from string import Template

import nbformat
import yaml
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parents[1]
DEPTH = "_depth"  # how the name of a chapter's second page ends
CHAPTERS = ROOT / "chapters"
WIDGET_STATE = "application/vnd.jupyter.widget-state+json"
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
NOTEBOOK_METADATA = {
    "accelerator": "GPU",
    "colab": {"gpuType": "T4", "provenance": []},
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python", "pygments_lexer": "ipython3"},
}
CELL_METADATA = ("mystnb", "tags")  # captions and alt text; marks for the book and the tests


def chapter_files() -> list[Path]:
    """The chapters and notebook appendices, in order; a name that starts with an underscore is none."""
    return sorted(path for path in CHAPTERS.glob("*.ipynb") if not path.name.startswith("_"))


def first_pages() -> list[Path]:
    """The pages of ten minutes, one a chapter, in order."""
    return [path for path in chapter_files() if path.name[0].isdigit() and not path.stem.endswith(DEPTH)]


def repository() -> dict[str, str]:
    """The public `url` and `branch` of the book, as `_config.yml` says."""
    return yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))["repository"]


def setup_cell() -> NotebookNode:
    """The first code cell of every chapter: `setup_cell.py` with the repository's address and branch filled in."""
    template = Template((ROOT / "tools" / "setup_cell.py").read_text(encoding="utf-8"))
    source = template.substitute(address=repository()["url"], branch=repository()["branch"]).strip()
    return nbformat.v4.new_code_cell(source, metadata={"tags": ["hide-input"]})


def is_setup_cell(cell: NotebookNode) -> bool:
    return cell.cell_type == "code" and "import google.colab" in cell.source


def read(path: Path) -> NotebookNode:
    return nbformat.read(path, as_version=4)


def dumps(notebook: NotebookNode) -> str:
    """The text of a notebook file; equal notebooks give equal text."""
    return nbformat.writes(notebook, version=4) + "\n"


def tidy(notebook: NotebookNode, name: str) -> NotebookNode:
    """The same notebook, of the chapter `name`, with nothing in it that changes from one execution to the next.

    Cell ids come from the cell's source, and of the set-up cell, which all chapters have, from the chapter's name too; widget ids from the order of the widgets; streams are joined; metadata is
    what the book, the tests and Colab read, and no more.
    """
    seen = set()
    for cell in notebook.cells:
        cell.source = cell.source.strip()
        own = f"{name}\n" if is_setup_cell(cell) else ""
        cell.id = _fresh(hashlib.sha1(f"{own}{cell.cell_type}\n{cell.source}".encode()).hexdigest()[:8], seen)
        cell.metadata = NotebookNode({key: cell.metadata[key] for key in CELL_METADATA if cell.metadata.get(key)})
        if cell.cell_type == "code":
            cell.outputs = _join_streams(cell.outputs)
        cell.pop("attachments", None)
    widgets = notebook.metadata.get("widgets", {}).get(WIDGET_STATE)
    notebook.metadata = nbformat.from_dict(NOTEBOOK_METADATA)
    if widgets:
        _keep_widgets(notebook, widgets)
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    nbformat.validate(notebook)
    return notebook


def _fresh(name: str, seen: set[str]) -> str:
    """`name`, numbered if it is taken."""
    unique, count = name, 1
    while unique in seen:
        count += 1
        unique = f"{name}-{count}"
    seen.add(unique)
    return unique


def _join_streams(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """One output for consecutive pieces of one stream: where they were cut depends on timing."""
    joined = []
    for output in outputs:
        if output.output_type == "stream" and joined and joined[-1].get("name") == output.name:
            joined[-1].text += output.text
        else:
            joined.append(output)
    return joined


def _keep_widgets(notebook: NotebookNode, widgets: NotebookNode) -> None:
    """Store the state of the widgets that are shown, and of those that they refer to, under ids made of their order.

    The book's explorers bring their JavaScript and style sheet along: the package's present ones.
    """
    state, order = widgets["state"], {}
    shown = [output["data"][WIDGET_VIEW]["model_id"]
             for cell in notebook.cells if cell.cell_type == "code"
             for output in cell.outputs if WIDGET_VIEW in output.get("data", {})]
    queue = [model for model in shown if model in state]
    for model in queue:
        if model not in order:
            order[model] = f"{len(order) + 1:032x}"
            queue.extend(re.findall(r"IPY_MODEL_(\w+)", json.dumps(state[model], sort_keys=True)))

    for model in order:
        _renew_script(state[model]["state"])

    def renamed(value):
        return json.loads(re.sub("|".join(order), lambda found: order[found[0]], json.dumps(value)))

    if order:
        kept = {model: state[model] for model in order}
        notebook.metadata["widgets"] = nbformat.from_dict({WIDGET_STATE: {**widgets, "state": renamed(kept)}})
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.outputs = nbformat.from_dict(renamed(cell.outputs))


def _renew_script(state: NotebookNode) -> None:
    module, _, name = state.get("_anywidget_id", "").rpartition(".")
    if module.startswith("cnnlib.widgets."):
        explorer = getattr(importlib.import_module(module), name)
        state["_esm"], state["_css"] = str(explorer._esm), str(explorer._css)
