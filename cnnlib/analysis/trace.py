"""One forward pass of any network, on shapes alone: what ran, in which module, on which values.

`trace(model, (3, 224, 224))` calls the model once on meta tensors, which have a shape and no memory, and writes down

- a `Call` for every module call, a `Step` for every torch function called in one, in the order in which they happened;
- a `Node` for every operation of the step, named as PyTorch names it (`convolution`, `native_batch_norm`, `add`), with
  its arguments;
- a `Value` for every tensor. An operation that writes in place makes a new value in the old storage. So the nodes and
  values form the graph of the computation, and the storages say what memory it needs.

Two paths write the same record. Common functions (convolution, batch norm, ReLU, ...) are answered from the formula for
their output shape, and common modules that call one of them and nothing else are not even entered: that is what makes a
trace fast. Every other function is run on meta tensors, and the operations that it turns out to consist of are
recorded one by one. `fast=False` sends everything down the general path.

The model is left as it was: parameters, buffers, attributes and the random state; nothing stays patched, whether the
trace succeeds or fails.
"""

import dataclasses
import gc
import math
import operator
import threading
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

InputSize = Sequence[int] | Tensor | Sequence["Sequence[int] | Tensor"]


class AnalysisError(ValueError):
    """What a network does cannot be followed; the message names the operation and the module."""


class Storage:
    """The memory behind one or more values; `steps` of its life are kept as long as a tensor needs it."""

    __slots__ = ("nbytes", "tensors", "handles")

    def __init__(self, nbytes: int):
        self.nbytes = nbytes
        self.tensors = 0  # alive now
        self.handles = []  # weak references to the handles of these tensors


class Value:
    """One tensor at one moment: shape (batch included), dtype, storage, and where it comes from.

    `role` is "input", "parameter", "buffer", "constant" (made by the model without its inputs) or "result".
    `parameters` names the parameters that the value is or was made of, for values that no input went into.
    """

    __slots__ = ("shape", "dtype", "storage", "role", "parameters", "numel", "nbytes")

    def __init__(self, shape, dtype, storage, role, parameters=()):
        self.shape = shape
        self.dtype = dtype
        self.storage = storage
        self.role = role
        self.parameters = parameters
        self.numel = math.prod(shape)
        self.nbytes = self.numel * dtype.itemsize

    def __repr__(self):
        return f"Value({tuple(self.shape)}, {self.role})"


class Node:
    """One operation: PyTorch's name for it, its arguments with values in place of tensors, and its results.

    `is_view` says that the results share the storage of the first input and that nothing was computed.
    """

    __slots__ = ("op", "args", "inputs", "outputs", "is_view")

    def __init__(self, op, args, inputs, outputs, is_view=False):
        self.op = op
        self.args = args
        self.inputs = inputs
        self.outputs = outputs
        self.is_view = is_view

    def __repr__(self):
        return f"Node({self.op}, {list(self.inputs)} -> {list(self.outputs)})"


class Step:
    """One call of a torch function directly inside the module call `call`; `kind` is the function's name."""

    __slots__ = ("kind", "call", "nodes")

    def __init__(self, kind, call):
        self.kind = kind
        self.call = call
        self.nodes = []


class Call:
    """One call of the module `name`; `has_children` once another module was called inside it."""

    __slots__ = ("name", "module", "parent", "has_children", "inputs", "outputs")

    def __init__(self, name, module, parent):
        self.name = name
        self.module = module
        self.parent = parent
        self.has_children = False
        self.inputs = ()
        self.outputs = ()

    @property
    def kind(self) -> str:
        return type(self.module).__name__


