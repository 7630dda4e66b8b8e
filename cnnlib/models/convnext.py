"""ConvNeXt: a ResNet rebuilt, step by step, with what vision transformers had shown to work; still all convolution.

Patches instead of an overlapping stem, 7x7 depthwise filters, inverted bottlenecks, one activation and one layer
normalization in a block, separate downsampling. The path from ResNet-50 is here as networks too, one for each row
of the paper's Table 10 (Figure 2): `convnext_step00_resnet50`, ..., whose next step is `convnext_tiny` itself.

- Liu, Mao, Wu, Feichtenhofer, Darrell, Xie. A ConvNet for the 2020s. CVPR 2022.

**Differs from the paper:**

- `convnext_tiny` to `convnext_large`: nothing.
- `convnext_step*`: the paper's Table 10 gives multiply-adds, the text and Figure 4 the blocks; what they leave open is
  decided here. Fewer activations: also none after the stem and after the addition. Fewer norms: also none after the
  stem and in the shortcuts; the last step puts them back. All are initialized as ConvNeXt, and have no layer scale.
- `*_cifar`: 2x2 patches for 32x32 images, (2, 2, 6, 2) blocks where the paper has (3, 3, 9, 3), (2, 3, 4, 2) where it
  has ResNet's (3, 4, 6, 3), 36 channels where it has 96 and 24 where it has 64; the stem of ResNet is a 3x3
  convolution and pooling. No layer scale: its first value of 1e-6 takes more steps to grow than a short training has.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import torch
from torch import nn

from cnnlib.layers import (
    ConvNormAct, DropPath, LayerNorm2d, check_equally_many, initialize_truncated, linear_rates, pooled_classifier,
)
from cnnlib.registry import Variant, register


class ConvNeXtBlock(nn.Module):
    """x + scale * F(x), F a depthwise 7x7, layer norm, and two 1x1 convolutions with GELU between them.

    Keeps (N, width, H, W). The 1x1 convolutions are linear layers on (N, H, W, C), where layer norm needs no
    other order. `layer_scale` is the first value of the factor of each channel; None leaves it out.
    """

    def __init__(self, width: int, *, drop_path: float = 0.0, layer_scale: float | None = 1e-6):
        super().__init__()
        self.scale = None if layer_scale is None else nn.Parameter(torch.full((width, 1, 1), float(layer_scale)))
        self.depthwise = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.expand = nn.Linear(width, 4 * width)
        self.activation = nn.GELU()
        self.project = nn.Linear(4 * width, width)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        out = self.project(self.activation(self.expand(out))).permute(0, 3, 1, 2)
        if self.scale is not None:
            out = self.scale * out
        return x + self.drop_path(out)


class ConvNeXt(nn.Module):
    """(N, in_channels, H, W) -> (N, num_classes) logits.

    Patches of `patch_size`, then `depths` blocks of `widths` channels; between stages a layer norm and a 2x2
    convolution of stride 2. `drop_path_rate` grows linearly over the blocks, from 0. Raises `ValueError` if depths
    and widths do not name equally many stages.
    """

    def __init__(
        self,
        *,
        in_channels: int = 3,
        num_classes: int = 1000,
        depths: Sequence[int] = (3, 3, 9, 3),
        widths: Sequence[int] = (96, 192, 384, 768),
        patch_size: int = 4,
        drop_path_rate: float = 0.1,
        layer_scale: float | None = 1e-6,
    ):
        super().__init__()
        check_equally_many(depths=depths, widths=widths)
        rates = iter(linear_rates(drop_path_rate, depths))
        self.stem = nn.Sequential(nn.Conv2d(in_channels, widths[0], patch_size, patch_size), LayerNorm2d(widths[0]))
        self.stages = nn.Sequential()
        for index, (depth, width) in enumerate(zip(depths, widths)):
            stage = nn.Sequential()
            if index > 0:
                narrow = widths[index - 1]
                stage.append(nn.Sequential(LayerNorm2d(narrow), nn.Conv2d(narrow, width, 2, 2)))
            for _ in range(depth):
                stage.append(ConvNeXtBlock(width, drop_path=next(rates), layer_scale=layer_scale))
            self.stages.append(stage)
        self.head = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            LayerNorm2d(widths[-1]),
            nn.Flatten(),
            nn.Linear(widths[-1], num_classes),
        )
        initialize_truncated(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.stages(self.stem(x)))


# The way from ResNet-50


# Three convolutions, each as (in_channels, out_channels, kernel_size, stride, groups)


def _bottleneck(in_channels: int, out_channels: int, kernel_size: int, stride: int, depthwise: bool) -> tuple:
    width = out_channels // 4
    return ((in_channels, width, 1, 1, 1),
            (width, width, kernel_size, stride, width if depthwise else 1),
            (width, out_channels, 1, 1, 1))


def _inverted(in_channels: int, out_channels: int, kernel_size: int, stride: int, depthwise: bool) -> tuple:
    width = 4 * out_channels
    return ((in_channels, width, 1, 1, 1),
            (width, width, kernel_size, stride, width if depthwise else 1),
            (width, out_channels, 1, 1, 1))


def _depthwise_first(in_channels: int, out_channels: int, kernel_size: int, stride: int, depthwise: bool) -> tuple:
    width = 4 * out_channels
    return ((in_channels, in_channels, kernel_size, stride, in_channels if depthwise else 1),
            (in_channels, width, 1, 1, 1),
            (width, out_channels, 1, 1, 1))


LAYOUTS = {"bottleneck": _bottleneck, "inverted": _inverted, "depthwise first": _depthwise_first}


class StepBlock(nn.Module):
    """A residual block on the way: (N, in_channels, H, W) -> (N, out_channels, H/stride, W/stride).

    `layout` says which three convolutions it has:

    - "bottleneck": 1x1 down to a quarter of `out_channels`, kxk (depthwise with `depthwise`), 1x1 up;
    - "inverted": 1x1 up to four times `out_channels`, kxk depthwise, 1x1 down;
    - "depthwise first": kxk depthwise, 1x1 up, 1x1 down.

    `few_activations` keeps one, between the last two convolutions; `few_norms` keeps one, after the first.
    Otherwise each convolution has a norm and each but the last, and the sum, an activation.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int = 1,
        *,
        layout: Literal["bottleneck", "inverted", "depthwise first"],
        depthwise: bool,
        kernel_size: int,
        norm: Callable[[int], nn.Module],
        activation: Callable[[], nn.Module],
        few_activations: bool,
        few_norms: bool,
        drop_path: float = 0.0,
    ):
        super().__init__()
        if layout not in LAYOUTS:
            raise ValueError(f"layout={layout!r}; choose one of {', '.join(map(repr, LAYOUTS))}")
        convolutions = LAYOUTS[layout](in_channels, out_channels, kernel_size, stride, depthwise)
        norms = (norm, None, None) if few_norms else (norm, norm, norm)
        activations = (None, activation, None) if few_activations else (activation, activation, None)
        self.branch = nn.Sequential(*[
            ConvNormAct(*shape, groups=groups, norm=one_norm, activation=one_activation)
            for (*shape, groups), one_norm, one_activation in zip(convolutions, norms, activations)
        ])
        self.drop_path = DropPath(drop_path)
        self.shortcut = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            around = {"norm": None if few_norms else norm, "activation": None}
            self.shortcut = ConvNormAct(in_channels, out_channels, 1, stride, **around)
        self.activation = nn.Identity() if few_activations else activation()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.activation(self.drop_path(self.branch(x)) + self.shortcut(x))


