"""VGG: nothing but 3x3 convolutions and 2x2 pooling, up to 19 layers deep, 2014.

Three rules make the whole network. All convolutions are 3x3, stride 1, padding 1, so that two see as far as one 5x5 and
three as far as one 7x7, with fewer weights and more non-linearities. All poolings are 2x2, stride 2. Channels double
after each pooling, up to 512. Then three fully connected layers. The configurations A to E differ in how many
convolutions stand before each pooling.

- Simonyan, Zisserman. Very Deep Convolutional Networks for Large-Scale Image Recognition. ICLR 2015, arXiv:1409.1556.

**Differs from the paper:**

- All: initialized as torchvision does. The paper trained A from small random weights, and the others from A's layers;
  `initialization="paper"` and `grow` do that. The paper writes "10^-2 variance"; weights of that size
  would multiply the signal by up to 4.8 in a convolution, 11 in FC6, so it is read as a standard deviation of 10^-2.
- All: averages the last map to 7x7, so that other input sizes pass. For the same end, the paper turns the fully
  connected layers into convolutions.
- `vgg*_bn`: batch normalization after every convolution, which is younger than the paper.
- `vgg*_cifar`, `vgg*_cifar_bn`: half the widths, a last map of 1x1, 256 hidden units, for 32x32 images, He
  initialization.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import nn

from cnnlib.layers import ConvNormAct, initialize_he_fan_in, initialize_xavier, response_norm
from cnnlib.registry import Variant, register


class VGG(nn.Module):
    """(N, in_channels, H, W) -> (N, num_classes) logits; H and W at least 32.

    `depths[i]` convolutions of `widths[i]` channels and a pooling make stage i. `last_kernel_size` is that of
    the third convolution of a stage, where there is one: 1 in configuration C. `norm` is "batch" after every
    convolution, "response" after the first activation only (A-LRN), or None. The last map is averaged to
    `map_size` x `map_size`; `hidden` are the units of the two hidden fully connected layers. Raises
    `ValueError` for lists of unequal length, an unknown `norm` or `initialization`, and images that are too
    small.
    """

    def __init__(
        self,
        *,
        in_channels: int = 3,
        num_classes: int = 1000,
        widths: Sequence[int] = (64, 128, 256, 512, 512),
        depths: Sequence[int] = (2, 2, 3, 3, 3),
        last_kernel_size: Literal[1, 3] = 3,
        norm: Literal["batch", "response"] | None = None,
        map_size: int = 7,
        hidden: int = 4096,
        dropout: float = 0.5,
        initialization: Literal["library", "he", "xavier", "paper"] = "library",
    ):
        super().__init__()
        if len(widths) != len(depths) or min(depths, default=0) < 1:
            raise ValueError(f"widths={tuple(widths)!r} and depths={tuple(depths)!r} must name as many "
                             "stages, none empty")
        if last_kernel_size not in (1, 3):
            raise ValueError(f"last_kernel_size={last_kernel_size!r}; choose 3, or 1 as in configuration C")
        if norm not in (None, "batch", "response"):
            raise ValueError(f"norm={norm!r}; choose 'batch', 'response' or None")
        if initialization not in INITIALIZATIONS:
            raise ValueError(f"initialization={initialization!r}; choose one of {', '.join(INITIALIZATIONS)}")

        self.stem = nn.Identity()  # none: the first stage sees the image itself
        self.stages = nn.Sequential()  # with 224x224 images: 112x112, 56x56, 28x28, 14x14, 7x7
        for width, depth in zip(widths, depths):
            stage = nn.Sequential()
            for position in range(depth):
                kernel_size = last_kernel_size if position == 2 else 3
                batch_norm = nn.BatchNorm2d if norm == "batch" else None
                stage.append(ConvNormAct(in_channels, width, kernel_size, norm=batch_norm, bias=True))
                if norm == "response" and len(self.stages) == position == 0:
                    stage.append(response_norm())
                in_channels = width
            stage.append(nn.MaxPool2d(2, 2))
            self.stages.append(stage)
        self.head = nn.Sequential(
            nn.AdaptiveAvgPool2d(map_size),
            nn.Flatten(),
            nn.Linear(in_channels * map_size**2, hidden),  # FC6
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, hidden),  # FC7
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, num_classes),
        )
        INITIALIZATIONS[initialization](self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        smallest = 2 ** len(self.stages)
        if min(x.shape[2:]) < smallest:
            raise ValueError(f"images of {x.shape[2]}x{x.shape[3]} are too small: {len(self.stages)} "
                             f"poolings need at least {smallest}x{smallest}")
        return self.head(self.stages(self.stem(x)))


def initialize_as_library(model: VGG) -> None:
    """Convolutions from N(0, 2/fan_out), fully connected layers from N(0, 0.01^2), biases 0, as torchvision has it.

    The deviation 0.01 suits hidden layers of 4096 units, and is too small for narrow ones.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.01)
            nn.init.zeros_(module.bias)


