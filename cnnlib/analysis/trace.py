"""One forward pass of any network, on shapes alone: what ran, in which module, on which values.

`trace(model, (3, 224, 224))` calls the model once on meta tensors, which have a shape and no memory, and writes down

- a `Call` for every module call, a `Step` for every torch function called in one, in the order in which they happened;
- a `Node` for every operation of the step, named as PyTorch names it (`convolution`, `native_batch_norm`, `add`), with
  its arguments;
- a `Value` for every tensor. An operation that writes in place makes a new value in the old storage. So the nodes and
  values form the graph of the computation, and the storages say what memory it needs.

Three paths write the same record. The most common functions are answered from the formula for their output shape (`closed.py`), and
modules that call one of them and nothing else are not even entered. Every other function is run on meta tensors, and the operations
that it turns out to consist of are recorded; when it is called again on the same shapes, they are written down from memory.
`fast=False` runs everything.

The model is left as it was: parameters, buffers, attributes and the random states; nothing stays patched, whether the
trace succeeds or fails.
"""

import math
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn.modules.lazy import LazyModuleMixin
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from . import closed, ops
from .inputs import InputSize, batch_hint, check_batch_size, check_dtype, meta_inputs, own_dtype
from .watch import AnalysisError, LiveBytes, eager, explained, named_modules, no_collection, tensors_in, unchanged


class Storage:
    """The memory behind one or more values; `handles` are weak references to what its live tensors carry."""

    __slots__ = ("nbytes", "handles")

    def __init__(self, nbytes: int):
        self.nbytes = nbytes
        self.handles = []


class Value:
    """One tensor at one moment: shape (batch included), dtype, storage, and where it comes from.

    `role` is "input", "parameter", "buffer", "constant" (made by the model without its inputs) or "result".
    `parameters` names the parameters that the value is or was made of, for values that no input went into. `data` is the
    tensor itself where it is real and holds indices.
    """

    __slots__ = ("shape", "dtype", "storage", "role", "parameters", "numel", "nbytes", "data")

    def __init__(self, shape, dtype, storage, role, parameters=(), data=None):
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


