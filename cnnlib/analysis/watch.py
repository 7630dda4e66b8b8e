"""Watching a network without changing it: what it holds is put back, its outputs are caught, its live memory is counted."""

import copy
import dataclasses
import gc
import random
import sys
import weakref
from functools import partial
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import TorchDispatchMode

from . import ops


class AnalysisError(ValueError):
    """What a network does cannot be followed; the message names the operation and the module."""


_REASONS = {  # in PyTorch's errors, where tensors have no values -> what it means
    ("meta tensor", "data-dependent", "DataDependent", "DynamicOutputShape", "_local_scalar_dense", "aten::nonzero",
     "aten::item", "aten::equal", "register_meta", "aten::_unique", "aten::unique", "masked_select", "bincount",
     "meta device type tensor to numpy", ".numpy() is not supported"):
        " needs the values of a tensor, and an analysis has shapes alone. Let the control flow depend on shapes, or "
        "analyse the part of the network before and after this module by itself.",
    ("no fake impl or Meta kernel",):
        " calls an operation that says nothing of its shapes: it has no meta kernel. Give it one "
        "(torch.library.register_fake), or analyse the part of the network before and after it by itself.",
    ("TorchScript interpreter",):
        " calls a TorchScript function, whose operations cannot be watched; call the Python function that it was made "
        "from instead.",
}


def failure(module: tuple[str, str] | None, error: Exception | str, what: str = "", failed: str = "") -> AnalysisError:
    """What went wrong in the module of this name and kind, where `what` `failed`, unless the error already says it."""
    if isinstance(error, AnalysisError):
        return error
    text = " ".join(str(error).split())[:300]
    told = type(error).__name__ + text
    reasons = [reason for signs, reason in _REASONS.items() if any(sign in told for sign in signs)]
    message = error if isinstance(error, str) else what + (reasons or [failed + text])[0]
    if module is not None:
        name, kind = module
        message = f"in module {name!r} ({kind}): {message}" if name else f"in the model itself ({kind}): {message}"
    return AnalysisError(message)


def tensors_in(thing) -> Iterator[Tensor]:
    """The tensors in nested lists, tuples, mappings and data classes, in order."""
    if isinstance(thing, Tensor):
        yield thing
    elif type(thing) in _PLAIN:
        return
    elif isinstance(thing, (list, tuple)):
        for item in thing:
            yield from tensors_in(item)
    elif isinstance(thing, Mapping):
        for item in thing.values():
            yield from tensors_in(item)
    elif dataclasses.is_dataclass(thing) and not isinstance(thing, type):
        for field in dataclasses.fields(thing):
            yield from tensors_in(getattr(thing, field.name, None))


def mapped(function: Callable, thing, kind: type = Tensor):
    """`thing` with `function` of every tensor, or whatever `kind` says, in its place: in nested lists, tuples, mappings, data classes."""
    if isinstance(thing, kind):
        return function(thing)
    if type(thing) in _PLAIN:
        return thing
    if isinstance(thing, (list, tuple)):
        parts = [mapped(function, item, kind) for item in thing]
        return type(thing)(*parts) if hasattr(thing, "_fields") else type(thing)(parts)
    if isinstance(thing, Mapping):
        parts = {key: mapped(function, item, kind) for key, item in thing.items()}
        if type(thing) is dict:
            return parts
        thing = copy.copy(thing)
        for key, item in parts.items():
            thing[key] = item
    elif dataclasses.is_dataclass(thing) and not isinstance(thing, type):
        thing = copy.copy(thing)
        for field in dataclasses.fields(thing):
            object.__setattr__(thing, field.name, mapped(function, getattr(thing, field.name, None), kind))
    return thing


# State


@contextmanager
def unchanged(modules: Iterable[tuple[str, nn.Module]], values: bool = False) -> Iterator[list[Tensor]]:
    """Give the modules back what their attributes held, containers in them included, and the process its random states.

    With `values` also the contents of buffers and of tensors in attributes, for passes that compute. Yields the tensors found in
    attributes that are neither parameters nor buffers.
    """
    before, empty, tensors, seen = [], [], [], set()
    modules = list(modules)
    for _, module in modules:
        attributes = module.__dict__
        before.append((attributes, attributes.copy()))
        for name, item in attributes.items():
            kind = type(item)
            if kind in _CONTAINERS and not item:  # most are: hooks that nobody has registered
                empty.append(item)
            elif name in _REGISTERED:
                before.append((item, item.copy()))
            elif kind not in _PLAIN and not (kind is tuple and _PLAIN.issuperset(map(type, item))):
                _keep(item, before, tensors, seen)
    written = [b for _, module in modules for b in module._buffers.values() if b is not None] + tensors
    contents = [(tensor, tensor.detach().clone()) for tensor in written if values and not tensor.is_meta]
    random_states = _random_states()
    try:
        yield tensors
    finally:
        for restore, state in random_states:
            restore(state)
        for now in filter(None, empty):
            now.clear()
        for now, then in before:
            _restore(now, then)
        for tensor, content in contents:
            tensor.data.copy_(content)


