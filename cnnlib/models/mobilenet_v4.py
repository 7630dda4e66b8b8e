"""MobileNetV4: one block that contains its predecessors, 2024.

A universal inverted bottleneck is an inverted residual with two places for a depthwise convolution, before the
expansion and between expansion and projection. Both empty, it is the feed-forward layer of a transformer; the second
filled, MobileNetV2's block; the first, ConvNeXt's; both, a new one with a larger field ("extra depthwise"). A search
fills the places. Its measure is time on many kinds of hardware at once, which is why squeeze-and-excitation and hard
swish are gone and the early stages are dense. The hybrids have attention between the blocks of their last two stages,
in a form for small devices: all heads share one set of keys and values, at half the resolution where maps are large.

- Qin and others. MobileNetV4: Universal Models for the Mobile Ecosystem. ECCV 2024, arXiv:2404.10518.

**Differs from the paper:**

- Symmetric padding where TensorFlow pads below and to the right.
- `mobilenet_v4_conv_small_cifar`: stem and first stage keep the resolution, for 32x32 images.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import nn

from cnnlib.layers import ConvNormAct, DropPath, initialize_per_group, linear_rates
from cnnlib.registry import Variant, register


class LayerScale(nn.Module):
    """Each channel times a factor that is learned and starts small: keeps (N, channels, H, W)."""

    def __init__(self, channels: int, start: float):
        super().__init__()
        self.factor = nn.Parameter(torch.full((channels,), float(start)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.factor.view(-1, 1, 1)


class UniversalBottleneck(nn.Module):
    """Depthwise (no activation), 1x1 up, depthwise, 1x1 down (no activation), and the input where shapes agree.

    (N, in_channels, H, W) -> (N, out_channels, H/stride, W/stride). `start` and `middle` are the sizes of the two
    depthwise kernels; 0 leaves one out. The stride is taken by the middle one, or without it by the first.
    `layer_scale` is the first value of a factor of each channel; None leaves it out. Raises `ValueError` if no
    depthwise convolution is there to take a stride.
    """

    def __init__(self, in_channels: int, out_channels: int, start: int, middle: int, stride: int = 1, *,
                 expansion: float = 4, activation: Callable[[], nn.Module] = nn.ReLU,
                 layer_scale: float | None = None, drop_path: float = 0.0):
        super().__init__()
        if stride > 1 and not (start or middle):
            raise ValueError(f"stride={stride} needs a depthwise convolution: give start or middle")
        width = int(in_channels * expansion)
        self.has_shortcut = stride == 1 and in_channels == out_channels
        self.start = ConvNormAct(
            in_channels, in_channels, start, 1 if middle else stride, groups=in_channels, activation=None
        ) if start else nn.Identity()
        self.expand = ConvNormAct(in_channels, width, 1, activation=activation)
        self.middle = ConvNormAct(
            width, width, middle, stride, groups=width, activation=activation) if middle else nn.Identity()
        self.project = ConvNormAct(width, out_channels, 1, activation=None)
        self.scale = nn.Identity() if layer_scale is None else LayerScale(out_channels, layer_scale)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.scale(self.project(self.middle(self.expand(self.start(x)))))
        return x + self.drop_path(out) if self.has_shortcut else out


class FusedBottleneck(nn.Sequential):
    """A dense kxk convolution up and a 1x1 down, without shortcut: for early stages, where channels are few."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int, *, expansion: int,
                 activation: Callable[[], nn.Module] = nn.ReLU):
        super().__init__()
        self.expand = ConvNormAct(in_channels, expansion * in_channels, kernel_size, stride, activation=activation)
        self.project = ConvNormAct(expansion * in_channels, out_channels, 1, activation=None)


class MobileAttention(nn.Module):
    """x + W_o [softmax(Q_h K^T / sqrt(d)) V]_h, of x normalized: each place adds a weighted mean of all places.

    Keeps (N, channels, H, W). Queries are of `heads` kinds with d = `head_channels` each; keys and values are of one
    kind for all heads, and for `reduction` > 1 computed from a map that a depthwise convolution of this stride has
    reduced.
    """

    def __init__(self, channels: int, heads: int, head_channels: int, reduction: int = 1, *,
                 layer_scale: float = 1e-5, drop_path: float = 0.0):
        super().__init__()
        self.heads, self.head_channels = heads, head_channels
        self.norm = nn.BatchNorm2d(channels)
        self.query = nn.Conv2d(channels, heads * head_channels, 1, bias=False)
        self.key, self.value = (nn.Sequential(
            *(ConvNormAct(channels, channels, 3, reduction, groups=channels, activation=None) if reduction > 1 else ()),
            nn.Conv2d(channels, head_channels, 1, bias=False),
        ) for _ in range(2))
        self.output = nn.Conv2d(heads * head_channels, channels, 1, bias=False)
        self.scale = LayerScale(channels, layer_scale)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        normalized = self.norm(x)
        q = self.query(normalized).unflatten(1, (self.heads, -1)).flatten(3)  # (N, heads, d, places)
        q = q.transpose(2, 3).flatten(1, 2)  # the heads share keys, so all their queries stand in one list
        k, v = self.key(normalized).flatten(2), self.value(normalized).flatten(2)  # (N, d, places or fewer)
        weights = (q @ k * self.head_channels**-0.5).softmax(2)
        mixed = (weights @ v.transpose(1, 2)).unflatten(1, (self.heads, -1)).transpose(2, 3)
        mixed = mixed.flatten(1, 2).unflatten(2, x.shape[2:])  # (N, heads * d, H, W)
        return x + self.drop_path(self.scale(self.output(mixed)))


