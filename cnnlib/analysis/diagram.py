"""A network as a drawing shows it: layers, the groups that they form, and what flows between them, as plain data.

    drawing = diagram(model, (3, 224, 224))
    drawing.stages                      # names of the parts of the network, from the image to the answer
    drawing.structure("layer1.0")       # series, branches and repeats, for a layout

Three zooms: the network is a row of stages, a stage a graph of blocks, a block a graph of layers. All three are read
    off
the trace of one forward pass: what joins, branches and repeats is found, not declared. What reads two different maps
from outside, such as a cell of NASNet or the decoder of a U-Net, has an input for each. The groups are those of the
modules; where a module is one long chain, such as VGG's `features`, it is cut where the size of the maps changes.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import groupby

from torch import nn

from .ops import lengths, macs
from .trace import Call, Step, Trace, modules_of, trace
from .watch import unchanged

INPUT, OUTPUT = -1, -2  # stand for the network's input and output among the ids of layers
ENDS = ("input", "output")  # kinds of what stands for one of several maps that come from outside, or go there
MOST_LAYERS = 14  # a network of no more units is drawn layer by layer, not stage by stage

MOST_PERIOD = 4  # things that repeat together
MOST_IN_ALL = 250  # convolutions that a network may have to be drawn layer by layer where this is asked for
MOST_IN_BLOCK = 24  # convolutions that a block may have to be drawn layer by layer
JOINS = {"add": "+", "multiply": "\u00d7", "concatenate": "concatenate", "mean": "mean", "subtract": "\u2212",
         "maximum": "max"}
STRIPS = ("norm", "act", "drop", "scale", "flatten", "pad")  # drawn small, on the layer that they belong to
HEAVY = ("conv", "fc", "pool", "attention")


@dataclass
class Part:
    """A layer, or a group of parts, by plain numbers and texts.

    Attributes:
        id: its place in `Diagram.parts`; `parent` is that of the group it is in, None for the whole network.
        name: dotted name of the module (of a function, of the module that calls it), or of a run of modules:
            "features.0-2".
        kind: of a layer, what it does: "conv", "fc", "pool", "norm", "act", "add", "concatenate", "multiply", "split",
            "shuffle", "other", ...; of a group, "group"; in a structure also "input" and "output", see `ENDS`.
        label: in the words of papers, such as "3x3 conv, 64, /2"; of a group, the class of its module or its role.
        code: the line that makes the module, or the function's name.
        input_shape, output_shape: without the batch dimension.
        params, macs, activations: as in `cost_table`; a shared parameter counts once.
        children: ids, in forward order; empty for layers.
    """

    id: int
    name: str
    kind: str
    label: str
    code: str = ""
    input_shape: tuple[int, ...] = ()
    output_shape: tuple[int, ...] = ()
    params: int = 0
    macs: int = 0
    activations: int = 0
    parent: int | None = None
    children: list[int] = field(default_factory=list)
    details: dict = field(default_factory=dict)

    @property
    def is_layer(self) -> bool:
        return self.kind != "group"


@dataclass
class Diagram:
    """All parts of a network, the first of them the whole, and the edges between layers, (from, to) by id.

    `idle` are the modules with weights that evaluation does not use, such as auxiliary classifiers: name -> class.
    """

    title: str
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    parts: list[Part]
    edges: list[tuple[int, int]]
    aliases: dict[str, int] = field(default_factory=dict)  # names of modules that were drawn as a part of another name
    idle: dict[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict:
        """Everything as dictionaries, lists, texts and numbers."""
        return asdict(self)

    @property
    def stages(self) -> list[str]:
        """Names of the parts of which the network consists, in forward order."""
        return [self.parts[child].name for child in self.parts[0].children]

    def find(self, name: str) -> Part:
        """The part of this name, the largest if there are several. Raises `ValueError` for a name that is not there."""
        if name == "":
            return self.parts[0]
        named = [part for part in self.parts if part.name == name]
        if named:  # a group before a layer of its own, such as a concatenation that stands in front of it
            return min(named, key=lambda part: (part.is_layer, part.id))
        if name in self.aliases:
            return self.parts[self.aliases[name]]
        near = [part.name for part in self.parts if part.name.startswith(name.split(".")[0]) and not part.is_layer]
        known = ", ".join((near or self.stages)[:12])
        raise ValueError(f"{name!r} is not a part of {self.title}; choose one of {known}")

    def layers(self, part: Part | None = None) -> list[Part]:
        """The layers of a part, or of the whole, in forward order."""
        part = part or self.parts[0]
        if part.is_layer:
            return [part]
        return [layer for child in part.children for layer in self.layers(self.parts[child])]

    def structure(self, name: str = "", zoom: str | None = None) -> "Series":
        """What a part looks like inside, for a layout: by its groups ("network", "stage") or layer by layer
        ("block")."""
        part = self.find(name)
        zoom = zoom or self.zoom_of(part)
        if zoom not in ("network", "stage", "block"):
            raise ValueError(f"zoom={zoom!r}; choose 'network', 'stage' or 'block'")
        if part.is_layer:
            return Series([Unit([part])])
        if zoom == "network":
            layers = _structure(self, part, by_layers=True, nested=False, period=1)
            single = [item.body.items[0] if isinstance(item, Repeat) else item for item in layers.items]
            if len(single) <= MOST_LAYERS and all(isinstance(item, Unit) for item in single):
                return layers
        frames = zoom == "block" and bool(part.details.get("stage"))
        if zoom == "block" and not frames and any(not self.parts[child].is_layer for child in part.children):
            most = MOST_IN_BLOCK if part.parent is not None else MOST_IN_ALL
            if sum(layer.kind in HEAVY for layer in self.layers(part)) > most:
                zoom = "stage"  # such as a searched cell: its separable convolutions in a few words each
        return _structure(self, part, by_layers=zoom == "block" and not frames, nested=frames,
                          period=1 if zoom == "network" else MOST_PERIOD)

    def zoom_of(self, part: Part) -> str:
        """The zoom at which a part is best drawn: the whole as a network, blocks in a row as a stage, the rest as a
        block."""
        return "network" if part.parent is None else "stage" if part.details.get("stage") else "block"


def diagram(model: nn.Module, input_size: Sequence[int], *, title: str = "") -> Diagram:
    """What is to be drawn of `model` for inputs of `input_size`, (C, H, W) for images, in evaluation mode.

    Nothing is computed and the model is left as it was. Raises what `cnnlib.analysis.trace.trace` raises, and
    `ValueError` for a model that computes nothing of its input.
    """
    modules = modules_of(model)
    with unchanged(modules):
        for _, module in modules:
            module.training = False
        record = trace(model, input_size)
    return _Builder(record, title or type(model).__name__).build()


# From operations to layers


class _Layer:
    def __init__(self, group: "_Group", name: str, module: nn.Module | None, step: str):
        self.group, self.name, self.module, self.step = group, name, module, step
        self.kind = self.label = ""
        self.details = {}
        self.nodes = []
        self.flowing = set()  # values that come from the network's input
        self.sources = []  # layers, or INPUT
        self.input_shape = self.output_shape = ()
        self.outputs = []


class _Group:
    def __init__(self, name: str, label: str, code: str, parent: "_Group | None"):
        self.name, self.label, self.code, self.parent = name, label, code, parent
        self.children = []
        self.is_block = self.is_chain = False

    def layers(self) -> list[_Layer]:
        return [layer for child in self.children for layer in (child.layers() if isinstance(child, _Group)
                                                               else [child])]


PASSING = {"clone", "contiguous", "_to_copy", "alias", "detach", "lift_fresh", "view", "_unsafe_view", "reshape",
           "permute",
           "transpose", "t", "unsqueeze", "squeeze", "expand", "as_strided", "written_through", "copy"}
CONSTANTS = {"new_zeros", "new_ones", "new_full", "zeros_like", "ones_like", "full_like", "bernoulli", "rand_like"}
SPLITS = {"split", "split_with_sizes", "chunk", "slice", "narrow", "unbind", "select"}
ACTIVATIONS = {
    "relu": "ReLU", "hardtanh": "ReLU6", "silu": "SiLU", "gelu": "GELU", "sigmoid": "sigmoid",
    "hardsigmoid": "hard sigmoid",
    "hardswish": "hard swish", "tanh": "tanh", "leaky_relu": "leaky ReLU", "elu": "ELU", "prelu": "PReLU",
    "_prelu_kernel": "PReLU",
    "_softmax": "softmax", "mish": "Mish", "softplus": "softplus", "rrelu_with_noise": "RReLU",
    "log_sigmoid_forward": "log sigmoid",
    "_log_softmax": "log softmax", "clamp": "clip", "clamp_min": "ReLU", "glu": "GLU", "_safe_softmax": "softmax",
}
NORMS = {"native_batch_norm": "BN", "cudnn_batch_norm": "BN", "native_layer_norm": "LN", "native_group_norm": "GN",
         "_native_batch_norm_legit": "BN", "rms_norm": "RMS norm", "_fused_rms_norm": "RMS norm"}
BINARY = {"add": "add", "mul": "multiply", "sub": "subtract", "maximum": "maximum", "cat": "concatenate",
          "stack": "concatenate"}


class _Builder:
    def __init__(self, record: Trace, title: str):
        self.record = record
        self.title = title
        self.groups = {}  # Call -> _Group
        self.made_by = {}  # Value -> layer or INPUT
        self.splits = {}
        self.shuffling = {}  # value between the two views of a channel shuffle -> the value that is shuffled
        self.layers = []
        self.counted = set()

    def build(self) -> Diagram:
        record = self.record
        for value in record.inputs:
            self.made_by[value] = INPUT
        self.uses = {}
        for node in record.nodes():
            for value in set(node.inputs):
                self.uses[value] = self.uses.get(value, 0) + 1
        self.root = _Group("", self.title, type(record.model).__name__, None)
        units = self._units()
        for owner, name, module, steps in units:
            self._read(owner, name, module, steps)
        self._drop_dead()
        if not self.layers:
            raise ValueError(f"{self.title}: no layer leads from its input to its output, so there is nothing to draw")
        self._merge_means()
        self._merge_sums()
        self._chain_concatenations()
        self._hoist_joins()
        return self._assemble()

    def _group_of(self, call: Call | None) -> _Group:
        if call is None or call.parent is None:
            return self.root
        if call not in self.groups:
            parent = self._group_of(call.parent)
            group = self.groups[call] = _Group(call.name, call.kind, _code(call.module), parent)
            parent.children.append(group)
        return self.groups[call]

    def _units(self):
        """(group, name, module, steps) of each layer: of a call that calls no other, or of a function in a larger
        module.

        A call that calls no module but computes with weights twice or more is a group of functions.
        """
        leaf_steps, units = {}, []
        for step in self.record.steps:
            if isinstance(step, Call):
                if not step.has_children:
                    leaf_steps[step] = []
                    units.append((step, leaf_steps[step]))
            elif step.call in leaf_steps:
                leaf_steps[step.call].append(step)
            else:
                units.append((step, [step]))
        for first, steps in units:
            if isinstance(first, Step):
                yield self._group_of(first.call), first.call.name if first.call else "", None, steps
            elif len(steps) > 1 and sum(any(map(_is_heavy, step.nodes)) for step in steps) > 1 or first.parent is None:
                for step in steps:
                    yield self._group_of(first), first.name, None, [step]
            else:
                yield self._group_of(first.parent), first.name, (first.module, first), steps

    def _read(self, group, name, module, steps):
        module, call = module or (None, None)
        kind = steps[0].kind if steps else ""
        nodes = [node for step in steps for node in step.nodes]
        if not nodes:
            if isinstance(module, nn.modules.dropout._DropoutNd) and module.p and call.inputs:
                self._pass_by(group, name, module, call)
            return
        known, inside = [], set()  # operations on what comes from the network's input, and their results
        for node in nodes:
            if node.op not in CONSTANTS and any(value in self.made_by or value in inside for value in node.inputs):
                known.append(node)
                inside.update(node.outputs)
        if not known:
            return
        layer = _Layer(group, name, module, kind)
        layer.nodes = nodes
        layer.flowing = inside | {value for node in known for value in node.inputs if value in self.made_by}
        describe(layer)
        data = [value for node in known for value in node.inputs if value in self.made_by and value not in inside]
        results = [value for node in known for value in node.outputs]
        if layer.kind == "pass":
            self._follow(layer, known, data, results)
            return
        if layer.kind == "split":
            key = (data[0], id(group))
            if key in self.splits:
                layer = self.splits[key]
                layer.nodes = layer.nodes + nodes
            else:
                self.splits[key] = layer
                self._add(layer, data)
        else:
            self._add(layer, data)
        layer.outputs += results
        given = results[-1] if module is None or not call.outputs else call.outputs[0]
        layer.output_shape = tuple(given.shape[1:])
        if layer.kind in ("conv", "pool", "fc", "norm"):
            layer.output_shape = tuple(results[0].shape[1:]) if module is None else layer.output_shape
        for value in results:
            self.made_by[value] = layer

    def _add(self, layer, data):
        layer.input_shape = tuple(data[0].shape[1:]) if data else ()
        sources = dict.fromkeys((self.made_by[value], value) for value in data)
        layer.sources = [made_by for made_by, _ in sources]
        layer.group.children.append(layer)
        self.layers.append(layer)

    def _pass_by(self, group, name, module, call):
        """Dropout does nothing in evaluation; it is drawn where nothing else reads its input."""
        value = call.inputs[0]
        if value in self.made_by and self.uses.get(value, 0) <= 1:
            layer = _Layer(group, name, module, "dropout")
            describe(layer)
            self._add(layer, [value])
            layer.output_shape = layer.input_shape
            layer.outputs = [value]
            self.made_by[value] = layer

    def _follow(self, layer, nodes, data, results):
        """Views and copies: what reads the result reads the source; two views around a transposition are a shuffle."""
        source = data[0]
        made_by = self.made_by[source]
        origin = self.shuffling.pop(source, None)
        for node in nodes:
            if node.op in ("transpose", "permute") and len(node.inputs[0].shape) == 5 and origin is not None:
                origin = (origin[0], True)
            elif node.op in ("view", "_unsafe_view", "reshape") and len(node.outputs[0].shape) == 5:
                origin = (node.inputs[0], False)
        if origin is not None and origin[1] and results[-1].shape == origin[0].shape:
            layer.kind, layer.label = "shuffle", "channel shuffle"
            self._add(layer, [origin[0]])
            layer.output_shape = tuple(results[-1].shape[1:])
            layer.outputs = results
            made_by = layer
            origin = None
        for value in results:
            self.made_by[value] = made_by
            if origin is not None:
                self.shuffling[value] = origin

    # What the layers tell of each other

    def _drop_dead(self):
        alive, left = set(), [self.made_by.get(value) for value in self.record.outputs]
        self.ends = list(dict.fromkeys(layer for layer in left if isinstance(layer, _Layer)))
        while left:
            layer = left.pop()
            if isinstance(layer, _Layer) and layer not in alive:
                alive.add(layer)
                left += layer.sources
        for layer in self.layers:
            if layer not in alive:
                layer.group.children.remove(layer)
        self.layers = [layer for layer in self.layers if layer in alive]

    def _readers(self):
        readers = {layer: [] for layer in self.layers}
        for layer in self.layers:
            for source in layer.sources:
                if source in readers:
                    readers[source].append(layer)
        return readers

    def _remove(self, layer, stand_in):
        layer.group.children.remove(layer)
        self.layers.remove(layer)
        for other in self.layers:
            other.sources = [stand_in if source is layer else source for source in other.sources]
        self.ends = [stand_in if end is layer else end for end in self.ends]

    def _merge_means(self):
        """Maps that are stacked and averaged are joined by their mean."""
        readers = self._readers()
        for layer in list(self.layers):
            if layer.step == "stack" and len(readers[layer]) == 1:
                mean = readers[layer][0]
                if mean.step in ("mean", "sum") and mean.output_shape == layer.input_shape:
                    layer.kind = layer.label = "mean" if mean.step == "mean" else "add"
                    layer.nodes = layer.nodes + mean.nodes
                    layer.output_shape = mean.output_shape
                    self._remove(mean, layer)

    def _merge_sums(self):
        """a + b + c, which Python adds in two steps, is one sum of three."""
        readers = self._readers()
        for layer in list(self.layers):
            into = readers[layer][0] if len(readers[layer]) == 1 else None
            if layer.kind == "add" and into is not None and into.kind == "add" and layer.group is into.group and (
                    layer.output_shape == into.output_shape and into.sources.count(layer) == 1
                    and layer not in self.ends and not set(layer.sources) & set(into.sources)):
                at = into.sources.index(layer)
                into.sources[at : at + 1] = layer.sources
                into.nodes = layer.nodes + into.nodes
                layer.group.children.remove(layer)
                self.layers.remove(layer)

    def _chain_concatenations(self):
        """cat(a, b, c) after p = cat(a, b) is drawn as cat(p, c): the same maps, and how a dense block grows."""
        longest = {}  # first source -> concatenations that begin with it, the latest last
        for layer in self.layers:
            if layer.kind == "concatenate" and layer.sources:
                own = list(layer.sources)
                for earlier, ends in reversed(longest.get(own[0], []) if own else []):
                    if len(ends) < len(own) and own[: len(ends)] == ends:
                        layer.sources = [earlier, *own[len(ends) :]]
                        break
                    if len(ends) < len(own) and own[-len(ends) :] == ends:
                        layer.sources = [*own[: -len(ends)], earlier]
                        break
                for key in {own[0], own[-1]}:
                    longest.setdefault(key, []).append((layer, own))
        for layer in [layer for layer in self.layers if layer.kind == "concatenate" and len(layer.sources) == 1]:
            self._remove(layer, layer.sources[0])

    def _hoist_joins(self):
        """A join of things that all come from outside belongs to the group around."""
        for layer in self.layers:
            while layer.kind in JOINS and layer.group.parent is not None:
                group = layer.group
                inside = set(group.layers())
                first = next(iter(group.layers()), None)
                if first is not layer or any(source in inside for source in layer.sources):
                    break
                group.children.remove(layer)
                parent = group.parent
                parent.children.insert(parent.children.index(group), layer)
                layer.group = parent

    # Groups

    def _assemble(self) -> Diagram:
        self.aliases = {}
        self.sizes = {name: tensor.numel() for name, tensor in self.record.parameters.values()}
        _simplify(self.root, self.aliases, _rows(self.root))
        for layer in self.layers:
            layer.consumers = []
        for layer in self.layers:
            for source in layer.sources:
                if isinstance(source, _Layer):
                    source.consumers.append(layer)
        _make_acyclic(self.root)
        _cut_stages(self.root, self.aliases)
        parts, ids = [], {}

        def add(thing, parent):
            part = Part(len(parts), thing.name, "group", thing.label, parent=parent)
            ids[thing] = part.id
            parts.append(part)
            if isinstance(thing, _Group):
                part.code = thing.code
                dense = all(isinstance(child, _Group) or child.kind == "concatenate" for child in thing.children)
                if parent == 0 and _is_stage(thing) or parent is not None and dense and _has_blocks_in_a_row(thing):
                    part.details["stage"] = True
                elif parent == 0 and thing.is_block:
                    part.details["block"] = True
                part.children = [add(child, part.id) for child in thing.children]
                inside = [parts[child] for child in part.children]
                for key in ("params", "macs", "activations"):
                    setattr(part, key, sum(getattr(child, key) for child in inside))
                if inside:
                    part.input_shape, part.output_shape = inside[0].input_shape, inside[-1].output_shape
            else:
                part.kind, part.details = thing.kind, thing.details
                part.code = _code(thing.module) if thing.module is not None else thing.step
                part.input_shape, part.output_shape = thing.input_shape, thing.output_shape
                self._count(part, thing)
            return part.id

        add(self.root, None)
        _name_stages(parts)
        edges = [(ids[source] if isinstance(source, _Layer) else INPUT, ids[layer])
                 for layer in self.layers for source in layer.sources]
        edges += [(ids[layer], OUTPUT) for layer in self.ends]
        aliases = {name: ids[thing] for name, thing in self.aliases.items() if thing in ids}
        shapes = [tuple(value.shape[1:]) for value in (self.record.inputs[0], self.record.outputs[0])]
        return Diagram(self.title, *shapes, parts, edges, aliases, self._idle())

    def _idle(self) -> dict[str, str]:
        def owners(names):
            """The names of all modules that hold these parameters, directly or further inside."""
            return {name[:end] for name in names for end, letter in enumerate(name) if letter == "."}

        used = owners({name for node in self.record.nodes() for value in node.inputs for name in value.parameters})
        idle, found = owners({name for name, _ in self.record.parameters.values()}) - used, {}
        for name, module in self.record.model.named_modules() if idle else ():
            if name in idle and not any(name.startswith(outer + ".") for outer in found):
                found[name] = type(module).__name__
        return found

    def _count(self, part, layer):
        for node in layer.nodes:
            for value in node.inputs:
                for name in value.parameters:
                    if name not in self.counted:
                        self.counted.add(name)
                        part.params += self.sizes[name]
            if not node.is_view:
                part.macs += macs(node)
        if layer.nodes and not all(node.is_view for node in layer.nodes):
            part.activations = math.prod(layer.output_shape)


def _is_heavy(node) -> bool:
    return macs(node) > 0 and any(value.parameters for value in node.inputs)


def _code(module: nn.Module) -> str:
    """The module's repr, on one line if it is a layer; else its class."""
    if type(module).__repr__ is nn.Module.__repr__ and next(module.children(), None) is not None:
        return type(module).__name__  # without the text of everything inside, block after block
    text = repr(module)
    return text if "\n" not in text and len(text) < 200 else type(module).__name__