def initialize_as_he(model: VGG) -> None:
    """Variance 2/fan_in in all layers but the last, which no ReLU follows: N(0, 0.01^2) there. Biases 0.

    The variance makes up for the half of the signal that ReLU removes (He et al., 2015), at any depth and
    width.
    """
    initialize_he_fan_in(model)
    nn.init.normal_(model.head[-1].weight, std=0.01)


def initialize_as_paper(model: VGG) -> None:
    """Weights from N(0, 0.01^2), biases 0 (section 3.1): enough for configuration A, too small for others."""
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.normal_(module.weight, std=0.01)
            nn.init.zeros_(module.bias)


INITIALIZATIONS = {
    "library": initialize_as_library,
    "he": initialize_as_he,
    "xavier": initialize_xavier,  # in place of growing from configuration A, found after the submission (section 3.1)
    "paper": initialize_as_paper,
}


@torch.no_grad()
def grow(deep: VGG, shallow: VGG, convolutions: int = 4) -> VGG:
    """Start `deep` from the trained `shallow`, as the paper did: the first convolutions and all of the head.

    The first `convolutions` layers of `shallow` go to the same places, stage by stage, in `deep`; what lies
    between keeps its random start. Returns `deep`. Raises `ValueError` where the shapes of the two do not
    match.
    """
    places = [(stage, position) for stage, blocks in enumerate(shallow.stages)
              for position, block in enumerate(blocks) if isinstance(block, ConvNormAct)]
    pairs = [(deep.stages[i][j], shallow.stages[i][j]) for i, j in places[:convolutions]]
    for target, source in [*pairs, (deep.head, shallow.head)]:
        shapes, expected = ([tuple(tensor.shape) for tensor in module.state_dict().values()]
                            for module in (source, target))
        if shapes != expected:
            raise ValueError(f"tensors of shapes {shapes} of the shallow network do not fit {expected} of "
                             "the deep one")
        target.load_state_dict(source.state_dict())
    return deep


# convolutions in each stage, for the columns of the paper's Table 1
A, B, C, D, E = (1, 1, 2, 2, 2), (2, 2, 2, 2, 2), (2, 2, 3, 3, 3), (2, 2, 3, 3, 3), (2, 2, 4, 4, 4)

SMALL = {"widths": (32, 64, 128, 256, 256), "map_size": 1, "hidden": 256, "num_classes": 10, "initialization": "he"}

VARIANTS = (
    Variant("vgg11", "configuration A", {"depths": A}, twin="torchvision.vgg11"),
    Variant("vgg11_lrn", "configuration A-LRN: local response normalization, which did not help",
            {"depths": A, "norm": "response"}),
    Variant("vgg13", "configuration B", {"depths": B}, twin="torchvision.vgg13"),
    Variant("vgg16_c", "configuration C: the third convolution of a stage is 1x1",
            {"depths": C, "last_kernel_size": 1}),
    Variant("vgg16", "configuration D, the best known", {"depths": D}, twin="torchvision.vgg16"),
    Variant("vgg19", "configuration E", {"depths": E}, twin="torchvision.vgg19"),
    *(Variant(f"vgg{layers}_bn", f"configuration {letter} with batch normalization",
              {"depths": depths, "norm": "batch"}, twin=f"torchvision.vgg{layers}_bn")
      for layers, letter, depths in ((11, "A", A), (13, "B", B), (16, "D", D), (19, "E", E))),
    *(Variant(f"vgg{layers}_cifar{suffix}", f"small-image form of configuration {letter}{words}: half the widths",
              {**SMALL, "depths": depths, "norm": norm}, input_size=(3, 32, 32))
      for layers, letter, depths in ((11, "A", A), (16, "D", D))
      for suffix, words, norm in (("", "", None), ("_bn", " with batch normalization", "batch"))),
)

register(VGG, VARIANTS, cite="simonyan2015", year=2014)
