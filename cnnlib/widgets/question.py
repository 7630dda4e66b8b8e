"""Questions that answer on the page: numbers, shapes, choices and orderings, judged by `cnnlib.judging` in both places."""

import random
from collections.abc import Sequence

import traitlets

from cnnlib.judging import RULES, UNREADABLE, judge, read_answer, sentence

from .base import Explorer, check_choice, check_count, module, style

KINDS = ("number", "shape", "choice", "order")


class Question(Explorer):
    """A question with a field for its answer, hints, and a verdict that knows the usual wrong answers.

        Question("How many parameters has CONV1?", 34_944, usual=[(34_848, "the biases are missing")],
                 hints=["One filter has 11 x 11 x 3 weights.", "Each of the 96 filters has a bias, too."])
        Question("Which is deeper?", "VGG-16", choices=["AlexNet", "VGG-16"])
        Question("Put them in the order of their parameters.", ["NiN", "AlexNet", "VGG-16"], kind="order")

    The kind follows from the answer: a number, a shape (a tuple of lengths), a choice (with `choices`); an ordering (a list of
    texts) is named. `tolerance` (relative) replaces the rules for numbers. `usual` holds (wrong answer, what it means), the meaning as
    the end of a sentence. `name` is under what the browser keeps progress; by default text, answer and hints. In a notebook the same question judges
    code: `question.check(answer)` takes a number, tensor, list or text.

    Raises `ValueError` for a choice without the answer in it, a usual wrong answer that is right or stands there twice, and one that
    cannot be read.
    """

    _esm = module("question")
    _css = style("question")
    answer = traitlets.Unicode().tag(sync=True)
    tried = traitlets.Any().tag(sync=True)
    hints = traitlets.Any().tag(sync=True)

    def __init__(self, text: str, answer: object, *, kind: str = "", choices: Sequence[str] = (), tolerance: float | None = None,
                 usual: Sequence[tuple[object, str]] = (), hints: Sequence[str] = (), because: str = "", name: str = ""):
        kind = kind or ("choice" if choices else "shape" if isinstance(answer, (tuple, list)) else "number")
        check_choice("kind", kind, KINDS)
        truth = answer if kind in ("choice", "order") else read_answer(kind, answer)
        if truth is None:
            raise ValueError(f"answer={answer!r} is no {kind}")
        if kind == "choice" and answer not in choices:
            raise ValueError(f"answer={answer!r} is not among the choices {list(choices)!r}")
        items = list(choices)
        if kind == "order":
            items = sorted(answer)
            random.Random(text).shuffle(items)
            if items == list(answer):
                items.reverse()
        wrong = []
        for value, meaning in usual:
            if judge(kind, value, truth, tolerance=tolerance)[0] is not False:
                raise ValueError(f"usual={value!r} ({meaning}) is right, or no {kind}")
            if any(judge(kind, value, other, tolerance=tolerance)[0] for other, _ in wrong):
                raise ValueError(f"usual={value!r} ({meaning}) is there already, with another meaning")
            wrong.append([value if kind in ("choice", "order") else read_answer(kind, value), meaning])
        self.truth, self.kind, self.usual, self.tolerance = truth, kind, wrong, tolerance
        super().__init__({"text": text, "kind": kind, "truth": truth, "items": items, "tolerance": tolerance, "usual": wrong, "hints": list(hints),
                          "because": because, "name": name or text, "rules": RULES, "unreadable": UNREADABLE},
                         answer="", tried=0, hints=0)

    def check(self, answer: object) -> "Verdict":
        """Judge an answer that the reader's code computed."""
        return Verdict(*judge(self.kind, answer, self.truth, tolerance=self.tolerance, usual=self.usual), self.data["because"])

    @property
    def summary(self) -> str:
        text = self.data["text"]
        return text if len(text) < 80 else text[:78] + " \u2026"

    @traitlets.validate("tried", "hints")
    def _check_count(self, proposal):
        return check_count(proposal.trait.name, proposal.value, 0, 10_000)


class Verdict:
    """What `Question.check` says; true if the answer is right."""

    def __init__(self, right: bool | None, meaning: str, because: str = ""):
        self.right, self.meaning, self.because = right, meaning, because

    def __bool__(self) -> bool:
        return bool(self.right)

    def __repr__(self) -> str:
        if self.right:
            return f"Right. {self.because}".strip()
        return sentence(f"{'No answer yet' if self.right is None else 'Not yet'}: {self.meaning or 'compute it once more'}")
