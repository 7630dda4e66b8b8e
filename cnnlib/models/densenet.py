"""DenseNet: every layer reads the outputs of all layers before it.

Where a residual network adds, a dense block concatenates: x_l = H_l([x_0, x_1, ..., x_{l-1}]). Layer l of a block sees
k0 + k(l - 1) maps and adds k new ones, the growth rate. Features are kept rather than rewritten, so that k = 12 or 32
is enough, and every layer has a short path to the loss. A transition between two blocks halves the maps.

- Huang, Liu, van der Maaten, Weinberger. Densely Connected Convolutional Networks. CVPR 2017. arXiv:1608.06993.
- Pleiss, Chen, Huang, Li, van der Maaten, Weinberger. Memory-Efficient Implementation of DenseNets. arXiv:1707.06990,
  2017.

**Differs from the paper:**

- All: no dropout, which the paper uses (0.2) only where it does not augment the images. Convolutions start with
  variance 2 / fan_in, as in libraries; the authors' code has fan_out. With `memory_efficient=True` a layer is computed
  again for the backward pass, both convolutions included; the 2017 report recomputes only what is cheap, and shares
  memory by hand.
- `densenet_cifar`: DenseNet-BC with k = 16 and blocks of 2, 4 and 8 layers, most of them where maps are small.
"""

from collections.abc import Sequence
from contextlib import contextmanager, nullcontext
from typing import Literal

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from cnnlib.layers import in_place, norm_act, pooled_classifier
from cnnlib.registry import Variant, register


class NormActConv(nn.Sequential):
    """Normalization, ReLU, convolution that keeps the size: (N, in_channels, H, W) -> (N, out_channels, H, W)."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int):
        super().__init__()
        self.norm = nn.BatchNorm2d(in_channels)
        self.activation = in_place(nn.ReLU())
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=False)


class DenseLayer(nn.Module):
    """x_l = H_l([x_0, x_1, ..., x_{l-1}]): k new maps from all earlier ones, which it concatenates.

    Any number of (N, C_i, H, W) -> (N, growth_rate, H, W). A bottleneck (DenseNet-B) first reduces the sum of
    all C_i, `in_channels`, to `bottleneck` * k with a 1x1 convolution; None leaves it out.
    """

    def __init__(self, in_channels: int, growth_rate: int, *, bottleneck: int | None):
        super().__init__()
        width = in_channels if bottleneck is None else bottleneck * growth_rate
        self.reduce = nn.Identity() if bottleneck is None else NormActConv(in_channels, width, 1)
        self.grow = NormActConv(width, growth_rate, 3)

    def forward(self, *features: torch.Tensor) -> torch.Tensor:
        return self.grow(self.reduce(torch.cat(features, dim=1)))


class DenseBlock(nn.Sequential):
    """[x_0, x_1, ..., x_L] by `depth` = L dense layers: (N, C, H, W) -> (N, C + depth * growth_rate, H, W).

    Each layer concatenates and normalizes all maps before it, so what a plain backward pass keeps grows with
    the square of the depth. With `memory_efficient` a block keeps the k maps of each layer only, and computes
    the rest again when the backward pass gets there: the same numbers for about a third more time.
    """

    def __init__(
        self,
        in_channels: int,
        growth_rate: int,
        depth: int,
        *,
        bottleneck: int | None = 4,
        memory_efficient: bool = False,
    ):
        widths = [in_channels + growth_rate * i for i in range(depth)]
        super().__init__(*(DenseLayer(width, growth_rate, bottleneck=bottleneck) for width in widths))
        self.memory_efficient = memory_efficient
        self.out_channels = in_channels + depth * growth_rate

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = [x]
        for layer in self:
            new = computed_twice(layer, features) if self.memory_efficient else layer(*features)
            features.append(new)
        return torch.cat(features, dim=1)


def computed_twice(layer: nn.Module, features: Sequence[torch.Tensor]) -> torch.Tensor:
    """The layer's output; what its backward pass needs is not kept, but computed again when it gets there."""
    if not torch.is_grad_enabled():
        return layer(*features)
    contexts = lambda: (nullcontext(), running_statistics_kept(layer))
    return checkpoint(layer, *features, use_reentrant=False, context_fn=contexts)


@contextmanager
def running_statistics_kept(module: nn.Module):
    """Batch normalization as in training, but its running statistics stay: the second time a batch passes."""
    norms = [norm for norm in module.modules() if isinstance(norm, nn.BatchNorm2d)]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, (momentum, batches) in zip(norms, before):
            norm.momentum, norm.num_batches_tracked = momentum, batches


