"""What a layer does, and its label in the words of papers, from its module and its operations."""

import math
import re
from collections.abc import Iterable, Sequence

from torch import nn

from ..ops import lengths, macs
from ..record import Node

STRIPS = ("norm", "act", "drop", "scale", "flatten", "pad")  # drawn small, on the layer that they belong to
HEAVY = ("conv", "fc", "pool", "attention")
CONTAINERS = ("Sequential", "ModuleList", "ModuleDict", "Module")
JOINS = {  # kind -> what stands in it, what it makes, how it is said
    "add": ("+", "sum", "added"), "multiply": ("\u00d7", "product", "multiplied"),
    "subtract": ("\u2212", "difference", "subtracted"), "maximum": ("max", "maximum", "joined by their maximum"),
    "mean": ("mean", "mean", "averaged"), "concatenate": ("concatenate", "concatenation", "concatenated"),
}

PASSING = {"clone", "contiguous", "_to_copy", "alias", "detach", "lift_fresh", "view", "_unsafe_view", "reshape",
           "permute", "transpose", "t", "unsqueeze", "squeeze", "expand", "as_strided", "written_through", "copy"}
SPLITS = {"split", "split_with_sizes", "chunk", "slice", "narrow", "unbind", "select"}
ACTIVATIONS = {
    "relu": "ReLU", "hardtanh": "ReLU6", "silu": "SiLU", "gelu": "GELU", "sigmoid": "sigmoid", "tanh": "tanh",
    "hardsigmoid": "hard sigmoid", "hardswish": "hard swish", "leaky_relu": "leaky ReLU", "elu": "ELU",
    "prelu": "PReLU", "_prelu_kernel": "PReLU", "rrelu_with_noise": "RReLU", "mish": "Mish", "softplus": "softplus",
    "_softmax": "softmax", "_safe_softmax": "softmax", "_log_softmax": "log softmax",
    "log_sigmoid_forward": "log sigmoid", "clamp": "clip", "clamp_min": "ReLU", "glu": "GLU",
}
NORMS = {"native_batch_norm": "BN", "cudnn_batch_norm": "BN", "native_layer_norm": "LN", "native_group_norm": "GN",
         "_native_batch_norm_legit": "BN", "rms_norm": "RMS norm", "_fused_rms_norm": "RMS norm"}
BINARY = {"add": "add", "mul": "multiply", "sub": "subtract", "maximum": "maximum", "cat": "concatenate",
          "stack": "concatenate"}
SIGNS = {"mul": "\u00d7", "add": "+", "div": "/", "sub": "\u2212", "rsub": "\u2212"}


def by(lengths: Iterable[object]) -> str:
    """(3, 3) -> "3x3" with a multiplication sign."""
    return "\u00d7".join(map(str, lengths))


def sized(kernel: Sequence[int], what: str) -> str:
    """ "3x3 conv", of one dimension "1D conv of size 5"."""
    return f"1D {what} of size {kernel[0]}" if len(kernel) == 1 else f"{by(kernel)} {what}"


def strided(lengths: Sequence[int]) -> str:
    """ ", /2", or ", /2x1" where the axes differ; "" for steps of one."""
    if all(length == 1 for length in lengths):
        return ""
    return f", /{lengths[0]}" if len(set(lengths)) == 1 else f", /{by(lengths)}"


def scaled(op: str, number: str) -> str:
    """What is done with a map and a number: "/ 1.04", "1 \u2212 x"."""
    return f"{number} \u2212 x" if op == "rsub" else f"{SIGNS[op]} {number}"


def is_heavy(node: Node) -> bool:
    """Whether an operation multiplies and adds with weights."""
    return macs(node) > 0 and any(value.parameters for value in node.inputs)


