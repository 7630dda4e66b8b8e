"""Convolution arithmetic: how input size, kernel, stride, padding and dilation make the size of the output."""

import traitlets

from .base import Explorer, check_count, module

LIMITS = {
    "input_size": (1, 256),
    "kernel_size": (1, 32),
    "stride": (1, 16),
    "padding": (0, 16),
    "dilation": (1, 8),
}


class ConvolutionArithmetic(Explorer):
    """A window slides over a grid; the formula for the output's size stands beside it with its numbers put in.

    The grid is square, and one axis stands for both. `row` and `column` choose the output unit whose window is drawn.
    Raises `ValueError` for a number outside `LIMITS`; a setting that gives no output is allowed, and explained.
    """

    _esm = module("convolution")
    input_size = traitlets.Any().tag(sync=True)
    kernel_size = traitlets.Any().tag(sync=True)
    stride = traitlets.Any().tag(sync=True)
    padding = traitlets.Any().tag(sync=True)
    dilation = traitlets.Any().tag(sync=True)
    row = traitlets.Any().tag(sync=True)
    column = traitlets.Any().tag(sync=True)

    def __init__(self, input_size: int = 7, kernel_size: int = 3, stride: int = 1, *, padding: int = 0,
                 dilation: int = 1, row: int = 0, column: int = 0):
        super().__init__({"limits": LIMITS}, input_size=input_size, kernel_size=kernel_size, stride=stride,
                         padding=padding, dilation=dilation, row=row, column=column)

    @traitlets.validate(*LIMITS)
    def _check_setting(self, proposal):
        return check_count(proposal.trait.name, proposal.value, *LIMITS[proposal.trait.name])

    @traitlets.validate("row", "column")
    def _check_position(self, proposal):
        return check_count(proposal.trait.name, proposal.value, 0, 512)
