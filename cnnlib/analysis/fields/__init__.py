"""What part of the input a unit sees: exactly, on any graph of convolutions, pooling, branches and reshapes.

    field = receptive_field(model, (3, 224, 224))
    field["layer4"].size, field["layer4"].stride, field["layer4"].start     # (height, width) pairs

Coordinates count pixels from 0; a field that reaches into the padding starts below 0. How fields are kept stands in
`algebra.py`, how they pass through operations in `rules.py`.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial

from torch import nn

from cnnlib import tables

from ..inputs import InputSize
from ..trace import Trace, Value, trace
from .algebra import NOWHERE, STILL, Branch, Index, State, cover, outermost
from .rules import Follower, spatial_dims


# What people ask for


@dataclass(frozen=True)
class Field:
    """What the units of one layer see of the input, as pairs (height, width), or one entry for each spatial axis.

    Attributes:
        size: length of the largest field of a unit, the part in the padding included.
        stride: how far the field moves from one unit to the next (the "jump"), a fraction where several units share a field; 0
            where there is one field for all units.
        start: input coordinate of the first unit's left or upper edge; negative in the padding.
        units: how many units the layer has along the axis.
        aligned: whether all paths to a unit have fields with the same stride and centre.
        unaligned: names of the modules that join paths of which this is not true.
        global_axes: for each axis whether some path sees the whole input along it: squeeze-and-excitation, global pooling,
            attention, normalization by statistics of the image. `size`, `stride` and `start` are then those of the other
            paths, if there are any.
        global_context: whether this is so along any axis.
    """

    size: tuple[int, ...]
    stride: tuple[int | Fraction, ...]
    start: tuple[int, ...]
    units: tuple[int, ...]
    aligned: bool
    unaligned: tuple[str, ...]
    global_axes: tuple[bool, ...]
    input_size: tuple[int, ...]
    _seen: Callable[[], tuple[tuple[tuple[int, int], ...], ...]] = field(repr=False, compare=False)

    @property
    def global_context(self) -> bool:
        return any(self.global_axes)

    def pixels(self, unit: Sequence[int]) -> tuple[tuple[int, int], ...]:
        """First and last pixel that `unit` (row, column) sees along each axis, by the paths that `size` is about.

        Only pixels of the image count: at a border this can be less than the field cut off at the image's edge, since
        padding between the layers holds nothing. (0, -1) stands for a unit that sees nothing. Each axis counts by
        itself: what the position along another axis alone decides is not taken out.
        Raises `ValueError` for a unit that the layer does not have."""
        if len(unit) != len(self.units) or not all(0 <= i < n for i, n in zip(unit, self.units)):
            raise ValueError(f"unit must lie within {self.units}, got {tuple(unit)}")
        spans = [axis[i] for axis, i in zip(self._seen(), unit)]
        return tuple((0, -1) if span == NOWHERE else span for span in spans)

    def units_seeing(self, pixel: Sequence[int]) -> tuple[tuple[int, ...], ...]:
        """Along each axis, the indices of the units whose pixels include `pixel` (row, column).

        Raises `ValueError` for a pixel outside the image."""
        if len(pixel) != len(self.input_size) or not all(0 <= i < n for i, n in zip(pixel, self.input_size)):
            raise ValueError(f"pixel must lie within {self.input_size}, got {tuple(pixel)}")
        return tuple(tuple(i for i, (first, last) in enumerate(spans) if first <= x <= last)
                     for x, spans in zip(pixel, self._seen()))

    def __getstate__(self):
        return vars(self) | {"_seen": partial(tuple, self._seen())}  # worked out


# Along one axis: the factors along which its units lie, their lengths, and the branches that count.
_Units = tuple[Sequence[int], Sequence[int], Sequence[Branch]]


def _units(state: State, endless: State | None = None) -> list[_Units]:
    """The units along each axis; of a tensor with borders those that it has in its `endless` state. Those of a map are
    its places; what its channels see is taken together. Paths that see everything count where there are no others."""
    endless = endless or state
    has_local = [any(not branch.everywhere for branch in axis) for axis in endless.axes]
    axes = [[branch for branch in axis if not (local and branch.everywhere)] for axis, local in zip(state.axes, has_local)]
    carrying = state.places[2:] if _is_map(endless) else _scattered(state, axes)
    units = []
    for axis, places in zip(axes, carrying):
        others = [i for i in range(len(state.factors)) if i not in places]
        branches = [branch.summed(others, state.factors) for branch in axis]
        seeing = [branch for branch in branches if branch.first != math.inf]
        units.append((places, [state.factors[i] for i in places], outermost(seeing, state.factors)))
    return units


def _depending(branches: Iterable[Branch], moving: bool = True) -> set[int]:
    """The factors on which the field depends, or those that move it."""
    return {i for branch in branches for i, index in enumerate(branch.indices)
            if index.moves or not moving and index is not STILL}


def _is_map(state: State) -> bool:
    """Whether the tensor is a map whose fields move along the dimensions of their own axes alone, or differ along them."""
    dims = state.places
    if len(dims) != len(state.axes) + 2:
        return False
    moves = list(map(_depending, state.axes))
    later = [moving.difference(dims[1]) for moving in moves]
    if not any(later) and (any(moves) or _depending(itertools.chain(*state.axes), False).isdisjoint(itertools.chain(*dims[2:]))):
        return False
    return all(moving <= set(places) and (moving or not rest) for moving, rest, places in zip(later, moves, dims[2:]))


def _scattered(state: State, axes: Sequence[Sequence[Branch]]) -> list[list[int]]:
    """For each axis the factors along which its units lie (tokens, windows): those that move a field.

    One that moves none but stands in a dimension beside such a factor goes with the nearest on its left, or else on its
    right. Channels in front, where a tensor was flattened, and a vector that holds the whole image are no places."""
    dims, every = state.places, list(itertools.chain(*state.axes))
    moving = _depending(every)
    beside: dict[int, int] = {}  # still factor -> the moving one that it goes with
    if len(dims) > 2 and (_depending(every, False) != moving or len(state.factors) > len(dims)):
        for dim, places in enumerate(dims):
            movers = [i for i in places if i in moving]
            for i in places:
                left = [j for j in movers if j < i]
                if movers and i not in moving and (left or dim > 1 or dim == 1 and len(dims) > len(axes) + 1):
                    beside[i] = left[-1] if left else movers[0]
    moves = map(_depending, axes)
    return [sorted(own | {i for i, place in beside.items() if place in own}) for own in moves]


def _spans(carrying: Sequence[int], lengths: Sequence[int], branches: Sequence[Branch]) -> list[tuple[int, int]]:
    """The span of every unit."""
    return [cover(branch.span(carrying, unit) for branch in branches)
            for unit in itertools.product(*map(range, lengths))]


def _is_steady(carrying: Sequence[int], branches: Sequence[Branch]) -> bool:
    """Whether the field only moves by the same step from every unit to the next."""
    indices = [branch.indices[place] for place in carrying for branch in branches]
    return len(carrying) == 1 and bool(indices) and all(
        not index.is_table and len(index.first) == 1 and index.step == indices[0].step for index in indices)


def _field(state: State, input_size: tuple[int, ...], seen: Callable) -> Field:
    sizes, strides, starts, units = [], [], [], []
    for carrying, lengths, branches in _units(state):
        spans = _spans(carrying, (1,) if _is_steady(carrying, branches) else lengths, branches)
        seeing = [span for span in spans if span[0] != math.inf]
        sizes.append(max(last - first + 1 for first, last in seeing))
        starts.append(seeing[0][0])
        units.append(math.prod(lengths))
        strides.append(_stride(branches, carrying, lengths))
    names = tuple(dict.fromkeys(name for axis in state.unaligned for name in axis))
    everywhere = tuple(any(branch.everywhere for branch in axis) for axis in state.axes)
    return Field(tuple(sizes), tuple(strides), tuple(starts), tuple(units), not names, names, everywhere, input_size, seen)


def _stride(branches: Sequence[Branch], carrying: Sequence[int], lengths: Sequence[int]) -> int | Fraction:
    """Mean advance from one unit to the next, along the innermost index that moves the field."""
    sharing = 1  # units that share a field
    for place, length in zip(reversed(carrying), reversed(lengths)):
        indices = [branch.indices[place] for branch in branches]
        if any([index.moves for index in indices]):
            stride = max(map(_slope, indices), key=abs) / sharing
            return int(stride) if stride.denominator == 1 else stride
        sharing *= length
    return 0


def _slope(index: Index) -> Fraction:
    if not index.is_table:
        return Fraction(index.step, len(index.first))
    places = [(i, first) for i, first in enumerate(index.first) if first != math.inf]
    (i, a), (j, b) = places[0], places[-1]
    return Fraction(b - a, j - i) if j > i else Fraction(0)


class Fields(tables.Printed, Mapping):
    """Module names in forward order, each with the `Field` of its output; `output` is the field of the whole network.

    Modules whose output does not depend on the input's pixels are left out. A module called more than once
    stands for its last call. `missing` lists what could not be followed, and where, if that was allowed (`strict=False`): modules
    behind it are left out too. Pickled, and printed, are the fields alone.
    """

    def __init__(self, record: Trace, source: int, strict: bool = True):
        self._record = record
        self._source = source
        follower = Follower(record, source, strict=strict)
        self._states = follower.states
        self.missing = tuple(follower.missing)
        self._strict = strict
        self._bounded = None
        value = record.inputs[source]
        self.input_size = tuple(value.shape[dim] for dim in spatial_dims(value))
        self._fields = {}
        self._values = {call.name: call.outputs[0] for call in record.calls()
                        if call.name and call.outputs and self._is_seeing(call.outputs[0])}
        self._output = record.outputs[0] if record.outputs and self._is_seeing(record.outputs[0]) else None

    def _is_seeing(self, value: Value) -> bool:
        return value in self._states and all(self._states[value].axes)

    def _field_of(self, value: Value) -> Field:
        state = self._states[value]  # the same one behind operations that keep each unit's field
        if state not in self._fields:
            self._fields[state] = _field(state, self.input_size, lambda: self._seen(value))
        return self._fields[state]

    def _seen(self, value: Value) -> tuple[tuple[tuple[int, int], ...], ...]:
        """For each axis the span of every unit, borders respected."""
        if self._bounded is None:
            self._bounded = Follower(self._record, self._source, bounded=True, strict=self._strict).states
        units = self._field_of(value).units
        axes = [[NOWHERE]] * len(units)
        if value in self._bounded:
            axes = [_spans(*axis) for axis in _units(self._bounded[value], self._states[value])]
        return tuple(tuple(spans) if len(spans) == n else (spans[0],) * n for spans, n in zip(axes, units))

    def __getitem__(self, name: str) -> Field:
        return self._field_of(self._values[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    @property
    def output(self) -> Field | None:
        """The field of the network's first output, None if it does not depend on the pixels."""
        return None if self._output is None else self._field_of(self._output)

    def __getstate__(self):
        fields = dict(self.items())
        return {"_fields": {**fields, "": self.output}, "_values": {name: name for name in fields},
                "_states": {name: name for name in (*fields, "")}, "_output": None if self.output is None else "",
                "missing": self.missing, "input_size": self.input_size}

    def _cells(self) -> dict:
        rows = [("layer", "size", "stride", "start", "notes")]
        for name, one in self.items():
            axes = "" if all(one.global_axes) else f" (axis {', '.join(str(i) for i, flag in enumerate(one.global_axes) if flag)})"
            notes = [f"global context{axes}"] * one.global_context + ["unaligned"] * (not one.aligned)
            rows.append((name, *("x".join(map(str, pair)) for pair in (one.size, one.stride)),
                         ", ".join(map(str, one.start)), ", ".join(notes)))
        missing = [f"{one.module or 'the model'}: {one.op or 'what follows'}: {one.reason}" for one in self.missing]
        return {"rows": rows, "left": [True] * 5, "note": "\n".join(["not followed:", *missing] if missing else [])}

    def records(self) -> list[dict]:
        """One plain dictionary for each module: name, size, stride, start, units, aligned, global_axes."""
        keys = ("size", "stride", "start", "units", "aligned", "global_axes")
        return [{"name": name, **{key: getattr(one, key) for key in keys}} | {"global_axes": tuple(map(int, one.global_axes))}
                for name, one in self.items()]


