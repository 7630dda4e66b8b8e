"""Pieces that two or more families share, and that are no family's idea: those stand in the families' own files."""

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn


def make_divisible(channels: float, divisor: int = 8) -> int:
    """The multiple of `divisor` nearest to positive `channels`, but never below 90% of them: so at least `divisor`.

    The rounding rule of the MobileNet, EfficientNet and RegNet reference implementations.
    """
    rounded = int(channels + divisor / 2) // divisor * divisor
    return rounded if rounded >= 0.9 * channels else rounded + divisor


def in_place(activation: nn.Module) -> nn.Module:
    """The activation, made to overwrite its input if it can: for behind a normalization, whose output nobody holds.

    Worth 3 to 7% of the speed of narrow networks on a CPU. The outputs of convolutions and of blocks stay as they are.
    """
    if hasattr(activation, "inplace"):
        activation.inplace = True
    return activation


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
            self.activation = activation() if norm is None else in_place(activation())


def response_norm() -> nn.LocalResponseNorm:
    """Local response normalization with the constants of Krizhevsky et al. (2012), section 3.3.

    k=2, n=5, alpha=1e-4, beta=0.75. The paper multiplies the *sum* over n channels by alpha, PyTorch their *mean*:
    hence 5 times alpha here.
    """
    return nn.LocalResponseNorm(size=5, alpha=5 * 1e-4, beta=0.75, k=2.0)


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


class LayerNorm2d(nn.LayerNorm):
    """Normalize the channels of each pixel: (N, C, H, W) -> the same (Ba et al., Layer Normalization, 2016)."""

    def __init__(self, channels: int):
        super().__init__(channels, eps=1e-6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.layer_norm(x.permute(0, 2, 3, 1), self.normalized_shape, self.weight, self.bias, self.eps)
        return x.permute(0, 3, 1, 2)


def standardized(weight: torch.Tensor, eps: float) -> torch.Tensor:
    """Weights (out_channels, ...) of mean 0 and variance 1 for each channel: a layer norm of filters, with its `eps`.

    Qiao et al., Micro-Batch Training with Batch-Channel Normalization and Weight Standardization, 2019.
    """
    return F.layer_norm(weight, weight.shape[1:], eps=eps)


def linear_rates(last: float, depths: Sequence[int], *, reached: bool = True) -> list[float]:
    """A drop-path rate for each of sum(depths) blocks, growing linearly from 0 in the first to `last` in the last.

    Without `reached` a block behind the last would have it. Raises `ValueError` unless 0 <= last < 1.
    """
    if not 0 <= last < 1:
        raise ValueError(f"drop_path_rate={last!r} is not in [0, 1)")
    return [last * index / max(sum(depths) - reached, 1) for index in range(sum(depths))]


def check_equally_many(**sequences: Sequence) -> None:
    """Raises `ValueError` unless all have as many entries as the others, and at least one: one for each stage."""
    if len(set(map(len, sequences.values()))) > 1 or not all(sequences.values()):
        given = [f"{name}={tuple(entries)!r}" for name, entries in sequences.items()]
        raise ValueError(f"{', '.join(given[:-1])} and {given[-1]} must name equally many stages, at least one")


# What residual families share: shortcuts, stages, stems; their blocks are in their files


class PaddedShortcut(nn.Module):
    """The identity between maps of different shape: every `stride`-th row and column, zeros for the new channels.

    (N, C, H, W) -> (N, C + new_channels, ceil(H / stride), ceil(W / stride)), without parameters.
    """

    def __init__(self, new_channels: int, stride: int):
        super().__init__()
        self.new_channels, self.stride = new_channels, stride

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.new_channels))

    def extra_repr(self) -> str:
        return f"new_channels={self.new_channels}, stride={self.stride}"


def make_shortcut(
    in_channels: int,
    out_channels: int,
    stride: int,
    option: Literal["A", "B", "C"] = "B",
    *,
    kernel_size: int = 1,
    norm: Callable[[int], nn.Module] | None = nn.BatchNorm2d,
) -> nn.Module:
    """The path around a residual branch, by the options of He et al. (2015), section 4.1.

    "A" pads with zeros where the shape changes, "B" projects there (1x1 convolution and normalization), "C" projects
    everywhere; where nothing has to change, A and B are the identity. Raises `ValueError` for another option, and
    for "A" if the channels become fewer.
    """
    if option not in ("A", "B", "C"):
        raise ValueError(f"shortcut={option!r}; choose 'A' (zero padding), 'B' (projection where the shape changes) or "
                         "'C' (projection everywhere)")
    if option != "C" and stride == 1 and in_channels == out_channels:
        return nn.Identity()
    if option == "A":
        if out_channels < in_channels:
            raise ValueError(f"shortcut 'A' adds channels, but {in_channels} would become {out_channels}")
        return PaddedShortcut(out_channels - in_channels, stride)
    return ConvNormAct(in_channels, out_channels, kernel_size, stride, bias=False, norm=norm, activation=None)


