"""ConvNeXt V2: channels that compete, so that a network can learn from images with holes, 2023.

Trained to fill in masked patches, ConvNeXt lets many channels die or say the same. Global response normalization is
the cure: with G(X)_i the length of map i over all places and N(G)_i = G_i / mean_j G_j, a block computes x + gamma *
(x * N(G(x))) + beta in its wide middle, so that a map which answers more than others is made stronger still. Layer
scale becomes superfluous and goes; the rest is ConvNeXt.

- Woo, Debnath, Hu, Chen, Liu, Kweon, Xie. ConvNeXt V2: Co-designing and Scaling ConvNets with Masked Autoencoders.
  CVPR 2023, arXiv:2301.00808.

**Differs from the paper:**

- The networks alone, without the masked autoencoder that trains them.
- `convnext_v2_cifar`: 2x2 patches for 32x32 images, (2, 2, 6, 2) blocks of 36 to 288 channels.
"""

from collections.abc import Sequence

import torch
from torch import nn

from cnnlib.layers import DropPath, LayerNorm2d, check_equally_many, initialize_truncated, linear_rates
from cnnlib.registry import Variant, register


class GlobalResponseNorm(nn.Module):
    """x + gamma * (x * N(G(x))) + beta: (N, H, W, C) -> the same. Starts as the identity, with gamma and beta 0."""

    def __init__(self, channels: int):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(channels))  # gamma
        self.bias = nn.Parameter(torch.zeros(channels))  # beta

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        length = torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True)  # G(X), (N, 1, 1, C)
        share = length / (length.mean(-1, keepdim=True) + 1e-6)  # N(G)
        return x + torch.addcmul(self.bias, self.weight, x * share)


class ConvNeXtV2Block(nn.Module):
    """Depthwise 7x7, layer norm, 1x1 up, GELU, response norm, 1x1 down, and the input: keeps (N, width, H, W)."""

    def __init__(self, width: int, *, drop_path: float = 0.0):
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.expand = nn.Linear(width, 4 * width)
        self.activation = nn.GELU()
        self.response = GlobalResponseNorm(4 * width)
        self.project = nn.Linear(4 * width, width)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        out = self.project(self.response(self.activation(self.expand(out))))
        return x + self.drop_path(out.permute(0, 3, 1, 2))


class ConvNeXtV2(nn.Module):
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
        drop_path_rate: float = 0.0,
    ):
        super().__init__()
        check_equally_many(depths=depths, widths=widths)
        rates = iter(linear_rates(drop_path_rate, depths))
        self.stem = nn.Sequential(nn.Conv2d(in_channels, widths[0], patch_size, patch_size), LayerNorm2d(widths[0]))
        self.stages, channels = nn.Sequential(), widths[0]
        for index, (depth, width) in enumerate(zip(depths, widths)):
            stage = nn.Sequential()
            if index > 0:
                stage.append(nn.Sequential(LayerNorm2d(channels), nn.Conv2d(channels, width, 2, 2)))
            for _ in range(depth):
                stage.append(ConvNeXtV2Block(width, drop_path=next(rates)))
            self.stages.append(stage)
            channels = width
        self.head = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            LayerNorm2d(channels),
            nn.Flatten(),
            nn.Linear(channels, num_classes),
        )
        initialize_truncated(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.stages(self.stem(x)))


def _size(name: str, depths: tuple[int, ...], width: int) -> Variant:
    """A row of the paper's Table 15: channels double from stage to stage."""
    return Variant(f"convnext_v2_{name}", f"{', '.join(map(str, depths))} blocks, from {width} channels",
                   {"depths": depths, "widths": tuple(width * 2**stage for stage in range(4))},
                   twin=f"timm.convnextv2_{name}")


VARIANTS = (
    _size("atto", (2, 2, 6, 2), 40),
    _size("femto", (2, 2, 6, 2), 48),
    _size("pico", (2, 2, 6, 2), 64),
    _size("nano", (2, 2, 8, 2), 80),
    _size("tiny", (3, 3, 9, 3), 96),
    _size("base", (3, 3, 27, 3), 128),
    _size("large", (3, 3, 27, 3), 192),
    _size("huge", (3, 3, 27, 3), 352),
    Variant("convnext_v2_cifar", "small-image form: 2x2 patches, from 36 channels",
            {"depths": (2, 2, 6, 2), "widths": (36, 72, 144, 288), "patch_size": 2, "num_classes": 10},
            input_size=(3, 32, 32)),
)

register(ConvNeXtV2, VARIANTS, cite="woo2023convnextv2", year=2023)
