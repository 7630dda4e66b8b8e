"""HRNet: a fine map is never given up, 2019.

A network for classification goes down from fine maps to coarse ones, and whoever needs a label for each pixel has to
climb back. HRNet keeps its map of a quarter of the image's size to the end and adds coarser ones beside it, one in each
stage; each has its own residual blocks. After a few of them every resolution hears of every other: y_i is the sum of
all x_j, brought to its size by 3x3 convolutions of stride 2 on the way down and a 1x1 convolution and repeated pixels
on the way up. The result is a whole pyramid; for one label the head adds it up from fine to coarse.

- Wang, Sun, Cheng, Jiang, Deng, Zhao, Liu, Mu, Tan, Wang, Liu, Xiao. Deep High-Resolution Representation Learning for
  Visual Recognition. IEEE TPAMI 2020, arXiv:1908.07919.

**Differs from the paper:**

- Maps are enlarged to the size of their neighbours, not by powers of two: images of any size pass.
- `hrnet_cifar`: the stem halves the resolution once, for 32x32 images; few channels and a narrow head.
"""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from cnnlib.layers import ConvNormAct, initialize_he_fan_out, make_shortcut, pooled_classifier
from cnnlib.registry import Variant, register


class Residual(nn.Module):
    """relu(F(x) + x), F the convolutions given: (N, in_channels, H, W) -> (N, out_channels, H, W)."""

    def __init__(self, in_channels: int, out_channels: int, *branch: nn.Module):
        super().__init__()
        self.branch = nn.Sequential(*branch)
        self.shortcut = make_shortcut(in_channels, out_channels, 1)
        self.activation = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.activation(self.branch(x) + self.shortcut(x))


def basic_block(width: int) -> Residual:
    """ResNet's: two 3x3 convolutions."""
    return Residual(width, width, ConvNormAct(width, width), ConvNormAct(width, width, activation=None))


def bottleneck(in_channels: int, width: int) -> Residual:
    """ResNet's: 1x1 down to `width`, 3x3, 1x1 up to 4 `width`."""
    return Residual(in_channels, 4 * width, ConvNormAct(in_channels, width, 1), ConvNormAct(width, width),
                    ConvNormAct(width, 4 * width, 1, activation=None))


class Transition(nn.Module):
    """n maps, or one tensor -> n + 1 maps: the last is made of the last one given, at half the resolution.

    A 3x3 convolution where channels change; elsewhere maps pass.
    """

    def __init__(self, in_widths: Sequence[int], widths: Sequence[int]):
        super().__init__()
        kept = [nn.Identity() if old == new else ConvNormAct(old, new) for old, new in zip(in_widths, widths)]
        self.paths = nn.ModuleList([*kept, ConvNormAct(in_widths[-1], widths[-1], stride=2)])

    def forward(self, maps: torch.Tensor | list[torch.Tensor]) -> list[torch.Tensor]:
        maps = [maps] if isinstance(maps, torch.Tensor) else maps
        return [path(x) for path, x in zip(self.paths, [*maps, maps[-1]])]


def path_between(widths: Sequence[int], source: int, target: int) -> nn.Module:
    """f_ij of the exchange, j the `source` and i the `target`, except for the enlarging."""
    if source == target:
        return nn.Identity()
    if source > target:
        return ConvNormAct(widths[source], widths[target], 1, activation=None)
    halvings = [ConvNormAct(widths[source], widths[source], stride=2) for _ in range(target - source - 1)]
    return nn.Sequential(*halvings, ConvNormAct(widths[source], widths[target], stride=2, activation=None))


class Exchange(nn.Module):
    """y_i = relu(sum_j f_ij(B_j(x_j))): maps of several resolutions -> maps of the same shapes.

    B_j are `depth` basic blocks, and f_ij brings the map j to the channels and the size of the map i.
    """

    def __init__(self, widths: Sequence[int], depth: int):
        super().__init__()
        count = range(len(widths))
        self.branches = nn.ModuleList(
            nn.Sequential(*(basic_block(width) for _ in range(depth))) for width in widths)
        self.paths = nn.ModuleList(nn.ModuleList(path_between(widths, j, i) for j in count) for i in count)
        self.activation = nn.ReLU()

    def forward(self, maps: list[torch.Tensor]) -> list[torch.Tensor]:
        maps = [branch(x) for branch, x in zip(self.branches, maps, strict=True)]
        return [self.activation(self._arriving(paths, maps, i)) for i, paths in enumerate(self.paths)]

    def _arriving(self, paths: nn.ModuleList, maps: list[torch.Tensor], i: int) -> torch.Tensor:
        """sum_j f_ij(x_j), coarser maps enlarged by repeating pixels."""
        terms = [path(x) for path, x in zip(paths, maps)]
        total = terms[0] if i else maps[0]
        for j, term in enumerate(terms[1:], 1):
            total = total + (F.interpolate(term, maps[i].shape[2:], mode="nearest") if j > i else term)
        return total


