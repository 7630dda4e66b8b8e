"""MnasNet: a search that measures time on a telephone, 2018.

Multiply-adds are a poor guide to time, so this search runs each candidate on a Pixel 1 and rewards accuracy * (time /
target)^w with w = -0.07: five per cent more accuracy for twice the time is an even exchange. Its space is factorized:
each stage has its own block, kernel, expansion and number of layers, all blocks of a stage being equal, so that early
and late stages may differ. What it found is MobileNetV2's inverted residual with 5x5 filters and, in A1,
squeeze-and-excitation in some stages; EfficientNet and MobileNetV3 start from here.

- Tan, Chen, Pang, Vasudevan, Sandler, Howard, Le. MnasNet: Platform-Aware Neural Architecture Search for Mobile. CVPR
  2019, arXiv:1807.11626.

**Differs from the paper:**

- Symmetric padding, where TensorFlow pads below and to the right.
- Other widths multiply the stem and the first stage too, as in torchvision; the 1280 units of the head stay.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn

from cnnlib.layers import ConvNormAct, SqueezeExcitation, make_divisible
from cnnlib.registry import Variant, register


def norm(channels: int) -> nn.BatchNorm2d:
    """Batch normalization with the paper's momentum of 0.9997, in PyTorch's count."""
    return nn.BatchNorm2d(channels, momentum=1 - 0.9997)


class InvertedResidual(nn.Module):
    """1x1 up, depthwise, 1x1 down without activation, and the input where shapes agree: (N, C, H, W) -> (N, C', H',
    W').

    `expansion=1` leaves the first out, and then the shortcut too. `excite` squeezes to a quarter of the block's
    input.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int, *, expansion: int,
                 excite: bool = False):
        super().__init__()
        width = expansion * in_channels
        self.has_shortcut = stride == 1 and in_channels == out_channels and expansion != 1
        self.expand = ConvNormAct(in_channels, width, 1, norm=norm) if expansion != 1 else nn.Identity()
        self.depthwise = ConvNormAct(width, width, kernel_size, stride, groups=width, norm=norm)
        self.excite = SqueezeExcitation(width, in_channels // 4) if excite else nn.Identity()
        self.project = ConvNormAct(width, out_channels, 1, norm=norm, activation=None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.project(self.excite(self.depthwise(self.expand(x))))
        return x + out if self.has_shortcut else out


class Stage(NamedTuple):
    """A stage of Figure 7: `depth` equal blocks, of which the first has the stride."""

    expansion: int
    kernel_size: int
    stride: int
    width: int
    depth: int
    excite: bool = False


B1 = (
    Stage(1, 3, 1, 16, 1),
    Stage(3, 3, 2, 24, 3),
    Stage(3, 5, 2, 40, 3),
    Stage(6, 5, 2, 80, 3),
    Stage(6, 3, 1, 96, 2),
    Stage(6, 5, 2, 192, 4),
    Stage(6, 3, 1, 320, 1),
)
A1 = (
    Stage(1, 3, 1, 16, 1),
    Stage(6, 3, 2, 24, 2),
    Stage(3, 5, 2, 40, 3, True),
    Stage(6, 3, 2, 80, 4),
    Stage(6, 3, 1, 112, 2, True),
    Stage(6, 5, 2, 160, 3, True),
    Stage(6, 3, 1, 320, 1),
)


class MnasNet(nn.Module):
    """(N, in_channels, H, W) -> (N, num_classes) logits.

    `width_mult` multiplies all widths but the head's, rounded to multiples of 8. Raises `ValueError` for a multiplier
    that is not positive.
    """

    def __init__(
        self,
        *,
        in_channels: int = 3,
        num_classes: int = 1000,
        stages: Sequence[Stage] = B1,
        width_mult: float = 1.0,
        dropout: float = 0.2,
    ):
        super().__init__()
        if not width_mult > 0:
            raise ValueError(f"width_mult={width_mult!r} must be positive; published networks have 0.5 to 1.3")
        width = make_divisible(32 * width_mult)
        self.stem = ConvNormAct(in_channels, width, 3, 2, norm=norm)
        self.stages = nn.Sequential()
        for row in stages:
            stage, out_channels = nn.Sequential(), make_divisible(row.width * width_mult)
            for stride in [row.stride] + (row.depth - 1) * [1]:
                stage.append(InvertedResidual(width, out_channels, row.kernel_size, stride, expansion=row.expansion,
                                              excite=row.excite))
                width = out_channels
            self.stages.append(stage)
        self.head = nn.Sequential(
            ConvNormAct(width, 1280, 1, norm=norm),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Dropout(dropout),
            nn.Linear(1280, num_classes),
        )
        initialize(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.stages(self.stem(x)))


def initialize(model: nn.Module) -> None:
    """Convolutions from N(0, 2/fan_out), the classifier uniform within sqrt(3 / classes), biases 0, as torchvision
    does.

    The paper does not say. The classifier's variance is 1 / fan_out: gradients keep their size on the way back.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out")
        elif isinstance(module, nn.Linear):
            nn.init.kaiming_uniform_(module.weight, mode="fan_out", nonlinearity="sigmoid")
        if isinstance(module, (nn.Conv2d, nn.Linear)) and module.bias is not None:
            nn.init.zeros_(module.bias)


VARIANTS = (
    Variant("mnasnet_a1", "found with squeeze-and-excitation in the search space", {"stages": A1},
            twin="timm.semnasnet_100"),
    Variant("mnasnet_b1", "found without squeeze-and-excitation", twin="torchvision.mnasnet1_0"),
    *(
        Variant(f"mnasnet_b1_{name}", f"B1 at {width_mult:g} times the width", {"width_mult": width_mult},
                twin=f"torchvision.mnasnet{twin}")
        for name, width_mult, twin in (("050", 0.5, "0_5"), ("075", 0.75, "0_75"), ("130", 1.3, "1_3"))
    ),
)

register(MnasNet, VARIANTS, cite="tan2019mnasnet", year=2018)
