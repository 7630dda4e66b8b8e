"""Convolutions in bfloat16 on a processor, arranged so that their gradients are quick; the sums are the same.

oneDNN, which computes PyTorch's convolutions on processors, has no quick code in bfloat16 for the gradients of depthwise
convolutions, and with AMX tiles it goes along the rows of a map: networks for photographs end in maps of 3x3 to 7x7, which leave
most of a tile empty. Training spent most of its time there. So

- a 1x1 convolution is written as what it is, a matrix product of pixels and kernel;
- a depthwise convolution that will need gradients is computed in float32;
- with AMX, on small maps several images stand side by side, with zeros between them, as one wide image;
- a stride along rows is left out where a row gives one number: there oneDNN, as PyTorch 2.13 brings it, reads what is not the map's
  (with AVX-512, AMX or not), and results and gradients can be anything.

`ProcessorConvolutions` does this to every `F.conv2d` that is called inside of it under autocast; `running.autocast` applies it.
It needs PyTorch 2.8; before, nothing is arranged. It is made for training: float32 keeps twice the bytes of a depthwise layer's
input, and second derivatives of wide images are oneDNN's, which are off.
What it brings in a training step stands in `data/results/arranged_steps.json` (`tools/experiments/arranged_steps.py`).
"""

from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

SMALL, WIDE = 7, 32  # columns of a map that is small; columns that images side by side shall have
CAST = (torch.float32, torch.bfloat16, torch.float16)  # what autocast takes to bfloat16; it leaves float64 and others alone
TELLS_HOOKS = hasattr(torch._C._autograd, "_top_saved_tensors_default_hooks")


class ProcessorConvolutions(TorchFunctionMode):
    """Arranges two-dimensional convolutions of channels-last images on a processor, under autocast to bfloat16.

    Everything else, and everything that PyTorch would object to, goes to PyTorch as it came.
    """

    def __torch_function__(self, func, types, args=(), kwargs=None):
        result = _arranged(*args, **(kwargs or {})) if func is F.conv2d else None
        return func(*args, **(kwargs or {})) if result is None else result


def _arranged(input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1) -> Tensor | None:
    """The convolution, arranged; None where it is PyTorch's to compute, or to refuse."""
    sizes = _pair(stride, 1), _pair(padding, 0), _pair(dilation, 1)
    if not (all(sizes) and type(input) is Tensor and torch.is_autocast_enabled("cpu")
            and torch.get_autocast_dtype("cpu") is torch.bfloat16 and _fit(input, weight, bias, groups)) or _may_come_again():
        return None
    if groups == 1 and weight.shape[2:] == (1, 1) and sizes[1] == (0, 0):
        return pointwise(input, weight, bias, sizes[0])
    if 1 < groups == input.shape[1] and torch.is_grad_enabled():
        with torch.autocast("cpu", enabled=False):
            own = None if bias is None else bias.float()
            return F.conv2d(input.float(), weight.float(), own, *sizes, groups).to(torch.bfloat16)
    result = side_by_side(input, weight, bias, *sizes) if groups == 1 and input.stride(3) > 1 and _has_tiles() else None
    return one_column(input, weight, bias, *sizes, groups) if result is None else result


@cache
def _has_tiles() -> bool:
    return getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)()


def _pair(value, least: int) -> tuple[int, int] | None:
    """A size for rows and columns, if it is an integer or two of them, neither below `least`."""
    pair = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    return pair if len(pair) == 2 and all(isinstance(size, int) and size >= least for size in pair) else None


def _fit(x: Tensor, weight: Tensor, bias: Tensor | None, groups: int) -> bool:
    """Whether these are images, channels last, and a kernel for them: on the processor, none of them empty."""
    if x.dim() != 4 or weight.dim() != 4 or x.shape[1] != groups * weight.shape[1]:
        return False
    n, channels, height, width = x.shape
    tensors = [x, weight] if bias is None else [x, weight, bias]
    # One channel, or a 1x1 map, lies in memory both ways. PyTorch then goes by the strides, and the result must do so too.
    strides = (height * width * channels, 1, width * channels, channels)
    return (channels > 1 and (x.stride() == strides or height == width == 1 and x.stride() == (channels, 1, 1, 1))
            and all(t.device.type == "cpu" and t.dtype in CAST and t.numel() > 0 for t in tensors)
            and (bias is None or bias.shape == weight.shape[:1]))


