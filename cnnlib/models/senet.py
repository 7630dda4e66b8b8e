"""Squeeze-and-excitation: each block looks at the whole image once and decides which of its channels matter.

A convolution sees a small window. `SqueezeExcitation` averages each channel over the whole map, puts the averages
through two small fully connected layers, and scales the channels by the result, a number from 0 to 1 each. It goes to
the end of the branch of any residual block, costs almost no operations, and adds 2 C * C / r weights to a block with C
output channels. SENet-154 is the network that won ILSVRC 2017: SE blocks in a wide, deep ResNeXt.

- Hu, Shen, Sun. Squeeze-and-Excitation Networks. CVPR 2018, arXiv:1709.01507.

**Differs from the paper:**

- `seresnet50`, `seresnet101`, `seresnet152`: the stride of a bottleneck sits in its 3x3 convolution, as in `resnet50`;
  the authors' Caffe networks have it in the first 1x1.
- All ImageNet networks: max pooling pads its input by one pixel on each side, where Caffe rounds the size up.
- `seresnet20`, `seresnet56`, `seresnet110`: small-image forms, `resnet20` and so on with one module per block and
  r = 4. The paper's r = 16 would leave the first stage a single hidden unit.
"""

from collections.abc import Sequence
from functools import partial
from typing import Literal

import torch
from torch import nn

from cnnlib.layers import (
    ConvNormAct,
    DropPath,
    SqueezeExcitation,
    initialize_he_fan_out,
    make_shortcut,
    pooled_classifier,
    residual_stages,
    residual_stem,
)
from cnnlib.registry import Variant, register


