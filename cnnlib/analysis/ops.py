"""What is known of PyTorch's operations, each in one place: arguments, cost, memory, and how receptive fields pass through it.

`OPERATORS` maps the name of an operation, as PyTorch's dispatcher names it, to its entry. A name with "_" behind it, which writes in
place, has the entry of the name without. An operation without an entry (`of` gives `UNKNOWN`) is treated alike everywhere: no
multiply-adds, one scalar operation for each value of its output, memory of its own unless PyTorch declares a view; receptive fields
do not pass, and tables list it in `unknown`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch


@dataclass(frozen=True, slots=True)
class Operator:
    """One entry.

    Attributes:
        args: the names of the arguments, as in PyTorch's schema.
        moves: "new" results are computed; a "copy" moves values into new memory; a "view" computes and moves nothing.
        macs: from a node to its multiply-adds, of convolutions and matrix products alone.
        operands: the arguments that `macs` multiplies: the backward pass computes a gradient for each, as dear as the product.
        other: from a node to its scalar operations beside `macs`, by the rules that `cost.Row` states.
        results: how many of the results count, where the rest are statistics too small to count.
        kept: what the kernels keep for the backward pass and PyTorch's shape functions do not tell: from the results that
            these give and the arguments to the results as they really are.
        field: the rule of `fields.rules` for it, "" if there is none.
        backward: multiply-adds of the backward pass for each of the forward pass, where it is not one for each operand.
    """

    args: tuple[str, ...] = ()
    moves: str = "new"
    macs: Callable | None = None
    operands: tuple[str, ...] = ()
    other: Callable = lambda node: _values(node)
    results: int | None = None
    kept: Callable | None = None
    field: str = ""
    backward: float | None = None


UNKNOWN = Operator()
OPERATORS: dict[str, Operator] = {}


@cache
def of(op: str) -> Operator:
    """The entry for the operation of this name."""
    return OPERATORS.get(op) or OPERATORS.get(op.rstrip("_")) or UNKNOWN


def _add(names: str, args: str = "", operands: str = "", **entry) -> None:
    known = Operator(tuple(args.split()), operands=tuple(operands.split()), **entry)
    OPERATORS.update(dict.fromkeys(names.split(), known))


# Formulas


def _values(node) -> int:
    return node.outputs[0].numel if node.outputs else 0


def _nothing(node) -> int:
    return 0


def _if_biased(node) -> int:
    return 0 if node.args[2] is None else _values(node)


def _each_input(node) -> int:
    return node.inputs[0].numel


def _times(factor: int) -> Callable:
    return lambda node: factor * node.inputs[0].numel


def _in_windows(node) -> int:
    kernel = node.arg("kernel_size")
    kernel = (kernel,) if isinstance(kernel, int) else kernel
    n = int(node.op.partition("d")[0][-1])
    return _values(node) * (kernel[0] ** n if len(kernel) == 1 else math.prod(kernel))


def _in_adaptive_windows(node) -> int:
    given, made = node.inputs[0].shape, node.outputs[0].shape
    n = int(node.op.rpartition("d")[0][-1])
    windows = [sum(-(-(i + 1) * a // b) - i * a // b for i in range(b)) for a, b in zip(given[-n:], made[-n:])]
    return math.prod(given[:-n]) * math.prod(windows)


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


def _norm_kept(weight: int) -> Callable:
    """Kernels keep the statistics in the weight's dtype; PyTorch's shape functions say the input's."""
    def kept(results, args):
        if args[weight] is None or args[weight].dtype == results[1].dtype:
            return results
        return (results[0], *(statistic.to(args[weight].dtype) for statistic in results[1:]))

    return kept


def _rnn_kept(results, args):
    """The workspace of oneDNN's kernel, of a size that only the kernel knows: it runs once on zeros."""
    if results[3].device.type != "cpu" or results[3].numel():
        return results
    with torch._subclasses.fake_tensor.unset_fake_temporarily(), torch.enable_grad():
        zeros = [torch.zeros(arg.shape, dtype=arg.dtype) if isinstance(arg, torch.Tensor) else arg for arg in args]
        size = torch.ops.aten.mkldnn_rnn_layer.default(*zeros)[3].numel()
    return (*results[:3], results[3].new_empty(size))


# Products

_add("convolution", "input weight bias stride padding dilation transposed output_padding groups", "input weight",
     macs=_convolution_macs, other=_if_biased, field="convolution")
_add("linear", "input weight bias", "input weight", macs=lambda node: node.args[0].numel * node.args[1].shape[0],
     other=_if_biased, field="product")
