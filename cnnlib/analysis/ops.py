"""What is known of PyTorch's operations, each in one place: its cost, what is kept of it, how receptive fields pass.

`OPERATORS` maps the name of an operation, as PyTorch's dispatcher names it, to its entry. A name with "_" behind it,
which writes in place, has the entry of the name without. What PyTorch says of an operation itself, the names of its
arguments and whether a result is a view, is asked of its schema. An operation without an entry (`of` gives `UNKNOWN`)
is treated alike everywhere: no multiply-adds, one scalar operation for each value of its output; receptive fields do
not pass, and tables list it in `unknown`.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch


@dataclass(frozen=True, slots=True)
class Operator:
    """One entry.

    Attributes:
        macs: from a node to its multiply-adds, of convolutions and matrix products alone.
        operands: which arguments `macs` multiplies: the backward pass computes a gradient for each, as dear as it.
        other: from a node to its scalar operations beside `macs`, by the rules that `cost.Row` states.
        results: how many of the results count, where the rest are statistics too small to count.
        made: the results on tensors without values, where PyTorch's shape functions do not tell all that the kernels keep for
            the backward pass, or take long: from a function that asks them, and the arguments.
        field: the rule of `fields.rules` for it, "" if there is none.
        backward: multiply-adds of the backward pass for each of the forward pass, where it is not one for each operand.
        is_allocation: whether it only takes memory: it is no operation of a network, and is not recorded.
    """

    macs: Callable | None = None
    operands: tuple[int, ...] = ()
    other: Callable = lambda node: _values(node)
    results: int | None = None
    made: Callable | None = None
    field: str = ""
    backward: float | None = None
    is_allocation: bool = False


UNKNOWN = Operator()
OPERATORS: dict[str, Operator] = {}


@cache
def of(op: str) -> Operator:
    """The entry for the operation of this name."""
    return OPERATORS.get(op) or OPERATORS.get(op.rstrip("_")) or UNKNOWN


def _add(names: str, **entry) -> None:
    OPERATORS.update(dict.fromkeys(names.split(), Operator(**entry)))


# Formulas


def _values(node) -> int:
    return node.outputs[0].numel if node.outputs else 0


def _nothing(node) -> int:
    return 0


def _if_biased(node) -> int:
    return 0 if node.args[2] is None else _values(node)


def _times(factor: int) -> Callable:
    return lambda node: factor * node.inputs[0].numel


def _in_windows(node) -> int:
    return _values(node) * math.prod(kernel for kernel, *_ in pooling(node))


def _in_adaptive_windows(node) -> int:
    given, made = node.inputs[0].shape, node.outputs[0].shape
    n = axes(node.op)
    windows = map(adaptive_windows, given[-n:], made[-n:])
    return math.prod(given[:-n]) * math.prod(sum(map(len, axis)) for axis in windows)


def _convolution_macs(node) -> int:
    x, weight = node.args[:2]
    positions = x.shape[2:] if node.args[6] else node.outputs[0].shape[2:]
    return x.shape[0] * math.prod(positions) * weight.numel


def _product_macs(left: int) -> Callable:
    """Of the matrix product of arguments number `left` and the next."""
    def macs(node):
        x, y = node.args[left:left + 2]
        return x.numel * (y.shape[-1] if len(y.shape) > 1 else 1)

    return macs


def _attention_macs(node) -> int:
    query, key, value = node.args[:3]
    return math.prod(query.shape[:-1]) * key.shape[-2] * (query.shape[-1] + value.shape[-1])


def _trilinear_products(node) -> int:
    """Two for each weight and row: of the first factor and the weight, and of their product and the second factor."""
    first, weight, second = node.args[:3]
    return 2 * (first.numel // first.shape[-1]) * weight.numel


def _norm_made(weight: int) -> Callable:
    """Kernels keep the statistics in the type of the weight, argument number `weight`; PyTorch's shape functions say the input's."""
    def made(run, args):
        result, *statistics = run()
        return (result, *(one if args[weight] is None else one.to(args[weight].dtype) for one in statistics))

    return made


def _batch_norm_made(run, args):
    """As above; PyTorch's shape functions take a dozen operations to work it out."""
    x, weight, training = args[0], args[1], args[5]
    if weight is None:
        return run()
    return (torch.empty_like(x), *(weight.new_empty(len(weight) * training) for _ in range(2)))