# Labels in the words of papers


def by(lengths: Sequence[int]) -> str:
    """(3, 3) -> "3x3" with a multiplication sign."""
    return "\u00d7".join(map(str, lengths))


def sized(kernel: Sequence[int], what: str) -> str:
    """ "3x3 conv", of one dimension "1D conv of size 5"."""
    return f"1D {what} of size {kernel[0]}" if len(kernel) == 1 else f"{by(kernel)} {what}"


SIGNS = {"mul": "\u00d7", "add": "+", "div": "/", "sub": "\u2212", "rsub": "\u2212"}


def scaled(op: str, number: str) -> str:
    """What is done with a map and a number: "/ 1.04", "1 \u2212 x"."""
    return f"{number} \u2212 x" if op == "rsub" else f"{SIGNS[op]} {number}"


def _stride(lengths) -> str:
    lengths = tuple(lengths)
    if all(length == 1 for length in lengths):
        return ""
    return f", /{lengths[0]}" if len(set(lengths)) == 1 else f", /{by(lengths)}"


def describe(layer: _Layer) -> None:
    """Set the kind and the label of a layer from its module and its operations."""
    nodes, module = layer.nodes, layer.module
    ops = [node.op.removesuffix("_") for node in nodes]
    computing = [op for op in ops if op not in PASSING and op not in SPLITS]
    if len(set(computing)) > 1:
        computing = [op for op in computing if op != "constant_pad_nd"]  # padding of the layer that follows
    name = type(module).__name__ if module is not None else ""
    heavy = [node for node in nodes if macs(node) > 0]
    if isinstance(module, nn.modules.dropout._DropoutNd):
        layer.kind, layer.label = "drop", f"dropout {module.p:g}"
        return
    if "LocalResponseNorm" in name:
        layer.kind, layer.label = "norm", "LRN"
        return
    if "Shuffle" in name and "Pixel" not in name:
        layer.kind, layer.label = "shuffle", "channel shuffle"
        return
    weights = [node for node in heavy if any(value.parameters for value in node.inputs)]
    if len(heavy) == 1 and heavy[0].op == "convolution":
        weights = heavy  # by learned weights, by a filter that is given, or by weights made of the input
    if any("scaled_dot_product" in op for op in (*ops, layer.step)) or len(heavy) > 1 and "_softmax" in ops:
        layer.kind, layer.label = "attention", "attention"
    elif len(weights) == 1 and weights[0].op == "convolution":
        _describe_convolution(layer, weights[0])
    elif len(weights) == 1:
        out = weights[0].outputs[0].shape[-1]
        word = {2: "fully connected", 4: "linear (1\u00d71 conv)"}.get(len(weights[0].outputs[0].shape), "linear")
        layer.kind, layer.label = "fc", f"{word}, {out:,}"
        if weights[0].op == "linear":
            layer.details = {"in": weights[0].args[0].shape[-1], "out": out, "bias": weights[0].args[2] is not None}
    elif heavy:
        layer.kind, layer.label = "other", name or layer.step.replace("_", " ") if len(heavy) > 1 else "matrix product"
    elif not computing or computing in (["cat"], ["stack"]) and len(nodes[0].inputs) == 1:
        _describe_view(layer, ops, name)
    elif any(op in NORMS for op in computing) and len(set(computing)) <= 2:
        layer.kind, layer.label = "norm", next(NORMS[op] for op in computing if op in NORMS)
        if "InstanceNorm" in name:
            layer.label = "IN"
    elif len(computing) == 1 or len(set(computing)) == 1 and computing[0] in BINARY:
        _describe_single(layer, computing[0], next(node for node in nodes
                                                   if node.op.removesuffix("_") == computing[0]), name)
    elif module is not None and (type(module).__module__.startswith("torch.nn.modules.activation")
                                 or _is_scaled_activation(computing, nodes)):
        layer.kind, layer.label = "act", name
    elif re.search(r"Norm(\dd)?$", name) and not heavy:
        layer.kind, layer.label = "norm", name
    else:
        layer.kind, layer.label = "other", name or layer.step.replace("_", " ")


