"""What all explorers have in common: their JavaScript and style sheet, the way back to the example, their limits.

An explorer is an ipywidget whose whole state is plain JSON: a few traits that its controls turn, and `data`, computed in
Python once. So it runs in Jupyter and Colab, where the traits are live both ways, and on a built page, which has no
kernel and runs the same JavaScript by `_static/explorers.js`.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import anywidget
import traitlets
from torch import nn

from cnnlib.registry import create_model, find_variant

STATIC = Path(__file__).with_name("static")
MOST_DATA = 200_000  # bytes of JSON that an explorer may add to a page


def module(*names: str) -> str:
    """The text of the ES module of one explorer: what all share, then its own files."""
    return "\n".join((STATIC / f"{part}.js").read_text(encoding="utf-8") for part in ("common", *names))


def style(*names: str) -> str:
    """The style sheet of one explorer, if it needs more than what all share."""
    return "\n".join((STATIC / f"{part}.css").read_text(encoding="utf-8") for part in ("explorers", *names))


class Explorer(anywidget.AnyWidget):
    """Base of the explorers: `data` is what the view shows, the traits of the subclass are what its controls turn.

    A subclass sets `_esm = module(its files)`, and `_css = style(its files)` if it has a style sheet of its own. Its
    constructor passes `data` and the first value of every trait, to which the link "back to the example" returns.
    """

    _css = style()
    data = traitlets.Dict().tag(sync=True)

    def __init__(self, data: dict, **example: object):
        data = {**data, "example": example}
        size = len(json.dumps(data, separators=(",", ":")))
        if size > MOST_DATA:
            raise ValueError(f"{type(self).__name__} would put {size:,} bytes on the page, more than {MOST_DATA:,}: "
                             "show fewer or smaller networks, or fewer input sizes")
        super().__init__(data=data, **example)

    def __repr__(self) -> str:
        """The example it was made for; the same on every run, as committed outputs need."""
        return f"{type(self).__name__}({self.summary})"

    @property
    def summary(self) -> str:
        return ", ".join(f"{name}={value!r}" for name, value in self.data["example"].items())


class WrongValue(ValueError, traitlets.TraitError):
    """A value that a trait does not take. As a `TraitError` it makes traitlets keep the old value of a view's message."""


def check_count(name: str, value: object, least: int, most: int) -> int:
    """`value` if it is an integer from `least` to `most`, else a `ValueError` that names it."""
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise WrongValue(f"{name}={value!r}; it must be an integer from {least} to {most}")
    return value


def check_choice(name: str, value: object, allowed: Sequence[str]) -> str:
    """`value` if it is one of `allowed`, else a `ValueError` that names them."""
    if value not in allowed:
        raise WrongValue(f"{name}={value!r}; choose one of {', '.join(map(repr, allowed))}")
    return value


def named_model(model: str | nn.Module) -> tuple[str, nn.Module, tuple[int, int, int] | None]:
    """Name, network and designed input size of a registered name or of any module (which has no designed size)."""
    if isinstance(model, str):
        variant = find_variant(model)
        return model, create_on_meta(model), variant.input_size
    if not isinstance(model, nn.Module):
        raise ValueError(f"expected the name of a network or an nn.Module, not {model!r}")
    return type(model).__name__, model, None


def create_on_meta(name: str) -> nn.Module:
    import torch

    with torch.device("meta"):
        return create_model(name)


def check_input_size(size: object) -> tuple[int, int, int]:
    """`size` as a tuple (channels, height, width) of positive integers, else a `ValueError` that names it."""
    good = isinstance(size, Sequence) and not isinstance(size, str) and len(size) == 3
    if not good or not all(isinstance(length, int) and length > 0 for length in size):
        raise ValueError(f"input size {size!r}; it must be three positive integers (channels, height, width)")
    return tuple(size)
