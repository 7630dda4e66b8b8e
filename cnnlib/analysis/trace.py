"""One forward pass of any network, on shapes alone: what ran, in which module, on which values.

`trace(model, (3, 224, 224))` calls the model once on meta tensors, which have a shape and no memory, and writes down
what `record.py` says. Three paths write the same record. The most common functions are answered from the formula for
their output shape (`closed.py`), and modules that call one of them and nothing else are not even entered. Every other
function is run on meta tensors, and the operations that it consists of are recorded; when it is called again on the
same shapes, they are written down from memory (`recipes.py`). The model is left as it was, and nothing stays patched,
whether the trace succeeds or fails.
"""

import threading
import weakref
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn.modules.lazy import LazyModuleMixin
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from . import closed, ops
from .inputs import InputSize, batch_hint, check_dtype, meta_inputs, own_dtype
from .recipes import remembered
from .record import Call, Missing, Node, Step, Trace, Value, made_of
from .watch import AnalysisError, LiveBytes, eager, failure, mapped, no_collection, tensors_in, unchanged


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

    `input_size` is as in `meta_inputs`. `dtype` replaces the floating-point type of inputs, parameters and buffers.
    With `fast=False` everything is run; with `strict=False` a pass that cannot be followed to its end is recorded up to
    there.

    Raises `TypeError` for a model that is not an `nn.Module` and `ValueError` for sizes that are not positive. What the
    network does with its input and cannot be followed raises `AnalysisError`, a `ValueError`.
    """
    modules = modules_of(model)
    model = modules[0][1]
    input_dtype = check_dtype(dtype) or own_dtype(model)
    args, kwargs, batch = meta_inputs(input_size, batch_size, input_dtype)
    inputs = list(tensors_in((args, kwargs)))
    missing, outputs = [], []
    _warm_up()
    with lock, eager(), torch.no_grad(), no_collection(), unchanged(modules) as held:
        tracer = _Tracer(modules, held, dtype, fast)
        values = [tracer.attach(tensor, Value(tuple(tensor.shape), tensor.dtype, None, "input")) for tensor in inputs]
        try:
            for name, module in modules:  # in front of the `forward` of its class, so that its own hooks run as ever
                module.__dict__["forward"] = tracer.watched(name, module)
            with tracer:
                result = model(*args, **kwargs)
            outputs = [tracer.value(tensor) for tensor in tensors_in(result)]
            del result
        except Exception as error:
            failure = tracer.error(error, "its forward", f" raised {type(error).__name__}: ")
            if strict:
                raise AnalysisError(f"{failure}{batch_hint(inputs)}") from error
            missing.append(Missing(tracer.call.name if tracer.call else "", "", str(failure)))
        finally:
            tracer.state.clear()
    return Trace(model, tracer.steps, values, outputs, batch, input_dtype, tracer.parameters, tracer.live.peak,
                 tracer.live.peak_where, missing)


def modules_of(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """The names and modules of a network, itself first, taken out of what `torch.compile` wraps around it.

    Raises `TypeError` for what is no network and `AnalysisError` for compiled programs, which hide their operations."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be an nn.Module, got {type(model).__name__}: {model!r:.80}")
    if type(model).__name__ == "OptimizedModule":
        model = model._orig_mod
    modules = list(model.named_modules())
    for name, module in modules:
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


_peek = torch._C._functorch.peek_interpreter_stack  # not None inside of vmap and other transforms
_is_wrapped = torch._C._functorch.is_functorch_wrapped_tensor
_unwrapped = torch._C._functorch.get_unwrapped


def _is_ordinary() -> bool:
    """Whether neither a transform nor autograd, switched on by the model, looks at what is computed: then results may be made up."""
    return _peek() is None and not torch.is_grad_enabled()


