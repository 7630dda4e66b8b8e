"""Convolution arithmetic: how input size, kernel, stride, padding and dilation make the output, its size and its values."""

import base64
from collections.abc import Sequence

import traitlets

from cnnlib.data import book_file

from .base import Explorer, WrongValue, check_choice, check_count, module, style

LIMITS = {
    "input_size": (1, 256),
    "kernel_size": (1, 32),
    "stride": (1, 16),
    "padding": (0, 16),
    "dilation": (1, 8),
}
MODES = ("sizes", "convolution", "transposed", "max", "average")
SIDE = 32  # pixels of the photograph that the page holds, along each side


class ConvolutionArithmetic(Explorer):
    """A window slides over a grid; the formula for the output's size stands beside it with its numbers put in.

        ConvolutionArithmetic(7, 3, stride=2, padding=1)
        ConvolutionArithmetic(10, 3, mode="convolution")    # pixels times weights, over three channels

    The grid is square, and one axis stands for both. `mode` is "sizes", or shows values of a small photograph: "convolution" and
    "transposed" (to one output channel, by `weights`: 3 x kernel_size x kernel_size numbers, or none for a filter that finds
    vertical edges), "max" and "average" (pooling). `row` and `column` choose the output unit whose window is drawn.
    Raises `ValueError` for a number outside `LIMITS`; a setting that gives no output is allowed, and explained.
    """

    _esm = module("convolution")
    _css = style("values")
    input_size = traitlets.Any().tag(sync=True)
    kernel_size = traitlets.Any().tag(sync=True)
    stride = traitlets.Any().tag(sync=True)
    padding = traitlets.Any().tag(sync=True)
    dilation = traitlets.Any().tag(sync=True)
    unit = traitlets.List().tag(sync=True)
    mode = traitlets.Unicode().tag(sync=True)
    weights = traitlets.List().tag(sync=True)

    def __init__(self, input_size: int = 7, kernel_size: int = 3, stride: int = 1, *, padding: int = 0, dilation: int = 1,
                 row: int = 0, column: int = 0, mode: str = "sizes", weights: Sequence[float] = ()):
        check_choice("mode", mode, MODES)
        if weights and len(weights) != 3 * kernel_size**2:
            raise ValueError(f"weights holds {len(weights)} numbers; three channels and a kernel of {kernel_size} need {3 * kernel_size**2}")
        super().__init__({"limits": LIMITS, "pixels": small_photograph()}, input_size=input_size, kernel_size=kernel_size, stride=stride,
                         padding=padding, dilation=dilation, unit=[row, column], mode=mode, weights=[float(weight) for weight in weights])

    @property
    def summary(self) -> str:
        example = self.data["example"]
        if example["mode"] == "sizes":
            return ", ".join(f"{name}={example[name]}" for name in LIMITS) + ", row={}, column={}".format(*example["unit"])
        return "{mode}, input_size={input_size}, kernel_size={kernel_size}, stride={stride}, padding={padding}".format_map(example)

    @traitlets.validate(*LIMITS)
    def _check_setting(self, proposal):
        return check_count(proposal.trait.name, proposal.value, *LIMITS[proposal.trait.name])

    @traitlets.validate("unit")
    def _check_unit(self, proposal):
        if len(proposal.value) != 2:
            raise WrongValue(f"unit={proposal.value!r}; it must be [row, column]")
        return [check_count(name, value, 0, 4096) for name, value in zip(("row", "column"), proposal.value)]

    @traitlets.validate("mode")
    def _check_mode(self, proposal):
        return check_choice("mode", proposal.value, MODES)


def small_photograph() -> str:
    """The photograph as SIDE x SIDE x 3 bytes in base64; "" where the book's pictures are not at hand."""
    from PIL import Image

    try:
        photograph = Image.open(book_file("images/chelsea.jpg"))
    except FileNotFoundError:
        return ""
    face = photograph.convert("RGB").crop((48, 8, 208, 168)).resize((SIDE, SIDE), Image.Resampling.BOX)
    return base64.b64encode(face.tobytes()).decode("ascii")