_add("mm bmm _int_mm _scaled_mm", "self mat2", "self mat2", macs=_product_macs(0), other=_nothing, field="product")
_add("mv", "self vec", "self vec", macs=_product_macs(0), other=_nothing, field="product")
_add("dot", "self tensor", "self tensor", macs=_product_macs(0), other=_nothing, field="product")
_add("vdot", "self other", "self other", macs=_product_macs(0), other=_nothing, field="product")
_add("addmm", "self mat1 mat2 beta alpha", "mat1 mat2", macs=_product_macs(1), field="product")
_add("addmv", "self mat vec beta alpha", "mat vec", macs=_product_macs(1), field="product")
_add("baddbmm addbmm", "self batch1 batch2 beta alpha", "batch1 batch2", macs=_product_macs(1), field="product")
_add("""_scaled_dot_product_attention_math _scaled_dot_product_flash_attention _scaled_dot_product_efficient_attention
     _scaled_dot_product_flash_attention_for_cpu _scaled_dot_product_cudnn_attention _scaled_dot_product_fused_attention_overrideable
     _scaled_dot_product_attention_math_for_mps""",
     "query key value", "query key value", macs=_attention_macs, other=_nothing, backward=2.5, field="attention")
_add("_trilinear", "i1 i2 i3 expand1 expand2 expand3 sumdim unroll_dim", other=_trilinear_products, field="")
_add("mkldnn_rnn_layer", kept=_rnn_kept)

# Normalization

_add("native_batch_norm _native_batch_norm_legit",
     "input weight bias running_mean running_var training momentum eps", results=1, kept=_norm_kept(1), field="batch_norm",
     other=lambda node: (7 if node.args[5] else 2) * _values(node))
_add("_native_batch_norm_legit_no_training", "input weight bias running_mean running_var momentum eps", results=1,
     field="batch_norm", other=lambda node: 2 * _values(node))
_add("native_layer_norm", "input normalized_shape weight bias eps", results=1, other=_times(7), kept=_norm_kept(2),
     field="layer_norm")
_add("native_group_norm", "input weight bias N C HxW group eps", results=1, other=_times(7), kept=_norm_kept(1),
     field="group_norm")
_add("_fused_rms_norm", "input normalized_shape weight eps", results=1, other=_times(4), field="layer_norm")
_add("_softmax _log_softmax", "self dim half_to_float", other=_times(3), field="softmax")
_add("_safe_softmax", "self dim dtype", other=_times(3), field="softmax")

# One value from one value of each operand

_add("relu sigmoid tanh hardswish hardsigmoid silu mish", "self", field="elementwise")
_add("gelu", "self approximate", field="elementwise")
_add("hardtanh", "self min_val max_val", field="elementwise")
_add("add sub rsub", "self other alpha", field="elementwise")
_add("mul div", "self other", field="elementwise")
_add("""abs addcdiv addcmul atan2 bitwise_and bitwise_not bitwise_or ceil celu clamp clamp_max clamp_min cos elu eq erf exp
     expm1 floor floor_divide fmod ge gt hardshrink le leaky_relu lerp log log1p log2 log10 log_sigmoid_forward logical_and
     logical_not logical_or lt maximum minimum native_dropout ne neg nan_to_num pow prelu _prelu_kernel reciprocal remainder
     round rrelu_with_noise rsqrt selu sign sin softplus softshrink sqrt square threshold true_divide xlogy trunc frac
     isnan logit softsign _softmax_backward_data logaddexp hypot cosh sinh tan atan asin acos erfc sgn heaviside""",
     field="elementwise")
_add("clone _to_copy where masked_fill lift_fresh contiguous copy_to", moves="copy", other=_nothing, field="elementwise")
_add("copy", "self src non_blocking", moves="copy", other=_nothing, field="written")
_add("is_same_size _has_same_storage_numel", moves="copy", other=_nothing, field="constant")
_add("detach alias", "self", moves="view", other=_nothing, field="elementwise")
_add("expand", "self size implicit", moves="view", other=_nothing, field="elementwise")

# Constants

_add("fill zero zeros_like ones_like full_like new_zeros new_ones new_full bernoulli arange", moves="copy", other=_nothing,
     field="constant")
_add("rand_like randn_like uniform normal rand randn new_empty empty empty_like empty_strided new_empty_strided zeros ones full "
     "scalar_tensor linspace", field="constant")

# Places: views and copies that only rearrange

_add("view _unsafe_view reshape unsqueeze squeeze _reshape_alias unflatten flatten view_copy", "self", moves="view",
     other=_nothing, field="reshape")