def describe(nodes: list[Node], module: nn.Module | None, step: str, flowing: set) -> tuple:
    """The kind of a layer, its label, and details where it has some; the kind of what does nothing is "pass".

    `step` is the first function that it calls, `flowing` are the values that come from the network's input.
    """
    name = type(module).__name__ if module is not None else ""
    ops = [node.op.removesuffix("_") for node in nodes]
    computing = [op for op in ops if op not in PASSING and op not in SPLITS]
    if len(set(computing)) > 1:
        computing = [op for op in computing if op != "constant_pad_nd"]  # padding of the layer that follows
    heavy = [node for node in nodes if macs(node) > 0]
    weights = [node for node in heavy if is_heavy(node)]
    if len(heavy) == 1 and heavy[0].op == "convolution":
        weights = heavy  # by learned weights, by a filter that is given, or by weights made of the input
    if isinstance(module, nn.modules.dropout._DropoutNd):
        return "drop", f"dropout {module.p:g}"
    if "LocalResponseNorm" in name:
        return "norm", "LRN"
    if "Shuffle" in name and "Pixel" not in name:
        return "shuffle", "channel shuffle"
    if any("scaled_dot_product" in op for op in (*ops, step)) or len(heavy) > 1 and "_softmax" in ops:
        return "attention", "attention"
    if len(weights) == 1:
        convolution = weights[0].op == "convolution"
        return _convolution(weights[0], name, flowing) if convolution else _linear(weights[0])
    if len(heavy) == 1:
        return "other", "matrix product"
    if not heavy:
        if not computing or computing in (["cat"], ["stack"]) and len(nodes[0].inputs) == 1:
            return _view(nodes, ops, name == "Flatten" or step == "flatten")
        if any(op in NORMS for op in computing) and len(set(computing)) <= 2:
            return "norm", "IN" if "InstanceNorm" in name else next(NORMS[op] for op in computing if op in NORMS)
        if len(computing) == 1 or len(set(computing)) == 1 and computing[0] in BINARY:
            return _single(nodes, ops.index(computing[0]), name)
        if type(module).__module__.startswith("torch.nn.modules.activation") or module is not None and (
                _is_scaled_activation(computing, nodes)):
            return "act", name
        if re.search(r"Norm(\dd)?$", name):
            return "norm", name
    return "other", name or step.replace("_", " ")


def _linear(node: Node) -> tuple:
    shape = node.outputs[0].shape
    word = {2: "fully connected", 4: "linear (1\u00d71 conv)"}.get(len(shape), "linear")
    label = f"{word}, {shape[-1]:,}"
    if node.op != "linear":
        return "fc", label
    return "fc", label, {"in": node.args[0].shape[-1], "out": shape[-1], "bias": node.args[2] is not None}


def _convolution(node: Node, name: str, flowing: set) -> tuple:
    x, weight, bias, stride, padding, dilation, transposed, _, groups = node.args[:9]
    kernel = tuple(weight.shape[2:])
    channels = node.outputs[0].shape[1]
    sizes = {"kernel": list(kernel), "stride": list(stride), "padding": list(padding)}
    given = not weight.parameters and weight not in flowing
    if given and 1 < groups == x.shape[1] == channels:  # such as the binomial filter of anti-aliased pooling
        word = "blur pool" if "blur" in name.lower() else "fixed filter"
        return "pool", f"{sized(kernel, word)}{strided(stride)}", sizes
    word = "conv"
    if groups > 1:
        word = "depthwise conv" if groups == x.shape[1] else "grouped conv"
    if not weight.parameters:
        word = ("fixed " if given else "dynamic ") + word
    if transposed:
        word = "transposed " + word
    label = f"{sized(kernel, word)}, {channels:,}"
    if groups > 1 and groups != x.shape[1]:
        label += f", {groups} groups"
    label += strided(stride).replace("/", "\u00d7" if transposed else "/")
    if any(length != 1 for length in dilation):
        label += f", dilated {dilation[0] if len(set(dilation)) == 1 else by(dilation)}"
    return "conv", label, {**sizes, "dilation": list(dilation), "groups": groups, "in": x.shape[1], "out": channels,
                           "bias": bias is not None, "transposed": bool(transposed),
                           "depthwise": 1 < groups == x.shape[1]}


def _subsampled(nodes: list[Node]) -> str:
    """ "subsample, /2" where only every second, third, ... pixel of a flat map is kept, else ""."""
    before, after = nodes[0].inputs[0].shape[2:], _last_shape(nodes)[2:]
    steps = any(node.op == "slice" and len(node.args) > 4 and (node.args[4] or 1) > 1 for node in nodes)
    if not steps or not len(before) == len(after) == 2:
        return ""
    return f"subsample{strided([-(-a // b) for a, b in zip(before, after)])}"


def _last_shape(nodes: list[Node]) -> tuple[int, ...]:
    return next(node.outputs[0].shape for node in reversed(nodes) if node.outputs)


def _view(nodes: list[Node], ops: list[str], flattens: bool) -> tuple:
    if flattens:
        return "flatten", "flatten"
    if not SPLITS.intersection(ops):
        return "pass", ""
    first = next(node for node in nodes if node.op in SPLITS)
    if math.prod(_last_shape(nodes)) == math.prod(nodes[0].inputs[0].shape) and len(first.outputs) == 1:
        return "pass", ""
    subsampled = _subsampled(nodes)
    return ("other", subsampled) if subsampled else ("split", "split")