class ConvNeXtStep(nn.Module):
    """A network between ResNet-50, which the defaults are, and ConvNeXt: (N, in_channels, H, W) -> (N, num_classes).

    `widths` are ResNet's: the channels inside a bottleneck, a quarter of those between blocks. In the other layouts
    they are the channels between blocks. With `patchify` the stem is one convolution over patches of `patch_size`;
    else ResNet's convolution and pooling, which shrink images as much (for 2: without stride in the convolution).
    Raises `ValueError` for unequally many depths and widths, an even `kernel_size`, and another `patch_size` there.
    """

    def __init__(
        self,
        *,
        in_channels: int = 3,
        num_classes: int = 1000,
        depths: Sequence[int] = (3, 4, 6, 3),
        widths: Sequence[int] = (64, 128, 256, 512),
        patch_size: int = 4,
        patchify: bool = False,
        layout: Literal["bottleneck", "inverted", "depthwise first"] = "bottleneck",
        depthwise: bool = False,
        kernel_size: int = 3,
        norm: Callable[[int], nn.Module] = nn.BatchNorm2d,
        activation: Callable[[], nn.Module] = nn.ReLU,
        few_activations: bool = False,
        few_norms: bool = False,
        drop_path_rate: float = 0.0,
    ):
        super().__init__()
        check_equally_many(depths=depths, widths=widths)
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size={kernel_size} must be odd, so that maps keep their size")
        rates = iter(linear_rates(drop_path_rate, depths))
        around_stem = {"norm": None if few_norms else norm, "activation": None if few_activations else activation}
        if patchify:
            self.stem = ConvNormAct(in_channels, widths[0], patch_size, patch_size, padding=0, **around_stem)
        elif patch_size in (2, 4):
            kernel, stride = (7, 2) if patch_size == 4 else (3, 1)
            self.stem = nn.Sequential(ConvNormAct(in_channels, widths[0], kernel, stride, **around_stem),
                                      nn.MaxPool2d(3, 2, padding=1))
        else:
            raise ValueError(f"patch_size={patch_size}: ResNet's stem shrinks images by 4 or, in small form, by 2")

        channels = widths[0]
        self.stages = nn.Sequential()
        for index, (depth, width) in enumerate(zip(depths, widths)):
            out_channels = 4 * width if layout == "bottleneck" else width
            stage = nn.Sequential()
            for position in range(depth):
                stride = 2 if index > 0 and position == 0 else 1
                stage.append(StepBlock(
                    channels, out_channels, stride, layout=layout, depthwise=depthwise, kernel_size=kernel_size,
                    norm=norm, activation=activation, few_activations=few_activations, few_norms=few_norms,
                    drop_path=next(rates)))
                channels = out_channels
            self.stages.append(stage)
        self.head = pooled_classifier(channels, num_classes)
        initialize_truncated(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.stages(self.stem(x)))


