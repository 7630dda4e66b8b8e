"""Networks for the page: the traced graph as JSON and the weights as safetensors, which `static/engine.js` runs.

`export` follows one forward pass (`cnnlib.analysis.trace`), folds every batch normalization into the convolution before it,
computes what depends on weights alone, and refuses by name an operation that the engine lacks.
"""

import contextlib
import json
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor, nn

from cnnlib.analysis.ops import lengths
from cnnlib.analysis.trace import Step, Value, trace
from cnnlib.shipping import BATCH_NORMS

PRECISIONS = ("float32", "float16", "int8")
SAME = {"view", "_unsafe_view", "reshape", "squeeze", "unsqueeze", "flatten", "clone", "contiguous", "detach", "alias", "dropout",
        "expand", "_to_copy", "_reshape_alias"}
ACTIVATIONS = {"relu", "silu", "sigmoid", "tanh", "hardsigmoid", "hardswish", "gelu", "hardtanh", "leaky_relu"}
BINARY = {"add", "sub", "mul", "div"}


def export(model: nn.Module, input_size: Sequence[int], *, mean: Sequence[float], std: Sequence[float], classes: Sequence[str],
           name: str = "", precision: str = "float16") -> tuple[dict, bytes]:
    """The graph of `model` as plain JSON, and its weights as a file of safetensors; the page shows `classes` by name.

    `mean` and `std` are those of the channels of its training images, for pixels from 0 to 1. `precision` is that in which matrices and
    kernels are stored: "float32", "float16", or "int8" with one scale for each output channel; single numbers for
    a channel stay float32. Raises `ValueError` for an operation that the engine lacks, with the module, and for a network that
    does not end in one row of scores for these classes.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision={precision!r}; choose one of {', '.join(map(repr, PRECISIONS))}")
    if model.training:
        raise ValueError("the network is in training mode; call its eval() first")
    graph = _Graph(model, input_size)
    scores = graph.nodes[-1]["shape"]
    if scores != [1, len(classes)]:
        raise ValueError(f"the network gives scores of shape {tuple(scores)}, but there are {len(classes)} classes")
    channels = input_size[0]
    if len(mean) != channels or len(std) != channels:
        raise ValueError(f"mean and std have {len(mean)} and {len(std)} numbers; the input has {channels} channels")
    plain = {"name": name or type(model).__name__, "mean": list(map(float, mean)), "std": list(map(float, std)), "classes": list(classes),
             "precision": precision, "nodes": graph.nodes}
    return plain, save(_stored(graph.weights, precision))


def write(folder: str | Path, name: str, *args, **options) -> None:
    """`export(*args, name=name, **options)` as `name.json` and `name.safetensors` in a folder."""
    graph, weights = export(*args, name=name, **options)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(graph, separators=(",", ":")), encoding="utf-8")
    (folder / f"{name}.safetensors").write_bytes(weights)


def _stored(weights: dict[str, Tensor], precision: str) -> dict[str, Tensor]:
    stored = {}
    for name, weight in weights.items():
        if precision == "float32" or weight.dim() < 2:
            stored[name] = weight.float()
        elif precision == "float16":
            stored[name] = weight.half()
        else:
            scale = weight.flatten(1).abs().amax(1).clamp(min=1e-12) / 127
            stored[name] = (weight / scale.view(-1, *[1] * (weight.dim() - 1))).round().to(torch.int8)
            stored[f"{name}.scale"] = scale.float()
    return {name: weight.contiguous() for name, weight in stored.items()}


def rounded(weight: Tensor, precision: str) -> Tensor:
    """A matrix or kernel as it comes out of a file in this precision."""
    stored = _stored({"weight": weight.detach()}, precision)
    scale = stored.get("weight.scale", torch.ones(len(weight)))
    return stored["weight"].float() * scale.view(-1, *[1] * (weight.dim() - 1))


class _Graph:
    """Nodes and weights of a traced network; `place` and `constants` say which node, or tensor, stands for a value."""

    def __init__(self, model: nn.Module, input_size: Sequence[int]):
        record = trace(model, input_size)
        if len(record.inputs) != 1 or len(record.outputs) != 1:
            raise ValueError(f"the network has {len(record.inputs)} inputs and {len(record.outputs)} outputs; the engine takes one of each")
        self.parameters = {name: tensor.detach() for name, tensor in record.parameters.values()}
        self.nodes = [{"op": "input", "layer": "", "from": [], "shape": [1, *input_size]}]
        self.weights = {}
        self.place = {id(record.inputs[0]): 0}
        self.constants = {}
        self.uses = {}
        for node in record.nodes():
            for value in node.inputs:
                self.uses[id(value)] = self.uses.get(id(value), 0) + 1
        for step in record.steps:
            if isinstance(step, Step):
                self.step = step
                self.layer = step.call.name if step.call else ""
                if step.kind == "local_response_norm":
                    self.local_response_norm(step.nodes)
                else:
                    for node in step.nodes:
                        self.add(node)
        last = self.place.get(id(record.outputs[0]))
        if last != len(self.nodes) - 1:
            raise ValueError("the network's output is not the last thing that it computes")

    def refuse(self, what: str) -> ValueError:
        return ValueError(f"in module {self.layer!r} ({self.step.call.kind}): the engine of the page lacks {what}")

    def constant(self, value) -> Tensor | None:
        """The tensor of a value that no input went into: a parameter, a buffer of the module, or what was computed of them."""
        if id(value) in self.constants:
            return self.constants[id(value)]
        if value.role == "parameter":
            return self.parameters[value.parameters[0]]
        if value.role in ("buffer", "constant"):
            fitting = [buffer for buffer in self.step.call.module.buffers(recurse=False) if tuple(buffer.shape) == tuple(value.shape)]
            if len(fitting) == 1:
                return fitting[0]
            raise self.refuse(f"tensors that are no parameter, here one of shape {tuple(value.shape)}")
        return None

    def put(self, value, op: str, inputs: Sequence, **settings) -> None:
        self.place[id(value)] = self.node(op, [self.place[id(one)] for one in inputs], value.shape, **settings)

    def node(self, op: str, places: list[int], shape: Sequence[int], **settings) -> int:
        """The number of a new node; of its only input, if it would change nothing."""
        if op in ("reshape", "slice", "cat") and list(shape) == self.nodes[places[0]]["shape"]:
            return places[0]
        self.nodes.append({"op": op, "layer": self.layer, "from": places, "shape": list(shape), **settings})
        return len(self.nodes) - 1

    def keep(self, tensor: Tensor, kind: str, place: int | None = None) -> str:
        name = f"{len(self.nodes) if place is None else place}.{kind}"
        self.weights[name] = tensor.detach().float()
        return name

    def add(self, node) -> None:
        op = node.op.removesuffix("_")
        args, arg, out = node.args, node.arg, node.outputs
        if node.inputs and not any(id(value) in self.place for value in node.inputs):
            self.constants.update(zip(map(id, out), self.computed(node)))
            return
        x = node.inputs[0]
        if op == "convolution":
            self.convolution(node, x, out[0])
        elif op == "linear" or op == "addmm":
            weight, bias = args[1], args[2] if len(args) > 2 else None
            if op == "addmm":
                x, weight, bias = args[1], args[2], args[0]
            weight = self.constant(weight)
            settings = {"weight": self.keep(weight.T if op == "addmm" else weight, "weight")}
            if bias is not None:
                settings["bias"] = self.keep(self.constant(bias), "bias")
            self.put(out[0], "linear", [x], **settings)
        elif op in BATCH_NORMS:
            self.batch_norm(node)
        elif op == "native_layer_norm":
            if len(arg("normalized_shape")) != 1:
                raise self.refuse("layer normalization over more than the last axis")
            settings = {kind: self.keep(self.constant(arg(kind)), kind) for kind in ("weight", "bias") if arg(kind) is not None}
            self.put(out[0], "layer_norm", [x], eps=arg("eps"), **settings)
        elif op == "native_group_norm":
            groups, kept = arg("group"), {kind: self.constant(arg(kind)) for kind in ("weight", "bias") if arg(kind) is not None}
            rows = [1, groups, math.prod(x.shape) // groups]
            place = self.node("layer_norm", [self.node("reshape", [self.place[id(x)]], rows)], rows, eps=arg("eps"))
            self.place[id(out[0])] = place = self.node("reshape", [place], x.shape)
            if kept:
                weight, bias = (kept.get(kind, torch.full(x.shape[1:2], neutral)) for kind, neutral in (("weight", 1.0), ("bias", 0.0)))
                self.put(out[0], "affine", [out[0]], weight=self.keep(weight, "weight"), bias=self.keep(bias, "bias"))
        elif op == "max_pool2d_with_indices" or op == "max_pool2d":
            kernel, padding, dilation = _pair(arg("kernel_size")), _pair(arg("padding", 0)), _pair(arg("dilation", 1))
            stride = _pair(arg("stride") or kernel)
            self.put(out[0], "maxpool", [x], kernel=kernel, stride=stride, padding=padding, dilation=dilation)
        elif op == "avg_pool2d":
            kernel, padding = _pair(arg("kernel_size")), _pair(arg("padding", 0))
            self.put(out[0], "avgpool", [x], kernel=kernel, stride=_pair(arg("stride") or kernel), padding=padding,
                     pad=bool(arg("count_include_pad", True)),
                     **({"divisor": arg("divisor_override")} if arg("divisor_override") else {}))
        elif op in ("_adaptive_avg_pool2d", "adaptive_avg_pool2d"):
            self.put(out[0], "adaptive", [x])
        elif op == "mean" or op == "linalg_vector_norm":
            if op != "mean" and arg("ord", 2) != 2:
                raise self.refuse(f"a norm of order {arg('ord')}")
            axes = arg("dim")
            axes = list(range(len(x.shape))) if axes is None else [axes] if isinstance(axes, int) else list(axes)
            self.put(out[0], "mean" if op == "mean" else "norm", [x], axes=axes)
        elif op in ACTIVATIONS:
            self.activation(op, node, x, out[0])
        elif op in BINARY:
            if op == "div" and arg("rounding_mode") is not None:
                raise self.refuse("division with rounding")
            self.binary(op, args[0], args[1], out[0], arg("alpha", 1))
        elif op == "addcmul":
            product, scaled = (Value(torch.broadcast_shapes(args[1].shape, args[2].shape), out[0].dtype, None, "result") for _ in range(2))
            self.binary("mul", args[1], args[2], product)
            self.binary("mul", product, arg("value", 1), scaled)
            self.binary("add", scaled, args[0], out[0])
        elif op == "cat":
            self.put(out[0], "cat", args[0], axis=arg("dim", 0))
        elif op == "stack":
            axis = arg("dim", 0) % len(out[0].shape)
            one = [*out[0].shape[:axis], 1, *out[0].shape[axis + 1:]]
            places = [self.node("reshape", [self.place[id(value)]], one) for value in args[0]]
            self.place[id(out[0])] = self.node("cat", places, out[0].shape, axis=axis)
        elif op == "permute":
            self.put(out[0], "permute", [x], order=[axis % len(x.shape) for axis in arg("dims")])
        elif op in ("transpose", "t"):
            order = list(range(len(x.shape)))
            one, other = args[1:3] if op == "transpose" else (0, 1)
            order[one], order[other] = order[other], order[one]
            self.put(out[0], "permute", [x], order=order)
        elif op == "slice":
            axis, start, step = arg("dim", 0), arg("start", 0), arg("step", 1)
            self.put(out[0], "slice", [x], axis=axis, start=start + (x.shape[axis] if start < 0 else 0), step=step)
        elif op in ("split", "split_with_sizes", "chunk"):
            start = 0
            for value in out:
                axis = arg("dim", 0)
                self.put(value, "slice", [x], axis=axis, start=start, step=1)
                start += value.shape[axis]
        elif op == "reflection_pad2d":
            before = arg("padding")[2::-2]
            self.gather("padding by reflection", x, out[0], lambda axis, i, length: length - 1 - abs(length - 1 - abs(i - before[axis])))
        elif op == "upsample_nearest2d":
            self.gather("upsampling", x, out[0], lambda axis, i, length: i * length // out[0].shape[2 + axis])
        elif op == "constant_pad_nd":
            self.pad(arg("pad"), float(arg("value", 0)), x, out[0])
        elif op == "_softmax" or op == "softmax":
            if arg("dim") % len(x.shape) != len(x.shape) - 1:
                raise self.refuse(f"softmax over axis {arg('dim')}; it takes the last")
            self.put(out[0], "softmax", [x])
        elif op in SAME and math.prod(x.shape) == math.prod(out[0].shape):
            self.put(out[0], "reshape", [x])
        else:
            raise self.refuse(node.op)

    def computed(self, node) -> tuple[Tensor, ...]:
        """What a node gives whose inputs are weights alone."""
        known = {id(value): self.constant(value) for value in node.inputs}

        def real(thing):
            return known[id(thing)] if id(thing) in known else type(thing)(map(real, thing)) if isinstance(thing, (tuple, list)) else thing

        function, args = getattr(torch.ops.aten, node.op.removesuffix("_")), list(map(real, node.args))
        schemas = [getattr(function, overload)._schema.arguments for overload in function.overloads()]
        # The record has keywords behind the other arguments, in the order of the schema; closed forms may leave out the last.
        for arguments in [*(known for known in schemas if len(known) == len(args)), [None] * len(args)]:
            is_keyword = [argument is not None and argument.kwarg_only for argument in arguments]
            places = [value for value, keyword in zip(args, is_keyword) if not keyword]
            keywords = {argument.name: value for argument, value, keyword in zip(arguments, args, is_keyword) if keyword and value is not None}
            with torch.no_grad(), contextlib.suppress(RuntimeError, TypeError):
                result = function(*places, **keywords)
                result = (result if isinstance(result, tuple) else (result,))[:len(node.outputs)]  # a closed form may record the first alone
                if [tuple(tensor.shape) for tensor in result] == [tuple(value.shape) for value in node.outputs]:
                    return result
        raise self.refuse(f"{node.op} of weights")

    def gather(self, kind, x, out, place) -> None:
        """Rows and columns taken from `x`, each from `place(axis, i, length)` there."""
        index = [[place(axis, i, length) for i in range(out.shape[2 + axis])] for axis, length in enumerate(x.shape[2:])]
        self.put(out, "gather", [x], kind=kind, index=[None, None, *index])

    def pad(self, amounts, fill, x, out) -> None:
        """A negative amount takes away; amounts come in pairs, from the last axis on."""
        dim, place, shape = len(x.shape), self.place[id(x)], list(x.shape)
        before, after = ([0] * (dim - len(amounts) // 2) + list(amounts[side::2])[::-1] for side in (0, 1))
        for axis in range(dim):
            if before[axis] < 0 or after[axis] < 0:
                shape[axis] += min(before[axis], 0) + min(after[axis], 0)
                place = self.node("slice", [place], shape, axis=axis, start=max(-before[axis], 0), step=1)
        if any(amount > 0 for amount in (*before, *after)):
            place = self.node("pad", [place], out.shape, before=[max(amount, 0) for amount in before],
                              fill=fill if math.isfinite(fill) else "-Infinity" if fill < 0 else "Infinity")
        self.place[id(out)] = place

    def convolution(self, node, x, out) -> None:
        weight, bias = self.constant(node.arg("weight")), None if node.arg("bias") is None else self.constant(node.arg("bias"))
        transposed = node.arg("transposed", False)
        if transposed or weight is None or weight.dim() not in (3, 4):
            raise self.refuse("transposed convolution" if transposed else
                              f"convolution by a weight of shape {tuple(node.arg('weight').shape)}")
        flat = weight.dim() == 3  # along one axis: a picture of one row
        stride, padding, dilation = ([neutral, *values] if flat else _pair(values) for neutral, values in
                                     ((1, node.arg("stride")), (0, node.arg("padding")), (1, node.arg("dilation"))))
        weight, (batch, channels, *sides) = weight.unsqueeze(2) if flat else weight, out.shape
        place = self.node("reshape", [self.place[id(x)]], [*x.shape[:2], 1, *x.shape[2:]]) if flat else self.place[id(x)]
        place = self.node("conv", [place], [batch, channels, *([1] if flat else []), *sides], weight=self.keep(weight, "weight"),
                          kernel=list(weight.shape[2:]), stride=stride, padding=padding, dilation=dilation, groups=node.arg("groups", 1))
        if bias is not None:
            self.nodes[-1]["bias"] = self.keep(bias, "bias", place)
        self.place[id(out)] = self.node("reshape", [place], out.shape) if flat else place

    def batch_norm(self, node) -> None:
        """Folded into the convolution before it, if nothing else reads that; else a scale and a shift for each channel."""
        x, out, norm = node.inputs[0], node.outputs[0], self.step.call.module
        if not isinstance(norm, nn.modules.batchnorm._BatchNorm) or norm.running_mean is None:
            raise self.refuse("batch normalization without running statistics")
        scale = (norm.running_var.double() + norm.eps).rsqrt()
        if norm.weight is not None:
            scale = scale * norm.weight.detach()
        shift = -norm.running_mean * scale + (0 if norm.bias is None else norm.bias.detach())
        before = self.nodes[self.place[id(x)]]
        readers = sum(self.uses.get(value, 0) for value, place in self.place.items() if place == self.place[id(x)])
        if before["op"] == "conv" and readers == 1 and "folded" not in before:
            weight = self.weights[before["weight"]]
            self.weights[before["weight"]] = (weight * scale.view(-1, 1, 1, 1)).float()
            if "bias" in before:
                shift = shift + self.weights[before["bias"]] * scale
            before["bias"] = before["weight"].replace("weight", "bias")
            self.weights[before["bias"]] = shift.float()
            before["folded"] = self.layer
            self.place[id(out)] = self.place[id(x)]
        else:
            self.put(out, "affine", [x], weight=self.keep(scale, "weight"), bias=self.keep(shift, "bias"))

    def activation(self, op, node, x, out) -> None:
        """The record of an activation may lack its settings; then they are those of the module, or of the function's name."""
        module, settings, args = self.step.call.module, {}, node.args
        if op in ("hardtanh", "leaky_relu"):
            if len(args) > 1 and args[1] is not None:
                numbers = args[1:]
            elif isinstance(module, nn.Hardtanh):
                numbers = module.min_val, module.max_val
            elif isinstance(module, nn.LeakyReLU):
                numbers = [module.negative_slope]
            elif self.step.kind.strip("_") == "relu6":
                numbers = 0, 6
            else:
                raise self.refuse(f"{op} as a function; call it as a module")
            settings = {"settings": list(map(float, numbers))}
        if op == "gelu" and node.arg("approximate", "none") != "none":
            raise self.refuse(f"gelu with approximate={node.arg('approximate')!r}")
        self.put(out, "act", [x], kind=op, **settings)

    def binary(self, op, one, other, out, factor=1) -> None:
        alpha = {} if factor == 1 else {"alpha": factor}
        if op == "mul" and other == 1:
            self.place[id(out)] = self.place[id(one)]
        elif isinstance(other, (int, float)):
            self.put(out, "binary", [one], kind=op, scalar=other, **alpha)
        elif id(one) in self.place and id(other) in self.place:
            self.put(out, "binary", [one, other], kind=op, **alpha)
        else:
            if id(one) not in self.place:
                if op not in ("add", "mul") or alpha:
                    raise self.refuse(f"{op} of a weight and a value, in this order")
                one, other = other, one
                if id(one) not in self.place:
                    raise self.refuse(f"{op} of two weights")
            constant = self.constant(other)
            self.put(out, "binary", [one], kind=op, constant=self.keep(constant, "constant"), constant_shape=list(constant.shape), **alpha)

    def local_response_norm(self, nodes) -> None:
        """Its pieces are squares, a mean over neighbouring channels, times alpha, plus k, to the power beta."""
        by_op = {}
        for node in nodes:
            by_op.setdefault(node.op, []).append(node)
        size = by_op.get("avg_pool3d", by_op.get("avg_pool2d"))[0].arg("kernel_size")[0]
        alpha = next(node.args[1] for node in by_op["mul"] if isinstance(node.args[1], float))
        self.put(nodes[-1].outputs[0], "lrn", [nodes[-1].inputs[0]], size=size, alpha=alpha, k=float(by_op["add"][0].args[1]),
                 beta=float(by_op["pow"][0].args[1]))


def _pair(value) -> list[int]:
    return list(lengths(value, 2))