class _Tracer(TorchFunctionMode):
    """Sees every torch function that the model calls and writes down what it does."""

    def __init__(self, modules, held, dtype, fast):
        super().__init__()
        self.dtype = dtype
        self.fast = fast
        self.rules = closed.RULES if fast else {}
        self.shortcuts = closed.SHORTCUTS if fast else {}
        self.thread = threading.get_ident()
        self.parameters = {}  # id -> (name, parameter), those that are shared by their first name
        self.buffers = set()  # ids
        for name, module in modules:
            for key, tensor in module._parameters.items():
                if tensor is not None:
                    self.parameters.setdefault(id(tensor), (f"{name}.{key}" if name else key, tensor))
            self.buffers.update(map(id, module._buffers.values()))
        self.held = {id(tensor): tensor for tensor in held}  # in attributes
        self.state = {}  # id of a parameter, buffer or constant -> itself, its value, a meta tensor that stands for it
        self.storages = {}  # address of a live meta storage -> the record's
        self.steps = []
        self.call = None
        self.step = None
        self.function = ""
        self.live = LiveBytes()

    # Module calls

    def watched(self, name, module):
        """A function that takes the place of `module.forward` and records the call, if this thread makes it."""
        forward = module.forward
        shortcut = self.shortcuts.get(type(module)) if "forward" not in module.__dict__ else None

        def call_of(*args, **kwargs):
            if threading.get_ident() != self.thread:
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
            if shortcut is not None and len(args) == 1 and not kwargs and type(args[0]) is Tensor and _is_ordinary():
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

    def error(self, error: Exception | str, what: str = "", failed: str = "") -> AnalysisError:
        """What went wrong (in `what`, which `failed`), as an `AnalysisError` that names the module."""
        return failure((self.call.name, self.call.kind) if self.call else None, error, what, failed)

    # Values

    def values_of(self, thing) -> tuple[Value, ...]:
        if type(thing) is tuple and len(thing) == 1:
            thing = thing[0]
        if type(thing) is Tensor:
            return (self.value(thing),)
        return tuple(map(self.value, tensors_in(thing)))

    def values(self, *tensors: Tensor | None) -> list[Value | None]:
        return [None if tensor is None else self.value(tensor) for tensor in tensors]

    def value(self, tensor: Tensor) -> Value:
        """The value that `tensor` holds now; a tensor not seen before is a parameter, a buffer or a constant."""
        key = id(tensor)
        known = self.state.get(key)
        if known is not None:
            return known[1]
        tracer, value = getattr(tensor, "_cnnlib", (None, None))
        if tracer is self:
            return value
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
        elif isinstance(tensor, nn.Parameter) and key not in self.held:
            raise self.error(f"a parameter of shape {tuple(tensor.shape)} is made in the forward pass, where no module has it yet; make it in "
                             "the constructor, or run the network once before")
        elif tensor.is_meta and key not in self.held:
            found = self.found(tensor) if tensor.layout is torch.strided else None
            if found is not None:
                return found
            raise self.error(f"a tensor of shape {tuple(tensor.shape)} comes out of operations that cannot be watched, such as a TorchScript "
                             "function or another thread; call the Python function that it was made from, in the thread of the network")
        data = tensor if not tensor.is_meta and not dtype.is_floating_point and tensor.numel() <= 1 << 20 else None
        value = Value(tuple(tensor.shape), dtype, None, role, names, data)
        self.state[key] = [tensor, value, None]
        return value

    def found(self, tensor: Tensor) -> Value | None:
        """The value of a tensor that came out of a transform such as vmap, past all watching: a permuted view of one that is known."""
        storage = self.storages.get(tensor.untyped_storage()._cdata)
        theirs = list(zip(tensor.shape, tensor.stride()))
        for known in reversed(storage.alive()) if storage is not None else ():
            ours = list(zip(known.shape, known.stride()))
            if known.storage_offset() == tensor.storage_offset() and sorted(ours) == sorted(theirs):
                value, order = self.value(known), []
                for pair in theirs:
                    order.append(next(i for i, other in enumerate(ours) if other == pair and i not in order))
                if ours == theirs:
                    return self.attach(tensor, value)
                node = self.record("permute", (value, tuple(order)), is_view=True)
                new = Value(tuple(tensor.shape), tensor.dtype, storage, "result", value.parameters)
                node.outputs = (self.attach(tensor, new),)
                return new
        return None

    def attach(self, tensor: Tensor, value: Value) -> Value:
        """Let a meta tensor carry a value."""
        storage = value.storage
        self.storages[self.live.add(tensor)] = storage
        tensor._cnnlib = self, value
        if not storage.tensors:
            storage.first = value.shape, tensor.stride()
        storage.tensors.append(weakref.ref(tensor))
        return value

    def overwrite(self, tensor: Tensor, parameters: tuple[str, ...]) -> Value:
        """A new value in the storage of `tensor`, which was written in place; what shares it changes as well."""
        old = self.value(tensor)
        storage = old.storage
        new = Value(tuple(tensor.shape), old.dtype, storage, "result", parameters)
        tensor._cnnlib = self, new
        for other in storage.alive() if len(storage.tensors) > 1 else ():
            if other is not tensor:
                before = self.value(other)
                now = Value(before.shape, before.dtype, storage, "result")
                other._cnnlib = self, now
                whole = (before.numel, other.storage_offset()) == (old.numel, tensor.storage_offset()) and (
                    other.is_contiguous() and tensor.is_contiguous())
                shared = () if whole else (storage.places(other), storage.places(tensor))
                self.record("written_through", (before, new, shared), (before, new), (now,), True)
        return new

    def shadow(self, tensor: Tensor) -> Tensor:
        """The meta tensor that stands for a parameter, a buffer or a real constant; others stand for themselves."""
        if hasattr(tensor, "_cnnlib") or _is_wrapped(tensor):
            return tensor
        value = self.value(tensor)
        if hasattr(tensor, "_cnnlib"):  # it was found
            return tensor
        known = self.state[id(tensor)]
        if known[2] is not None:
            return known[2]
        if tensor.layout is not torch.strided:
            raise self.error(f"tensors with layout {tensor.layout} cannot be followed; use a strided (dense) tensor")
        meta = torch.empty_strided(tensor.shape, tensor.stride(), dtype=value.dtype, device="meta")
        while _is_wrapped(meta):  # inside of a transform
            meta = _unwrapped(meta)
        self.live.seen[meta.untyped_storage()._cdata] = None  # the model holds it: never counted, never freed
        self.attach(meta, value)
        known[2] = meta
        return meta

    def on_meta(self, thing):
        """`thing` with every tensor in it replaced by a meta tensor that carries its value."""
        return mapped(self.shadow, thing)

    # Operations

    def record(self, op, args, inputs=None, outputs=(), is_view=False, names=None) -> Node:
        """A new node of the present step; by default its inputs are the values among `args`."""
        if self.step is None:
            self.step = Step(self.function, self.call)
            self.steps.append(self.step)
        inputs = tuple([arg for arg in args if type(arg) is Value]) if inputs is None else inputs
        node = Node(op, args, inputs, outputs, is_view, ops.argument_names(op) if names is None else names)
        self.step.nodes.append(node)
        return node

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in _QUERIES:
            if func in _DTYPE_QUERIES and self.dtype is not None:
                args = (self.on_meta(args[0]), *args[1:])
            return func(*args, **kwargs)
        self.step = None
        if func in self.rules and _is_ordinary():
            result = self.answer(func, *args, **kwargs)
            if result is not NotImplemented:
                return result
            self.step = None
        return self.general(func, args, kwargs)

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
                return self.run(func, args, kwargs, of_constants=True)  # on real tensors: their values may steer the network
        if func in (Tensor.cuda, Tensor.cpu):
            return args[0]
        if func is Tensor.to:
            args = tuple(arg for arg in args if not isinstance(arg, (torch.device, str, int)) or isinstance(arg, bool))
            kwargs = {key: item for key, item in kwargs.items() if key != "device"}
        elif kwargs.get("device") is not None:
            kwargs = kwargs | {"device": "meta"}
        if func in (Tensor.__getitem__, Tensor.__setitem__):
            args = (args[0], _with_tensors(args[1]), *args[2:])
        args, kwargs = tuple(map(self.on_meta, args)), self.on_meta(kwargs) if kwargs else kwargs
        try:
            return remembered(self, func, args, kwargs) if self.fast and _is_ordinary() else self.run(func, args, kwargs)
        except Exception as error:
            shapes = ", ".join(str(tuple(tensor.shape)) for tensor in tensors[:4])
            raise self.error(error, self.function, f" on tensors of shape {shapes} failed: ") from error

    def run(self, func, args, kwargs, of_constants=False):
        """The result of `func`; the operations that it consists of are recorded."""
        with _Recorder(self, of_constants):
            result = func(*args, **kwargs)
        for tensor in tensors_in(result):  # what the model makes out of nothing or of constants is known from now on
            if tensor.is_meta and not hasattr(tensor, "_cnnlib") and not _is_wrapped(tensor):
                self.held[id(tensor)] = tensor
        return result


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
        if op == "convolution" and 0 in result.shape[2:] and 0 not in args[0].shape:  # older PyTorch lets it pass on the meta device
            raise RuntimeError(f"Kernel size can't be greater than actual input size: kernel {tuple(args[1].shape[2:])}, "
                               f"input {tuple(args[0].shape[2:])}, padding {tuple(args[4])}")
        tracer = self.tracer
        if self.of_constants and ops.of(op).macs is None:
            return result
        args = args + tuple(kwargs.get(name) for name in names[len(args):])
        inputs = tracer.values_of(args)
        args = mapped(tracer.value, args)
        results = list(tensors_in(result))
        if not inputs and not results:
            return result
        parameters = made_of(inputs)
        outputs = []
        is_node = inputs and not ops.of(op).is_allocation
        node = tracer.record(op, args, inputs, (), aliases[0] == "view", names) if is_node else None
        for i, tensor in enumerate(results[:ops.of(op).results]):
            alias = aliases[min(i, len(aliases) - 1)]
            if self.of_constants:
                outputs.append(tracer.value(tensor))
            elif alias == "write":
                outputs.append(tracer.overwrite(tensor, parameters))
            else:
                storage = inputs[0].storage if alias == "view" else None
                outputs.append(tracer.attach(tensor, Value(tuple(tensor.shape), tensor.dtype, storage, "result", parameters)))
        if node is not None:
            node.outputs = tuple(outputs)
        return result


@cache
def _schema(func) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    """The operation's name; for each result whether it is "new", a "view", or a "write" into an argument; the arguments' names."""
    op = func.overloadpacket.__name__
    aliases = ("new" if alias is None else "write" if alias.is_write else "view"
               for alias in (returned.alias_info for returned in func._schema.returns))
    aliases = ("view",) if op == "_unsafe_view" else tuple(aliases) or ("new",)
    return op, aliases, tuple(argument.name for argument in func._schema.arguments)


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


_DTYPE_QUERIES = {Tensor.dtype.__get__, Tensor.element_size, Tensor.type}
_QUERIES = _DTYPE_QUERIES | {torch.is_floating_point, torch.is_complex, torch.numel, torch.is_tensor}
_QUERIES |= {getattr(Tensor, name).__get__ for name in """
             shape device ndim requires_grad is_meta is_cuda layout is_leaf grad_fn is_mps is_nested is_quantized
             is_sparse""".split()}
_QUERIES |= {getattr(Tensor, name) for name in """
             size dim numel nelement stride ndimension is_floating_point is_complex is_contiguous __len__ storage_offset
             get_device __hash__ data_ptr""".split()}