class Conv(NamedTuple):
    """A row of the paper's tables: a convolution with norm and ReLU."""

    kernel_size: int
    out_channels: int
    stride: int = 1


class Fused(NamedTuple):
    kernel_size: int
    out_channels: int
    stride: int
    expansion: int


class UIB(NamedTuple):
    start: int  # DW K_1
    middle: int  # DW K_2
    out_channels: int
    expansion: float
    stride: int = 1


class MQA(NamedTuple):
    """Attention, with multi-query keys and values."""

    heads: int
    head_channels: int
    reduction: int = 1


# Tables 11 to 13 of the paper, and the last convolution before the pooling; the hybrids follow

SMALL = (
    (Conv(3, 32, 2), Conv(1, 32)),
    (Conv(3, 96, 2), Conv(1, 64)),
    (UIB(5, 5, 96, 3, 2), *4 * (UIB(0, 3, 96, 2),), UIB(3, 0, 96, 4)),
    (UIB(3, 3, 128, 6, 2), UIB(5, 5, 128, 4), UIB(0, 5, 128, 4), UIB(0, 5, 128, 3), *2 * (UIB(0, 3, 128, 4),)),
    (Conv(1, 960),),
)
MEDIUM = (
    (Fused(3, 48, 2, 4),),
    (UIB(3, 5, 80, 4, 2), UIB(3, 3, 80, 2)),
    (UIB(3, 5, 160, 6, 2), UIB(3, 3, 160, 4), UIB(3, 3, 160, 4), UIB(3, 5, 160, 4), UIB(3, 3, 160, 4),
     UIB(3, 0, 160, 4), UIB(0, 0, 160, 2), UIB(3, 0, 160, 4)),
    (UIB(5, 5, 256, 6, 2), UIB(5, 5, 256, 4), UIB(3, 5, 256, 4), UIB(3, 5, 256, 4), UIB(0, 0, 256, 4),
     UIB(3, 0, 256, 4), UIB(3, 5, 256, 2), UIB(5, 5, 256, 4), UIB(0, 0, 256, 4), UIB(0, 0, 256, 4), UIB(5, 0, 256, 2)),
    (Conv(1, 960),),
)
LARGE = (
    (Fused(3, 48, 2, 4),),
    (UIB(3, 5, 96, 4, 2), UIB(3, 3, 96, 4)),
    (UIB(3, 5, 192, 4, 2), *3 * (UIB(3, 3, 192, 4),), UIB(3, 5, 192, 4), *5 * (UIB(5, 3, 192, 4),), UIB(3, 0, 192, 4)),
    (UIB(5, 5, 512, 4, 2), *3 * (UIB(5, 5, 512, 4),), UIB(5, 0, 512, 4), UIB(5, 3, 512, 4), *2 * (UIB(5, 0, 512, 4),),
     UIB(5, 3, 512, 4), UIB(5, 5, 512, 4), *3 * (UIB(5, 0, 512, 4),)),
    (Conv(1, 960),),
)
HYBRID_MEDIUM = (
    *MEDIUM[:2],
    (UIB(3, 5, 160, 6, 2), UIB(0, 0, 160, 2), UIB(3, 3, 160, 4), UIB(3, 5, 160, 4), MQA(4, 64, 2), UIB(3, 3, 160, 4),
     MQA(4, 64, 2), UIB(3, 0, 160, 4), MQA(4, 64, 2), UIB(3, 3, 160, 4), MQA(4, 64, 2), UIB(3, 0, 160, 4)),
    (UIB(5, 5, 256, 6, 2), UIB(5, 5, 256, 4), *2 * (UIB(3, 5, 256, 4),), UIB(0, 0, 256, 2), UIB(3, 5, 256, 2),
     UIB(0, 0, 256, 2), UIB(0, 0, 256, 4), MQA(4, 64), UIB(3, 0, 256, 4), MQA(4, 64), UIB(5, 5, 256, 4), MQA(4, 64),
     UIB(5, 0, 256, 4), MQA(4, 64), UIB(5, 0, 256, 4)),
    MEDIUM[4],
)
HYBRID_LARGE = (
    *LARGE[:2],
    (UIB(3, 5, 192, 4, 2), *3 * (UIB(3, 3, 192, 4),), UIB(3, 5, 192, 4), *2 * (UIB(5, 3, 192, 4),),
     *3 * (MQA(8, 48, 2), UIB(5, 3, 192, 4)), MQA(8, 48, 2), UIB(3, 0, 192, 4)),
    (UIB(5, 5, 512, 4, 2), *3 * (UIB(5, 5, 512, 4),), UIB(5, 0, 512, 4), UIB(5, 3, 512, 4), *2 * (UIB(5, 0, 512, 4),),
     UIB(5, 3, 512, 4), UIB(5, 5, 512, 4), *4 * (MQA(8, 64), UIB(5, 0, 512, 4))),
    LARGE[4],
)


