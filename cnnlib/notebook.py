"""Helpers for notebooks: the house style of figures, tables, source code as an output, and answers that are checked."""

import inspect
import io
import itertools
import re
import textwrap
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch

import cnnlib
from cnnlib import tables
from cnnlib.judging import same_number, sentence
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
        written = map(inspect.unwrap, things)  # not a decorator's
        files = dict.fromkeys(Path(inspect.getsourcefile(thing)) for thing in written)
        self.files = [file.relative_to(Path(cnnlib.__file__).parents[1]).as_posix() for file in files]
        self.code = "\n\n".join(textwrap.dedent(inspect.getsource(thing)).rstrip() for thing in things)

    def __repr__(self) -> str:
        return self.code

    def _repr_markdown_(self) -> str:
        return f"From `{'`, `'.join(self.files)}`:\n\n```python\n{self.code}\n```"


# Cells that are numbers written out: 1,024, 6e-04, 76%, 4.1G, 12 ms, 68.2 ± 0.8, -8.4 to +1.5, 41 (40 to 42); a dash or
# nothing stands for none.
_ONE = r"[+-]?\d[\d,.]*(e[+-]?\d+)?( ?(%|x|[kKMGBT]|ms|s))?"
NUMBER = re.compile(rf"{_ONE}(\s(±|to)\s{_ONE}| \({_ONE} to {_ONE}\))?")
NONE = ("", "-")


class Table(tables.Printed):
    """A small table by columns; whole numbers get thousands separators, tuples an x. Numbers stand to the right.

    Prints as aligned text, shows itself as a table in a notebook. `note` stands below it. Raises `ValueError` for
    columns of different lengths.

        Table({"layer": ["CONV1", "POOL1"], "parameters": [34944, 0]})
    """

    def __init__(self, columns: Mapping[str, Sequence[object]], note: str = ""):
        self.columns, self.note = {title: list(values) for title, values in columns.items()}, note
        lengths = {title: len(values) for title, values in self.columns.items()}
        if len(set(lengths.values())) != 1:
            raise ValueError(f"the columns of a table have one length; these have {lengths}")

    def _cells(self) -> dict:
        columns = [[_text(value) for value in values] for values in self.columns.values()]
        left = [not all(cell in NONE or NUMBER.fullmatch(cell) for cell in column) for column in columns]
        return {"rows": [list(self.columns), *zip(*columns)], "left": left, "note": self.note}

    def records(self) -> list[dict]:
        return [dict(zip(self.columns, row)) for row in zip(*self.columns.values())]

    def _repr_markdown_(self) -> str:
        # a product, which Markdown would take for emphasis
        return re.sub(r"(?<=[\d)])\*(?=[\d(])", r"\\*", self.to_markdown())

    _repr_html_ = None  # Markdown shows formulas


def _text(value: object) -> str:
    if isinstance(value, tuple):
        return " x ".join(map(str, value))
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"


class Check:
    """The verdict on an answer; true if it is right. `hint` says what is wrong with another, where that is known."""

    def __init__(self, right: bool | None, hint: str = ""):
        self.right, self.hint = right, hint

    def __bool__(self) -> bool:
        return bool(self.right)

    def __repr__(self) -> str:
        if self.right is None:
            return "No answer yet: put yours in place of None and run the cell again."
        return "Right." if self.right else sentence(f"Not yet: {self.hint or 'compute it once more'}")


def check(
    answer: object, truth: object, *, tolerance: float | None = None, usual: Mapping[str, object] | None = None
) -> Check:
    """Compare a reader's answer with the computed truth, in whatever form it comes: a number, a tensor, a list.

    Numbers are compared by `cnnlib.judging`: without a `tolerance` (relative) whole ones must be exact, others agree to
    0.1%, and a rounded one is right where its rules say so. Shapes and order count. `usual`
    holds wrong answers that are often given, by the sentence that says what they are: `usual={"these are FLOPs": 2 *
    macs}`. `None` means that there is no answer yet; nothing that a reader writes raises an error.
    """
    if answer is None:
        return Check(None)
    try:
        if _same(answer, truth, tolerance):
            return Check(True)
        for sentence, wrong in (usual or {}).items():
            if _same(answer, wrong, tolerance):
                return Check(False, sentence)
        return Check(False, _difference(_plain(answer), _plain(truth), tolerance))
    except Exception:  # of an object that cannot be compared
        return Check(False)


