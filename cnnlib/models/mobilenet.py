"""MobileNet, versions 1 to 3: depthwise separable convolutions, and what can be built of them.

A convolution filters and mixes channels at once, D_K^2 M N weights. Version 1 does one after the other: a depthwise
convolution filters each channel by itself, a 1x1 convolution mixes them, D_K^2 M + M N weights, 1/N + 1/D_K^2 as much
work. Version 2 puts the filter into the wide middle of a block and the shortcut between its narrow ends, which
have no activation, since ReLU destroys what little they hold (inverted residual, linear bottleneck). Version 3 adds
squeeze-and-excitation and hard swish, and takes kernels, widths and their places from a search. A width multiplier
makes every layer of a network thinner.

- Howard et al. MobileNets: Efficient Convolutional Neural Networks for Mobile Vision Applications. arXiv:1704.04861,
  2017.
- Sandler, Howard, Zhu, Zhmoginov, Chen. MobileNetV2: Inverted Residuals and Linear Bottlenecks. CVPR 2018.
- Howard et al. Searching for MobileNetV3. ICCV 2019.

**Differs from the papers:**

- Version 1: ReLU6 instead of ReLU, as in the authors' released networks. The last depthwise convolution has stride 1;
  the 2 of the paper's Table 1 contradicts its own sizes.
- Version 2: padding is symmetric, where TensorFlow pads below and to the right.
- Version 3: the same. The squeeze of a block of e channels has e/4, rounded to a multiple of 8.
- `mobilenet_v1_cifar`, `mobilenet_v2_cifar`, `mobilenet_v3_small_cifar`: the first two halvings are left out, so that
  a 32x32 image meets the layers as a 128x128 image would; the first two have half the width.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import nn

from cnnlib.layers import ConvNormAct, SqueezeExcitation, make_divisible, pooled_classifier
from cnnlib.registry import Variant, register


class DepthwiseSeparable(nn.Module):
    """Filter each channel, then mix the channels: (N, in_channels, H, W) -> (N, out_channels, H', W')."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 3, stride: int = 1):
        super().__init__()
        self.depthwise = ConvNormAct(
            in_channels, in_channels, kernel_size, stride, groups=in_channels, activation=nn.ReLU6
        )
        self.pointwise = ConvNormAct(in_channels, out_channels, 1, activation=nn.ReLU6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.pointwise(self.depthwise(x))


class InvertedResidual(nn.Module):
    """x + F(x), F widening, filtering each channel, and narrowing without activation.

    (N, in_channels, H, W) -> (N, out_channels, H', W'); where stride or channels change the shape, F(x)
    alone. `expanded_channels` is the width in the middle; equal to `in_channels`, nothing is widened.
    `squeeze_channels` puts squeeze-and-excitation before the narrowing.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        stride: int = 1,
        *,
        expanded_channels: int,
        squeeze_channels: int | None = None,
        norm: Callable[[int], nn.Module] = nn.BatchNorm2d,
        activation: Callable[[], nn.Module] = nn.ReLU6,
    ):
        super().__init__()
        conv = partial(ConvNormAct, norm=norm, activation=activation)
        width = expanded_channels
        self.has_shortcut = stride == 1 and in_channels == out_channels
        self.expand = nn.Identity() if width == in_channels else conv(in_channels, width, 1)
        self.depthwise = conv(width, width, kernel_size, stride, groups=width)
        self.excite = None
        if squeeze_channels is not None:
            self.excite = SqueezeExcitation(width, squeeze_channels, gate=nn.Hardsigmoid)
        self.project = conv(width, out_channels, 1, activation=None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.depthwise(self.expand(x))
        if self.excite is not None:
            out = self.excite(out)
        out = self.project(out)
        return x + out if self.has_shortcut else out


V1_STAGES = ((64, 1), (128, 2), (256, 2), (512, 6), (1024, 2))  # width, depth


class MobileNetV1(nn.Module):
    """(N, in_channels, H, W) -> (N, num_classes) logits.

    `strides` are those of the first convolution and of the first block of each stage. `width_mult` multiplies all
    widths, rounded to multiples of 8. Raises `ValueError` for a multiplier that is not positive.
    """

    def __init__(
        self,
        *,
        in_channels: int = 3,
        num_classes: int = 1000,
        width_mult: float = 1.0,  # alpha
        strides: Sequence[int] = (2, 1, 2, 2, 2, 2),
    ):
        super().__init__()
        check_width_mult(width_mult)
        width = make_divisible(32 * width_mult)
        # 112x112 for 224x224 images
        self.stem = ConvNormAct(in_channels, width, 3, strides[0], activation=nn.ReLU6)
        # 112x112, 56x56, 28x28, 14x14, 7x7
        self.stages = nn.Sequential()
        for (full_width, depth), first_stride in zip(V1_STAGES, strides[1:], strict=True):
            out_channels = make_divisible(full_width * width_mult)
            stage = nn.Sequential()
            for stride in [first_stride] + (depth - 1) * [1]:
                stage.append(DepthwiseSeparable(width, out_channels, 3, stride))
                width = out_channels
            self.stages.append(stage)
        self.head = pooled_classifier(width, num_classes)
        initialize(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.stages(self.stem(x)))


class Stage(NamedTuple):
    """A row of Table 2 of the second paper: blocks that differ in nothing but the stride of the first."""

    expansion: int  # t
    width: int  # c
    depth: int  # n
    stride: int  # s


V2_STAGES = (
    Stage(1, 16, 1, 1),
    Stage(6, 24, 2, 2),
    Stage(6, 32, 3, 2),
    Stage(6, 64, 4, 2),
    Stage(6, 96, 3, 1),
    Stage(6, 160, 3, 2),
    Stage(6, 320, 1, 1),
)


class MobileNetV2(nn.Module):
    """(N, in_channels, H, W) -> (N, num_classes) logits.

    `width_mult` multiplies all widths, rounded to multiples of 8; the 1280 channels before the classifier only grow.
    `stem_stride` is the stride of the first convolution. Raises `ValueError` for a multiplier that is not positive.
    """

    def __init__(
        self,
        *,
        in_channels: int = 3,
        num_classes: int = 1000,
        width_mult: float = 1.0,
        stem_stride: int = 2,
        stages: Sequence[Stage] = V2_STAGES,
        dropout: float = 0.2,
    ):
        super().__init__()
        check_width_mult(width_mult)
        width = make_divisible(32 * width_mult)
        # 112x112 for 224x224 images
        self.stem = ConvNormAct(in_channels, width, 3, stem_stride, activation=nn.ReLU6)
        # 112x112, 56x56, 28x28, 14x14, 14x14, 7x7, 7x7
        self.stages = nn.Sequential()
        for row in stages:
            out_channels = make_divisible(row.width * width_mult)
            stage = nn.Sequential()
            for stride in [row.stride] + (row.depth - 1) * [1]:
                stage.append(InvertedResidual(
                    width, out_channels, 3, stride, expanded_channels=row.expansion * width
                ))
                width = out_channels
            self.stages.append(stage)
        last_width = make_divisible(1280 * max(1.0, width_mult))
        self.head = nn.Sequential(
            ConvNormAct(width, last_width, 1, activation=nn.ReLU6),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Dropout(dropout),
            nn.Linear(last_width, num_classes),
        )
        initialize(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.stages(self.stem(x)))


class Block(NamedTuple):
    """A row of Tables 1 and 2 of the third paper."""

    kernel_size: int
    expanded_channels: int  # exp size
    out_channels: int  # #out
    excite: bool  # SE
    activation: type[nn.Module]  # NL
    stride: int  # s


RE, HS = nn.ReLU, nn.Hardswish

V3_LARGE = (
    (Block(3, 16, 16, False, RE, 1),),
    (Block(3, 64, 24, False, RE, 2), Block(3, 72, 24, False, RE, 1)),
    (Block(5, 72, 40, True, RE, 2), Block(5, 120, 40, True, RE, 1), Block(5, 120, 40, True, RE, 1)),
    (
        Block(3, 240, 80, False, HS, 2),
        Block(3, 200, 80, False, HS, 1),
        Block(3, 184, 80, False, HS, 1),
        Block(3, 184, 80, False, HS, 1),
        Block(3, 480, 112, True, HS, 1),
        Block(3, 672, 112, True, HS, 1),
    ),
    (Block(5, 672, 160, True, HS, 2), Block(5, 960, 160, True, HS, 1), Block(5, 960, 160, True, HS, 1)),
)

V3_SMALL = (
    (Block(3, 16, 16, True, RE, 2),),
    (Block(3, 72, 24, False, RE, 2), Block(3, 88, 24, False, RE, 1)),
    (
        Block(5, 96, 40, True, HS, 2),
        Block(5, 240, 40, True, HS, 1),
        Block(5, 240, 40, True, HS, 1),
        Block(5, 120, 48, True, HS, 1),
        Block(5, 144, 48, True, HS, 1),
    ),
    (Block(5, 288, 96, True, HS, 2), Block(5, 576, 96, True, HS, 1), Block(5, 576, 96, True, HS, 1)),
)


class MobileNetV3(nn.Module):
    """(N, in_channels, H, W) -> (N, num_classes) logits.

    The last convolution widens sixfold; `hidden` units follow the pooling, where they cost next to nothing.
    `width_mult` and `stem_stride` as in version 2, except that `hidden` shrinks too.
    """

    def __init__(
        self,
        *,
        in_channels: int = 3,
        num_classes: int = 1000,
        stages: Sequence[Sequence[Block]] = V3_LARGE,
        hidden: int = 1280,
        width_mult: float = 1.0,
        stem_stride: int = 2,
        dropout: float = 0.2,
    ):
        super().__init__()
        check_width_mult(width_mult)
        norm = partial(nn.BatchNorm2d, eps=1e-3, momentum=0.01)
        width = make_divisible(16 * width_mult)
        # 112x112 for 224x224 images
        self.stem = ConvNormAct(in_channels, width, 3, stem_stride, norm=norm, activation=nn.Hardswish)
        # large: 112x112, 56x56, 28x28, 14x14, 7x7; small: 56x56, 28x28, 14x14, 7x7
        self.stages = nn.Sequential()
        for rows in stages:
            stage = nn.Sequential()
            for row in rows:
                expanded_channels = make_divisible(row.expanded_channels * width_mult)
                out_channels = make_divisible(row.out_channels * width_mult)
                stage.append(InvertedResidual(
                    width, out_channels, row.kernel_size, row.stride,
                    expanded_channels=expanded_channels,
                    squeeze_channels=make_divisible(expanded_channels // 4) if row.excite else None,
                    norm=norm,
                    activation=row.activation,
                ))
                width = out_channels
            self.stages.append(stage)
        hidden = make_divisible(hidden * width_mult)
        self.head = nn.Sequential(
            ConvNormAct(width, 6 * width, 1, norm=norm, activation=nn.Hardswish),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(6 * width, hidden),
            nn.Hardswish(),
            nn.Dropout(dropout),
            nn.Linear(hidden, num_classes),
        )
        initialize(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.stages(self.stem(x)))


def check_width_mult(width_mult: float) -> None:
    if not width_mult > 0:
        raise ValueError(f"width_mult={width_mult!r} must be positive; the papers use 0.25 to 1.4")


def initialize(model: nn.Module) -> None:
    """Convolutions from N(0, 2/fan_out), linear layers from N(0, 0.01^2), biases 0, as torchvision does.

    The papers do not say. For a depthwise convolution PyTorch counts all channels into the fan, so its weights begin
    small; the batch normalization behind it makes that harmless.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out")
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.01)
        if isinstance(module, (nn.Conv2d, nn.Linear)) and module.bias is not None:
            nn.init.zeros_(module.bias)


