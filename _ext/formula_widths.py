"""How wide a formula in a line will be: an estimate that keeps its place before it is typeset, so that no line breaks anew."""

import re

FACTOR = 1.27  # MathJax's letters beside those of the text
TOKEN = re.compile(r"\\[A-Za-z]+\*?|\\.|\S")
RELATIONS = {"=", "<", ">", ":", *(rf"\{name}" for name in "le ge leq geq ne neq in notin approx to propto ll gg sim equiv mapsto subset "
             "longrightarrow rightarrow Rightarrow leftarrow mid".split())}
OPERATIONS = {"+", "-", "*", *(rf"\{name}" for name in "times cdot odot oplus otimes pm circ ast cup cap star".split())}
FUNCTIONS = "arg cos det dim exp lim ln log max min sin tanh tan".split()
SPACES = {r"\,": 0.17, r"\:": 0.22, r"\;": 0.28, r"\ ": 0.25, r"\!": -0.17, r"\quad": 1, r"\qquad": 2}
NOTHING = set(r"\left \right \big \Big \bigl \bigr \Bigl \Bigr \displaystyle \limits \rm".split()) | {"{", "}", "&"}
GROUPS = set(r"\mathrm \text \mathbf \mathit \mathcal \mathbb \operatorname \hat \tilde \bar \overline \underline \vec \boldsymbol \texttt \textrm".split())


def width(tex: str) -> float:
    """The width in em of the text around, of a formula in TeX."""
    tokens, place = TOKEN.findall(tex), 0

    def group(scale: float) -> float:
        """The next token, or all within the next braces."""
        nonlocal place
        if place < len(tokens) and tokens[place] == "{":
            place += 1
            found = run(scale)
            place += 1  # the closing one
            return found
        return one(scale) if place < len(tokens) else 0

    def one(scale: float) -> float:
        nonlocal place
        before, token = tokens[place - 1] if place else "(", tokens[place]
        place += 1
        spaced = scale == 1 and before not in RELATIONS | OPERATIONS | {"(", "[", ",", "{"}
        if token in GROUPS:
            return group(scale)
        if token in (r"\frac", r"\tfrac", r"\dfrac", r"\binom"):
            return 0.24 * scale + max(group(scale * 0.7), group(scale * 0.7))
        if token == r"\sqrt":
            return 0.83 * scale + group(scale)
        if token in NOTHING:
            return 0
        if token in RELATIONS:
            return (0.78 + 0.56 * (scale == 1)) * scale
        if token in OPERATIONS:
            return ((0.28 if token == r"\cdot" else 0.78) + 0.44 * spaced) * scale
        if token in SPACES:
            return SPACES[token] * scale
        if token[1:] in FUNCTIONS:
            return (0.5 * len(token[1:]) + 0.17) * scale
        if token in (r"\sum", r"\prod", r"\int"):
            return 1.2 * scale
        if token in (r"\ldots", r"\dots", r"\cdots"):
            return 1.17 * scale
        if len(token) > 1:
            return 0.6 * scale
        kinds = ((token.isdigit() or token == "/", 0.5), (token.isupper(), 0.8), (token.isalpha(), 0.55), (token in "()[]", 0.39), (token in ",;", 0.44))
        return next((size for known, size in kinds if known), 0.3) * scale

    def run(scale: float) -> float:
        """All up to a closing brace; an index and an exponent of one letter stand above each other."""
        nonlocal place
        total = 0.0
        while place < len(tokens) and tokens[place] != "}":
            if tokens[place] not in "_^":
                total += one(scale) if tokens[place] != "{" else group(scale)
                continue
            scripts = []
            while place < len(tokens) and tokens[place] in "_^":
                place += 1
                scripts.append(group(scale * 0.7))
            total += max(scripts) + 0.05 * scale
        return total

    total = 0.0
    while place < len(tokens):
        total += run(1)
        place += 1
    return total * FACTOR