_add("as_strided", "self size stride storage_offset", moves="view", other=_nothing, field="as_strided")
_add("permute", "self dims", moves="view", other=_nothing, field="permute")
_add("transpose", "self dim0 dim1", moves="view", other=_nothing, field="permute")
_add("t", "self", moves="view", other=_nothing, field="permute")
_add("slice", "self dim start end step", moves="view", other=_nothing, field="slice")
_add("split unsafe_split", "self split_size dim", moves="view", other=_nothing, field="split")
_add("split_with_sizes", "self split_sizes dim", moves="view", other=_nothing, field="split")
_add("chunk", "self chunks dim", moves="view", other=_nothing, field="split")
_add("select", "self dim index", moves="view", other=_nothing, field="select")
_add("unbind", "self dim", moves="view", other=_nothing, field="select")
_add("diagonal", "self offset dim1 dim2", moves="view", other=_nothing)
_add("unfold", "self dimension size step", moves="view", other=_nothing, field="unfold")
_add("cat stack", "tensors dim", moves="copy", other=_nothing, field="cat")
_add("constant_pad_nd", "self pad value", moves="copy", other=_nothing, field="pad")
_add("reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d replication_pad2d replication_pad3d", "self padding",
     moves="copy", other=_nothing, field="pad")
_add("flip", "self dims", moves="copy", other=_nothing, field="flip")
_add("roll", "self shifts dims", moves="copy", other=_nothing, field="flip")
_add("repeat", "self repeats", moves="copy", other=_nothing, field="repeat")
_add("pixel_shuffle", "self upscale_factor", moves="copy", other=_nothing, field="pixel_shuffle")
_add("pixel_unshuffle", "self downscale_factor", moves="copy", other=_nothing, field="pixel_unshuffle")
_add("channel_shuffle native_channel_shuffle", "self groups", moves="copy", other=_nothing, field="channel_shuffle")
_add("im2col", "self kernel_size dilation padding stride", moves="copy", other=_nothing, field="im2col")
_add("col2im", "self output_size kernel_size dilation padding stride", other=_each_input, field="col2im")
_add("index", "self indices", moves="copy", other=_nothing, field="index")
_add("index_select", "self dim index", moves="copy", other=_nothing, field="index")
_add("max_unpool2d", "self indices output_size", moves="copy", other=_nothing, field="max_unpool")
_add("max_unpool3d", "self indices output_size stride padding", moves="copy", other=_nothing, field="max_unpool")
_add("gather embedding index_put scatter tril triu slice_scatter select_scatter masked_select take", moves="copy", other=_nothing)
_add("written_through", moves="view", other=_nothing, field="written_through")

# Windows

_add("max_pool1d max_pool2d max_pool3d max_pool2d_with_indices max_pool3d_with_indices",
     "self kernel_size stride padding dilation ceil_mode", other=_in_windows, field="pool")
_add("avg_pool1d", "self kernel_size stride padding ceil_mode count_include_pad", other=_in_windows, field="pool")
_add("avg_pool2d avg_pool3d", "self kernel_size stride padding ceil_mode count_include_pad divisor_override", other=_in_windows,
     field="pool")
_add("_adaptive_avg_pool2d _adaptive_avg_pool3d adaptive_avg_pool1d adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d",
     "self output_size", other=_in_adaptive_windows, field="adaptive_pool")
_add("""upsample_nearest1d upsample_nearest2d upsample_nearest3d _upsample_nearest_exact1d _upsample_nearest_exact2d
     _upsample_nearest_exact3d""", moves="copy", other=_nothing, field="upsample")
_add("""upsample_linear1d upsample_bilinear2d upsample_trilinear3d upsample_bicubic2d _upsample_bilinear2d_aa
     _upsample_bicubic2d_aa""", field="upsample")

# Sums

_add("mean sum amax amin prod any all logsumexp", "self dim keepdim", other=_each_input, field="reduce")
_add("max min argmax argmin", "self dim keepdim", other=_each_input, field="reduce")
_add("linalg_vector_norm", "self ord dim keepdim dtype", other=_each_input, field="reduce")
_add("var var_mean std std_mean", "self dim correction keepdim", other=_times(3), field="reduce")
_add("cumsum", "self dim dtype", other=_each_input, field="cumulative")


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
    return entry.macs(node) * sum(needed(node.arg(name)) for name in entry.operands)


def bytes_moved(node) -> int:
    """Bytes read and written: each input and each output once; a value spread over more elements than it has, once."""
    moved = 0
    for value in set(node.inputs):
        nbytes = value.storage.nbytes
        moved += value.nbytes if value.nbytes < nbytes else nbytes
    for value in node.outputs:
        moved += value.nbytes
    return moved
