"""Pre-activation ResNet: normalization and ReLU move before the convolutions, and the path between blocks is clean.

In the first ResNet a ReLU follows every addition, so the signal from block to block is cut at zero each time. Moved
into the branch, it leaves y = x + F(relu(norm(x))): the sum of all earlier branches reaches every block, and so does
the gradient of the loss, unchanged. A thousand layers train. The last sum gets a normalization and a ReLU of its own,
in the head.

- He, Zhang, Ren, Sun. Identity Mappings in Deep Residual Networks. ECCV 2016, arXiv:1603.05027.

**Differs from the paper:**

- The stride of a bottleneck sits in its 3x3 convolution, as libraries have it; the authors' code for CIFAR has it in
  the first 1x1. Parameters are the same. The bias of the classifier starts as PyTorch draws it, there at 0.
- `preresnet50`, `preresnet101`: the first normalization comes after the max pooling, not before.
- `preresnet20`, `preresnet56`: small-image forms; the paper's smallest has 110 layers.
"""

from collections.abc import Sequence
from functools import partial
from typing import Literal

import torch
from torch import nn

from cnnlib.layers import (
    DropPath,
    initialize_he_fan_out,
    make_shortcut,
    norm_act,
    pooled_classifier,
    residual_stages,
)
from cnnlib.registry import Variant, register

Shortcut = Literal["A", "B", "C"]


class PreActBlock(nn.Module):
    """x + F(relu(norm(x))): nothing stands in the way from block to block.

    `branch` is F; it begins and ends with a convolution. A shortcut that changes the shape takes relu(norm(x)) rather
    than x, and so does any with `activate_shortcut`. `drop_path` is the probability of dropping the branch of an image
    in training; `out_channels` tells the next block what to expect.
    """

    def __init__(
        self, in_channels: int, branch: nn.Module, shortcut: nn.Module, out_channels: int, *, drop_path: float = 0.0
    ):
        super().__init__()
        self.out_channels = out_channels
        self.activate_shortcut = not isinstance(shortcut, nn.Identity)
        self.shortcut = shortcut
        self.preactivation = nn.Sequential(*norm_act(in_channels))
        self.branch = branch
        self.drop_path = DropPath(drop_path)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        activated = self.preactivation(x)  # relu(norm(x))
        if self.activate_shortcut:
            x = activated
        return self.shortcut(x) + self.drop_path(self.branch(activated))


class PreActBasicBlock(PreActBlock):
    """Two 3x3 convolutions, each activated before: (N, in_channels, H, W) -> (N, width, H / stride, W / stride).

    `shortcut` is "A", "B" or "C" of `make_shortcut`; a projection has no normalization, it sees a normalized input.
    """

    def __init__(
        self, in_channels: int, width: int, stride: int = 1, *, shortcut: Shortcut = "B", drop_path: float = 0.0
    ):
        branch = nn.Sequential(
            nn.Conv2d(in_channels, width, 3, stride, padding=1, bias=False),
            *norm_act(width),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
        )
        around = make_shortcut(in_channels, width, stride, shortcut, norm=None)
        super().__init__(in_channels, branch, around, width, drop_path=drop_path)


class PreActBottleneck(PreActBlock):
    """1x1 down to `width`, 3x3, 1x1 up: (N, in_channels, H, W) -> (N, 4 width, H / stride, W / stride).

    Each convolution is activated before. `shortcut` as in `PreActBasicBlock`.
    """

    expansion = 4

    def __init__(
        self, in_channels: int, width: int, stride: int = 1, *, shortcut: Shortcut = "B", drop_path: float = 0.0
    ):
        out_channels = self.expansion * width
        branch = nn.Sequential(
            nn.Conv2d(in_channels, width, 1, bias=False),
            *norm_act(width),
            nn.Conv2d(width, width, 3, stride, padding=1, bias=False),
            *norm_act(width),
            nn.Conv2d(width, out_channels, 1, bias=False),
        )
        around = make_shortcut(in_channels, out_channels, stride, shortcut, norm=None)
        super().__init__(in_channels, branch, around, out_channels, drop_path=drop_path)


class PreActResNet(nn.Module):
    """(N, in_channels, H, W) -> (N, num_classes) logits; arguments as those of `ResNet`.

    The stem is a bare convolution, with max pooling behind it in the "imagenet" form. Raises `ValueError` for options
    that do not exist.
    """

    def __init__(
        self,
        *,
        in_channels: int = 3,
        num_classes: int = 1000,
        block: type[PreActBasicBlock] | type[PreActBottleneck] = PreActBottleneck,
        depths: Sequence[int] = (3, 4, 6, 3),
        widths: Sequence[int] = (64, 128, 256, 512),
        stem: Literal["imagenet", "cifar"] = "imagenet",
        shortcut: Shortcut = "B",
        drop_path_rate: float = 0.0,
    ):
        super().__init__()
        if stem not in ("imagenet", "cifar"):
            raise ValueError(f"stem={stem!r}; choose 'imagenet' or 'cifar'")
        if stem == "imagenet":
            convolution = nn.Conv2d(in_channels, widths[0], 7, 2, padding=3, bias=False)
            self.stem = nn.Sequential(convolution, nn.MaxPool2d(3, 2, padding=1))
        else:
            self.stem = nn.Conv2d(in_channels, widths[0], 3, padding=1, bias=False)
        block = partial(block, shortcut=shortcut)
        self.stages = residual_stages(block, widths[0], widths, depths, drop_path_rate=drop_path_rate)
        self.stages[0][0].activate_shortcut = True  # the stem ends without an activation of its own
        out_channels = self.stages[-1][-1].out_channels
        self.head = nn.Sequential(*norm_act(out_channels), *pooled_classifier(out_channels, num_classes))
        initialize_he_fan_out(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.stages(self.stem(x)))


CIFAR = {"widths": (16, 32, 64), "stem": "cifar", "num_classes": 10}
SMALL = {"input_size": (3, 32, 32)}


def basic(depth: int) -> dict:
    """Arguments for depth = 6n + 2 layers: two per block, shortcuts without parameters as in `resnet20`."""
    return {**CIFAR, "block": PreActBasicBlock, "depths": ((depth - 2) // 6,) * 3, "shortcut": "A"}


def bottleneck(depth: int) -> dict:
    """Arguments for depth = 9n + 2 layers: three per block."""
    return {**CIFAR, "depths": ((depth - 2) // 9,) * 3}


VARIANTS = (
    Variant("preresnet50", "50 layers of bottlenecks", {"depths": (3, 4, 6, 3)}, twin="timm.resnetv2_50"),
    Variant("preresnet101", "101 layers of bottlenecks", {"depths": (3, 4, 23, 3)}, twin="timm.resnetv2_101"),
    Variant("preresnet110", "CIFAR, 110 layers of basic blocks", basic(110), **SMALL),
    Variant("preresnet164", "CIFAR, 164 layers of bottlenecks", bottleneck(164), **SMALL),
    Variant("preresnet1001", "CIFAR, 1001 layers of bottlenecks", bottleneck(1001), **SMALL),
    Variant("preresnet20", "small-image form: resnet20 with the activations moved", basic(20), **SMALL),
    Variant("preresnet56", "small-image form: resnet56 with the activations moved", basic(56), **SMALL),
)

register(PreActResNet, VARIANTS, cite="he2016identity", year=2016)
