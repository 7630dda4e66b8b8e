"""Questions: Python and the page judge alike, accept what is right in any form, and refuse every near miss."""

import itertools
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies

from cnnlib.judging import RULES, UNREADABLE, judge, read_answer, read_number, same_number
from cnnlib.widgets import Question
from test_widgets import node  # noqa: F401 (fixture)

TRUTHS = [0, 1, 7, 96, 34_944, 99_999, 100_000, 1_179_648, 61_100_840, 1_135_906_176, 0.5, 0.0333, 3.14159, 58.4187, 1234.5678, -2, -0.25]


def grid():
    """Texts of right, rounded, scaled and nearly right answers."""
    for truth in TRUTHS:
        for factor in (1, 2, 0.5, 1 + 4e-4, 1 + 1.6e-3, 1 - 9e-4, 1.01):
            value = truth * factor
            yield truth, repr(value)
            yield truth, f"{value:.3g}"
            yield truth, f"{value:.2g}"
            yield truth, f"{value:,.2f}"
        for off in (-1, 1, 10, 500):
            yield truth, f"{truth + off:,}"
    for text in ("1.18M", "1.18 million", "1 179 648", "1_179_648", "1.179648e6", "1.179648 * 10^6", "1.179648×10^6", "1179.648k", "1.2M",
                 "1,179,648 parameters", "= 1,179,648", "~1.18M", "1,17,9648", "1.18 Mbit", "", "abc", "1e", "--1", "1..2", "50%", "50 %", ".5", "5.", "−2",
                 "1 179 64", "1e400", "0x10", "½"):
        for truth in (1_179_648, 0.5, -2):
            yield truth, text


SHAPES = ["64, 55, 55", "64x55x55", "64 × 55 × 55", "(64, 55, 55)", "[64,55,55]", "64 55 55", "55, 55, 64", "64, 55", "64, 55, 56", "", "a, b", "64, 55, 55, 1",
          "torch.Size([64, 55, 55])", "1,179, 3, 3"]


def test_python_and_the_page_judge_alike(node):
    calls, expected = [], []
    for truth, text in grid():
        for tolerance in (None, 0.02):
            question = {"rules": RULES, "unreadable": UNREADABLE, "kind": "number", "truth": truth, "tolerance": tolerance,
                        "usual": [[2 * truth + 1, "one more than twice"]]}
            calls.append(["judge", question, text])
            expected.append(list(judge("number", text, truth, tolerance=tolerance, usual=question["usual"])))
    for truth, text in itertools.product(([64, 55, 55], [55, 55, 64]), SHAPES):
        question = {"rules": RULES, "unreadable": UNREADABLE, "kind": "shape", "truth": truth, "tolerance": None, "usual": [[[64, 55], "one is missing"]]}
        calls.append(["judge", question, text])
        expected.append(list(judge("shape", text, truth, usual=question["usual"])))
    for kind, truth, answers in (("order", ["a", "B"], (["a", "B"], ["b", "a"], ["A ", "b"])), ("choice", "VGG-16", ("VGG-16", "vgg-16 ", "VGG-19", ""))):
        for answer in answers:
            question = {"rules": RULES, "unreadable": UNREADABLE, "kind": kind, "truth": truth, "tolerance": None, "usual": []}
            calls.append(["judge", question, answer])
            expected.append(list(judge(kind, answer, truth)))
    results = node("question", calls)
    different = [(call[2], call[1]["truth"], on_page, here) for call, on_page, here in zip(calls, results, expected, strict=True) if on_page != here]
    assert different == []
    assert {result[0] for result in results} == {True, False, None} and len(calls) > 1000


def test_numbers_are_read_the_same_way(node):
    texts = [text for _, text in grid()]
    found = node("question", [["readNumber", RULES, text] for text in texts])
    assert found == [number if number is None or abs(number) < 1e308 else None for number in map(read_number, texts)]


