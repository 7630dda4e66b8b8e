"""The one door to torchvision.

torchvision's wheels for CUDA cannot load their compiled operators beside a CPU build of PyTorch, and then
`import torchvision` stops at `torchvision::nms`, an operator of object detection that this package never calls.
Declaring the two schemas that torchvision looks up is enough: transforms, datasets and models then work.
A torchvision that imports as it is stays untouched.

    from cnnlib.vision import torchvision
"""

import sys

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


__all__ = ["torchvision", "transforms_v2"]
