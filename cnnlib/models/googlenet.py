"""GoogLeNet: filters of several sizes side by side, made cheap by 1x1 convolutions, 2014.

An Inception module runs 1x1, 3x3 and 5x5 convolutions and a pooling over the same map and stacks what they find. Done
naively that is expensive and gets deeper with every module, because the pooling keeps all channels. 1x1 convolutions
before the large filters and after the pooling cut both. Nine modules after a quickly shrinking stem, then global
average pooling instead of hidden fully connected layers: 22 layers with a ninth of AlexNet's parameters (the paper
says a twelfth). Two small classifiers in the middle feed gradients to the early layers in training.

- Szegedy, Liu, Jia, Sermanet, Reed, Anguelov, Erhan, Vanhoucke, Rabinovich. Going Deeper with Convolutions.
  CVPR 2015, arXiv:1409.4842.

In training, a network with auxiliary heads returns `GoogLeNetOutputs(logits, aux1, aux2)`, a tuple whose first entry
is the logits; the paper adds both auxiliary losses at weight 0.3. In evaluation it returns the logits alone, and the
heads do not run.

**Differs from the paper:**

- `googlenet`, the form that libraries ship: batch normalization after every convolution, no local response
  normalization, 3x3 filters where the paper has 5x5 (an old slip that has stayed), 2x2 for the last pooling,
  auxiliary maps averaged to 4x4 whatever their size, dropout 0.2.
- `googlenet_2014`: the paper names no constants of local response normalization and no initialization; they are
  AlexNet's, and those of the public replication in Caffe.
- `googlenet_cifar`: 5x5 filters and batch normalization; three eighths of the widths, one 3x3 convolution and a
  pooling as the stem, for 32x32 images.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal, NamedTuple

import torch
from torch import nn

from cnnlib.layers import ConvNormAct, response_norm
from cnnlib.registry import Variant, register


class InceptionRow(NamedTuple):
    """Channels of one module: a row of the paper's Table 1."""

    conv1x1: int  # #1x1
    reduce3x3: int  # #3x3 reduce
    conv3x3: int  # #3x3
    reduce5x5: int  # #5x5 reduce
    conv5x5: int  # #5x5
    pool_proj: int  # pool proj

    def scaled(self, width_mult: float) -> "InceptionRow":
        return InceptionRow(*(round(channels * width_mult) for channels in self))


class GoogLeNetOutputs(NamedTuple):
    """What the network returns in training: three times (N, num_classes)."""

    logits: torch.Tensor
    aux1: torch.Tensor  # after module 4a
    aux2: torch.Tensor  # after module 4d


class NaiveInception(nn.Module):
    """The module without bottlenecks: (N, C, H, W) -> (N, conv1x1 + conv3x3 + conv5x5 + C, H, W)."""

    def __init__(self, in_channels: int, conv1x1: int, conv3x3: int, conv5x5: int):
        super().__init__()
        self.branch1 = ConvNormAct(in_channels, conv1x1, 1, norm=None)
        self.branch2 = ConvNormAct(in_channels, conv3x3, 3, norm=None)
        self.branch3 = ConvNormAct(in_channels, conv5x5, 5, norm=None)
        self.branch4 = nn.MaxPool2d(3, 1, padding=1)
        self.out_channels = conv1x1 + conv3x3 + conv5x5 + in_channels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], dim=1)


class Inception(nn.Module):
    """The module with 1x1 bottlenecks: (N, in_channels, H, W) -> (N, out_channels, H, W).

    `out_channels` is conv1x1 + conv3x3 + conv5x5 + pool_proj. `large_kernel_size` is that of the third
    branch, `norm` makes the normalization of each convolution from its channels.
    """

    def __init__(
        self,
        in_channels: int,
        row: InceptionRow,
        *,
        large_kernel_size: Literal[3, 5] = 5,
        norm: Callable[[int], nn.Module] | None = None,
    ):
        super().__init__()
        conv = partial(ConvNormAct, norm=norm)
        self.branch1 = conv(in_channels, row.conv1x1, 1)
        self.branch2 = nn.Sequential(conv(in_channels, row.reduce3x3, 1), conv(row.reduce3x3, row.conv3x3, 3))
        self.branch3 = nn.Sequential(
            conv(in_channels, row.reduce5x5, 1), conv(row.reduce5x5, row.conv5x5, large_kernel_size)
        )
        self.branch4 = nn.Sequential(nn.MaxPool2d(3, 1, padding=1), conv(in_channels, row.pool_proj, 1))
        self.out_channels = row.conv1x1 + row.conv3x3 + row.conv5x5 + row.pool_proj

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], dim=1)


