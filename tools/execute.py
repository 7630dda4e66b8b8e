"""Execute chapters and write them back tidy; an unchanged chapter leaves its file unchanged, byte for byte.

Outputs that depend on the machine (cells tagged `nbval-ignore-output`) are renewed when anything else changes.

    python tools/execute.py chapters/03_alexnet.ipynb       execute and tidy
    python tools/execute.py --check chapters/*.ipynb        write nothing; fail if a file would change
    python tools/execute.py --tidy chapters/*.ipynb         no cell runs; explorers get their present JavaScript
    python tools/execute.py --from script.py chapters/03_alexnet.ipynb      make the chapter from a script first

A script is in the percent format, as jupytext reads it. The set-up cell is put in by itself. A cell with a figure
names its caption and its alternative text, and may set any tags:

    # %% caption="Where the parameters are" alt="Bar chart: ..." tags=["nbval-ignore-output"]
"""

import argparse
import copy
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

import notebooks

CELL_TIMEOUT, START_TIMEOUT = 600, 300  # seconds
FIGURE_KEYS = {"caption": "figure", "name": "figure", "alt": "image", "width": "image"}  # as myst-nb reads them


def from_script(script: Path) -> nbformat.NotebookNode:
    """A notebook without outputs from a percent script."""
    notebook = jupytext.read(script, fmt="py:percent")
    for cell in notebook.cells:
        for key, group in FIGURE_KEYS.items():
            if key in cell.metadata:
                cell.metadata.setdefault("mystnb", {}).setdefault(group, {})[key] = cell.metadata.pop(key)
    first_code = next((i for i, cell in enumerate(notebook.cells) if cell.cell_type == "code"), len(notebook.cells))
    notebook.cells.insert(first_code, notebooks.setup_cell())
    return notebook


def execute(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Run all cells in a fresh kernel, in the chapters' folder."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # the order of a sum, and so its last digits, depends on it
    client = NotebookClient(notebook, timeout=CELL_TIMEOUT, startup_timeout=START_TIMEOUT, kernel_name="python3", record_timing=False,
                            resources={"metadata": {"path": str(notebooks.CHAPTERS)}}, store_widget_state=True,
                            extra_arguments=["--log-level=ERROR"])
    return client.execute()


def comparable(notebook: nbformat.NotebookNode) -> str:
    """The text of a notebook without the outputs that depend on the machine, which nbval does not compare either."""
    notebook = copy.deepcopy(notebook)
    for cell in notebook.cells:
        if "nbval-ignore-output" in cell.metadata.get("tags", []):
            cell.outputs = []
    return notebooks.dumps(notebook)


def renew(path: Path, *, script: Path | None = None, check: bool = False, tidy: bool = False) -> tuple[bool, str]:
    """Execute and tidy one chapter. Returns whether all is well, and one line that says what was done."""
    notebook = from_script(script) if script else notebooks.read(path)
    try:
        notebook = notebooks.tidy(notebook if tidy else execute(notebook), path.stem)
    except CellExecutionError as error:
        return False, f"{path}: a cell failed; the file is as it was\n{error}"
    if path.exists() and comparable(notebooks.read(path)) == comparable(notebook):
        return True, f"{path}: unchanged"
    if check:
        return False, f"{path}: executing it again changes the file"
    path.write_text(notebooks.dumps(notebook), encoding="utf-8")
    return True, f"{path}: written"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("chapters", nargs="+", type=Path)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a file would change")
    parser.add_argument("--tidy", action="store_true", help="do not execute; renew ids, metadata, scripts of explorers")
    parser.add_argument("--from", dest="script", type=Path, help="percent script that the one chapter is made from")
    options = parser.parse_args()
    if options.script and len(options.chapters) != 1:
        parser.error("--from makes one chapter; name exactly one")

    all_well = True
    job = partial(renew, script=options.script, check=options.check, tidy=options.tidy)
    with ProcessPoolExecutor(max_workers=2) as pool:
        for well, line in pool.map(job, options.chapters):
            print(line, flush=True)
            all_well &= well
    return 0 if all_well else 1


if __name__ == "__main__":
    sys.exit(main())
