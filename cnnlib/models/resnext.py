"""ResNeXt: many thin branches in parallel do more than one wide branch at the same cost.

A block splits into `cardinality` branches, each a bottleneck of its own, and adds their results to the input. The same
block can be written in three ways (figure 3 of the paper), all here: as separate branches that are summed
(`SummedBranches`); as separate branches that are concatenated before one common 1x1 convolution
(`ConcatenatedBranches`); and as one bottleneck whose 3x3 convolution is grouped (`GroupedBranches`), which is how it is
run. `convert` carries the weights from one form to another.

- Xie, Girshick, Dollar, Tu, He. Aggregated Residual Transformations for Deep Neural Networks. CVPR 2017,
  arXiv:1611.05431.

**Differs from the paper:**

- `resnext29_8x64d`, `resnext29_16x64d`: activations after the convolutions, as in the authors' code, which found that
  better; the paper's CIFAR results come from pre-activated blocks.
- `resnext101_32x8d` is a network of the library; the paper has 32x4d and 64x4d.
- `resnext29_8x4d_narrow`: small-image form, a quarter of the channels.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import nn

from cnnlib.layers import (
    ConvNormAct,
    DropPath,
    initialize_he_fan_out,
    make_shortcut,
    pooled_classifier,
    residual_stages,
    residual_stem,
)
from cnnlib.registry import Variant, register


class GroupedBranches(nn.Sequential):
    """Form (c): 1x1, 3x3 in `cardinality` groups of `group_width` channels, 1x1."""

    def __init__(
        self, in_channels: int, out_channels: int, stride: int, *, cardinality: int, group_width: int
    ):
        width = cardinality * group_width
        super().__init__(
            ConvNormAct(in_channels, width, 1),
            ConvNormAct(width, width, 3, stride, groups=cardinality),
            ConvNormAct(width, out_channels, 1, activation=None),
        )

    def grouped_state(self) -> dict[str, torch.Tensor]:
        return self.state_dict()

    def load_grouped_state(self, state: dict[str, torch.Tensor]) -> None:
        self.load_state_dict(state)


class ConcatenatedBranches(nn.Module):
    """Form (b): `cardinality` branches of 1x1 and 3x3, their outputs concatenated, then a common 1x1."""

    def __init__(
        self, in_channels: int, out_channels: int, stride: int, *, cardinality: int, group_width: int
    ):
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(ConvNormAct(in_channels, group_width, 1), ConvNormAct(group_width, group_width, 3, stride))
            for _ in range(cardinality)
        )
        self.merge = ConvNormAct(cardinality * group_width, out_channels, 1, activation=None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.merge(torch.cat([branch(x) for branch in self.branches], dim=1))

    def grouped_state(self) -> dict[str, torch.Tensor]:
        return {**join_branches(self.branches), **prefixed("2.", self.merge.state_dict())}

    def load_grouped_state(self, state: dict[str, torch.Tensor]) -> None:
        load_branches(self.branches, state)
        self.merge.load_state_dict(part(state, "2."))


class SummedBranches(nn.Module):
    """Form (a): `cardinality` branches of 1x1, 3x3 and 1x1, their outputs added up, then one normalization."""

    def __init__(
        self, in_channels: int, out_channels: int, stride: int, *, cardinality: int, group_width: int
    ):
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(ConvNormAct(in_channels, group_width, 1), ConvNormAct(group_width, group_width, 3, stride))
            for _ in range(cardinality)
        )
        self.expansions = nn.ModuleList(
            nn.Conv2d(group_width, out_channels, 1, bias=False) for _ in range(cardinality)
        )
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(sum(expand(branch(x)) for branch, expand in zip(self.branches, self.expansions)))

    def grouped_state(self) -> dict[str, torch.Tensor]:
        return {
            **join_branches(self.branches),
            "2.conv.weight": torch.cat([expand.weight.detach() for expand in self.expansions], dim=1),
            **prefixed("2.norm.", self.norm.state_dict()),
        }

    def load_grouped_state(self, state: dict[str, torch.Tensor]) -> None:
        load_branches(self.branches, state)
        weights = state["2.conv.weight"].chunk(len(self.expansions), dim=1)  # a sum of products, cut into its terms
        for expand, weight in zip(self.expansions, weights):
            expand.load_state_dict({"weight": weight})
        self.norm.load_state_dict(part(state, "2.norm."))


def convert(source: nn.Module, target: nn.Module) -> None:
    """Copy the weights of one form of a block into another form of the same sizes: both then compute the same.

    `source` and `target` are `GroupedBranches`, `ConcatenatedBranches` or `SummedBranches`.
    """
    target.load_grouped_state(source.grouped_state())


def join_branches(branches: nn.ModuleList) -> dict[str, torch.Tensor]:
    """Tensors of separate branches stacked along the output channels: a grouped convolution keeps them so."""
    states = [branch.state_dict() for branch in branches]
    return {
        key: torch.cat([state[key] for state in states]) if first.ndim else first for key, first in states[0].items()
    }


def load_branches(branches: nn.ModuleList, state: dict[str, torch.Tensor]) -> None:
    """The reverse of `join_branches`; entries that a branch has no place for are left out."""
    for index, branch in enumerate(branches):
        branch.load_state_dict({
            key: state[key].chunk(len(branches))[index] if state[key].ndim else state[key]
            for key in branch.state_dict()
        })


def prefixed(prefix: str, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {prefix + key: value for key, value in state.items()}


def part(state: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


FORMS = {"grouped": GroupedBranches, "concatenated": ConcatenatedBranches, "summed": SummedBranches}


class ResNeXtBlock(nn.Module):
    """relu(sum of T_i(x) + x): `cardinality` branches T_i in one of `FORMS`, and the shortcut around all of them.

    (N, in_channels, H, W) -> (N, out_channels, H / stride, W / stride). `drop_path` is the probability of dropping
    the sum of an image in training. Raises `ValueError` for another form.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int = 1,
        *,
        cardinality: int,
        group_width: int,
        form: Literal["grouped", "concatenated", "summed"] = "grouped",
        drop_path: float = 0.0,
    ):
        super().__init__()
        if form not in FORMS:
            raise ValueError(f"form={form!r}; choose one of {', '.join(FORMS)}")
        self.out_channels = out_channels
        self.branch = FORMS[form](in_channels, out_channels, stride, cardinality=cardinality, group_width=group_width)
        self.shortcut = make_shortcut(in_channels, out_channels, stride)
        self.drop_path = DropPath(drop_path)
        self.activation = nn.ReLU(inplace=True)  # nobody else holds the sum

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.activation(self.drop_path(self.branch(x)) + self.shortcut(x))


