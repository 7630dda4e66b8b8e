"""Every question and every exercise of the book: what is right is accepted in any form, near misses are refused, page and Python alike."""

import inspect
import itertools
import json
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch

from cnnlib.judging import RULES, judge
from test_widgets import node  # noqa: F401 (fixture)

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))
import execute  # noqa: E402
import notebooks  # noqa: E402

STATE = "application/vnd.jupyter.widget-state+json"
CHAPTERS = [path for path in notebooks.chapter_files() if not path.stem.startswith("_")]


def questions_of(path):
    state = json.loads(path.read_text(encoding="utf-8"))["metadata"].get("widgets", {}).get(STATE, {}).get("state", {})
    return [one["state"]["data"] for one in state.values() if one["state"].get("_anywidget_id", "").endswith(".Question")]


QUESTIONS = [pytest.param(data, id=f"{path.stem}-{i}") for path in CHAPTERS for i, data in enumerate(questions_of(path))]


def forms(data):
    """The right answer as code may give it, and as a reader may type it: (values, texts)."""
    kind, truth = data["kind"], data["truth"]
    if kind == "number":
        values = [truth, np.float64(truth), torch.tensor(truth, dtype=torch.double), [truth]]
        texts = [repr(truth), f"= {truth!r}", f"{truth:,}", f"{truth:.12e}"]
        if float(truth).is_integer():
            values.append(int(truth))
            texts += [f"{int(truth)}", f"{int(truth):,}", f"{int(truth):,}".replace(",", " "), f"{int(truth)} of them"]
        if not float(truth).is_integer() or abs(truth) >= RULES["exact_below"]:
            values.append(float(f"{truth:.3g}"))
            texts += [f"{truth:.3g}", f"{truth:.4g}"]
        return values, texts
    if kind == "shape":
        lengths = [int(length) for length in truth]
        return ([lengths, tuple(lengths), torch.Size(lengths), np.array(lengths), torch.tensor(lengths)],
                [", ".join(map(str, lengths)), "x".join(map(str, lengths)), f"({', '.join(map(str, lengths))})", " × ".join(map(str, lengths))])
    if kind == "choice":
        return [truth], [truth, f" {truth.upper()} "]
    return [truth, tuple(truth)], [truth]


def misses(data):
    """Answers that are nearly right."""
    kind, truth = data["kind"], data["truth"]
    if kind == "number":
        tolerance = data["tolerance"] or RULES["relative"]
        exact = float(truth).is_integer() and abs(truth) < RULES["exact_below"] and not data["tolerance"]
        near = [truth * factor for factor in (2, 0.5, -1, 10, 0.1, 1000, 1.1, 1 + 3 * tolerance, 1 - 3 * tolerance)]
        near += [truth + off for off in (1, -1, 0.5)] if exact else []
        return [one for one in near if one != truth and (exact or abs(one - truth) > 2 * tolerance * abs(truth))]
    if kind == "shape":
        changed = [[length + change if i == j else length for j, length in enumerate(truth)] for i in range(len(truth)) for change in (1, -1, truth[i])]
        return [*changed, truth[1:], [1, *truth], *(list(other) for other in itertools.permutations(truth) if list(other) != truth)]
    if kind == "choice":
        return [item for item in data["items"] if item != truth]
    return [[*truth[:i], truth[i + 1], truth[i], *truth[i + 2:]] for i in range(len(truth) - 1)] + [truth[::-1], truth[1:]]


@pytest.mark.parametrize("data", QUESTIONS)
def test_a_question_takes_what_is_right_and_nothing_near_it(data):
    def verdict(answer):
        return judge(data["kind"], answer, data["truth"], tolerance=data["tolerance"], usual=data["usual"])

    values, texts = forms(data)
    for answer in [*values, *texts]:
        assert verdict(answer) == (True, ""), answer
    near = misses(data)
    assert len(near) >= 1
    for answer in near:
        assert verdict(answer)[0] is False, answer
    for wrong, meaning in data["usual"]:
        assert verdict(wrong) == (False, meaning) and meaning
    assert verdict({"number": "some", "shape": "some", "choice": "", "order": []}[data["kind"]])[0] is None
    assert data["hints"] or data["kind"] == "choice"
    leaks = [hint for hint in data["hints"] if data["kind"] in ("choice", "order") and str(data["truth"]) in hint]
    assert not leaks, "a hint gives the answer away"


def test_page_and_python_judge_every_question_alike(node):
    calls, expected = [], []
    for data in (one.values[0] for one in QUESTIONS):
        near = [one if data["kind"] in ("choice", "order") else ", ".join(map(str, one)) if data["kind"] == "shape" else repr(one) for one in misses(data)]
        usual = [wrong if isinstance(wrong, str) or data["kind"] == "order" else ", ".join(map(str, wrong)) if isinstance(wrong, list) else repr(wrong)
                 for wrong, _ in data["usual"]]
        for text in [*forms(data)[1], *near, *usual]:
            calls.append(["judge", data, text])
            expected.append(list(judge(data["kind"], text, data["truth"], tolerance=data["tolerance"], usual=data["usual"])))
    found = node("question", calls)
    different = [(call[1]["text"], call[2], page, here) for call, page, here in zip(calls, found, expected, strict=True) if page != here]
    assert different == [] and len(calls) > 10 * len(QUESTIONS)