class MobileNetV4(nn.Module):
    """(N, in_channels, H, W) -> (N, num_classes) logits.

    `stages` are rows of the paper's tables: `Conv`, `Fused`, `UIB` or `MQA`. `layer_scale` is the first value of a
    factor of each channel at the end of `UIB` and `MQA`; None leaves it out of `UIB`. `drop_path_rate` grows linearly
    over all rows, from 0. The 1280 hidden units come after the pooling, where they cost next to nothing. Raises
    `ValueError` for a rate outside [0, 1).
    """

    def __init__(
        self,
        *,
        in_channels: int = 3,
        num_classes: int = 1000,
        stages: Sequence[Sequence[Conv | Fused | UIB | MQA]] = SMALL,
        stem_width: int = 32,
        stem_stride: int = 2,
        activation: Callable[[], nn.Module] = nn.ReLU,
        layer_scale: float | None = None,
        dropout: float = 0.2,
        drop_path_rate: float = 0.0,
    ):
        super().__init__()
        rates = iter(linear_rates(drop_path_rate, [len(rows) for rows in stages], reached=False))
        attention_scale = 1e-5 if layer_scale is None else layer_scale
        self.stem = ConvNormAct(in_channels, stem_width, 3, stem_stride, activation=activation)
        self.stages, width = nn.Sequential(), stem_width
        for rows in stages:
            stage = nn.Sequential()
            for row, rate in zip(rows, rates):
                if isinstance(row, MQA):
                    stage.append(MobileAttention(width, *row, layer_scale=attention_scale, drop_path=rate))
                    continue
                if isinstance(row, Conv):
                    stage.append(ConvNormAct(width, row.out_channels, row.kernel_size, row.stride,
                                             activation=activation))
                elif isinstance(row, Fused):
                    stage.append(FusedBottleneck(width, row.out_channels, row.kernel_size, row.stride,
                                                 expansion=row.expansion, activation=activation))
                else:
                    stage.append(UniversalBottleneck(width, row.out_channels, row.start, row.middle, row.stride,
                                                     expansion=row.expansion, activation=activation,
                                                     layer_scale=layer_scale, drop_path=rate))
                width = row.out_channels
            self.stages.append(stage)
        self.head = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            ConvNormAct(width, 1280, 1, activation=activation),
            nn.Flatten(),
            nn.Dropout(dropout),
            nn.Linear(1280, num_classes),
        )
        initialize(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.stages(self.stem(x)))


def initialize(model: nn.Module) -> None:
    """As in EfficientNet, but for the convolutions of attention: uniform with variance 2 / (fan_in + fan_out).

    The softmax wants products of unit size, and no ReLU halves its inputs; timm reports steadier training.
    """
    initialize_per_group(model)
    for attention in model.modules():
        if isinstance(attention, MobileAttention):
            for module in attention.modules():
                if isinstance(module, nn.Conv2d):
                    nn.init.xavier_uniform_(module.weight)


def _without_stride(stages: Sequence, number: int) -> tuple:
    """The stages, with the stride of the first row of stage `number` taken away."""
    first, *others = stages[number]
    return (*stages[:number], (first._replace(stride=1), *others), *stages[number + 1:])


VARIANTS = (
    Variant("mobilenet_v4_conv_small", "Conv-S, at 224x224", twin="timm.mobilenetv4_conv_small"),
    Variant("mobilenet_v4_conv_medium", "Conv-M, at 256x256", {"stages": MEDIUM, "drop_path_rate": 0.075},
            (3, 256, 256), "timm.mobilenetv4_conv_medium"),
    Variant("mobilenet_v4_conv_large", "Conv-L, at 384x384",
            {"stages": LARGE, "stem_width": 24, "drop_path_rate": 0.35}, (3, 384, 384), "timm.mobilenetv4_conv_large"),
    Variant("mobilenet_v4_hybrid_medium", "Hybrid-M, with attention, at 256x256",
            {"stages": HYBRID_MEDIUM, "layer_scale": 1e-5, "drop_path_rate": 0.075}, (3, 256, 256),
            "timm.mobilenetv4_hybrid_medium"),
    Variant("mobilenet_v4_hybrid_large", "Hybrid-L, with attention and GELU, at 384x384",
            {"stages": HYBRID_LARGE, "stem_width": 24, "activation": nn.GELU, "layer_scale": 1e-5,
             "drop_path_rate": 0.35}, (3, 384, 384), "timm.mobilenetv4_hybrid_large"),
    Variant("mobilenet_v4_conv_small_cifar", "small-image form: Conv-S, for 32x32 images",
            {"stages": _without_stride(SMALL, 0), "stem_stride": 1, "num_classes": 10}, (3, 32, 32)),
)

register(MobileNetV4, VARIANTS, cite="qin2024mobilenetv4", year=2024)
