"""AlexNet: five convolutions and three fully connected layers, the network that won ImageNet in 2012.

Large strided filters first, overlapping 3x3 max pooling three times, ReLU after every layer but the last, dropout
before the two hidden fully connected layers. Three networks share the name, and all three are here: the one of 2012,
split over two GPUs (`alexnet_two_tower`); the single tower that courses teach (`alexnet_227`); and the slimmer one of
2014 that libraries ship (`alexnet`).

- Krizhevsky, Sutskever, Hinton. ImageNet Classification with Deep Convolutional Neural Networks. NeurIPS 2012.
- Krizhevsky. One weird trick for parallelizing convolutional neural networks. arXiv:1404.5997, 2014.

**Differs from the paper:**

- All: the 2012 text says 224x224 input, which does not give 55x55 with 11x11 filters, stride 4 and no padding.
  227x227 does; the 2014 form pads 224x224 by 2 and reaches 55x55 too.
- `alexnet`: the widths that libraries give the network of 2014, whose footnote has 384 filters, not 256, in the fourth
  convolution; no local response normalization; drops the inputs of FC6 and FC7 rather than their outputs; averages the
  last map to 6x6, so that other input sizes pass; initialized as PyTorch does.
- `alexnet_227`: one tower without groups; pools before it normalizes, as courses print it.
- `alexnet_two_tower`: nothing but the input size. The towers are the two groups of a grouped convolution.
- `alexnet_cifar`: the widths of one tower of 2012, filters and strides for 32x32 images, 1024 hidden units, no
  normalization, PyTorch's initialization. The paper's own CIFAR-10 network is another one, of four layers.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Literal

import torch
from torch import nn

from cnnlib.layers import initialize_he_fan_in, initialize_xavier, response_norm
from cnnlib.registry import Variant, register


ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh}  # tanh is what ReLU was measured against (figure 1)


class ConvLayer(nn.Sequential):
    """Convolution, activation, and if asked for normalization and overlapping pooling, in either order."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        *,
        padding: int,
        groups: int = 1,
        activation: Literal["relu", "tanh"] = "relu",
        norm: Literal["before pool", "after pool"] | None = None,
        pool: nn.MaxPool2d | None = None,
    ):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding=padding, groups=groups)
        self.activation = ACTIVATIONS[activation]()
        if norm == "before pool":
            self.norm = response_norm()
        if pool is not None:
            self.pool = pool
        if norm == "after pool":
            self.norm = response_norm()