IMAGENET = {"depths": (3, 3, 9, 3), "widths": (96, 192, 384, 768)}
CIFAR = {"depths": (2, 2, 6, 2), "widths": (36, 72, 144, 288)}
RESNET_CIFAR = {"depths": (2, 3, 4, 2), "widths": (24, 48, 96, 192), "patch_size": 2, "num_classes": 10}

STEPS = (  # Table 10: name, what happens, what changes
    ("resnet50", "ResNet-50, where the steps start", ()),
    ("stage_ratio", "as many blocks in each stage as Swin-T", ("depths",)),
    ("patchify_stem", "the stem cuts the image into patches", {"patchify": True}),
    ("depthwise", "the 3x3 convolutions become depthwise", {"depthwise": True}),
    ("wider", "one and a half times the width", ("widths",)),
    ("inverted", "wide inside, narrow between blocks", {"layout": "inverted"}),
    ("depthwise_first", "the depthwise convolution moves to the start of the block", {"layout": "depthwise first"}),
    ("kernel5", "5x5 depthwise filters", {"kernel_size": 5}),
    ("kernel7", "7x7 depthwise filters", {"kernel_size": 7}),
    ("kernel9", "9x9 depthwise filters, tried and not kept", {"kernel_size": 9}),
    ("kernel11", "11x11 depthwise filters, tried and not kept", {"kernel_size": 11}),
    ("gelu", "GELU instead of ReLU, with 7x7 filters", {"kernel_size": 7, "activation": nn.GELU}),
    ("few_activations", "one activation in a block", {"few_activations": True}),
    ("few_norms", "one normalization in a block", {"few_norms": True}),
    ("layer_norm", "layer normalization instead of batch normalization", {"norm": LayerNorm2d}),
)


def step_rows(start: Mapping, target: Mapping, *, suffix: str = "", summary: str = "", **row) -> list[Variant]:
    """A row for each of `STEPS`, each with all changes so far. A step that names arguments takes them from `target`."""
    rows, config = [], dict(start)
    for number, (name, text, change) in enumerate(STEPS):
        config.update(change if isinstance(change, Mapping) else {key: target[key] for key in change})
        rows.append(Variant(
            f"convnext_step{number:02}_{name}{suffix}",
            f"{summary}step {number} to ConvNeXt: {text}",
            dict(config),
            twin=None if config else "torchvision.resnet50",  # nothing has changed yet
            network=ConvNeXtStep,
            **row,
        ))
    return rows


VARIANTS = (
    Variant("convnext_tiny", "the size of ResNet-50, and the last step from it", twin="torchvision.convnext_tiny"),
    Variant("convnext_small", "tiny with 27 blocks in the third stage",
            {"depths": (3, 3, 27, 3), "drop_path_rate": 0.4}, twin="torchvision.convnext_small"),
    Variant("convnext_base", "small with 128 channels where it has 96",
            {"depths": (3, 3, 27, 3), "widths": (128, 256, 512, 1024), "drop_path_rate": 0.5},
            twin="torchvision.convnext_base"),
    Variant("convnext_large", "small with 192 channels where it has 96",
            {"depths": (3, 3, 27, 3), "widths": (192, 384, 768, 1536), "drop_path_rate": 0.5},
            twin="torchvision.convnext_large"),
    Variant("convnext_cifar", "small-image form: the last step for 32x32 images",
            {**CIFAR, "patch_size": 2, "drop_path_rate": 0.0, "layer_scale": None, "num_classes": 10},
            input_size=(3, 32, 32)),
    *step_rows({}, IMAGENET),
    *step_rows(RESNET_CIFAR, CIFAR, suffix="_cifar", summary="small-image form: ", input_size=(3, 32, 32)),
)

register(ConvNeXt, VARIANTS, cite="liu2022convnext", year=2022)