def _describe_convolution(layer, node):
    x, weight, bias, stride, padding, dilation, transposed = node.args[:7]
    groups = node.args[8]
    kernel = tuple(weight.shape[2:])
    channels = node.outputs[0].shape[1]
    word = "conv"
    if groups > 1:
        word = "depthwise conv" if groups == x.shape[1] else "grouped conv"
    given = not weight.parameters and weight not in layer.flowing
    if given and 1 < groups == x.shape[1] == channels:  # such as the binomial filter of anti-aliased pooling
        word = "blur pool" if "blur" in type(layer.module).__name__.lower() else "fixed filter"
        layer.kind, layer.label = "pool", f"{sized(kernel, word)}{_stride(stride)}"
        layer.details = {"kernel": list(kernel), "stride": list(stride), "padding": list(padding)}
        return
    if not weight.parameters:
        word = ("fixed " if given else "dynamic ") + word
    if transposed:
        word = "transposed " + word
    label = f"{sized(kernel, word)}, {channels:,}"
    if groups > 1 and groups != x.shape[1]:
        label += f", {groups} groups"
    label += _stride(stride).replace("/", "\u00d7" if transposed else "/")
    if any(length != 1 for length in dilation):
        label += f", dilated {dilation[0] if len(set(dilation)) == 1 else by(dilation)}"
    layer.kind, layer.label = "conv", label
    layer.details = {"kernel": list(kernel), "stride": list(stride), "padding": list(padding),
                     "dilation": list(dilation),
                     "groups": groups, "in": x.shape[1], "out": channels, "bias": bias is not None,
                     "transposed": bool(transposed), "depthwise": 1 < groups == x.shape[1]}


def _steps(nodes) -> bool:
    """Whether only every second, third, ... pixel is kept."""
    return any(node.op == "slice" and len(node.args) > 4 and (node.args[4] or 1) > 1 for node in nodes)


def _describe_view(layer, ops, name):
    splitting = [op for op in ops if op in SPLITS]
    first = layer.nodes[0]
    if name == "Flatten" or layer.step == "flatten":
        layer.kind, layer.label = "flatten", "flatten"
    elif splitting:
        before = first.inputs[0].shape
        node = next(node for node in layer.nodes if node.op in SPLITS)
        after = layer.nodes[-1].outputs[0].shape if node.outputs == () else node.outputs[0].shape
        last = layer.nodes[-1].outputs[0].shape if layer.nodes[-1].outputs else after
        if math.prod(last) == math.prod(before) and len(node.outputs) == 1:
            layer.kind = "pass"
        elif len(before) == 4 and len(last) == 4 and _steps(layer.nodes):
            layer.kind, layer.label = "other", f"subsample{_stride([-(-a // b) for a, b in zip(before[2:], last[2:])])}"
        else:
            layer.kind, layer.label = "split", "split"
    else:
        layer.kind = "pass"


def _is_scaled_activation(computing: Sequence[str], nodes: Iterable) -> bool:
    """Whether a module computes one activation and arithmetic with constants, such as LeNet-5's scaled tanh."""
    return (len(set(computing) & set(ACTIVATIONS)) == 1
            and set(computing) <= {*ACTIVATIONS, "mul", "add", "sub", "div"}
            and not any(value.parameters for node in nodes for value in node.inputs))


