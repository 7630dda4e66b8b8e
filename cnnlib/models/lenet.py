"""LeNet-5: where it began, 1998.

Filters that slide, maps that shrink, weights that are shared: a stroke is a stroke wherever it lies, so one small
filter looks for it everywhere, and what matters afterwards is roughly where it was. Convolution, subsampling,
convolution, subsampling, then layers that see the whole map: 60,000 weights read the digits on bank cheques.

- LeCun, Bottou, Bengio, Haffner. Gradient-Based Learning Applied to Document Recognition. Proceedings of the IEEE
  86(11), 1998, section II.B.

**Differs from the paper:**

- `lenet5`: the output is a fully connected layer, 850 weights more, where the paper compares F6 with a fixed picture
  of each character (radial basis functions); with it, images come from 10 classes and loss is cross-entropy.
- `lenet5_relu`, as it is taught today: ReLU, maximum pooling without weights, and all six maps seen by each of
  the sixteen.
- `lenet5_cifar`: the same on three colours, with six times the maps.
"""

from typing import Literal

import torch
from torch import nn

from cnnlib.registry import Variant, register


class ScaledTanh(nn.Module):
    """1.7159 tanh(2x / 3), so that +-1 stay +-1: keeps the shape (the paper's appendix A)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 1.7159 * torch.tanh(2 / 3 * x)


class Subsampling(nn.Module):
    """The sum of each 2x2 window, times one weight, plus one bias for each map: (N, C, H, W) -> (N, C, H/2, W/2)."""

    def __init__(self, channels: int):
        super().__init__()
        self.pool = nn.AvgPool2d(2)
        self.weight = nn.Parameter(torch.empty(channels, 1, 1))
        self.bias = nn.Parameter(torch.empty(channels, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.weight * (4 * self.pool(x)) + self.bias


# Table I of the paper: which of the six maps of S2 each of the sixteen maps of C3 sees
TABLE = (
    *((i, (i + 1) % 6, (i + 2) % 6) for i in range(6)),
    *((i, (i + 1) % 6, (i + 2) % 6, (i + 3) % 6) for i in range(6)),
    (0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5),
    (0, 1, 2, 3, 4, 5),
)


class PartialConv2d(nn.Module):
    """Convolutions that each see some maps only: (N, C, H, W) -> (N, len(table), H - 4, W - 4), with 5x5 filters.

    Rows of `table` are the maps seen; rows of equal length, which must be neighbours, are one grouped convolution
    over a copy of the maps.
    """

    def __init__(self, table: tuple[tuple[int, ...], ...], kernel_size: int = 5):
        super().__init__()
        self.table = table
        self.convs = nn.ModuleList()
        self.seen: list[list[int]] = []
        for length in sorted({len(row) for row in table}):
            rows = [row for row in table if len(row) == length]
            self.convs.append(nn.Conv2d(length * len(rows), len(rows), kernel_size, groups=len(rows)))
            self.seen.append([channel for row in rows for channel in row])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        maps = x.split(1, 1)
        return torch.cat([conv(torch.cat([maps[i] for i in seen], 1)) for conv, seen in zip(self.convs, self.seen)], 1)


class LeNet5(nn.Module):
    """(N, in_channels, H, W) -> (N, num_classes) logits, for images of about 32x32.

    `style` is "1998" (trained subsampling, scaled tanh, partial connections) or "modern" (maximum pooling, ReLU, all
    connections). `width_mult` multiplies the maps. C5 is a convolution whose 5x5 filters see the whole map of a 32x32
    image; larger maps are averaged after it. Raises `ValueError` for another style, for partial connections of
    another width, and for images below 32x32.
    """

    def __init__(self, *, in_channels: int = 3, num_classes: int = 1000, style: Literal["1998", "modern"] = "1998",
                 width_mult: int = 1):
        super().__init__()
        if style not in ("1998", "modern"):
            raise ValueError(f"style={style!r}; choose '1998' or 'modern'")
        if width_mult != 1 and style == "1998":
            raise ValueError(f"width_mult={width_mult!r} needs style='modern': Table I connects 6 maps with 16")
        classic, (c1, c3, c5, f6) = style == "1998", (width * width_mult for width in (6, 16, 120, 84))

        def activation() -> nn.Module:
            return ScaledTanh() if classic else nn.ReLU()

        def subsampling(channels: int) -> list[nn.Module]:
            return [Subsampling(channels), activation()] if classic else [nn.MaxPool2d(2)]

        self.stem = nn.Sequential(nn.Conv2d(in_channels, c1, 5), activation(), *subsampling(c1))  # C1, S2
        self.stages = nn.Sequential(
            nn.Sequential(  # C3, S4
                PartialConv2d(TABLE) if classic else nn.Conv2d(c1, c3, 5), activation(), *subsampling(c3)),
            nn.Sequential(nn.Conv2d(c3, c5, 5), activation()),  # C5
        )
        self.head = nn.Sequential(  # F6, output
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(c5, f6), activation(), nn.Linear(f6, num_classes)
        )
        initialize(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if min(x.shape[2:]) < 32:
            raise ValueError(f"images of {x.shape[2]}x{x.shape[3]} are too small: pad them to at least 32x32")
        return self.head(self.stages(self.stem(x)))


def initialize(model: nn.Module) -> None:
    """All weights, those of the subsamplings and biases too, uniform within 2.4 / fan_in (the paper's appendix A).

    Then sums of inputs lie where the scaled tanh is about linear, neither lost nor saturated.
    """
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            bound = 2.4 / module.weight[0].numel()
        elif isinstance(module, Subsampling):
            bound = 2.4 / 4
        else:
            continue
        nn.init.uniform_(module.weight, -bound, bound)
        nn.init.uniform_(module.bias, -bound, bound)


VARIANTS = (
    Variant("lenet5", "the paper's network for digits of 32x32", {"in_channels": 1, "num_classes": 10}, (1, 32, 32)),
    Variant("lenet5_relu", "as it is taught today: ReLU and maximum pooling",
            {"in_channels": 1, "num_classes": 10, "style": "modern"}, (1, 32, 32)),
    Variant("lenet5_cifar", "small-image form: three colours and six times the maps",
            {"style": "modern", "width_mult": 6, "num_classes": 10}, (3, 32, 32)),
)

register(LeNet5, VARIANTS, cite="lecun1998", year=1998)