def test_questions_are_told_apart():
    """Progress is kept by name, or by text, answer and hints."""
    keys = [(data["name"],) if data["name"] != data["text"] else (data["text"], json.dumps(data["truth"]), *data["hints"])
            for data in (one.values[0] for one in QUESTIONS)]
    assert len(set(keys)) == len(keys) >= 85


# --- exercises: code, judged by `check` ---


def put_to_the_test(check):
    """`check` that first tries the truth in several forms, what is near it, and the usual wrong answers."""
    import numpy as np
    import torch

    def forms(truth):
        yield truth
        if isinstance(truth, torch.Tensor):
            yield truth.double() if truth.is_floating_point() else truth
            yield truth.detach().numpy()
        elif isinstance(truth, tuple):
            yield list(truth)
        elif isinstance(truth, (int, float)) and not isinstance(truth, bool):
            yield np.float64(truth)
            yield torch.tensor(truth, dtype=torch.double)

    def misses(truth, share):
        if isinstance(truth, torch.Tensor):
            yield truth[None]
            if truth.is_floating_point() and truth.abs().max() > 0:
                yield truth * (1 + 5 * share)
                yield truth + 0.02 * truth.abs().max()
            if truth.dim() > 1 and truth.shape[-1] != truth.shape[-2]:
                yield truth.transpose(-1, -2)
        elif isinstance(truth, bool):
            yield not truth
        elif isinstance(truth, (int, float)):
            yield from (one for one in (2 * truth, truth / 2, -truth, truth * (1 + 5 * share), truth * (1 - 5 * share)) if one != truth)
            if isinstance(truth, int) and abs(truth) * share < 0.3 and abs(truth) < 100_000:
                yield from (truth + 1, truth - 1)
            yield (truth, truth)
        elif isinstance(truth, str):
            yield truth + "s"
            yield truth[:-1]
        elif isinstance(truth, tuple):
            yield truth[:-1]
            yield (*truth, 0)
            if truth[::-1] != truth and len(truth) < 9 and not all(isinstance(one, (int, float)) and abs(one - truth[0]) <= share for one in truth):
                yield truth[::-1]
            for i, one in enumerate(truth):
                for wrong in misses(one, share):
                    yield (*truth[:i], wrong, *truth[i + 1:])

    def checked(answer, truth, *, tolerance=None, usual=None):
        for answer_ in forms(truth):
            assert check(answer_, truth, tolerance=tolerance, usual=usual), f"refused: {answer_!r} for {truth!r}"
        for wrong in misses(truth, tolerance or 1e-3):
            assert not check(wrong, truth, tolerance=tolerance), f"accepted: {wrong!r} for {truth!r}"
        for meaning, wrong in (usual or {}).items():
            assert check(wrong, truth, tolerance=tolerance, usual=usual).hint == meaning, meaning
        assert check(None, truth).right is None
        checked.count += 1
        print(f"exercise {checked.count} put to the test")
        return check(answer, truth, tolerance=tolerance, usual=usual)

    checked.count = 0
    return checked


def test_what_puts_to_the_test_notices():
    from cnnlib.notebook import check

    tried = put_to_the_test(check)
    for truth in (5, 118_013_952, 0.35, 1 / 3, True, "resnet50", (64, 0.25), torch.rand(3, 4), torch.tensor([1, 2])):
        assert tried(None, truth).right is None
    for wrong in (lambda answer, truth, **options: type("Verdict", (), {"right": None, "hint": "", "__bool__": lambda self: True})(),
                  lambda answer, truth, **options: check(-1 if answer is not None else None, truth, **options)):
        with pytest.raises(AssertionError, match="accepted|refused"):
            put_to_the_test(wrong)(None, 5)


DEEP = [path for path in CHAPTERS if any(cell.cell_type == "code" and "check(" in cell.source for cell in notebooks.read(path).cells)]


@pytest.mark.slow
@pytest.mark.parametrize("path", DEEP, ids=lambda path: path.stem)
def test_every_exercise_takes_what_is_right_and_nothing_near_it(path):
    notebook = notebooks.read(path)
    asked = sum(cell.source.count("check(answer") + cell.source.count("check(None if answer") for cell in notebook.cells if cell.cell_type == "code")
    first = next(i for i, cell in enumerate(notebook.cells) if cell.cell_type == "code")
    notebook.cells.insert(first + 1, nbformat.v4.new_code_cell(
        f"{inspect.getsource(put_to_the_test)}\nimport cnnlib.notebook\ncnnlib.notebook.check = put_to_the_test(cnnlib.notebook.check)"))
    done = execute.execute(notebook)
    text = "".join(output.get("text", "") for cell in done.cells if cell.cell_type == "code" for output in cell.outputs)
    assert text.count("put to the test") >= max(1, asked)
