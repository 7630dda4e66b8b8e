"""What a network is given: shapes, tensors, and lists and dictionaries of them, made into tensors without memory."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral

import torch
from torch import Tensor

from .watch import tensors_in


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


def check_batch_size(batch_size: int) -> int:
    """Raises `ValueError` for what is not a positive integer."""
    if isinstance(batch_size, bool) or not isinstance(batch_size, Integral) or batch_size < 1:
        raise ValueError(f"batch_size must be a positive integer, got {batch_size!r}")
    return int(batch_size)


def check_dtype(dtype: torch.dtype | None) -> torch.dtype | None:
    """Raises `ValueError` for what is not a floating-point type of PyTorch."""
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise ValueError(f"dtype must be a floating-point type such as torch.float32, got {dtype!r}")
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
    batch_size = check_batch_size(batch_size)
    args, kwargs = _arguments(input_size, batch_size, dtype)
    first = next(tensors_in((args, kwargs)), None)
    return args, kwargs, None if _is_alone(input_size) else batch_size if first is None or not first.dim() else first.shape[0]


def _is_alone(item) -> bool:
    """Whether the first input is one without a batch."""
    while isinstance(item, (Mapping, list, tuple)) and item:
        item = next(iter(item.values() if isinstance(item, Mapping) else item))
    return isinstance(item, Input) and not item.batched


def _arguments(input_size, batch_size: int, dtype: torch.dtype) -> tuple[tuple, dict]:
    if isinstance(input_size, Mapping):
        return (), _argument(input_size, batch_size, dtype)
    if isinstance(input_size, (Tensor, Input)):
        return (_argument(input_size, batch_size, dtype),), {}
    if not isinstance(input_size, Iterable) or isinstance(input_size, (str, bytes)):
        raise ValueError(f"input size must be a shape such as (3, 224, 224), a sequence of shapes, or a dictionary of keyword "
                         f"arguments; got {input_size!r}")
    sizes = list(input_size)
    if all(isinstance(item, (Integral, float)) for item in sizes):
        return (_tensor(tuple(sizes), dtype, (batch_size,)),), {}
    return tuple(_argument(item, batch_size, dtype) for item in sizes), {}


def batch_hint(inputs: Sequence[Tensor]) -> str:
    """What to say when a network refuses inputs of which one may have a batch of one written in front of it."""
    for tensor in inputs:
        if tensor.dim() == 5 and tensor.shape[1] == 1:
            shape = tuple(tensor.shape[1:])
            return f" (Sizes are those of one sample: if {shape} begins with the batch, leave out the batch and write {shape[1:]}.)"
    return ""


def _argument(item, batch_size: int, dtype: torch.dtype):
    """Meta tensors in the nesting of `item`."""
    if isinstance(item, Tensor):
        return torch.empty_like(item, device="meta", requires_grad=False)
    if isinstance(item, Input):
        return _tensor(item.shape, item.dtype or dtype, (batch_size,) if item.batched else ())
    if isinstance(item, Mapping):
        return {key: value if value is None or isinstance(value, (bool, str)) else _argument(value, batch_size, dtype)
                for key, value in item.items()}
    if isinstance(item, (list, tuple)) and item and not any(isinstance(part, (Integral, float, str, bytes)) for part in item):
        nested = [_argument(part, batch_size, dtype) for part in item]
        return tuple(nested) if isinstance(item, tuple) else nested
    return _tensor(item, dtype, (batch_size,))


def _tensor(shape, dtype: torch.dtype, batch: tuple[int, ...]) -> Tensor:
    lengths = tuple(shape) if isinstance(shape, Iterable) and not isinstance(shape, (str, bytes)) else (shape,)
    if not lengths or not all(isinstance(n, Integral) and not isinstance(n, bool) and n > 0 for n in lengths):
        raise ValueError(f"input size must hold positive integers, such as (3, 224, 224); got {shape!r}")
    return torch.empty((*batch, *map(int, lengths)), dtype=dtype, device="meta")