def _over_space(value, shape) -> bool:
    """Whether a map, flat or of a volume, becomes one number for each channel."""
    return len(value.shape) in (4, 5) and math.prod(shape) == math.prod(value.shape[:2])


def _describe_single(layer, op, node, name):
    inputs = [value for value in node.inputs if not value.parameters and value.role in ("result", "input")]
    shape = node.outputs[0].shape if node.outputs else ()
    if op in BINARY and len(inputs) > 1:
        layer.kind = BINARY[op]
        layer.label = JOINS[layer.kind]
    elif op in ("cat", "stack"):
        layer.kind, layer.label = "other", "put a token in front"
    elif op in ("mul", "add", "sub", "div", "rsub", "neg") and len(inputs) <= 1:
        has_weight = any(value.parameters for value in node.inputs)
        layer.kind = "scale"
        layer.label = "scale" if op in ("mul", "div") else "shift"
        numbers = [arg for arg in node.args if isinstance(arg, (int, float))]
        if op == "neg":
            layer.label = SIGNS["sub"]
        elif numbers and not has_weight:
            if numbers[0] == (op in ("mul", "div")) and op != "rsub":
                layer.kind = "pass"  # x + 0, as Python's `sum` begins, and x / 1
            layer.details = {"sign": op, "number": numbers[0]}
            layer.label = scaled(op, f"{numbers[0]:g}")
    elif op in ACTIVATIONS:
        layer.kind, layer.label = "act", ACTIVATIONS[op]
    elif op.startswith(("max_pool", "avg_pool", "fractional_max_pool", "lp_pool")):
        word = "max" if op.startswith("max") else "average"
        kernel = lengths(node.arg("kernel_size", 1), len(shape) - 2)
        stride = lengths(node.arg("stride") or kernel, len(shape) - 2)
        padding = lengths(node.arg("padding", 0), len(shape) - 2)
        axes = len(layer.nodes[0].inputs[0].shape) - 2  # of one dimension, PyTorch pools as of two
        kernel, stride, padding = (list(one)[-axes:] for one in (kernel, stride, padding))
        layer.kind, layer.label = "pool", f"{sized(kernel, f'{word} pool')}{_stride(stride)}"
        layer.details = {"kernel": kernel, "stride": stride, "padding": padding}
    elif "adaptive" in op:
        word = "max" if "max" in op else "average"
        space = shape[2:]
        layer.kind = "pool" if space != inputs[0].shape[2:] else "pass"  # a pixel is its own mean
        layer.label = f"global {word} pool" if math.prod(space) == 1 else f"{word} pool to {by(space)}"
    elif op in ("mean", "amax", "sum", "max") and inputs and (
            len(inputs[0].shape) == 4 or _over_space(inputs[0], shape)):
        before, spatial = inputs[0].shape, _over_space(inputs[0], shape)
        layer.kind = "other" if not spatial else "pool" if math.prod(before[2:]) > 1 else "pass"
        layer.label = f"global {'max' if 'max' in op else 'average'} pool" if spatial else f"{op} over channels"
    elif op in ("mean", "sum") and inputs and len(inputs[0].shape) == 3:
        layer.kind, layer.label = "pool", "average over tokens"
    elif "upsample" in op or op == "grid_sampler_2d":
        before, after = inputs[0].shape[2:], shape[2:]
        factor = after[0] / before[0] if before else 1
        layer.kind = "resize"
        layer.label = f"upsample \u00d7{factor:g}" if factor == int(factor) else f"resize to {by(after)}"
        if before == after and "upsample" in op:
            layer.kind = "pass"
    elif op in ("pixel_shuffle", "pixel_unshuffle", "im2col", "unfold"):
        layer.kind, layer.label = "resize", op.replace("_", " ")
    elif "pad" in op:
        layer.kind, layer.label = "pad", "pad"
        before, after = layer.nodes[0].inputs[0].shape[2:], layer.nodes[-1].outputs[0].shape[2:]
        if _steps(layer.nodes) and len(before) == 2 == len(after):  # a shortcut that takes every second pixel
            layer.label = f"subsample{_stride([-(-a // b) for a, b in zip(before, after)])}, pad"
    elif op in NORMS:
        layer.kind, layer.label = "norm", NORMS[op]
    elif op in ("roll", "flip", "index", "index_select", "gather"):
        layer.kind, layer.label = "other", {"roll": "shift windows"}.get(op, op.replace("_", " "))
    else:
        layer.kind, layer.label = "other", name or op.strip("_").replace("_", " ")


# Groups that make sense


def _adopt(group: _Group, children: list) -> None:
    group.children = children
    for child in children:
        if isinstance(child, _Group):
            child.parent = group
        else:
            child.group = group


def _rows(group: _Group) -> set[tuple[str, str]]:
    """(class, class of what it holds several of) for this group and all inside: a stage and its blocks, say."""
    found, held, left = set(), Counter(), group.children[:]
    while left:
        child = left.pop()
        if isinstance(child, _Group) and child.label in CONTAINERS:
            left += child.children
        elif isinstance(child, _Group):
            held[child.label] += 1
    found = {(group.label, label) for label, count in held.items() if count > 1}
    return found.union(*(_rows(child) for child in group.children if isinstance(child, _Group)))


def _simplify(group: _Group, aliases: dict, rows: set[tuple[str, str]]) -> None:
    """Leave out groups that show nothing: empty ones, those of one child, those of one convolution with norm and
    activation.

    Of a group and its only child the outer class is told, unless it is one that holds several elsewhere, see `_rows`.
    """
    children = []
    for child in group.children:
        if isinstance(child, _Group):
            _simplify(child, aliases, rows)
            if len(child.children) == 1 and isinstance(child.children[0], _Group):
                inner = child.children[0]
                aliases[inner.name] = inner
                inner.name = child.name
                if child.label not in CONTAINERS and (child.label, inner.label) not in rows:
                    inner.label, inner.code = child.label, child.code
                child = inner
            layers = child.layers()
            big = sum(layer.kind not in STRIPS for layer in layers)
            if big <= 1 and not any(layer.kind in JOINS for layer in layers):
                if layers:
                    aliases[child.name] = layers[next((i for i, layer in enumerate(layers)
                                                       if layer.kind not in STRIPS), 0)]
                children += child.children
                continue
        children.append(child)
    _adopt(group, children)


def _top(group: _Group, layer: _Layer):
    """The child of `group` that holds `layer`, or None."""
    thing = layer
    while thing is not None:
        above = thing.parent if isinstance(thing, _Group) else thing.group
        if above is group:
            return thing
        thing = above
    return None


def _edges_between(group: _Group) -> tuple[dict, dict]:
    """For each child what it reads and what reads it, among the children of the group."""
    reads = {child: [] for child in group.children}
    readers = {child: [] for child in group.children}
    for child in group.children:
        for layer in child.layers() if isinstance(child, _Group) else [child]:
            for source in layer.sources:
                other = _top(group, source) if isinstance(source, _Layer) else None
                if other is None:
                    reads[child].append(None)  # comes from outside
                elif other is not child:
                    reads[child].append(other)
                    readers[other].append(child)
    return reads, readers


def _make_acyclic(group: _Group) -> None:
    """Open groups that a path leaves and enters again: as boxes they would stand before and behind themselves."""
    while True:
        reads, readers = _edges_between(group)
        waiting = {child: sum(source is not None for source in reads[child]) for child in group.children}
        ready = [child for child in group.children if not waiting[child]]
        done = []
        while ready:
            child = ready.pop(0)
            done.append(child)
            for reader in readers[child]:
                waiting[reader] -= 1
                if not waiting[reader]:
                    ready.append(reader)
        stuck = [child for child in group.children if child not in set(done) and isinstance(child, _Group)]
        if len(done) == len(group.children) or not stuck:
            break
        at = group.children.index(stuck[0])
        _adopt(group, group.children[:at] + stuck[0].children + group.children[at + 1 :])
    for child in group.children:
        if isinstance(child, _Group):
            _make_acyclic(child)


def _is_chain(group: _Group) -> bool:
    """Whether the children follow one after the other and nothing passes by."""
    reads, readers = _edges_between(group)
    from_outside = sum(None in found for found in reads.values())
    return from_outside <= 1 and all(len(set(found)) <= 1 for found in (*reads.values(), *readers.values()))


CONTAINERS = ("Sequential", "ModuleList", "ModuleDict", "Module")


def _mark_blocks(root: _Group) -> None:
    """Set `is_block`: blocks are modules in which paths part and meet; so are others of their class, which happen not
    to.

    (An inverted residual of stride 2 has no shortcut, and is a block all the same.)
    """
    groups, left = [], [root]
    while left:
        group = left.pop()
        groups.append(group)
        left += [child for child in group.children if isinstance(child, _Group)]
        group.is_chain = _is_chain(group)
    blocks = {group.label for group in groups if not group.is_chain} - set(CONTAINERS)
    for group in groups:
        group.is_block = group is not root and (not group.is_chain or group.label in blocks)


def _chain_height(group: _Group) -> int:
    """How many levels of chains of blocks there are: 0 for a block, 1 for a stage, 2 for a network of stages."""
    if not hasattr(group, "height"):
        inner = [child for child in group.children if isinstance(child, _Group)]
        group.height = 0 if not inner or group.is_block or not group.is_chain else 1 + max(map(_chain_height, inner))
    return group.height


def _has_blocks_in_a_row(group: _Group) -> bool:
    """Whether a group inside works on what another group inside made: layers of a dense block, not branches of a
    module."""
    reads, _ = _edges_between(group)
    behind = set()  # children that read a group, directly or through layers
    for child in group.children:
        sources = [source for source in reads[child] if source is not None]
        if any(isinstance(source, _Group) or source in behind for source in sources):
            behind.add(child)
            if isinstance(child, _Group):
                return True
    return False


