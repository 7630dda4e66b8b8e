"""EfficientNet: one searched network, and one rule that scales its depth, width and resolution together.

B0 was found by architecture search. Compound scaling makes the larger ones from it: `compound_scaling` is the rule,
the rows B1 to B7 are what was released. Version 2 searched again for training speed: its early stages merge the 1x1
expansion and the depthwise convolution into one dense 3x3 (`FusedMBConv`), which hardware runs faster.

- Tan, Le. EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks. ICML 2019.
- Tan, Le. EfficientNetV2: Smaller Models and Faster Training. ICML 2021.

**Differs from the paper:**

- `efficientnet_b0` to `efficientnet_b7`: symmetric padding instead of TensorFlow's; batch norm has PyTorch's constants
  in B0 to B4, epsilon 1e-3 and momentum 0.01 in B5 to B7.
- `efficientnet_v2_*`: symmetric padding; the layers of the released networks where the paper's table shows others (S
  has 24 channels at the start and ends in 1280; squeeze and excitation reduces a block's input by 4).
- `efficientnet_b0_cifar`: the stem and the sixth stage keep the resolution, so that 32x32 images end as 4x4 maps.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import nn

from cnnlib.layers import ConvNormAct, DropPath, SqueezeExcitation, linear_rates, make_divisible
from cnnlib.registry import Variant, register


class MBConv(nn.Module):
    """x + F(x), F wide inside: expand by 1x1, filter each channel alone, squeeze and excite, project linearly.

    (N, in_channels, H, W) -> (N, out_channels, H/stride, W/stride), rounded up. Where the shape changes, F(x) alone.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        stride: int = 1,
        *,
        expansion: int = 6,
        drop_path: float = 0.0,
        norm: Callable[[int], nn.Module] = nn.BatchNorm2d,
    ):
        super().__init__()
        conv = partial(ConvNormAct, norm=norm, activation=nn.SiLU)
        width = in_channels * expansion
        self.has_shortcut = stride == 1 and in_channels == out_channels
        self.expand = nn.Identity() if expansion == 1 else conv(in_channels, width, 1)
        self.depthwise = conv(width, width, kernel_size, stride, groups=width)
        self.excite = SqueezeExcitation(width, in_channels // 4, activation=nn.SiLU)  # a quarter of the block's input
        self.project = conv(width, out_channels, 1, activation=None)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.depthwise(self.expand(x))
        out = self.project(self.excite(out))
        return x + self.drop_path(out) if self.has_shortcut else out


class FusedMBConv(nn.Module):
    """x + F(x), where expansion and filter are one dense convolution, and the projection follows; shapes as `MBConv`.

    With `expansion=1` there is no projection: F is the one convolution with its activation.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        stride: int = 1,
        *,
        expansion: int = 4,
        drop_path: float = 0.0,
        norm: Callable[[int], nn.Module] = nn.BatchNorm2d,
    ):
        super().__init__()
        conv = partial(ConvNormAct, norm=norm, activation=nn.SiLU)
        width = out_channels if expansion == 1 else in_channels * expansion
        self.has_shortcut = stride == 1 and in_channels == out_channels
        self.expand = conv(in_channels, width, kernel_size, stride)
        self.project = nn.Identity() if expansion == 1 else conv(width, out_channels, 1, activation=None)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.project(self.expand(x))
        return x + self.drop_path(out) if self.has_shortcut else out


class Stage(NamedTuple):
    """One row of the papers' tables: `depth` blocks, of which the first has the stride."""

    block: type[nn.Module]
    expansion: int
    kernel_size: int
    stride: int
    width: int
    depth: int


B0 = (  # Table 1 of the 2019 paper, rows 2 to 8
    Stage(MBConv, 1, 3, 1, 16, 1),
    Stage(MBConv, 6, 3, 2, 24, 2),
    Stage(MBConv, 6, 5, 2, 40, 2),
    Stage(MBConv, 6, 3, 2, 80, 3),
    Stage(MBConv, 6, 5, 1, 112, 3),
    Stage(MBConv, 6, 5, 2, 192, 4),
    Stage(MBConv, 6, 3, 1, 320, 1),
)


class EfficientNet(nn.Module):
    """(N, in_channels, H, W) -> (N, num_classes) logits.

    `stages` are those before scaling; `width_mult` multiplies their widths, rounded to multiples of 8, and
    `depth_mult` their number of blocks, rounded up. `drop_path_rate` grows linearly over the blocks, from 0.
    `norm_eps` and `norm_momentum` are batch norm's constants. Raises `ValueError` for a rate outside [0, 1).
    """

    def __init__(
        self,
        *,
        in_channels: int = 3,
        num_classes: int = 1000,
        stages: Sequence[Stage] = B0,
        width_mult: float = 1.0,
        depth_mult: float = 1.0,
        stem_width: int = 32,
        stem_stride: int = 2,
        dropout: float = 0.2,
        drop_path_rate: float = 0.2,
        norm_eps: float = 1e-5,
        norm_momentum: float = 0.1,
    ):
        super().__init__()
        norm = partial(nn.BatchNorm2d, eps=norm_eps, momentum=norm_momentum)
        depths = [math.ceil(row.depth * depth_mult) for row in stages]
        rates = iter(linear_rates(drop_path_rate, depths, reached=False))

        width = make_divisible(stem_width * width_mult)
        self.stem = ConvNormAct(in_channels, width, 3, stem_stride, norm=norm, activation=nn.SiLU)
        self.stages = nn.Sequential()
        for row, depth in zip(stages, depths):
            stage = nn.Sequential()
            for stride in [row.stride] + (depth - 1) * [1]:
                out_channels = make_divisible(row.width * width_mult)
                stage.append(row.block(width, out_channels, row.kernel_size, stride, expansion=row.expansion,
                                       drop_path=next(rates), norm=norm))
                width = out_channels
            self.stages.append(stage)
        last_width = make_divisible(1280 * width_mult)
        self.head = nn.Sequential(
            ConvNormAct(width, last_width, 1, norm=norm, activation=nn.SiLU),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Dropout(dropout),
            nn.Linear(last_width, num_classes),
        )
        initialize(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.stages(self.stem(x)))


def initialize(model: nn.Module) -> None:
    """Convolutions from N(0, 2/fan_out), the classifier uniform within 1/sqrt(classes), biases 0.

    As the reference implementation does; fan_out counts a depthwise filter as if it fed all channels.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out")
        elif isinstance(module, nn.Linear):
            bound = 1 / math.sqrt(module.out_features)
            nn.init.uniform_(module.weight, -bound, bound)
        if isinstance(module, (nn.Conv2d, nn.Linear)) and module.bias is not None:
            nn.init.zeros_(module.bias)


def compound_scaling(phi: float, *, alpha: float = 1.2, beta: float = 1.1, gamma: float = 1.15,
                     resolution: int = 224) -> tuple[float, float, float]:
    """(depth_mult, width_mult, resolution) at compound coefficient `phi`: alpha^phi, beta^phi, 224 gamma^phi.

    Equation 3 of the 2019 paper. Multiply-adds grow with depth, width^2 and resolution^2, and alpha beta^2 gamma^2 is
    about 2: each unit of `phi` about doubles them. The released B1 to B7 round freely, so their rows list them.
    """
    return alpha**phi, beta**phi, resolution * gamma**phi


V2_S = (  # Table 4 of the 2021 paper, with the stem and the head of the released networks
    Stage(FusedMBConv, 1, 3, 1, 24, 2),
    Stage(FusedMBConv, 4, 3, 2, 48, 4),
    Stage(FusedMBConv, 4, 3, 2, 64, 4),
    Stage(MBConv, 4, 3, 2, 128, 6),
    Stage(MBConv, 6, 3, 1, 160, 9),
    Stage(MBConv, 6, 3, 2, 256, 15),
)
V2_M = (
    Stage(FusedMBConv, 1, 3, 1, 24, 3),
    Stage(FusedMBConv, 4, 3, 2, 48, 5),
    Stage(FusedMBConv, 4, 3, 2, 80, 5),
    Stage(MBConv, 4, 3, 2, 160, 7),
    Stage(MBConv, 6, 3, 1, 176, 14),
    Stage(MBConv, 6, 3, 2, 304, 18),
    Stage(MBConv, 6, 3, 1, 512, 5),
)
V2_L = (
    Stage(FusedMBConv, 1, 3, 1, 32, 4),
    Stage(FusedMBConv, 4, 3, 2, 64, 7),
    Stage(FusedMBConv, 4, 3, 2, 96, 7),
    Stage(MBConv, 4, 3, 2, 192, 10),
    Stage(MBConv, 6, 3, 1, 224, 19),
    Stage(MBConv, 6, 3, 2, 384, 25),
    Stage(MBConv, 6, 3, 1, 640, 7),
)
CIFAR = (B0[0], B0[1], B0[2], B0[3], B0[4], B0[5]._replace(stride=1), B0[6])

TENSORFLOW_NORM = {"norm_eps": 1e-3, "norm_momentum": 0.01}


def _scaled(number: int, width_mult: float, depth_mult: float, resolution: int, dropout: float, **more) -> Variant:
    return Variant(
        f"efficientnet_b{number}",
        f"B0 with {width_mult:g} times the width and {depth_mult:g} times the depth, at {resolution}x{resolution}",
        {"width_mult": width_mult, "depth_mult": depth_mult, "dropout": dropout, **more},
        input_size=(3, resolution, resolution),
        twin=f"torchvision.efficientnet_b{number}",
    )


def _version_2(size: str, stages: Sequence[Stage], stem_width: int, resolution: int, dropout: float) -> Variant:
    return Variant(
        f"efficientnet_v2_{size}",
        f"version 2, size {size.upper()}, evaluated at {resolution}x{resolution}",
        {"stages": stages, "stem_width": stem_width, "dropout": dropout, "norm_eps": 1e-3},
        input_size=(3, resolution, resolution),
        twin=f"torchvision.efficientnet_v2_{size}",
        cite="tan2021efficientnetv2",
        year=2021,
    )


VARIANTS = (
    Variant("efficientnet_b0", "the searched network", twin="torchvision.efficientnet_b0"),
    _scaled(1, 1.0, 1.1, 240, 0.2),
    _scaled(2, 1.1, 1.2, 260, 0.3),
    _scaled(3, 1.2, 1.4, 300, 0.3),
    _scaled(4, 1.4, 1.8, 380, 0.4),
    _scaled(5, 1.6, 2.2, 456, 0.4, **TENSORFLOW_NORM),
    _scaled(6, 1.8, 2.6, 528, 0.5, **TENSORFLOW_NORM),
    _scaled(7, 2.0, 3.1, 600, 0.5, **TENSORFLOW_NORM),
    _version_2("s", V2_S, 24, 384, 0.2),
    _version_2("m", V2_M, 24, 480, 0.3),
    _version_2("l", V2_L, 32, 480, 0.4),
    Variant(
        "efficientnet_b0_cifar",
        "small-image form: B0 for 32x32 images",
        {"stages": CIFAR, "stem_stride": 1, "num_classes": 10},
        input_size=(3, 32, 32),
    ),
)

register(EfficientNet, VARIANTS, cite="tan2019efficientnet", year=2019)
