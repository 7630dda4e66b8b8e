"""What a network costs, layer by layer: shapes, parameters, multiply-adds, activations, bytes.

    table = cost_table(model, (3, 224, 224))
    print(table)                            # rows in forward order, and the total
    table.stages()                          # the same by stage
    table.tree(depth=2)                     # the same by nested modules, with shares
    table.total.params, table.total.macs, table.total.activations

What each column counts stands in the docstring of `Row`.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import nn

from cnnlib import tables

from . import ops
from .inputs import InputSize
from .trace import Call, Step, Trace, Value, trace
from .watch import no_collection


@dataclass(frozen=True)
class Device:
    """The two numbers of a roofline: peak arithmetic in FLOP/s and memory bandwidth in bytes/s."""

    name: str
    flops_per_second: float
    bytes_per_second: float

    def __post_init__(self):
        for number in (self.flops_per_second, self.bytes_per_second):
            if not number > 0:
                raise ValueError(f"a device's peak numbers must be positive, got {number!r} for {self.name!r}")

    def seconds(self, macs: int, bytes_moved: int) -> float:
        """The least time that work can take: arithmetic and traffic overlap, and the slower one decides."""
        return max(2 * macs / self.flops_per_second, bytes_moved / self.bytes_per_second)


@dataclass
class Row:
    """One layer: a call of a module that calls no other, or one torch function called by a larger module; or the sum of such rows.

    Attributes:
        name: the module's dotted name; for a function, the name of the module that calls it ("" is the model itself).
        kind: the module's class, such as "Conv2d", or the function's name, such as "add". Functions that only view
            their input (reshape, permute, slicing) have no row.
        input_shape, output_shape: of the first input and output, without the batch dimension.
        params: parameters that no earlier row has counted; a shared or tied parameter counts once, where it is
            first used. A module that holds parameters and is not called gets a row at the end with `called` False.
        trainable: those of them that require a gradient.
        macs: multiply-adds of convolutions and matrix products (linear layers, attention, einsum), biases not included.
            The same operations are counted as in PyTorch's FlopCounterMode, which counts two FLOPs for each, and
            beside them the products of a matrix or vector with a vector (mv, dot), which it leaves out.
        other: scalar operations of everything else, never part of `macs`: one for each output value of an elementwise
            function or bias; the window's size for each output of pooling; one for each input value of a sum or mean;
            for each value, 2 in batch normalization by running statistics (scale, shift), 7 in normalization by
            statistics of the data (mean 1, variance 2, normalize 2, scale and shift 2), 3 in softmax. Copies count
            none. The products of `nn.Bilinear`, which PyTorch's counter does not know either, stand here.
        activations: values of the output in memory of their own. What is returned in the input's memory adds none:
            views (Flatten), identities (Dropout in evaluation), writing in place (ReLU(inplace=True)).
        bytes_moved: every operation reads its inputs and weights once and writes its outputs once, without fusion and
            without a cache; views move nothing.
        activation_bytes: `activations` in bytes.
        backward: multiply-adds of the backward pass, if they were asked for: for every product one of the same size for each
            operand that needs a gradient. The input needs none.
    """

    name: str
    kind: str
    input_shape: tuple[int, ...] = ()
    output_shape: tuple[int, ...] = ()
    params: int = 0
    trainable: int = 0
    macs: int = 0
    other: int = 0
    activations: int = 0
    activation_bytes: int = 0
    bytes_moved: int = 0
    called: bool = True
    backward: int = 0
    operations: list[tuple[int, int]] = field(default_factory=list, repr=False)  # (macs, bytes moved) of each
    computed = ("flops", "intensity")

    @classmethod
    def of(cls, rows: Iterable["Row"], **own):
        """The sum of these rows; `own` are its other attributes."""
        rows = list(rows)
        sums = {name: sum([getattr(row, name) for row in rows]) for name in SUMMED}
        return cls(**{"name": "", "kind": ""} | own, **sums, operations=[one for row in rows for one in row.operations])

    @property
    def flops(self) -> int:
        """2 x macs."""
        return 2 * self.macs

    @property
    def intensity(self) -> float:
        """Arithmetic intensity: FLOPs (2 x macs) for each byte moved."""
        return self.flops / self.bytes_moved if self.bytes_moved else 0.0

    @property
    def stage(self) -> str:
        """The first part of the name, or the first two below `stages`."""
        parts = self.name.split(".")
        return ".".join(parts[:2] if parts[0] == "stages" else parts[:1])

    def seconds(self, device: Device) -> float:
        """Roofline time on `device`, operation after operation."""
        return sum(device.seconds(macs, moved) for macs, moved in self.operations)


SUMMED = ("params", "trainable", "macs", "other", "activations", "activation_bytes", "bytes_moved", "backward")


class Costs(tables.Rows):
    """A table of such rows."""

    columns = ("name", "kind", "output_shape", "params", "macs", "activations")
    title_of = {"name": "layer", "label": "module", "input_shape": "input", "output_shape": "output",
                "macs": "multiply-adds", "macs%": "% of multiply-adds", "params%": "% of params",
                "bytes_moved": "bytes moved", "peak_bytes": "peak bytes"}

    def names(self) -> list[str]:
        names = super().names()
        return names if any(row.backward for row in self.rows) else [name for name in names if name != "backward"]


@dataclass
class Part(Row):
    """The sum over everything inside one module, and `level`, how deep it lies."""

    level: int = 0

    @property
    def label(self) -> str:
        """The last part of the name, indented by level."""
        return "  " * self.level + (self.name.rpartition(".")[2] or "(model)")


class CostTable(Costs):
    """The rows of a network in forward order, their `total`, and what they were counted for.

    `batch_size`, `dtype` and `training` say for what; `peak_bytes` is the peak of live tensors during a forward pass
    without gradients: the largest sum, at any moment, of the input and of all results that Python code or a running
    operation still holds, every storage once, weights and buffers not included. `peak_module` is where it occurs.
    `unknown` lists (operation, module) for what `ops.OPERATORS` has no entry for, which counts no multiply-adds; `missing` what a
    table that need not be complete (`strict=False`) leaves out.
    """

    def __init__(self, record: Trace, *, backward: bool = False, formulas: Mapping | None = None):
        count = _Count(record, backward, dict(formulas or {}))
        self.modules = count.modules
        self.batch_size = record.batch_size
        self.dtype = record.dtype
        self.training = record.model.training
        self.peak_bytes = record.peak_bytes
        self.peak_module = record.peak_module
        self.missing = tuple(record.missing)
        self.unknown = tuple(count.unknown)
        dtype = str(record.dtype).removeprefix("torch.")
        mode = "training" if self.training else "evaluation"
        batch = "no batch" if self.batch_size is None else f"batch {self.batch_size}"
        notes = [f"{batch}, {dtype}, {mode} mode; multiply-adds of convolutions and matrix products, no "
                 "biases (FLOPs = 2 x multiply-adds)"]
        if self.missing:
            notes.append(f"incomplete: {self.missing[0].reason}")
        if self.unknown:
            names = dict.fromkeys(op for op, _ in self.unknown)
            notes.append(f"not known, and without multiply-adds here: {', '.join(names)}")
        super().__init__(count.rows, Row.of(count.rows), "; ".join(notes))

    def stages(self) -> Costs:
        """The table summed by stage: by the first part of the names, and below `stages` by the first two."""
        groups = {}
        for row in self.rows:
            groups.setdefault(row.stage or "(model)", []).append(row)
        stages = [Row.of(rows, name=name, output_shape=([row.output_shape for row in rows if row.called] or [()])[-1])
                  for name, rows in groups.items()]
        columns = ("stage", "output_shape", "params", "macs", "activations")
        return Costs(stages, self.total, self.note).with_columns(*columns)

    def tree(self, depth: int | None = None) -> Costs:
        """The table summed by module, each below the one that holds it, down to `depth` levels (all by default).

        Raises `ValueError` for a depth that is negative."""
        if depth is not None and depth < 0:
            raise ValueError(f"depth must be 0 or more, got {depth}")
        rows_of = {}  # the parts of a module's name -> the rows inside it
        for row in self.rows:
            path = tuple(row.name.split(".")[:depth]) if row.name else ()
            for level in range(len(path) + 1):
                rows_of.setdefault(path[:level], []).append(row)
        number = {path: i for i, path in enumerate(rows_of)}
        parts = []
        for path in sorted(rows_of, key=lambda path: [number[path[:level]] for level in range(len(path) + 1)]):
            name, rows = ".".join(path), rows_of[path]
            kind, shape = self.modules.get(name) or (rows[0].kind if rows[0].name == name else "", ())
            parts.append(Part.of(rows, name=name, kind=kind, output_shape=shape, level=len(path)))
        columns = ("label", "kind", "output_shape", "params", "params%", "macs", "macs%", "activations")
        return Costs(parts, self.total, self.note).with_columns(*columns, short=True)

    def seconds(self, device: Device) -> float:
        """Roofline time of one forward pass on `device`: for every operation the larger of its arithmetic time
        (2 x macs / peak FLOP/s) and its traffic time (bytes moved / bandwidth)."""
        return self.total.seconds(device)


def cost_table(
    model: nn.Module, input_size: InputSize, *, batch_size: int = 1, dtype: torch.dtype | None = None, backward: bool = False,
    strict: bool = True, formulas: Mapping[str | type[nn.Module], Callable] | None = None,
) -> CostTable:
    """The cost of one forward pass of `model`, layer by layer; nothing is computed and no memory is taken.

    `input_size` is the shape of one sample, (C, H, W) for images, without the batch; several inputs take a sequence of shapes or
    tensors (tensors include the batch), keyword arguments a dictionary, and an `Input` gives a shape with a dtype of its own.
    `dtype` counts as if inputs and weights had this floating-point type; by default the type of the parameters. The model is taken
    in the mode in which it is, training or evaluation, and left unchanged.

    `backward` counts the backward pass too. `strict=False` gives the rows up to the point from which on the network cannot be
    followed, which `missing` names. `formulas` says what is not known here: an operation's name with a function from its `Node` to
    multiply-adds, or a class of modules with a function from (module, input shapes, output shapes) to multiply-adds; such a
    module is one row, and the products inside do not count.

    Raises `TypeError` or `ValueError` for arguments that make no sense, and `AnalysisError` (a `ValueError`), naming
    module and operation, for an input that does not fit the network and for networks that cannot be followed.
    """
    for key, formula in (formulas or {}).items():
        if not (isinstance(key, str) or isinstance(key, type) and issubclass(key, nn.Module)) or not callable(formula):
            raise TypeError(f"formulas takes names of operations and classes of modules, each with a function; got {key!r}: {formula!r}")
    with no_collection():
        record = trace(model, input_size, batch_size=batch_size, dtype=dtype, strict=strict)
        return CostTable(record, backward=backward, formulas=formulas)


# From the record to rows


class _Count:
    """The rows of a record; `modules`: name -> (class, output shape); the keys of `unknown`: (operation, module)."""

    def __init__(self, record: Trace, backward: bool, formulas: dict):
        self.rows, self.modules, self.unknown = [], {}, {}
        self.record, self.formulas = record, formulas
        self.row_of = {}  # leaf call -> its row; a call inside a module that has a formula -> the row of that module
        self.opaque = set()  # calls of modules whose multiply-adds a formula gave, and calls inside them
        self.left = dict(record.parameters.values())  # in order, not counted yet
        self.needs = _needs_gradient(record) if backward else None
        for step in record.steps:
            if isinstance(step, Call):
                self.call(step)
            else:
                self.step(step)
        for name in list(self.left):  # no operation has read these: a row for each module that holds some
            owner = name.rpartition(".")[0]
            if owner not in self.row_of:
                self.row_of[owner] = Row(owner, type(record.model.get_submodule(owner)).__name__, called=False)
                self.rows.append(self.row_of[owner])
            self.parameters(self.row_of[owner], (name,))

    def row(self, name: str, kind: str, inputs: Sequence[Value], outputs: Sequence[Value],
            given: Sequence[Value]) -> Row:
        """A new row; of its outputs those are activations that have memory of their own, not that of what was given."""
        row = Row(name, kind, self.shape(inputs), self.shape(outputs))
        self.rows.append(row)
        given = {value.storage for value in given}
        for value in outputs:
            if value.storage not in given:
                given.add(value.storage)
                row.activations += value.numel
                row.activation_bytes += value.nbytes
        return row

    def shape(self, values: Sequence[Value]) -> tuple[int, ...]:
        """Of the first of these, without the batch."""
        return tuple(values[0].shape[self.record.batch_size is not None:]) if values else ()

    def parameters(self, row: Row, names: Iterable[str]) -> None:
        for name in names:
            if (parameter := self.left.pop(name, None)) is not None:
                count = parameter.numel()
                row.params += count
                row.trainable += count * parameter.requires_grad

    def call(self, call: Call) -> None:
        self.modules[call.name] = (call.kind, self.shape(call.outputs))
        if call.parent in self.opaque:
            self.row_of[call] = self.row_of[call.parent]
            self.opaque.add(call)
            return
        kinds = [kind for kind in type(call.module).__mro__ if kind in self.formulas] if self.formulas else ()
        formula = self.formulas[kinds[0]] if kinds else None
        if formula is None and call.has_children:
            return
        made = [value for value in call.outputs if value.role == "result"]
        row = self.row_of[call] = self.row(call.name, call.kind, call.inputs, made, call.inputs)
        row.output_shape = self.shape(call.outputs)
        held = call.module.parameters() if call.module._modules else call.module._parameters.values()
        self.parameters(row, [self.record.parameters[id(p)][0] for p in held if p is not None])
        if formula is not None:
            self.opaque.add(call)
            shapes = [[value.shape for value in values] for values in (call.inputs, call.outputs)]
            row.macs = formula(call.module, *shapes)
            row.operations.append((row.macs, 0))

    def step(self, step: Step) -> None:
        row = self.row_of.get(step.call)
        if row is None:
            if all([node.is_view for node in step.nodes]):
                return
            inputs = [value for node in step.nodes for value in node.inputs if value.role in ("result", "input")]
            name = step.call.name if step.call else ""
            row = self.row(name, step.kind, inputs, step.nodes[-1].outputs[:1], step.nodes[0].inputs)
        for node in step.nodes:
            for value in node.inputs if self.left else ():
                if value.parameters:
                    self.parameters(row, value.parameters)
            if not node.is_view:
                entry = ops.of(node.op)
                formula = self.formulas.get(node.op) or entry.macs
                if entry is ops.UNKNOWN and node.op not in self.formulas:
                    self.unknown[node.op, row.name] = None
                work = formula(node) if formula is not None and step.call not in self.opaque else 0
                if work and self.needs is not None:
                    row.backward += ops.backward_macs(node, self.needs.__contains__)
                moved = ops.bytes_moved(node)
                row.macs += work
                row.other += entry.other(node)
                row.bytes_moved += moved
                row.operations.append((work, moved))


def _needs_gradient(record: Trace) -> set[Value]:
    """The values that a trainable parameter went into, or that are one."""
    trainable = {name for name, parameter in record.parameters.values() if parameter.requires_grad}
    needing = set()
    for node in record.nodes():
        for value in node.inputs:
            if value.role == "parameter" and value.parameters[0] in trainable:
                needing.add(value)
        if node.op != "detach" and not needing.isdisjoint(node.inputs):
            needing.update(value for value in node.outputs if value.dtype.is_floating_point)
    return needing
