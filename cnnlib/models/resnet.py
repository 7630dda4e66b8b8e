"""ResNet: blocks that learn what to add to their input, so that depth stops hurting.

A deeper plain network has the larger training error, although it could copy the shallower one and pass the rest on.
Passing on is hard to learn for a stack of layers and free for a residual block: y = relu(F(x) + x), with F driven to
zero. `BasicBlock` has two 3x3 convolutions; `Bottleneck` shrinks the channels by a 1x1 convolution, works 3x3 on the
few, and expands again. Every convolution is followed by batch normalization. The plain networks, the same stacks
without the additions, are here too, to be compared.

- He, Zhang, Ren, Sun. Deep Residual Learning for Image Recognition. CVPR 2016, arXiv:1512.03385.
- Huang, Sun, Liu, Sedra, Weinberger. Deep Networks with Stochastic Depth. ECCV 2016, arXiv:1603.09382.
- Goyal and others. Accurate, Large Minibatch SGD. 2017, arXiv:1706.02677 (branches that start at zero).

**Differs from the paper:**

- `resnet50`, `resnet101`, `resnet152`: the stride of a bottleneck sits in its 3x3 convolution, as libraries have it;
  in the paper's form (`resnet50_v1` and so on) it sits in the first 1x1, which then skips three quarters of its input.
- `resnet18`, `resnet34`: projection where the shape changes (option B), as libraries have it; `shortcut="A"` is free.
- `drop_path_rate`: drops a block for each image apart and scales the kept branches in training. The stochastic-depth
  paper drops it for the whole batch, which saves time, and scales in evaluation.
- `resnet18_cifar`: ResNet-18 for 32x32 images, a form of later practice; the paper's own CIFAR networks are
  `resnet20` to `resnet1202`.
- Weights start with variance 2 / fan_out, as in the authors' later code; the paper's reference has fan_in.
"""

from collections.abc import Sequence
from functools import partial
from typing import Literal

import torch
from torch import nn

from cnnlib.layers import (
    ConvNormAct,
    ResidualBlock,
    initialize_he_fan_out,
    make_shortcut,
    pooled_classifier,
    residual_stages,
    residual_stem,
)
from cnnlib.registry import Variant, register

Shortcut = Literal["A", "B", "C"] | None


class BasicBlock(ResidualBlock):
    """Two 3x3 convolutions: (N, in_channels, H, W) -> (N, width, H / stride, W / stride).

    `shortcut` is "A", "B" or "C" of `make_shortcut`, or None for a plain block.
    """

    def __init__(
        self, in_channels: int, width: int, stride: int = 1, *, shortcut: Shortcut = "B", drop_path: float = 0.0
    ):
        super().__init__(
            nn.Sequential(
                ConvNormAct(in_channels, width, 3, stride),
                ConvNormAct(width, width, 3, activation=None),
            ),
            make_shortcut(in_channels, width, stride, shortcut),
            out_channels=width,
            drop_path=drop_path,
        )


class Bottleneck(ResidualBlock):
    """1x1 down to `width`, 3x3, 1x1 up to 4 width: (N, in_channels, H, W) -> (N, 4 width, H / stride, W / stride).

    `stride_in` says which convolution takes the stride, the 3x3 or the first 1x1. `shortcut` as in `BasicBlock`.
    """

    expansion = 4

    def __init__(
        self,
        in_channels: int,
        width: int,
        stride: int = 1,
        *,
        shortcut: Shortcut = "B",
        stride_in: Literal["3x3", "1x1"] = "3x3",
        drop_path: float = 0.0,
    ):
        if stride_in not in ("3x3", "1x1"):
            raise ValueError(f"stride_in={stride_in!r}; choose '3x3' or '1x1'")
        first, second = (1, stride) if stride_in == "3x3" else (stride, 1)
        out_channels = self.expansion * width
        super().__init__(
            nn.Sequential(
                ConvNormAct(in_channels, width, 1, first),
                ConvNormAct(width, width, 3, second),
                ConvNormAct(width, out_channels, 1, activation=None),
            ),
            make_shortcut(in_channels, out_channels, stride, shortcut),
            out_channels=out_channels,
            drop_path=drop_path,
        )


