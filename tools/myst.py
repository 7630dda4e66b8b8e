"""A copy of the book as a project of MyST, the engine of Jupyter Book 2, to see that nothing stands in the way of moving there.

    .venv/bin/python tools/myst.py /tmp/myst-book && cd /tmp/myst-book && myst build --site

The table of contents and the settings become `myst.yml`; every explorer becomes an `anywidget` directive, with a module that holds its state, and its
style sheet; files that are shown raw are put in. Live networks are not fetched there: what `explorers.js` tells an explorer of files beside it, MyST does not.
"""

import argparse
import json
import re
import shutil
from pathlib import Path

import nbformat
import notebooks
import yaml
from nbformat import NotebookNode

JUPYTER = ("layout", "tabbable", "tooltip")  # traits that only Jupyter reads
# The state is part of the module: as JSON in the directive, which MyST would take, a state of 100 kB takes it minutes to read.
MODULE = """const state = %s;
const module = import(URL.createObjectURL(new Blob([%s], {type: "text/javascript"})));
export default {
  async render({model, el}) {
    for (const [name, value] of Object.entries(state)) if (model.get(name) === undefined) model.set(name, value);
    const found = (await module).default, explorer = typeof found === "function" ? await found() : found;
    await explorer.initialize?.({model});
    return explorer.render({model, el});
  },
};
"""
RAW = re.compile(r"```\{raw\} html\n:file: (\S+)\n```")


def _entry(item: dict) -> dict:
    """A line of `_toc.yml` as MyST has it."""
    path = next(notebooks.ROOT.glob(f"{item['file']}.*"))
    entry = {"file": path.relative_to(notebooks.ROOT).as_posix()}
    if "title" in item:
        entry["title"] = item["title"]
    if "sections" in item:
        entry["children"] = [_entry(section) for section in item["sections"]]
    return entry


def project() -> dict:
    """`myst.yml`: the settings and the table of contents."""
    toc, config = (yaml.safe_load((notebooks.ROOT / name).read_text(encoding="utf-8")) for name in ("_toc.yml", "_config.yml"))
    parts = [{"title": part["caption"], "children": [_entry(item) for item in part["chapters"]]} for part in toc["parts"]]
    return {"version": 1, "site": {"template": "book-theme", "options": {"favicon": config["html"]["favicon"], "logo": config["logo"]}},
            "project": {"title": config["title"], "authors": [{"name": config["author"]}], "github": config["repository"]["url"],
                        "bibliography": config["bibtex_bibfiles"], "toc": [_entry({"file": toc["root"]}), *parts]}}


def pages(entries: list[dict]) -> list[str]:
    """The files that a table of contents names."""
    return [name for entry in entries for name in ([entry["file"]] if "file" in entry else []) + pages(entry.get("children", []))]


def with_directives(notebook: NotebookNode, folder: Path, page: str) -> NotebookNode:
    """The notebook with an `anywidget` directive behind each cell that shows an explorer; modules and styles go to the folder."""
    states = notebook.metadata.pop("widgets", {}).get(notebooks.WIDGET_STATE, {}).get("state", {})
    cells = []
    folder.mkdir(parents=True, exist_ok=True)
    for cell in notebook.cells:
        cells.append(cell)
        for output in cell.get("outputs", []):
            if notebooks.WIDGET_VIEW in output.get("data", {}):
                model = output.data.pop(notebooks.WIDGET_VIEW)["model_id"]
                name, state = f"{page}-{int(model, 16)}", states[model]["state"]
                own = {key: value for key, value in state.items() if not key.startswith("_") and key not in JUPYTER}
                (folder / f"{name}.mjs").write_text(MODULE % (json.dumps(own), json.dumps(state["_esm"])), encoding="utf-8")
                (folder / f"{name}.css").write_text(state["_css"], encoding="utf-8")
                cells.append(nbformat.v4.new_markdown_cell(
                    f"```{{anywidget}} ../_static/explorers/{name}.mjs\n:css: ../_static/explorers/{name}.css\n```", id=f"{cell.id}-x"))
    notebook.cells = cells
    return notebook


def convert(folder: Path) -> list[str]:
    """Write the copy, and return its pages."""
    settings = project()
    (folder / "chapters").mkdir(parents=True)
    (folder / "myst.yml").write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
    shutil.copytree(notebooks.ROOT / "_static", folder / "_static")
    shutil.copy(notebooks.ROOT / "references.bib", folder)
    for name in (names := pages(settings["project"]["toc"])):
        source = notebooks.ROOT / name
        if source.suffix == ".ipynb":
            text = notebooks.dumps(with_directives(notebooks.read(source), folder / "_static" / "explorers", source.stem))
        else:
            text = RAW.sub(lambda found, source=source: "```{raw} html\n" + (source.parent / found[1]).read_text(encoding="utf-8").strip() + "\n```",
                           source.read_text(encoding="utf-8"))
        (folder / name).write_text(text, encoding="utf-8")
    return names


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, help="where the copy goes; it must not be there")
    folder = parser.parse_args().folder
    print(f"{len(convert(folder))} pages in {folder}")


if __name__ == "__main__":
    main()