_PLAIN = {bool, int, float, str, type(None), torch.dtype, torch.device, torch.Size, type(len), type(tensors_in)}
_CONTAINERS = {dict, OrderedDict, list, set, deque, tuple}
_REGISTERED = {"_parameters", "_buffers", "_modules"}


def _keep(item, before, tensors, seen) -> None:
    """Note an attribute's container or object and what lies in it, and the tensors that are found."""
    if isinstance(item, Tensor):
        tensors.append(item)
    if isinstance(item, (Tensor, nn.Module, type)) or id(item) in seen:
        return
    seen.add(id(item))
    if not isinstance(item, tuple(_CONTAINERS)):
        if callable(item) or type(item).__module__.startswith("torch") or not hasattr(item, "__dict__"):
            return
        item = item.__dict__
    if not isinstance(item, tuple):
        before.append((item, item.copy()))
    for part in list(item.values()) if isinstance(item, dict) else item:
        if type(part) not in _PLAIN:
            _keep(part, before, tensors, seen)


def _restore(now, then) -> None:
    """Let the container `now` hold what its copy `then` does; what is in its place stays there for other threads."""
    if isinstance(now, dict):
        for key in now.keys() - then.keys():
            del now[key]
        now.update(then)
        if list(now) == list(then):
            return
    now.clear()
    (now.update if isinstance(now, (dict, set)) else now.extend)(then)


def _random_states() -> list[tuple]:
    """Pairs of a function and the state that it sets: of Python, NumPy where it is loaded, PyTorch and its devices."""
    states = [(random.setstate, random.getstate()), (torch.set_rng_state, torch.get_rng_state())]
    if (numpy := sys.modules.get("numpy")) is not None and hasattr(numpy, "random"):
        states.append((numpy.random.set_state, numpy.random.get_state()))
    if torch.cuda.is_initialized():
        states.append((torch.cuda.set_rng_state_all, torch.cuda.get_rng_state_all()))
    return states


def eager():
    """A context in which compiled functions run as they were written, where any can be: their compiler sees no tensor of an analysis."""
    return torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()


@contextmanager
def no_collection():
    """Hold the garbage collector: a trace makes many small objects, all of them kept, and each search costs more than it."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def outputs_of(model: nn.Module, layers: Iterable[str], images: Tensor) -> dict[str, Tensor]:
    """What the modules of these dotted names give out in one forward pass; of several tensors the first, of several calls the last.

    The network goes on with copies, so that no later operation overwrites the tensors, which carry gradients as usual. The model's
    attributes, buffers and the random states are afterwards what they were. Raises `AttributeError` for a name that the model does
    not have, and `AnalysisError` for a module that is not called or gives out no tensor.
    """
    caught = {}

    def hook(layer, module, args, output):
        caught[layer] = next(tensors_in(output), None)
        return mapped(Tensor.clone, output)

    modules = {layer: model.get_submodule(layer) for layer in layers}
    with unchanged(model.named_modules(), values=True):  # also without these hooks
        for layer, module in modules.items():
            module.register_forward_hook(partial(hook, layer))
        model(images)
    for layer in modules:
        if caught.get(layer) is None:
            what = "gives out no tensor" if layer in caught else "is not called in a forward pass"
            raise AnalysisError(f"module {layer!r} {what}")
    return caught


# Memory


class LiveBytes(TorchDispatchMode):
    """The peak of the sizes of live storages: of tensors given to `add`, and as a mode of all that operations make."""

    def __init__(self, given: Iterable[Tensor] = ()):
        super().__init__()
        self.now = self.peak = 0
        self.where = ""  # for whoever adds
        self.peak_where = ""
        self.seen = {}  # address of a storage -> a reference to it, until it dies
        for tensor in given:
            self.add(tensor)

    def add(self, tensor: Tensor) -> int:
        """Count the tensor's storage while it lives, and return its address."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self.seen:
            return key
        size = storage.nbytes()

        def freed(_):
            del self.seen[key]
            self.now -= size

        self.seen[key] = weakref.ref(storage, freed)
        self.now += size
        self.reach(self.now)
        return key

    def reach(self, level: int) -> None:
        if level > self.peak:
            self.peak, self.peak_where = level, self.where

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        run = partial(func, *args, **(kwargs or {}))
        made = ops.of(func.overloadpacket.__name__).made
        result = made(run, args) if made is not None and isinstance(args[0], FakeTensor) else run()
        for tensor in tensors_in(result):
            self.add(tensor)
        return result
