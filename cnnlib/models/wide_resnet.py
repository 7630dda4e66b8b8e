"""Wide ResNet: few layers with many channels reach what a thousand thin layers reach, in less time.

Depth is a chain of small steps that hardware must take one after the other; width is one large step. Widening by k
multiplies parameters by about k * k, so a wide network has far fewer layers for the same parameters. Two networks
share the name: `WideResNet`, the CIFAR network of pre-activation basic blocks, with dropout between its convolutions;
and `WideBottleneckResNet`, the ImageNet network, ResNet-50 or -101 with the 3x3 convolutions twice as wide.

- Zagoruyko, Komodakis. Wide Residual Networks. BMVC 2016, arXiv:1605.07146.

**Differs from the paper:**

- `wide_resnet50_2`, `wide_resnet101_2`: the stride sits in the 3x3 convolution, as libraries have it.
- `wide_resnet10_2`, `wide_resnet16_2`: small-image forms, in the paper's scheme.
- The bias of the classifier starts as PyTorch draws it; the authors' code sets it to 0. Otherwise nothing. Dropout is
  off in the rows, as in the paper's main table; `dropout=0.3` is what it uses on CIFAR.
"""

from collections.abc import Sequence
from functools import partial

import torch
from torch import nn

from cnnlib.layers import (
    ConvNormAct,
    DropPath,
    initialize_he_fan_out,
    make_shortcut,
    norm_act,
    pooled_classifier,
    residual_stages,
    residual_stem,
)
from cnnlib.registry import Variant, register


class WideBasicBlock(nn.Module):
    """x + F(relu(norm(x))), F a 3x3 convolution, dropout and a 3x3 convolution, as wide as one likes.

    (N, in_channels, H, W) -> (N, width, H / stride, W / stride). Where the shape changes, a 1x1 convolution
    of relu(norm(x)) takes the place of x. `drop_path` is the probability of dropping F of an image in
    training.
    """

    def __init__(
        self, in_channels: int, width: int, stride: int = 1, *, dropout: float = 0.0, drop_path: float = 0.0
    ):
        super().__init__()
        self.out_channels = width
        self.shortcut = make_shortcut(in_channels, width, stride, norm=None)
        self.preactivation = nn.Sequential(*norm_act(in_channels))
        self.branch = nn.Sequential(
            nn.Conv2d(in_channels, width, 3, stride, padding=1, bias=False),
            *norm_act(width),
            nn.Dropout(dropout),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
        )
        self.drop_path = DropPath(drop_path)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        activated = self.preactivation(x)  # relu(norm(x))
        if not isinstance(self.shortcut, nn.Identity):
            x = activated
        return self.shortcut(x) + self.drop_path(self.branch(activated))


class WideResNet(nn.Module):
    """(N, in_channels, H, W) -> (N, num_classes) logits, for small images.

    `depth` counts the layers as the paper does, 6n + 4 with n blocks in each of three stages; `width_mult` multiplies
    the channels 16, 32, 64 of the stages. Raises `ValueError` for a depth that is not 6n + 4.
    """

    def __init__(
        self,
        *,
        in_channels: int = 3,
        num_classes: int = 1000,
        depth: int = 28,
        width_mult: int = 10,  # k
        dropout: float = 0.0,
        drop_path_rate: float = 0.0,
    ):
        super().__init__()
        if depth < 10 or depth % 6 != 4:
            raise ValueError(f"depth={depth} is not 6n + 4 for a whole n: choose 10, 16, 22, 28, 34, 40, ...")
        if width_mult < 1:
            raise ValueError(f"width_mult={width_mult} is less than 1")
        widths = [width * width_mult for width in (16, 32, 64)]
        block = partial(WideBasicBlock, dropout=dropout)
        self.stem = nn.Conv2d(in_channels, 16, 3, padding=1, bias=False)
        self.stages = residual_stages(block, 16, widths, [(depth - 4) // 6] * 3, drop_path_rate=drop_path_rate)
        self.head = nn.Sequential(*norm_act(widths[-1]), *pooled_classifier(widths[-1], num_classes))
        initialize_he_fan_out(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.stages(self.stem(x)))


class WideBottleneck(nn.Module):
    """relu(F(x) + x), F a bottleneck of 1x1, 3x3 and 1x1 that is `width_mult` times as wide inside.

    (N, in_channels, H, W) -> (N, 4 width, H / stride, W / stride).
    """

    expansion = 4

    def __init__(self, in_channels: int, width: int, stride: int = 1, *, width_mult: int = 2, drop_path: float = 0.0):
        super().__init__()
        inside = width_mult * width
        self.out_channels = self.expansion * width
        self.branch = nn.Sequential(
            ConvNormAct(in_channels, inside, 1),
            ConvNormAct(inside, inside, 3, stride),
            ConvNormAct(inside, self.out_channels, 1, activation=None),
        )
        self.shortcut = make_shortcut(in_channels, self.out_channels, stride)
        self.drop_path = DropPath(drop_path)
        self.activation = nn.ReLU(inplace=True)  # nobody else holds the sum

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.activation(self.drop_path(self.branch(x)) + self.shortcut(x))


class WideBottleneckResNet(nn.Module):
    """(N, in_channels, H, W) -> (N, num_classes) logits, for ImageNet: bottlenecks `width_mult` times as wide inside.

    Raises `ValueError` if `width_mult` is less than 1.
    """

    def __init__(
        self,
        *,
        in_channels: int = 3,
        num_classes: int = 1000,
        depths: Sequence[int] = (3, 4, 6, 3),
        widths: Sequence[int] = (64, 128, 256, 512),
        width_mult: int = 2,
        drop_path_rate: float = 0.0,
    ):
        super().__init__()
        if width_mult < 1:
            raise ValueError(f"width_mult={width_mult} is less than 1")
        block = partial(WideBottleneck, width_mult=width_mult)
        self.stem = residual_stem(in_channels, widths[0], "imagenet")
        self.stages = residual_stages(block, widths[0], widths, depths, drop_path_rate=drop_path_rate)
        self.head = pooled_classifier(self.stages[-1][-1].out_channels, num_classes)
        initialize_he_fan_out(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.stages(self.stem(x)))


def cifar(depth: int, width_mult: int, summary: str) -> Variant:
    """WRN-depth-k of the paper's section 3, for CIFAR."""
    config = {"depth": depth, "width_mult": width_mult, "num_classes": 10}
    return Variant(f"wide_resnet{depth}_{width_mult}", summary, config, input_size=(3, 32, 32), network=WideResNet)


VARIANTS = (
    Variant("wide_resnet50_2", "ResNet-50 with inner widths doubled", {"depths": (3, 4, 6, 3)},
            twin="torchvision.wide_resnet50_2"),
    Variant("wide_resnet101_2", "ResNet-101 with inner widths doubled", {"depths": (3, 4, 23, 3)},
            twin="torchvision.wide_resnet101_2"),
    cifar(16, 8, "CIFAR, 16 layers, 8 times as wide"),
    cifar(28, 10, "CIFAR, 28 layers, 10 times as wide: the paper's best"),
    cifar(40, 4, "CIFAR, 40 layers, 4 times as wide"),
    cifar(10, 2, "small-image form: half the layers of resnet20, twice the width, about the same cost"),
    cifar(16, 2, "small-image form: 16 layers, twice as wide"),
)

register(WideBottleneckResNet, VARIANTS, cite="zagoruyko2016wide", year=2016)