class PyramidHead(nn.Module):
    """Maps of several resolutions -> (N, num_classes): each widened by a bottleneck, added up from fine to coarse.

    The widened maps have 4 `width`, 8 `width` ... channels; the classifier sees 64 `width` pooled ones.
    """

    def __init__(self, widths: Sequence[int], num_classes: int, width: int):
        super().__init__()
        wide = [width * 2**number for number in range(len(widths))]
        self.widen = nn.ModuleList(bottleneck(*pair) for pair in zip(widths, wide))
        self.shrink = nn.ModuleList(
            ConvNormAct(4 * fine, 4 * coarse, stride=2, bias=True) for fine, coarse in zip(wide, wide[1:]))
        self.final = ConvNormAct(4 * wide[-1], 64 * width, 1, bias=True)
        self.classifier = pooled_classifier(64 * width, num_classes)

    def forward(self, maps: list[torch.Tensor]) -> torch.Tensor:
        first, *others = (widen(x) for widen, x in zip(self.widen, maps, strict=True))
        for shrink, coarse in zip(self.shrink, others):
            first = coarse + shrink(first)
        return self.classifier(self.final(first))


class HRNet(nn.Module):
    """(N, in_channels, H, W) -> (N, num_classes) logits.

    The first stage has `depth` bottlenecks at a quarter of the size; each later one adds a resolution and has
    `exchanges[i]` exchanges, each after `depth` blocks for each map. Maps have `width`, 2 `width`, 4 `width` ...
    channels. `stem_stride` is that of the second of two convolutions; `head_width` is the width of the head's first
    bottleneck. Raises `ValueError` if no stage adds a resolution.
    """

    def __init__(self, *, in_channels: int = 3, num_classes: int = 1000, width: int = 18,
                 exchanges: Sequence[int] = (1, 4, 3), depth: int = 4, stem_stride: int = 2, head_width: int = 32):
        super().__init__()
        if not exchanges:
            raise ValueError("exchanges=() must name at least one stage")
        self.stem = nn.Sequential(ConvNormAct(in_channels, 64, 3, 2), ConvNormAct(64, 64, 3, stem_stride))
        first = [bottleneck(64, 64), *(bottleneck(256, 64) for _ in range(depth - 1))]
        self.stages = nn.Sequential(nn.Sequential(*first))
        widths = [256]
        for number, count in enumerate(exchanges, 2):
            before, widths = widths, [width * 2**index for index in range(number)]
            self.stages.append(nn.Sequential(
                Transition(before, widths), *(Exchange(widths, depth) for _ in range(count))))
        self.head = PyramidHead(widths, num_classes, head_width)
        initialize_he_fan_out(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.stages(self.stem(x)))


VARIANTS = (
    Variant("hrnet_w18_small_v2", "from 18 channels, 1, 3 and 2 exchanges after 2 blocks each",
            {"exchanges": (1, 3, 2), "depth": 2}, twin="timm.hrnet_w18_small_v2"),
    *(
        Variant(f"hrnet_w{width}", f"from {width} channels, 1, 4 and 3 exchanges after 4 blocks each",
                {"width": width}, twin=f"timm.hrnet_w{width}")
        for width in (18, 32, 48)
    ),
    Variant("hrnet_cifar", "small-image form: from 16 channels, one exchange a stage after 2 blocks",
            {"width": 16, "exchanges": (1, 1, 1), "depth": 2, "stem_stride": 1, "head_width": 8, "num_classes": 10},
            (3, 32, 32)),
)

register(HRNet, VARIANTS, cite="wang2020hrnet", year=2019)
