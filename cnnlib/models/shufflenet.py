"""ShuffleNet, versions 1 and 2: grouped or split channels, and a shuffle that lets the parts talk.

In a small network most work is in the 1x1 convolutions. Version 1 gives each group of channels its own; what would
then never meet is shuffled between two of them. Version 2 judges by time rather than by multiply-adds, and draws
four guidelines from the cost of moving data: equal widths in and out, no excess of groups, few branches, few
elementwise operations. Hence its unit: half of the channels pass untouched, the other half goes through two ordinary
1x1 convolutions and a depthwise one, and the shuffle decides who passes next time.

- Zhang, Zhou, Lin, Sun. ShuffleNet: An Extremely Efficient Convolutional Neural Network for Mobile Devices. CVPR 2018.
- Ma, Zhang, Zheng, Sun. ShuffleNet V2: Practical Guidelines for Efficient CNN Architecture Design. ECCV 2018.

**Differs from the papers:**

- All: initialized as PyTorch does; the papers do not say.
- Version 1 and 2: nothing else.
- `shufflenet_v2_cifar`: x1_0 without its first two halvings, so that a 32x32 image meets the units as a 128x128 image
  would.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import nn

from cnnlib.layers import ConvNormAct, pooled_classifier
from cnnlib.registry import Variant, register


def channel_shuffle(x: torch.Tensor, groups: int) -> torch.Tensor:
    """Deal the channels like cards: the first of every group, then the second of every group, and so on.

    Seen as a (groups, C / groups) matrix, the channels are transposed; shuffling the result with C / groups
    groups restores them. Raises `ValueError` if `groups` does not divide the channels.
    """
    if x.shape[1] % groups:
        raise ValueError(f"groups={groups} does not divide the {x.shape[1]} channels that are to be shuffled")
    return x.unflatten(1, (groups, -1)).transpose(1, 2).flatten(1, 2)


class ChannelShuffle(nn.Module):
    """`channel_shuffle` as a layer."""

    def __init__(self, groups: int):
        super().__init__()
        self.groups = groups

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return channel_shuffle(x, self.groups)

    def extra_repr(self) -> str:
        return f"groups={self.groups}"


class ShuffleUnit(nn.Module):
    """Version 1: grouped 1x1, shuffle, depthwise 3x3, grouped 1x1, beside a shortcut.

    (N, in_channels, H, W) -> (N, out_channels, H / stride, W / stride). Where the stride is 2, the shortcut is an
    average pooling whose output is concatenated; elsewhere the input is added. `first_groups` are the groups of the
    first convolution. Raises `ValueError` if groups and widths do not fit.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int,
        *,
        groups: int,
        first_groups: int | None = None,
    ):
        super().__init__()
        if stride == 1 and in_channels != out_channels:
            raise ValueError(f"stride 1 keeps the channels, but {in_channels} would become {out_channels}")
        width = out_channels // 4
        if out_channels % 4 or width % groups:
            raise ValueError(f"groups={groups} does not divide a quarter of out_channels={out_channels}")
        new_channels = out_channels - in_channels if stride == 2 else out_channels
        self.reduce = ConvNormAct(in_channels, width, 1, groups=first_groups or groups)
        self.shuffle = ChannelShuffle(groups)
        self.depthwise = ConvNormAct(width, width, 3, stride, groups=width, activation=None)
        self.expand = ConvNormAct(width, new_channels, 1, groups=groups, activation=None)
        self.shortcut = nn.AvgPool2d(3, 2, padding=1) if stride == 2 else nn.Identity()
        self.activation = nn.ReLU()
        self.stride = stride

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.shuffle(self.reduce(x))
        out = self.expand(self.depthwise(out))
        x = self.shortcut(x)
        return self.activation(x + out if self.stride == 1 else torch.cat([x, out], dim=1))


