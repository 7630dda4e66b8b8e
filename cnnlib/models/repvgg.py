"""RepVGG and MobileOne: many branches to train, one convolution to run, 2021 and 2022.

A plain stack of 3x3 convolutions runs fast and trains badly; a residual block trains well, and its branches cost
memory and time. But a sum of convolutions of one input, each with its batch normalization, is one convolution: the
kernels, scaled by their normalizations, add up, a 1x1 kernel being a 3x3 one with zeros around it, and the identity
one with a single 1. So a block is trained as y = relu(BN(conv3x3 x) + BN(conv1x1 x) + BN(x)) and run as y =
relu(conv3x3' x + b); `fuse()` goes from one to the other, with equal outputs. RepVGG builds VGG of such blocks.
MobileOne builds MobileNet of them, depthwise and 1x1, with up to four copies of the large kernel.

- Ding, Zhang, Ma, Han, Ding, Sun. RepVGG: Making VGG-style ConvNets Great Again. CVPR 2021, arXiv:2101.03697.
- Vasu, Gabriel, Zhu, Tuzel, Ranjan. MobileOne: An Improved One Millisecond Mobile Backbone. CVPR 2023,
  arXiv:2206.04040.

**Differs from the papers:**

- `repvgg_d2se` comes from the authors' repository and not from the paper.
- Weights start as in EfficientNet's code; the papers do not say.
- `repvgg_cifar`: a stem that keeps the resolution, and 12 blocks of 48 to 384 channels, for 32x32 images.
"""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from cnnlib.layers import (
    ConvNormAct, SqueezeExcitation, check_equally_many, initialize_per_group, pooled_classifier,
)
from cnnlib.registry import Variant, register


class RepBlock(nn.Module):
    """A sum of branches that `fuse()` makes one: (N, in_channels, H, W) -> (N, out_channels, H/stride, W/stride).

    `branches` convolutions of `kernel_size`, a 1x1 convolution beside kernels that are larger, and where shapes agree
    the identity, each with a batch normalization. `squeeze_channels` puts squeeze-and-excitation behind the sum.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 3, stride: int = 1, *, groups: int = 1,
                 branches: int = 1, squeeze_channels: int | None = None):
        super().__init__()
        has_identity = in_channels == out_channels and stride == 1
        self.identity = nn.BatchNorm2d(out_channels) if has_identity else None
        self.kernels = nn.ModuleList(
            ConvNormAct(in_channels, out_channels, kernel_size, stride, groups=groups, activation=None)
            for _ in range(branches)
        )
        self.pointwise = ConvNormAct(
            in_channels, out_channels, 1, stride, groups=groups, activation=None) if kernel_size > 1 else None
        self.excite = nn.Identity() if squeeze_channels is None else SqueezeExcitation(out_channels, squeeze_channels)
        self.activation = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first, *copies = self.kernels
        out = first(x)
        for kernel in copies:
            out += kernel(x)
        if self.pointwise is not None:
            out += self.pointwise(x)
        if self.identity is not None:
            out += self.identity(x)
        return self.activation(self.excite(out))

    @torch.no_grad()
    def fused(self) -> nn.Sequential:
        """One convolution with bias in the place of all branches, then the same layers: equal outputs in
        evaluation."""
        conv = self.kernels[0].conv
        terms = [folded(branch.conv.weight, branch.norm) for branch in self.kernels]
        if self.pointwise is not None:
            terms.append(folded(self.pointwise.conv.weight, self.pointwise.norm))
        if self.identity is not None:
            unit = torch.eye(conv.out_channels, device=conv.weight.device, dtype=conv.weight.dtype)
            per_group = conv.weight.shape[1]  # channel i of a group's own channels is seen by output i
            unit = unit.view(conv.groups, per_group, conv.groups, per_group).sum(2).flatten(0, 1)
            terms.append(folded(unit[:, :, None, None], self.identity))
        one = nn.Conv2d(conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, conv.padding,
                        groups=conv.groups, device=conv.weight.device, dtype=conv.weight.dtype)
        size = conv.kernel_size[0]
        one.weight.copy_(sum(F.pad(kernel, 4 * [(size - kernel.shape[-1]) // 2]) for kernel, _ in terms))
        one.bias.copy_(sum(bias for _, bias in terms))
        excite = [] if isinstance(self.excite, nn.Identity) else [self.excite]
        return nn.Sequential(one, *excite, self.activation)


def folded(kernel: torch.Tensor, norm: nn.BatchNorm2d) -> tuple[torch.Tensor, torch.Tensor]:
    """(kernel, bias) of the convolution that does what `kernel` and then `norm` do in evaluation.

    gamma (W x - mean) / sqrt(var + eps) + beta = (gamma / sigma) W x + (beta - mean gamma / sigma).
    """
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    return kernel * scale[:, None, None, None], norm.bias - norm.running_mean * scale


class Reparameterized(nn.Module):
    """What the two networks share: `stem`, `stages` and `head`, and a `fuse()` for all their blocks."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.stages(self.stem(x)))

    def fuse(self) -> nn.Module:
        """Make every block one convolution, in place and for good, and return the network in evaluation mode."""
        self.eval()
        for parent in list(self.modules()):
            for name, child in list(parent.named_children()):
                if isinstance(child, RepBlock):
                    setattr(parent, name, child.fused().eval())
        return self


