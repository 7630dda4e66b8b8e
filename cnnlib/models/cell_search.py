"""A search space of 125 small networks, one for each cell that can be made of three edges and five operations.

The cell has an input x, a node h and an output y:

    h = first(x),    y = second(x) + third(h)

and each of the three edges carries one of the `OPERATIONS`: (conv3, skip, conv3) is a residual block, (conv3, none,
conv3) a plain one. The network around the cell is always the same. Form and operations are those of NAS-Bench-201 (Dong
and Yang, ICLR 2020), whose cell has one node more, hence six edges and 15,625 members. Ours is small enough that every
member could be trained on one processor core: `tools/experiments/search_space.py` did it.

The members have no names in `list_models()`: this file registers nothing.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise, product

import torch
from torch import nn

from cnnlib.layers import ConvNormAct, initialize_he_fan_out, pooled_classifier

Genotype = tuple[str, str, str]  # the operations of the edges x -> h, x -> y, h -> y


class Zero(nn.Module):
    """No connection: zeros in the shape of the input."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(x)


def conv(channels: int, kernel_size: int) -> nn.Sequential:
    """ReLU, convolution, batch norm."""
    return nn.Sequential(nn.ReLU(), ConvNormAct(channels, channels, kernel_size, activation=None))


OPERATIONS: dict[str, Callable[[int], nn.Module]] = {  # channels -> module that keeps (N, channels, H, W)
    "none": lambda channels: Zero(),
    "skip": lambda channels: nn.Identity(),
    "pool": lambda channels: nn.AvgPool2d(3, 1, padding=1, count_include_pad=False),
    "conv1": lambda channels: conv(channels, 1),
    "conv3": lambda channels: conv(channels, 3),
}


def all_cells() -> list[Genotype]:
    """Every member of the space."""
    return list(product(OPERATIONS, repeat=3))


class SearchCell(nn.Module):
    """y = second(x) + third(first(x)): keeps (N, channels, H, W)."""

    def __init__(self, operations: Sequence[str], channels: int):
        super().__init__()
        if len(operations) != 3 or not set(operations) <= set(OPERATIONS):
            known = ", ".join(map(repr, OPERATIONS))
            raise ValueError(f"operations={tuple(operations)!r}; name three of {known}")
        self.first, self.second, self.third = (OPERATIONS[name](channels) for name in operations)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(x) + self.third(self.first(x))


class CellNetwork(nn.Module):
    """(N, in_channels, H, W) -> (N, num_classes) logits: one cell in each stage, the same everywhere.

    The stem halves height and width, and so does a strided 3x3 convolution before the cell of every later
    stage.
    """

    def __init__(
        self,
        *,
        operations: Sequence[str] = ("conv3", "skip", "conv3"),
        in_channels: int = 3,
        num_classes: int = 10,
        widths: Sequence[int] = (16, 32, 64),
    ):
        super().__init__()
        self.stem = ConvNormAct(in_channels, widths[0], 3, 2, activation=None)
        self.stages = nn.Sequential(nn.Sequential(SearchCell(operations, widths[0])))
        for previous, width in pairwise(widths):
            reduction = nn.Sequential(nn.ReLU(), ConvNormAct(previous, width, 3, 2, activation=None))
            self.stages.append(nn.Sequential(reduction, SearchCell(operations, width)))
        self.head = nn.Sequential(nn.ReLU(), *pooled_classifier(widths[-1], num_classes))
        initialize_he_fan_out(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.stages(self.stem(x)))