def _batch_norm_backward_made(run, args):
    """The gradients of the input, the weight and the bias; of those that nobody needs, None."""
    x, weight, needed = args[1], args[2], args[-1]
    if weight is None:
        return run()
    return tuple(torch.empty_like(like) if one else None for like, one in zip((x, weight, weight), needed))


def _rnn_made(run, args):
    """The workspace of oneDNN's kernel, of a size that only the kernel knows: it runs once on zeros."""
    results = run()
    if results[3].device.type != "cpu" or results[3].numel():
        return results
    with torch._subclasses.fake_tensor.unset_fake_temporarily(), torch.enable_grad():
        zeros = [torch.zeros(arg.shape, dtype=arg.dtype) if isinstance(arg, torch.Tensor) else arg for arg in args]
        size = torch.ops.aten.mkldnn_rnn_layer.default(*zeros)[3].numel()
    return (*results[:3], results[3].new_empty(size))


# Products

_add("convolution", macs=_convolution_macs, operands=(0, 1), other=_if_biased, field="convolution")
_add("linear", macs=lambda node: node.args[0].numel * node.args[1].shape[0], operands=(0, 1), other=_if_biased,
     field="product")
_add("mm bmm mv dot vdot _int_mm _scaled_mm", macs=_product_macs(0), operands=(0, 1), other=_nothing, field="product")
_add("addmm addmv addbmm baddbmm", macs=_product_macs(1), operands=(1, 2), field="product")
_add("""_scaled_dot_product_flash_attention _scaled_dot_product_efficient_attention
     _scaled_dot_product_flash_attention_for_cpu _scaled_dot_product_cudnn_attention
     _scaled_dot_product_fused_attention_overrideable _scaled_dot_product_attention_math_for_mps""",
     macs=_attention_macs, operands=(0, 1, 2), other=_nothing, backward=2.5, field="attention")
_add("_trilinear", other=_trilinear_products)
_add("mkldnn_rnn_layer", made=_rnn_made)

# Normalization

for _name, _made in {"native_batch_norm": _batch_norm_made, "_native_batch_norm_legit": _norm_made(1)}.items():
    _add(_name, results=1, made=_made, field="batch_norm", other=lambda node: (7 if node.args[5] else 2) * _values(node))
_add("native_batch_norm_backward", made=_batch_norm_backward_made)
_add("_native_batch_norm_legit_no_training", results=1, other=lambda node: 2 * _values(node), field="batch_norm")
_add("native_layer_norm", results=1, other=_times(7), made=_norm_made(2), field="statistics")
_add("native_group_norm", results=1, other=_times(7), made=_norm_made(1), field="statistics")
_add("_fused_rms_norm", results=1, other=_times(4), field="statistics")
_add("_softmax _log_softmax _safe_softmax", other=_times(3), field="statistics")

# One value from one value of each operand: computed, or only copied or viewed

_add("""relu sigmoid tanh hardswish hardsigmoid silu mish gelu hardtanh add sub rsub mul div abs addcdiv addcmul atan2
     bitwise_and bitwise_not bitwise_or ceil celu clamp clamp_max clamp_min cos elu eq erf exp expm1 floor floor_divide
     fmod ge gt hardshrink le leaky_relu lerp log log1p log2 log10 log_sigmoid_forward logical_and logical_not
     logical_or lt maximum minimum native_dropout ne neg nan_to_num pow _prelu_kernel reciprocal remainder round
     rrelu_with_noise rsqrt sign sin softplus softshrink sqrt threshold xlogy trunc frac isnan logit logaddexp hypot
     _softmax_backward_data cosh sinh tan atan asin acos erfc sgn heaviside""", field="elementwise")
_add("clone _to_copy where masked_fill lift_fresh detach alias expand", other=_nothing, field="elementwise")
_add("copy", other=_nothing, field="written")

# Constants

_add("""fill zero zeros_like ones_like full_like new_zeros new_ones new_full bernoulli arange is_same_size
     _has_same_storage_numel""", other=_nothing, field="constant")
_add("rand_like randn_like uniform normal rand randn zeros ones full scalar_tensor linspace", field="constant")
_add("empty empty_like empty_strided new_empty new_empty_strided", is_allocation=True)

# Views and copies that only rearrange: the rule of fields, and the operations that it is for

