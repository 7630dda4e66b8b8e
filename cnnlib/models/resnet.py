"""ResNet: blocks that learn what to add to their input, so that depth stops hurting.

A deeper plain network has the larger training error, although it could copy the shallower one and pass the rest on.
Passing on is hard to learn for a stack of layers and free for a residual block: y = relu(F(x) + x), with F driven to
zero. `BasicBlock` has two 3x3 convolutions; `Bottleneck` shrinks the channels by a 1x1 convolution, works 3x3 on the
few, and expands again. Every convolution is followed by batch normalization. The plain networks, the same stacks
without the additions, y = relu(F(x)), are here too, to be compared (`PlainBlock`).

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
- Convolutions start with variance 2 / fan_out, as in the authors' later code; the paper's reference has fan_in. That
  code also sets the classifier's bias to 0, which stays as PyTorch draws it here, as in libraries.
"""

from collections.abc import Sequence
from functools import partial
from typing import Literal

import torch
from torch import nn

from cnnlib.layers import (
    ConvNormAct,
    DropPath,
    initialize_he_fan_out,
    make_shortcut,
    pooled_classifier,
    residual_stages,
    residual_stem,
)
from cnnlib.registry import Variant, register

Shortcut = Literal["A", "B", "C"]


class PlainBlock(nn.Module):
    """relu(F(x)), F two 3x3 convolutions: (N, in_channels, H, W) -> (N, width, H / stride, W / stride).

    `out_channels` tells the next block what to expect. Raises `ValueError` for a `drop_path` other than 0.
    """

    def __init__(self, in_channels: int, width: int, stride: int = 1, *, drop_path: float = 0.0):
        super().__init__()
        if drop_path:
            raise ValueError(f"drop_path={drop_path:g} without a shortcut would drop everything; use 0")
        self.out_channels = width
        self.branch = nn.Sequential(
            ConvNormAct(in_channels, width, 3, stride),
            ConvNormAct(width, width, 3, activation=None),
        )
        self.activation = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.activation(self.branch(x))


class BasicBlock(PlainBlock):
    """relu(F(x) + x): the plain block, and a shortcut around its two convolutions.

    `shortcut` is "A", "B" or "C" of `make_shortcut`, which say what becomes of x where its shape changes.
    `drop_path` is the probability of dropping F(x) of an image in training.
    """

    def __init__(
        self,
        in_channels: int,
        width: int,
        stride: int = 1,
        *,
        shortcut: Shortcut = "B",
        drop_path: float = 0.0,
    ):
        super().__init__(in_channels, width, stride)
        self.shortcut = make_shortcut(in_channels, width, stride, shortcut)
        self.drop_path = DropPath(drop_path)
        self.activation = nn.ReLU(inplace=True)  # nobody else holds the sum

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.activation(self.drop_path(self.branch(x)) + self.shortcut(x))


class Bottleneck(nn.Module):
    """relu(F(x) + x), F a 1x1 convolution down to `width`, a 3x3, and a 1x1 up to 4 `width`.

    (N, in_channels, H, W) -> (N, 4 width, H / stride, W / stride). `stride_in` says which convolution takes
    the stride, the 3x3 or the first 1x1. `shortcut` and `drop_path` as in `BasicBlock`.
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
        super().__init__()
        if stride_in not in ("3x3", "1x1"):
            raise ValueError(f"stride_in={stride_in!r}; choose '3x3' or '1x1'")
        first, second = (1, stride) if stride_in == "3x3" else (stride, 1)
        self.out_channels = self.expansion * width
        self.branch = nn.Sequential(
            ConvNormAct(in_channels, width, 1, first),
            ConvNormAct(width, width, 3, second),
            ConvNormAct(width, self.out_channels, 1, activation=None),
        )
        self.shortcut = make_shortcut(in_channels, self.out_channels, stride, shortcut)
        self.drop_path = DropPath(drop_path)
        self.activation = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.activation(self.drop_path(self.branch(x)) + self.shortcut(x))


class ResNet(nn.Module):
    """(N, in_channels, H, W) -> (N, num_classes) logits.

    `block`, `depths` and `widths` are the rows of the paper's table 1. `stem` is "imagenet" (to a quarter of the size)
    or "cifar" (full size). `shortcut` and `stride_in` go to the blocks; `shortcut=None` makes a plain network of
    `PlainBlock`. The last block is dropped with probability `drop_path_rate`, earlier ones less. `zero_init_residual`
    starts every branch at zero, and so every block as its shortcut. Raises `ValueError` for options that do not exist
    or do not go together.
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
        shortcut: Shortcut | None = "B",
        stride_in: Literal["3x3", "1x1"] = "3x3",
        drop_path_rate: float = 0.0,
        zero_init_residual: bool = False,
    ):
        super().__init__()
        if stride_in != "3x3" and block is not Bottleneck:
            raise ValueError(f"stride_in={stride_in!r} needs block=Bottleneck; a BasicBlock has 3x3 convolutions only")
        if shortcut is None and block is not BasicBlock:
            raise ValueError("shortcut=None makes a plain network, which needs block=BasicBlock")
        options = {"stride_in": stride_in} if block is Bottleneck else {}
        block = PlainBlock if shortcut is None else partial(block, shortcut=shortcut, **options)
        self.stem = residual_stem(in_channels, widths[0], stem)
        self.stages = residual_stages(block, widths[0], widths, depths, drop_path_rate=drop_path_rate)
        self.head = pooled_classifier(self.stages[-1][-1].out_channels, num_classes)
        initialize_he_fan_out(self)
        if zero_init_residual:
            initialize_residuals_at_zero(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.stages(self.stem(x)))


def initialize_residuals_at_zero(model: ResNet) -> None:
    """Scale 0 in the last normalization of every branch: each block starts as its shortcut (Goyal et al., 2017).

    The network then starts as shallow as it can be, which helps training with large learning rates.
    """
    for module in model.modules():
        if isinstance(module, (BasicBlock, Bottleneck)):
            nn.init.zeros_(module.branch[-1].norm.weight)


def cifar(depth: int, shortcut: Shortcut | None) -> dict:
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