def test_right_in_any_form():
    for answer in (1_179_648, 1_179_648.0, np.int64(1_179_648), np.float32(1_179_648), torch.tensor(1_179_648), torch.tensor([1_179_648.0]), "1,179,648",
                   "1.18M", "1.18 million", "1 179 648", "1.179648e6", 1.18e6, np.array([1_179_648])):
        assert judge("number", answer, 1_179_648) == (True, ""), answer
    for answer in ((64, 55, 55), [64, 55, 55], torch.Size([64, 55, 55]), np.array([64, 55, 55]), torch.tensor([64, 55, 55]), "64x55x55", "64, 55, 55"):
        assert judge("shape", answer, [64, 55, 55]) == (True, ""), answer
    assert judge("number", "35%", 0.35)[0] and judge("number", 0.0333, 1 / 30)[0]


@settings(max_examples=300, deadline=None)
@given(truth=strategies.one_of(strategies.integers(1, 99_999), strategies.integers(100_000, 10**12)), digits=strategies.integers(1, 6))
def test_whole_numbers_and_their_roundings(truth, digits):
    rounded = float(f"{truth:.{digits - 1}e}")
    right = rounded == truth or truth >= RULES["exact_below"] and abs(rounded - truth) <= 0.5 * 10 ** (len(str(int(rounded))) - max(digits, 3))
    assert same_number(rounded, truth) is right
    assert same_number(truth, truth) and not same_number(-truth, truth) and not same_number(2 * truth, truth)
    assert not same_number(truth + 1, truth) if truth < 99_999 else True
    assert not same_number(truth * 1.01, truth)


@settings(max_examples=300, deadline=None)
@given(truth=strategies.floats(1e-6, 1e9).filter(lambda number: not number.is_integer()), share=strategies.floats(0, 0.0009))
def test_other_numbers_to_a_thousandth(truth, share):
    assert same_number(truth * (1 + share), truth) and same_number(truth * (1 - share), truth)
    assert not same_number(truth * 1.02, truth) and not same_number(truth * 0.98, truth)
    assert same_number(truth * 1.02, truth, 0.03) and not same_number(truth * 1.0005, truth, 1e-6)


@pytest.mark.parametrize("answer, verdict", [
    ("34944", "Right. 96 x (11 x 11 x 3 + 1)"), (34_848, "Not yet: the biases are missing."), ("69,888", "Not yet: that is twice as many."),
    (4, "Not yet: are there so few?"),
    (1, "Not yet: compute it once more."), ("many", "No answer yet: write a number, such as 34,944 or 3.5e4."), (None, "No answer yet: write a number, such as 34,944 or 3.5e4."),
])
def test_the_same_question_takes_code(answer, verdict):
    question = Question("How many parameters?", 34_944, usual=[(34_848, "the biases are missing"), (69_888, "that is twice as many"), (4, "are there so few?")],
                        because="96 x (11 x 11 x 3 + 1)")
    result = question.check(answer)
    assert repr(result) == verdict and bool(result) is verdict.startswith("Right")


WRONG = {
    "usual is right": (lambda: Question("?", 5, usual=[(5.0, "no")]), r"usual=5.0 \(no\) is right"),
    "usual twice": (lambda: Question("?", 5, usual=[(8, "no"), (8.0, "never")]), r"usual=8.0 \(never\) is there already"),
    "usual is unreadable": (lambda: Question("?", 5, usual=[("five", "no")]), "no number"),
    "choice": (lambda: Question("?", "c", choices=["a", "b"]), r"answer='c' is not among the choices \['a', 'b'\]"),
    "kind": (lambda: Question("?", 5, kind="text"), "kind='text'.*'number'"),
    "truth": (lambda: Question("?", "many"), "answer='many' is no number"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_questions_are_named(case):
    call, message = WRONG[case]
    with pytest.raises(ValueError, match=message):
        call()


def test_an_order_is_shown_in_another_order():
    items = Question("From small to large", ["NiN", "AlexNet", "VGG-16"], kind="order").data["items"]
    assert sorted(items) == ["AlexNet", "NiN", "VGG-16"] and json.dumps(items) == json.dumps(
        Question("From small to large", ["NiN", "AlexNet", "VGG-16"], kind="order").data["items"])
    assert read_answer("order", ("a ", "B")) == ["a", "b"]
