"""MobileNetV4: one block that contains its predecessors, 2024.

A universal inverted bottleneck is an inverted residual with two places for a depthwise convolution, before the
expansion and between expansion and projection. Both empty, it is the feed-forward layer of a transformer; the second
filled, MobileNetV2's block; the first, ConvNeXt's; both, a new one with a larger field ("extra depthwise"). A search
fills the places. Its measure is time on many kinds of hardware at once, which is why squeeze-and-excitation and hard
swish are gone and the early stages are dense.

- Qin and others. MobileNetV4: Universal Models for the Mobile Ecosystem. ECCV 2024, arXiv:2404.10518.

**Differs from the paper:**

- Symmetric padding where TensorFlow pads below and to the right.
- The hybrids with attention are not here.
- `mobilenet_v4_conv_small_cifar`: stem and first stage keep the resolution, for 32x32 images.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn

from cnnlib.layers import ConvNormAct, DropPath, initialize_per_group
from cnnlib.registry import Variant, register


class UniversalBottleneck(nn.Module):
    """Depthwise (no activation), 1x1 up, depthwise, 1x1 down (no activation), and the input where shapes agree.

    (N, in_channels, H, W) -> (N, out_channels, H/stride, W/stride). `start` and `middle` are the sizes of the two
    depthwise kernels; 0 leaves one out. The stride is taken by the middle one, or without it by the first. Raises
    `ValueError` if neither is there to take a stride.
    """

    def __init__(self, in_channels: int, out_channels: int, start: int, middle: int, stride: int = 1, *,
                 expansion: float = 4, drop_path: float = 0.0):
        super().__init__()
        if stride > 1 and not (start or middle):
            raise ValueError(f"stride={stride} needs a depthwise convolution: give start or middle")
        width = int(in_channels * expansion)
        self.has_shortcut = stride == 1 and in_channels == out_channels
        self.start = ConvNormAct(
            in_channels, in_channels, start, 1 if middle else stride, groups=in_channels, activation=None
        ) if start else nn.Identity()
        self.expand = ConvNormAct(in_channels, width, 1)
        self.middle = ConvNormAct(width, width, middle, stride, groups=width) if middle else nn.Identity()
        self.project = ConvNormAct(width, out_channels, 1, activation=None)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.project(self.middle(self.expand(self.start(x))))
        return x + self.drop_path(out) if self.has_shortcut else out


class FusedBottleneck(nn.Sequential):
    """A dense kxk convolution up and a 1x1 down, without shortcut: for early stages, where channels are few."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int, *, expansion: int):
        super().__init__()
        self.expand = ConvNormAct(in_channels, expansion * in_channels, kernel_size, stride)
        self.project = ConvNormAct(expansion * in_channels, out_channels, 1, activation=None)


class Conv(NamedTuple):
    """A row of the paper's tables: a convolution with norm and ReLU."""

    kernel_size: int
    out_channels: int
    stride: int = 1


class Fused(NamedTuple):
    kernel_size: int
    out_channels: int
    stride: int
    expansion: int


class UIB(NamedTuple):
    start: int  # DW K_1
    middle: int  # DW K_2
    out_channels: int
    expansion: float
    stride: int = 1


# Tables 11 to 13 of the paper, and the last convolution before the pooling

