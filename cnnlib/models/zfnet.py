"""ZFNet: AlexNet after its authors had looked inside, 2013.

Pictures of AlexNet's features showed first filters of very high and very low frequencies with little between, dead
ones, and aliasing in the second layer, from a first layer of 11x11 filters at stride 4. Here the first layer has 7x7
filters at stride 2, and the second takes over the other stride of 2. All else stays: five convolutions, three
overlapping poolings, three fully connected layers. `zfnet` is the network of the paper's Figure 3; the wider
CONV3 to CONV5 that are often quoted as ZFNet belong to a variant in its Table 2 (`zfnet_wide`).

- Zeiler, Fergus. Visualizing and Understanding Convolutional Networks. ECCV 2014, arXiv:1311.2901.

**Differs from the paper:**

- `zfnet`, `zfnet_wide`: the paper says that all weights start at 10^-2, which would make all filters of a layer equal
  for ever; here they start at N(0, 0.01^2), as in the network that it starts from. The paper gives map sizes (110, 55,
  26, 13, 6) but no padding; padding by 1 in CONV1 and poolings that round up give them. Rescaling filters whose norm
  exceeds 0.1, which the paper does during training, is left to the training loop.
- `zfnet_cifar`: `alexnet_cifar` changed as the paper changed AlexNet: smaller filters in CONV1 (3x3 for 5x5), its
  stride of 2 moved to CONV2. Half the widths, 1024 hidden units, no normalization, He initialization.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import nn

from cnnlib.layers import ConvNormAct, initialize_he_fan_in, response_norm
from cnnlib.registry import Variant, register


class ZFNet(nn.Module):
    """(N, in_channels, image_size, image_size) -> (N, num_classes) logits.

    `widths` are the output channels of CONV1 to CONV5, `hidden` the units of FC6 and FC7. `kernel_sizes`,
    `strides` and `paddings` are those of CONV1 and CONV2. `norm` puts local response normalization after
    POOL1 and POOL2. Raises `ValueError` if `widths` does not name five layers, for an unknown
    `initialization`, and for images of a size other than the one that the network was built for.
    """

    def __init__(
        self,
        *,
        in_channels: int = 3,
        num_classes: int = 1000,
        widths: Sequence[int] = (96, 256, 384, 384, 256),
        kernel_sizes: tuple[int, int] = (7, 5),
        strides: tuple[int, int] = (2, 2),
        paddings: tuple[int, int] = (1, 0),
        hidden: int = 4096,
        norm: bool = True,
        dropout: float = 0.5,
        image_size: int = 224,
        initialization: Literal["paper", "he", "he, small first"] = "paper",
    ):
        super().__init__()
        if len(widths) != 5:
            raise ValueError(f"ZFNet has five convolutions; widths={tuple(widths)!r} names {len(widths)}")
        if initialization not in INITIALIZATIONS:
            raise ValueError(f"initialization={initialization!r}; choose one of {', '.join(INITIALIZATIONS)}")
        c1, c2, c3, c4, c5 = widths
        k1, k2 = kernel_sizes
        s1, s2 = strides
        p1, p2 = paddings

        def pool() -> nn.MaxPool2d:
            return nn.MaxPool2d(3, 2, ceil_mode=True)

        def pool_and_norm() -> list[nn.Module]:
            return [pool(), response_norm()] if norm else [pool()]

        # CONV1: 110x110; POOL1: 55x55
        conv1 = ConvNormAct(in_channels, c1, k1, s1, padding=p1, norm=None)
        self.stem = nn.Sequential(conv1, *pool_and_norm())
        self.stages = nn.Sequential(
            # CONV2: 26x26; POOL2: 13x13
            nn.Sequential(ConvNormAct(c1, c2, k2, s2, padding=p2, norm=None), *pool_and_norm()),
            # CONV3, CONV4, CONV5: 13x13; POOL5: 6x6
            nn.Sequential(
                ConvNormAct(c2, c3, 3, norm=None),
                ConvNormAct(c3, c4, 3, norm=None),
                ConvNormAct(c4, c5, 3, norm=None),
                pool(),
            ),
        )
        self.map_size = self._last_map_size(image_size, kernel_sizes, strides, paddings)
        self.head = nn.Sequential(
            nn.Flatten(),
            nn.Linear(c5 * self.map_size**2, hidden),  # FC6
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, hidden),  # FC7
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, num_classes),
        )
        INITIALIZATIONS[initialization](self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stages(self.stem(x))
        size = self.map_size
        if x.shape[2:] != (size, size):
            raise ValueError(f"the last map is {x.shape[2]}x{x.shape[3]}, but FC6 needs {size}x{size}: use "
                             "the size that the network was built for, or build it with another image_size")
        return self.head(x)

    @staticmethod
    def _last_map_size(image_size: int, *first_two: tuple[int, int]) -> int:
        size = image_size
        for kernel_size, stride, padding in zip(*first_two):
            size = (size + 2 * padding - kernel_size) // stride + 1
            size = -(-(size - 3) // 2) + 1  # a pooling that rounds up
        size = -(-(size - 3) // 2) + 1
        if size < 1:
            raise ValueError(f"image_size={image_size} is too small: nothing would be left to pool")
        return size


def initialize_as_paper(model: ZFNet) -> None:
    """Weights from N(0, 0.01^2), biases 0 (section 3.1 of the paper, read as in the file's first lines)."""
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.normal_(module.weight, std=0.01)
            nn.init.zeros_(module.bias)


def initialize_as_he(model: ZFNet) -> None:
    """As He et al. (2015); the last layer, which no ReLU follows, from N(0, 0.01^2): all classes begin about equal."""
    initialize_he_fan_in(model)
    nn.init.normal_(model.head[-1].weight, std=0.01)


def initialize_small_first(model: ZFNet) -> None:
    """As He et al., but CONV1 from N(0, 0.01^2): whatever its filters show after training, they have learned."""
    initialize_as_he(model)
    nn.init.normal_(model.stem[0].conv.weight, std=0.01)


INITIALIZATIONS = {"paper": initialize_as_paper, "he": initialize_as_he, "he, small first": initialize_small_first}

VARIANTS = (
    Variant("zfnet", "the paper's main network, Figure 3: 7x7 filters at stride 2 first"),
    Variant(
        "zfnet_wide",
        "the paper's variant with 512, 1024 and 512 maps in CONV3 to CONV5, Table 2 (b)",
        {"widths": (96, 256, 512, 1024, 512)},
    ),
    Variant(
        "zfnet_cifar",
        "small-image form: 3x3 filters at stride 1 first, half the widths, for 32x32 images",
        {"widths": (48, 128, 192, 192, 128), "kernel_sizes": (3, 5), "strides": (1, 2), "paddings": (1, 2),
         "hidden": 1024, "norm": False, "image_size": 32, "num_classes": 10, "initialization": "he"},
        input_size=(3, 32, 32),
    ),
)

register(ZFNet, VARIANTS, cite="zeiler2014", year=2013)
