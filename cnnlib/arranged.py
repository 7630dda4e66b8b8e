"""Convolutions in bfloat16 on a processor, arranged so that their gradients are quick; the sums are the same.

oneDNN, which computes PyTorch's convolutions on processors, has no quick code in bfloat16 for the gradients of depthwise
convolutions, and with AMX tiles it goes along the rows of a map: networks for photographs end in maps of 3x3 to 7x7, which leave
most of a tile empty. Training spent most of its time there. So

- a 1x1 convolution is written as what it is, a matrix product of pixels and kernel;
- a depthwise convolution that will need gradients is computed in float32;
- with AMX, on small maps several images stand side by side, with zeros between them, as one wide image.

`ProcessorConvolutions` does this to every `F.conv2d` that is called inside of it under autocast; `running.autocast` applies it.
What it brings in a training step stands in `data/results/arranged_steps.json` (`tools/experiments/arranged_steps.py`).
"""

from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

SMALL, WIDE = 7, 32  # columns of a map that is small; columns that images side by side shall have


class ProcessorConvolutions(TorchFunctionMode):
    """Arranges two-dimensional convolutions of channels-last images on a processor, under autocast to bfloat16."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        return _conv2d(*args, **(kwargs or {})) if func is F.conv2d else func(*args, **(kwargs or {}))


def _conv2d(input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1) -> Tensor:
    result = None
    if (not isinstance(padding, str) and type(input) is Tensor and input.device.type == "cpu" and input.dim() == 4
            and input.is_contiguous(memory_format=torch.channels_last) and torch.is_autocast_enabled("cpu")):
        sizes = _pair(stride), _pair(padding), _pair(dilation)
        if groups == 1 and weight.shape[2:] == (1, 1) and sizes[1] == (0, 0):
            result = pointwise(input, weight, bias, sizes[0])
        elif groups > 1 and groups == input.shape[1] and torch.is_grad_enabled():
            with torch.autocast("cpu", enabled=False):
                own = None if bias is None else bias.float()
                result = F.conv2d(input.float(), weight.float(), own, *sizes, groups).to(torch.get_autocast_dtype("cpu"))
        elif groups == 1 and _has_tiles():
            result = side_by_side(input, weight, bias, *sizes)
    return F.conv2d(input, weight, bias, stride, padding, dilation, groups) if result is None else result


@cache
def _has_tiles() -> bool:
    return getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)()


def _pair(value) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[-1])


def pointwise(x: Tensor, weight: Tensor, bias: Tensor | None, stride: tuple[int, int]) -> Tensor:
    """The 1x1 convolution of images (N, C, H, W) without padding, as a matrix product."""
    pixels = x[:, :, ::stride[0], ::stride[1]].permute(0, 2, 3, 1)
    return F.linear(pixels, weight.flatten(1), bias).permute(0, 3, 1, 2)


def side_by_side(x: Tensor, weight: Tensor, bias: Tensor | None, stride: tuple[int, int], padding: tuple[int, int],
                 dilation: tuple[int, int]) -> Tensor | None:
    """The convolution of images (N, C, H, W), as many side by side as make `WIDE` columns; None where this does not fit or pay."""
    n, channels, height, width = x.shape
    step, pad, reach = stride[1], padding[1], dilation[1] * (weight.shape[3] - 1)
    columns = (width + 2 * pad - reach - 1) // step + 1  # of one image's result
    # An image and the zeros after it. No window of one image reaches another, and each image begins at a whole step.
    slot = -(-max(width + pad, (columns - 1) * step - pad + reach + 1) // step) * step
    beside = 1
    while beside * slot < WIDE * step and n % (2 * beside) == 0:
        beside *= 2
    if not 0 < columns <= SMALL or beside == 1 or (beside * slot + 2 * pad - reach - 1) // step + 1 != beside * slot // step:
        return None
    rows = n // beside
    x = F.pad(x.permute(0, 2, 3, 1), (0, 0, 0, slot - width)).view(rows, beside, height, slot, channels)
    x = x.transpose(1, 2).reshape(rows, height, beside * slot, channels).permute(0, 3, 1, 2)
    y = F.conv2d(x, weight, bias, stride, padding, dilation).permute(0, 2, 3, 1)
    y = y.reshape(rows, y.shape[1], beside, slot // step, -1)[:, :, :, :columns].transpose(1, 2)
    return y.reshape(n, *y.shape[2:]).permute(0, 3, 1, 2)
