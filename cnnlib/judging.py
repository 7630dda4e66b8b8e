"""When an answer is right: one table of rules, by which Python and the page judge alike.

`RULES` goes to the page as it is; `static/question.js` reads it there. A reader's text becomes numbers or words
(`read_answer`), and these are compared with the truth (`judge`). Lists are shapes or orderings: their length and order
count.
"""

import math
import re
from collections.abc import Sequence
from decimal import Decimal

RULES = {
    "relative": 1e-3,        # numbers that are not whole agree to this share, unless the question has its own tolerance
    "exact_below": 100_000,  # whole numbers below it must be exact
    "digits": 3,             # a number rounded to so many digits is right, too (whole ones: from `exact_below` on)
    "scales": {"k": 1e3, "thousand": 1e3, "m": 1e6, "million": 1e6, "g": 1e9, "b": 1e9, "billion": 1e9, "t": 1e12,
               "%": 0.01},
    "number": r"([+-]?)(\d+(?:,\d{3})+(?:\.\d+)?|\d*\.?\d+|\d+\.)(?:(?:e|\*10\^?|x10\^?)([+-]?\d+))?(%|[a-z]+)?",
    "between": r"[,;x×*()\[\]]+|\band\b|->|<|>",  # what may stand between the values of a list
    "plain": [["−", "-"], [" ", " "], [" ", " "], ["_", ""], ["·", "*"], ["×10", "x10"], ["²", ""]],
}
UNREADABLE = {
    "number": "write a number, such as 34,944 or 3.5e4",
    "shape": "write the lengths with a comma or a cross between them, such as 64, 55, 55",
    "order": "put every item in its place",
    "choice": "choose one",
}


def same_number(answer: float, truth: float, tolerance: float | None = None, *, whole: bool | None = None) -> bool:
    """Whether `answer` is `truth` by `RULES`; a `tolerance` (relative) replaces them.

    `whole` says whether the truth is a count, which its value says where it is not given.
    """
    if answer == truth:
        return True
    if not math.isfinite(answer):
        return False
    if tolerance is not None:
        return abs(answer - truth) <= tolerance * abs(truth)
    whole = float(truth).is_integer() if whole is None else whole
    if whole and abs(truth) < RULES["exact_below"]:
        return False
    if not whole and abs(answer - truth) <= RULES["relative"] * abs(truth):
        return True
    given = Decimal(repr(float(answer))).normalize()
    digits = max(RULES["digits"], len(given.as_tuple().digits))
    unit = 10.0 ** (given.adjusted() + 1 - digits)  # of the answer's last digit
    return answer != 0 and abs(answer - truth) <= 0.5 * unit * (1 + 1e-9)


def read_number(text: str) -> float | None:
    """The number that a text is, in any usual form: "1,179,648", "1.18M", "1.2e6", "35%", "69,424 parameters"."""
    for old, new in RULES["plain"]:
        text = text.replace(old, new)
    scale = r"(?<=[\d.]) (?=(?:\d{3}|[kmgbt%x*e]|thousand|million|billion)(?!\w))"  # or three digits after a space
    one_word = re.sub(scale, "", text.strip().lower().lstrip("=~ "))
    found = re.fullmatch(RULES["number"], one_word.split(" ")[0])
    if not found:
        return None
    sign, digits, power, scale = found.groups()
    if scale and scale not in RULES["scales"]:
        return None
    return float(f"{sign}{digits.replace(',', '')}e{power or 0}") * RULES["scales"].get(scale, 1)


def read_answer(kind: str, answer: object) -> object:
    """`answer` as what a question of this kind asks for: a number, a list of numbers or of texts, a text; else None."""
    if hasattr(answer, "tolist"):  # a tensor, an array or a number of NumPy
        answer = answer.tolist()
    if isinstance(answer, bool):
        answer = str(answer).lower()
    if kind == "choice":
        return answer.strip().lower() if isinstance(answer, str) else None
    if kind == "order":
        return [str(item).strip().lower() for item in answer] if isinstance(answer, (list, tuple)) else None
    if kind == "number":
        if isinstance(answer, (list, tuple)):
            return read_answer(kind, answer[0]) if len(answer) == 1 else None
        if isinstance(answer, (int, float)):
            return float(answer)
        return read_number(answer) if isinstance(answer, str) else None
    if isinstance(answer, str):
        for old, new in RULES["plain"]:
            answer = answer.replace(old, new)
        answer = [part for part in re.split(rf"(?:{RULES['between']}|\s)+", answer.strip()) if part]
    if not isinstance(answer, (list, tuple)):
        return None
    numbers = [read_number(one) if isinstance(one, str) else one for one in answer]
    return list(map(float, numbers)) if numbers and all(isinstance(one, (int, float)) for one in numbers) else None


def equal(kind: str, given: object, truth: object, tolerance: float | None = None) -> bool:
    """Whether a read answer is the truth."""
    if kind == "number":
        return same_number(given, truth, tolerance)
    if kind == "choice":
        return given == truth.strip().lower()
    if len(given) != len(truth):
        return False
    if kind == "order":
        return given == [item.strip().lower() for item in truth]
    return all(one == other for one, other in zip(given, truth))


def judge(kind: str, answer: object, truth: object, *, tolerance: float | None = None,
          usual: Sequence[Sequence] = ()) -> tuple[bool | None, str]:
    """Whether an answer is right (None: it cannot be read), and what there is to say about it.

    `kind` is "number", "shape", "order" or "choice"; `usual` holds wrong answers that are often given, as
    (answer, what it is).
    """
    given = read_answer(kind, answer)
    if given is None or given == "" or given == []:
        return None, UNREADABLE[kind]
    if equal(kind, given, truth, tolerance):
        return True, ""
    for wrong, meaning in usual:
        if equal(kind, given, wrong, tolerance):
            return False, meaning
    if kind == "shape" and len(given) != len(truth):
        return False, f"the answer has {len(truth)} lengths, yours {len(given)}"
    if kind == "shape" and sorted(given) == sorted(truth):
        return False, "these are the right lengths in another order"
    return False, ""


def sentence(text: str) -> str:
    """With a full stop, unless it ends with a mark of its own."""
    return text if text.endswith((".", "!", "?")) else f"{text}."