@dataclasses.dataclass
class Trace:
    """The record of one forward pass.

    `steps` holds calls and steps in the order in which they began; `inputs` and `outputs` are those of the model.
    `peak_bytes` is the largest sum of storages alive at once, inputs included, parameters and buffers left out.
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
) -> Trace:
    """Run `model` once on meta tensors and return the record.

    `input_size` is (C, H, W), or whatever shape one sample has, without the batch. Networks with several inputs take a
    sequence of such shapes. A tensor in place of a shape stands for itself, batch included; only its shape and
    dtype are used. `dtype` replaces the floating-point type of inputs, parameters and buffers alike.

    Raises `TypeError` for a model that is not an `nn.Module` and `ValueError` for sizes that are not positive. What the
    network does with its input and cannot be followed raises `AnalysisError`, a `ValueError`.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be an nn.Module, got {type(model).__name__}: {model!r:.80}")
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise ValueError(f"batch_size must be a positive integer, got {batch_size!r}")
    if dtype is None:
        floating = (p.dtype for p in model.parameters() if p.is_floating_point())
        input_dtype = next(floating, torch.get_default_dtype())
    elif dtype.is_floating_point:
        input_dtype = dtype
    else:
        raise ValueError(f"dtype must be a floating-point type such as torch.float32, got {dtype}")
    inputs = _meta_inputs(input_size, batch_size, input_dtype)
    if inputs and inputs[0].dim():
        batch_size = inputs[0].shape[0]
    modules = named_modules(model)
    tracer = _Tracer(modules, dtype, fast)
    with _lock, torch.no_grad(), no_collection(), unchanged(modules), tracer.watching(modules):
        for tensor in inputs:
            tracer.attach(tensor, role="input")
        values = [tensor._cnnlib_handle.value for tensor in inputs]
        with tracer:
            result = model(*inputs)
        outputs = [tracer.value(tensor) for tensor in tensors_in(result)]
        del result
    return Trace(
        model, tracer.steps, values, outputs, batch_size, input_dtype, tracer.parameters, tracer.peak_bytes,
        tracer.peak_module
    )


def outputs_of(model: nn.Module, layers: Iterable[str], images: Tensor) -> dict[str, Tensor]:
    """What the modules of these dotted names give out in one forward pass; of several tensors the first, of several calls the last.

    Raises `AttributeError` for a name that the model does not have, and `AnalysisError` for a module that is not called.
    """
    caught, layers = {}, list(layers)
    hooks = [model.get_submodule(layer).register_forward_hook(
        lambda module, args, output, layer=layer: caught.__setitem__(layer, next(tensors_in(output)))) for layer in layers]
    try:
        model(images)
    finally:
        for hook in hooks:
            hook.remove()
    if missing := [layer for layer in layers if layer not in caught]:
        raise AnalysisError(f"module {missing[0]!r} is not called in a forward pass")
    return caught


def tensors_in(thing) -> Iterator[Tensor]:
    """The tensors in nested lists, tuples, mappings and data classes, in order."""
    if isinstance(thing, Tensor):
        yield thing
    elif isinstance(thing, (list, tuple)):
        for item in thing:
            yield from tensors_in(item)
    elif isinstance(thing, Mapping):
        for item in thing.values():
            yield from tensors_in(item)
    elif dataclasses.is_dataclass(thing) and not isinstance(thing, type):
        for field in dataclasses.fields(thing):
            yield from tensors_in(getattr(thing, field.name))


def _meta_inputs(input_size, batch_size, dtype) -> list[Tensor]:
    """Meta tensors for one shape, one tensor, or a sequence of shapes and tensors."""
    if isinstance(input_size, Tensor):
        sizes = [input_size]
    elif isinstance(input_size, Iterable) and not isinstance(input_size, (str, bytes, Mapping)):
        sizes = list(input_size)
        if all(isinstance(item, (int, float)) for item in sizes):
            sizes = [tuple(sizes)]
    else:
        raise ValueError(
            f"input size must be a shape such as (3, 224, 224) or a sequence of shapes, got {input_size!r}")
    inputs = []
    for size in sizes:
        if isinstance(size, Tensor):
            inputs.append(torch.empty_like(size, device="meta"))
            continue
        lengths = tuple(size) if isinstance(size, Iterable) and not isinstance(size, (str, bytes)) else (size,)
        if not lengths or not all(type(length) is int and length > 0 for length in lengths):
            raise ValueError(f"input size must hold positive integers, such as (3, 224, 224); got {size!r}")
        inputs.append(torch.empty((batch_size, *lengths), dtype=dtype, device="meta"))
    return inputs