V1 = {"network": MobileNetV1, "cite": "howard2017mobilenets", "year": 2017}
V2 = {"network": MobileNetV2, "cite": "sandler2018", "year": 2018}
V3 = {"network": MobileNetV3, "cite": "howard2019", "year": 2019}
SMALL = {"stages": V3_SMALL, "hidden": 1024}

VARIANTS = (
    Variant("mobilenet_v1", "version 1: depthwise separable convolutions", twin="timm.mobilenetv1_100", **V1),
    Variant("mobilenet_v1_075", "version 1 with three quarters of the widths", {"width_mult": 0.75}, **V1),
    Variant("mobilenet_v1_050", "version 1 with half the widths", {"width_mult": 0.5}, **V1),
    Variant("mobilenet_v1_025", "version 1 with a quarter of the widths", {"width_mult": 0.25}, **V1),
    Variant("mobilenet_v2", "version 2: inverted residuals", twin="torchvision.mobilenet_v2", **V2),
    Variant("mobilenet_v2_140", "version 2, wider", {"width_mult": 1.4}, twin="timm.mobilenetv2_140", **V2),
    Variant("mobilenet_v2_075", "version 2, thinner", {"width_mult": 0.75}, twin="timm.mobilenetv2_075", **V2),
    Variant("mobilenet_v2_050", "version 2, thinner", {"width_mult": 0.5}, twin="timm.mobilenetv2_050", **V2),
    Variant("mobilenet_v2_035", "version 2, thinnest", {"width_mult": 0.35}, twin="timm.mobilenetv2_035", **V2),
    Variant(
        "mobilenet_v3_large",
        "version 3: searched, with squeeze-and-excitation and hard swish",
        twin="torchvision.mobilenet_v3_large",
        **V3,
    ),
    Variant("mobilenet_v3_small", "version 3 for small budgets", SMALL, twin="torchvision.mobilenet_v3_small", **V3),
    Variant(
        "mobilenet_v1_cifar",
        "small-image form: version 1 at half the widths, for 32x32 images",
        {"num_classes": 10, "width_mult": 0.5, "strides": (1, 1, 1, 2, 2, 2)},
        input_size=(3, 32, 32),
        **V1,
    ),
    Variant(
        "mobilenet_v2_cifar",
        "small-image form: version 2 at half the widths, for 32x32 images",
        {"num_classes": 10, "width_mult": 0.5, "stem_stride": 1,
         "stages": (V2_STAGES[0], V2_STAGES[1]._replace(stride=1), *V2_STAGES[2:])},
        input_size=(3, 32, 32),
        **V2,
    ),
    Variant(
        "mobilenet_v3_small_cifar",
        "small-image form: version 3 small, for 32x32 images",
        {**SMALL, "num_classes": 10, "stem_stride": 1,
         "stages": ((V3_SMALL[0][0]._replace(stride=1),), *V3_SMALL[1:])},
        input_size=(3, 32, 32),
        **V3,
    ),
)

register(MobileNetV1, VARIANTS, cite="howard2017mobilenets", year=2017)