def _is_stage(group: _Group) -> bool:
    """Whether the group is a row of blocks, with or without something that passes by; what adds that is a block, and so
    is a chain of a class whose others add."""
    adds = group.is_block and group.is_chain or any(
        isinstance(child, _Layer) and child.kind == "add" for child in group.children)
    return _chain_height(group) >= 1 or _has_blocks_in_a_row(group) and not adds or (
        group.label in ("stage", "stem", "head") and any(isinstance(child, _Group) for child in group.children))


def _is_plain(thing) -> bool:
    """Whether a group is a chain of layers and nothing else."""
    return isinstance(thing, _Group) and thing.is_chain and not thing.is_block and all(
        isinstance(child, _Layer) for child in thing.children)


def _open(thing, aliases: dict) -> list:
    """What is in a group, to stand in its place."""
    if not isinstance(thing, _Group):
        return [thing]
    aliases[thing.name] = thing.children[0]
    return thing.children


def _flatten(stage: _Group, aliases: dict) -> None:
    """Rows of blocks in containers of their own become parts of the stage that holds them."""
    children = []
    for child in stage.children:
        inner = (isinstance(child, _Group) and child.label in CONTAINERS and not child.is_block
                 and _chain_height(child) >= 1)
        if inner:
            _flatten(child, aliases)
        children += _open(child, aliases) if inner else [child]
    _adopt(stage, children)


def _side(thing) -> int:
    """Rows of the map that a part gives out, of tokens as if they stood in a square; 1 for vectors."""
    shape = (thing.layers()[-1] if isinstance(thing, _Group) else thing).output_shape
    return shape[1] if len(shape) > 2 else math.isqrt(shape[0]) if len(shape) == 2 else 1


def _sides(group: _Group) -> list[int]:
    return list(dict.fromkeys(_side(child) for child in group.children))


def _cut_stages(root: _Group, aliases: dict) -> None:
    """Make the children of the root stem, stages and head, whatever the modules are called."""
    _mark_blocks(root)
    changed = True
    while changed:  # open what holds several stages, whose maps differ in size
        changed = False
        children = []
        for child in root.children:
            opened = isinstance(child, _Group) and _chain_height(child) >= 2 and (
                len(_sides(child)) > 1 or child.name.endswith("stages"))
            children += _open(child, aliases) if opened else [child]
            changed = changed or opened
        _adopt(root, children)
    # A long chain in which the size changes again and again, VGG's `features`, is opened, and cut below by size.
    children = []
    for child in root.children:
        opened = isinstance(child, _Group) and child.is_chain and not child.is_block and len([side
                for side in _sides(child) if side > 1]) > 2
        children += _open(child, aliases) if opened else [child]
    _adopt(root, children)
    for child in root.children:
        if isinstance(child, _Group) and _chain_height(child) >= 1:
            _flatten(child, aliases)
    if not _is_chain(root):
        _bundle_runs(root)
        _bundle_ends(root)
        return
    _open_ends(root, aliases)
    if all(isinstance(child, _Group) for child in root.children):
        if len(root.children) > MOST_LAYERS:
            _bundle_alike(root)
        return
    runs, run = [], []

    def close():
        if run:
            runs.append(run[:])
        run.clear()

    def resizes(thing):
        return thing.__class__ is _Layer and thing.kind in ("conv", "pool") or isinstance(thing, _Group)

    stages = {child for child in root.children if isinstance(child, _Group) and _is_stage(child)}
    blocks_begin = next((i for i, child in enumerate(root.children) if isinstance(child, _Group) and _side(child) > 1),
                        len(root.children))
    before = None
    in_head = False
    for i, child in enumerate(root.children):
        side = _side(child)
        layer = child if isinstance(child, _Layer) else None
        if isinstance(child, _Group) and stages:  # blocks of one class and size in a row are a stage, too
            if child in stages or not run or not _alike(run[-1], child):
                close()
            run.append(child)
            if child in stages:
                close()
            before = side
            continue
        if stages and run and isinstance(run[-1], _Group):
            close()
        ends = layer is not None and (layer.kind in ("flatten", "fc")
                                      or layer.label.startswith(("average pool to", "global")))
        if not in_head and (side == 1 or ends) and i:
            close()
            in_head = True
        elif not in_head and i > blocks_begin and before is not None and side < before and resizes(child) and not (
                layer is not None and layer.kind == "pool") and not all(
                isinstance(thing, _Layer) and thing.kind in STRIPS for thing in run):
            close()
        elif not in_head and i == blocks_begin and run and not stages:
            close()
        elif not in_head and i <= blocks_begin == len(root.children) and layer is not None and (
                layer.kind == "conv") and (
                before is not None and side < before and run):
            close()
        run.append(child)
        if not in_head and layer is not None and layer.kind == "pool" and side < (before or side + 1) and (
                i >= blocks_begin or blocks_begin == len(root.children)) and side > 1:
            following = root.children[i + 1] if i + 1 < len(root.children) else None
            if not (isinstance(following, _Layer) and following.kind in STRIPS):
                close()
        before = side
    close()
    for i in range(len(runs) - 1, 0, -1):  # norms and activations alone go with what follows them
        if all(isinstance(thing, _Layer) and thing.kind in STRIPS for thing in runs[i]):
            if i + 1 < len(runs) and not (len(runs[i + 1]) == 1 and isinstance(runs[i + 1][0], _Group)):
                runs[i : i + 2] = [runs[i] + runs[i + 1]]
    has_stages = bool(stages) or blocks_begin < len(root.children)
    if has_stages:
        runs = _with_ends(runs)
    children = []
    for i, run in enumerate(runs):
        is_head = _side(run[-1]) == 1 and i == len(runs) - 1
        plain = not any(isinstance(thing, _Group) for thing in run)
        if len(run) == 1 and (not plain or has_stages and i == len(runs) - 1 and not is_head):
            children.append(run[0])
            continue
        between = any(thing in stages for later in runs[i + 1 :] for thing in later)
        role = "transition" if plain and between else "stage"
        role = "head" if is_head else "stem" if i == 0 and has_stages and plain else role
        group = _Group(_run_name(run, root), role, "", root)
        _adopt(group, run)
        children.append(group)
    _adopt(root, children)


def _alike(thing, other) -> bool:
    return isinstance(thing, _Group) and thing.label == other.label and _side(thing) == _side(other)


def _bundle_alike(root: _Group) -> None:
    """Blocks of one class and size in a row as a stage, in a network that is a long row of blocks."""
    children = []
    for _, run in groupby(root.children, key=lambda child: (child.label, _side(child), child.is_block or id(child))):
        run = list(run)
        if len(run) > 1:
            group = _Group(_run_name(run, root), "stage", "", root)
            _adopt(group, run)
            group.is_chain, run = True, [group]
        children += run
    _adopt(root, children)


def _open_ends(root: _Group, aliases: dict) -> None:
    """Groups of layers alone that stand before the first block, or behind the last, with other things, are opened: they
    are a part of the stem, or of the head."""
    holding = [i for i, child in enumerate(root.children) if isinstance(child, _Group) and not _is_plain(child)]
    if not holding:
        return
    children = []
    first, behind = holding[0], holding[-1] + 1
    for run in (root.children[:first], root.children[first:behind], root.children[behind:]):
        loose = [child for child in run if _is_plain(child) and not NUMBERED.search(child.name)]
        beside = any(isinstance(child, _Layer) and not IN_STAGE.search(child.name) for child in run)
        if len(loose) + beside < 2 or any(isinstance(child, _Group) and not _is_plain(child) for child in run):
            loose = []
        for child in run:
            children += _open(child, aliases) if child in loose else [child]
    _adopt(root, children)


def _with_ends(runs: list[list]) -> list[list]:
    """All layers before the first block as one run, and all behind the last as another, but for those of a numbered
    stage."""
    holding = [i for i, run in enumerate(runs)
               if any(isinstance(thing, _Group) or IN_STAGE.search(thing.name) for thing in run)]
    first, last = holding[0], holding[-1]
    inside = [isinstance(thing, _Group) or bool(IN_STAGE.search(thing.name)) for thing in runs[last]]
    cut = len(inside) - inside[::-1].index(True)
    if any(isinstance(thing, _Layer) and thing.kind == "pool" for thing in runs[last][cut:]):
        cut = len(inside)
    stem = [thing for run in runs[:first] for thing in run]
    head = [thing for run in (runs[last][cut:], *runs[last + 1 :]) for thing in run]
    return [run for run in (stem, *runs[first:last], runs[last][:cut], head) if run]


def _bundle_runs(root: _Group) -> None:
    """Stages of a network that is no chain, such as a U-Net: what follows one after the other at one size, read from
    outside at its end alone.

    A join takes in what is resized, cropped or fitted for it by one convolution and read by nothing else.
    """
    if len(root.children) <= MOST_LAYERS:
        return
    reads, readers = _edges_between(root)
    order = {child: i for i, child in enumerate(root.children)}
    runs = {}  # the last of a run -> all of it

    def goes_on(before, child):
        if isinstance(before, _Group):
            return before.label == child.label if isinstance(child, _Group) else child.kind in STRIPS
        return True

    for child in sorted(root.children, key=order.get):
        sources = list(dict.fromkeys(source for source in reads[child] if source is not None))
        alone = [source for source in sources if set(readers[source]) == {child} and source in runs
                 and 2 / 3 < _side(source) / _side(child) < 3 / 2]  # without padding sizes change a little
        if len(sources) == 1 and None not in reads[child] and alone and goes_on(sources[0], child):
            runs[child] = [*runs.pop(sources[0]), child]
        elif len(sources) > 1 and isinstance(child, _Layer) and child.kind in JOINS:
            fitted = [source for source in alone if all(isinstance(thing, _Layer) for thing in runs[source])
                      and sum(thing.kind in HEAVY for thing in runs[source]) < 2]
            runs[child] = [thing for source in fitted for thing in runs.pop(source)] + [child]
        else:
            runs[child] = [child]
    children = []
    for run in sorted(runs.values(), key=lambda run: order[run[-1]]):
        if len(run) == 1:
            children += run
            continue
        is_head = run[-1] is root.children[-1] and all(isinstance(thing, _Layer) for thing in run)
        group = _Group(_run_name(run, root), "head" if is_head else "stage", "", root)
        _adopt(group, run)
        children.append(group)
    _adopt(root, children)


