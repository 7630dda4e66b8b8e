"""A network as a drawing shows it: layers, the groups that they form, and what flows between them, as plain data.

    drawing = diagram(model, (3, 224, 224))
    drawing.stages                      # names of the parts of the network, from the image to the answer
    drawing.structure("layer1.0")       # series, branches and repeats, for a layout

Three zooms: the network is a row of stages, a stage a graph of blocks, a block a graph of layers. All three are read
off the trace of one forward pass: what joins, branches and repeats is found, not declared. What reads two different
maps from outside, such as a cell of NASNet or the decoder of a U-Net, has an input for each. The groups are those of
the modules; where a module is one long chain, such as VGG's `features`, it is cut where the size of the maps changes.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field

from torch import nn

from .groups import Group, Layer, arrange, has_blocks_in_a_row, name_stages
from .labels import JOINS, is_heavy
from ..ops import macs
from ..record import Call, Node, Step, Trace, Value
from .structure import INPUT, OUTPUT, Part, Series, structure_of
from ..trace import modules_of, trace
from ..watch import unchanged


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
        return [part.name for part in self.children()]

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

    def children(self, part: Part | None = None) -> list[Part]:
        """What a part consists of, or the whole, in forward order; nothing for a layer."""
        return [self.parts[child] for child in (part or self.parts[0]).children]

    def layers(self, part: Part | None = None) -> list[Part]:
        """The layers of a part, or of the whole, in forward order."""
        part = part or self.parts[0]
        return [part] if part.is_layer else [layer for child in self.children(part) for layer in self.layers(child)]

    def holders(self, parts: Iterable[Part]) -> dict[int, int]:
        """Layer -> the one of these parts that holds it, by id."""
        return {layer.id: part.id for part in parts for layer in self.layers(part)}

    def structure(self, name: str = "", zoom: str | None = None) -> Series:
        """What a part looks like inside, for a layout: by its groups ("network", "stage") or layer by layer
        ("block")."""
        part = self.find(name)
        return structure_of(self, part, zoom or self.zoom_of(part))

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


CONSTANTS = {"new_zeros", "new_ones", "new_full", "zeros_like", "ones_like", "full_like", "bernoulli", "rand_like"}


class _Builder:
    """From the operations of a trace to layers, from layers to groups, and from both to parts."""

    def __init__(self, record: Trace, title: str):
        self.record, self.title = record, title
        self.root = Group("", title, type(record.model).__name__, None)
        self.groups = {}  # Call -> Group
        self.layers = []
        self.made_by = dict.fromkeys(record.inputs, INPUT)  # Value -> Layer or INPUT
        self.uses = Counter(value for node in record.nodes() for value in set(node.inputs))
        self.splits = {}
        self.shuffling = {}  # value between the two views of a channel shuffle -> the value that is shuffled
        self.sizes = {name: tensor.numel() for name, tensor in record.parameters.values()}
        self.counted = set()

    def build(self) -> Diagram:
        for unit in self._units():
            self._read(*unit)
        self._drop_dead()
        if not self.layers:
            raise ValueError(f"{self.title}: no layer leads from its input to its output, so there is nothing to draw")
        self._merge_means()
        self._merge_sums()
        self._chain_concatenations()
        self._hoist_joins()
        return self._assemble()

    # From operations to layers

    def _group_of(self, call: Call | None) -> Group:
        if call is None or call.parent is None:
            return self.root
        if call not in self.groups:
            parent = self._group_of(call.parent)
            group = self.groups[call] = Group(call.name, call.kind, _code(call.module), parent)
            parent.children.append(group)
        return self.groups[call]

    def _units(self) -> Iterator[tuple[Group, str, Call | None, list[Step]]]:
        """(group, name, call, steps) of each layer: of a call that calls no other, or of a function in a larger module,
        which has no call of its own.

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
                units.append((step.call, [step]))
        for call, steps in units:
            if call not in leaf_steps:
                yield self._group_of(call), call.name if call else "", None, steps
            elif call.parent is None or sum(any(map(is_heavy, step.nodes)) for step in steps) > 1:
                for step in steps:
                    yield self._group_of(call), call.name, None, [step]
            else:
                yield self._group_of(call.parent), call.name, call, steps

    def _read(self, group: Group, name: str, call: Call | None, steps: list[Step]) -> None:
        """Make a layer of these steps, or, of views, let those who read the result read the source."""
        module = call.module if call else None
        nodes = [node for step in steps for node in step.nodes]
        if not nodes and isinstance(module, nn.modules.dropout._DropoutNd) and module.p and call.inputs:
            self._pass_by(group, name, call)
        known, inside = [], set()  # operations on what comes from the network's input, and their results
        for node in nodes:
            if node.op not in CONSTANTS and any(value in self.made_by or value in inside for value in node.inputs):
                known.append(node)
                inside.update(node.outputs)
        if not known:
            return
        inputs = [value for node in known for value in node.inputs if value in self.made_by]
        data = [value for value in inputs if value not in inside]
        results = [value for node in known for value in node.outputs]
        layer = Layer(group, name, module, steps[0].kind, nodes, inside.union(inputs))
        if layer.kind == "pass":
            self._follow(layer, known, data[0], results)
            return
        if layer.kind == "split" and (data[0], group) in self.splits:
            layer = self.splits[data[0], group]
            layer.nodes = layer.nodes + nodes
        else:
            self._add(layer, data)
            if layer.kind == "split":
                self.splits[data[0], group] = layer
        given = results[-1] if call is None or not call.outputs else call.outputs[0]
        if call is None and layer.kind in ("conv", "pool", "fc", "norm"):
            given = results[0]
        layer.output_shape = tuple(given.shape[1:])
        self.made_by.update(dict.fromkeys(results, layer))

    def _add(self, layer: Layer, data: list[Value]) -> None:
        layer.input_shape = tuple(data[0].shape[1:])
        layer.sources = [self.made_by[value] for value in dict.fromkeys(data)]
        layer.parent.children.append(layer)
        self.layers.append(layer)

    def _pass_by(self, group: Group, name: str, call: Call) -> None:
        """Dropout does nothing in evaluation; it is drawn where nothing else reads its input."""
        value = call.inputs[0]
        if value in self.made_by and self.uses[value] <= 1:
            layer = Layer(group, name, call.module, "dropout", [], set())
            self._add(layer, [value])
            layer.output_shape = layer.input_shape
            self.made_by[value] = layer

    def _follow(self, layer: Layer, nodes: list[Node], source: Value, results: list[Value]) -> None:
        """Views and copies: what reads the result reads the source; two views around a transposition are a shuffle."""
        made_by = self.made_by[source]
        origin, turned = self.shuffling.pop(source, (None, False))
        for node in nodes:
            if node.op in ("transpose", "permute") and len(node.inputs[0].shape) == 5:
                turned = origin is not None
            elif node.op in ("view", "_unsafe_view", "reshape") and len(node.outputs[0].shape) == 5:
                origin, turned = node.inputs[0], False
        if turned and results[-1].shape == origin.shape:
            layer.kind, layer.label = "shuffle", "channel shuffle"
            self._add(layer, [origin])
            layer.output_shape = tuple(results[-1].shape[1:])
            made_by, origin = layer, None
        self.made_by.update(dict.fromkeys(results, made_by))
        if origin is not None:
            self.shuffling.update(dict.fromkeys(results, (origin, turned)))

    # What the layers tell of each other

    def _drop_dead(self) -> None:
        alive, left = set(), [self.made_by.get(value) for value in self.record.outputs]
        self.ends = list(dict.fromkeys(layer for layer in left if isinstance(layer, Layer)))
        while left:
            layer = left.pop()
            if isinstance(layer, Layer) and layer not in alive:
                alive.add(layer)
                left += layer.sources
        for layer in self.layers:
            if layer not in alive:
                layer.parent.children.remove(layer)
        self.layers = [layer for layer in self.layers if layer in alive]

    def _readers(self) -> dict[Layer, list[Layer]]:
        readers = {layer: [] for layer in self.layers}
        for layer in self.layers:
            for source in layer.sources:
                if source in readers:
                    readers[source].append(layer)
        return readers

    def _remove(self, layer: Layer, stand_in: Layer) -> None:
        layer.parent.children.remove(layer)
        self.layers.remove(layer)
        for other in self.layers:
            other.sources = [stand_in if source is layer else source for source in other.sources]
        self.ends = [stand_in if end is layer else end for end in self.ends]

    def _merge_means(self) -> None:
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

    def _merge_sums(self) -> None:
        """a + b + c, which Python adds in two steps, is one sum of three."""
        readers = self._readers()
        for layer in list(self.layers):
            into = readers[layer][0] if len(readers[layer]) == 1 else None
            if layer.kind == "add" and into is not None and into.kind == "add" and layer.parent is into.parent and (
                    layer.output_shape == into.output_shape and into.sources.count(layer) == 1
                    and layer not in self.ends and not set(layer.sources) & set(into.sources)):
                at = into.sources.index(layer)
                into.sources[at : at + 1] = layer.sources
                into.nodes = layer.nodes + into.nodes
                layer.parent.children.remove(layer)
                self.layers.remove(layer)

    def _chain_concatenations(self) -> None:
        """cat(a, b, c) after p = cat(a, b) is drawn as cat(p, c): the same maps, and how a dense block grows."""
        longest = defaultdict(list)  # first or last source -> concatenations that begin or end with it, the latest last
        joins = [layer for layer in self.layers if layer.kind == "concatenate" and layer.sources]
        for layer in joins:
            own = list(layer.sources)
            for earlier, ends in reversed(longest[own[0]]):
                if len(ends) < len(own) and own[: len(ends)] == ends:
                    layer.sources = [earlier, *own[len(ends) :]]
                    break
                if len(ends) < len(own) and own[-len(ends) :] == ends:
                    layer.sources = [*own[: -len(ends)], earlier]
                    break
            for key in {own[0], own[-1]}:
                longest[key].append((layer, own))
        for layer in joins:
            if len(layer.sources) == 1:
                self._remove(layer, layer.sources[0])

    def _hoist_joins(self) -> None:
        """A join of things that all come from outside belongs to the group around."""
        for layer in self.layers:
            while layer.kind in JOINS and layer.parent.parent is not None:
                group = layer.parent
                inside = group.layers()
                if inside[0] is not layer or not set(inside).isdisjoint(layer.sources):
                    break
                group.children.remove(layer)
                layer.parent = group.parent
                layer.parent.children.insert(layer.parent.children.index(group), layer)

    # From layers and groups to parts

    def _assemble(self) -> Diagram:
        aliases = arrange(self.root)
        parts, ids = [], {}

        def add(thing: Layer | Group, parent: int | None) -> Part:
            part = Part(len(parts), thing.name, thing.kind, thing.label, parent=parent)
            ids[thing] = part.id
            parts.append(part)
            if isinstance(thing, Layer):
                part.details = thing.details
                part.code = _code(thing.module) if thing.module is not None else thing.step
                part.input_shape, part.output_shape = thing.input_shape, thing.output_shape
                self._count(part, thing)
                return part
            part.code = thing.code
            dense = all(child.kind in ("group", "concatenate") for child in thing.children)
            if parent == 0 and thing.is_stage or parent is not None and dense and has_blocks_in_a_row(thing):
                part.details["stage"] = True
            elif parent == 0 and thing.is_block:
                part.details["block"] = True
            inside = [add(child, part.id) for child in thing.children]
            part.children = [child.id for child in inside]
            for key in ("params", "macs", "activations"):
                setattr(part, key, sum(getattr(child, key) for child in inside))
            part.input_shape, part.output_shape = inside[0].input_shape, inside[-1].output_shape
            return part

        add(self.root, None)
        name_stages(parts)
        edges = [(ids.get(source, INPUT), ids[layer]) for layer in self.layers for source in layer.sources]
        edges += [(ids[layer], OUTPUT) for layer in self.ends]
        shapes = [tuple(value.shape[1:]) for value in (self.record.inputs[0], self.record.outputs[0])]
        named = {name: ids[thing] for name, thing in aliases.items() if thing in ids}
        return Diagram(self.title, *shapes, parts, edges, named, self._idle())

    def _count(self, part: Part, layer: Layer) -> None:
        """Set what a layer costs; a parameter that an earlier one reads counts there."""
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


def _code(module: nn.Module) -> str:
    """The module's repr, on one line if it is a layer; else its class."""
    if type(module).__repr__ is nn.Module.__repr__ and next(module.children(), None) is not None:
        return type(module).__name__  # without the text of everything inside, block after block
    text = repr(module)
    return text if "\n" not in text and len(text) < 200 else type(module).__name__
