"""FasterNet: convolve a quarter of the channels and let the others pass, 2023.

Few operations are not little time. A depthwise convolution does little with each value that it fetches, and waits for
memory. A partial convolution is an ordinary, dense one on the first quarter of the channels, and the others stay as
they are: a sixteenth of the operations, a quarter of the memory's traffic, and hardware at full speed. Two 1x1
convolutions then mix all channels, so that each learns from those that were convolved.

- Chen, Kao, He, Zhuo, Wen, Lee, Chan. Run, Don't Walk: Chasing Higher FLOPS for Faster Neural Networks. CVPR 2023,
  arXiv:2303.03667.

**Differs from the paper:** `fasternet_cifar` begins with patches of 2x2, for 32x32 images. Otherwise nothing.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import nn

from cnnlib.layers import ConvNormAct, DropPath, initialize_truncated, linear_rates
from cnnlib.registry import Variant, register

conv = partial(ConvNormAct, bias=False, activation=None)


class PartialConv(nn.Module):
    """[conv3x3(x'), x''] for x = [x', x'']: keeps (N, channels, H, W) and convolves channels / `divisor` of them.

    Raises `ValueError` unless `divisor` divides the channels.
    """

    def __init__(self, channels: int, divisor: int = 4):
        super().__init__()
        if channels % divisor:
            raise ValueError(f"divisor={divisor} must divide the {channels} channels")
        self.split = (channels // divisor, channels - channels // divisor)
        self.conv = conv(*2 * self.split[:1], norm=None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        convolved, kept = x.split(self.split, 1)
        return torch.cat([self.conv(convolved), kept], 1)


class FasterBlock(nn.Module):
    """x + W2 g(norm(W1 P(x))), P a partial convolution: keeps (N, width, H, W); `expansion` times as wide inside."""

    def __init__(self, width: int, *, expansion: int = 2, divisor: int = 4,
                 activation: Callable[[], nn.Module] = nn.ReLU, drop_path: float = 0.0):
        super().__init__()
        self.mix = nn.Sequential(
            conv(width, expansion * width, 1, activation=activation), conv(expansion * width, width, 1, norm=None))
        self.partial = PartialConv(width, divisor)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.drop_path(self.mix(self.partial(x)))


class Stage(nn.Module):
    """Merge patches of 2x2 pixels into one of twice the channels (all stages but the first), then the blocks.

    `merge` stands behind `blocks`, as in timm, though it runs before them.
    """

    def __init__(self, merge: nn.Module, *blocks: FasterBlock):
        super().__init__()
        self.blocks = nn.Sequential(*blocks)
        self.merge = merge

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.blocks(self.merge(x))


class FasterNet(nn.Module):
    """(N, in_channels, H, W) -> (N, num_classes) logits.

    `depths` are the blocks of each stage; channels double from `width`. The stem is one convolution of `patch_size` x
    `patch_size` pixels that do not overlap. The hidden units of the head come after the pooling. `drop_path_rate` grows
    linearly over the blocks, from 0. Raises `ValueError` if `divisor` does not divide the width.
    """

    def __init__(self, *, in_channels: int = 3, num_classes: int = 1000, depths: Sequence[int] = (1, 2, 8, 2),
                 width: int = 40, divisor: int = 4, patch_size: int = 4, hidden: int = 1280,
                 activation: Callable[[], nn.Module] = nn.ReLU, drop_path_rate: float = 0.0):
        super().__init__()
        rates = iter(linear_rates(drop_path_rate, depths))
        widths = [width * 2**number for number in range(len(depths))]
        self.stem = conv(in_channels, width, patch_size, patch_size, padding=0)
        self.stages = nn.Sequential()
        for number, (depth, channels) in enumerate(zip(depths, widths)):
            blocks = [FasterBlock(channels, divisor=divisor, activation=activation, drop_path=next(rates))
                      for _ in range(depth)]
            merge = conv(channels // 2, channels, 2, 2, padding=0) if number else nn.Identity()
            self.stages.append(Stage(merge, *blocks))
        self.head = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            conv(widths[-1], hidden, 1, norm=None, activation=activation),
            nn.Flatten(),
            nn.Linear(hidden, num_classes),
        )
        initialize_truncated(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.stages(self.stem(x)))


VARIANTS = (  # the paper's Table 7; the smallest two have GELU
    *(
        Variant(f"fasternet_{size}", f"{', '.join(map(str, depths))} blocks, from {width} channels",
                {"depths": depths, "width": width, "drop_path_rate": rate} | (
                    {"activation": nn.GELU} if size in ("t0", "t1") else {}),
                twin=f"timm.fasternet_{size}")
        for size, depths, width, rate in (
            ("t0", (1, 2, 8, 2), 40, 0.0), ("t1", (1, 2, 8, 2), 64, 0.02), ("t2", (1, 2, 8, 2), 96, 0.05),
            ("s", (1, 2, 13, 2), 128, 0.1), ("m", (3, 4, 18, 3), 144, 0.2), ("l", (3, 4, 18, 3), 192, 0.3))
    ),
    Variant("fasternet_cifar", "small-image form: T0 with patches of 2x2",
            {"patch_size": 2, "activation": nn.GELU, "num_classes": 10}, (3, 32, 32)),
)

register(FasterNet, VARIANTS, cite="chen2023fasternet", year=2023)
