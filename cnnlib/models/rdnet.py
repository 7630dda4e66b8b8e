"""RDNet: DenseNet once more, with what ConvNeXt learned, 2024.

Addition won over concatenation by habit, the authors argue, not by merit. They keep DenseNet's equation, layer l
receives x_l = [x_0, F_1(x_0), ..., F_l(x_{l-1})], and renew the rest: few wide layers instead of many thin ones (a
large growth rate), ConvNeXt's layer (depthwise 7x7, layer norm, 1x1 up, GELU, 1x1 down) for F, patches for a stem,
and a transition that halves the channels after every third layer, whether the resolution falls or not.

- Kim, Heo, Han. DenseNets Reloaded: Paradigm Shift Beyond ResNets and ViTs. ECCV 2024, arXiv:2403.19588.

**Differs from the paper:**

- `rdnet_cifar`: 2x2 patches for 32x32 images, growth 32 to 64.
"""

from collections.abc import Sequence

import torch
from torch import nn

from cnnlib.layers import DropPath, LayerNorm2d, linear_rates
from cnnlib.registry import Variant, register


class ChannelGate(nn.Module):
    """x * hardsigmoid(W means + b), squeeze-and-excitation without the squeeze: keeps (N, channels, H, W)."""

    def __init__(self, channels: int):
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.excite = nn.Conv2d(channels, channels, 1)
        self.gate = nn.Hardsigmoid()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.gate(self.excite(self.pool(x)))


class DenseLayer(nn.Module):
    """[x, scale * F(x)]: (N, in_channels, H, W) -> (N, in_channels + growth, H, W).

    Between the 1x1 convolutions F has four times the channels of x, in multiples of 8.
    """

    def __init__(self, in_channels: int, growth: int, *, gated: bool, drop_path: float = 0.0,
                 layer_scale: float = 1e-6):
        super().__init__()
        self.scale = nn.Parameter(torch.full((growth,), float(layer_scale)))
        width = in_channels * 4 // 8 * 8
        self.branch = nn.Sequential(
            nn.Conv2d(in_channels, in_channels, 7, padding=3, groups=in_channels),
            LayerNorm2d(in_channels),
            nn.Conv2d(in_channels, width, 1),
            nn.GELU(),
            nn.Conv2d(width, growth, 1),
        )
        if gated:
            self.branch.append(ChannelGate(growth))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, self.drop_path(self.scale[:, None, None] * self.branch(x))], 1)


class Transition(nn.Sequential):
    """Layer norm and a convolution to half the channels, in multiples of 8; at `stride` 2 over patches of 2x2."""

    def __init__(self, in_channels: int, stride: int):
        super().__init__()
        self.out_channels = in_channels // 2 // 8 * 8
        self.norm = LayerNorm2d(in_channels)
        self.conv = nn.Conv2d(in_channels, self.out_channels, stride, stride)


class RDNet(nn.Module):
    """(N, in_channels, H, W) -> (N, num_classes) logits.

    `growths` has a row for each resolution, in it the growth rate of each dense block; a block has `block_depth`
    layers, and between blocks lies a transition. Blocks from the third resolution on are gated. `patch_size` and
    `stem_width` are those of the stem. `drop_path_rate` grows linearly over the layers, from 0.
    """

    def __init__(
        self,
        *,
        in_channels: int = 3,
        num_classes: int = 1000,
        growths: Sequence[Sequence[int]] = ((64,), (104,), (128, 128, 128, 128), (224,)),
        block_depth: int = 3,
        stem_width: int = 64,
        patch_size: int = 4,
        drop_path_rate: float = 0.0,
        layer_scale: float = 1e-6,
    ):
        super().__init__()
        rates = iter(linear_rates(drop_path_rate, [block_depth * len(row) for row in growths]))
        self.stem = nn.Sequential(nn.Conv2d(in_channels, stem_width, patch_size, patch_size), LayerNorm2d(stem_width))
        self.stages, channels = nn.Sequential(), stem_width
        for number, row in enumerate(growths):
            stage = nn.Sequential()
            for index, growth in enumerate(row):
                if number or index:
                    stage.append(Transition(channels, 2 if index == 0 else 1))
                    channels = stage[-1].out_channels
                for _ in range(block_depth):
                    stage.append(DenseLayer(channels, growth, gated=number >= 2, drop_path=next(rates),
                                            layer_scale=layer_scale))
                    channels += growth
            self.stages.append(stage)
        self.head = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), LayerNorm2d(channels), nn.Flatten(), nn.Linear(channels, num_classes))
        initialize(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.stages(self.stem(x)))


def initialize(model: nn.Module) -> None:
    """Convolutions from N(0, 2 / fan_in), their biases as PyTorch has them, bias 0 in the classifier: the authors'
    start.

    Layer norms set the size of the signal, and a layer scale of 1e-6 lets new channels in slowly.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
        elif isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)


def _row(name: str, growths: tuple, stem_width: int, drop_path_rate: float) -> Variant:
    blocks = sum(map(len, growths))
    return Variant(f"rdnet_{name}", f"{blocks} blocks of three layers, growth {growths[0][0]} to {growths[-1][0]}",
                   {"growths": growths, "stem_width": stem_width, "drop_path_rate": drop_path_rate},
                   twin=f"timm.rdnet_{name}")


VARIANTS = (  # the paper's Table 7
    _row("tiny", ((64,), (104,), 4 * (128,), (224,)), 64, 0.15),
    _row("small", ((64,), (128,), 7 * (128,), 2 * (240,)), 72, 0.35),
    _row("base", ((96,), (128,), 7 * (168,), 2 * (336,)), 120, 0.4),
    _row("large", ((128,), (192,), 8 * (256,), 2 * (360,)), 144, 0.5),
    Variant("rdnet_cifar", "small-image form: 2x2 patches, growth 24 to 64",
            {"growths": ((24,), (32,), (48, 48), (64,)), "stem_width": 24, "patch_size": 2, "layer_scale": 1.0,
             "num_classes": 10}, (3, 32, 32)),
)

register(RDNet, VARIANTS, cite="kim2024rdnet", year=2024)