def named_modules(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """What `model.named_modules()` yields, each module once, in one quick walk."""
    found = {}
    left = [("", model)]
    while left:
        name, module = left.pop()
        if id(module) not in found:
            found[id(module)] = (name, module)
            for key in reversed(module._modules):
                child = module._modules[key]
                if child is not None:
                    left.append((f"{name}.{key}" if name else key, child))
    return list(found.values())


# A trace changes what the modules' attribute `forward` is while it runs; one runs at a time.
_lock = threading.RLock()


@contextmanager
def unchanged(modules: list[tuple[str, nn.Module]]):
    """Give the modules back the attributes and buffers, and the process the random state, that they had before."""
    before = []
    for _, module in modules:
        attributes = module.__dict__
        before.append((attributes, attributes.copy()))
        for name, item in attributes.items():
            if (type(item) is dict or type(item) is list) and name not in _HOOKS:
                before.append((item, item.copy()))
    random_state = torch.get_rng_state()
    try:
        yield
    finally:
        torch.set_rng_state(random_state)
        for now, then in before:
            if type(now) is list:
                now[:] = then
            elif len(now) != len(then) or not all(map(operator.is_, now.values(), then.values())):
                now.clear()
                now.update(then)


_HOOKS = set(nn.Module().__dict__) - {"_parameters", "_buffers", "_modules"}


@contextmanager
def no_collection():
    """Hold the garbage collector: a trace makes many small objects, all of them kept, and each search costs more
    than it."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


class _Handle:
    """What a live tensor carries: its present value, and where it lies in its storage as (offset, strides).

    None stands for the whole storage in the usual order. The end of a handle is the end of the tensor.
    """

    __slots__ = ("value", "tracer", "place", "__weakref__")

    def __init__(self, value, tracer, place=None):
        self.value = value
        self.tracer = tracer
        self.place = place

    def __del__(self):
        storage = self.value.storage
        storage.tensors -= 1
        if not storage.tensors:
            self.tracer.live_bytes -= storage.nbytes


class _Tracer(TorchFunctionMode):
    """Sees every torch function that the model calls and writes down what it does."""

    def __init__(self, modules, dtype, fast):
        super().__init__()
        self.dtype = dtype
        self.rules = RULES if fast else {}
        self.shortcuts = SHORTCUTS if fast else {}
        self.parameters = {}  # id -> (name, parameter), those that are shared by their first name
        self.buffers = {}
        for name, module in modules:
            prefix = name + "." if name else ""
            for known, own in ((self.parameters, module._parameters), (self.buffers, module._buffers)):
                for key, tensor in own.items():
                    if tensor is not None:
                        known.setdefault(id(tensor), (prefix + key, tensor))
        self.state_values = {}  # id of a parameter, buffer or real constant -> (tensor, value)
        self.shadows = {}  # the same -> (tensor, meta tensor that stands for it)
        self.steps = []
        self.call = None
        self.step = None
        self.function = ""
        self.live_bytes = self.peak_bytes = 0
        self.peak_module = ""

    # Module calls

    @contextmanager
    def watching(self, modules):
        """Record calls of these modules, in this thread, while the context lasts.

        Each gets an attribute `forward` in front of that of its class, so that its own hooks run as ever.
        """
        own = [(module, module.__dict__.get("forward")) for _, module in modules]
        thread = threading.get_ident()
        try:
            for name, module in modules:
                module.__dict__["forward"] = self.watched(name, module, thread)
            yield
        except AnalysisError:
            raise
        except Exception as error:
            raise self.error(f"its forward raised {type(error).__name__}: {_first_lines(error)}") from error
        finally:
            self.shadows.clear()
            for module, forward in own:
                if forward is None:
                    module.__dict__.pop("forward", None)
                else:
                    module.__dict__["forward"] = forward

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
            call.inputs = self.values_of(args) or self.values_of(kwargs)
            result = NotImplemented
            if shortcut is not None and len(args) == 1 and not kwargs and type(args[0]) is Tensor:
                with torch._C.DisableTorchFunction():
                    function_call = shortcut(module, args[0])
                    if function_call is not None:
                        result = self.answer(*function_call)
            if result is NotImplemented:
                self.step = None
                result = forward(*args, **kwargs)
            call.outputs = self.values_of(result)
            self.call = parent
            self.step = None
            return result

        return call_of

    def answer(self, func, *args, **kwargs):
        """The result of `func` by its closed form, or NotImplemented."""
        self.function = getattr(func, "__name__", str(func)).strip("_")
        return self.rules[func](self, *args, **kwargs)

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
        handle = getattr(tensor, "_cnnlib_handle", None)
        if handle is not None and handle.tracer is self:
            return handle.value
        key = id(tensor)
        known = self.state_values.get(key)
        if known is not None:
            return known[1]
        dtype = tensor.dtype
        if self.dtype is not None and dtype.is_floating_point:
            dtype = self.dtype
        role, names = "constant", ()
        if key in self.parameters:
            role, names = "parameter", (self.parameters[key][0],)
        elif key in self.buffers:
            role = "buffer"
        value = Value(tuple(tensor.shape), dtype, None, role, names)
        storage = value.storage = Storage(value.nbytes)
        storage.tensors = 1  # the model holds it: never counted, never freed
        self.state_values[key] = (tensor, value)
        return value

    def attach(self, tensor: Tensor, role="result", storage=None, parameters=()) -> Value:
        """Let a new tensor carry a new value, in new memory unless a storage is given."""
        value = Value(tuple(tensor.shape), tensor.dtype, storage, role, parameters)
        if storage is None:
            storage = value.storage = Storage(value.nbytes)
            self.live_bytes += storage.nbytes
            if self.live_bytes > self.peak_bytes:
                self.peak_bytes = self.live_bytes
                self.peak_module = self.call.name if self.call is not None else ""
            place = None if tensor.is_contiguous() else (0, tensor.stride())
        else:
            place = tensor.storage_offset(), tensor.stride()
        handle = tensor._cnnlib_handle = _Handle(value, self, place)
        storage.tensors += 1
        storage.handles.append(weakref.ref(handle))
        return value

    def shadow(self, tensor: Tensor) -> Tensor:
        """The meta tensor that stands for a parameter, a buffer or a real constant."""
        known = self.shadows.get(id(tensor))
        if known is not None:
            return known[1]
        value = self.value(tensor)
        dtype = value.dtype
        strides = tensor.stride() if tensor.layout is torch.strided else None
        if strides is None:
            raise self.error(f"tensors with layout {tensor.layout} cannot be followed; use a strided (dense) tensor")
        meta = torch.empty_strided(tensor.shape, strides, dtype=dtype, device="meta")
        handle = meta._cnnlib_handle = _Handle(value, self, (0, strides))
        value.storage.tensors += 1
        value.storage.handles.append(weakref.ref(handle))
        self.shadows[id(tensor)] = (tensor, meta)
        return meta

    def on_meta(self, thing):
        """`thing` with every tensor in it replaced by a meta tensor that carries its value."""
        if isinstance(thing, Tensor):
            if getattr(thing, "_cnnlib_handle", None) is not None:
                return thing
            return self.shadow(thing)
        if type(thing) in (list, tuple):
            return type(thing)(map(self.on_meta, thing))
        if type(thing) is dict:
            return {key: self.on_meta(item) for key, item in thing.items()}
        return thing

    # Operations

    def record(self, op, args, inputs, outputs, is_view=False) -> Node:
        if self.step is None:
            self.step = Step(self.function, self.call)
            self.steps.append(self.step)
        node = Node(op, args, inputs, outputs, is_view)
        self.step.nodes.append(node)
        return node

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in _QUERIES:
            return self.query(func, args, kwargs)
        self.step = None
        if func in self.rules:
            result = self.answer(func, *args, **kwargs)
            if result is not NotImplemented:
                return result
            self.step = None
        return self.general(func, args, kwargs)

    def query(self, func, args, kwargs):
        if func in _DTYPE_QUERIES and self.dtype is not None:
            args = (self.on_meta(args[0]), *args[1:])
        return func(*args, **kwargs)

    def general(self, func, args, kwargs):
        """Run `func` on meta tensors and record the operations that it consists of."""
        tensors = list(tensors_in((args, kwargs)))
        name = getattr(func, "__name__", str(func))
        if name == "__get__":  # a property of tensors, such as Tensor.T
            name = getattr(getattr(func, "__self__", None), "__name__", name)
        follow = any(tensor.is_meta or id(tensor) in self.parameters for tensor in tensors)
        writes = name.endswith("_") and not name.endswith("__") or name in ("__setitem__", "__set__") or (
            name.startswith("__i") and name.endswith("__"))
        if not follow and not (writes and any(id(tensor) in self.buffers for tensor in tensors)):
            return func(*args, **kwargs)
        self.function = name.strip("_")
        if func in _MOVES:
            args, kwargs = _without_device(args, kwargs)
            if func is not Tensor.to:
                return args[0]
        elif kwargs.get("device") is not None:
            kwargs = kwargs | {"device": "meta"}
        args, kwargs = self.on_meta(args), self.on_meta(kwargs)
        try:
            with _Recorder(self):
                return func(*args, **kwargs)
        except AnalysisError:
            raise
        except Exception as error:
            shapes = ", ".join(str(tuple(tensor.shape)) for tensor in tensors[:4])
            raise self.error(_explain(name, shapes, error)) from error


class _Recorder(TorchDispatchMode):
    """Records the operations below a torch function, as PyTorch dispatches them."""

    def __init__(self, tracer):
        super().__init__()
        self.tracer = tracer

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if torch.is_inference_mode_enabled():  # composite operations arrive whole there
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        result = func(*args, **kwargs)
        op, aliases = _schema(func)
        tracer = self.tracer
        names = [argument.name for argument in func._schema.arguments[len(args):]]
        args = args + tuple(kwargs.get(name) for name in names)
        inputs = tracer.values_of(args)
        args = _with_values(args, tracer)
        results = list(tensors_in(result))
        if not inputs and not results:
            return result
        parameters = ()
        if inputs and all(value.parameters or value.role in ("buffer", "constant") for value in inputs):
            parameters = tuple(dict.fromkeys(name for value in inputs for name in value.parameters))
        outputs = []
        node = None
        if inputs and op not in _ALLOCATIONS:
            node = tracer.record(op, args, inputs, (), is_view=aliases[0] == "view")
        if op in _WITH_STATISTICS:
            del results[1:]
        for i, tensor in enumerate(results):
            alias = aliases[min(i, len(aliases) - 1)]
            if alias == "write":
                outputs.append(overwrite(tensor, tracer))
            elif alias == "view":
                outputs.append(tracer.attach(tensor, storage=inputs[0].storage, parameters=parameters))
            else:
                outputs.append(tracer.attach(tensor, parameters=parameters))
        if node is not None:
            node.outputs = tuple(outputs)
        return result


def overwrite(tensor: Tensor, tracer: _Tracer) -> Value:
    """A new value in the storage of `tensor`, which was written in place; what shares its memory changes with it."""
    handle = getattr(tensor, "_cnnlib_handle", None)
    if handle is None:
        return tracer.attach(tensor)
    old = handle.value
    handle.value = Value(tuple(tensor.shape), old.dtype, old.storage, "result", ())
    if old.storage.tensors > 1:
        for reference in old.storage.handles:
            other = reference()
            if other is not None and other is not handle:
                before = other.value
                other.value = Value(before.shape, before.dtype, before.storage, "result", ())
                args = (before, handle.value, _shared_indices(other, handle))
                tracer.record("written_through", args, (before, handle.value), (other.value,), True)
    return handle.value


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


# Beside their output these return a mean and a deviation for each channel or position: too small to count.
_WITH_STATISTICS = {"native_batch_norm", "native_layer_norm", "native_group_norm"}
_ALLOCATIONS = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"}
_schemas = {}


def _schema(func) -> tuple[str, tuple[str, ...]]:
    """The operation's name and, for each result, whether it is "new", a "view", or a "write" into an argument."""
    known = _schemas.get(func)
    if known is None:
        op = func.overloadpacket.__name__
        aliases = []
        for returned in func._schema.returns:
            alias = returned.alias_info
            aliases.append("new" if alias is None else "write" if alias.is_write else "view")
        if op == "_unsafe_view":
            aliases = ["view"]
        known = _schemas[func] = (op, tuple(aliases) or ("new",))
    return known


def _with_values(thing, tracer):
    if isinstance(thing, Tensor):
        return tracer.value(thing)
    if isinstance(thing, (list, tuple)):
        return tuple(_with_values(item, tracer) for item in thing)
    return thing


def _first_lines(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


_DATA_DEPENDENT = ("meta tensor", "data-dependent", "DynamicOutputShape", "_local_scalar_dense", "aten::nonzero",
                   "aten::item", "aten::equal")


def _explain(name: str, shapes: str, error: Exception) -> str:
    text = _first_lines(error)
    if any(sign in type(error).__name__ + text for sign in _DATA_DEPENDENT):
        return (f"{name} needs the values of a tensor, and an analysis has shapes alone ({text}). Let the control flow "
                "depend on shapes, or analyse the part of the network before and after this module by itself.")
    return f"{name} on tensors of shape {shapes} failed: {text}"


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


# Closed forms. Each rule takes the arguments of a torch function and returns its result, having recorded the operation,
# or NotImplemented for a case that it leaves to the general path, faulty arguments included.


def _pair(value, n):
    return (value,) * n if isinstance(value, int) else tuple(value) * (n if len(value) == 1 else 1)


def _is_plain(tensor) -> bool:
    """A meta tensor in the usual memory order."""
    return type(tensor) is Tensor and tensor.is_meta and tensor.is_contiguous()


_META = torch.device("meta")


def _emit(tracer, op, args, inputs, shape, dtype):
    out = torch.empty(shape, dtype=dtype, device=_META)
    tracer.record(op, args, inputs, (tracer.attach(out),))
    return out


def _emit_like(tracer, op, args, inputs, x):
    """A result in the shape and memory order of the tensor `x`."""
    if x.is_contiguous():
        out = torch.empty(x.shape, dtype=x.dtype, device=_META)
    else:
        out = torch.empty_like(x)
    tracer.record(op, args, inputs, (tracer.attach(out),))
    return out


def _convolution(n):
    def rule(tracer, input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
        if not _is_plain(input) or input.dim() != n + 2 or isinstance(padding, str):
            return NotImplemented
        x, w = tracer.value(input), tracer.value(weight)
        stride, padding, dilation = _pair(stride, n), _pair(padding, n), _pair(dilation, n)
        if x.dtype != w.dtype or x.shape[1] != w.shape[1] * groups or len(w.shape) != n + 2:
            return NotImplemented
        out = [(length + 2 * p - d * (k - 1) - 1) // s + 1
               for length, k, s, p, d in zip(x.shape[2:], w.shape[2:], stride, padding, dilation)]
        if min(out) < 1:
            return NotImplemented
        b = None if bias is None else tracer.value(bias)
        args = (x, w, b, stride, padding, dilation, False, (0,) * n, groups)
        inputs = (x, w) if b is None else (x, w, b)
        return _emit(tracer, "convolution", args, inputs, (x.shape[0], w.shape[0], *out), x.dtype)

    return rule


def _linear(tracer, input, weight, bias=None):
    if not _is_plain(input) or input.dim() < 2:
        return NotImplemented
    x, w = tracer.value(input), tracer.value(weight)
    if x.dtype != w.dtype or len(w.shape) != 2 or x.shape[-1] != w.shape[1]:
        return NotImplemented
    b = None if bias is None else tracer.value(bias)
    inputs = (x, w) if b is None else (x, w, b)
    return _emit(tracer, "linear", (x, w, b), inputs, (*x.shape[:-1], w.shape[0]), x.dtype)


def _batch_norm(tracer, input, running_mean, running_var, weight=None, bias=None, training=False, momentum=0.1,
                eps=1e-5):
    if not _is_plain(input) or input.dim() < 2:
        return NotImplemented
    x = tracer.value(input)
    channels = x.shape[1]
    state = [None if t is None else tracer.value(t) for t in (weight, bias, running_mean, running_var)]
    present = [value for value in state if value is not None]
    if training and x.numel == channels:
        return NotImplemented
    for value in present:
        if value.shape != (channels,):
            return NotImplemented
    args = (x, *state, training, momentum, eps)
    return _emit(tracer, "native_batch_norm", args, (x, *present), x.shape, x.dtype)


def _layer_norm(tracer, input, normalized_shape, weight=None, bias=None, eps=1e-5):
    if not _is_plain(input):
        return NotImplemented
    x = tracer.value(input)
    normalized_shape = tuple(normalized_shape)
    if x.shape[-len(normalized_shape):] != normalized_shape:
        return NotImplemented
    state = tuple(None if t is None else tracer.value(t) for t in (weight, bias))
    present = tuple(value for value in state if value is not None)
    args = (x, normalized_shape, *state, eps)
    return _emit(tracer, "native_layer_norm", args, (x, *present), x.shape, x.dtype)


def _unary(op):
    def rule(tracer, input, inplace=False):
        if not type(input) is Tensor or not input.is_meta or type(inplace) is not bool:
            return NotImplemented
        x = tracer.value(input)
        if inplace:
            node = tracer.record(op + "_", (x,), (x,), ())
            node.outputs = (overwrite(input, tracer),)
            return input
        return _emit_like(tracer, op, (x,), (x,), input)

    return rule


def _gelu(tracer, input, approximate="none"):
    return _unary("gelu")(tracer, input)


def _binary(op, inplace=False):
    def rule(tracer, input, other):
        if inplace and id(input) in tracer.buffers:  # such as the number of batches that a batch norm has seen
            input = tracer.shadow(input)
        if type(input) is not Tensor or not input.is_meta:
            return NotImplemented
        x = tracer.value(input)
        like = input
        if type(other) is Tensor or isinstance(other, nn.Parameter):
            y = tracer.value(other)
            inputs = (x, y)
            if x.dtype != y.dtype:
                return NotImplemented
            if x.shape != y.shape:
                if not inplace and type(other) is Tensor and other.is_meta and _broadcasts(y.shape, x.shape):
                    like = other  # such as a gate times a map
                if inplace or not _broadcasts(like.shape, x.shape) or not _broadcasts(like.shape, y.shape):
                    return NotImplemented
        elif x.dtype.is_floating_point and isinstance(other, (int, float)) or (
                x.dtype is torch.int64 and type(other) is int):
            y, inputs = other, (x,)
        else:
            return NotImplemented
        if inplace:
            node = tracer.record(op, (x, y), inputs, ())
            node.outputs = (overwrite(input, tracer),)
            return input
        return _emit_like(tracer, op, (x, y), inputs, like)

    return rule


def _broadcasts(shape, other) -> bool:
    """Whether `other` spreads to `shape` without changing it."""
    return len(other) <= len(shape) and all(b in (1, a) for a, b in zip(shape[::-1], other[::-1]))


def _cat(tracer, tensors, dim=0):
    if type(tensors) not in (list, tuple) or not all(map(_is_plain, tensors)):
        return NotImplemented
    values = tuple(map(tracer.value, tensors))
    first = values[0]
    rank = len(first.shape)
    if not isinstance(dim, int) or not -rank <= dim < rank:
        return NotImplemented
    dim %= rank
    shape = list(first.shape)
    for value in values[1:]:
        if len(value.shape) != rank or value.dtype != first.dtype:
            return NotImplemented
        if any(a != b for i, (a, b) in enumerate(zip(value.shape, first.shape)) if i != dim):
            return NotImplemented
        shape[dim] += value.shape[dim]
    return _emit(tracer, "cat", (values, dim), values, shape, first.dtype)


def pooled_length(length: int, kernel: int, stride: int, padding: int, dilation: int, ceil_mode: bool) -> int:
    """Output length of a pooling window; a last window that starts past the padded input's left part is dropped."""
    rest = length + 2 * padding - dilation * (kernel - 1) - 1
    out = (rest + (stride - 1 if ceil_mode else 0)) // stride + 1
    return out - 1 if ceil_mode and (out - 1) * stride >= length + padding else out


def _max_pool(n, op):
    def rule(tracer, input, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, return_indices=False):
        if not _is_plain(input) or input.dim() != n + 2 or return_indices:
            return NotImplemented
        x = tracer.value(input)
        kernel = _pair(kernel_size, n)
        stride, padding, dilation = _pair(stride or kernel, n), _pair(padding, n), _pair(dilation, n)
        out = [pooled_length(*sizes, ceil_mode) for sizes in zip(x.shape[2:], kernel, stride, padding, dilation)]
        if min(out) < 1 or any(2 * p > k for p, k in zip(padding, kernel)):
            return NotImplemented
        shape = (*x.shape[:2], *out)
        result = torch.empty(shape, dtype=x.dtype, device=_META)
        indices = torch.empty(shape, dtype=torch.int64, device=_META)
        outputs = (tracer.attach(result), tracer.attach(indices))
        tracer.record(op, (x, kernel, stride, padding, dilation, ceil_mode), (x,), outputs)
        return result

    return rule


def _avg_pool2d(tracer, input, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True,
                divisor_override=None):
    if not _is_plain(input) or input.dim() != 4:
        return NotImplemented
    x = tracer.value(input)
    kernel = _pair(kernel_size, 2)
    stride, padding = _pair(stride or kernel, 2), _pair(padding, 2)
    out = [pooled_length(*sizes, 1, ceil_mode) for sizes in zip(x.shape[2:], kernel, stride, padding)]
    if min(out) < 1 or any(2 * p > k for p, k in zip(padding, kernel)):
        return NotImplemented
    args = (x, kernel, stride, padding, ceil_mode, count_include_pad, divisor_override)
    return _emit(tracer, "avg_pool2d", args, (x,), (*x.shape[:2], *out), x.dtype)


def _adaptive_avg_pool2d(tracer, input, output_size):
    if not _is_plain(input) or input.dim() != 4:
        return NotImplemented
    size = _pair(output_size, 2)
    if any(not isinstance(length, int) or length < 1 for length in size):
        return NotImplemented
    x = tracer.value(input)
    if size == (1, 1):
        return _emit(tracer, "mean", (x, (-1, -2), True), (x,), (*x.shape[:2], 1, 1), x.dtype)
    return _emit(tracer, "_adaptive_avg_pool2d", (x, size), (x,), (*x.shape[:2], *size), x.dtype)


def _dropout(tracer, input, p=0.5, training=True, inplace=False):
    return NotImplemented if training and p else input


_unary_relu, _unary_relu_in_place = _unary("relu"), lambda tracer, input: _unary("relu")(tracer, input, True)
RULES = {
    F.conv1d: _convolution(1), F.conv2d: _convolution(2), F.conv3d: _convolution(3),
    F.linear: _linear, F.batch_norm: _batch_norm, F.layer_norm: _layer_norm,
    F.relu: _unary_relu, torch.relu: _unary_relu, Tensor.relu: _unary_relu,
    torch.relu_: _unary_relu_in_place, Tensor.relu_: _unary_relu_in_place,
    F.relu6: _unary("hardtanh"), F.hardswish: _unary("hardswish"), F.hardsigmoid: _unary("hardsigmoid"),
    F.silu: _unary("silu"), F.gelu: _gelu,
    F.sigmoid: _unary("sigmoid"), torch.sigmoid: _unary("sigmoid"), Tensor.sigmoid: _unary("sigmoid"),
    torch.tanh: _unary("tanh"), Tensor.tanh: _unary("tanh"),
    F.max_pool2d: _max_pool(2, "max_pool2d_with_indices"),
    F.max_pool3d: _max_pool(3, "max_pool3d_with_indices"),
    F.avg_pool2d: _avg_pool2d, F.adaptive_avg_pool2d: _adaptive_avg_pool2d, F.dropout: _dropout,
    torch.cat: _cat,
    Tensor.add: _binary("add"), Tensor.__add__: _binary("add"), torch.add: _binary("add"),
    Tensor.mul: _binary("mul"), Tensor.__mul__: _binary("mul"), torch.mul: _binary("mul"),
    Tensor.add_: _binary("add_", True), Tensor.__iadd__: _binary("add_", True),
    Tensor.mul_: _binary("mul_", True), Tensor.__imul__: _binary("mul_", True),
}


# Modules whose forward is one call of a function with a closed form: from module and input to that call, function
# first, or to None where the module has to be entered.


def _conv_call(function):
    def call(module, x):
        weight = module._parameters.get("weight")  # None where weight normalization computes it
        if module.padding_mode == "zeros" and weight is not None:
            return (function, x, weight, module._parameters["bias"], module.stride, module.padding, module.dilation,
                    module.groups)

    return call


def _batch_norm_call(module, x):
    if not module.training and module.track_running_stats and x.dim() == 4:
        state, own = module._buffers, module._parameters
        return F.batch_norm, x, state["running_mean"], state["running_var"], own["weight"], own["bias"]


SHORTCUTS = {
    nn.Conv1d: _conv_call(F.conv1d), nn.Conv2d: _conv_call(F.conv2d), nn.Conv3d: _conv_call(F.conv3d),
    nn.BatchNorm2d: _batch_norm_call,
    nn.Linear: lambda module, x: (F.linear, x, module.weight, module.bias),
    nn.ReLU: lambda module, x: (F.relu, x, module.inplace),
    nn.ReLU6: lambda module, x: (F.relu6, x, module.inplace),
    nn.Hardswish: lambda module, x: (F.hardswish, x, module.inplace),
    nn.Hardsigmoid: lambda module, x: (F.hardsigmoid, x, module.inplace),
    nn.SiLU: lambda module, x: (F.silu, x, module.inplace),
}
