"""NASNet-A: two small cells, found by search on CIFAR-10, stacked into networks of any size.

A controller composed cells from a list of operations, child networks were trained with them, and their accuracy was
the reward. A cell sees the outputs of the last two cells, h_i and h_{i-1}. Each of its five rows applies two
operations to earlier states and adds the results; what no row has used is concatenated, and one state more. `NORMAL`
keeps the resolution, `REDUCTION` halves it. Between cells there is nothing but a 1x1 convolution that fits the
channels.

- Zoph, Vasudevan, Shlens, Le. Learning Transferable Architectures for Scalable Image Recognition. CVPR 2018.

**Differs from the paper:**

- All: without the auxiliary head that the authors train with and drop in evaluation. `drop_path_rate` grows with depth
  but not over the course of training; who trains can do that.
- `nasnet_large`, `nasnet_mobile`: average pooling of stride 2 counts the zeros of its padding, as the common PyTorch
  form.
- `nasnet_cifar`: the network of 6 cells and 768 channels shrunk to 2 cells and 288 channels.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal, NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from cnnlib.layers import ConvNormAct, DropPath, initialize_he_fan_out
from cnnlib.registry import Variant, register

Pair = tuple[torch.Tensor, torch.Tensor]  # a cell's inputs: h_i and h_{i-1}
batch_norm = partial(nn.BatchNorm2d, eps=1e-3)


class SamePad(nn.Module):
    """Pad height and width so that a window gives ceil(size / stride) outputs; an odd pixel goes right and below.

    This is TensorFlow's rule: at stride 2 the padding depends on whether the size is even.
    """

    def __init__(self, kernel_size: int, stride: int, value: float = 0.0):
        super().__init__()
        self.kernel_size, self.stride, self.value = kernel_size, stride, value

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        totals = [max((math.ceil(size / self.stride) - 1) * self.stride + self.kernel_size - size, 0)
                  for size in x.shape[2:]]
        top, left = (total // 2 for total in totals)
        return F.pad(x, (left, totals[1] - left, top, totals[0] - top), value=self.value)

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}"


# Operations: (in_channels, width, stride) -> module from (N, in_channels, H, W) to (N, width, H/stride, W/stride)


class Separable(nn.Sequential):
    """ReLU, depthwise convolution, 1x1 convolution, batch norm; all of it twice, the stride in the first."""

    def __init__(self, in_channels: int, width: int, stride: int, *, kernel_size: int):
        super().__init__()
        for channels, step in ((in_channels, stride), (width, 1)):
            self.append(nn.ReLU())
            if step > 1:
                self.append(SamePad(kernel_size, step))
            padding = kernel_size // 2 if step == 1 else 0
            self.append(nn.Conv2d(channels, channels, kernel_size, step, padding, groups=channels, bias=False))
            self.append(nn.Conv2d(channels, width, 1, bias=False))
            self.append(batch_norm(width))


def average_pool(in_channels: int, width: int, stride: int) -> nn.Sequential:
    """The 3x3 mean; at stride 1 of the pixels that exist."""
    if stride == 1:
        return nn.Sequential(nn.AvgPool2d(3, 1, padding=1, count_include_pad=False), *_project(in_channels, width))
    return nn.Sequential(SamePad(3, stride), nn.AvgPool2d(3, stride), *_project(in_channels, width))


def max_pool(in_channels: int, width: int, stride: int) -> nn.Sequential:
    """The 3x3 maximum."""
    return nn.Sequential(SamePad(3, stride, -math.inf), nn.MaxPool2d(3, stride), *_project(in_channels, width))


def _project(in_channels: int, width: int) -> list[nn.Module]:
    """What a pool needs where the channels differ."""
    return [] if in_channels == width else [ConvNormAct(in_channels, width, 1, norm=batch_norm, activation=None)]


def identity(in_channels: int, width: int, stride: int) -> nn.Sequential:
    """The state itself, or `fit` where channels or resolution have to change."""
    return nn.Sequential() if stride == 1 and in_channels == width else fit(in_channels, width, stride)


def fit(in_channels: int, width: int, stride: int = 1) -> nn.Sequential:
    """ReLU, 1x1 convolution, batch norm: what each input of a cell passes."""
    return nn.Sequential(nn.ReLU(), ConvNormAct(in_channels, width, 1, stride, norm=batch_norm, activation=None))


separable_3x3 = partial(Separable, kernel_size=3)
separable_5x5 = partial(Separable, kernel_size=5)
separable_7x7 = partial(Separable, kernel_size=7)


class Row(NamedTuple):
    """One combination: left(states[left_input]) + right(states[right_input]).

    State 0 is h_i, state 1 is h_{i-1}, state 2 the first row's result, and so on.
    """

    left: Callable[[int, int, int], nn.Module]
    left_input: int
    right: Callable[[int, int, int], nn.Module]
    right_input: int


NORMAL = (  # Figure 4 of the paper, left
    Row(separable_5x5, 0, separable_3x3, 1),
    Row(separable_5x5, 1, separable_3x3, 1),
    Row(average_pool, 0, identity, 1),
    Row(average_pool, 1, average_pool, 1),
    Row(separable_3x3, 0, identity, 0),
)
REDUCTION = (  # Figure 4 of the paper, right
    Row(separable_5x5, 0, separable_7x7, 1),
    Row(max_pool, 0, separable_7x7, 1),
    Row(average_pool, 0, separable_5x5, 1),
    Row(identity, 3, average_pool, 2),
    Row(separable_3x3, 2, max_pool, 0),
)
NORMAL_OUTPUT = (1, 2, 3, 4, 5, 6)  # h_{i-1} too, although rows use it
REDUCTION_OUTPUT = (3, 4, 5, 6)  # the second row's result too


class FactorizedReduction(nn.Module):
    """Halve the resolution without a filter: pixels at even and at odd positions, each through a 1x1 convolution.

    (N, in_channels, H, W) -> (N, width, ceil(H/2), ceil(W/2)); the two halves of the channels see different pixels.
    """

    def __init__(self, in_channels: int, width: int):
        super().__init__()
        self.activation = nn.ReLU()
        self.even = nn.Sequential(nn.AvgPool2d(1, 2), nn.Conv2d(in_channels, width // 2, 1, bias=False))
        self.odd = nn.Sequential(nn.ZeroPad2d((-1, 1, -1, 1)), nn.AvgPool2d(1, 2),
                                 nn.Conv2d(in_channels, width - width // 2, 1, bias=False))
        self.norm = batch_norm(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.activation(x)
        return self.norm(torch.cat([self.even(x), self.odd(x)], 1))


class Cell(nn.Module):
    """One cell: the pair (h_i, h_{i-1}) -> the pair (h_{i+1}, h_i).

    `in_channels` are those of h_i and of h_{i-1}, of which `previous` says how it enters: "fit" by a 1x1 convolution;
    "halve" by factorized reduction, where it has twice the resolution of h_i; "raw", as it is. Every row has `width`
    channels; `stride` applies to operations on the two inputs. With `hand_on_previous` the new pair is
    (h_{i+1}, h_{i-1}): the next cell does not see h_i.
    """

    def __init__(
        self,
        rows: Sequence[Row],
        output: Sequence[int],
        in_channels: tuple[int, int],
        width: int,
        stride: int = 1,
        *,
        previous: Literal["fit", "halve", "raw"] = "fit",
        hand_on_previous: bool = False,
        drop_path: float = 0.0,
    ):
        super().__init__()
        # Declared in the reference implementation's order, in which weights transfer.
        if previous == "fit":
            self.fit_previous = fit(in_channels[1], width)
            self.fit_current = fit(in_channels[0], width)
        else:
            self.fit_current = fit(in_channels[0], width)
            self.fit_previous = FactorizedReduction(in_channels[1], width) if previous == "halve" else nn.Identity()

        channels = [width, in_channels[1] if previous == "raw" else width, *[width] * len(rows)]
        self.inputs = [(row.left_input, row.right_input) for row in rows]
        self.rows = nn.ModuleList()
        for row in rows:
            self.rows.append(nn.ModuleList([
                nn.Sequential(operation(channels[state], width, stride if state < 2 else 1),
                              DropPath(0.0 if operation is identity else drop_path))
                for operation, state in ((row.left, row.left_input), (row.right, row.right_input))
            ]))
        self.output = tuple(output)
        self.out_channels = sum(channels[state] for state in output)
        self.hand_on_previous = hand_on_previous

    def forward(self, pair: Pair) -> Pair:
        x, previous = pair
        states = [self.fit_current(x), self.fit_previous(previous)]
        for (left, right), (left_input, right_input) in zip(self.rows, self.inputs):
            states.append(left(states[left_input]) + right(states[right_input]))
        out = torch.cat([states[state] for state in self.output], 1)
        return out, previous if self.hand_on_previous else x


class Stem(nn.Module):
    """A convolution, and the cells that follow it: (N, in_channels, H, W) -> the first pair."""

    def __init__(self, conv: nn.Module, cells: nn.Sequential):
        super().__init__()
        self.conv = conv
        self.cells = cells

    def forward(self, x: torch.Tensor) -> Pair:
        x = self.conv(x)
        return self.cells((x, x))


class NASNet(nn.Module):
    """(N, in_channels, H, W) -> (N, num_classes) logits.

    Three stages of `depth` normal cells, of `width`, 2 `width` and 4 `width` channels in each row; a reduction cell
    before the second and the third. The paper's name for it is NASNet-A (`depth` @ 24 `width`). `stem` "imagenet"
    halves the resolution three times, by a convolution of `stem_width` channels and two reduction cells; "cifar" is
    the convolution alone, and keeps it. With `skip_reduction_input` the first cell after a reduction sees what came
    two cells before the reduction, as the authors' large network does. `drop_path_rate` grows linearly over the cells.
    """

    def __init__(
        self,
        *,
        in_channels: int = 3,
        num_classes: int = 1000,
        depth: int = 4,  # N
        width: int = 44,
        stem: Literal["imagenet", "cifar"] = "imagenet",
        stem_width: int = 32,
        skip_reduction_input: bool = False,
        dropout: float = 0.5,
        drop_path_rate: float = 0.0,
    ):
        super().__init__()
        if stem not in ("imagenet", "cifar"):
            raise ValueError(f"stem={stem!r}; choose 'imagenet' or 'cifar'")
        normal = partial(Cell, NORMAL, NORMAL_OUTPUT)
        reduction = partial(Cell, REDUCTION, REDUCTION_OUTPUT, stride=2)
        total = 3 * depth + (4 if stem == "imagenet" else 2)
        rates = iter([drop_path_rate * number / total for number in range(1, total + 1)])
        channels = (stem_width, stem_width)  # of the pair

        def add(cells: nn.Sequential, make: Callable[..., Cell], width: int, **options) -> None:
            nonlocal channels
            cell = make(channels, width, drop_path=next(rates), **options)
            cells.append(cell)
            channels = (cell.out_channels, channels[1] if cell.hand_on_previous else channels[0])

        cells = nn.Sequential()
        if stem == "imagenet":
            conv = ConvNormAct(in_channels, stem_width, 3, 2, padding=0, norm=batch_norm, activation=None)
            add(cells, reduction, width // 4, previous="raw")
            add(cells, reduction, width // 2, previous="halve")
        else:
            conv = ConvNormAct(in_channels, stem_width, 3, norm=batch_norm, activation=None)
        self.stem = Stem(conv, cells)
        after_stem = "halve" if stem == "imagenet" else "raw"

        self.stages = nn.Sequential()
        for index in range(3):
            stage = nn.Sequential()
            if index > 0:
                add(stage, reduction, width * 2**index, hand_on_previous=skip_reduction_input)
            for position in range(depth):
                first = "halve" if index > 0 else after_stem
                add(stage, normal, width * 2**index, previous=first if position == 0 else "fit")
            self.stages.append(stage)
        self.head = nn.Sequential(
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Dropout(dropout),
            nn.Linear(channels[0], num_classes),
        )
        initialize_he_fan_out(self)  # as the authors' code

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x, _ = self.stages(self.stem(x))
        return self.head(x)


SMALL_IMAGES = {"stem": "cifar", "stem_width": 96, "dropout": 0.0, "num_classes": 10}

VARIANTS = (
    Variant("nasnet_mobile", "NASNet-A (4 @ 1056), for phones", {"depth": 4, "width": 44}),
    Variant(
        "nasnet_large",
        "NASNet-A (6 @ 4032), the best single network on ImageNet in its year",
        {"depth": 6, "width": 168, "stem_width": 96, "skip_reduction_input": True, "drop_path_rate": 0.3},
        input_size=(3, 331, 331),
        twin="timm.nasnetalarge",
    ),
    Variant(
        "nasnet_6_768",
        "NASNet-A (6 @ 768), the paper's network for CIFAR-10",
        {"depth": 6, "width": 32, **SMALL_IMAGES, "drop_path_rate": 0.4},
        input_size=(3, 32, 32),
    ),
    Variant(
        "nasnet_cifar",
        "small-image form: NASNet-A (2 @ 288)",
        {"depth": 2, "width": 12, **SMALL_IMAGES, "stem_width": 36},
        input_size=(3, 32, 32),
    ),
)

register(NASNet, VARIANTS, cite="zoph2018nasnet", year=2018)
