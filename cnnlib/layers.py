"""Pieces that two or more families share."""

from collections.abc import Callable

import torch
from torch import nn


def make_divisible(channels: float, divisor: int = 8) -> int:
    """The multiple of `divisor` nearest to `channels`, at least `divisor`, and never below 90% of `channels`.

    The rounding rule of the MobileNet, EfficientNet and RegNet reference implementations.
    """
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded if rounded >= 0.9 * channels else rounded + divisor


class ConvNormAct(nn.Sequential):
    """Convolution, normalization, activation: (N, in_channels, H, W) -> (N, out_channels, H', W').

    `padding=None` means (kernel_size - 1) // 2, which keeps the size at stride 1. `norm` and `activation` are called
    with the channels and with nothing; None leaves the layer out. The convolution has a bias only if no
    normalization follows, unless `bias` says otherwise. Raises `ValueError` if `groups` does not divide the channels.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        stride: int = 1,
        *,
        padding: int | None = None,
        groups: int = 1,
        bias: bool | None = None,
        norm: Callable[[int], nn.Module] | None = nn.BatchNorm2d,
        activation: Callable[[], nn.Module] | None = nn.ReLU,
    ):
        super().__init__()
        if in_channels % groups or out_channels % groups:
            raise ValueError(f"groups={groups} must divide in_channels={in_channels} and out_channels={out_channels}")
        padding = (kernel_size - 1) // 2 if padding is None else padding
        bias = norm is None if bias is None else bias
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, groups=groups, bias=bias)
        if norm is not None:
            self.norm = norm(out_channels)
        if activation is not None:
            self.activation = activation()


class SqueezeExcitation(nn.Module):
    """Scale each channel by a gate computed from the means of all channels; keeps (N, channels, H, W).

    Squeeze to `squeeze_channels`, `activation`, expand, `gate` (Hu et al., Squeeze-and-Excitation Networks, 2018).
    The two fully connected layers are 1x1 convolutions of a 1x1 map.
    """

    def __init__(
        self,
        channels: int,
        squeeze_channels: int,
        *,
        activation: Callable[[], nn.Module] = nn.ReLU,
        gate: Callable[[], nn.Module] = nn.Sigmoid,
    ):
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.squeeze = nn.Conv2d(channels, squeeze_channels, 1)
        self.activation = activation()
        self.excite = nn.Conv2d(squeeze_channels, channels, 1)
        self.gate = gate()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.gate(self.excite(self.activation(self.squeeze(self.pool(x)))))


class DropPath(nn.Module):
    """Drop the whole tensor of a sample with `probability` in training, and scale the kept ones to the same mean.

    Placed at the end of a residual branch it skips the branch, sample by sample; in evaluation it does nothing
    (Huang et al., Deep Networks with Stochastic Depth, 2016). Raises `ValueError` unless 0 <= probability < 1.
    """

    def __init__(self, probability: float):
        super().__init__()
        if not 0 <= probability < 1:
            raise ValueError(f"drop probability {probability!r} is not in [0, 1)")
        self.probability = probability

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training or self.probability == 0:
            return x
        keep = 1 - self.probability
        return x * x.new_empty(len(x), *[1] * (x.ndim - 1)).bernoulli_(keep).div_(keep)

    def extra_repr(self) -> str:
        return f"probability={self.probability:g}"