for _rule, _names in {
    "reshape": "view _unsafe_view unsqueeze squeeze _reshape_alias view_copy",
    "as_strided": "as_strided",
    "permute": "permute transpose t",
    "parts": "slice split unsafe_split split_with_sizes select unbind",
    "unfold": "unfold",
    "cat": "cat stack",
    "pad": """constant_pad_nd reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d replication_pad2d
        replication_pad3d""",
    "rearranged": "flip roll",
    "repeat": "repeat",
    "shuffled": "pixel_shuffle pixel_unshuffle channel_shuffle",
    "im2col": "im2col",
    "index": "index index_select",
    "max_unpool": "max_unpool2d max_unpool3d",
    "upsample": """upsample_nearest1d upsample_nearest2d upsample_nearest3d _upsample_nearest_exact1d
        _upsample_nearest_exact2d _upsample_nearest_exact3d""",
    "written_through": "written_through",
    "": "diagonal gather embedding index_put scatter tril triu slice_scatter select_scatter masked_select take",
}.items():
    _add(_names, other=_nothing, field=_rule)

# Windows

_add("max_pool2d_with_indices max_pool3d_with_indices avg_pool1d avg_pool2d avg_pool3d", other=_in_windows,
     field="pool")
_add("_adaptive_avg_pool2d _adaptive_avg_pool3d adaptive_avg_pool1d adaptive_max_pool2d adaptive_max_pool3d",
     other=_in_adaptive_windows, field="adaptive_pool")
_add("""upsample_linear1d upsample_bilinear2d upsample_trilinear3d upsample_bicubic2d _upsample_bilinear2d_aa
     _upsample_bicubic2d_aa""", field="upsample")
_add("col2im", other=_times(1), field="col2im")

# Sums

_add("mean sum amax amin prod any all logsumexp max min argmax argmin linalg_vector_norm", other=_times(1),
     field="reduce")
_add("var var_mean std std_mean", other=_times(3), field="reduce")
_add("cumsum", other=_times(1), field="statistics")


# Arguments


@cache
def argument_names(op: str) -> tuple[str, ...]:
    """Those of the operation's first form, in PyTorch's words; () for one that PyTorch does not have."""
    forms = getattr(torch.ops.aten, op, None)
    return tuple(argument.name for argument in getattr(forms, forms.overloads()[0])._schema.arguments) if forms else ()


@cache
def axes(op: str) -> int:
    """How many spatial axes an operation such as "max_pool2d_with_indices" works on."""
    return int(re.search(r"(\d)d", op)[1])


def windows_along(length: int, kernel: int, stride: int, padding: int, dilation: int) -> int:
    """How many places a sliding window has."""
    return (length + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1


def adaptive_windows(length: int, out: int) -> tuple[range, ...]:
    """The places that each output of adaptive pooling covers."""
    return tuple(range(i * length // out, -(-(i + 1) * length // out)) for i in range(out))


def pooling(node) -> list[tuple[int, int, int, int]]:
    """(kernel, stride, padding, dilation) of a pooling along each of its dimensions."""
    n = axes(node.op)
    kernel = lengths(node.arg("kernel_size"), n)
    others = (node.arg("stride") or kernel, node.arg("padding", 0), node.arg("dilation", 1))
    return list(zip(kernel, *(lengths(one, n) for one in others)))


def lengths(value, dims: int) -> tuple[int, ...]:
    """One length for each axis, as PyTorch reads what may be a number, one number in a tuple, or a tuple."""
    if type(value) is tuple and len(value) == dims:
        return value
    return (value,) * dims if isinstance(value, int) else tuple(value) * (dims if len(value) == 1 else 1)


# What one operation costs


def macs(node) -> int:
    """Multiply-adds of a convolution or matrix product; 0 for every other operation."""
    formula = of(node.op).macs
    return formula(node) if formula else 0


def backward_macs(node, needed: Callable) -> int:
    """Multiply-adds of the backward pass: one product as dear as the forward one for each operand that needs a gradient.

    Attention computes its scores anew, and takes two and a half times the forward pass, as PyTorch's counter says."""
    entry = of(node.op)
    if entry.macs is None:
        return 0
    if entry.backward is not None:
        return int(entry.backward * entry.macs(node)) if any(map(needed, node.inputs)) else 0
    return entry.macs(node) * sum(needed(node.args[place]) for place in entry.operands)


def bytes_moved(node) -> int:
    """Bytes read and written: each input and each output once; a value spread over more elements than it has, once."""
    moved = 0
    for value in set(node.inputs):
        nbytes = value.storage.nbytes
        moved += value.nbytes if value.nbytes < nbytes else nbytes
    for value in node.outputs:
        moved += value.nbytes
    return moved
