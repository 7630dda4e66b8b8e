"""StarNet: multiply instead of add, 2024.

(w1 x)(w2 x) holds all products x_i x_j: one multiplication of two linear layers of d channels spans about d^2 / 2
dimensions, and layer upon layer doubles the degree, without any width. The paper's network has nothing else to offer:
a depthwise 7x7, two 1x1 side by side, relu6(f1) * f2, a 1x1 and a depthwise 7x7 back, and the input added.

- Ma, Dai, Bai, Wang, Fu. Rewrite the Stars. CVPR 2024, arXiv:2403.19967.

**Differs from the paper:** nothing.
"""

from collections.abc import Sequence
from functools import partial

import torch
from torch import nn

from cnnlib.layers import ConvNormAct, DropPath, initialize_truncated, linear_rates
from cnnlib.registry import Variant, register

conv = partial(ConvNormAct, bias=True, activation=None)  # here convolutions keep their bias before a norm


class StarBlock(nn.Module):
    """x + D2(g(relu6(f1(D1(x))) * f2(D1(x)))): keeps (N, width, H, W); `expansion` times as wide between f and g."""

    def __init__(self, width: int, *, expansion: int = 4, drop_path: float = 0.0):
        super().__init__()
        self.depthwise1 = conv(width, width, 7, groups=width)
        self.f1 = conv(width, expansion * width, 1, norm=None)
        self.f2 = conv(width, expansion * width, 1, norm=None)
        self.g = conv(expansion * width, width, 1)
        self.depthwise2 = conv(width, width, 7, groups=width, norm=None)
        self.activation = nn.ReLU6()
        self.drop_path = DropPath(drop_path)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.depthwise1(x)
        star = self.activation(self.f1(out)) * self.f2(out)
        return x + self.drop_path(self.depthwise2(self.g(star)))


class StarNet(nn.Module):
    """(N, in_channels, H, W) -> (N, num_classes) logits.

    Each stage halves the resolution and then has `depths[i]` blocks of `width` * 2^i channels. `stem_stride` is the
    stride of the first convolution, of 32 channels. `drop_path_rate` grows linearly over the blocks, from 0.
    """

    def __init__(self, *, in_channels: int = 3, num_classes: int = 1000, depths: Sequence[int] = (3, 3, 12, 5),
                 width: int = 32, expansion: int = 4, stem_stride: int = 2, drop_path_rate: float = 0.0):
        super().__init__()
        rates = iter(linear_rates(drop_path_rate, depths))
        channels = 32
        self.stem = ConvNormAct(in_channels, channels, 3, stem_stride, bias=True, activation=nn.ReLU6)
        self.stages = nn.Sequential()
        for number, depth in enumerate(depths):
            stage = nn.Sequential(conv(channels, width * 2**number, 3, 2))
            channels = width * 2**number
            for _ in range(depth):
                stage.append(StarBlock(channels, expansion=expansion, drop_path=next(rates)))
            self.stages.append(stage)
        self.head = nn.Sequential(
            nn.BatchNorm2d(channels), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, num_classes))
        initialize_truncated(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.stages(self.stem(x)))


VARIANTS = (  # the paper's Table 9
    *(
        Variant(f"starnet_s{number}", f"{', '.join(map(str, depths))} blocks, from {width} channels",
                {"depths": depths, "width": width}, twin=f"timm.starnet_s{number}")
        for number, depths, width in (
            (1, (2, 2, 8, 3), 24), (2, (1, 2, 6, 2), 32), (3, (2, 2, 8, 4), 32), (4, (3, 3, 12, 5), 32))
    ),
    Variant("starnet_cifar", "small-image form: S1 with a stem that keeps the resolution",
            {"depths": (2, 2, 8, 3), "width": 24, "stem_stride": 1, "num_classes": 10}, (3, 32, 32)),
)

register(StarNet, VARIANTS, cite="ma2024starnet", year=2024)
