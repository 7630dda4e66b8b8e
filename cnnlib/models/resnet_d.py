"""ResNet-D and what else a ResNet can gain for nothing: a stem of 3x3, shortcuts that average, no aliases, cheap
gates.

The residual equation stays, y = relu(F(x) + shortcut(x)). In ResNet a shortcut that halves the map is a 1x1
convolution of stride 2, which looks at one pixel in four; here an average over 2x2 comes first. The 7x7 of the stem
becomes three 3x3. Two further changes are rows of the table: a low-pass filter before the strides of pooling and
branches, so that a shift of the image by a pixel changes less of what is sampled (Zhang); and efficient channel
attention, a gate like squeeze-and-excitation's that looks at the k neighbours of a channel with k weights in all (Wang
et al.).

- He, Zhang, Zhang, Zhang, Xie, Li. Bag of Tricks for Image Classification with Convolutional Neural Networks. CVPR
  2019, arXiv:1812.01187 (ResNet-D, and branches that start at zero).
- Zhang. Making Convolutional Networks Shift-Invariant Again. ICML 2019, arXiv:1904.11486.
- Wang, Wu, Zhu, Li, Zuo, Hu. ECA-Net: Efficient Channel Attention for Deep Convolutional Neural Networks. CVPR 2020,
  arXiv:1910.03151.

**Differs from the papers:**

- Filters and gates are put into ResNet-D, as in timm, where the papers put them into ResNet.
- `resnetblur50d` mirrors the image at its border, as its author's code does.
- `resnet_d_cifar`, `ecaresnet_d_cifar`: the stem keeps the resolution and has no pooling; basic blocks, 16 to 128
  channels.
"""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import nn
from torch.nn import functional as F

from cnnlib.layers import (
    ConvNormAct, DropPath, check_equally_many, initialize_he_fan_out, linear_rates, pooled_classifier,
)
from cnnlib.registry import Variant, register


class EfficientChannelAttention(nn.Module):
    """x * sigmoid(conv_k(means)), the convolution along the channels: keeps (N, channels, H, W).

    k is the odd number nearest to (log2(channels) + 1) / 2, the larger of two that are equally near, and at least 3
    (equation 12).
    """

    def __init__(self, channels: int):
        super().__init__()
        size = int((math.log2(channels) + 1) / 2)
        size = max(size if size % 2 else size + 1, 3)
        self.conv = nn.Conv1d(1, 1, size, padding=size // 2, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        means = x.mean((2, 3)).unsqueeze(1)  # (N, 1, channels)
        return x * self.conv(means).sigmoid().transpose(1, 2).unsqueeze(-1)


class BlurPool(nn.Module):
    """Every second pixel of the map smoothed by (1, 2, 1) / 4 in both directions: (N, C, H, W) -> (N, C, H/2, W/2),
    rounded up."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        binomial = x.new_tensor([[1, 2, 1], [2, 4, 2], [1, 2, 1]]) / 16
        x = F.pad(x, (1, 1, 1, 1), mode="reflect")
        return F.conv2d(x, binomial.expand(x.shape[1], 1, 3, 3), stride=2, groups=x.shape[1])


def strided(in_channels: int, out_channels: int, stride: int, blur: bool) -> list[nn.Module]:
    """A 3x3 convolution that takes the stride, or that leaves it to a filter behind it."""
    if stride == 1 or not blur:
        return [ConvNormAct(in_channels, out_channels, 3, stride)]
    return [ConvNormAct(in_channels, out_channels, 3), BlurPool()]


class Block(nn.Module):
    """relu(F(x) + shortcut(x)): (N, in_channels, H, W) -> (N, out_channels, H/stride, W/stride).

    F is `bottleneck` 1x1, 3x3, 1x1 of a quarter of the channels, or two 3x3. The shortcut is the identity where
    shapes agree, else an average over 2x2 (at stride 2) and a 1x1 convolution.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1, *, bottleneck: bool = True,
                 blur: bool = False, attention: bool = False, drop_path: float = 0.0):
        super().__init__()
        width = out_channels // 4 if bottleneck else out_channels
        if bottleneck:
            layers = [ConvNormAct(in_channels, width, 1), *strided(width, width, stride, blur)]
        else:
            layers = strided(in_channels, width, stride, blur)
        self.branch = nn.Sequential(
            *layers, ConvNormAct(width, out_channels, 1 if bottleneck else 3, activation=None))
        self.attention = EfficientChannelAttention(out_channels) if attention else nn.Identity()
        self.drop_path = DropPath(drop_path)
        self.shortcut = nn.Sequential()
        if stride > 1:
            self.shortcut.append(nn.AvgPool2d(2, stride, ceil_mode=True, count_include_pad=False))
        if stride > 1 or in_channels != out_channels:
            self.shortcut.append(ConvNormAct(in_channels, out_channels, 1, activation=None))
        self.activation = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.activation(self.drop_path(self.attention(self.branch(x))) + self.shortcut(x))


