"""Inception-v3: large filters taken apart, 2015.

A 5x5 convolution costs as much as two and three quarters of 3x3, and two of these see as far; an n x n one sees as
far as 1 x n followed by n x 1, for 2/n of the work. So GoogLeNet's module is made again for each resolution: at 35x35
the 5x5 becomes two 3x3, at 17x17 a 7x7 becomes 1x7 and 7x1, at 8x8 the pairs lie side by side and the module grows
wide. Where the resolution falls, a pooling and strided convolutions stand side by side, so that nothing is squeezed
first.

- Szegedy, Vanhoucke, Ioffe, Shlens, Wojna. Rethinking the Inception Architecture for Computer Vision. CVPR 2016,
  arXiv:1512.00567.

In training the network returns `InceptionOutputs(logits, aux)`; the auxiliary loss is added at weight 0.3 (Szegedy et
al., 2015). In evaluation it returns the logits alone.

**Differs from the paper:**

- The layers are those of the authors' released network (as in torchvision), where the paper's Table 1 has only an
  outline: the first 35x35 module keeps a true 5x5 beside the two 3x3.
- Published weights see pixels in [-1, 1]; the transforms of `describe(name).weights` do it.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn

from cnnlib.layers import pooled_classifier
from cnnlib.registry import Variant, register


class Conv(nn.Sequential):
    """Convolution, batch normalization, ReLU; sides of the kernel may differ, and `valid` pads nothing."""

    def __init__(self, in_channels: int, out_channels: int, height: int, width: int | None = None, *, stride: int = 1,
                 valid: bool = False):
        width = height if width is None else width
        padding = (0, 0) if valid else (height // 2, width // 2)
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, (height, width), stride, padding, bias=False)
        self.norm = nn.BatchNorm2d(out_channels, eps=1e-3)
        self.activation = nn.ReLU(inplace=True)


class Module(nn.Module):
    """Branches side by side, their maps stacked: (N, in_channels, H, W) -> (N, out_channels, H', W')."""

    def __init__(self, *branches: nn.Module):
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([branch(x) for branch in self.branches], 1)


def pooled(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(nn.AvgPool2d(3, 1, padding=1), Conv(in_channels, out_channels, 1))


def module_35(in_channels: int, pool_width: int) -> Module:
    """Figure 5: the 5x5 as two 3x3. The maps become 224 + `pool_width`."""
    return Module(
        Conv(in_channels, 64, 1),
        nn.Sequential(Conv(in_channels, 48, 1), Conv(48, 64, 5)),
        nn.Sequential(Conv(in_channels, 64, 1), Conv(64, 96, 3), Conv(96, 96, 3)),
        pooled(in_channels, pool_width),
    )


def reduction_35(in_channels: int) -> Module:
    """Figure 10: 35x35 to 17x17, the maps become 480 + `in_channels`."""
    return Module(
        Conv(in_channels, 384, 3, stride=2, valid=True),
        nn.Sequential(Conv(in_channels, 64, 1), Conv(64, 96, 3), Conv(96, 96, 3, stride=2, valid=True)),
        nn.MaxPool2d(3, 2),
    )


def module_17(in_channels: int, width: int) -> Module:
    """Figure 6 with n = 7: filters of 1x7 and 7x1, `width` channels between them. The maps become 768."""
    return Module(
        Conv(in_channels, 192, 1),
        nn.Sequential(Conv(in_channels, width, 1), Conv(width, width, 1, 7), Conv(width, 192, 7, 1)),
        nn.Sequential(Conv(in_channels, width, 1), Conv(width, width, 7, 1), Conv(width, width, 1, 7),
                      Conv(width, width, 7, 1), Conv(width, 192, 1, 7)),
        pooled(in_channels, 192),
    )


def reduction_17(in_channels: int) -> Module:
    """17x17 to 8x8, the maps become 512 + `in_channels`."""
    return Module(
        nn.Sequential(Conv(in_channels, 192, 1), Conv(192, 320, 3, stride=2, valid=True)),
        nn.Sequential(Conv(in_channels, 192, 1), Conv(192, 192, 1, 7), Conv(192, 192, 7, 1),
                      Conv(192, 192, 3, stride=2, valid=True)),
        nn.MaxPool2d(3, 2),
    )


def module_8(in_channels: int) -> Module:
    """Figure 7: 1x3 and 3x1 side by side, for many maps at the coarsest resolution. The maps become 2048."""
    return Module(
        Conv(in_channels, 320, 1),
        nn.Sequential(Conv(in_channels, 384, 1), Module(Conv(384, 384, 1, 3), Conv(384, 384, 3, 1))),
        nn.Sequential(Conv(in_channels, 448, 1), Conv(448, 384, 3), Module(Conv(384, 384, 1, 3), Conv(384, 384, 3, 1))),
        pooled(in_channels, 192),
    )


class InceptionOutputs(NamedTuple):
    """What the network returns in training: twice (N, num_classes)."""

    logits: torch.Tensor
    aux: torch.Tensor


class TappedStage(nn.Sequential):
    """A stage with a classifier at its end, `auxiliary`, which speaks in training: then the result is (maps, its
    logits)."""

    def __init__(self, *blocks: nn.Module, auxiliary: nn.Module):
        super().__init__(*blocks)
        self.depth = len(blocks)
        self.auxiliary = auxiliary

    def forward(self, x: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        for block in list(self)[:self.depth]:
            x = block(x)
        return (x, self.auxiliary(x)) if self.training else x


class InceptionV3(nn.Module):
    """(N, in_channels, H, W) -> (N, num_classes) logits, in training `InceptionOutputs`.

    `widths` are the channels inside the 17x17 modules. `auxiliary=False` leaves the auxiliary head out. Raises
    `ValueError` for images below 75x75, and in training with the auxiliary head below 299x299.
    """

    def __init__(self, *, in_channels: int = 3, num_classes: int = 1000, widths: Sequence[int] = (128, 160, 160, 192),
                 auxiliary: bool = True, dropout: float = 0.5):
        super().__init__()
        self.stem = nn.Sequential(  # 149x149, 147x147, 147x147, 73x73, 73x73, 71x71, 35x35 for 299x299 images
            Conv(in_channels, 32, 3, stride=2, valid=True), Conv(32, 32, 3, valid=True), Conv(32, 64, 3),
            nn.MaxPool2d(3, 2), Conv(64, 80, 1), Conv(80, 192, 3, valid=True), nn.MaxPool2d(3, 2),
        )
        blocks_17 = [reduction_35(288), *(module_17(768, width) for width in widths)]
        if auxiliary:
            head = nn.Sequential(nn.AvgPool2d(5, 3), Conv(768, 128, 1), Conv(128, 768, 5, valid=True),
                                 *pooled_classifier(768, num_classes))
        self.auxiliary = auxiliary
        self.stages = nn.Sequential(
            nn.Sequential(module_35(192, 32), module_35(256, 64), module_35(288, 64)),
            TappedStage(*blocks_17, auxiliary=head) if auxiliary else nn.Sequential(*blocks_17),
            nn.Sequential(reduction_17(768), module_8(1280), module_8(2048)),
        )
        self.head = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout), nn.Linear(2048, num_classes)
        )
        initialize(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor | InceptionOutputs:
        speaks = self.auxiliary and self.training
        least = 299 if speaks else 75
        if min(x.shape[2:]) < least:
            raise ValueError(f"images of {x.shape[2]}x{x.shape[3]} are too small: "
                             + ("the auxiliary head needs 299x299 in training; without it (auxiliary=False) and in "
                                "evaluation 75x75 will do" if speaks else "Inception-v3 needs at least 75x75"))
        x = self.stem(x)
        if not speaks:
            return self.head(self.stages(x))
        stage_35, stage_17, stage_8 = self.stages
        x, aux = stage_17(stage_35(x))
        return InceptionOutputs(self.head(stage_8(x)), aux)


def initialize(model: InceptionV3) -> None:
    """Weights from a normal distribution of deviation 0.1 cut off at +-2, in the auxiliary head 0.01 and 0.001.

    As the authors' code has it. The batch normalizations set the size of the signal; the auxiliary head must not
    speak loudly at first.
    """
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.trunc_normal_(module.weight, std=0.1)
    if model.auxiliary:
        *_, conv, _, _, linear = model.stages[1].auxiliary
        nn.init.trunc_normal_(conv.conv.weight, std=0.01)
        nn.init.trunc_normal_(linear.weight, std=0.001)


VARIANTS = (Variant("inception_v3", "the released network, at 299x299", input_size=(3, 299, 299),
                    twin="torchvision.inception_v3"),)

register(InceptionV3, VARIANTS, cite="szegedy2016", year=2015)
