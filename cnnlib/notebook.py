"""Helpers for notebooks: the house style of figures, tables, source code as an output, and answers that are checked."""

import inspect
import io
import math
import textwrap
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import torch

import cnnlib
from cnnlib.plots import curves
from cnnlib.train import Recipe, fit


def use_house_style() -> None:
    """Draw all following figures in the book's style, at two pixels a point where a notebook shows them."""
    plt.style.use(Path(__file__).with_name("house.mplstyle"))
    try:
        from matplotlib_inline.backend_inline import set_matplotlib_formats
    except ImportError:  # plain Python: figures go to files or windows
        return
    set_matplotlib_formats("retina")


class Source:
    """Source code of classes, functions or methods, read from the installed package; shows itself highlighted.

    Raises `TypeError` for something that has no Python source, as `inspect.getsource` does.
    """

    def __init__(self, *things: object):
        files = dict.fromkeys(Path(inspect.getsourcefile(inspect.unwrap(thing))) for thing in things)  # not a decorator's
        self.files = [file.relative_to(Path(cnnlib.__file__).parents[1]).as_posix() for file in files]
        self.code = "\n\n".join(textwrap.dedent(inspect.getsource(thing)).rstrip() for thing in things)

    def __repr__(self) -> str:
        return self.code

    def _repr_markdown_(self) -> str:
        return f"From `{'`, `'.join(self.files)}`:\n\n```python\n{self.code}\n```"


class Table:
    """A small table by columns; whole numbers get thousands separators, tuples an x.

    Prints as aligned text, shows itself as a table in a notebook. `note` stands below it. Raises `ValueError` for columns
    of different lengths.

        Table({"layer": ["CONV1", "POOL1"], "parameters": [34944, 0]})
    """

    def __init__(self, columns: Mapping[str, Sequence[object]], note: str = ""):
        self.columns, self.note = {title: list(values) for title, values in columns.items()}, note
        lengths = {title: len(values) for title, values in self.columns.items()}
        if len(set(lengths.values())) != 1:
            raise ValueError(f"the columns of a table have one length; these have {lengths}")

    def _cells(self) -> tuple[list[list[str]], list[bool]]:
        rows = [[_text(value) for value in row] for row in zip(*self.columns.values())]
        right = [all(isinstance(value, (int, float)) for value in values) for values in self.columns.values()]
        return [list(self.columns), *rows], right

    def __repr__(self) -> str:
        cells, right = self._cells()
        widths = [max(map(len, column)) for column in zip(*cells)]
        lines = ["  ".join(cell.rjust(width) if r else cell.ljust(width) for cell, width, r in zip(row, widths, right))
                 for row in cells]
        return "\n".join([*(line.rstrip() for line in lines), *([self.note] if self.note else [])])

    def _repr_markdown_(self) -> str:
        cells, right = self._cells()
        lines = [cells[0], ["--:" if r else ":--" for r in right], *cells[1:]]
        text = "\n".join("| " + " | ".join(line) + " |" for line in lines)
        return text + (f"\n\n{self.note}" if self.note else "")


def _text(value: object) -> str:
    if isinstance(value, tuple):
        return " x ".join(map(str, value))
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"


class Check:
    """The verdict on an answer; true if it is right."""

    def __init__(self, right: bool | None):
        self.right = right

    def __bool__(self) -> bool:
        return bool(self.right)

    def __repr__(self) -> str:
        return {None: "No answer yet: put yours in place of None and run the cell again.",
                True: "Right.", False: "Not yet: compute it once more."}[self.right]


def check(answer: object, truth: object, *, tolerance: float = 1e-3) -> Check:
    """Compare a reader's answer with the computed truth: numbers to a relative `tolerance`, tensors too, else exactly.

    `None` means that there is no answer yet.
    """
    if answer is None:
        return Check(None)
    if isinstance(truth, torch.Tensor):
        same = isinstance(answer, torch.Tensor) and answer.shape == truth.shape
        return Check(same and torch.allclose(answer, truth, rtol=tolerance, atol=1e-6))
    if isinstance(truth, (int, float)) and isinstance(answer, (int, float)):
        return Check(math.isclose(answer, truth, rel_tol=tolerance))
    if isinstance(answer, list) and isinstance(truth, tuple):
        answer = tuple(answer)
    return Check(answer == truth)


def progress(recipe: Recipe, **options) -> list[dict[str, float]]:
    """Carry out `fit(recipe, **options)` and return its rows; meanwhile show a bar and the curves so far.

    They vanish at the end, together with what the cell showed before, so that nothing of them is saved with the notebook.
    Where nobody watches, as in scripts and in notebooks that a tool executes, nothing is shown.
    """
    if not _is_watched():
        return list(fit(recipe, **options))
    from IPython.display import HTML, clear_output, display

    screen, rows = display(HTML(""), display_id=True), []
    drawn = {"curves": "", "time": 0.0}

    def bar(batches: Iterable, row: Mapping[str, float]) -> Iterator:
        start = time.perf_counter()
        for number, batch in enumerate(batches, 1):
            yield batch
            now = time.perf_counter()
            if now - drawn["time"] > 0.5:
                drawn["time"] = now
                rate, left = number * batches.batch_size / (now - start), (now - start) * (len(batches) / number - 1)
                figures = ", ".join(f"{name} {value:.4g}" for name, value in row.items())
                screen.update(HTML(f"<progress value={number} max={len(batches)}></progress> epoch {batches.epoch + 1} of "
                                   f"{recipe.epochs}: {figures}, {rate:,.0f} images/s, {left:.0f} s left{drawn['curves']}"))

    try:
        for row in fit(recipe, progress=bar, **options):
            rows.append(row)
            drawn["curves"] = _svg_of_curves(rows)
    finally:
        clear_output()
    return rows


def _is_watched() -> bool:
    """Whether a person sees the outputs: then the notebook's front end could answer a question, too."""
    try:
        from IPython import get_ipython
    except ImportError:
        return False
    return getattr(getattr(get_ipython(), "kernel", None), "_allow_stdin", False)


def _svg_of_curves(rows: Sequence[Mapping[str, float]]) -> str:
    figure, axes = plt.subplots(1, 2, figsize=(8, 2.5), layout="constrained")
    for ax, kind, unit in zip(axes, ("loss", "accuracy"), ("nats", "%")):
        for part in ("train", "test"):
            curves({part: [{"epoch": row["epoch"], kind: row[f"{part}_{kind}"]} for row in rows]}, kind, ax=ax)
        ax.set_ylabel(f"{kind} ({unit})")
    file = io.StringIO()
    figure.savefig(file, format="svg")
    plt.close(figure)
    return "<br>" + file.getvalue()[file.getvalue().index("<svg"):]