def _is_scaled_activation(computing: Sequence[str], nodes: Iterable[Node]) -> bool:
    """Whether a module computes one activation and arithmetic with constants, such as LeNet-5's scaled tanh."""
    return (len(set(computing) & set(ACTIVATIONS)) == 1
            and set(computing) <= {*ACTIVATIONS, "mul", "add", "sub", "div"}
            and not any(value.parameters for node in nodes for value in node.inputs))


def _single(nodes: list[Node], at: int, name: str) -> tuple:
    """A layer of one operation, that at this place, beside views."""
    node, op = nodes[at], nodes[at].op.removesuffix("_")
    inputs = [value for value in node.inputs if not value.parameters and value.role in ("result", "input")]
    after = node.outputs[0].shape if node.outputs else ()
    before = inputs[0].shape if inputs else ()
    if op in BINARY and len(inputs) > 1:
        return BINARY[op], JOINS[BINARY[op]][0]
    if op in ("cat", "stack"):
        return "other", "put a token in front"
    if op in (*SIGNS, "neg") and len(inputs) <= 1:
        return _arithmetic(node, op)
    if op in ACTIVATIONS:
        return "act", ACTIVATIONS[op]
    if op.startswith(("max_pool", "avg_pool", "fractional_max_pool", "lp_pool")):
        word = "max" if op.startswith("max") else "average"
        axes = len(nodes[0].inputs[0].shape) - 2  # of one dimension, PyTorch pools as of two
        kernel = lengths(node.arg("kernel_size", 1), len(after) - 2)
        stride = lengths(node.arg("stride") or kernel, len(after) - 2)
        padding = lengths(node.arg("padding", 0), len(after) - 2)
        kernel, stride, padding = (list(one)[-axes:] for one in (kernel, stride, padding))
        details = {"kernel": kernel, "stride": stride, "padding": padding}
        return "pool", f"{sized(kernel, f'{word} pool')}{strided(stride)}", details
    if "adaptive" in op:
        word, space = "max" if "max" in op else "average", after[2:]
        kind = "pool" if space != before[2:] else "pass"  # a pixel is its own mean
        return kind, f"global {word} pool" if math.prod(space) == 1 else f"{word} pool to {by(space)}"
    if op in ("mean", "amax", "sum", "max") and len(before) in (4, 5) and math.prod(after) == math.prod(before[:2]):
        kind = "pool" if math.prod(before[2:]) > 1 else "pass"
        return kind, f"global {'max' if 'max' in op else 'average'} pool"
    if op in ("mean", "amax", "sum", "max") and len(before) == 4:
        return "other", f"{op} over channels"
    if op in ("mean", "sum") and len(before) == 3:
        return "pool", "average over tokens"
    if "upsample" in op or op == "grid_sampler_2d":
        before, after = before[2:], after[2:]
        if before == after and "upsample" in op:
            return "pass", ""
        factor = after[0] / before[0]
        return "resize", f"upsample \u00d7{factor:g}" if factor == int(factor) else f"resize to {by(after)}"
    if op in ("pixel_shuffle", "pixel_unshuffle", "im2col", "unfold"):
        return "resize", op.replace("_", " ")
    if "pad" in op:  # a shortcut that takes every second pixel pads its channels
        subsampled = _subsampled(nodes)
        return "pad", f"{subsampled}, pad" if subsampled else "pad"
    if op in ("roll", "flip", "index", "index_select", "gather"):
        return "other", {"roll": "shift windows"}.get(op, op.replace("_", " "))
    return "other", name or op.strip("_").replace("_", " ")


def _arithmetic(node: Node, op: str) -> tuple:
    """A map and a number, or learned numbers."""
    numbers = [arg for arg in node.args if isinstance(arg, (int, float))]
    if op == "neg":
        return "scale", SIGNS["sub"]
    if not numbers or any(value.parameters for value in node.inputs):
        return "scale", "scale" if op in ("mul", "div") else "shift"
    nothing = numbers[0] == (op in ("mul", "div")) and op != "rsub"  # x + 0, as Python's `sum` begins, and x / 1
    details = {"sign": op, "number": numbers[0]}
    return "pass" if nothing else "scale", scaled(op, f"{numbers[0]:g}"), details