def _bundle_ends(root: _Group) -> None:
    """Layers before the first and behind the last group of a network that is no chain, as stem and head."""
    groups = [i for i, child in enumerate(root.children) if isinstance(child, _Group)]
    if not groups:
        return
    _, readers = _edges_between(root)
    first = next((i for i in range(groups[0]) if len(set(readers[root.children[i]])) != 1), groups[0])
    runs = [("stem", root.children[:first]), ("", root.children[first : groups[-1] + 1]),
            ("head", root.children[groups[-1] + 1 :])]
    children = []
    for role, run in runs:
        if role and len(run) > 1 and not any(layer.kind in JOINS for layer in run):
            group = _Group(_run_name(run, root), role, "", root)
            _adopt(group, run)
            run = [group]
        children += run
    _adopt(root, children)


SIDES = ("encoder", "decoder", "down", "up")  # modules whose parts are told by their names
NUMBERED = re.compile(r"(stage|layer|block|level|(^|\.)features|(^|\.)s)s?[._]?\d+$|(^|\.)(stages|layers|features)$")
IN_STAGE = re.compile(r"(stage|layer|block)s?[._]?\d+(\.|$)")


def _name_stages(parts: list[Part]) -> None:
    """Labels for the parts of the whole: stem, stage 1, stage 2, ..., head; where a module has a name of its own, that.

    A block that stands alone and is of a class that no stage holds, such as what merges patches between two stages of a
    Swin Transformer, is told by its class.
    """
    numbers: Counter[str] = Counter()
    tops = [parts[child] for child in parts[0].children if not parts[child].is_layer]
    held = {parts[child].label for part in tops for child in part.children if not parts[child].is_layer}
    for part in tops:
        last = part.name.rsplit(".", 1)[-1]
        role = part.label in (*CONTAINERS, "stage") or part.details.get("stage") or bool(NUMBERED.search(part.name))
        alone = part.details.get("block") and not part.details.get("stage") and part.label not in (*CONTAINERS, *held)
        if last in ("stem", "head", "classifier") or part.label in ("stem", "head", "transition"):
            part.label = {"classifier": "head"}.get(last, last) if last in ("stem", "head",
                                                                            "classifier") else part.label
        elif side := next((piece for piece in re.split(r"[.-]", part.name) if piece in SIDES), ""):
            numbers[side] += 1
            part.label = f"{side} {numbers[side]}"
        elif alone and "features" in part.name:
            part.label = part.label.strip("_")
        elif (role or part.details.get("block")) and part.code and last.isidentifier() and not NUMBERED.search(
                part.name):
            part.label = last
        elif role or part.details.get("block"):
            numbers["stage"] += 1
            part.label = f"stage {numbers['stage']}"
        else:
            part.label = part.label.strip("_")
    for part in tops:
        side = part.label.removesuffix(" 1")
        if side in SIDES and numbers[side] == 1:
            part.label = side


def _run_name(run: list, root: _Group) -> str:
    """One name for a run of modules: "stem" if it is all of it, else "features.0-2", "conv1-maxpool"."""
    layers = [layer for thing in run for layer in (thing.layers() if isinstance(thing, _Group) else [thing])]
    names = list(dict.fromkeys(layer.name for layer in layers if layer.name)) or ["functions"]
    common = names[0].split(".")
    for name in names:
        parts = name.split(".")
        common = [a for a, b in zip(common, parts) if a == b and common[: common.index(a)] == parts[: common.index(a)]]
    if common and ".".join(common) != names[0]:
        prefix = ".".join(common)
        if sum(layer.name.startswith(prefix + ".") for layer in root.layers()) == len(layers):
            return prefix
    names = list(dict.fromkeys(thing.name for thing in run if thing.name)) or ["functions"]
    first, last = names[0], names[-1]
    if first == last:
        return first + ("" if len(run) == 1 else " and more")
    heads, tails = first.rsplit(".", 1), last.rsplit(".", 1)
    if len(heads) == 2 == len(tails) and heads[0] == tails[0]:
        return f"{first}-{tails[1]}"
    return f"{first}-{last}"


# Structure: series, parallels, repeats


@dataclass
class Unit:
    """Layers drawn as one stack: a convolution with what belongs to it."""

    layers: list[Part]

    def key(self):
        # Shapes of concatenations, norms and activations follow from what is around: they grow through a dense block.
        # Constants by which maps are scaled may differ from block to block, as in NFNet: the drawing tells their range.
        # Where an input comes from differs from block to block; which of the inputs it is does not.
        return tuple((part.kind, part.details.get("sign", part.details.get("number", part.label)),
                      () if part.kind in ("concatenate", *STRIPS) else part.output_shape) for part in self.layers)

    def parts(self) -> list[Part]:
        return self.layers


@dataclass
class Box:
    """A group, drawn as one box, or with what is in it in a frame."""

    part: Part
    inner: "Series | None"
    summary: tuple
    results: list  # shapes of the maps that it gives out, if they are several
    looks: tuple  # what is inside, whether it is drawn or not: only what is the same throughout is a repeat

    def key(self):
        return ("box", self.part.label, self.looks)

    def parts(self) -> list[Part]:
        return [self.part]


@dataclass
class Parallel:
    """Branches between one fork and one join; an empty series is a shortcut."""

    branches: list["Series"]

    def key(self):
        return ("parallel", tuple(branch.key() for branch in self.branches))

    def parts(self) -> list[Part]:
        return [part for branch in self.branches for part in branch.parts()]


@dataclass
class Repeat:
    """The same thing `times` over: drawn once; `copies` are the parts of every turn."""

    times: int
    body: "Series"
    copies: list[list[Part]]

    def key(self):
        return ("repeat", self.times, self.body.key())

    def parts(self) -> list[Part]:
        return self.body.parts()


@dataclass
class Graph:
    """What is neither series nor parallel: nodes with edges between them by number, each edge with a series on it."""

    nodes: list[object]
    edges: list[tuple[int, int, "Series"]]  # -1 is the beginning, -2 the end

    def key(self):
        return ("graph", tuple(node.key() for node in self.nodes),
                tuple((a, b, series.key()) for a, b, series in self.edges))

    def parts(self) -> list[Part]:
        return [part for node in self.nodes for part in node.parts()] + [
            part for _, _, series in self.edges for part in series.parts()]


@dataclass
class Series:
    items: list

    def key(self):
        return tuple(item.key() for item in self.items)

    def parts(self) -> list[Part]:
        return [part for item in self.items for part in item.parts()]


def _structure(diagram: Diagram, part: Part, by_layers: bool, nested: bool, period: int = MOST_PERIOD) -> Series:
    """Series, parallels and repeats of the things in `part`: its layers, or its children, with their insides if
    `nested`.

    What repeats in one row may consist of up to `period` things.
    """
    things = diagram.layers(part) if by_layers else [diagram.parts[child] for child in part.children]
    holder = {}
    for thing in things:
        for layer in diagram.layers(thing):
            holder[layer.id] = thing.id
    own = {thing.id: thing for thing in things}
    edges, seen = [], set()
    given, results = _ends(diagram, part, holder)
    own |= {end.details["place"]: end for end in (*given.values(), *results.values())}
    edges += [[INPUT, end.details["place"], Series([])] for end in given.values()]
    for source, target in diagram.edges:
        a, b = holder.get(source, INPUT), holder.get(target, OUTPUT)
        if a == INPUT and b != OUTPUT and source in given:
            a = given[source].details["place"]
        elif b == OUTPUT and a != INPUT and source in results:
            b = results[source].details["place"]
        if a == b or (a, b) == (INPUT, OUTPUT) or (source not in holder and target not in holder):
            continue
        # Two groups are joined by one line for each layer that is read; one layer is read twice only by a join.
        if (source, b) in seen and not (b in own and own[b].is_layer and own[b].kind != "output"):
            continue
        seen.add((source, b))
        edges.append([a, b, Series([])])
    edges += [[end.details["place"], OUTPUT, Series([])] for end in results.values()]

    def thing_of(id):
        thing = own[id]
        if thing.is_layer:
            return Unit([thing])
        inner = _structure(diagram, thing, by_layers=True, nested=False)
        results = [part.output_shape for part in inner.parts() if part.kind == "output"]
        told = tuple(contents(diagram, thing)) if thing.details.get("stage") else summary(inner)
        return Box(thing, inner if nested else None, told, results, inner.key())

    series = _reduce(edges, thing_of)
    parent_of = {part.id: part.parent for part in diagram.parts}
    return _finish(series, parent_of, period)