class AlexNet(nn.Module):
    """(N, in_channels, H, W) -> (N, num_classes) logits.

    `widths` are the output channels of CONV1 to CONV5, `hidden` the units of FC6 and FC7. `groups` applies to
    CONV2, CONV4 and CONV5, the layers whose filters see one tower only; CONV3 and the fully connected layers
    see both. `first_conv` is (kernel_size, stride, padding) of CONV1. `drop` says whether dropout falls on
    the inputs or the outputs of FC6 and FC7. `image_size` fixes the size of the last feature map, to which
    `resize` averages the maps of other images; without it, they are refused. `initialization` names the random
    weights: PyTorch's, the paper's, "he", which suits ReLU, or "xavier", which suits tanh. Raises `ValueError` if the
    widths do not divide by `groups`, or an image is too small or not of the size that the network needs.
    """

    def __init__(
        self,
        *,
        in_channels: int = 3,
        num_classes: int = 1000,
        widths: Sequence[int] = (64, 192, 384, 256, 256),
        first_conv: tuple[int, int, int] = (11, 4, 2),
        pool_padding: int = 0,
        hidden: int = 4096,
        groups: int = 1,
        norm: Literal["before pool", "after pool"] | None = None,
        activation: Literal["relu", "tanh"] = "relu",
        dropout: float = 0.5,
        drop: Literal["inputs", "outputs"] = "inputs",
        image_size: int = 224,
        resize: bool = True,
        initialization: Literal["pytorch", "paper", "he", "xavier"] = "pytorch",
    ):
        super().__init__()
        if len(widths) != 5:
            raise ValueError(f"AlexNet has five convolutions; widths={tuple(widths)!r} names {len(widths)}")
        if groups < 1 or any(width % groups for width in widths):
            raise ValueError(f"groups={groups} does not divide all of widths={tuple(widths)!r}")
        for name, value, allowed in (
            ("norm", norm, (None, "before pool", "after pool")),
            ("activation", activation, tuple(ACTIVATIONS)),
            ("drop", drop, ("inputs", "outputs")),
            ("initialization", initialization, ("pytorch", *INITIALIZATIONS)),
        ):
            if value not in allowed:
                raise ValueError(f"{name}={value!r}; choose one of {', '.join(map(repr, allowed))}")
        kernel_size, stride, padding = first_conv
        c1, c2, c3, c4, c5 = widths
        shared = {"activation": activation}

        def pool() -> nn.MaxPool2d:
            return nn.MaxPool2d(3, 2, padding=pool_padding)  # z=3, s=2: neighbouring windows overlap

        # CONV1, POOL1: 55x55, then 27x27 (sizes of the 227x227 network)
        self.stem = ConvLayer(
            in_channels, c1, kernel_size, stride, padding=padding, norm=norm, pool=pool(), **shared
        )
        self.stages = nn.Sequential(
            # CONV2, POOL2: 27x27, then 13x13
            nn.Sequential(ConvLayer(c1, c2, 5, padding=2, groups=groups, norm=norm, pool=pool(), **shared)),
            # CONV3, CONV4, CONV5, POOL3: 13x13, then 6x6
            nn.Sequential(
                ConvLayer(c2, c3, 3, padding=1, **shared),
                ConvLayer(c3, c4, 3, padding=1, groups=groups, **shared),
                ConvLayer(c4, c5, 3, padding=1, groups=groups, pool=pool(), **shared),
            ),
        )
        self.map_size = self._last_map_size(image_size, first_conv, pool_padding)
        fc6 = {"fc6": nn.Linear(c5 * self.map_size**2, hidden), "activation6": ACTIVATIONS[activation]()}
        fc7 = {"fc7": nn.Linear(hidden, hidden), "activation7": ACTIVATIONS[activation]()}
        drop6, drop7 = {"drop6": nn.Dropout(dropout)}, {"drop7": nn.Dropout(dropout)}
        first = {"resize": nn.AdaptiveAvgPool2d(self.map_size)} if resize else {}
        hidden_layers = drop6 | fc6 | drop7 | fc7 if drop == "inputs" else fc6 | drop6 | fc7 | drop7
        last = {"fc8": nn.Linear(hidden, num_classes)}
        self.head = nn.Sequential(OrderedDict(first | {"flatten": nn.Flatten()} | hidden_layers | last))
        self.resize = resize
        if initialization != "pytorch":
            INITIALIZATIONS[initialization](self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stages(self.stem(x))
        size = self.map_size
        if not self.resize and x.shape[2:] != (size, size):
            height, width = x.shape[2:]
            raise ValueError(f"the last map is {height}x{width}, but FC6 needs {size}x{size}: use the input "
                             "size that the network was built for, or build it with resize=True")
        return self.head(x)

    @staticmethod
    def _last_map_size(image_size: int, first_conv: tuple[int, int, int], pool_padding: int) -> int:
        kernel_size, stride, padding = first_conv
        size = (image_size + 2 * padding - kernel_size) // stride + 1
        for _ in range(3):
            size = (size + 2 * pool_padding - 3) // 2 + 1
        if size < 1:
            raise ValueError(f"image_size={image_size} is too small: nothing would be left to pool")
        return size


def initialize_as_paper(model: AlexNet) -> None:
    """Weights from N(0, 0.01^2); biases 1 in CONV2, CONV4, CONV5, FC6 and FC7, else 0.

    Section 5 of the 2012 paper. The ones give the ReLUs positive inputs at the start.
    """
    layers = [module for module in model.modules() if isinstance(module, (nn.Conv2d, nn.Linear))]
    for number, layer in enumerate(layers, start=1):  # numbered as in the paper, 1 to 8
        nn.init.normal_(layer.weight, std=0.01)
        nn.init.constant_(layer.bias, 1.0 if number in (2, 4, 5, 6, 7) else 0.0)


def initialize_as_he(model: AlexNet) -> None:
    """Variance 2/fan_in (He et al., 2015) in all layers but the last, which no ReLU follows: 0.01^2 there. Biases 0."""
    initialize_he_fan_in(model)
    nn.init.normal_(model.head.fc8.weight, std=0.01)


INITIALIZATIONS = {"paper": initialize_as_paper, "he": initialize_as_he, "xavier": initialize_xavier}


FULL_WIDTH = {"widths": (96, 256, 384, 384, 256), "first_conv": (11, 4, 0), "image_size": 227, "resize": False,
              "drop": "outputs", "initialization": "paper"}

VARIANTS = (
    Variant(
        "alexnet",
        "the slimmer re-implementation of 2014 that libraries ship",
        twin="torchvision.alexnet",
        cite="krizhevsky2014",
        year=2014,
    ),
    Variant(
        "alexnet_227",
        "the customary single tower: 227x227 input, 96 first filters, local response normalization",
        {**FULL_WIDTH, "norm": "after pool"},
        input_size=(3, 227, 227),
    ),
    Variant(
        "alexnet_two_tower",
        "the network of 2012: two towers that talk in CONV3 and the fully connected layers",
        {**FULL_WIDTH, "norm": "before pool", "groups": 2},
        input_size=(3, 227, 227),
    ),
    Variant(
        "alexnet_cifar",
        "small-image form: one tower's widths, for 32x32 images",
        {"widths": (48, 128, 192, 192, 128), "first_conv": (5, 2, 2), "pool_padding": 1, "hidden": 1024,
         "image_size": 32, "num_classes": 10},
        input_size=(3, 32, 32),
    ),
)

register(AlexNet, VARIANTS, cite="krizhevsky2012", year=2012)
