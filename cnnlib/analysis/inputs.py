"""What a network is given: shapes, tensors, and lists and dictionaries of them, made into tensors without memory."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from numbers import Integral

import torch
from torch import Tensor


@dataclass(frozen=True)
class Input:
    """One input by its shape, for what a shape alone cannot say.

    `dtype` is its type where this is not the network's own, such as `torch.int64` for token numbers. `shape` is that of one
    sample, and the batch comes in front; with `batched=False` it is the whole shape: there is no batch.
    """

    shape: Sequence[int]
    dtype: torch.dtype | None = None
    batched: bool = True


InputSize = Sequence[int] | Tensor | Input | Sequence[object] | Mapping[str, object]


def check_dtype(dtype: torch.dtype | None, name: str = "dtype") -> torch.dtype | None:
    """Raises `ValueError` for what is not a floating-point type of PyTorch."""
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise ValueError(f"{name} must be None or a floating-point type such as torch.float32, got {dtype!r}")
    return dtype


def own_dtype(model: torch.nn.Module) -> torch.dtype:
    """That of the first floating-point parameter, or PyTorch's default."""
    return next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.get_default_dtype())


def meta_inputs(input_size: InputSize, batch_size: int, dtype: torch.dtype) -> tuple[tuple, dict, int | None]:
    """Positional and keyword arguments for a network, meta tensors in the nesting that `input_size` has, and the batch of the first
    of them, None if it has none (`Input(..., batched=False)`).

    (3, 224, 224) is the shape of one sample, without the batch; a tensor or an `Input` stands for itself. A sequence of these is
    one positional argument each, a dictionary keyword arguments. Inside, a list, tuple or dictionary is an argument that is
    nested in the same way, and a dictionary's None, bool and str are passed on. Raises `ValueError` for everything else.
    """
    if isinstance(batch_size, bool) or not isinstance(batch_size, Integral) or batch_size < 1:
        raise ValueError(f"batch_size must be a positive integer, got {batch_size!r}")
    batch_size = int(batch_size)
    batches = []
    argument = partial(_argument, batch_size=batch_size, dtype=dtype, batches=batches)
    args, kwargs = (input_size,), {}
    if isinstance(input_size, Mapping):
        args, kwargs = (), argument(input_size)
    elif _is_sequence(input_size) and not isinstance(input_size, Tensor):
        sizes = tuple(input_size)
        args = (Input(sizes),) if all(isinstance(item, (Integral, float)) for item in sizes) else sizes
    elif not isinstance(input_size, (Tensor, Input)):
        raise ValueError(f"input size must be a shape such as (3, 224, 224), a sequence of shapes, or a dictionary of keyword "
                         f"arguments; got {input_size!r}")
    return tuple(map(argument, args)), kwargs, batches[0] if batches else batch_size


def _argument(item, batch_size: int, dtype: torch.dtype, batches: list[int | None]):
    """Meta tensors in the nesting of `item`; the batch of each, None where it has none, goes into `batches`."""
    argument = partial(_argument, batch_size=batch_size, dtype=dtype, batches=batches)
    if isinstance(item, Tensor):
        batches.append(item.shape[0] if item.dim() else batch_size)
        return torch.empty_like(item, device="meta", requires_grad=False)
    if isinstance(item, Input):
        batches.append(batch_size if item.batched else None)
        shape = tuple(item.shape) if _is_sequence(item.shape) else (item.shape,)
        if not shape or not all(isinstance(n, Integral) and not isinstance(n, bool) and n > 0 for n in shape):
            raise ValueError(f"input size must hold positive integers, such as (3, 224, 224); got {item.shape!r}")
        batch = (batch_size,) if item.batched else ()
        return torch.empty((*batch, *map(int, shape)), dtype=item.dtype or dtype, device="meta")
    if isinstance(item, Mapping):
        return {key: value if value is None or isinstance(value, (bool, str)) else argument(value)
                for key, value in item.items()}
    if isinstance(item, (list, tuple)) and item and not any(isinstance(part, (Integral, float, str, bytes)) for part in item):
        return (tuple if isinstance(item, tuple) else list)(map(argument, item))
    return argument(Input(item))


def _is_sequence(thing) -> bool:
    return isinstance(thing, Iterable) and not isinstance(thing, (str, bytes))


def batch_hint(inputs: Sequence[Tensor]) -> str:
    """What to say when a network refuses inputs of which one may have a batch of one written in front of it."""
    for tensor in inputs:
        if tensor.dim() == 5 and tensor.shape[1] == 1:
            shape = tuple(tensor.shape[1:])
            return f" (Sizes are those of one sample: if {shape} begins with the batch, leave out the batch and write {shape[1:]}.)"
    return ""