def _plain(value: object) -> object:
    """Arrays as tensors, NumPy's numbers as Python's, lists and shapes as tuples."""
    if isinstance(value, np.ndarray):
        return torch.as_tensor(value) if value.dtype.kind in "biuf" else tuple(map(_plain, value.tolist()))
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, (list, tuple)):
        return tuple(map(_plain, value))
    return value.detach().cpu() if isinstance(value, torch.Tensor) else value


def _same(answer: object, truth: object, tolerance: float | None) -> bool:
    answer, truth = _plain(answer), _plain(truth)
    if isinstance(truth, torch.Tensor):
        return _same_tensor(answer, truth, 1e-3 if tolerance is None else tolerance)
    if isinstance(answer, torch.Tensor):
        answer = _plain(answer.tolist() if isinstance(truth, tuple) or answer.numel() != 1 else answer.item())
    if isinstance(truth, tuple):
        return isinstance(answer, tuple) and len(answer) == len(truth) and all(
            _same(one, other, tolerance) for one, other in zip(answer, truth))
    if isinstance(truth, bool) or isinstance(answer, bool):
        return answer is truth
    if isinstance(truth, (int, float)):
        count = isinstance(truth, int)  # a float was computed: whole by chance, or off zero by its rounding
        return isinstance(answer, (int, float)) and (
            same_number(answer, truth, tolerance, whole=count) or not count and abs(answer - truth) <= 1e-12)
    if isinstance(truth, str):
        return isinstance(answer, str) and answer.strip() == truth
    return bool(answer == truth)


def _same_tensor(answer: object, truth: torch.Tensor, tolerance: float) -> bool:
    if not isinstance(answer, torch.Tensor):
        try:
            answer = torch.tensor(answer, dtype=torch.double)
        except (TypeError, ValueError, RuntimeError):
            return False
    if answer.shape != truth.shape or answer.is_meta or (answer.dtype == torch.bool) != (truth.dtype == torch.bool):
        return False
    if not truth.is_floating_point():
        return torch.equal(answer.double(), truth.double())
    size = truth.double().abs().max().item() if truth.numel() else 0.0
    return torch.allclose(answer.double(), truth.double(), rtol=tolerance, atol=1e-5 * size)


def _difference(answer: object, truth: object, tolerance: float | None) -> str:
    """What is wrong with an answer, seen from its form; empty where only its value is."""
    if isinstance(truth, torch.Tensor):
        if not isinstance(answer, torch.Tensor):
            return f"the answer is a tensor of shape {tuple(truth.shape)}, not {_kind(answer)}"
        if truth.dim() > 1 and _same(answer.transpose(-1, -2) if answer.dim() > 1 else answer, truth, tolerance):
            return "the last two axes are exchanged"
        if answer.shape != truth.shape:
            return f"the answer has the shape {tuple(truth.shape)}, yours {tuple(answer.shape)}"
    elif isinstance(truth, tuple):
        given = _plain(answer.tolist()) if isinstance(answer, torch.Tensor) else answer
        if not isinstance(given, tuple) or len(given) != len(truth):
            return f"the answer is {len(truth)} values, not {len(given) if isinstance(given, tuple) else _kind(given)}"
        if len(truth) <= 5 and any(_same(order, truth, tolerance) for order in itertools.permutations(given)):
            return "these are the right values in another order"
    elif isinstance(answer, tuple) or isinstance(answer, torch.Tensor) and answer.numel() != 1:
        return "the answer is one value, not several"
    elif isinstance(truth, bool) and not isinstance(answer, bool):
        return f"the answer is True or False, not {_kind(answer)}"
    elif isinstance(truth, (int, float)) and (
            isinstance(answer, bool) or not isinstance(answer, (int, float, torch.Tensor))):
        return f"the answer is a number, not {_kind(answer)}"
    elif isinstance(truth, str) and not isinstance(answer, str):
        return f"the answer is a name in quotes, not {_kind(answer)}"
    return ""


def _kind(value: object) -> str:
    return "one number" if isinstance(value, (int, float)) else f"a {type(value).__name__}"


def progress(recipe: Recipe, **options) -> list[dict[str, float]]:
    """Carry out `fit(recipe, **options)` and return its rows; meanwhile show a bar and the curves so far.

    They vanish at the end, together with what the cell showed before, so that nothing of them is saved with the
    notebook.
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
                screen.update(HTML(
                    f"<progress value={number} max={len(batches)}></progress> epoch {batches.epoch + 1} of "
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