class ShuffleUnitV2(nn.Module):
    """Version 2: half of the channels pass, half are worked on, then both are shuffled.

    (N, in_channels, H, W) -> (N, out_channels, H / stride, W / stride). Where the stride is 2, both halves
    are made of all channels. Raises `ValueError` if the output has no halves, or the channels change at
    stride 1.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int):
        super().__init__()
        if out_channels % 2:
            raise ValueError(f"out_channels={out_channels} must be even: two halves are shuffled")
        if stride == 1 and in_channels != out_channels:
            raise ValueError(f"stride 1 keeps the channels, but {in_channels} would become {out_channels}")
        width = out_channels // 2
        self.shortcut = nn.Identity() if stride == 1 else nn.Sequential(
            ConvNormAct(in_channels, in_channels, 3, stride, groups=in_channels, activation=None),
            ConvNormAct(in_channels, width, 1),
        )
        self.branch = nn.Sequential(
            ConvNormAct(width if stride == 1 else in_channels, width, 1),
            ConvNormAct(width, width, 3, stride, groups=width, activation=None),
            ConvNormAct(width, width, 1),
        )
        self.shuffle = ChannelShuffle(2)
        self.stride = stride

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        passed, worked_on = x.chunk(2, dim=1) if self.stride == 1 else (x, x)
        out = torch.cat([self.shortcut(passed), self.branch(worked_on)], dim=1)
        return self.shuffle(out)


DEPTHS = (4, 8, 4)  # units of Stage2, Stage3 and Stage4, in both versions


def make_stem(in_channels: int, out_channels: int, form: Literal["imagenet", "cifar"]) -> nn.Sequential:
    """"imagenet": 3x3 convolution and 3x3 max pooling, both of stride 2; "cifar": the convolution with stride 1."""
    if form == "cifar":
        return nn.Sequential(ConvNormAct(in_channels, out_channels, 3))
    if form == "imagenet":
        return nn.Sequential(ConvNormAct(in_channels, out_channels, 3, 2), nn.MaxPool2d(3, 2, padding=1))
    raise ValueError(f"stem={form!r}; choose 'imagenet' or 'cifar'")


class ShuffleNetV1(nn.Module):
    """(N, in_channels, H, W) -> (N, num_classes) logits.

    `widths` are the channels after each stage. Raises `ValueError` if `groups` does not divide what it groups.
    """

    def __init__(
        self,
        *,
        in_channels: int = 3,
        num_classes: int = 1000,
        groups: int = 3,  # g
        widths: Sequence[int] = (240, 480, 960),
    ):
        super().__init__()
        width = 24
        # 56x56 for 224x224 images
        self.stem = make_stem(in_channels, width, "imagenet")
        # 28x28, 14x14, 7x7
        self.stages = nn.Sequential()
        for number, (out_channels, depth) in enumerate(zip(widths, DEPTHS, strict=True)):
            # the first convolution of all sees only 24 channels, and is not grouped
            first_groups = 1 if number == 0 else groups
            stage = nn.Sequential(ShuffleUnit(width, out_channels, 2, groups=groups, first_groups=first_groups))
            for _ in range(depth - 1):
                stage.append(ShuffleUnit(out_channels, out_channels, 1, groups=groups))
            self.stages.append(stage)
            width = out_channels
        self.head = pooled_classifier(width, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.stages(self.stem(x)))


class ShuffleNetV2(nn.Module):
    """(N, in_channels, H, W) -> (N, num_classes) logits.

    `widths` are the channels after each stage, `last_width` those of the last 1x1 convolution. `stem` is "imagenet",
    which divides the size by 4, or "cifar", which keeps it. Raises `ValueError` for an odd width or another stem.
    """

    def __init__(
        self,
        *,
        in_channels: int = 3,
        num_classes: int = 1000,
        widths: Sequence[int] = (116, 232, 464),
        last_width: int = 1024,
        stem: Literal["imagenet", "cifar"] = "imagenet",
    ):
        super().__init__()
        width = 24
        # 56x56 for 224x224 images
        self.stem = make_stem(in_channels, width, stem)
        # 28x28, 14x14, 7x7
        self.stages = nn.Sequential()
        for out_channels, depth in zip(widths, DEPTHS, strict=True):
            stage = nn.Sequential(ShuffleUnitV2(width, out_channels, 2))
            for _ in range(depth - 1):
                stage.append(ShuffleUnitV2(out_channels, out_channels, 1))
            self.stages.append(stage)
            width = out_channels
        self.head = nn.Sequential(ConvNormAct(width, last_width, 1), *pooled_classifier(last_width, num_classes))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.stages(self.stem(x)))


V1 = {"network": ShuffleNetV1, "cite": "zhang2018shufflenet", "year": 2017}
V2 = {"network": ShuffleNetV2, "cite": "ma2018", "year": 2018}

VARIANTS = (
    # Table 1 of the first paper: more groups, wider layers, about the same work
    Variant("shufflenet_v1_g1", "version 1 without groups", {"groups": 1, "widths": (144, 288, 576)}, **V1),
    Variant("shufflenet_v1_g2", "version 1 with 2 groups", {"groups": 2, "widths": (200, 400, 800)}, **V1),
    Variant("shufflenet_v1_g3", "version 1 with 3 groups", {"groups": 3, "widths": (240, 480, 960)}, **V1),
    Variant("shufflenet_v1_g4", "version 1 with 4 groups", {"groups": 4, "widths": (272, 544, 1088)}, **V1),
    Variant("shufflenet_v1_g8", "version 1 with 8 groups", {"groups": 8, "widths": (384, 768, 1536)}, **V1),
    # Table 5 of the second paper
    Variant(
        "shufflenet_v2_x0_5",
        "version 2, thinnest",
        {"widths": (48, 96, 192)},
        twin="torchvision.shufflenet_v2_x0_5",
        **V2,
    ),
    Variant("shufflenet_v2_x1_0", "version 2: channel split", twin="torchvision.shufflenet_v2_x1_0", **V2),
    Variant(
        "shufflenet_v2_x1_5",
        "version 2, wider",
        {"widths": (176, 352, 704)},
        twin="torchvision.shufflenet_v2_x1_5",
        **V2,
    ),
    Variant(
        "shufflenet_v2_x2_0",
        "version 2, widest",
        {"widths": (244, 488, 976), "last_width": 2048},
        twin="torchvision.shufflenet_v2_x2_0",
        **V2,
    ),
    Variant(
        "shufflenet_v2_cifar",
        "small-image form: version 2 at x1_0, for 32x32 images",
        {"stem": "cifar", "num_classes": 10},
        input_size=(3, 32, 32),
        **V2,
    ),
)

register(ShuffleNetV2, VARIANTS, cite="ma2018", year=2018)
