"""NFNet: no normalization at all, 2021.

Batch normalization keeps the size of signals, holds residual branches small at the start, and takes the mean out of
the activations. Each can be had without it: y = x + alpha F(x / beta), where beta is what the size of x is by
counting, a variance of 1 after each projection and alpha^2 more with every block; convolutions by standardized
weights, scaled so that convolution and activation together keep the variance; branches that start at gain 0. What is
left, that large steps break such a network, is cured by clipping each gradient relative to its weights (adaptive
gradient clipping, in the paper's section 4; not part of a network).

- Brock, De, Smith, Simonyan. High-Performance Large-Scale Image Recognition Without Normalization. ICML 2021,
  arXiv:2102.06171.
- Brock, De, Smith. Characterizing Signal Propagation to Close the Performance Gap in Unnormalized ResNets. ICLR 2021,
  arXiv:2101.08692.

**Differs from the paper:**

- Symmetric padding; the activation's constant stands in the weights, as in timm, where the authors multiply each
  activation; branches start at zero by the gain of their last convolution instead of by a number of their own.
- `nfnet_cifar`: a stem without strides, blocks (1, 2, 3, 2) of 32 to 192 channels, groups of 16, for 32x32 images.
"""

import math
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from cnnlib.layers import DropPath, SqueezeExcitation, check_equally_many, linear_rates, standardized
from cnnlib.registry import Variant, register

GELU_GAIN = 1.7015043497085571  # 1 / the deviation of gelu(z), z normal: the authors' published constant