def _may_come_again() -> bool:
    """Whether hooks wait for what is saved: gradient checkpointing, say, computes it again where this mode is over.

    PyTorch before 2.8 does not tell, and then they may."""
    if torch.compiler.is_compiling():  # then both times are in one program
        return False
    return not TELLS_HOOKS or torch._C._autograd._top_saved_tensors_default_hooks(True) is not None


def _places(length: int, kernel: int, stride: int, padding: int, dilation: int) -> int:
    """How many places a window has along one axis; none or fewer where it is longer than the map."""
    return (length + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1


def pointwise(x: Tensor, weight: Tensor, bias: Tensor | None, stride: tuple[int, int]) -> Tensor:
    """The 1x1 convolution of images (N, C, H, W) without padding, as a matrix product."""
    if x.shape[2:] == (1, 1) and x.stride(3) == weight.stride(3) == 1:  # the layout that PyTorch takes for these
        return F.linear(x.flatten(1), weight.flatten(1), bias)[:, :, None, None]
    pixels = x.permute(0, 2, 3, 1)[:, ::stride[0], ::stride[1]]  # in this order the gradient is channels last as well
    return F.linear(pixels, weight.permute(0, 2, 3, 1).flatten(1), bias).permute(0, 3, 1, 2)


def side_by_side(x: Tensor, weight: Tensor, bias: Tensor | None, stride: tuple[int, int], padding: tuple[int, int],
                 dilation: tuple[int, int]) -> Tensor | None:
    """The convolution of images (N, C, H, W), as many side by side as make `WIDE` columns; None where this does not fit or pay."""
    n, channels, height, width = x.shape
    step, pad, reach = stride[1], padding[1], dilation[1] * (weight.shape[3] - 1)
    down, columns = map(_places, x.shape[2:], weight.shape[2:], stride, padding, dilation)  # of one image's result
    # An image and the zeros after it. No window of one image reaches another, and each image begins at a whole step.
    slot = -(-max(width + pad, (columns - 1) * step - pad + reach + 1) // step) * step
    beside = 1
    while beside * slot < WIDE * step and n % (2 * beside) == 0:
        beside *= 2
    along = _places(beside * slot, weight.shape[3], step, pad, dilation[1])
    if down < 1 or not 0 < columns <= SMALL or beside == 1 or along != beside * slot // step:
        return None
    rows = n // beside
    x = F.pad(x.permute(0, 2, 3, 1), (0, 0, 0, slot - width)).view(rows, beside, height, slot, channels)
    x = x.transpose(1, 2).reshape(rows, height, beside * slot, channels).permute(0, 3, 1, 2)
    y = F.conv2d(x, weight, bias, stride, padding, dilation).permute(0, 2, 3, 1)
    y = y.reshape(rows, down, beside, slot // step, -1)[:, :, :, :columns].transpose(1, 2)
    return y.reshape(n, *y.shape[2:]).contiguous().permute(0, 3, 1, 2)  # of one row alone, `reshape` leaves gaps


def one_column(x: Tensor, weight: Tensor, bias: Tensor | None, stride: tuple[int, int], padding: tuple[int, int],
               dilation: tuple[int, int], groups: int) -> Tensor | None:
    """The convolution of images (N, C, H, W) where its result has one column, without a stride along rows; else None."""
    width, pad, reach = x.shape[3], padding[1], dilation[1] * (weight.shape[3] - 1)
    down, columns = map(_places, x.shape[2:], weight.shape[2:], stride, padding, dilation)
    if stride[1] == 1 or down < 1 or columns != 1:
        return None
    x = F.pad(x, (pad, reach + 1 - width - pad))  # or cut off: what the one window covers
    return F.conv2d(x, weight, bias, (stride[0], 1), (padding[0], 0), dilation, groups)