def squeeze_excitation(channels: int, reduction: int) -> SqueezeExcitation:
    """The module with channels / reduction hidden units. Raises `ValueError` if the division leaves a rest."""
    if reduction < 1 or channels % reduction:
        raise ValueError(f"reduction={reduction} does not divide the {channels} channels of a block")
    return SqueezeExcitation(channels, channels // reduction)


class SEBlock(nn.Module):
    """relu(SE(F(x)) + x): the gate scales the channels of the branch F before the addition.

    `drop_path` is the probability of dropping the branch of an image in training; `out_channels` tells the next block
    what to expect.
    """

    def __init__(
        self, branch: nn.Module, excite: SqueezeExcitation, shortcut: nn.Module, out_channels: int, *, drop_path: float
    ):
        super().__init__()
        self.out_channels = out_channels
        self.branch = branch
        self.excite = excite
        self.shortcut = shortcut
        self.drop_path = DropPath(drop_path)
        self.activation = nn.ReLU(inplace=True)  # nobody else holds the sum

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.excite(self.branch(x))  # every channel of F(x) times its gate
        return self.activation(self.drop_path(out) + self.shortcut(x))


class SEBasicBlock(SEBlock):
    """Two 3x3 convolutions and a squeeze-and-excitation: (N, in_channels, H, W) -> (N, out_channels, H / s, W / s).

    The shortcut has no parameters, as in `resnet20`.
    """

    def __init__(
        self, in_channels: int, out_channels: int, stride: int = 1, *, reduction: int = 4, drop_path: float = 0.0
    ):
        branch = nn.Sequential(
            ConvNormAct(in_channels, out_channels, 3, stride),
            ConvNormAct(out_channels, out_channels, 3, activation=None),
        )
        excite = squeeze_excitation(out_channels, reduction)
        shortcut = make_shortcut(in_channels, out_channels, stride, "A")
        super().__init__(branch, excite, shortcut, out_channels, drop_path=drop_path)


class SEBottleneck(SEBlock):
    """1x1, grouped 3x3, 1x1, squeeze-and-excitation: (N, in_channels, H, W) -> (N, out_channels, H / s, W / s).

    The 3x3 has `cardinality` groups of `group_width` channels; the first 1x1 has as many channels, or half as many
    with `halve_first`. `projection_size` is the kernel size of a shortcut that takes the stride.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int = 1,
        *,
        cardinality: int,
        group_width: int,
        reduction: int = 16,
        halve_first: bool = False,
        projection_size: Literal[1, 3] = 1,
        drop_path: float = 0.0,
    ):
        width = cardinality * group_width
        first = width // 2 if halve_first else width
        branch = nn.Sequential(
            ConvNormAct(in_channels, first, 1),
            ConvNormAct(first, width, 3, stride, groups=cardinality),
            ConvNormAct(width, out_channels, 1, activation=None),
        )
        excite = squeeze_excitation(out_channels, reduction)
        shortcut = make_shortcut(in_channels, out_channels, stride, kernel_size=projection_size if stride > 1 else 1)
        super().__init__(branch, excite, shortcut, out_channels, drop_path=drop_path)


class SEResNet(nn.Module):
    """(N, in_channels, H, W) -> (N, num_classes) logits, for small images: SE basic blocks, `widths` channels."""

    def __init__(
        self,
        *,
        in_channels: int = 3,
        num_classes: int = 1000,
        depths: Sequence[int] = (3, 3, 3),
        widths: Sequence[int] = (16, 32, 64),
        reduction: int = 4,  # r
        drop_path_rate: float = 0.0,
    ):
        super().__init__()
        block = partial(SEBasicBlock, reduction=reduction)
        self.stem = residual_stem(in_channels, widths[0], "cifar")
        self.stages = residual_stages(block, widths[0], widths, depths, drop_path_rate=drop_path_rate)
        self.head = pooled_classifier(widths[-1], num_classes)
        initialize_he_fan_out(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.stages(self.stem(x)))


class SENet(nn.Module):
    """(N, in_channels, H, W) -> (N, num_classes) logits, for ImageNet: stages of SE bottlenecks.

    `widths` are the output channels of the stages; each 3x3 has `cardinality` groups of `base_width` channels in the
    first stage, and of more in the others, in proportion to `widths`. `deep` is the form of SENet-154: three 3x3
    convolutions as the stem, half as many channels in the first 1x1 of a block, 3x3 projections. Raises `ValueError`
    if `reduction` does not divide a width, or widths do not fit together.
    """

    def __init__(
        self,
        *,
        in_channels: int = 3,
        num_classes: int = 1000,
        depths: Sequence[int] = (3, 4, 6, 3),
        widths: Sequence[int] = (256, 512, 1024, 2048),
        cardinality: int = 1,
        base_width: int = 64,
        reduction: int = 16,  # r
        deep: bool = False,
        dropout: float = 0.0,
        drop_path_rate: float = 0.0,
    ):
        super().__init__()
        if any(base_width * width % widths[0] for width in widths):
            raise ValueError(f"base_width={base_width} does not grow to whole numbers in proportion to "
                             f"widths={tuple(widths)!r}: make each width a multiple of the first")

        def block(in_channels: int, out_channels: int, stride: int, *, drop_path: float) -> SEBottleneck:
            group_width = base_width * out_channels // widths[0]
            return SEBottleneck(in_channels, out_channels, stride, cardinality=cardinality, group_width=group_width,
                                reduction=reduction, halve_first=deep, projection_size=3 if deep else 1,
                                drop_path=drop_path)

        if deep:
            self.stem = nn.Sequential(
                ConvNormAct(in_channels, 64, 3, 2),
                ConvNormAct(64, 64, 3),
                ConvNormAct(64, 128, 3),
                nn.MaxPool2d(3, 2, padding=1),
            )
        else:
            self.stem = residual_stem(in_channels, 64, "imagenet")
        self.stages = residual_stages(block, 128 if deep else 64, widths, depths, drop_path_rate=drop_path_rate)
        pool, flatten, classifier = pooled_classifier(widths[-1], num_classes)
        self.head = nn.Sequential(pool, flatten, nn.Dropout(dropout), classifier)
        initialize_he_fan_out(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.stages(self.stem(x)))


DEPTHS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}

VARIANTS = (
    *(
        Variant(f"seresnet{depth}", f"ResNet-{depth} with squeeze-and-excitation", {"depths": DEPTHS[depth]},
                twin=f"timm.seresnet{depth}")
        for depth in (50, 101, 152)
    ),
    *(
        Variant(f"seresnext{depth}_32x4d", f"ResNeXt-{depth} 32x4d with squeeze-and-excitation",
                {"depths": DEPTHS[depth], "cardinality": 32, "base_width": 4}, twin=f"timm.seresnext{depth}_32x4d")
        for depth in (50, 101)
    ),
    Variant("senet154", "the winner of ILSVRC 2017: a ResNeXt-152 64x4d, modified, with squeeze-and-excitation",
            {"depths": DEPTHS[152], "cardinality": 64, "base_width": 4, "deep": True, "dropout": 0.2},
            twin="timm.senet154"),
    *(
        Variant(f"seresnet{depth}", f"small-image form: resnet{depth} with squeeze-and-excitation",
                {"depths": ((depth - 2) // 6,) * 3, "num_classes": 10}, input_size=(3, 32, 32), network=SEResNet)
        for depth in (20, 56, 110)
    ),
)

register(SENet, VARIANTS, cite="hu2018senet", year=2017)