class ResNeXt(nn.Module):
    """(N, in_channels, H, W) -> (N, num_classes) logits.

    `widths` are the output channels of the stages. Each block has `cardinality` branches of `base_width` channels in
    the first stage, and of more in the others, in proportion to `widths`. `stem` is "imagenet" or "cifar". Raises
    `ValueError` for options that do not exist and for widths that do not fit together.
    """

    def __init__(
        self,
        *,
        in_channels: int = 3,
        num_classes: int = 1000,
        depths: Sequence[int] = (3, 4, 6, 3),
        widths: Sequence[int] = (256, 512, 1024, 2048),
        cardinality: int = 32,  # C
        base_width: int = 4,  # d
        stem: Literal["imagenet", "cifar"] = "imagenet",
        form: Literal["grouped", "concatenated", "summed"] = "grouped",
        drop_path_rate: float = 0.0,
    ):
        super().__init__()
        if cardinality < 1 or base_width < 1:
            raise ValueError(f"cardinality={cardinality} and base_width={base_width} must be at least 1")
        if any(base_width * width % widths[0] for width in widths):
            raise ValueError(f"base_width={base_width} does not grow to whole numbers in proportion to "
                             f"widths={tuple(widths)!r}: make each width a multiple of the first")
        if widths[0] % 4:
            raise ValueError(f"widths[0]={widths[0]} must be a multiple of 4, the expansion of the stem's channels")

        def block(in_channels: int, out_channels: int, stride: int, *, drop_path: float) -> ResNeXtBlock:
            group_width = base_width * out_channels // widths[0]
            return ResNeXtBlock(in_channels, out_channels, stride, cardinality=cardinality, group_width=group_width,
                                form=form, drop_path=drop_path)

        self.stem = residual_stem(in_channels, widths[0] // 4, stem)
        self.stages = residual_stages(block, widths[0] // 4, widths, depths, drop_path_rate=drop_path_rate)
        self.head = pooled_classifier(widths[-1], num_classes)
        initialize_he_fan_out(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.stages(self.stem(x)))


def imagenet(depth: int, cardinality: int, base_width: int) -> Variant:
    """The networks of table 1, named by depth, cardinality and branch width."""
    name = f"resnext{depth}_{cardinality}x{base_width}d"
    depths = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}[depth]
    return Variant(name, f"{depth} layers, {cardinality} branches of {base_width} channels in the first stage",
                   {"depths": depths, "cardinality": cardinality, "base_width": base_width}, twin=f"torchvision.{name}")


CIFAR = {"depths": (3, 3, 3), "widths": (256, 512, 1024), "stem": "cifar", "num_classes": 10}

VARIANTS = (
    imagenet(50, 32, 4),
    imagenet(101, 32, 8),
    imagenet(101, 64, 4),
    Variant("resnext29_8x64d", "CIFAR, 29 layers, 8 branches of 64 channels in the first stage",
            {**CIFAR, "cardinality": 8, "base_width": 64}, input_size=(3, 32, 32)),
    Variant("resnext29_16x64d", "CIFAR, 29 layers, 16 branches of 64 channels in the first stage",
            {**CIFAR, "cardinality": 16, "base_width": 64}, input_size=(3, 32, 32)),
    Variant("resnext29_8x4d_narrow", "small-image form: 29 layers, 8 branches of 4 channels, a quarter as wide outside",
            {**CIFAR, "widths": (64, 128, 256), "cardinality": 8, "base_width": 4}, input_size=(3, 32, 32)),
)

register(ResNeXt, VARIANTS, cite="xie2017resnext", year=2016)