class RepVGG(Reparameterized):
    """(N, in_channels, H, W) -> (N, num_classes) logits.

    `depths` and `widths` are those of the stages, each of which halves the resolution first; the stem's width is that
    of the first stage, but at most 64. Every second block of a stage has `groups`. `squeeze_ratio` puts
    squeeze-and-excitation into all blocks. Raises `ValueError` if depths and widths do not name equally many stages.
    """

    def __init__(
        self,
        *,
        in_channels: int = 3,
        num_classes: int = 1000,
        depths: Sequence[int] = (2, 4, 14, 1),
        widths: Sequence[int] = (48, 96, 192, 1280),
        groups: int = 1,
        squeeze_ratio: int | None = None,
        stem_stride: int = 2,
    ):
        super().__init__()
        check_equally_many(depths=depths, widths=widths)

        def block(in_channels: int, width: int, stride: int, groups: int = 1) -> RepBlock:
            squeeze_channels = None if squeeze_ratio is None else width // squeeze_ratio
            return RepBlock(in_channels, width, 3, stride, groups=groups, squeeze_channels=squeeze_channels)

        channels = min(64, widths[0])
        self.stem = block(in_channels, channels, stem_stride)
        self.stages = nn.Sequential()
        for depth, width in zip(depths, widths):
            stage = nn.Sequential()
            for index in range(depth):
                stage.append(block(channels, width, 2 if index == 0 else 1, groups if index % 2 else 1))
                channels = width
            self.stages.append(stage)
        self.head = pooled_classifier(channels, num_classes)
        initialize_per_group(self)


class MobileOne(Reparameterized):
    """(N, in_channels, H, W) -> (N, num_classes) logits.

    A stage has `depths[i]` pairs of a depthwise 3x3 and a 1x1 block; the first pair halves the resolution. `branches`
    counts the copies of each block's large kernel (the paper's k). The last `excited[i]` pairs of a stage have
    squeeze-and-excitation. Raises `ValueError` unless the three name equally many stages.
    """

    def __init__(
        self,
        *,
        in_channels: int = 3,
        num_classes: int = 1000,
        depths: Sequence[int] = (2, 8, 10, 1),
        widths: Sequence[int] = (48, 128, 256, 1024),
        branches: int = 4,
        excited: Sequence[int] = (0, 0, 0, 0),
    ):
        super().__init__()
        check_equally_many(depths=depths, widths=widths, excited=excited)
        channels = min(64, widths[0])
        self.stem = RepBlock(in_channels, channels, 3, 2)
        self.stages = nn.Sequential()
        for depth, width, last in zip(depths, widths, excited):
            stage = nn.Sequential()
            for index in range(depth):
                squeeze = index >= depth - last
                stage.append(RepBlock(channels, channels, 3, 2 if index == 0 else 1, groups=channels, branches=branches,
                                      squeeze_channels=channels // 16 if squeeze else None))
                stage.append(RepBlock(channels, width, 1, branches=branches,
                                      squeeze_channels=width // 16 if squeeze else None))
                channels = width
            self.stages.append(stage)
        self.head = pooled_classifier(channels, num_classes)
        initialize_per_group(self)


A, B = (2, 4, 14, 1), (4, 6, 16, 1)  # Table 2 of RepVGG: blocks in stages 2 to 5


def _widths(early: float, last: float) -> tuple[int, ...]:
    """Table 3 of RepVGG: multipliers a and b of (64, 128, 256, 512)."""
    return tuple(int(width * factor) for width, factor in zip((64, 128, 256, 512), (early, early, early, last)))


ONE = {"network": MobileOne, "cite": "vasu2023mobileone", "year": 2022}

VARIANTS = (
    *(
        Variant(f"repvgg_{name}", f"{sum(depths) + 1} blocks, {early:g} and {last:g} times the base widths",
                {"depths": depths, "widths": _widths(early, last)}, twin=f"timm.repvgg_{name}")
        for name, depths, early, last in (("a0", A, 0.75, 2.5), ("a1", A, 1, 2.5), ("a2", A, 1.5, 2.75),
                                          ("b0", B, 1, 2.5), ("b1", B, 2, 4), ("b2", B, 2.5, 5), ("b3", B, 3, 5))
    ),
    *(
        Variant(f"repvgg_{name}g4", f"{name.upper()} with four groups in every second block",
                {"depths": B, "widths": _widths(early, last), "groups": 4}, twin=f"timm.repvgg_{name}g4")
        for name, early, last in (("b1", 2, 4), ("b2", 2.5, 5), ("b3", 3, 5))
    ),
    Variant("repvgg_d2se", "deeper, with squeeze-and-excitation",
            {"depths": (8, 14, 24, 1), "widths": _widths(2.5, 5), "squeeze_ratio": 16},
            (3, 320, 320), "timm.repvgg_d2se"),
    Variant("repvgg_cifar", "small-image form: 13 blocks of 48 to 384 channels",
            {"depths": (2, 3, 6, 1), "widths": (48, 72, 96, 384), "stem_stride": 1, "num_classes": 10},
            input_size=(3, 32, 32)),
    Variant("mobileone_s0", "the smallest, four copies of each kernel", twin="timm.mobileone_s0", **ONE),
    *(
        Variant(f"mobileone_s{number}", f"widths {', '.join(map(str, widths))}",
                {"widths": widths, "branches": 1, **more}, twin=f"timm.mobileone_s{number}", **ONE)
        for number, widths, more in (
            (1, (96, 192, 512, 1280), {}),
            (2, (96, 256, 640, 2048), {}),
            (3, (128, 320, 768, 2048), {}),
            (4, (192, 448, 896, 2048), {"excited": (0, 0, 5, 1)}),
        )
    ),
)

register(RepVGG, VARIANTS, cite="ding2021repvgg", year=2021)
