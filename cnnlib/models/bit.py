"""BiT: a ResNet without batch normalization, made to be pre-trained on very much and fine-tuned on very little, 2019.

Batch statistics are poor in small batches and wrong after a change of data, which is what transfer is. Big Transfer
normalizes groups of channels of each image instead, and standardizes the weights, w' = (w - mean) / sqrt(var + eps)
for each output channel, which gives back what the batch gave to training. Block by block it is the pre-activation
ResNet, y = x + F(relu(norm(x))).

- Kolesnikov, Beyer, Zhai, Puigcerver, Yung, Gelly, Houlsby. Big Transfer (BiT): General Visual Representation
  Learning. ECCV 2020, arXiv:1912.11370.
- Qiao, Wang, Liu, Shen, Yuille. Micro-Batch Training with Batch-Channel Normalization and Weight Standardization.
  arXiv:1903.10520, 2019.

**Differs from the paper:** the ImageNet classifier of 1,000 classes where the largest networks were trained with
21,843.
"""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from cnnlib.layers import pooled_classifier, standardized
from cnnlib.registry import Variant, register


class StandardizedConv2d(nn.Conv2d):
    """A convolution, without bias, by standardized weights: (N, in_channels, H, W) -> (N, out_channels, H', W')."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1):
        super().__init__(in_channels, out_channels, kernel_size, stride, kernel_size // 2, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.conv2d(x, standardized(self.weight, 1e-8), None, self.stride, self.padding)


def norm_act(channels: int) -> nn.Sequential:
    """Normalization in 32 groups, and ReLU."""
    return nn.Sequential(nn.GroupNorm(32, channels), nn.ReLU(inplace=True))


class Bottleneck(nn.Module):
    """x + F(relu(norm(x))): (N, in_channels, H, W) -> (N, out_channels, H/stride, W/stride).

    Where shapes change, x is projected by a 1x1 convolution of relu(norm(x)).
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1):
        super().__init__()
        width = out_channels // 4
        changes = stride > 1 or in_channels != out_channels
        self.projection = StandardizedConv2d(in_channels, out_channels, 1, stride) if changes else None
        self.preactivation = norm_act(in_channels)
        self.branch = nn.Sequential(
            StandardizedConv2d(in_channels, width, 1), norm_act(width),
            StandardizedConv2d(width, width, 3, stride), norm_act(width),
            StandardizedConv2d(width, out_channels, 1),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        activated = self.preactivation(x)
        shortcut = x if self.projection is None else self.projection(activated)
        return self.branch(activated) + shortcut


class BiT(nn.Module):
    """(N, in_channels, H, W) -> (N, num_classes) logits.

    `depths` are the blocks of the stages, `width_mult` multiplies all widths (the x1, x2, x3, x4 of the names).
    Raises `ValueError` for a multiplier that is not a positive integer.
    """

    def __init__(self, *, in_channels: int = 3, num_classes: int = 1000, depths: Sequence[int] = (3, 4, 6, 3),
                 width_mult: int = 1):
        super().__init__()
        if width_mult != int(width_mult) or width_mult < 1:
            raise ValueError(f"width_mult={width_mult!r} must be a positive integer; the paper has 1, 2, 3 and 4")
        channels = 64 * width_mult
        self.stem = nn.Sequential(
            StandardizedConv2d(in_channels, channels, 7, 2), nn.ConstantPad2d(1, 0.0), nn.MaxPool2d(3, 2))
        self.stages = nn.Sequential()
        for number, depth in enumerate(depths):
            stage, width = nn.Sequential(), 256 * width_mult * 2**number
            for index in range(depth):
                stage.append(Bottleneck(channels, width, 2 if number > 0 and index == 0 else 1))
                channels = width
            self.stages.append(stage)
        self.head = nn.Sequential(norm_act(channels), *pooled_classifier(channels, num_classes))
        initialize(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.stages(self.stem(x)))


def initialize(model: nn.Module) -> None:
    """Convolutions from N(0, 2/fan_out), the classifier from N(0, 0.01^2), its bias 0.

    Standardization makes the scale of a convolution's weights immaterial to its output; it sets how fast they turn.
    Zeros at the end of a branch, where others start, would have gradients 10,000 times as large: 1 / sqrt(0 + eps).
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out")
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.01)
            nn.init.zeros_(module.bias)


DEPTHS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}

VARIANTS = tuple(
    Variant(f"bit_{depth}x{width}", f"{depth} layers, {width} times the width",
            {"depths": DEPTHS[depth], "width_mult": width},
            twin=f"timm.resnetv2_{depth}x{width}_bit")
    for depth, width in ((50, 1), (50, 3), (101, 1), (101, 3), (152, 2), (152, 4))
)

register(BiT, VARIANTS, cite="kolesnikov2020bit", year=2019)