class Transition(nn.Sequential):
    """Between two blocks: 1x1 convolution and 2x2 average pooling, (N, C, H, W) -> (N, out_channels, H/2, W/2)."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.reduce = NormActConv(in_channels, out_channels, 1)
        self.pool = nn.AvgPool2d(2)


class DenseNet(nn.Module):
    """(N, in_channels, H, W) -> (N, num_classes) logits.

    `depths` are the layers of each dense block, `stem_width` the maps that enter the first. A transition keeps the
    fraction `compression` of the maps. The depth that names a network counts convolutions and the last layer. `stem` is
    "imagenet" (7x7 convolution and pooling, which divide the size by 4) or "cifar" (3x3, which keeps it). Raises
    `ValueError` for another stem and for a compression outside (0, 1].
    """

    def __init__(
        self,
        *,
        in_channels: int = 3,
        num_classes: int = 1000,
        growth_rate: int = 32,  # k
        depths: Sequence[int] = (6, 12, 24, 16),
        stem_width: int = 64,  # k0
        stem: Literal["imagenet", "cifar"] = "imagenet",
        bottleneck: int | None = 4,
        compression: float = 0.5,  # theta
        memory_efficient: bool = False,
    ):
        super().__init__()
        if stem not in STEMS:
            raise ValueError(f"stem={stem!r}; choose one of {', '.join(STEMS)}")
        if not 0 < compression <= 1:
            raise ValueError(f"compression={compression!r} is not in (0, 1]")
        # 56x56 for 224x224 images; 32x32 for 32x32
        self.stem = STEMS[stem](in_channels, stem_width)
        # 56x56, 28x28, 14x14, 7x7; 32x32, 16x16, 8x8
        self.stages = nn.Sequential()
        width = stem_width
        for number, depth in enumerate(depths):
            stage = nn.Sequential()
            if number > 0:
                stage.append(Transition(width, int(width * compression)))
                width = int(width * compression)
            stage.append(DenseBlock(
                width, growth_rate, depth, bottleneck=bottleneck, memory_efficient=memory_efficient
            ))
            width = stage[-1].out_channels
            self.stages.append(stage)
        self.head = nn.Sequential(*norm_act(width), *pooled_classifier(width, num_classes))
        initialize(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.stages(self.stem(x)))


def imagenet_stem(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 7, 2, padding=3, bias=False),
        *norm_act(out_channels),
        nn.MaxPool2d(3, 2, padding=1),
    )


def cifar_stem(in_channels: int, out_channels: int) -> nn.Sequential:
    """Only a convolution: the first dense layer normalizes its output."""
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False))


STEMS = {"imagenet": imagenet_stem, "cifar": cifar_stem}


def initialize(model: DenseNet) -> None:
    """Convolution weights from N(0, 2/fan_in), which keeps the signal's size through ReLU (He et al., 2015).

    The paper follows He et al.; the bias of the last layer is 0, so that the classes begin about equally likely.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)


def cifar_config(layers: int, growth_rate: int, *, bc: bool) -> dict:
    """The paper's CIFAR networks: three equal blocks, the depth L counted with stem, transitions and last layer.

    Without BC, L = 3n + 4, 16 first maps, no compression; with it L = 6n + 4, 2k first maps, half the maps kept.
    """
    shared = {"growth_rate": growth_rate, "stem": "cifar", "num_classes": 10}
    if bc:
        return {**shared, "depths": 3 * ((layers - 4) // 6,), "stem_width": 2 * growth_rate}
    return {**shared, "depths": 3 * ((layers - 4) // 3,), "stem_width": 16, "bottleneck": None, "compression": 1.0}


VARIANTS = (
    Variant("densenet121", "the paper's smallest for ImageNet", twin="torchvision.densenet121"),
    Variant(
        "densenet169", "deeper third and fourth block", {"depths": (6, 12, 32, 32)}, twin="torchvision.densenet169"
    ),
    Variant("densenet201", "deeper third block", {"depths": (6, 12, 48, 32)}, twin="torchvision.densenet201"),
    Variant(
        "densenet161",
        "wide: growth rate 48",
        {"depths": (6, 12, 36, 24), "growth_rate": 48, "stem_width": 96},
        twin="torchvision.densenet161",
    ),
    *(
        Variant(
            f"densenet{layers}_k{growth_rate}",
            f"for CIFAR: L={layers}, k={growth_rate}, without bottleneck and compression",
            cifar_config(layers, growth_rate, bc=False),
            input_size=(3, 32, 32),
        )
        for layers, growth_rate in ((40, 12), (100, 12), (100, 24))
    ),
    *(
        Variant(
            f"densenet_bc{layers}_k{growth_rate}",
            f"for CIFAR: DenseNet-BC with L={layers}, k={growth_rate}",
            cifar_config(layers, growth_rate, bc=True),
            input_size=(3, 32, 32),
        )
        for layers, growth_rate in ((100, 12), (250, 24), (190, 40))
    ),
    Variant(
        "densenet_cifar",
        "small-image form: DenseNet-BC with k=16 and blocks of 2, 4 and 8 layers, for 32x32 images",
        {"growth_rate": 16, "depths": (2, 4, 8), "stem_width": 32, "stem": "cifar", "num_classes": 10},
        input_size=(3, 32, 32),
    ),
)

register(DenseNet, VARIANTS, cite="huang2017densenet", year=2016)
