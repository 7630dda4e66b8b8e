"""RegNet: not one network but a rule for widths, found by studying populations of random networks.

Shrinking a design space step by step, without losing its best networks, left a plain one: a stem, four stages of one
ResNeXt bottleneck whose middle is as wide as its ends, and block widths that grow linearly and are then quantized.
Five numbers make a network: depth, initial width w0, slope wa, quantization wm and the group width. RegNetY adds
squeeze and excitation to RegNetX.

- Radosavovic, Kosaraju, Girshick, He, Dollár. Designing Network Design Spaces. CVPR 2020.

**Differs from the paper:**

- All: a width is rounded to a multiple of the group width as the common PyTorch form does it, halves up and never
  below 90%; the paper's code takes the nearest, halves to even. It shows in three networks: `regnet_x_400mf` (400
  channels at the end rather than 384), `regnet_y_800mf` (144 and 784 rather than 128 and 768) and `regnet_y_8gf` (224
  channels at the start rather than 168).
- `regnet_y_128gf`: not in the paper; a network of the same rule, whose weights came with Singh et al. (2022).
- `regnet_x_cifar`, `regnet_y_cifar`: the paper's 200MF networks; stem and first stage keep the resolution, so that
  32x32 images end as 4x4 maps.
"""

import math
from collections.abc import Sequence
from itertools import groupby

import torch
from torch import nn

from cnnlib.layers import ConvNormAct, SqueezeExcitation, make_divisible, make_shortcut, pooled_classifier
from cnnlib.registry import Variant, register