class ScaledConv2d(nn.Conv2d):
    """A convolution with bias by the weights gain * 1.70 * standardized(w) / sqrt(fan_in): keeps the variance through
    GELU."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, *, groups: int = 1):
        super().__init__(in_channels, out_channels, kernel_size, stride, kernel_size // 2, groups=groups)
        self.gain = nn.Parameter(torch.ones(out_channels, 1, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scale = GELU_GAIN / math.sqrt(self.weight[0].numel())
        weight = self.gain * scale * standardized(self.weight, 1e-5)
        return F.conv2d(x, weight, self.bias, self.stride, self.padding, groups=self.groups)


class NormFreeBlock(nn.Module):
    """shortcut(x) + alpha * 2 * SE(F(gelu(x) / beta)): (N, in_channels, H, W) -> (N, out_channels, H/stride,
    W/stride).

    F is 1x1, grouped 3x3, grouped 3x3, 1x1 with half the channels inside and groups of `group_size`. Where shapes
    change, the shortcut averages over 2x2 (at stride 2) and projects gelu(x) / beta by 1x1. The 2 makes up for the
    mean of a gate.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1, *, alpha: float, beta: float,
                 group_size: int, drop_path: float = 0.0):
        super().__init__()
        self.alpha, self.beta = alpha, beta
        width = out_channels // 2
        groups = width // group_size
        self.projection = None
        if stride > 1 or in_channels != out_channels:
            self.projection = nn.Sequential()
            if stride > 1:
                self.projection.append(nn.AvgPool2d(2, stride, ceil_mode=True, count_include_pad=False))
            self.projection.append(ScaledConv2d(in_channels, out_channels, 1))
        self.preactivation = nn.GELU()
        self.branch = nn.Sequential(
            ScaledConv2d(in_channels, width, 1), nn.GELU(),
            ScaledConv2d(width, width, 3, stride, groups=groups), nn.GELU(),
            ScaledConv2d(width, width, 3, groups=groups), nn.GELU(),
            ScaledConv2d(width, out_channels, 1),
        )
        self.excite = SqueezeExcitation(out_channels, out_channels // 2)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        activated = self.preactivation(x) / self.beta
        shortcut = x if self.projection is None else self.projection(activated)
        return shortcut + self.alpha * self.drop_path(2 * self.excite(self.branch(activated)))

    def extra_repr(self) -> str:
        return f"alpha={self.alpha:g}, beta={self.beta:.4g}"


class NFNet(nn.Module):
    """(N, in_channels, H, W) -> (N, num_classes) logits.

    `depths` and `widths` are blocks and channels of the stages, the first of which keeps the resolution. The stem has
    four 3x3 convolutions of `stem_width` / 8 to `stem_width` channels, with `stem_strides`. `alpha` as above.
    `drop_path_rate` grows linearly over the blocks, from 0. Raises `ValueError` if depths and widths do not name
    equally many stages, and for a `group_size` that does not divide half of each width.
    """

    def __init__(
        self,
        *,
        in_channels: int = 3,
        num_classes: int = 1000,
        depths: Sequence[int] = (1, 2, 6, 3),
        widths: Sequence[int] = (256, 512, 1536, 1536),
        stem_width: int = 128,
        stem_strides: Sequence[int] = (2, 1, 1, 2),
        group_size: int = 128,
        alpha: float = 0.2,
        dropout: float = 0.2,
        drop_path_rate: float = 0.0,
    ):
        super().__init__()
        check_equally_many(depths=depths, widths=widths)
        if any(width // 2 % group_size for width in widths):
            raise ValueError(f"group_size={group_size!r} must divide half of each of widths={tuple(widths)}")
        self.stem, channels = nn.Sequential(), in_channels
        for index, (divisor, stride) in enumerate(zip((8, 4, 2, 1), stem_strides, strict=True)):
            if index:
                self.stem.append(nn.GELU())
            self.stem.append(ScaledConv2d(channels, stem_width // divisor, 3, stride))
            channels = stem_width // divisor
        rates = iter(linear_rates(drop_path_rate, depths))
        self.stages, variance = nn.Sequential(), 1.0
        for number, (depth, width) in enumerate(zip(depths, widths)):
            stage = nn.Sequential()
            for index in range(depth):
                stage.append(NormFreeBlock(channels, width, 2 if number > 0 and index == 0 else 1, alpha=alpha,
                                           beta=math.sqrt(variance), group_size=group_size, drop_path=next(rates)))
                variance = (1.0 if index == 0 else variance) + alpha**2  # a projection starts again from 1
                channels = width
            self.stages.append(stage)
        self.head = nn.Sequential(
            ScaledConv2d(channels, 2 * channels, 1), nn.GELU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout), nn.Linear(2 * channels, num_classes),
        )
        initialize(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.stages(self.stem(x)))


def initialize(model: nn.Module) -> None:
    """Convolutions from N(0, 1 / fan_in), the classifier from N(0, 0.01^2), biases 0, gain 0 where a branch ends.

    Standardization makes the scale of the weights immaterial; the gains, here 0 and 1, are what counts.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="linear")
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.01)
        if isinstance(module, (nn.Conv2d, nn.Linear)) and module.bias is not None:
            nn.init.zeros_(module.bias)
    for module in model.modules():
        if isinstance(module, NormFreeBlock):
            nn.init.zeros_(module.branch[-1].gain)


# Table 1 of the paper: F0 to F6, depths (1, 2, 6, 3) times 1 to 7; images at test time, dropout, and section 4.3
ROWS = ((256, 0.2), (320, 0.3), (352, 0.4), (416, 0.4), (512, 0.5), (544, 0.5), (576, 0.5))

VARIANTS = (
    *(
        Variant(f"nfnet_f{number}", f"{number + 1} times the depths (1, 2, 6, 3), at {size}x{size}",
                {"depths": tuple((number + 1) * depth for depth in (1, 2, 6, 3)), "dropout": dropout,
                 "drop_path_rate": 0.25}, (3, size, size), f"timm.nfnet_f{number}")
        for number, (size, dropout) in enumerate(ROWS)
    ),
    Variant("nfnet_cifar", "small-image form: 32 to 192 channels and a stem without strides",
            {"depths": (1, 2, 3, 2), "widths": (32, 64, 128, 192), "stem_width": 32, "stem_strides": (1, 1, 1, 1),
             "group_size": 16, "dropout": 0.0, "num_classes": 10}, (3, 32, 32)),
)

register(NFNet, VARIANTS, cite="brock2021nfnet", year=2021)
