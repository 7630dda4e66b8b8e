"""The one door to torchvision.

torchvision's wheels for CUDA cannot load their compiled operators beside a CPU build of PyTorch, and then
`import torchvision` stops at `torchvision::nms`, an operator of object detection that this package never calls.
Declaring the two schemas that torchvision looks up is enough: transforms, datasets and models then work.
A torchvision that imports as it is stays untouched.

    from cnnlib.vision import torchvision
"""

import sys
from dataclasses import dataclass

import torch

SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_library = None  # keeps the declared schemas alive

try:
    import torchvision
except RuntimeError as error:
    if "torchvision::nms" not in str(error):
        raise
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]  # what the failed import left behind
    _library = torch.library.Library("torchvision", "DEF")
    for operator in ("nms", "qnms"):
        _library.define(operator + SCHEMA)
    import torchvision


def transforms_v2():
    """The module `torchvision.transforms.v2`, which `import torchvision` alone does not load."""
    import torchvision.transforms.v2

    return torchvision.transforms.v2


@dataclass(frozen=True)
class NoisyRandAugment:
    """Two random changes of a PIL image, each of its own strength from N(magnitude, std), kept within 0 to 30.

    With `std` 0 this is torchvision's RandAugment.
    """

    magnitude: int
    std: float = 0.0

    def __call__(self, image):
        for _ in range(2):
            strength = self.magnitude + (self.std * torch.randn(()).item() if self.std else 0.0)
            image = transforms_v2().RandAugment(num_ops=1, magnitude=round(min(max(strength, 0.0), 30.0)))(image)
        return image


@dataclass(frozen=True)
class NoiseErasing:
    """With `chance`, a random rectangle of the bytes (3, H, W) becomes noise with the pixels' usual mean and spread."""

    chance: float

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        hole = transforms_v2().RandomErasing(self.chance, value=1.0)(torch.zeros(1, *image.shape[1:])).bool()
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in IMAGENET)
        noise = (255 * (mean + std * torch.randn(image.shape))).clamp(0, 255).round().to(image.dtype)
        return torch.where(hole, noise, image) if hole.any() else image


IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # mean and standard deviation of ImageNet's photographs

__all__ = ["IMAGENET", "NoiseErasing", "NoisyRandAugment", "torchvision", "transforms_v2"]