@dataclass(slots=True, eq=False)
class Node:
    """One operation: PyTorch's name for it, its arguments with values in place of tensors, and its results.

    `is_view` says that the results share the storage of the first input and that nothing was computed. `names` are those of the
    arguments; None stands for those in `ops.OPERATORS`.
    """

    op: str
    args: tuple
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    is_view: bool = False
    names: tuple[str, ...] | None = None

    def arg(self, name: str, default=None):
        """The argument of this name, or `default` where the call left it out or gave None."""
        names = ops.of(self.op).args if self.names is None else self.names
        place = names.index(name) if name in names else len(self.args)
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

    `steps` holds calls and steps in the order in which they began; `inputs` and `outputs` are those of the model.
    `peak_bytes` is the largest sum of storages alive at once, inputs included, parameters and buffers left out. `missing` is not
    empty where a pass that need not be complete (`strict=False`) ended early.
    """

    model: nn.Module
    steps: list[Call | Step]
    inputs: list[Value]
    outputs: list[Value]
    batch_size: int
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


def trace(
    model: nn.Module,
    input_size: InputSize,
    *,
    batch_size: int = 1,
    dtype: torch.dtype | None = None,
    fast: bool = True,
    strict: bool = True,
) -> Trace:
    """Run `model` once on meta tensors and return the record.

    `input_size` is as in `meta_inputs`. `dtype` replaces the floating-point type of inputs, parameters and buffers alike. With
    `strict=False` a pass that cannot be followed to its end is recorded up to there.

    Raises `TypeError` for a model that is not an `nn.Module` and `ValueError` for sizes that are not positive. What the
    network does with its input and cannot be followed raises `AnalysisError`, a `ValueError`.
    """
    modules = modules_of(model)
    model = modules[0][1]
    check_batch_size(batch_size)
    input_dtype = check_dtype(dtype) or own_dtype(model)
    args, kwargs = meta_inputs(input_size, batch_size, input_dtype)
    inputs = list(tensors_in((args, kwargs)))
    if inputs and inputs[0].dim():
        batch_size = inputs[0].shape[0]
    missing, outputs = [], []
    _warm_up()
    with lock, eager(), torch.no_grad(), no_collection(), unchanged(modules) as held:
        tracer = _Tracer(modules, held, dtype, fast)
        values = [tracer.attach(tensor, role="input") for tensor in inputs]
        try:
            tracer.watch(modules)
            with tracer.naming("its forward", " raised {}: "), tracer:
                result = model(*args, **kwargs)
            outputs = [tracer.value(tensor) for tensor in tensors_in(result)]
            del result
        except AnalysisError as error:
            if not strict:
                missing.append(Missing(tracer.call.name if tracer.call else "", "", str(error)))
            elif hint := batch_hint(inputs):
                raise AnalysisError(f"{error}{hint}") from error
            else:
                raise
        finally:
            tracer.shadows.clear()
    return Trace(
        model, tracer.steps, values, outputs, batch_size, input_dtype, tracer.parameters, tracer.live.peak,
        tracer.live.peak_where, missing
    )


def modules_of(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """The names and modules of a network, the model itself first, taken out of what `torch.compile` wraps around it.

    Raises `TypeError` for what is no network and `AnalysisError` for compiled programs, which hide their operations."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be an nn.Module, got {type(model).__name__}: {model!r:.80}")
    if type(model).__name__ == "OptimizedModule":
        model = model._orig_mod
    modules = named_modules(model)
    refused = any([issubclass(kind, (torch.jit.ScriptModule, LazyModuleMixin)) for kind in {type(module) for _, module in modules}])
    for name, module in modules if refused else ():
        which = f"module {name!r}" if name else "the model"
        if isinstance(module, torch.jit.ScriptModule):
            raise AnalysisError(f"{which} is a TorchScript program ({type(module).__name__}), whose modules and operations cannot "
                                "be watched; pass the nn.Module that it was made from")
        if isinstance(module, LazyModuleMixin) and module.has_uninitialized_params():
            raise AnalysisError(f"{which} ({type(module).__name__}) has parameters without a shape; run the network once before")
    return modules


@cache
def _warm_up() -> None:
    """PyTorch imports much when it first dispatches to Python, and what it imports holds the frames above, and the tensors in them."""
    with LiveBytes():
        torch.empty((1, 2, 1, 1), device="meta").transpose(0, 1).reshape(2)


# A trace changes what the modules' attribute `forward` is while it runs; one runs at a time.
lock = threading.RLock()


class _Handle:
    """What a live tensor carries: its present value, and where it lies in its storage as (offset, strides).

    None stands for the whole storage in the usual order.
    """

    __slots__ = ("value", "tracer", "place", "__weakref__")

    def __init__(self, value, tracer, place=None):
        self.value = value
        self.tracer = tracer
        self.place = place


_peek = torch._C._functorch.peek_interpreter_stack  # not None inside of vmap and other transforms
_is_wrapped = torch._C._functorch.is_functorch_wrapped_tensor
_unwrapped = torch._C._functorch.get_unwrapped


