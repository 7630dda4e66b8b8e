"""CSPDarknet-53: half of the channels go round the stage, 2019.

In a stage of residual blocks every layer sees all channels, and much of what flows back through them is the same
gradient over again. A cross-stage partial network splits the channels at the start of a stage, x = [x', x''], sends
only x'' through the blocks, and stacks both at the end, T([x', B(x'')]): less work, less memory, and two ways for
gradients. Here the stages are those of Darknet-53, whose blocks are 1x1 down, 3x3 up, and the input added. YOLOv4
made it known.

- Wang, Liao, Yeh, Wu, Chen, Hsieh. CSPNet: A New Backbone that can Enhance Learning Capability of CNN. CVPR Workshops
  2020, arXiv:1911.11929.
- Redmon, Farhadi. YOLOv3: An Incremental Improvement. arXiv:1804.02767, 2018 (Darknet-53).

**Differs from the paper:** leaky ReLU has PyTorch's slope of 0.01 (as in timm), where Darknet has 0.1.
"""

from collections.abc import Sequence
from functools import partial

import torch
from torch import nn

from cnnlib.layers import ConvNormAct, initialize_he_fan_out, pooled_classifier
from cnnlib.registry import Variant, register

conv = partial(ConvNormAct, activation=nn.LeakyReLU)


class DarkBlock(nn.Module):
    """x + conv3x3(conv1x1(x)): keeps (N, channels, H, W), with `width` channels between."""

    def __init__(self, channels: int, width: int):
        super().__init__()
        self.branch = nn.Sequential(conv(channels, width, 1), conv(width, channels, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.branch(x)


class CrossStage(nn.Module):
    """T([x', B(x'')]) for E(x) = [x', x'']: keeps (N, channels, H, W), with `depth` blocks of `width` channels in B.

    E, T and the end of B are 1x1 convolutions. `whole` keeps all channels on both ways, as the first stage of the
    network does, whose blocks are bottlenecks.
    """

    def __init__(self, channels: int, depth: int, *, whole: bool = False):
        super().__init__()
        width = channels if whole else channels // 2
        self.expand = conv(channels, 2 * width, 1)
        self.blocks = nn.Sequential(*(DarkBlock(width, width // 2 if whole else width) for _ in range(depth)),
                                    conv(width, width, 1))
        self.transition = conv(2 * width, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        around, through = self.expand(x).chunk(2, 1)
        return self.transition(torch.cat([around, self.blocks(through)], 1))


class CSPDarknet(nn.Module):
    """(N, in_channels, H, W) -> (N, num_classes) logits.

    Each stage halves the resolution by a 3x3 convolution and then has `depths[i]` blocks; channels double from 64.
    Raises `ValueError` for a stage without blocks.
    """

    def __init__(self, *, in_channels: int = 3, num_classes: int = 1000, depths: Sequence[int] = (1, 2, 8, 8, 4)):
        super().__init__()
        if not depths or min(depths) < 1:
            raise ValueError(f"depths={tuple(depths)} must give each stage at least one block")
        self.stem, channels = conv(in_channels, 32), 32
        self.stages = nn.Sequential()
        for number, depth in enumerate(depths):
            width = 64 * 2**number
            self.stages.append(nn.Sequential(conv(channels, width, 3, 2), CrossStage(width, depth, whole=number == 0)))
            channels = width
        self.head = pooled_classifier(channels, num_classes)
        initialize_he_fan_out(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.stages(self.stem(x)))


VARIANTS = (
    Variant("cspdarknet53", "the five stages of Darknet-53, at 256x256", {}, (3, 256, 256), "timm.cspdarknet53"),
)

register(CSPDarknet, VARIANTS, cite="wang2020cspnet", year=2019)