def receptive_field(
    model: nn.Module, input_size: InputSize, *, batch_size: int = 1, source: int = 0, strict: bool = True
) -> Fields:
    """The receptive field of every module's output with respect to the input number `source`.

    `input_size` is as in `cost_table`. The result maps dotted module names to `Field`s. The field is that of the
    function which the network computes from its input's pixels with batch-norm statistics taken as given; it does not
    depend on the weights. With `strict=False` an operation that cannot be followed is listed in the result's `missing`, and the
    modules behind it are left out.

    Raises `TypeError` or `ValueError` for arguments that make no sense and `AnalysisError`, a `ValueError` that
    names the operation and the module, for what cannot be followed.
    """
    record = trace(model, input_size, batch_size=batch_size, strict=strict)
    if isinstance(source, bool) or not isinstance(source, int) or not 0 <= source < len(record.inputs):
        raise ValueError(f"source must be the number of an input, below {len(record.inputs)}; got {source!r}")
    value = record.inputs[source]
    if record.batch_size is None:
        raise ValueError("an input without a batch has no axes that are known to be spatial; give the shape of a sample, such as (C, H, W)")
    if not spatial_dims(value):
        raise ValueError(f"an input of shape {tuple(value.shape[1:])} has no spatial axes; give (C, H, W), (C, L) or "
                         "(C, D, H, W)")
    return Fields(record, source, strict)