class ResNet(nn.Module):
    """(N, in_channels, H, W) -> (N, num_classes) logits.

    `block`, `depths` and `widths` are the rows of the paper's table 1. `stem` is "imagenet" (to a quarter of the size)
    or "cifar" (full size). `shortcut` and `stride_in` go to the blocks. The last block is dropped with probability
    `drop_path_rate`, earlier ones less. `zero_init_residual` starts every branch at zero, and so every block as its
    shortcut. Raises `ValueError` for options that do not exist or do not go together.
    """

    def __init__(
        self,
        *,
        in_channels: int = 3,
        num_classes: int = 1000,
        block: type[BasicBlock] | type[Bottleneck] = Bottleneck,
        depths: Sequence[int] = (3, 4, 6, 3),
        widths: Sequence[int] = (64, 128, 256, 512),
        stem: Literal["imagenet", "cifar"] = "imagenet",
        shortcut: Shortcut = "B",
        stride_in: Literal["3x3", "1x1"] = "3x3",
        drop_path_rate: float = 0.0,
        zero_init_residual: bool = False,
    ):
        super().__init__()
        if block is Bottleneck:
            block = partial(Bottleneck, stride_in=stride_in)
        elif stride_in != "3x3":
            raise ValueError(f"stride_in={stride_in!r} needs block=Bottleneck; a BasicBlock has 3x3 convolutions only")
        self.stem = residual_stem(in_channels, widths[0], stem)
        block = partial(block, shortcut=shortcut)
        self.stages = residual_stages(block, widths[0], widths, depths, drop_path_rate=drop_path_rate)
        self.head = pooled_classifier(self.stages[-1][-1].out_channels, num_classes)
        initialize_he_fan_out(self)
        if zero_init_residual:
            initialize_residuals_at_zero(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.stages(self.stem(x)))


def initialize_residuals_at_zero(model: nn.Module) -> None:
    """Scale 0 in the last normalization of every branch: each block starts as its shortcut (Goyal et al., 2017).

    The network then starts as shallow as it can be, which helps training with large learning rates.
    """
    for module in model.modules():
        if isinstance(module, ResidualBlock):
            nn.init.zeros_(module.branch[-1].norm.weight)


def cifar(depth: int, shortcut: Shortcut) -> dict:
    """Arguments of the networks of section 4.2: depth = 6n + 2 layers, n blocks per stage."""
    return {
        "block": BasicBlock, "depths": ((depth - 2) // 6,) * 3, "widths": (16, 32, 64), "stem": "cifar",
        "shortcut": shortcut, "num_classes": 10,
    }


# Table 1 of the paper: blocks per stage
DEPTHS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}

VARIANTS = (
    *(
        Variant(f"resnet{depth}", f"{depth} layers of basic blocks", {"block": BasicBlock, "depths": DEPTHS[depth]},
                twin=f"torchvision.resnet{depth}")
        for depth in (18, 34)
    ),
    *(
        Variant(f"resnet{depth}", f"{depth} layers of bottlenecks, stride in the 3x3 convolution",
                {"depths": DEPTHS[depth]}, twin=f"torchvision.resnet{depth}")
        for depth in (50, 101, 152)
    ),
    *(
        Variant(f"resnet{depth}_v1", f"{depth} layers of bottlenecks as in the paper, stride in the first 1x1",
                {"depths": DEPTHS[depth], "stride_in": "1x1"})
        for depth in (50, 101, 152)
    ),
    *(
        Variant(f"plain{depth}", f"the {depth}-layer network without its shortcuts",
                {"block": BasicBlock, "depths": DEPTHS[depth], "shortcut": None})
        for depth in (18, 34)
    ),
    *(
        Variant(f"resnet{depth}", f"the paper's CIFAR network of {depth} layers, shortcuts without parameters",
                cifar(depth, "A"), input_size=(3, 32, 32))
        for depth in (20, 32, 44, 56, 110, 1202)
    ),
    *(
        Variant(f"plain{depth}", f"the paper's CIFAR network of {depth} layers without its shortcuts",
                cifar(depth, None), input_size=(3, 32, 32))
        for depth in (20, 32, 44, 56, 110)
    ),
    Variant(
        "resnet18_cifar",
        "small-image form: ResNet-18 with a 3x3 stem and no pooling",
        {"block": BasicBlock, "depths": DEPTHS[18], "stem": "cifar", "num_classes": 10},
        input_size=(3, 32, 32),
    ),
)

register(ResNet, VARIANTS, cite="he2015resnet", year=2015)