class AuxiliaryHead(nn.Sequential):
    """A classifier for maps in the middle of the network: (N, in_channels, H, W) -> (N, num_classes).

    Pools to 4x4, by 5x5 windows at stride 3 if `pool_size` is 5 (which needs maps of 14x14 to 16x16), else by
    adaptive windows. `widths` are the channels of the 1x1 convolution and the units of the hidden layer.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        widths: tuple[int, int] = (128, 1024),
        pool_size: Literal[5] | None = None,
        dropout: float = 0.7,
        norm: Callable[[int], nn.Module] | None = None,
    ):
        super().__init__(
            nn.AdaptiveAvgPool2d(4) if pool_size is None else nn.AvgPool2d(pool_size, 3),
            ConvNormAct(in_channels, widths[0], 1, norm=norm),
            nn.Flatten(),
            nn.Linear(widths[0] * 4 * 4, widths[1]),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(widths[1], num_classes),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if isinstance(self[0], nn.AvgPool2d) and not all(14 <= size <= 16 for size in x.shape[2:]):
            raise ValueError(f"the auxiliary heads need maps of 14x14 (images of 224x224), not "
                             f"{x.shape[2]}x{x.shape[3]}; in evaluation any size will do, and in training "
                             "with auxiliary=False or aux_pool_size=None")
        return super().forward(x)


class TappedStage(nn.Sequential):
    """A stage that in training returns (last output, outputs of the blocks at `taps`...), else the last alone."""

    def __init__(self, *blocks: nn.Module, taps: Sequence[int]):
        super().__init__(*blocks)
        self.taps = taps

    def forward(self, x: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
        outputs = []
        for position, block in enumerate(self):
            x = block(x)
            if position in self.taps:
                outputs.append(x)
        return (x, *outputs) if self.training else x


class GoogLeNet(nn.Module):
    """(N, in_channels, H, W) -> (N, num_classes) logits, in training `GoogLeNetOutputs`.

    H and W are at least 15, with the stem "cifar" 4; where the last pooling is 3x3, 31 and 8.
    `norm` is "batch" after every convolution, "response" twice in the stem, or None. `large_kernel_size` is that of
    the paper's 5x5 filters, `last_pool_size` that of the pooling before module 5a. `stem` is "imagenet" (a
    28x28 map from 224x224) or "cifar" (16x16 from 32x32). `auxiliary=False` leaves the auxiliary heads out. All
    widths but those of the classes are multiplied by `width_mult`. Raises `ValueError` for unknown options and for
    images that are too small, or in training of a size that the auxiliary heads cannot take.
    """

    def __init__(
        self,
        *,
        in_channels: int = 3,
        num_classes: int = 1000,
        norm: Literal["batch", "response"] | None = "batch",
        large_kernel_size: Literal[3, 5] = 3,
        last_pool_size: Literal[2, 3] = 2,
        stem: Literal["imagenet", "cifar"] = "imagenet",
        width_mult: float = 1.0,
        auxiliary: bool = True,
        aux_pool_size: Literal[5] | None = None,
        dropout: float = 0.2,
        aux_dropout: float = 0.7,
        initialization: Literal["library", "caffe"] = "library",
    ):
        super().__init__()
        for value, name, allowed in (
            (norm, "norm", ("batch", "response", None)), (large_kernel_size, "large_kernel_size", (3, 5)),
            (last_pool_size, "last_pool_size", (2, 3)), (stem, "stem", ("imagenet", "cifar")),
            (aux_pool_size, "aux_pool_size", (5, None)), (initialization, "initialization", tuple(INITIALIZATIONS)),
        ):
            if value not in allowed:
                raise ValueError(f"{name}={value!r}; choose one of {', '.join(map(repr, allowed))}")
        if width_mult <= 0 or round(TABLE["3a"].reduce5x5 * width_mult) < 1:
            raise ValueError(f"width_mult={width_mult!r} leaves a branch without channels")

        batch_norm = partial(nn.BatchNorm2d, eps=1e-3) if norm == "batch" else None
        conv = partial(ConvNormAct, norm=batch_norm)
        shape = {"large_kernel_size": large_kernel_size, "norm": batch_norm}
        narrow, wide = round(64 * width_mult), round(192 * width_mult)
        response = [response_norm()] if norm == "response" else []

        def pool(kernel_size: int = 3) -> nn.MaxPool2d:
            return nn.MaxPool2d(kernel_size, 2, ceil_mode=True)

        if stem == "imagenet":
            self.stem = nn.Sequential(
                conv(in_channels, narrow, 7, 2), pool(), *response,  # 112x112, 56x56
                conv(narrow, narrow, 1), conv(narrow, wide, 3), *response, pool(),  # 56x56, 28x28
            )
        else:
            self.stem = nn.Sequential(conv(in_channels, wide, 3), pool())  # 32x32, 16x16

        modules, channels = {}, wide
        for name, row in TABLE.items():
            modules[name] = Inception(channels, row.scaled(width_mult), **shape)
            channels = modules[name].out_channels
        stage3, stage4, stage5 = ([module for name, module in modules.items() if name[0] == digit] for digit in "345")
        stage3, stage4 = [*stage3, pool()], [*stage4, pool(last_pool_size)]
        self.stages = nn.Sequential(
            nn.Sequential(*stage3),  # 3a, 3b: 28x28
            TappedStage(*stage4, taps=(0, 3)) if auxiliary else nn.Sequential(*stage4),  # 4a to 4e: 14x14
            nn.Sequential(*stage5),  # 5a, 5b: 7x7
        )
        # of smaller ones nothing is left for the last pooling
        least = {("imagenet", 2): 15, ("imagenet", 3): 31, ("cifar", 2): 4, ("cifar", 3): 8}
        self.smallest_image = least[stem, last_pool_size]
        self.auxiliary = auxiliary
        if auxiliary:
            aux = {"widths": (round(128 * width_mult), round(1024 * width_mult)), "pool_size": aux_pool_size,
                   "dropout": aux_dropout, "norm": batch_norm}
            self.aux1 = AuxiliaryHead(modules["4a"].out_channels, num_classes, **aux)
            self.aux2 = AuxiliaryHead(modules["4d"].out_channels, num_classes, **aux)
        self.head = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout), nn.Linear(channels, num_classes)
        )
        INITIALIZATIONS[initialization](self)

    def forward(self, x: torch.Tensor) -> torch.Tensor | GoogLeNetOutputs:
        if min(x.shape[2:]) < self.smallest_image:
            raise ValueError(f"images of {x.shape[2]}x{x.shape[3]} are too small: this network needs at least "
                             f"{self.smallest_image}x{self.smallest_image}")
        x = self.stem(x)
        if not (self.auxiliary and self.training):
            return self.head(self.stages(x))
        stage3, stage4, stage5 = self.stages
        x, after_4a, after_4d = stage4(stage3(x))
        return GoogLeNetOutputs(self.head(stage5(x)), self.aux1(after_4a), self.aux2(after_4d))


def initialize_as_library(model: GoogLeNet) -> None:
    """All weights from N(0, 0.01^2), as torchvision has it; the batch normalizations set the size of the signal."""
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.normal_(module.weight, std=0.01)


def initialize_as_caffe(model: GoogLeNet) -> None:
    """Uniform weights of variance 1 / fan_in; biases 0.2, of classifiers 0, as the public replication in Caffe has it.

    The positive biases keep the ReLUs open at the start, without which so deep a network would pass no signal.
    """
    classifiers = [head[-1] for name, head in model.named_children() if name in ("aux1", "aux2", "head")]
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_uniform_(module.weight, nonlinearity="linear")
            if module.bias is not None:
                nn.init.constant_(module.bias, 0.0 if module in classifiers else 0.2)


INITIALIZATIONS = {"library": initialize_as_library, "caffe": initialize_as_caffe}

# the paper's Table 1, column by column as it prints them
TABLE = {
    "3a": InceptionRow(64, 96, 128, 16, 32, 32),
    "3b": InceptionRow(128, 128, 192, 32, 96, 64),
    "4a": InceptionRow(192, 96, 208, 16, 48, 64),
    "4b": InceptionRow(160, 112, 224, 24, 64, 64),
    "4c": InceptionRow(128, 128, 256, 24, 64, 64),
    "4d": InceptionRow(112, 144, 288, 32, 64, 64),
    "4e": InceptionRow(256, 160, 320, 32, 128, 128),
    "5a": InceptionRow(256, 160, 320, 32, 128, 128),
    "5b": InceptionRow(384, 192, 384, 48, 128, 128),
}

VARIANTS = (
    Variant(
        "googlenet",
        "the form that libraries ship: batch normalization, 3x3 in place of 5x5",
        twin="torchvision.googlenet",
    ),
    Variant(
        "googlenet_2014",
        "the published form: true 5x5, local response normalization, no batch normalization",
        {"norm": "response", "large_kernel_size": 5, "last_pool_size": 3, "aux_pool_size": 5, "dropout": 0.4,
         "initialization": "caffe"},
    ),
    Variant(
        "googlenet_cifar",
        "small-image form: three eighths of the widths and a short stem, for 32x32 images",
        {"large_kernel_size": 5, "last_pool_size": 3, "stem": "cifar", "width_mult": 0.375, "num_classes": 10},
        input_size=(3, 32, 32),
    ),
)

register(GoogLeNet, VARIANTS, cite="szegedy2015", year=2014)