def _ends(diagram: Diagram, part: Part, holder: dict) -> tuple[dict[int, Part], dict[int, Part]]:
    """Source -> a part that stands for it, for the maps that come into `part` if they are several, and for those that
    leave it.

    `place` is its number among the nodes: inputs before all layers, outputs behind them.
    """
    read, left = {}, {}  # source -> what reads it
    for source, target in diagram.edges:
        if source not in holder and target in holder:
            read.setdefault(source, []).append(target)
        elif source in holder and target not in holder:
            left.setdefault(source, []).append(target)
    given, results = {}, {}
    if len(read) > 1:
        for i, (source, name) in enumerate(zip(sorted(read), _where(diagram, part, sorted(read), distinct=True))):
            made_by = diagram.parts[source] if source != INPUT else None
            given[source] = Part(source, made_by.name if made_by else "", "input", f"from {name}",
                                 code=made_by.code if made_by else "",
                                 output_shape=made_by.output_shape if made_by else diagram.input_shape,
                                 details={"number": i + 1, "place": OUTPUT - len(read) + i})
    if len(left) > 1:
        order = sorted(left)
        targets = list(dict.fromkeys(target for source in order for target in left[source]))
        names = dict(zip(targets, _where(diagram, part, targets, distinct=False)))
        for i, source in enumerate(order):
            readers = list(dict.fromkeys(names[target] for target in left[source]))
            words = " and ".join(readers) if len(readers) < 3 else f"{readers[0]} and {len(readers) - 1} more"
            results[source] = Part(source, diagram.parts[source].name, "output", f"to {words}",
                                   output_shape=diagram.parts[source].output_shape,
                                   details={"number": i + 1, "place": len(diagram.parts) + i})
    return given, results


RESULTS = {"add": "sum", "multiply": "product", "concatenate": "concatenation", "mean": "mean",
           "subtract": "difference", "maximum": "maximum"}


def _where(diagram: Diagram, part: Part, ids: Sequence[int], distinct: bool) -> list[str]:
    """Where these layers are, seen from `part`: the names of the largest groups that do not hold it.

    Parts of the whole are told by their labels. If they are to be `distinct`, those that would share a name get longer
    ones; outputs of one module are counted.
    """
    around, above = {part.id}, part.parent
    while above is not None:
        around.add(above)
        above = diagram.parts[above].parent
    own = {diagram.parts[id].name for id in around}
    names, longer = [], []
    for id in ids:
        if id in (INPUT, OUTPUT):
            names.append("the input" if id == INPUT else "the output")
            longer.append([])
            continue
        layer = thing = diagram.parts[id]
        while thing.parent not in around:
            thing = diagram.parts[thing.parent]
        inside = f" in {layer.name}" if layer.name else ""
        words = f"the {RESULTS.get(layer.kind, layer.label)}{inside}"
        known = thing.label if thing.parent == 0 and not thing.is_layer else thing.name  # "encoder 2", "stem"
        block = thing.name.rpartition(".")[0]
        if thing.is_layer and block in diagram.aliases and block not in own:
            known = block  # the convolution with its norm and activation
        names.append(words if thing.is_layer and thing.name in own else known)
        pieces = layer.name.split(".")
        longer.append([name for i in range(len(pieces)) if len(name := ".".join(pieces[: i + 1])) > len(thing.name)])
    short = names[:]
    while distinct and (doubled := [i for i, name in enumerate(names) if names.count(name) > 1 and longer[i]]):
        for i in doubled:
            names[i] = longer[i].pop(0)
    same = [short[i] if names.count(name) > 1 else name for i, name in enumerate(names)]
    return [f"{name}, output {same[: i + 1].count(name)}" if distinct and same.count(name) > 1 else name
            for i, name in enumerate(same)]


def _reduce(edges: list, thing_of) -> Series:
    """Series-parallel reduction: a node of one way in and one way out lies on an edge, edges between the same nodes
    merge."""
    into, out = {}, {}
    for edge in edges:
        into.setdefault(edge[1], []).append(edge)
        out.setdefault(edge[0], []).append(edge)
    pending = dict.fromkeys([*into, *out])
    while pending:
        node, _ = pending.popitem()
        if node == OUTPUT or node not in out:
            continue
        # Parallel: all edges from here to one target become one.
        targets = {}
        for edge in out[node]:
            targets.setdefault(edge[1], []).append(edge)
        for target, same in targets.items():
            if len(same) > 1:
                branches, same = [], _without_doubles(same, out[node], into[target])
                for edge in same:
                    inside = edge[2].items
                    branches += inside[0].branches if len(inside) == 1 and isinstance(inside[0],
                                                                                      Parallel) else [edge[2]]
                if len(same) > 1:
                    same[0][2] = Series([Parallel(branches)])
                for edge in same[1:]:
                    _take(out[node], edge)
                    _take(into[target], edge)
                pending[target] = pending[node] = None
        if node not in (INPUT, OUTPUT) and len(into.get(node, ())) == 1 and len(out[node]) == 1:
            first, second = into[node][0], out[node][0]
            first[2] = Series([*first[2].items, thing_of(node), *second[2].items])
            first[1] = second[1]
            _replace(into[second[1]], second, first)
            del into[node], out[node]
            pending[first[0]] = pending[first[1]] = None
    left = [edge for edges in out.values() for edge in edges]
    if len(left) == 1:
        return left[0][2]
    nodes = sorted({end for edge in left for end in edge[:2] if end not in (INPUT, OUTPUT)})
    number = {node: i for i, node in enumerate(nodes)} | {INPUT: INPUT, OUTPUT: OUTPUT}
    ordered = sorted(left, key=lambda edge: (number[edge[0]], edge[1] if edge[1] != OUTPUT else math.inf))
    graph = Graph([thing_of(node) for node in nodes], [(number[a], number[b], series) for a, b, series in ordered])
    return Series(_split_graph(graph))


def _without_doubles(same: list, leaving: list, entering: list) -> list:
    """The edges without all plain lines but one."""
    for edge in [edge for edge in same if not edge[2].items][1:]:
        for edges in (leaving, entering):
            _take(edges, edge)
        same = [other for other in same if other is not edge]
    return same


def _take(edges: list, edge) -> None:
    for i, other in enumerate(edges):
        if other is edge:
            del edges[i]
            return


def _replace(edges: list, old, new) -> None:
    for i, other in enumerate(edges):
        if other is old:
            edges[i] = new
            return


def _split_graph(graph: Graph) -> list:
    """The graph cut at nodes that every path goes through, so that what is simple between them stays simple."""
    order = _topological(len(graph.nodes), graph.edges)
    place = {node: i for i, node in enumerate(order)} | {INPUT: -1, OUTPUT: len(order)}
    spans = [(place[a], place[b]) for a, b, _ in graph.edges]
    covered = [0] * (len(order) + 2)
    for a, b in spans:
        if b - a > 1:
            covered[a + 1] += 1
            covered[b] -= 1
    cuts, depth = [], 0
    for i in range(len(order)):
        depth += covered[i]
        if depth == 0:
            cuts.append(i)
    if not cuts:
        return [graph]
    items = []
    bounds = [-1, *cuts, len(order)]
    for low, high in zip(bounds, bounds[1:]):
        inside = [order[i] for i in range(low + 1, high)]
        number = {node: i for i, node in enumerate(inside)}
        edges = []
        for (a, b, series), (first, last) in zip(graph.edges, spans):
            if low <= first and last <= high:
                edges.append((number.get(a, INPUT) if first > low else INPUT, number.get(b, OUTPUT) if last < high
                              else OUTPUT,
                              series))
        if inside:
            items.append(Graph([graph.nodes[node] for node in inside], edges))
        elif len(edges) == 1:
            items += edges[0][2].items
        elif edges:
            items.append(Parallel([series for _, _, series in edges]))
        if high < len(order):
            items.append(graph.nodes[order[high]])
    return items


def _topological(count: int, edges: Iterable[tuple]) -> list[int]:
    """Numbers of nodes in an order in which every edge goes forward; of those ready, the smallest first."""
    waiting = [0] * count
    targets = [[] for _ in range(count)]
    for a, b, *_ in edges:
        if a >= 0 and b >= 0:
            waiting[b] += 1
            targets[a].append(b)
    ready = [node for node in range(count) if not waiting[node]]
    order = []
    while ready:
        node = min(ready)
        ready.remove(node)
        order.append(node)
        for target in targets[node]:
            waiting[target] -= 1
            if not waiting[target]:
                ready.append(target)
    return order


def _finish(series: Series, parent_of: dict, period: int) -> Series:
    """Fuse layers into units, and fold repeats, in every series."""
    items = []
    for item in series.items:
        if isinstance(item, Parallel):
            branches = [_finish(branch, parent_of, period) for branch in item.branches]
            item = Parallel(sorted(branches, key=lambda branch: not branch.items))  # shortcuts last
        elif isinstance(item, Graph):
            item = _with_strips(item, parent_of)
            item = Graph(item.nodes, [(a, b, _finish(inner, parent_of, period)) for a, b, inner in item.edges])
        items.append(item)
    return Series(fold(fuse(items, parent_of), period))


def _with_strips(graph: Graph, parent_of: dict) -> Graph:
    """The graph with norms and activations that are nodes, since several things read them, on the layer they follow."""
    nodes, edges = graph.nodes[:], graph.edges[:]
    for i, node in enumerate(nodes):
        into = [j for j, edge in enumerate(edges) if edge[1] == i]
        if len(into) == 1 and isinstance(node, Unit) and node.layers[0].kind in STRIPS:
            a, b, series = edges[into[0]]
            *rest, last = fuse([*series.items, node], parent_of)
            if len(last.layers) > 1:
                nodes[i], edges[into[0]] = last, (a, b, Series(rest))
    return Graph(nodes, edges)


