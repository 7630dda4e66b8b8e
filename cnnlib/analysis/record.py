"""The record of one forward pass: a `Call` for every module call, a `Step` for every torch function called in one, a
`Node` for every operation that it consists of, and a `Value` for every tensor. An operation that writes in place makes
a new value in the old storage: nodes and values form the graph of the computation, storages say what memory it needs.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn


class Storage:
    """The memory behind values; `tensors` are weak references to the live ones, `first` shape and strides of one."""

    __slots__ = ("nbytes", "tensors", "first")

    def __init__(self, nbytes: int):
        self.nbytes = nbytes
        self.tensors = []
        self.first = ((), ())

    def alive(self) -> list[Tensor]:
        return [tensor for reference in self.tensors if (tensor := reference()) is not None]

    def places(self, tensor: Tensor) -> list[tuple[int | None, range]] | None:
        """For each dimension of the first tensor, from the slowest: which dimension of `tensor` goes along it, and the
        places taken there; None if a dimension goes along none of them, or along two."""
        dims = [(stride, dim) for dim, (n, stride) in enumerate(zip(tensor.shape, tensor.stride())) if n > 1 and stride]
        offset, found = tensor.storage_offset(), []
        for length, axis in sorted(zip(*self.first), key=lambda one: -one[1]):
            if length == 1 or axis == 0:
                continue
            own, dims = [one for one in dims if one[0] >= axis], [one for one in dims if one[0] < axis]
            stride, dim = own[0] if own else (axis, None)
            start, offset = divmod(offset, axis)
            taken = range(start, start + stride // axis * (tensor.shape[dim] if own else 1), stride // axis)
            if len(own) > 1 or stride % axis or taken[-1] >= length:
                return None
            found.append((dim, taken))
        return None if dims or offset else found


class Value:
    """One tensor at one moment: shape (batch included), dtype, storage, and where it comes from.

    `role` is "input", "parameter", "buffer", "constant" (made by the model without its inputs) or "result".
    `parameters` names the parameters that the value is or was made of, for values that no input went into. `data` is the
    tensor itself where it is real and holds indices.
    """

    __slots__ = ("shape", "dtype", "storage", "role", "parameters", "numel", "nbytes", "data")

    def __init__(self, shape, dtype, storage=None, role="result", parameters=(), data=None):
        self.shape = shape
        self.dtype = dtype
        self.numel = math.prod(shape)
        self.nbytes = self.numel * dtype.itemsize
        self.storage = Storage(self.nbytes) if storage is None else storage
        self.role = role
        self.parameters = parameters
        self.data = data

    def __repr__(self):
        return f"Value({tuple(self.shape)}, {self.role})"


def made_of(inputs: tuple[Value, ...]) -> tuple[str, ...]:
    """The parameters that an operation's result is made of, if nothing but parameters and constants goes into it."""
    if inputs and all([value.parameters or value.role in ("buffer", "constant") for value in inputs]):
        return tuple(dict.fromkeys(name for value in inputs for name in value.parameters))
    return ()


@dataclass(slots=True, eq=False)
class Node:
    """One operation: PyTorch's name for it, its arguments with values in place of tensors, their names, and its
    results.

    `is_view` says that the results share the storage of the first input and that nothing was computed."""

    op: str
    args: tuple
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    is_view: bool
    names: tuple[str, ...]

    def arg(self, name: str, default=None):
        """The argument of this name, or `default` where the call left it out or gave None."""
        place = self.names.index(name) if name in self.names else len(self.args)
        given = self.args[place] if place < len(self.args) else None
        return default if given is None else given


@dataclass(slots=True, eq=False)
class Call:
    """One call of the module `name`; `has_children` once another module was called inside it."""

    name: str
    module: nn.Module
    parent: "Call | None"
    has_children: bool = False
    inputs: tuple[Value, ...] = ()
    outputs: tuple[Value, ...] = ()

    @property
    def kind(self) -> str:
        return type(self.module).__name__


@dataclass(slots=True, eq=False)
class Step:
    """One call of a torch function directly inside the module call `call`; `kind` is the function's name."""

    kind: str
    call: Call | None
    nodes: list[Node] = field(default_factory=list)


@dataclass(frozen=True)
class Missing:
    """What could not be followed: in which module, which operation ("" for the whole rest of the pass), and why."""

    module: str
    op: str
    reason: str


@dataclass
class Trace:
    """The record of one forward pass.

    `steps` holds calls and steps in the order in which they began; `inputs` and `outputs` are those of the model; `batch_size` is
    that of the first input, None if it has no batch.
    `peak_bytes` is the largest sum of storages alive at once, inputs included, parameters and buffers left out. `missing` is not
    empty where a pass that need not be complete (`strict=False`) ended early.
    """

    model: nn.Module
    steps: list[Call | Step]
    inputs: list[Value]
    outputs: list[Value]
    batch_size: int | None
    dtype: torch.dtype
    parameters: dict[int, tuple[str, Tensor]]  # by identity, in the order of the modules
    peak_bytes: int = 0
    peak_module: str = ""
    missing: list[Missing] = field(default_factory=list)

    def nodes(self) -> Iterator[Node]:
        for step in self.steps:
            if isinstance(step, Step):
                yield from step.nodes

    def calls(self) -> Iterator[Call]:
        return (step for step in self.steps if isinstance(step, Call))
