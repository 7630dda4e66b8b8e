"""Closed forms: the most common functions and modules, answered from the formula for their output shape.

`RULES` maps a torch function to its rule, the names of its arguments in PyTorch's order, and its own name. A rule
records the operation and returns its result, or NotImplemented for what it leaves to the general path, faulty arguments
included. `SHORTCUTS` maps a class of modules whose forward is one such call to a function from module and input to that
call, function first, or to None.
"""

import inspect

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import ops
from .record import Value, made_of


def _is_plain(tensor) -> bool:
    """A meta tensor in the usual memory order."""
    return type(tensor) is Tensor and tensor.is_meta and tensor.is_contiguous()


def _computed(tracer, op, args, shape, dtype, inputs=None):
    """The result of an operation in new memory, recorded."""
    node = tracer.record(op, args, inputs)
    out = torch.empty(shape, dtype=dtype, device="meta")
    node.outputs = (tracer.attach(out, Value(shape, dtype, parameters=made_of(node.inputs))),)
    return out


def _convolution(n):
    def rule(tracer, input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
        if not _is_plain(input) or input.dim() != n + 2 or isinstance(padding, str):
            return NotImplemented
        x, w, b = tracer.values(input, weight, bias)
        stride, padding, dilation = (ops.lengths(one, n) for one in (stride, padding, dilation))
        if x.dtype != w.dtype or x.shape[1] != w.shape[1] * groups or len(w.shape) != n + 2:
            return NotImplemented
        out = list(map(ops.windows_along, x.shape[2:], w.shape[2:], stride, padding, dilation))
        if min(out) < 1:
            return NotImplemented
        args = (x, w, b, stride, padding, dilation, False, (0,) * n, groups)
        return _computed(tracer, "convolution", args, (x.shape[0], w.shape[0], *out), x.dtype)

    return rule


def _linear(tracer, input, weight, bias=None):
    if not _is_plain(input) or input.dim() < 2:
        return NotImplemented
    x, w, b = tracer.values(input, weight, bias)
    if x.dtype != w.dtype or len(w.shape) != 2 or x.shape[-1] != w.shape[1]:
        return NotImplemented
    return _computed(tracer, "linear", (x, w, b), (*x.shape[:-1], w.shape[0]), x.dtype)


def _batch_norm(tracer, input, running_mean, running_var, weight=None, bias=None, training=False, momentum=0.1,
                eps=1e-5):
    if not _is_plain(input) or input.dim() < 2:
        return NotImplemented
    x, *state = tracer.values(input, weight, bias, running_mean, running_var)
    channels = x.shape[1]
    if training and x.numel == channels or any([value is not None and value.shape != (channels,) for value in state]):
        return NotImplemented
    return _computed(tracer, "native_batch_norm", (x, *state, training, momentum, eps), x.shape, x.dtype)


def _elementwise(tracer, op, inplace, input, *others):
    """A function of each value of `input`, and of what stands there in the others."""
    if inplace and isinstance(input, Tensor) and (input.is_meta or id(input) in tracer.buffers):
        input = tracer.on_meta(input)  # a buffer is such as the number of batches that a batch norm has seen
    if type(inplace) is not bool or type(input) is not Tensor or not input.is_meta:
        return NotImplemented
    x = tracer.value(input)
    args, shape, is_plain = (x,), x.shape, input.is_contiguous()
    for other in others:
        if type(other) in (Tensor, nn.Parameter) and other.layout is torch.strided:
            y = tracer.value(other)
            shape, is_plain = _broadcast(x.shape, y.shape), is_plain and other.is_contiguous()
            if x.dtype != y.dtype:
                return NotImplemented
        elif not (x.dtype.is_floating_point and isinstance(other, (int, float))) and not (
                x.dtype is torch.int64 and type(other) is int):
            return NotImplemented
        else:
            y = other
        args = (x, y)
    if not inplace:
        return _computed(tracer, op, args, shape, x.dtype) if shape is not None and is_plain else NotImplemented
    if shape != x.shape:
        return NotImplemented
    node = tracer.record(op + "_", args)
    node.outputs = (tracer.overwrite(input, made_of(node.inputs)),)
    return input


def _activation(op):
    return lambda tracer, input, inplace=False: _elementwise(tracer, op, inplace, input)


def _unary(op, inplace=False):
    return lambda tracer, input: _elementwise(tracer, op, inplace, input)


def _binary(op, inplace=False):
    return lambda tracer, input, other: _elementwise(tracer, op, inplace, input, other)


def _broadcast(a, b):
    """The shape to which two shapes spread, None if they do not fit."""
    rank = max(len(a), len(b))
    pairs = list(zip((1,) * (rank - len(a)) + a, (1,) * (rank - len(b)) + b))
    return tuple([max(pair) for pair in pairs]) if all([x == y or 1 in (x, y) for x, y in pairs]) else None


def _cat(tracer, tensors, dim=0):
    if type(tensors) not in (list, tuple) or not tensors or not all(map(_is_plain, tensors)) or type(dim) is not int:
        return NotImplemented
    values = tuple(map(tracer.value, tensors))
    shape = list(values[0].shape)
    if not -len(shape) <= dim < len(shape):
        return NotImplemented
    dim %= len(shape)
    if len({(value.dtype, len(value.shape), value.shape[:dim], value.shape[dim + 1:]) for value in values}) > 1:
        return NotImplemented
    shape[dim] = sum([value.shape[dim] for value in values])
    return _computed(tracer, "cat", (values, dim), tuple(shape), values[0].dtype, values)


RULES = {function: (rule, tuple(inspect.signature(rule).parameters)[1:], function.__name__.strip("_"))
         for function, rule in {
    F.conv1d: _convolution(1), F.conv2d: _convolution(2), F.conv3d: _convolution(3),
    F.linear: _linear, F.batch_norm: _batch_norm,
    torch.cat: _cat,
    F.relu: _activation("relu"), F.relu6: _activation("hardtanh"), F.hardswish: _activation("hardswish"),
    F.hardsigmoid: _activation("hardsigmoid"), F.silu: _activation("silu"), F.sigmoid: _unary("sigmoid"),
    **{getattr(owner, op): _unary(op) for op in ("relu", "sigmoid", "tanh") for owner in (torch, Tensor)},
    **{owner.relu_: _unary("relu", True) for owner in (torch, Tensor)},
    **{function: _binary(op) for op in ("add", "mul")
       for function in (getattr(torch, op), getattr(Tensor, op), getattr(Tensor, f"__{op}__"))},
    **{getattr(Tensor, name): _binary(op, True) for op in ("add", "mul") for name in (f"{op}_", f"__i{op}__")},
}.items()}


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
    **{kind: lambda module, x, function=function: (function, x, module.inplace)
       for kind, function in ((nn.ReLU, F.relu), (nn.ReLU6, F.relu6), (nn.Hardswish, F.hardswish),
                              (nn.Hardsigmoid, F.hardsigmoid), (nn.SiLU, F.silu))},
}
