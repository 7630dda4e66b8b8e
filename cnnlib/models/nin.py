"""Network in Network: a small network instead of a linear filter, and no fully connected layers, 2013.

A convolution scores patches by a linear function. Here each patch passes through a small multilayer perceptron, which
is the same as a convolution followed by two 1x1 convolutions, each with ReLU ("mlpconv"). The last one has a map for
each class, whose mean over all places is the score of that class: global average pooling replaces the fully connected
layers and most of the parameters. GoogLeNet takes both ideas from here.

- Lin, Chen, Yan. Network In Network. ICLR 2014, arXiv:1312.4400.

**Differs from the paper:** the paper prints few sizes; they are those of the models that its authors released. He
initialization instead of one standard deviation for each layer, chosen by hand. The CIFAR networks of the paper were
trained on images after contrast normalization and whitening, which is left to the data.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn

from cnnlib.layers import ConvNormAct, initialize_he_fan_in
from cnnlib.registry import Variant, register


class MLPConvRow(NamedTuple):
    """One mlpconv layer: the convolution that sees the patch, and the widths of all three layers; None: the classes."""

    widths: tuple[int, int, int | None]
    kernel_size: int
    stride: int = 1
    padding: int = 0
    pool: type[nn.Module] | None = None  # 3x3, stride 2, after the layer


class MLPConv(nn.Sequential):
    """A convolution and two 1x1 convolutions, ReLU after each.

    (N, in_channels, H, W) -> (N, widths[2], H', W'). The same as one perceptron with two hidden layers that
    slides over the image.
    """

    def __init__(
        self,
        in_channels: int,
        widths: tuple[int, int, int],
        kernel_size: int,
        stride: int = 1,
        *,
        padding: int = 0,
    ):
        super().__init__(
            ConvNormAct(in_channels, widths[0], kernel_size, stride, padding=padding, norm=None),
            ConvNormAct(widths[0], widths[1], 1, norm=None),
            ConvNormAct(widths[1], widths[2], 1, norm=None),
        )


class NIN(nn.Module):
    """(N, in_channels, H, W) -> (N, num_classes) scores, the means of the last maps; they are never negative.

    `rows` describes the mlpconv layers. `drops` numbers those after whose pooling `dropout` falls. Raises
    `ValueError` for images that are too small.
    """

    def __init__(
        self,
        *,
        in_channels: int = 3,
        num_classes: int = 1000,
        rows: Sequence[MLPConvRow],
        drops: Sequence[int],
        dropout: float = 0.5,
    ):
        super().__init__()
        stages = []
        for number, row in enumerate(rows):
            widths = (*row.widths[:2], row.widths[2] or num_classes)
            mlpconv = MLPConv(in_channels, widths, row.kernel_size, row.stride, padding=row.padding)
            stage = nn.Sequential(mlpconv)
            if row.pool is not None:
                stage.append(row.pool(3, 2, ceil_mode=True))
            if number in drops:
                stage.append(nn.Dropout(dropout))
            stages.append(stage)
            in_channels = widths[2]
        self.stem, self.stages = stages[0], nn.Sequential(*stages[1:])
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.smallest_image = 1
        for row in reversed(rows):  # what a layer must be given, so that the next one has enough
            if row.pool is not None:
                self.smallest_image *= 2
            self.smallest_image = max(1, (self.smallest_image - 1) * row.stride + row.kernel_size - 2 * row.padding)
        initialize_as_he(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if min(x.shape[2:]) < self.smallest_image:
            raise ValueError(f"images of {x.shape[2]}x{x.shape[3]} are too small: filters and poolings need "
                             f"at least {self.smallest_image}x{self.smallest_image}")
        return self.head(self.stages(self.stem(x)))


def initialize_as_he(model: NIN) -> None:
    """Variance 2/fan_in, biases 0: the signal keeps its size through ReLU layers (He et al., 2015).

    The last layer starts at N(0, 0.01^2): a ReLU follows it too, and large first steps would close it for good.
    """
    initialize_he_fan_in(model)
    nn.init.normal_(model.stages[-1][0][-1].conv.weight, std=0.01)


VARIANTS = (
    Variant(
        "nin",
        "four mlpconv layers for ImageNet, as the authors released it",
        {"rows": (  # maps of 224x224 images: 54x54, 27x27, 13x13, 6x6
            MLPConvRow((96, 96, 96), 11, 4, pool=nn.MaxPool2d),
            MLPConvRow((256, 256, 256), 5, padding=2, pool=nn.MaxPool2d),
            MLPConvRow((384, 384, 384), 3, padding=1, pool=nn.MaxPool2d),
            MLPConvRow((1024, 1024, None), 3, padding=1),
        ), "drops": (2,)},
    ),
    Variant(
        "nin_cifar",
        "three mlpconv layers for 32x32 images, the network of the paper's Figure 2",
        {"rows": (  # 32x32, 16x16, 8x8
            MLPConvRow((192, 160, 96), 5, padding=2, pool=nn.MaxPool2d),
            MLPConvRow((192, 192, 192), 5, padding=2, pool=nn.AvgPool2d),
            MLPConvRow((192, 192, None), 3, padding=1),
        ), "drops": (0, 1), "num_classes": 10},
        input_size=(3, 32, 32),
    ),
)

register(NIN, VARIANTS, cite="lin2014nin", year=2013)
