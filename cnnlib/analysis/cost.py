"""What a network costs, layer by layer: shapes, parameters, multiply-adds, activations, bytes.

    table = cost_table(model, (3, 224, 224))
    print(table)                            # rows in forward order, and the total
    table.stages()                          # the same by stage
    table.total.params, table.total.macs, table.total.activations

What each column counts stands in the docstring of `Row`.
"""

import csv
import html
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields

import torch
from torch import nn

from .trace import Call, InputSize, Node, Trace, Value, no_collection, trace


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
    """One layer: a call of a module that calls no other, or one torch function called by a larger module.

    Attributes:
        name: the module's dotted name; for a function, the name of the module that calls it ("" is the model itself).
        kind: the module's class, such as "Conv2d", or the function's name, such as "add". Functions that only view
            their input (reshape, permute, slicing) have no row.
        input_shape, output_shape: of the first input and output, without the batch dimension.
        params: parameters that no earlier row has counted; a shared or tied parameter counts once, where it is
            first used. A module that holds parameters and is not called gets a row at the end with `called` False.
        trainable: those of them that require a gradient.
        macs: multiply-adds of convolutions and matrix products (linear layers, attention, einsum), biases not included.
            The same operations are counted as in PyTorch's FlopCounterMode, which counts two FLOPs for each.
        other: scalar operations of everything else, never part of `macs`: one for each output value of an elementwise
            function or bias; the window's size for each output of pooling; one for each input value of a sum or mean;
            for each value, 2 in batch normalization by running statistics (scale, shift), 7 in normalization by
            statistics of the data (mean 1, variance 2, normalize 2, scale and shift 2), 3 in softmax. Copies count
            none.
        activations: values of the output in memory of their own. What is returned in the input's memory adds none:
            views (Flatten), identities (Dropout in evaluation), writing in place (ReLU(inplace=True)).
        bytes_moved: every operation reads its inputs and weights once and writes its outputs once, without fusion and
            without a cache; views move nothing.
        activation_bytes: `activations` in bytes.
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
    operations: list[tuple[int, int]] = field(default_factory=list, repr=False)  # (macs, bytes moved) of each

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


@dataclass
class Total:
    """Sums over rows; the attributes are those of `Row`. `peak_bytes` is known for the whole network only."""

    params: int
    trainable: int
    macs: int
    other: int
    activations: int
    activation_bytes: int
    bytes_moved: int
    operations: list[tuple[int, int]] = field(repr=False)

    @classmethod
    def of(cls, rows: Iterable[Row]) -> "Total":
        rows = list(rows)
        sums = {item.name: sum([getattr(row, item.name) for row in rows]) for item in fields(cls)[:-1]}
        return cls(**sums, operations=[operation for row in rows for operation in row.operations])

    flops = Row.flops
    intensity = Row.intensity
    seconds = Row.seconds


class Rows:
    """A sequence of rows that prints as a table: for a terminal, as HTML, as Markdown, as CSV."""

    columns = ("name", "kind", "output_shape", "params", "macs", "activations")
    title_of = {"name": "layer", "output_shape": "output", "macs": "multiply-adds", "bytes_moved": "bytes moved"}
    most_rows = 60  # that repr shows; str and to_csv give all

    def __init__(self, rows: Sequence, total: Total, note: str):
        self.rows = list(rows)
        self.total = total
        self.note = note

    def __len__(self):
        return len(self.rows)

    def __iter__(self):
        return iter(self.rows)

    def __getitem__(self, index):
        return self.rows[index]

    def _cells(self) -> list[list[str]]:
        body = [[_text(getattr(row, column)) for column in self.columns] for row in self.rows]
        total = [_text(getattr(self.total, column, "")) for column in self.columns]
        return [[self.title_of.get(column, column) for column in self.columns], *body, ["total", *total[1:]]]

    def _texts(self) -> list[bool]:
        return [column in ("name", "kind", "output_shape", "stage") for column in self.columns]

    def _lines(self, most: int | None = None) -> str:
        cells = self._cells()
        widths = [max(map(len, column)) for column in zip(*cells)]
        lines = ["  ".join(cell.ljust(width) if left else cell.rjust(width)
                           for cell, width, left in zip(row, widths, self._texts())).rstrip() for row in cells]
        rule = "-" * max(map(len, lines))
        body = lines[1:-1]
        if most is not None and len(body) > most:
            half = most // 2
            body = body[:half] + [f"... {len(body) - 2 * half} more rows ..."] + body[-half:]
        return "\n".join([lines[0], rule, *body, rule, lines[-1], self.note])

    def __str__(self):
        return self._lines()

    def __repr__(self):
        return self._lines(self.most_rows)

    def _repr_html_(self) -> str:
        head, *body, total = self._cells()
        align = ["left" if left else "right" for left in self._texts()]

        def line(cells, tag):
            inner = "".join(f'<{tag} style="text-align: {a}">{html.escape(c)}</{tag}>' for c, a in zip(cells, align))
            return f"<tr>{inner}</tr>"

        rows = "\n".join(line(cells, "td") for cells in body)
        return (f"<table>\n<thead>{line(head, 'th')}</thead>\n<tbody>\n{rows}\n</tbody>\n"
                f"<tfoot>{line(total, 'th')}</tfoot>\n</table>\n<p>{html.escape(self.note)}</p>")

    def _repr_markdown_(self) -> str:
        head, *body, total = self._cells()
        marks = [":--" if left else "--:" for left in self._texts()]
        lines = [head, marks, *body, [f"**{cell}**" if cell else "" for cell in total]]
        return "\n".join("| " + " | ".join(line) + " |" for line in lines) + f"\n\n{self.note}"

    def records(self) -> list[dict]:
        """The rows as plain dictionaries, every column included."""
        names = [item.name for item in fields(self.rows[0])] if self.rows else []
        return [{name: getattr(row, name) for name in names if name != "operations"} |
                {"flops": row.flops, "intensity": row.intensity} for row in self.rows]

    def to_frame(self):
        """The rows as a `pandas.DataFrame`, every column included, without the total."""
        import pandas

        return pandas.DataFrame(self.records())

    def to_csv(self) -> str:
        """The rows as comma-separated text, every column included, without the total."""
        records = self.records()
        out = io.StringIO()
        writer = csv.DictWriter(out, list(records[0]) if records else [], lineterminator="\n")
        writer.writeheader()
        writer.writerows(record | {key: _text(value) for key, value in record.items() if isinstance(value, tuple)}
                         for record in records)
        return out.getvalue()


@dataclass
class Stage(Total):
    """The sums over the rows of one stage, and the shape it hands on."""

    stage: str = ""
    output_shape: tuple[int, ...] = ()


class StageTable(Rows):
    columns = ("stage", "output_shape", "params", "macs", "activations")


class CostTable(Rows):
    """The rows of a network in forward order, their `total`, and what they were counted for.

    `batch_size`, `dtype` and `training` say for what; `peak_bytes` is the peak of live tensors during a forward pass
    without gradients: the largest sum, at any moment, of the input and of all results that Python code or a running
    operation still holds, every storage once, weights and buffers not included. `peak_module` is where it occurs.
    """

    def __init__(self, record: Trace):
        rows = _rows(record)
        self.batch_size = record.batch_size
        self.dtype = record.dtype
        self.training = record.model.training
        self.peak_bytes = record.peak_bytes
        self.peak_module = record.peak_module
        dtype = str(record.dtype).removeprefix("torch.")
        mode = "training" if self.training else "evaluation"
        super().__init__(rows, Total.of(rows), (
            f"batch {self.batch_size}, {dtype}, {mode} mode; multiply-adds of convolutions and matrix products, no "
            "biases (FLOPs = 2 x multiply-adds)"))

    def stages(self) -> StageTable:
        """The table summed by stage: by the first part of the names, and below `stages` by the first two."""
        groups = {}
        for row in self.rows:
            groups.setdefault(row.stage or "(model)", []).append(row)
        stages = []
        for name, rows in groups.items():
            total = Total.of(rows)
            shapes = [row.output_shape for row in rows if row.called]
            stages.append(Stage(**vars(total), stage=name, output_shape=shapes[-1] if shapes else ()))
        return StageTable(stages, self.total, self.note)

    def seconds(self, device: Device) -> float:
        """Roofline time of one forward pass on `device`: for every operation the larger of its arithmetic time
        (2 x macs / peak FLOP/s) and its traffic time (bytes moved / bandwidth)."""
        return self.total.seconds(device)


def cost_table(
    model: nn.Module, input_size: InputSize, *, batch_size: int = 1, dtype: torch.dtype | None = None
) -> CostTable:
    """The cost of one forward pass of `model`, layer by layer; nothing is computed and no memory is taken.

    `input_size` is the shape of one sample, (C, H, W) for images; several inputs take a sequence of shapes or tensors
    (tensors include the batch). `dtype` counts as if inputs and weights had this floating-point type; by default the
    type of the parameters. The model is taken in the mode in which it is, training or evaluation, and left unchanged.

    Raises `TypeError` or `ValueError` for arguments that make no sense, and `AnalysisError` (a `ValueError`), naming
    module and operation, for an input that does not fit the network and for networks that cannot be followed.
    """
    with no_collection():
        return CostTable(trace(model, input_size, batch_size=batch_size, dtype=dtype))


def _text(value) -> str:
    if isinstance(value, tuple):
        return "x".join(map(str, value))
    return f"{value:,}" if isinstance(value, int) else str(value)


# From the record to rows


def _rows(record: Trace) -> list[Row]:
    rows = []
    row_of = {}  # leaf call -> its row
    parameters = dict(record.parameters.values())
    left = dict.fromkeys(parameters)  # in order, not counted yet

    def count_parameters(row, names):
        for name in names:
            if name in left:
                del left[name]
                count = parameters[name].numel()
                row.params += count
                row.trainable += count * parameters[name].requires_grad

    def count_activations(row, outputs, given):
        for value in outputs:
            if value.storage not in given:
                given.add(value.storage)
                row.activations += value.numel
                row.activation_bytes += value.nbytes

    for step in record.steps:
        if isinstance(step, Call):
            if not step.has_children:
                row = row_of[step] = Row(step.name, step.kind, _shape(step.inputs), _shape(step.outputs))
                rows.append(row)
                made = [value for value in step.outputs if value.role == "result"]
                count_activations(row, made, {value.storage for value in step.inputs})
                held = step.module.parameters() if step.module._modules else step.module._parameters.values()
                count_parameters(row, [record.parameters[id(p)][0] for p in held if p is not None])
            continue
        row = row_of.get(step.call)
        if row is None:
            computed = [node for node in step.nodes if not node.is_view]
            if not computed:
                continue
            inputs = [value for node in step.nodes for value in node.inputs if value.role in ("result", "input")]
            outputs = step.nodes[-1].outputs[:1]
            row = Row(step.call.name if step.call else "", step.kind, _shape(inputs), _shape(outputs))
            rows.append(row)
            count_activations(row, outputs, {value.storage for value in step.nodes[0].inputs})
        for node in step.nodes:
            for value in node.inputs:
                if value.parameters:
                    count_parameters(row, value.parameters)
            if not node.is_view:
                work, moved = macs(node), bytes_moved(node)
                row.macs += work
                row.other += other_operations(node)
                row.bytes_moved += moved
                row.operations.append((work, moved))
    return rows + _uncalled(record.model, left, count_parameters)


def _uncalled(model, left, count_parameters) -> list[Row]:
    """Rows for the parameters that no operation has read, one for each module that holds some."""
    rows = {}
    modules = dict(model.named_modules()) if left else {}
    for name in list(left):
        owner = name.rpartition(".")[0]
        if owner not in rows:
            rows[owner] = Row(owner, type(modules[owner]).__name__, called=False)
        count_parameters(rows[owner], (name,))
    return list(rows.values())


def _shape(values: Sequence[Value]) -> tuple[int, ...]:
    return tuple(values[0].shape[1:]) if values else ()


# What one operation costs


def macs(node: Node) -> int:
    """Multiply-adds of a convolution or matrix product; 0 for every other operation."""
    op, args = node.op, node.args
    if op == "convolution":
        x, weight, transposed = args[0], args[1], args[6]
        positions = x.shape[2:] if transposed else node.outputs[0].shape[2:]
        return x.shape[0] * math.prod(positions) * weight.numel
    if op == "linear":
        return args[0].numel * args[1].shape[0]
    if op in _PRODUCTS:
        left, right = args[_PRODUCTS[op]], args[_PRODUCTS[op] + 1]
        return left.numel * (right.shape[-1] if len(right.shape) > 1 else 1)
    if op.startswith("_scaled_dot_product"):
        query, key, value = args[:3]
        return math.prod(query.shape[:-1]) * key.shape[-2] * (query.shape[-1] + value.shape[-1])
    return 0


_PRODUCTS = {"mm": 0, "bmm": 0, "addmm": 1, "baddbmm": 1, "mv": 0, "dot": 0, "addmv": 1, "addbmm": 1}

# Operations that move values and compute none.
COPIES = {
    "cat", "clone", "copy", "_to_copy", "constant_pad_nd", "reflection_pad1d", "reflection_pad2d", "replication_pad1d",
    "replication_pad2d", "reflection_pad3d", "replication_pad3d", "stack", "index", "index_select", "gather", "roll",
    "flip", "repeat", "pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "native_channel_shuffle", "im2col", "fill",
    "zero", "zeros_like", "ones_like", "full_like", "new_zeros", "new_ones", "new_full", "masked_fill", "where",
    "upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d", "embedding", "index_put", "scatter", "unfold",
    "tril", "triu", "slice_scatter", "select_scatter", "bernoulli", "arange",
}
_REDUCTIONS = {
    "sum", "mean", "amax", "amin", "max", "min", "prod", "argmax", "argmin", "any", "all", "cumsum",
    "linalg_vector_norm",
}
_BY_DATA = {"native_layer_norm", "native_group_norm", "var", "var_mean", "std", "std_mean"}


def other_operations(node: Node) -> int:
    """Scalar operations that are not multiply-adds of products, by the rules that `Row` states."""
    op = node.op.removesuffix("_")
    out = node.outputs[0].numel if node.outputs else 0
    if op == "convolution" or op == "linear":
        return 0 if node.args[2] is None else out
    if op in ("relu", "add", "mul"):
        return out
    if op == "native_batch_norm":
        return (7 if node.args[5] else 2) * out
    if op in COPIES:
        return 0
    if op in _PRODUCTS or op.startswith("_scaled_dot_product"):
        return out if op in ("addmm", "baddbmm", "addmv") else 0
    if op in _REDUCTIONS:
        return node.inputs[0].numel
    if op in _BY_DATA:
        return (7 if op.startswith("native") else 3) * node.inputs[0].numel
    if op in ("_softmax", "_log_softmax", "_safe_softmax"):
        return 3 * out
    if op.startswith(("max_pool", "avg_pool")):
        return out * math.prod(node.args[1] if not isinstance(node.args[1], int) else (node.args[1],))
    if op.startswith(("_adaptive_avg_pool", "adaptive_max_pool")):
        source = node.inputs[0].shape
        windows = [sum(-(-(i + 1) * a // b) - i * a // b for i in range(b))
                   for a, b in zip(source[2:], node.outputs[0].shape[2:])]
        return math.prod(source[:2]) * math.prod(windows)
    return out


def bytes_moved(node: Node) -> int:
    """Bytes read and written: each input and each output once; a value spread over more elements than it has, once."""
    return (sum([min(value.nbytes, value.storage.nbytes) for value in set(node.inputs)])
            + sum([value.nbytes for value in node.outputs]))