class _Tracer(TorchFunctionMode):
    """Sees every torch function that the model calls and writes down what it does."""

    def __init__(self, modules, held, dtype, fast):
        super().__init__()
        self.dtype = dtype
        self.fast = fast
        self.rules = closed.RULES if fast else {}
        self.shortcuts = closed.SHORTCUTS if fast else {}
        self.parameters = {}  # id -> (name, parameter), those that are shared by their first name
        self.buffers = {}
        for name, module in modules:
            prefix = name + "." if name else ""
            for known, own in ((self.parameters, module._parameters), (self.buffers, module._buffers)):
                for key, tensor in own.items():
                    if tensor is not None:
                        known.setdefault(id(tensor), (prefix + key, tensor))
        self.held = {id(tensor): tensor for tensor in held}  # in attributes
        self.state_values = {}  # id of a parameter, buffer or real constant -> (tensor, value)
        self.shadows = {}  # the same -> (tensor, meta tensor that stands for it)
        self.storages = {}  # address of a live meta storage -> the record's
        self.steps = []
        self.call = None
        self.step = None
        self.function = ""
        self.live = LiveBytes()

    # Module calls

    @contextmanager
    def naming(self, what, failed, tensors=()):
        """Errors in this context as an `AnalysisError` that names the module, and what it was that `failed`: {0}, their class, {1}, shapes."""
        try:
            yield
        except AnalysisError:
            raise
        except Exception as error:
            shapes = ", ".join(str(tuple(tensor.shape)) for tensor in tensors[:4])
            raise self.error(explained(error, what, failed.format(type(error).__name__, shapes))) from error

    def watch(self, modules):
        """Record calls of these modules, in this thread, until `unchanged` puts their attributes back.

        Each gets an attribute `forward` in front of that of its class, so that its own hooks run as ever.
        """
        thread = threading.get_ident()
        for name, module in modules:
            module.__dict__["forward"] = self.watched(name, module, thread)

    def watched(self, name, module, thread):
        """A function that takes the place of `module.forward` and records the call."""
        forward = module.forward
        shortcut = self.shortcuts.get(type(module)) if "forward" not in module.__dict__ else None

        def call_of(*args, **kwargs):
            if threading.get_ident() != thread:
                return forward(*args, **kwargs)
            parent = self.call
            call = self.call = Call(name, module, parent)
            if parent is not None:
                parent.has_children = True
            self.steps.append(call)
            self.step = None
            self.live.where = name
            call.inputs = self.values_of(args) or self.values_of(kwargs)
            result = NotImplemented
            if shortcut is not None and len(args) == 1 and not kwargs and type(args[0]) is Tensor and _peek() is None:
                with torch._C.DisableTorchFunction():
                    function_call = shortcut(module, args[0])
                    if function_call is not None:
                        result = self.answer(*function_call)
            if result is NotImplemented:
                self.step = None
                result = forward(*args, **kwargs)
            call.outputs = self.values_of(result)
            self.call = parent
            self.live.where = parent.name if parent is not None else ""
            self.step = None
            return result

        return call_of

    def answer(self, func, *args, **kwargs):
        """The result of `func` by its closed form, or NotImplemented."""
        rule, names, self.function = self.rules[func]
        if len(args) > len(names) or (kwargs and not kwargs.keys() <= set(names)):
            return NotImplemented
        return rule(self, *args, **kwargs)

    def error(self, message: str) -> AnalysisError:
        call = self.call
        if call is None:
            return AnalysisError(message)
        where = f"module {call.name!r} ({call.kind})" if call.name else f"the model itself ({call.kind})"
        return AnalysisError(f"in {where}: {message}")

    # Values

    def values_of(self, thing) -> tuple[Value, ...]:
        if type(thing) is tuple and len(thing) == 1:
            thing = thing[0]
        if type(thing) is Tensor:
            return (self.value(thing),)
        return tuple(map(self.value, tensors_in(thing)))

    def value(self, tensor: Tensor) -> Value:
        """The value that `tensor` holds now; a tensor not seen before is a parameter, a buffer or a constant."""
        key = id(tensor)
        known = self.state_values.get(key)
        if known is not None:
            return known[1]
        handle = getattr(tensor, "_cnnlib_handle", None)
        if handle is not None and handle.tracer is self:
            return handle.value
        if _is_wrapped(tensor):
            return self.value(_unwrapped(tensor))
        dtype = tensor.dtype
        if self.dtype is not None and dtype.is_floating_point:
            dtype = self.dtype
        role, names = "constant", ()
        if key in self.parameters:
            role, names = "parameter", (self.parameters[key][0],)
        elif key in self.buffers:
            role = "buffer"
        elif tensor.is_meta and key not in self.held:
            found = self.found(tensor) if tensor.layout is torch.strided else None
            if found is not None:
                return found
            raise self.error(f"a tensor of shape {tuple(tensor.shape)} comes out of operations that cannot be watched, such as a TorchScript "
                             "function or another thread; call the Python function that it was made from, in the thread of the network")
        data = tensor if not tensor.is_meta and not dtype.is_floating_point and tensor.numel() <= 1 << 20 else None
        value = Value(tuple(tensor.shape), dtype, None, role, names, data)  # the model holds its storage: never counted, never freed
        self.state_values[key] = (tensor, value)
        return value

    def found(self, tensor: Tensor) -> Value | None:
        """The value of a tensor that came out of a transform such as vmap, past all watching: a permuted view of one that is known."""
        storage = self.storages.get(tensor.untyped_storage()._cdata)
        for reference in storage.handles[::-1] if storage is not None else ():
            handle = reference()
            if handle is None:
                continue
            offset, strides = _place(handle)
            if offset != tensor.storage_offset():
                continue
            ours, theirs = list(zip(handle.value.shape, strides)), list(zip(tensor.shape, tensor.stride()))
            if ours == theirs:
                tensor._cnnlib_handle = handle
                return handle.value
            if sorted(ours) == sorted(theirs):
                order = []
                for pair in theirs:
                    order.append(next(i for i, other in enumerate(ours) if other == pair and i not in order))
                node = self.record("permute", (handle.value, tuple(order)), (handle.value,), (), True)
                node.outputs = (self.attach(tensor, storage=storage, parameters=handle.value.parameters),)
                return node.outputs[0]
        return None

    def attach(self, tensor: Tensor, role="result", storage=None, parameters=(), value=None) -> Value:
        """Let a new tensor carry a new value, in new memory unless a storage is given."""
        if value is None:
            value = Value(tuple(tensor.shape), tensor.dtype, storage, role, parameters)
        if storage is None:
            storage = value.storage
            self.storages[self.live.add(tensor)] = storage
            place = None if tensor.is_contiguous() else (0, tensor.stride())
        else:
            place = tensor.storage_offset(), tensor.stride()
        handle = tensor._cnnlib_handle = _Handle(value, self, place)
        storage.handles.append(weakref.ref(handle))
        return value

    def attach_new(self, tensor: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> Value:
        """`attach` for what a closed form makes: a result of this shape in new memory, in the usual order."""
        value = Value(shape, dtype, None, "result")
        storage = value.storage
        self.storages[self.live.add(tensor)] = storage
        handle = tensor._cnnlib_handle = _Handle(value, self)
        storage.handles.append(weakref.ref(handle))
        return value

    def overwrite(self, tensor: Tensor) -> Value:
        """A new value in the storage of `tensor`, which was written in place; what shares its memory changes with it."""
        handle = getattr(tensor, "_cnnlib_handle", None)
        if handle is None:
            known = self.found(tensor)
            if known is None:
                return self.attach(tensor)
            handle = tensor._cnnlib_handle
        old = handle.value
        handle.value = Value(tuple(tensor.shape), old.dtype, old.storage, "result", ())
        if len(old.storage.handles) > 1:
            for reference in old.storage.handles:
                other = reference()
                if other is not None and other is not handle:
                    before = other.value
                    other.value = Value(before.shape, before.dtype, before.storage, "result", ())
                    args = (before, handle.value, _shared_indices(other, handle))
                    self.record("written_through", args, (before, handle.value), (other.value,), True)
        return handle.value

    def shadow(self, tensor: Tensor) -> Tensor:
        """The meta tensor that stands for a parameter, a buffer or a real constant."""
        known = self.shadows.get(id(tensor))
        if known is not None:
            return known[1]
        value = self.value(tensor)
        if getattr(tensor, "_cnnlib_handle", None) is not None:
            return tensor
        if tensor.layout is not torch.strided:
            raise self.error(f"tensors with layout {tensor.layout} cannot be followed; use a strided (dense) tensor")
        strides = tensor.stride()
        meta = torch.empty_strided(tensor.shape, strides, dtype=value.dtype, device="meta")
        self.storages[meta.untyped_storage()._cdata] = value.storage
        handle = meta._cnnlib_handle = _Handle(value, self, (0, strides))
        value.storage.handles.append(weakref.ref(handle))
        self.shadows[id(tensor)] = (tensor, meta)
        return meta

    def on_meta(self, thing):
        """`thing` with every tensor in it replaced by a meta tensor that carries its value."""
        kind = type(thing)
        if kind in _NUMBERS:
            return thing
        if kind is Tensor or isinstance(thing, Tensor):
            if getattr(thing, "_cnnlib_handle", None) is not None or _is_wrapped(thing):
                return thing
            return self.shadow(thing)
        if kind is list or kind is tuple:
            return kind(map(self.on_meta, thing))
        if kind is dict:
            return {key: self.on_meta(item) for key, item in thing.items()}
        return thing

    # Operations

    def record(self, op, args, inputs, outputs, is_view=False, names=None) -> Node:
        if self.step is None:
            self.step = Step(self.function, self.call)
            self.steps.append(self.step)
        node = Node(op, args, inputs, outputs, is_view, names)
        self.step.nodes.append(node)
        return node

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in _QUERIES:
            if func in _DTYPE_QUERIES and self.dtype is not None:
                args = (self.on_meta(args[0]), *args[1:])
            return func(*args, **kwargs)
        self.step = None
        if func in self.rules and _peek() is None:
            result = self.answer(func, *args, **kwargs)
            if result is not NotImplemented:
                return result
            self.step = None
        return self.general(func, args, kwargs)

    def made(self, result):
        """What the model makes out of nothing or of constants: the meta tensors among it are known from now on."""
        for tensor in tensors_in(result):
            if tensor.is_meta and getattr(tensor, "_cnnlib_handle", None) is None and not _is_wrapped(tensor):
                self.held[id(tensor)] = tensor
        return result

    def general(self, func, args, kwargs):
        """Run `func` on meta tensors and record the operations that it consists of, or write down what is remembered of it."""
        tensors = list(tensors_in((*args, *kwargs.values())))
        name = getattr(func, "__name__", str(func))
        if name == "__get__":  # a property of tensors, such as Tensor.T
            name = getattr(getattr(func, "__self__", None), "__name__", name)
        self.function = name.strip("_")
        if not any(tensor.is_meta or id(tensor) in self.parameters for tensor in tensors):
            writes = kwargs.get("out") is not None or name.endswith("_") and not name.endswith("__") or (
                name in ("__setitem__", "__set__") or name.startswith("__i") and name.endswith("__"))
            if not (writes and any(id(tensor) in self.buffers or id(tensor) in self.held for tensor in tensors)):
                if not tensors:
                    return self.made(func(*args, **kwargs))
                with _Recorder(self, of_constants=True):  # on real tensors: their values may steer the network
                    return self.made(func(*args, **kwargs))
        if func in _MOVES:
            args, kwargs = _without_device(args, kwargs)
            if func is not Tensor.to:
                return args[0]
        elif kwargs.get("device") is not None:
            kwargs = kwargs | {"device": "meta"}
        if func in _INDEXING:
            args = (args[0], _with_tensors(args[1]), *args[2:])
        args, kwargs = tuple(map(self.on_meta, args)), self.on_meta(kwargs) if kwargs else kwargs
        with self.naming(name.strip("_"), " on tensors of shape {1} failed: ", tensors):
            if self.fast and _peek() is None:
                return remembered(self, func, args, kwargs)
            with _Recorder(self):
                return self.made(func(*args, **kwargs))


class _Recorder(TorchDispatchMode):
    """Records the operations below a torch function, as PyTorch dispatches them; `of_constants`, which are computed as ever, the products."""

    def __init__(self, tracer, of_constants=False):
        super().__init__()
        self.tracer = tracer
        self.of_constants = of_constants

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if torch.is_inference_mode_enabled():  # composite operations arrive whole there
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        result = func(*args, **kwargs)
        op, aliases, names = _schema(func)
        tracer = self.tracer
        if self.of_constants and ops.of(op).macs is None:
            return result
        args = args + tuple(kwargs.get(name) for name in names[len(args):])
        inputs = tracer.values_of(args)
        args = _with_values(args, tracer)
        results = list(tensors_in(result))
        if not inputs and not results:
            return result
        parameters = made_of(inputs)
        outputs = []
        node = None
        if inputs and op not in _ALLOCATIONS:
            node = tracer.record(op, args, inputs, (), aliases[0] == "view", names)
        for i, tensor in enumerate(results[:ops.of(op).results]):
            alias = aliases[min(i, len(aliases) - 1)]
            if self.of_constants:
                outputs.append(tracer.value(tensor))
            elif alias == "write":
                outputs.append(tracer.overwrite(tensor))
            else:
                outputs.append(tracer.attach(tensor, storage=inputs[0].storage if alias == "view" else None, parameters=parameters))
        if node is not None:
            node.outputs = tuple(outputs)
        return result


def made_of(inputs: tuple[Value, ...]) -> tuple[str, ...]:
    """The parameters that an operation's result is made of, if nothing but parameters and constants goes into it."""
    if inputs and all([value.parameters or value.role in ("buffer", "constant") for value in inputs]):
        return tuple(dict.fromkeys(name for value in inputs for name in value.parameters))
    return ()


def _shared_indices(one: _Handle, other: _Handle) -> list[list[int | None]] | None:
    """For each dimension and each index of `one`, the index of `other` that addresses the same memory, or None.

    An element of `one` lies in `other` where all its indices do. Returns None if dimensions cannot be compared.
    """
    (start, strides), (other_start, other_strides) = map(_place, (one, other))
    shape, other_shape = one.value.shape, other.value.shape
    if len(shape) != len(other_shape):
        return None
    units = [math.gcd(*pair) for pair in zip(strides, other_strides)]
    indices = [None] * len(shape)
    for dim in sorted(range(len(shape)), key=lambda dim: units[dim], reverse=True):
        unit = units[dim]
        if unit == 0:
            return None
        begin, start = divmod(start, unit)
        other_begin, other_start = divmod(other_start, unit)
        step, other_step = strides[dim] // unit, other_strides[dim] // unit
        places = {other_begin + j * other_step: j for j in range(other_shape[dim])}
        indices[dim] = [places.get(begin + i * step) for i in range(shape[dim])]
    return indices


def _place(handle: _Handle) -> tuple[int, tuple[int, ...]]:
    if handle.place is not None:
        return handle.place
    shape = handle.value.shape
    return 0, tuple(math.prod(shape[dim + 1:]) for dim in range(len(shape)))


_ALLOCATIONS = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"}


@cache
def _schema(func) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    """The operation's name; for each result whether it is "new", a "view", or a "write" into an argument; the arguments' names."""
    op = func.overloadpacket.__name__
    aliases = ("new" if alias is None else "write" if alias.is_write else "view"
               for alias in (returned.alias_info for returned in func._schema.returns))
    aliases = ("view",) if op == "_unsafe_view" else tuple(aliases) or ("new",)
    return op, aliases, tuple(argument.name for argument in func._schema.arguments)


def _with_values(thing, tracer):
    if isinstance(thing, Tensor):
        return tracer.value(thing)
    if isinstance(thing, (list, tuple)):
        return tuple(_with_values(item, tracer) for item in thing)
    return thing


def _with_tensors(index):
    """An index whose lists of numbers are tensors and whose tensors of one number are numbers, so that they are known later on."""
    if isinstance(index, tuple):
        return tuple(map(_with_tensors, index))
    if isinstance(index, (list, range)) and index and all(type(item) is int for item in index):
        return torch.tensor(list(index))
    if isinstance(index, Tensor) and not index.is_meta and index.dim() == 0 and index.dtype is not torch.bool:
        return int(index)
    if type(index).__module__ == "numpy" and hasattr(index, "dtype") and getattr(index, "ndim", 0):
        return torch.as_tensor(index)
    return index


def _without_device(args, kwargs):
    """The arguments of Tensor.to and its kin with any device left out."""
    keep = tuple(a for i, a in enumerate(args) if i == 0 or not isinstance(a, (torch.device, str, int)) or
                 isinstance(a, bool))
    return keep, {key: item for key, item in kwargs.items() if key != "device"}


_DTYPE_QUERIES = {Tensor.dtype.__get__, Tensor.element_size, Tensor.type}
_QUERIES = _DTYPE_QUERIES | {
    Tensor.shape.__get__, Tensor.device.__get__, Tensor.ndim.__get__, Tensor.requires_grad.__get__,
    Tensor.is_meta.__get__, Tensor.is_cuda.__get__, Tensor.layout.__get__, Tensor.is_leaf.__get__,
    Tensor.grad_fn.__get__, Tensor.is_mps.__get__, Tensor.is_nested.__get__,
    Tensor.is_quantized.__get__, Tensor.is_sparse.__get__, Tensor.size, Tensor.dim, Tensor.numel, Tensor.nelement,
    Tensor.stride, Tensor.ndimension, Tensor.is_floating_point, Tensor.is_complex, Tensor.is_contiguous, Tensor.__len__,
    Tensor.storage_offset, Tensor.get_device, Tensor.__hash__, torch.is_floating_point, torch.is_complex,
    torch.numel, torch.is_tensor, Tensor.data_ptr,
}
_MOVES = {Tensor.to, Tensor.cuda, Tensor.cpu}
_INDEXING = {Tensor.__getitem__, Tensor.__setitem__}


# What is remembered of functions that ran before: the nodes of the first time, to be written down again with new values.

_recipes: dict = {}
_MOST_RECIPES = 4096
_NUMBERS = {int, float, bool, str, type(None)}


def remembered(tracer: _Tracer, func, args, kwargs):
    """The result of `func`, recorded: by its recipe if it was called on such arguments before, else by running it."""
    given = list(tensors_in((*args, *kwargs.values())))
    try:
        places = {id(tensor): i for i, tensor in enumerate(given)}
        key = (func, tuple([_key(item, places) for item in args]), _key(kwargs, places) if kwargs else None)
        recipe = _recipes.get(key)
    except TypeError:  # something without a hash
        key = recipe = None
    before = [tracer.value(tensor) for tensor in given]
    if recipe is not None:
        return recipe.repeated(tracer, given, before)
    live = tracer.live
    count = len(tracer.step.nodes) if tracer.step else 0
    peak, where, now = live.peak, live.peak_where, live.now
    live.peak = now
    try:
        with _Recorder(tracer):
            result = tracer.made(func(*args, **kwargs))  # Tensor.new_tensor runs past all watching
    finally:
        extra = live.peak - now
        if live.peak <= peak:
            live.peak, live.peak_where = peak, where
    untouched = all(tracer.value(tensor) is value for tensor, value in zip(given, before))
    if key is not None and untouched and not torch.is_inference_mode_enabled():
        if len(_recipes) >= _MOST_RECIPES:
            _recipes.clear()
        try:
            _recipes[key] = _Recipe(tracer.step.nodes[count:] if tracer.step else [], given, before, result, extra)
        except _Unrepeatable:
            pass
    return result


def _key(thing, places):
    kind = type(thing)
    if kind in _NUMBERS:  # a number's type too: True is 1
        return kind, thing
    if kind is Tensor or isinstance(thing, Tensor):
        return thing.shape, thing.stride(), thing.dtype, places[id(thing)]
    if kind is tuple or kind is list:
        return kind, tuple([_key(item, places) for item in thing])
    if kind is dict:
        return tuple([(name, _key(item, places)) for name, item in thing.items()])
    if kind is slice:
        return kind, _key((thing.start, thing.stop, thing.step), places)
    hash(thing)
    return kind, thing


class _Unrepeatable(Exception):
    """What shapes alone do not tell."""


class _Recipe:
    """The nodes of a call, the values that it was given, how its result is built, and the memory that it took on the way."""

    def __init__(self, nodes, given, before, result, extra):
        self.nodes = nodes
        self.before = before
        self.extra = extra
        known = set(before)
        for node in nodes:
            if any(value.role != "result" for value in node.inputs if value not in known) or not known.isdisjoint(node.outputs):
                raise _Unrepeatable
            known.update(node.inputs, node.outputs)
        if any(value.data is not None and value.numel > 4096 for value in known):  # a recipe holds its values
            raise _Unrepeatable
        self.build = _builder(result, given, before, known, set())

    def repeated(self, tracer, given, now):
        live = tracer.live
        if live.now + self.extra > live.peak:
            live.peak, live.peak_where = live.now + self.extra, live.where
        values = dict(zip(self.before, now))
        storages = {old.storage: new.storage for old, new in zip(reversed(self.before), reversed(now))}

        def renewed(value, parameters=()):
            new = values.get(value)
            if new is None:
                storage = storages.get(value.storage)
                if storage is None:
                    storage = storages[value.storage] = Storage(value.storage.nbytes)
                new = values[value] = Value(value.shape, value.dtype, storage, "result", parameters)
            return new

        for node in self.nodes:
            inputs = tuple([renewed(value) for value in node.inputs])
            parameters = made_of(inputs)
            outputs = tuple([renewed(value, parameters) for value in node.outputs])
            tracer.record(node.op, _with_new(node.args, values), inputs, outputs, node.is_view, node.names)
        return self.build(tracer, given, values)


def _with_new(thing, values):
    """Arguments with new values in place of old ones."""
    if type(thing) is Value:
        return values[thing]
    return tuple([_with_new(item, values) for item in thing]) if type(thing) is tuple else thing


def _builder(thing, given, before, known, built):
    """A function of the tracer, what is given then and the new values to this part of the result."""
    if isinstance(thing, Tensor):
        for i, tensor in enumerate(given):
            if tensor is thing:
                return lambda tracer, given, values: given[i]
        handle = getattr(thing, "_cnnlib_handle", None)
        if handle is None or handle.value not in known:
            raise _Unrepeatable
        value, shape, strides, offset, dtype = handle.value, thing.shape, thing.stride(), thing.storage_offset(), thing.dtype
        owner = next((i for i, one in enumerate(before) if one.storage is value.storage), None)
        if owner is None and (offset or value.storage in built):
            raise _Unrepeatable
        built.add(value.storage)
        if owner is not None:
            offset -= given[owner].storage_offset()

        def build(tracer, given, values):
            if owner is None:
                tensor = torch.empty_strided(shape, strides, dtype=dtype, device="meta")
            else:
                tensor = given[owner].as_strided(shape, strides, given[owner].storage_offset() + offset)
            tracer.attach(tensor, storage=None if owner is None else values[value].storage, value=values[value])
            return tensor

        return build
    if type(thing) in (tuple, list):
        kind, parts = type(thing), [_builder(item, given, before, known, built) for item in thing]
        return lambda *now: kind([part(*now) for part in parts])
    if isinstance(thing, (int, float, str, type(None), torch.Size, torch.dtype)):
        return lambda *now: thing
    raise _Unrepeatable
