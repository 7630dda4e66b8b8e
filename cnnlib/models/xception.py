"""Xception: Inception taken to its end, 2016.

An Inception module cuts the channels into three or four groups and filters each by itself. With as many groups as
channels, places and channels are treated wholly apart: a depthwise convolution and a 1x1 convolution. Xception is a
stack of these in residual blocks, y = F(x) + shortcut(x), with nothing else in it; between the two there is no
activation, which the paper finds to hurt.

- Chollet. Xception: Deep Learning with Depthwise Separable Convolutions. CVPR 2017, arXiv:1610.02357.

**Differs from the paper:**

- The size of a map is kept by symmetric padding, where TensorFlow's puts the odd row below; the two convolutions of
  the stem pad nothing, as in the author's code.
- No dropout before the classifier, which the author's code lacks too.
"""

import torch
from torch import nn

from cnnlib.layers import initialize_he_fan_out, pooled_classifier
from cnnlib.registry import Variant, register


class SeparableConv(nn.Sequential):
    """3x3 for each channel, 1x1 across them, batch normalization: (N, in_channels, H, W) -> (N, out_channels, H,
    W)."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.depthwise = nn.Conv2d(in_channels, in_channels, 3, padding=1, groups=in_channels, bias=False)
        self.pointwise = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)


class Block(nn.Module):
    """F(x) + shortcut(x), with separable convolutions of `widths` in F: (N, in_channels, H, W) -> (N, widths[-1], H',
    W').

    Each separable convolution comes after a ReLU, but the first only if `activate_first`. With `stride` 2 a pooling
    ends F and a 1x1 convolution is the shortcut; otherwise it is the identity.
    """

    def __init__(self, in_channels: int, widths: tuple[int, ...], stride: int = 1, *, activate_first: bool = True):
        super().__init__()
        self.shortcut = nn.Identity() if stride == 1 and in_channels == widths[-1] else nn.Sequential(
            nn.Conv2d(in_channels, widths[-1], 1, stride, bias=False), nn.BatchNorm2d(widths[-1]))
        layers: list[nn.Module] = []
        for index, width in enumerate(widths):
            if index or activate_first:
                layers.append(nn.ReLU(inplace=index > 0))  # the block's input is still needed
            layers.append(SeparableConv(in_channels, width))
            in_channels = width
        if stride > 1:
            layers.append(nn.MaxPool2d(3, stride, padding=1))
        self.branch = nn.Sequential(*layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.branch(x) + self.shortcut(x)


class Xception(nn.Module):
    """(N, in_channels, H, W) -> (N, num_classes) logits. `depth` is the number of blocks of the middle flow."""

    def __init__(self, *, in_channels: int = 3, num_classes: int = 1000, depth: int = 8):
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, 32, 3, 2, bias=False), nn.BatchNorm2d(32), nn.ReLU(inplace=True),
            nn.Conv2d(32, 64, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(inplace=True),
        )
        self.stages = nn.Sequential(  # 147x147, 74x74, 37x37, 19x19, 10x10 for 299x299 images
            nn.Sequential(Block(64, (128, 128), 2, activate_first=False)),
            nn.Sequential(Block(128, (256, 256), 2)),
            nn.Sequential(Block(256, (728, 728), 2), *(Block(728, (728, 728, 728)) for _ in range(depth))),
            nn.Sequential(Block(728, (728, 1024), 2), SeparableConv(1024, 1536), nn.ReLU(inplace=True),
                          SeparableConv(1536, 2048), nn.ReLU(inplace=True)),
        )
        self.head = pooled_classifier(2048, num_classes)
        initialize_he_fan_out(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.stages(self.stem(x)))


VARIANTS = (Variant("xception", "the paper's network, at 299x299", {}, (3, 299, 299), "timm.legacy_xception"),)

register(Xception, VARIANTS, cite="chollet2017xception", year=2016)