SMALL = (
    (Conv(3, 32, 2), Conv(1, 32)),
    (Conv(3, 96, 2), Conv(1, 64)),
    (UIB(5, 5, 96, 3, 2), *4 * (UIB(0, 3, 96, 2),), UIB(3, 0, 96, 4)),
    (UIB(3, 3, 128, 6, 2), UIB(5, 5, 128, 4), UIB(0, 5, 128, 4), UIB(0, 5, 128, 3), *2 * (UIB(0, 3, 128, 4),)),
    (Conv(1, 960),),
)
MEDIUM = (
    (Fused(3, 48, 2, 4),),
    (UIB(3, 5, 80, 4, 2), UIB(3, 3, 80, 2)),
    (UIB(3, 5, 160, 6, 2), UIB(3, 3, 160, 4), UIB(3, 3, 160, 4), UIB(3, 5, 160, 4), UIB(3, 3, 160, 4),
     UIB(3, 0, 160, 4), UIB(0, 0, 160, 2), UIB(3, 0, 160, 4)),
    (UIB(5, 5, 256, 6, 2), UIB(5, 5, 256, 4), UIB(3, 5, 256, 4), UIB(3, 5, 256, 4), UIB(0, 0, 256, 4),
     UIB(3, 0, 256, 4), UIB(3, 5, 256, 2), UIB(5, 5, 256, 4), UIB(0, 0, 256, 4), UIB(0, 0, 256, 4), UIB(5, 0, 256, 2)),
    (Conv(1, 960),),
)
LARGE = (
    (Fused(3, 48, 2, 4),),
    (UIB(3, 5, 96, 4, 2), UIB(3, 3, 96, 4)),
    (UIB(3, 5, 192, 4, 2), *3 * (UIB(3, 3, 192, 4),), UIB(3, 5, 192, 4), *5 * (UIB(5, 3, 192, 4),), UIB(3, 0, 192, 4)),
    (UIB(5, 5, 512, 4, 2), *3 * (UIB(5, 5, 512, 4),), UIB(5, 0, 512, 4), UIB(5, 3, 512, 4), *2 * (UIB(5, 0, 512, 4),),
     UIB(5, 3, 512, 4), UIB(5, 5, 512, 4), *3 * (UIB(5, 0, 512, 4),)),
    (Conv(1, 960),),
)


class MobileNetV4(nn.Module):
    """(N, in_channels, H, W) -> (N, num_classes) logits.

    `stages` are rows of the paper's tables: `Conv`, `Fused` or `UIB`. `drop_path_rate` grows linearly over all rows,
    from 0. The 1280 hidden units come after the pooling, where they cost next to nothing.
    """

    def __init__(
        self,
        *,
        in_channels: int = 3,
        num_classes: int = 1000,
        stages: Sequence[Sequence[Conv | Fused | UIB]] = SMALL,
        stem_width: int = 32,
        stem_stride: int = 2,
        dropout: float = 0.2,
        drop_path_rate: float = 0.0,
    ):
        super().__init__()
        depth = sum(map(len, stages))
        rates = iter([drop_path_rate * index / depth for index in range(depth)])
        self.stem = ConvNormAct(in_channels, stem_width, 3, stem_stride)
        self.stages, width = nn.Sequential(), stem_width
        for rows in stages:
            stage = nn.Sequential()
            for row, rate in zip(rows, rates):
                if isinstance(row, Conv):
                    stage.append(ConvNormAct(width, row.out_channels, row.kernel_size, row.stride))
                elif isinstance(row, Fused):
                    stage.append(FusedBottleneck(width, row.out_channels, row.kernel_size, row.stride,
                                                 expansion=row.expansion))
                else:
                    stage.append(UniversalBottleneck(width, row.out_channels, row.start, row.middle, row.stride,
                                                     expansion=row.expansion, drop_path=rate))
                width = row.out_channels
            self.stages.append(stage)
        self.head = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            ConvNormAct(width, 1280, 1),
            nn.Flatten(),
            nn.Dropout(dropout),
            nn.Linear(1280, num_classes),
        )
        initialize_per_group(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.stages(self.stem(x)))


def _without_stride(stages: Sequence, number: int) -> tuple:
    """The stages, with the stride of the first row of stage `number` taken away."""
    first, *others = stages[number]
    return (*stages[:number], (first._replace(stride=1), *others), *stages[number + 1:])


VARIANTS = (
    Variant("mobilenet_v4_conv_small", "Conv-S, at 224x224", twin="timm.mobilenetv4_conv_small"),
    Variant("mobilenet_v4_conv_medium", "Conv-M, at 256x256", {"stages": MEDIUM, "drop_path_rate": 0.075},
            (3, 256, 256), "timm.mobilenetv4_conv_medium"),
    Variant("mobilenet_v4_conv_large", "Conv-L, at 384x384",
            {"stages": LARGE, "stem_width": 24, "drop_path_rate": 0.35}, (3, 384, 384), "timm.mobilenetv4_conv_large"),
    Variant("mobilenet_v4_conv_small_cifar", "small-image form: Conv-S, for 32x32 images",
            {"stages": _without_stride(SMALL, 0), "stem_stride": 1, "num_classes": 10}, (3, 32, 32)),
)

register(MobileNetV4, VARIANTS, cite="qin2024mobilenetv4", year=2024)