class ResNetD(nn.Module):
    """(N, in_channels, H, W) -> (N, num_classes) logits.

    `depths` and `widths` are blocks and channels of the stages. `stem` is "imagenet" (to a quarter of the size) or
    "cifar" (full size). `blur` puts a `BlurPool` before the strides of pooling and branches; shortcuts average already;
    `attention` ends each branch with `EfficientChannelAttention`. `drop_path_rate` grows linearly over the blocks,
    from 0. Raises `ValueError` for options that do not exist, and if depths and widths do not name equally many
    stages.
    """

    def __init__(
        self,
        *,
        in_channels: int = 3,
        num_classes: int = 1000,
        bottleneck: bool = True,
        depths: Sequence[int] = (3, 4, 6, 3),
        widths: Sequence[int] = (256, 512, 1024, 2048),
        stem_widths: tuple[int, int, int] = (32, 32, 64),
        stem: Literal["imagenet", "cifar"] = "imagenet",
        blur: bool = False,
        attention: bool = False,
        drop_path_rate: float = 0.0,
    ):
        super().__init__()
        check_equally_many(depths=depths, widths=widths)
        if stem not in ("imagenet", "cifar"):
            raise ValueError(f"stem={stem!r}; choose 'imagenet' or 'cifar'")
        first, second, channels = stem_widths
        self.stem = nn.Sequential(
            ConvNormAct(in_channels, first, 3, 2 if stem == "imagenet" else 1), ConvNormAct(first, second),
            ConvNormAct(second, channels))
        if stem == "imagenet":
            self.stem.extend([nn.MaxPool2d(3, 1, 1), BlurPool()] if blur else [nn.MaxPool2d(3, 2, 1)])
        rates = iter(linear_rates(drop_path_rate, depths))
        self.stages = nn.Sequential()
        for number, (depth, width) in enumerate(zip(depths, widths)):
            stage = nn.Sequential()
            for index in range(depth):
                stride = 2 if number > 0 and index == 0 else 1
                stage.append(Block(channels, width, stride, bottleneck=bottleneck, blur=blur, attention=attention,
                                   drop_path=next(rates)))
                channels = width
            self.stages.append(stage)
        self.head = pooled_classifier(channels, num_classes)
        initialize(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.stages(self.stem(x)))


def initialize(model: nn.Module) -> None:
    """As He et al. (2015), and scale 0 in the last normalization of every branch: each block starts as its shortcut.

    One of the bag of tricks (section 3.1): a network that starts shallow bears large learning rates.
    """
    initialize_he_fan_out(model)
    for module in model.modules():
        if isinstance(module, Block):
            nn.init.zeros_(module.branch[-1].norm.weight)


BASIC = {"bottleneck": False, "widths": (64, 128, 256, 512)}
ECA = {"cite": "wang2020eca", "year": 2019}

VARIANTS = (
    Variant("resnet18d", "18 layers of basic blocks", {**BASIC, "depths": (2, 2, 2, 2)}, twin="timm.resnet18d"),
    Variant("resnet34d", "34 layers of basic blocks", BASIC, twin="timm.resnet34d"),
    Variant("resnet50d", "50 layers of bottlenecks", twin="timm.resnet50d"),
    Variant("resnet101d", "101 layers of bottlenecks", {"depths": (3, 4, 23, 3)}, twin="timm.resnet101d"),
    Variant("resnetblur50d", "ResNet-50-D with a binomial filter before the strides of pooling and branches",
            {"blur": True}, twin="timm.resnetblur50d", cite="zhang2019shift", year=2019),
    Variant("ecaresnet50d", "ResNet-50-D with efficient channel attention", {"attention": True},
            twin="timm.ecaresnet50d", **ECA),
    Variant("resnet_d_cifar", "small-image form: basic blocks of 16 to 128 channels",
            {"bottleneck": False, "stem": "cifar", "depths": (2, 2, 2, 2), "widths": (16, 32, 64, 128),
             "stem_widths": (16, 16, 16), "num_classes": 10}, (3, 32, 32)),
    Variant("ecaresnet_d_cifar", "small-image form: the same with filters and efficient channel attention",
            {"bottleneck": False, "stem": "cifar", "depths": (2, 2, 2, 2), "widths": (16, 32, 64, 128),
             "stem_widths": (16, 16, 16), "blur": True, "attention": True, "num_classes": 10}, (3, 32, 32), **ECA),
)

register(ResNetD, VARIANTS, cite="he2019tricks", year=2018)