def norm_act(channels: int) -> list[nn.Module]:
    """Batch normalization and ReLU, in the order of pre-activation."""
    return [nn.BatchNorm2d(channels), in_place(nn.ReLU())]


def residual_stages(
    block: Callable[..., nn.Module],
    in_channels: int,
    widths: Sequence[int],
    depths: Sequence[int],
    *,
    drop_path_rate: float = 0.0,
) -> nn.Sequential:
    """One stage of `depths[i]` blocks for each entry; all stages but the first halve height and width at their start.

    Calls `block(in_channels, width, stride, drop_path=...)` and reads `out_channels` of what it gets. Block l of L is
    dropped with probability l / L * drop_path_rate: the linear rule of stochastic depth (Huang et al., 2016, equation
    4, where p_L = 1 - drop_path_rate). Raises `ValueError` for empty or unequal lists and for a rate outside [0, 1).
    """
    if not depths or len(widths) != len(depths) or min(depths) < 1:
        raise ValueError(f"widths={tuple(widths)!r} and depths={tuple(depths)!r} must name as many stages, none empty")
    if not 0 <= drop_path_rate < 1:
        raise ValueError(f"drop_path_rate={drop_path_rate!r} is not in [0, 1)")
    stages, number = nn.Sequential(), 0
    for index, (width, depth) in enumerate(zip(widths, depths)):
        stage = nn.Sequential()
        for position in range(depth):
            number += 1
            stride = 2 if index > 0 and position == 0 else 1
            stage.append(block(in_channels, width, stride, drop_path=drop_path_rate * (number / sum(depths))))
            in_channels = stage[-1].out_channels
        stages.append(stage)
    return stages


def residual_stem(in_channels: int, out_channels: int, form: Literal["imagenet", "cifar"]) -> nn.Sequential:
    """"imagenet": 7x7 convolution and 3x3 max pooling, both of stride 2; "cifar": one 3x3 convolution of stride 1."""
    if form not in ("imagenet", "cifar"):
        raise ValueError(f"stem={form!r}; choose 'imagenet' or 'cifar'")
    if form == "cifar":
        return ConvNormAct(in_channels, out_channels, 3)
    return nn.Sequential(ConvNormAct(in_channels, out_channels, 7, 2), nn.MaxPool2d(3, 2, padding=1))


def pooled_classifier(in_channels: int, num_classes: int) -> nn.Sequential:
    """Global average pooling and one fully connected layer: (N, in_channels, H, W) -> (N, num_classes)."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(in_channels, num_classes))


def initialize_he_fan_out(model: nn.Module) -> None:
    """Convolution weights from N(0, 2 / fan_out), biases 0; the rest stays as PyTorch initializes it.

    Variance 2 / n undoes the halving by ReLU (He et al., Delving Deep into Rectifiers, 2015). With n counted at the
    output, gradients keep their size on the way back; forward, the normalizations see to it.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def initialize_he_fan_in(model: nn.Module) -> None:
    """Weights of convolutions and fully connected layers from N(0, 2 / fan_in), biases 0.

    Variance 2 / n, with n counted at the input, keeps the size of the signal on its way through ReLU layers (He et
    al., 2015): what a network without normalization needs.
    """
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def initialize_xavier(model: nn.Module) -> None:
    """Weights of convolutions and fully connected layers uniform, of variance 2 / (fan_in + fan_out), biases 0.

    Between what keeps the size of a signal and what keeps the size of a gradient, through units of slope one at zero,
    such as tanh (Glorot and Bengio, Understanding the difficulty of training deep feedforward neural networks, 2010).
    """
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def initialize_per_group(model: nn.Module) -> None:
    """Convolutions from N(0, 2 / fan_out), the classifier uniform within 1 / sqrt(classes), biases 0.

    As the code of EfficientNet's authors has it. fan_out counts the outputs that one input reaches: a depthwise filter
    of k x k weights has k x k, and so begins as large as its work asks for.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            fan_out = module.weight[0, 0].numel() * module.out_channels // module.groups
            nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
        elif isinstance(module, nn.Linear):
            bound = 1 / math.sqrt(module.out_features)
            nn.init.uniform_(module.weight, -bound, bound)
        if isinstance(module, (nn.Conv2d, nn.Linear)) and module.bias is not None:
            nn.init.zeros_(module.bias)


def initialize_truncated(model: nn.Module, std: float = 0.02) -> None:
    """Weights of convolutions and fully connected layers from N(0, std^2) cut off at +-2, biases 0.

    It does not look at a layer's size: the habit comes from transformers, and normalization makes up for it.
    """
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.trunc_normal_(module.weight, std=std)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