def fuse(items: list, parent_of: dict) -> list:
    """Neighbouring layers as stacks of one convolution, linear layer or pooling with the strips that belong to it.

    Norms and activations belong to the layer before them; where they come first (pre-activation), to the one behind.
    """
    out = []
    stack, before = [], False  # before: the stack began with strips

    def close():
        nonlocal stack, before
        if stack:
            out.append(Unit(stack))
        stack, before = [], False

    for i, item in enumerate(items):
        if not isinstance(item, Unit) or len(item.layers) != 1:
            close()
            out.append(item)
            continue
        part = item.layers[0]
        body = next((layer for layer in stack if layer.kind not in STRIPS), None)
        if part.kind in STRIPS:
            if body is not None and before:
                following = next((other.layers[0] for other in items[i + 1 :]
                                  if isinstance(other, Unit) and other.layers[0].kind in HEAVY), None)
                ours = parent_of[part.id] == parent_of[body.id]
                if following is not None and not (ours and parent_of[following.id] != parent_of[body.id]):
                    close()
            before = before or body is None
            stack.append(part)
        elif part.kind in HEAVY:
            sole = (body is not None and body is stack[-1] and body.details.get("depthwise") and part.kind == "conv"
                    and part.details["kernel"] == [1] * len(part.details["kernel"]) and part.details["groups"] == 1
                    and parent_of[part.id] == parent_of[body.id])
            if body is not None and not sole:
                close()
            if body is None and part.kind in ("pool", "fc"):  # only convolutions are pre-activated
                close()
            stack.append(part)
        else:
            close()
            out.append(item)
    close()
    return out


def fold(items: list, most: int) -> list:
    """Neighbours that look the same as a `Repeat`, the shortest period first; a period holds at most `most` things."""
    keys = [item.key() for item in items]
    joins = [isinstance(item, Unit) and item.layers[0].kind in JOINS for item in items]

    def ends_a_block(i):
        """A join, or the activation right behind it: what repeats does not begin there."""
        strips = isinstance(items[i], Unit) and all(layer.kind in STRIPS for layer in items[i].layers)
        return joins[i] or strips and i > 0 and joins[i - 1]

    out, i = [], 0
    while i < len(items):
        best = (1, 1)  # period, times
        for period in range(1, 1 if ends_a_block(i) else most + 1):
            times = 1
            while keys[i + times * period : i + (times + 1) * period] == keys[i : i + period] and (
                    i + (times + 1) * period <= len(items)):
                times += 1
            if times > 1 and times * period > best[0] * best[1]:
                best = (period, times)
        period, times = best
        body = items[i : i + period]
        only_joins = all(isinstance(item, Unit) and item.layers[0].kind not in HEAVY for item in body)
        if times > 1 and not only_joins:
            body = [_spanned(item, last) for item, last in zip(body,
                                                               items[i + (times - 1) * period : i + times * period])]
            copies = [[part for item in items[i + turn * period : i + (turn + 1) * period] for part in item.parts()]
                      for turn in range(times)]
            out.append(Repeat(times, Series(body), copies))
            i += period * times
        else:
            out.append(items[i])
            i += 1
    return out


def _spanned(first, last):
    """What changes from turn to turn as it is in the first and in the last: channels of a concatenation, constants.

    Everything else as it is, and what is in boxes, which show their first turn.
    """
    if isinstance(first, Unit):
        return Unit([_spanned_layer(*pair) for pair in zip(first.layers, last.layers)])
    if isinstance(first, Parallel):
        return Parallel([Series([_spanned(*pair) for pair in zip(a.items, b.items)])
                         for a, b in zip(first.branches, last.branches)])
    return first


def _spanned_layer(first: Part, last: Part) -> Part:
    if first.kind == "concatenate" and first.output_shape != last.output_shape:
        return replace(first, details={"last": last.output_shape[0]})
    if "sign" in first.details and first.label != last.label:
        ends = (f"{layer.details['number']:.3g}" for layer in (first, last))
        return replace(first, label=scaled(first.details["sign"], " to ".join(ends)))
    return first


def _leaves(items: Iterable) -> Iterator:
    """The units and boxes below these items."""
    for item in items:
        if isinstance(item, (Unit, Box)):
            yield item
        elif isinstance(item, Repeat):
            yield from list(_leaves(item.body.items)) * item.times
        elif isinstance(item, Parallel):
            yield from _leaves(found for branch in item.branches for found in branch.items)
        else:
            yield from _leaves([*item.nodes, *(found for _, _, branch in item.edges for found in branch.items)])


def rows_of(unit: Unit) -> list[tuple[Part, str]]:
    """The layers of a unit with their labels; a depthwise convolution and the 1x1 right behind it as one, separable."""
    rows = []
    for part in unit.layers:
        if rows and rows[-1][0].details.get("depthwise") and part.kind == "conv":
            kernel, stride = rows[-1][0].details["kernel"], rows[-1][0].details["stride"]
            rows[-1] = (part, f"{sized(kernel, 'separable conv')}, {part.details['out']:,}{_stride(stride)}")
        else:
            rows.append((part, part.label))
    return rows


def summary(series: Series) -> tuple[str, ...]:
    """A block in a few words, a line for each layer of its longest branch, and how its branches are joined."""
    lines = []
    for item in series.items:
        if isinstance(item, Unit):
            for layer, label in rows_of(item):
                if layer.kind not in (*STRIPS, *JOINS, *ENDS, "split"):
                    lines.append(label)
        elif isinstance(item, Parallel):
            inside = [branch for branch in item.branches if branch.items]
            if len(inside) > 2:
                lines.append(f"{len(item.branches)} branches")
            elif inside:  # the longer one; of two as long, the one that works more
                told = [(summary(branch), sum(part.macs for part in branch.parts())) for branch in inside]
                lines += max(told, key=lambda one: (len(one[0]), one[1]))[0]
        elif isinstance(item, Repeat):
            inner = summary(item.body)
            what = f"({inner[0]})" if len(inner) == 1 else f"{len(inner)} layers"
            lines.append(f"{item.times} \u00d7 {what}")
        elif isinstance(item, Graph):
            inside = [found for _, _, branch in item.edges for found in branch.items] + item.nodes
            labels = [[found.part.label] if isinstance(found, Box) else [
                label for part, label in rows_of(found) if part.kind in HEAVY][-1:] for found in _leaves(inside)]
            things = [label for found in labels for label in found]
            for thing in dict.fromkeys(things):
                count = things.count(thing)
                lines.append(f"{count} \u00d7 ({thing})" if count > 1 else thing)
        elif isinstance(item, Box):
            lines += item.summary if item.part.label in CONTAINERS else [item.part.label]
    runs = [(line, len(list(run))) for line, run in groupby(lines)]
    return tuple(line if count == 1 else f"{count} \u00d7 ({line})" for line, count in runs)


def contents(diagram: Diagram, part: Part) -> list[str]:
    """What a stage consists of: "6 x Bottleneck" for its blocks, with their channels where these grow, and the
    convolutions and poolings between them; its layers where it has no blocks."""
    row, blocks = in_a_row(diagram, part), blocks_in(diagram, part)
    is_block = part.details.get("block") and part.label.startswith("stage ")
    if is_block and part.code.isidentifier() and part.code not in CONTAINERS and not row:
        return [part.code]
    if blocks:
        children = [diagram.parts[child] for child in part.children]
        answers = len(part.output_shape) == 1
        told = [] if row else [child for child in children if child.kind in ("conv", "pool", "group")]
        layers, lines = [child.label for child in told if child.is_layer], []
        for kind, shapes in list(blocks.items())[:3]:
            line = f"({kind})" if ", " in kind and len(shapes) > 1 else kind
            line = f"{len(shapes)} \u00d7 {line}" if len(shapes) > 1 else line
            first, last = shapes[0][:1], shapes[-1][:1]
            lines.append(f"{line}, {first[0]:,} to {last[0]:,}" if first < last and not answers else line)
        if answers:
            behind = children[1 + max(i for i, child in enumerate(children) if not child.is_layer and (
                child.label not in CONTAINERS or in_a_row(diagram, child))) if not row else len(children):]
            return [*lines, *[layer.label for child in behind for layer in diagram.layers(child)
                              if layer.kind in HEAVY][-2:]]
        if len(layers) > 2:
            return lines
        return layers + lines if told and told[0].is_layer else lines + layers
    lines = list(summary(diagram.structure(part.name, "block")))
    return lines if len(lines) <= 5 else [*lines[:4], f"\u2026 {len(lines) - 4} more"]


def blocks_in(diagram: Diagram, part: Part) -> dict[str, list[tuple[int, ...]]]:
    """Classes of the blocks in a stage, and the map behind each block; of a dense block, and of a row of blocks in a
    module of its own, those of its layers."""
    if row := in_a_row(diagram, part):
        return row
    found = {}
    for child in (diagram.parts[child] for child in part.children):
        row = in_a_row(diagram, child)
        if not row and not child.is_layer and child.label not in CONTAINERS:
            row = {child.label.strip("_"): [child.output_shape]}
        for label, shapes in row.items():
            found.setdefault(label, []).extend(shapes)
    return found


def in_a_row(diagram: Diagram, part: Part) -> dict[str, list[tuple[int, ...]]]:
    """What a group consists of if that is blocks of one class alone, or layers of a dense block in the same words, what
    each makes being concatenated with all before it: words -> the map behind each; {} for other groups."""
    inside = [diagram.parts[child] for child in part.children]
    joins = [one.output_shape for one in inside if one.kind == "concatenate"]
    works = [one for one in inside if not one.is_layer or one.kind in HEAVY]
    label = works[0].label.strip("_") if works else ""
    alike = len(works) > 1 and len({one.label for one in works}) == 1 and label not in CONTAINERS
    others = {one.kind for one in inside if one.is_layer} - {"concatenate"}
    if not alike or others and len(joins) != len(works) or others - {*STRIPS, *HEAVY}:
        return {}
    return {label: joins if len(joins) == len(works) else [one.output_shape for one in works]}
