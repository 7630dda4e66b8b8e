"""SqueezeNet: the accuracy of AlexNet with a fiftieth of its parameters.

Three savings: most 3x3 filters become 1x1; those that stay 3x3 see few channels, because a 1x1 layer squeezes the
input first (the Fire module); and pooling comes late, so that the maps, and with them the accuracy, stay large. No
fully connected layer: the last convolution has one map per class, and its mean is the score.

- Iandola, Han, Moskewicz, Ashraf, Dally, Keutzer. SqueezeNet: AlexNet-level accuracy with 50x fewer parameters and
  <0.5MB model size. arXiv:1602.07360, 2016.

**Differs from the paper:**

- All: pooling takes a last, partial window, as the Caffe original does; CONV1 has no padding, so that 224x224 images
  give maps of 109, 54, 27 and 13, where the paper's table counts 111, 55, 27 and 13.
- `squeezenet1_1`: the authors' later release, 2.3 times cheaper (its README says 2.4): 64 first filters of 3x3, and
  pooling after Fire 3 and 5.
- `squeezenet_cifar`: six Fire modules on 32x32 images, whose size CONV1 keeps and no pooling follows; batch
  normalization after every convolution but CONV10; no ReLU after CONV10, which at usual step sizes sets all scores to
  zero for good; no dropout.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import nn

from cnnlib.layers import ConvNormAct
from cnnlib.registry import Variant, register


class FireModule(nn.Module):
    """Squeeze with 1x1, expand with 1x1 and 3x3 side by side.

    (N, in_channels, H, W) -> (N, out_channels, H, W). `out_channels` is 8 times `squeeze_channels`: each half
    of the expand layer has 4 times as many filters. `bypass` adds the input to the output: "simple" only
    where their channels are equal, "complex" also elsewhere, through a 1x1 convolution. Raises `ValueError`
    for another `bypass`.
    """

    def __init__(
        self,
        in_channels: int,
        squeeze_channels: int,
        *,
        bypass: Literal["simple", "complex"] | None = None,
        norm: Callable[[int], nn.Module] | None = None,
    ):
        super().__init__()
        if bypass not in (None, "simple", "complex"):
            raise ValueError(f"bypass={bypass!r}; choose None, 'simple' or 'complex'")
        expand_channels = 4 * squeeze_channels  # e1x1 = e3x3 = 4 s1x1: the squeeze ratio SR is 1/8
        self.out_channels = 2 * expand_channels
        self.squeeze = ConvNormAct(in_channels, squeeze_channels, 1, norm=norm)
        self.expand1x1 = ConvNormAct(squeeze_channels, expand_channels, 1, norm=norm)
        self.expand3x3 = ConvNormAct(squeeze_channels, expand_channels, 3, norm=norm)
        if bypass and in_channels == self.out_channels:
            self.bypass = nn.Identity()
        elif bypass == "complex":
            self.bypass = nn.Conv2d(in_channels, self.out_channels, 1)
        else:
            self.bypass = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        squeezed = self.squeeze(x)
        out = torch.cat([self.expand1x1(squeezed), self.expand3x3(squeezed)], dim=1)
        return out if self.bypass is None else out + self.bypass(x)


class SqueezeNet(nn.Module):
    """(N, in_channels, H, W) -> (N, num_classes) logits.

    CONV1 has `stem_width` filters, `first_conv` is its (kernel_size, stride, padding), `stem_pool` whether pooling
    follows it. `squeeze_channels` are those of the Fire modules, stage by stage; every stage but the first begins with
    pooling. `rectify_scores` puts a ReLU after CONV10, as the paper does: then no logit is negative.
    """

    def __init__(
        self,
        *,
        in_channels: int = 3,
        num_classes: int = 1000,
        stem_width: int = 96,
        first_conv: tuple[int, int, int] = (7, 2, 0),
        stem_pool: bool = True,
        squeeze_channels: Sequence[Sequence[int]] = ((16, 16, 32), (32, 48, 48, 64), (64,)),
        bypass: Literal["simple", "complex"] | None = None,
        norm: Callable[[int], nn.Module] | None = None,
        dropout: float = 0.5,
        rectify_scores: bool = True,
    ):
        super().__init__()
        kernel_size, stride, padding = first_conv

        def pool() -> nn.MaxPool2d:
            return nn.MaxPool2d(3, 2, ceil_mode=True)

        # 54x54 for 224x224 images
        self.stem = nn.Sequential(ConvNormAct(in_channels, stem_width, kernel_size, stride, padding=padding, norm=norm))
        if stem_pool:
            self.stem.append(pool())
        # 54x54, 27x27, 13x13
        self.stages = nn.Sequential()
        width = stem_width
        for index, squeezes in enumerate(squeeze_channels):
            stage = nn.Sequential() if index == 0 else nn.Sequential(pool())
            for channels in squeezes:
                stage.append(FireModule(width, channels, bypass=bypass, norm=norm))
                width = stage[-1].out_channels
            self.stages.append(stage)
        self.head = nn.Sequential(
            nn.Dropout(dropout),
            ConvNormAct(width, num_classes, 1, norm=None, activation=nn.ReLU if rectify_scores else None),  # CONV10
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        initialize(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.stages(self.stem(x)))


def initialize(model: SqueezeNet) -> None:
    """Uniform weights of variance 2/fan_in, biases 0; N(0, 0.01^2) in CONV10.

    The paper has no normalization, so the weights must keep the signal's size through 18 layers of ReLU (He et al.,
    2015). The classes begin about equally likely.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_uniform_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    nn.init.normal_(model.head[1].conv.weight, std=0.01)


VARIANTS = (
    Variant("squeezenet1_0", "the paper's network", twin="torchvision.squeezenet1_0"),
    Variant(
        "squeezenet1_1",
        "the authors' cheaper release: smaller first filters, earlier pooling",
        {"stem_width": 64, "first_conv": (3, 2, 0), "squeeze_channels": ((16, 16), (32, 32), (48, 48, 64, 64))},
        twin="torchvision.squeezenet1_1",
    ),
    Variant("squeezenet1_0_simple", "1.0 with the input added to Fire 3, 5, 7 and 9", {"bypass": "simple"}),
    Variant(
        "squeezenet1_0_complex",
        "1.0 with bypass around every Fire module, through a 1x1 convolution where the channels change",
        {"bypass": "complex"},
    ),
    Variant(
        "squeezenet_cifar",
        "small-image form: six Fire modules with simple bypass and batch normalization, for 32x32 images",
        {"stem_width": 64, "first_conv": (3, 1, 1), "stem_pool": False, "bypass": "simple", "norm": nn.BatchNorm2d,
         "squeeze_channels": ((16, 16), (32, 32), (48, 64)), "dropout": 0.0, "rectify_scores": False,
         "num_classes": 10},
        input_size=(3, 32, 32),
    ),
)

register(SqueezeNet, VARIANTS, cite="iandola2016", year=2016)