class Bottleneck(nn.Module):
    """Residual block of 1x1, grouped 3x3 and 1x1: (N, in_channels, H, W) -> (N, out_channels, H/stride, W/stride).

    relu(F(x) + x), where F has `out_channels` outputs all the way. With `reduction`, squeeze and excitation follows the
    3x3 (RegNetY), with `in_channels` / `reduction` hidden units: of the block's *input*. None leaves it out (RegNetX).
    """

    def __init__(
        self, in_channels: int, out_channels: int, stride: int = 1, *, group_width: int, reduction: int | None = None
    ):
        super().__init__()
        self.shortcut = make_shortcut(in_channels, out_channels, stride)
        excite = [SqueezeExcitation(out_channels, in_channels // reduction)] if reduction else []
        self.branch = nn.Sequential(
            ConvNormAct(in_channels, out_channels, 1),
            ConvNormAct(out_channels, out_channels, 3, stride, groups=out_channels // group_width),
            *excite,
            ConvNormAct(out_channels, out_channels, 1, activation=None),
        )
        self.activation = nn.ReLU(inplace=True)  # nobody else holds the sum

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.activation(self.branch(x) + self.shortcut(x))


def quantized_linear_widths(depth: int, w_0: int, w_a: float, w_m: float) -> list[int]:
    """The width of each of `depth` blocks: linear in the block's index, then quantized.

    Equations 2 to 4 of the paper: u_j = w_0 + w_a j is replaced by the nearest w_0 w_m^s with a whole number
    s, then rounded to a multiple of 8. Raises `ValueError` unless w_a >= 0, w_m > 1 and w_0 is a positive
    multiple of 8.
    """
    if w_a < 0 or w_m <= 1 or w_0 <= 0 or w_0 % 8:
        raise ValueError(f"w_0={w_0}, w_a={w_a}, w_m={w_m}: need w_a >= 0, w_m > 1, w_0 a multiple of 8")
    linear = [w_0 + w_a * j for j in range(depth)]  # u_j
    steps = [round(math.log(u / w_0) / math.log(w_m)) for u in linear]  # s_j
    return [8 * round(w_0 * w_m**s / 8) for s in steps]


def stage_table(depth: int, w_0: int, w_a: float, w_m: float, group_width: int) -> list[tuple[int, int, int]]:
    """(width, depth, group_width) of each stage: neighbouring blocks of equal width are one stage.

    A width is then rounded to a multiple of the group width, and no group is wider than its stage.
    """
    table = []
    for width, blocks in groupby(quantized_linear_widths(depth, w_0, w_a, w_m)):
        group = min(group_width, width)
        table.append((make_divisible(width, group), len(list(blocks)), group))
    return table


class RegNet(nn.Module):
    """(N, in_channels, H, W) -> (N, num_classes) logits.

    `depth`, `w_0`, `w_a`, `w_m` and `group_width` are the numbers of the paper's Figures 15 and 16; `strides`
    belong to the stages, whose number follows from the rule; `reduction` to the blocks. Raises `ValueError`
    if the two numbers differ, or the rule does not apply.
    """

    def __init__(
        self,
        *,
        in_channels: int = 3,
        num_classes: int = 1000,
        depth: int,  # d
        w_0: int,
        w_a: float,
        w_m: float,
        group_width: int,  # g
        reduction: int | None = None,
        stem_width: int = 32,
        stem_stride: int = 2,
        strides: Sequence[int] = (2, 2, 2, 2),
    ):
        super().__init__()
        table = stage_table(depth, w_0, w_a, w_m, group_width)
        if len(table) != len(strides):
            raise ValueError(f"the rule gives {len(table)} stages, strides={strides} has {len(strides)}")
        self.stem = ConvNormAct(in_channels, stem_width, 3, stem_stride)
        self.stages = nn.Sequential()
        width = stem_width
        for (out_channels, stage_depth, group_width), first_stride in zip(table, strides):
            stage = nn.Sequential()
            for stride in [first_stride] + (stage_depth - 1) * [1]:
                block = Bottleneck(width, out_channels, stride, group_width=group_width, reduction=reduction)
                stage.append(block)
                width = out_channels
            self.stages.append(stage)
        self.head = pooled_classifier(width, num_classes)
        initialize(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.stages(self.stem(x)))


def initialize(model: nn.Module) -> None:
    """Convolutions from N(0, 2 / (kernel area x output channels)), classifier from N(0, 0.01^2), its bias 0.

    As the reference implementation does: ResNet's rule, with groups left out of account. The biases of squeeze and
    excitation stay as PyTorch draws them.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            height, width = module.kernel_size
            nn.init.normal_(module.weight, std=math.sqrt(2 / (height * width * module.out_channels)))
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.01)
            nn.init.zeros_(module.bias)


def _row(name: str, depth: int, w_0: int, w_a: float, w_m: float, group_width: int, **more) -> Variant:
    rule = {"depth": depth, "w_0": w_0, "w_a": w_a, "w_m": w_m, "group_width": group_width}
    kind, size = name.split("_", 1)
    return Variant(
        f"regnet_{name}",
        f"RegNet{kind.upper()}-{size.upper().replace('_', '.')}, which names its multiply-adds",
        {**rule, "reduction": 4 if kind == "y" else None},
        twin=f"torchvision.regnet_{name}",
        **more,
    )


MEGAFLOPS_200 = {"depth": 13, "w_0": 24, "w_a": 36.44, "w_m": 2.49, "group_width": 8}
SMALL_IMAGES = {"stem_stride": 1, "strides": (1, 2, 2, 2), "num_classes": 10}

VARIANTS = (
    #                d  w_0    w_a   w_m    g
    _row("x_400mf", 22, 24, 24.48, 2.54, 16),
    _row("x_800mf", 16, 56, 35.73, 2.28, 16),
    _row("x_1_6gf", 18, 80, 34.01, 2.25, 24),
    _row("x_3_2gf", 25, 88, 26.31, 2.25, 48),
    _row("x_8gf", 23, 80, 49.56, 2.88, 120),
    _row("x_16gf", 22, 216, 55.59, 2.1, 128),
    _row("x_32gf", 23, 320, 69.86, 2.0, 168),
    _row("y_400mf", 16, 48, 27.89, 2.09, 8),
    _row("y_800mf", 14, 56, 38.84, 2.4, 16),
    _row("y_1_6gf", 27, 48, 20.71, 2.65, 24),
    _row("y_3_2gf", 21, 80, 42.63, 2.66, 24),
    _row("y_8gf", 17, 192, 76.82, 2.19, 56),
    _row("y_16gf", 18, 200, 106.23, 2.48, 112),
    _row("y_32gf", 20, 232, 115.89, 2.53, 232),
    _row("y_128gf", 27, 456, 160.83, 2.52, 264, cite="singh2022", year=2022),
    Variant(
        "regnet_x_cifar",
        "small-image form: RegNetX-200MF for 32x32 images",
        {**MEGAFLOPS_200, **SMALL_IMAGES},
        input_size=(3, 32, 32),
    ),
    Variant(
        "regnet_y_cifar",
        "small-image form: RegNetY-200MF for 32x32 images",
        {**MEGAFLOPS_200, **SMALL_IMAGES, "reduction": 4},
        input_size=(3, 32, 32),
    ),
)

register(RegNet, VARIANTS, cite="radosavovic2020", year=2020)
