"""What part of the input a unit sees: exactly, on any graph of convolutions, pooling, branches and reshapes.

    field = receptive_field(model, (3, 224, 224))
    field["layer4"].size, field["layer4"].stride, field["layer4"].start     # (height, width) pairs

For every tensor of the traced graph and every spatial axis of the input, the first and the last input coordinate
that a unit depends on are kept as functions of the unit's index. Through sliding windows such functions stay
periodic up to a slope: `last(i + period) = last(i) + step`, and in most networks the period is 1 and the step is the
layer's stride. Reshapes split and merge indices; where branches meet, a unit sees what either branch sees.

Coordinates count pixels from 0; a field that reaches into the padding starts below 0.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache

import torch
from torch import nn

from .trace import AnalysisError, InputSize, Node, Step, Trace, Value, trace


# Functions of one index


NOWHERE = (math.inf, -math.inf)  # the span of an index that sees nothing


@dataclass(frozen=True)
class Index:
    """First and last coordinate as functions of an index: `first[i % period] + step * (i // period)`, and so for last.

    A table has one entry for each index instead and no step; outside it there is nothing to see. A table that does not
    `move` only says which indices (channels) see at all.
    """

    step: int
    first: tuple[int, ...] = (0,)
    last: tuple[int, ...] = (0,)
    is_table: bool = False
    moves: bool = True

    def span(self, i: int) -> tuple[int, int]:
        if self.is_table:
            return (self.first[i], self.last[i]) if 0 <= i < len(self.first) else NOWHERE
        turns, phase = divmod(i, len(self.first))
        return self.first[phase] + self.step * turns, self.last[phase] + self.step * turns

    def hull(self, length: int) -> tuple[int, int]:
        """The first and last coordinate over all indices below `length`."""
        return _hull(self, length)


@lru_cache(maxsize=4096)
def _hull(index: Index, length: int) -> tuple[int, int]:
    if len(index.first) == 1 and not index.is_table:
        reach = index.step * (length - 1)
        return index.first[0] + min(0, reach), index.last[0] + max(0, reach)
    spans = [index.span(i) for i in range(length)]
    return min(first for first, _ in spans), max(last for _, last in spans)


def _cover(spans) -> tuple[int, int]:
    """The smallest span that contains all of `spans`."""
    spans = list(spans)
    return min(first for first, _ in spans), max(last for _, last in spans)


def _table(spans, moves: bool = True) -> Index:
    first, last = zip(*spans)
    return Index(0, first, last, True, moves)


def _index(step: int, spans: Sequence[tuple[int, int]]) -> Index:
    """The function with these spans in its first period, written with the shortest period."""
    first, last = zip(*spans)
    period = len(spans)
    for shorter in range(1, period):
        if period % shorter == 0 and step * shorter % period == 0:
            small = step * shorter // period
            if all(row[i] == row[i - shorter] + small for row in (first, last) for i in range(shorter, period)):
                return Index(small, first[:shorter], last[:shorter])
    return Index(step, first, last)


@lru_cache(maxsize=4096)
def _slide(index: Index, out: int, kernel: int, stride: int, padding: int, dilation: int) -> Index:
    """The function after a window of `out` positions that covers indices o * stride - padding + t * dilation, t <
    kernel."""
    period = len(index.first)
    taps = (0, kernel - 1) if period == 1 and not index.is_table else range(kernel)

    def span(o):
        return _cover(index.span(o * stride - padding + t * dilation) for t in taps)

    if index.is_table:
        return _table(map(span, range(out)), index.moves)
    turns = period // math.gcd(period, stride)
    return _index(index.step * stride * turns // period, list(map(span, range(turns))))


# Fields of a tensor


@dataclass(frozen=True)
class Branch:
    """The field along one input axis by one kind of path: spans of all indices on which it depends, added up.

    `indices` has one entry for each factor of the tensor's layout, None where the coordinate does not depend on it.
    `everywhere` marks paths through a global operation: pooling to one value, attention, statistics of the image.
    """

    first: int
    last: int
    indices: tuple[Index | None, ...]
    everywhere: bool = False

    def span(self, unit: Sequence[int]) -> tuple[int, int]:
        first, last = self.first, self.last
        for i, index in zip(unit, self.indices):
            if index is not None:
                low, high = index.span(i)
                first += low
                last += high
        return first, last


@dataclass(frozen=True)
class State:
    """The fields of one tensor: a layout, which splits each dimension into factors, and branches for each input axis.

    `unaligned` names the modules in which branches met whose fields have different strides or centres.
    """

    layout: tuple[tuple[int, ...], ...]
    axes: tuple[tuple[Branch, ...], ...]
    unaligned: tuple[tuple[str, ...], ...]

    @property
    def factors(self) -> list[int]:
        return [length for dim in self.layout for length in dim]

    def place(self, dim: int) -> slice:
        """Where the factors of a dimension stand in the flat list."""
        start = sum(map(len, self.layout[:dim]))
        return slice(start, start + len(self.layout[dim]))

    def pruned(self) -> "State":
        """The same without branches that see nothing beyond another branch."""
        axes = [[branch for branch in axis if branch.first != math.inf] for axis in self.axes]
        lengths = self.factors
        return State(self.layout, tuple(_outermost(axis, lengths) for axis in axes), self.unaligned)

    def with_axes(self, layout, change) -> "State":
        return State(layout, tuple(tuple(map(change, axis)) for axis in self.axes), self.unaligned)

    def map(self, positions: slice, change, layout) -> "State":
        """A new layout, and at `positions` of every branch the indices that `change` makes of the old ones."""
        return self.with_axes(layout, lambda branch: Branch(
            branch.first, branch.last,
            (*branch.indices[:positions.start], *change(branch.indices[positions]), *branch.indices[positions.stop:]),
            branch.everywhere))

    def merged(self, dim: int) -> "State":
        """The same with a single factor for `dim`."""
        lengths = self.layout[dim]
        if len(lengths) == 1:
            return self
        layout = _replace(self.layout, dim, (math.prod(lengths),))
        return self.map(self.place(dim), lambda indices: (_merge(indices, lengths),), layout)

    def on_dim(self, dim: int, change, length: int) -> "State":
        """The same with `change` applied to the function of the index of `dim`, which now has `length`."""
        state = self.merged(dim)
        layout = _replace(state.layout, dim, (length,))
        return state.map(
            state.place(dim), lambda indices: [None if index is None else change(index) for index in indices], layout)

    def contracted(self, dims: Sequence[int]) -> "State":
        """Each unit sees what all units along `dims` see; the dimensions keep their lengths."""
        places = {i for dim in dims for i in range(self.place(dim).start, self.place(dim).stop)}
        lengths = self.factors

        def contract(branch):
            first, last, everywhere = branch.first, branch.last, branch.everywhere
            left = list(branch.indices)
            reduced = False
            for i in places:
                if left[i] is not None:
                    low, high = left[i].hull(lengths[i])
                    reduced |= lengths[i] > 1 and left[i].moves
                    first, last, left[i] = first + low, last + high, None
            everywhere |= reduced and not any(index is not None and index.moves for index in left)
            return Branch(first, last, tuple(left), everywhere)

        return self.with_axes(self.layout, contract).pruned()

    def resized(self, dim: int, length: int) -> "State":
        """The same with `dim`, on which no field may depend, given another length."""
        place = self.place(dim)
        layout = _replace(self.layout, dim, (length,))
        return self.map(place, lambda indices: (None,), layout)

    def without(self, dims: Sequence[int]) -> "State":
        """Dimensions on which no field depends, dropped."""
        state = self
        for dim in sorted(dims, reverse=True):
            place = state.place(dim)
            state = state.map(place, lambda indices: (), state.layout[:dim] + state.layout[dim + 1:])
        return state

    def with_new(self, dim: int, length: int = 1) -> "State":
        """A new dimension at `dim`, on which no field depends."""
        start = sum(map(len, self.layout[:dim]))
        layout = (*self.layout[:dim], (length,), *self.layout[dim:])
        return self.map(slice(start, start), lambda indices: (None,), layout)

    def permuted(self, order: Sequence[int]) -> "State":
        positions = [i for dim in order for i in range(self.place(dim).start, self.place(dim).stop)]
        layout = tuple(self.layout[dim] for dim in order)
        return self.with_axes(layout, lambda branch: Branch(
            branch.first, branch.last, tuple(branch.indices[i] for i in positions), branch.everywhere))

    def expanded(self, shape: Sequence[int]) -> "State":
        """Broadcast to `shape`."""
        state = self
        while len(state.layout) < len(shape):
            state = state.with_new(0)
        for dim, length in enumerate(shape):
            if math.prod(state.layout[dim]) != length:
                state = state.contracted((dim,)).resized(dim, length)
        return state

    def _cut_for(self, shape: Sequence[int]) -> "State":
        """The same as one dimension, its factors merged where their borders and those of `shape` cannot both be
        kept."""
        ends = [math.prod(shape[i:]) for i in range(len(shape))]
        groups = []
        factors = self.factors
        for i in range(len(factors)):
            below = math.prod(factors[i:])
            if groups and any(below % end and end % below for end in ends):
                groups[-1].append(i)
            else:
                groups.append([i])
        if len(groups) == len(factors):
            return self
        layout = (tuple(math.prod(factors[i] for i in group) for group in groups),)
        return self.with_axes(layout, lambda branch: Branch(
            branch.first, branch.last,
            tuple(_merge([branch.indices[i] for i in group], [factors[i] for i in group]) for group in groups),
            branch.everywhere))

    def reshaped_away(self, shape: Sequence[int]) -> "State":
        """Fields that depend on no index, for a tensor of any shape."""
        return self.with_axes(tuple((length,) for length in shape), lambda branch: Branch(
            branch.first, branch.last, (None,) * len(shape), branch.everywhere))

    def reshaped(self, shape: Sequence[int]) -> "State":
        """The fields after a view as `shape`: factors are split and regrouped."""
        self = self._cut_for(shape)
        todo = [(length, i) for i, length in enumerate(self.factors)]
        sources = []  # for each new factor: the old one, or a part of it
        layout = []
        pieces = {}  # old factor -> lengths of its parts, outer to inner
        for length in shape:
            dim = []
            while length > 1 or (not dim and todo and todo[0][0] == 1):
                if not todo:
                    raise _Unfollowed(f"a view as {tuple(shape)} does not fit {self.layout}")
                n, i = todo.pop(0)
                if n == 1 and length > 1:
                    continue
                if length % n:  # only a part of this factor belongs here
                    todo.insert(0, (n // length, i))
                    n = length
                pieces.setdefault(i, []).append(n)
                sources.append((i, len(pieces[i]) - 1))
                dim.append(n)
                length //= n
            if not dim:
                dim.append(1)
                sources.append(None)
            layout.append(tuple(dim))

        def regroup(branch):
            parts = {}
            first, last = branch.first, branch.last
            for i, index in enumerate(branch.indices):
                if i in pieces:
                    parts[i] = _split(index, pieces[i])
                elif index is not None:  # a factor of length 1 that no longer has a place
                    first, last = first + index.span(0)[0], last + index.span(0)[1]
            for ways in itertools.product(*parts.values()):
                chosen = dict(zip(parts, ways))
                indices = tuple(None if source is None else chosen[source[0]][source[1]] for source in sources)
                yield Branch(first, last, indices, branch.everywhere)

        axes = tuple(tuple(way for branch in axis for way in regroup(branch)) for axis in self.axes)
        return State(tuple(layout), axes, self.unaligned)


class _Unfollowed(Exception):
    """An operation that the fields cannot be followed through; the message says why."""


def _replace(layout, dim, lengths):
    return (*layout[:dim], lengths, *layout[dim + 1:])


def _merge(indices: Sequence[Index | None], lengths: Sequence[int]) -> Index | None:
    """One function of i = i1 * length2 + i2 from functions of i1 and i2, and so on."""
    merged = indices[0]
    for index, length in zip(indices[1:], lengths[1:]):
        merged = _merge_two(merged, index, length)
    return merged


@lru_cache(maxsize=4096)
def _merge_two(outer: Index | None, inner: Index | None, length: int) -> Index | None:
    if outer is None and inner is None:
        return None
    moves = any(index is not None and index.moves for index in (outer, inner))
    outer, inner = outer or Index(0), inner or Index(0)
    spans = [_add(outer.span(i // length), inner.span(i % length)) for i in range(len(outer.first) * length)]
    return _table(spans, moves) if outer.is_table or not moves else _index(outer.step, spans)


def _add(a: tuple[int, int], b: tuple[int, int]) -> tuple[int, int]:
    return (a[0] + b[0], a[1] + b[1])


@lru_cache(maxsize=4096)
def _split_two(index: Index, outer: int, inner: int) -> list[tuple[Index, Index]]:
    """Pairs of functions of i1 and i2 whose sums, taken together, are the function of i1 * inner + i2."""
    if inner % len(index.first) == 0 and not index.is_table:
        return [(Index(index.step * inner // len(index.first)), index)]
    rows = {}  # what a row looks like from its own beginning -> where the rows that look like this begin
    for i in range(outer):
        spans = [index.span(i * inner + j) for j in range(inner)]
        begin = min(first for first, _ in spans)
        if begin != math.inf:
            pattern = tuple(span if span == NOWHERE else (span[0] - begin, span[1] - begin) for span in spans)
            rows.setdefault(pattern, [NOWHERE] * outer)[i] = (begin, begin)
    return [(_table(begins, index.moves), _table(pattern, index.moves)) for pattern, begins in rows.items()]


def _split(index: Index | None, lengths: Sequence[int]) -> list[list[Index | None]]:
    """The ways to write a function of one index as a sum of functions of its parts; each way covers some of the
    indices."""
    if index is None:
        return [[None] * len(lengths)]
    if len(lengths) == 1:
        return [[index]]
    return [[outer, *rest] for outer, inner in _split_two(index, lengths[0], math.prod(lengths[1:]))
            for rest in _split(inner, lengths[1:])]


# Where branches meet


def _common_layout(first: tuple[int, ...], second: tuple[int, ...]) -> tuple[int, ...] | None:
    """The coarsest factors that refine both, or None if there are none."""
    cuts = sorted({math.prod(lengths[i:]) for lengths in (first, second) for i in range(len(lengths))}, reverse=True)
    if any(a % b for a, b in zip(cuts, cuts[1:])):
        return None
    return tuple(a // b for a, b in zip(cuts, (*cuts[1:], 1)))


def _aligned_layouts(states: list[State]) -> list[State]:
    """The same fields in one layout."""
    target = states[0].layout
    for state in states[1:]:
        if state.layout == target:
            continue
        dims = []
        for ours, theirs in zip(target, state.layout):
            common = ours if ours == theirs else _common_layout(ours, theirs)
            dims.append(common or (math.prod(ours),))
        target = tuple(dims)
    return [_in_layout(state, target) for state in states]


def _in_layout(state: State, layout) -> State:
    for dim, lengths in enumerate(layout):
        if state.layout[dim] == lengths:
            continue
        state = state.merged(dim)
        place = state.place(dim)
        axes = tuple(tuple(
            Branch(branch.first, branch.last, (*branch.indices[:place.start], *way, *branch.indices[place.stop:]),
                   branch.everywhere)
            for branch in axis for way in _split(branch.indices[place.start], lengths)) for axis in state.axes)
        state = State(_replace(state.layout, dim, lengths), axes, state.unaligned)
    return state


@lru_cache(maxsize=4096)
def _difference(a: Index | None, b: Index | None, length: int) -> tuple[int, int]:
    """The least of first(a) - first(b) and of last(b) - last(a) over all indices below `length` at which `a` sees
    something."""
    if a == b:
        return 0, 0
    a, b = a or Index(0), b or Index(0)
    linear = len(a.first) == len(b.first) == 1 and not (a.is_table or b.is_table)
    pairs = [(a.span(i), b.span(i)) for i in ((0, length - 1) if linear else range(length))]
    pairs = [(x, y) for x, y in pairs if x != NOWHERE]
    return (min((x[0] - y[0] for x, y in pairs), default=math.inf),
            min((y[1] - x[1] for x, y in pairs), default=math.inf))


def _inside(a: Branch, b: Branch, lengths: Sequence[int]) -> bool:
    """Whether the field of every unit by `a` lies inside its field by `b`."""
    left, right = a.first - b.first, b.last - a.last
    for x, y, length in zip(a.indices, b.indices, lengths):
        if x is not y and x != y:
            more = _difference(x, y, length)
            if more[0] == -math.inf:
                return False
            left, right = left + more[0], right + more[1]
    return left >= 0 and right >= 0


def _outermost(branches: Sequence[Branch], lengths: Sequence[int]) -> tuple[Branch, ...]:
    """The branches whose fields do not lie inside those of another; paths that see everything are kept apart."""
    if len(branches) < 2:
        return tuple(branches)
    kept = []
    for branch in branches:
        if not any(other.everywhere == branch.everywhere and _inside(branch, other, lengths) for other in kept):
            kept = [other for other in kept
                    if other.everywhere != branch.everywhere or not _inside(other, branch, lengths)]
            kept.append(branch)
    return tuple(kept)


def _same_centres(a: Branch, b: Branch, lengths: Sequence[int]) -> bool:
    """Whether every unit's fields by `a` and by `b` have the same centre."""
    def centre(index, i):
        return 0 if index is None or index.is_table else sum(index.span(i))

    start = a.first + a.last - b.first - b.last + sum(centre(x, 0) - centre(y, 0) for x, y in zip(a.indices, b.indices))
    if start:
        return False
    for x, y, length in zip(a.indices, b.indices, lengths):
        if x is not y and x != y:
            if any(z is not None and z.is_table for z in (x, y)):
                continue  # parts of a whole: they need not agree
            indices = (length - 1,) if all(z is None or len(z.first) == 1 for z in (x, y)) else range(length)
            if any(centre(x, i) - centre(y, i) != centre(x, 0) - centre(y, 0) for i in indices):
                return False
    return True


def _union(states: Sequence[State], where: str) -> State:
    """A unit sees what it sees by any of the states, which have the same shape; `where` is the module that joins
    them."""
    states = list({id(state): state for state in states}.values())
    if len(states) == 1:
        return states[0]
    states = _aligned_layouts(states)
    lengths = states[0].factors
    axes, unaligned = [], []
    for i in range(len(states[0].axes)):
        names = dict.fromkeys(name for state in states for name in state.unaligned[i])
        branches = [branch for state in states for branch in state.axes[i]]
        local = [branch for branch in branches if not branch.everywhere]
        if not all(_same_centres(branch, local[0], lengths) for branch in local[1:]):
            names[where] = None
        axes.append(_outermost(branches, lengths))
        unaligned.append(tuple(names))
    return State(states[0].layout, tuple(axes), tuple(unaligned))


# One rule for each operation: from the node and the states of its inputs to the states of its outputs

RULES = {}


def _rule(*ops):
    def add(function):
        RULES.update(dict.fromkeys(ops, function))
        return function

    return add


_TAKES_PARTS = {"slice", "split", "split_with_sizes", "select", "unbind", "chunk", "flip", "roll"}


def _argument(node: Node, i: int, default):
    """Argument number `i`, or the default where the call left it out."""
    given = node.args[i] if i < len(node.args) else None
    return default if given is None else given


class _Follower:
    """Carries the fields from an input of a traced graph to all its values.

    By default the image and every feature map go on without end, so that fields have a size and a stride. `bounded`
    ends them where they end: padding, and what a stride leaves over, is then seen to hold nothing of the image.
    """

    def __init__(self, record: Trace, source: int, bounded: bool = False):
        self.states = {}
        self.where = ""
        value = record.inputs[source]
        axes = []
        for dim in spatial_dims(value):
            pixels = _table((i, i) for i in range(value.shape[dim])) if bounded else Index(1)
            axes.append((Branch(0, 0, tuple(pixels if i == dim else None for i in range(len(value.shape)))),))
        layout = tuple((length,) for length in value.shape)
        self.states[value] = State(layout, tuple(axes), ((),) * len(axes))
        self.keeps_parts = any(node.op in _TAKES_PARTS for node in record.nodes())
        for step in record.steps:
            if isinstance(step, Step):
                self.where = step.call.name if step.call else ""
                for node in step.nodes:
                    self.follow(node, step)

    def of(self, thing) -> State | None:
        """The state of a value, or None for what does not depend on the input."""
        return self.states.get(thing) if isinstance(thing, Value) else None

    def follow(self, node: Node, step: Step) -> None:
        if not any(value in self.states for value in node.inputs):
            return
        rule = RULES.get(node.op) or RULES.get(node.op.removesuffix("_"))
        try:
            if rule is None:
                raise _Unfollowed("no rule says which inputs its outputs depend on")
            results = rule(self, node)
        except _Unfollowed as reason:
            kind = step.call.kind if step.call else ""
            raise AnalysisError(
                f"receptive field: cannot follow the operation {node.op!r} ({step.kind}) in module {self.where!r} "
                f"({kind}): {reason}. Analyse the parts of the network before and after it by themselves.") from None
        if isinstance(results, State) or results is None:
            results = [results] * len(node.outputs)
        for value, state in zip(node.outputs, results):
            if state is not None and any(state.axes):
                self.states[value] = state

    def union(self, states: Sequence[State | None]) -> State | None:
        states = [state for state in states if state is not None]
        return _union(states, self.where) if states else None


def spatial_dims(value: Value) -> tuple[int, ...]:
    """The dimensions of an input that are spatial: all after batch and channels."""
    return tuple(range(2, len(value.shape)))


_ELEMENTWISE = """
    abs add addcdiv addcmul atan2 alias bitwise_and bitwise_not bitwise_or ceil celu clamp clamp_max clamp_min clone
    _to_copy contiguous cos detach div elu eq erf exp expm1 floor floor_divide fmod ge gelu gt hardshrink hardsigmoid
    hardswish hardtanh le leaky_relu lerp lift_fresh log log1p log2 log10 log_sigmoid_forward logical_and logical_not
    logical_or lt masked_fill maximum minimum mish mul native_batch_norm native_dropout ne neg nan_to_num pow prelu
    _prelu_kernel reciprocal relu remainder round rrelu_with_noise rsqrt rsub selu sigmoid sign silu sin softplus
    softshrink sqrt square sub tanh threshold true_divide where xlogy _native_batch_norm_legit
    _native_batch_norm_legit_no_training cudnn_batch_norm expand
""".split()


@_rule(*_ELEMENTWISE)
def _elementwise(follower, node):
    """Each unit sees what the same unit of any operand sees. Batch norm is one of these: its statistics count as
    given."""
    shape = node.outputs[0].shape
    states = [follower.of(value) for value in node.inputs]
    return follower.union([state and state.expanded(shape) for state in states])


@_rule("copy")
def _copy(follower, node):
    state = follower.of(node.args[1])
    return state and state.expanded(node.outputs[0].shape)


@_rule("fill", "zero", "zeros_like", "ones_like", "full_like", "rand_like", "randn_like", "bernoulli", "new_zeros",
       "new_ones", "new_full", "uniform", "normal", "rand", "new_empty")
def _constant(follower, node):
    return None


@_rule("view", "_unsafe_view", "reshape", "unsqueeze", "squeeze", "_reshape_alias", "unflatten", "flatten", "view_copy")
def _view(follower, node):
    return follower.of(node.args[0]).reshaped(node.outputs[0].shape)


@_rule("as_strided")
def _as_strided(follower, node):
    state = follower.of(node.args[0])
    if any(index is not None for axis in state.axes for branch in axis for index in branch.indices):
        raise _Unfollowed("it addresses memory directly; use a view that names dimensions")
    return state.reshaped_away(node.outputs[0].shape)


@_rule("permute", "transpose", "t")
def _permute(follower, node):
    state = follower.of(node.args[0])
    order = list(range(len(state.layout)))
    if node.op == "permute":
        order = [dim % len(order) for dim in node.args[1]]
    else:
        a, b = node.args[1:3] if node.op == "transpose" else (0, -1)
        order[a], order[b] = order[b], order[a]
    return state.permuted(order)


# Parts and wholes


def _taken(state: State, dim: int, start: int, step: int, length: int) -> State:
    """The fields of the elements start, start + step, ... along `dim`."""
    return state.on_dim(dim, lambda index: _slide(index, length, 1, step, -start, 1), length)


@_rule("slice")
def _slice(follower, node):
    value, dim = node.args[0], _argument(node, 1, 0) % len(node.args[0].shape)
    start, step = _argument(node, 2, 0), _argument(node, 4, 1)
    length = value.shape[dim]
    start = min(max(start + length if start < 0 else start, 0), length)
    return _taken(follower.of(value), dim, start, step, node.outputs[0].shape[dim])


@_rule("split", "split_with_sizes", "chunk")
def _split_parts(follower, node):
    value = node.args[0]
    dim = _argument(node, 2, 0) % len(value.shape)
    starts = itertools.accumulate((out.shape[dim] for out in node.outputs), initial=0)
    return [_taken(follower.of(value), dim, start, 1, out.shape[dim]) for start, out in zip(starts, node.outputs)]


@_rule("select", "unbind")
def _select(follower, node):
    value = node.args[0]
    dim = _argument(node, 1, 0) % len(value.shape)
    positions = [node.args[2] % value.shape[dim]] if node.op == "select" else range(value.shape[dim])
    return [_taken(follower.of(value), dim, i, 1, 1).contracted((dim,)).without((dim,)) for i in positions]


@_rule("cat", "stack")
def _cat(follower, node):
    values = node.args[0]
    shape = node.outputs[0].shape
    dim = _argument(node, 1, 0) % len(shape)
    states = [follower.of(value) for value in values]
    if node.op == "stack":
        states = [state and state.with_new(dim) for state in states]
        lengths = [1] * len(values)
    else:
        values = [value for value in values if value.shape != (0,)]
        states = [follower.of(value) for value in values]
        lengths = [value.shape[dim] for value in values]
    starts = itertools.accumulate(lengths, initial=0)
    moved = [state and _placed(state, dim, start, length, shape[dim], follower.keeps_parts)
             for start, state, length in zip(starts, states, lengths)]
    return follower.union(moved)


def _placed(state: State, dim: int, start: int, length: int, total: int, always: bool) -> State:
    """The fields as a part of a longer dimension, and nothing outside the part; where no field depends on the dimension
    this matters only if the whole may be taken apart again (`always`)."""
    if length == total:
        return state
    state = state.merged(dim)
    if always or any(branch.indices[state.place(dim)][0] is not None for axis in state.axes for branch in axis):
        def place(indices):
            index = indices[0] or Index(0, moves=False)
            spans = (index.span(i - start) if 0 <= i - start < length else NOWHERE for i in range(total))
            return [_table(spans, index.moves)]

        return state.map(state.place(dim), place, _replace(state.layout, dim, (total,)))
    return state.resized(dim, total)


@_rule("constant_pad_nd", "reflection_pad1d", "reflection_pad2d", "reflection_pad3d", "replication_pad1d",
       "replication_pad2d", "replication_pad3d")
def _pad(follower, node):
    """The border that is added counts as a continuation of the image; what it repeats lies inside the same fields."""
    value, pads = node.args[:2]
    state = follower.of(value)
    for i in range(len(pads) // 2):
        dim = len(value.shape) - 1 - i
        if pads[2 * i] or pads[2 * i + 1]:
            state = _taken(state, dim, -pads[2 * i], 1, node.outputs[0].shape[dim])
    return state


@_rule("flip", "roll")
def _rearranged(follower, node):
    """The same elements in another order."""
    value = node.args[0]
    state = follower.of(value)
    shifts, dims = ((0,), node.args[1]) if node.op == "flip" else (node.args[1], _argument(node, 2, ()))
    if not dims:
        raise _Unfollowed("it moves elements across dimensions; name the dimensions")
    for dim, shift in zip(dims, itertools.cycle(shifts)):
        n = value.shape[dim]
        order = [n - 1 - i if node.op == "flip" else (i - shift) % n for i in range(n)]
        state = state.on_dim(dim % len(value.shape), lambda index: _table(map(index.span, order), index.moves), n)
    return state


@_rule("pixel_shuffle")
def _pixel_shuffle(follower, node):
    value, r = node.args[:2]
    n, c, h, w = value.shape
    state = follower.of(value).reshaped((n, c // r**2, r, r, h, w)).permuted((0, 1, 4, 2, 5, 3))
    return state.reshaped(node.outputs[0].shape)


@_rule("pixel_unshuffle")
def _pixel_unshuffle(follower, node):
    value, r = node.args[:2]
    n, c, h, w = value.shape
    state = follower.of(value).reshaped((n, c, h // r, r, w // r, r)).permuted((0, 1, 3, 5, 2, 4))
    return state.reshaped(node.outputs[0].shape)


@_rule("channel_shuffle", "native_channel_shuffle")
def _channel_shuffle(follower, node):
    value, groups = node.args[:2]
    n, c, *rest = value.shape
    state = follower.of(value).reshaped((n, groups, c // groups, *rest))
    return state.permuted((0, 2, 1, *range(3, len(rest) + 3))).reshaped(value.shape)


# Windows


def _whole(state: State, dim: int, axis_only: bool = True) -> State:
    """The same, with paths marked that see everything there is along `dim`."""
    place = state.place(dim)
    return state.with_axes(state.layout, lambda branch: Branch(
        branch.first, branch.last, branch.indices,
        branch.everywhere or any(index is not None for index in branch.indices[place])))


def _tuple(value, n) -> tuple[int, ...]:
    value = (value,) if isinstance(value, int) else tuple(value)
    return value * n if len(value) == 1 else value


def _pool(follower, node, kernel, stride, padding, dilation):
    """Sliding windows over the last dimensions; one window over a whole dimension is a global operation."""
    value = node.args[0]
    state = follower.of(value)
    out = node.outputs[0].shape
    n = len(kernel)
    for i in range(n):
        dim = len(value.shape) - n + i
        k, s, p, d = kernel[i], stride[i], padding[i], dilation[i]
        state = state.on_dim(dim, lambda index: _slide(index, out[dim], k, s, p, d), out[dim])
        if out[dim] == 1 and 1 < value.shape[dim] <= k and d == 1:
            state = _whole(state, dim)
    return state


@_rule("max_pool1d", "max_pool2d_with_indices", "max_pool3d_with_indices", "max_pool2d")
def _max_pool(follower, node):
    n = int(node.op[8])
    stride, padding, dilation = _argument(node, 2, ()), _argument(node, 3, 0), _argument(node, 4, 1)
    kernel = _tuple(node.args[1], n)
    return _pool(follower, node, kernel, _tuple(stride or kernel, n), _tuple(padding, n), _tuple(dilation, n))


@_rule("avg_pool1d", "avg_pool2d", "avg_pool3d")
def _avg_pool(follower, node):
    n = int(node.op[8])
    stride, padding = _argument(node, 2, ()), _argument(node, 3, 0)
    kernel = _tuple(node.args[1], n)
    return _pool(follower, node, kernel, _tuple(stride or kernel, n), _tuple(padding, n), (1,) * n)


@_rule("_adaptive_avg_pool2d", "_adaptive_avg_pool3d", "adaptive_avg_pool1d", "adaptive_max_pool2d",
       "adaptive_max_pool3d", "adaptive_max_pool1d")
def _adaptive_pool(follower, node):
    """Output i covers floor(i * L / out) up to ceil((i + 1) * L / out), a pattern that repeats."""
    value, sizes = node.args[:2]
    state = follower.of(value)
    sizes = _tuple(sizes, 1)
    for i, out in enumerate(sizes):
        dim = len(value.shape) - len(sizes) + i
        length = value.shape[dim]
        repeats = math.gcd(length, out)
        windows = [(j * length // out, -(-(j + 1) * length // out) - 1) for j in range(out // repeats)]
        state = state.on_dim(dim, lambda index: _gathered(index, out, windows, length // repeats), out)
        if out == 1 < length:
            state = _whole(state, dim)
    return state


def _gathered(index: Index, out: int, windows: Sequence[tuple[int, int]], advance: int) -> Index:
    """The function of `out` outputs of which number o covers the input indices from windows[o][0] to windows[o][1];
    after all windows they start anew `advance` further on."""
    def span(o):
        turn, place = divmod(o, len(windows))
        return _cover(index.span(i + turn * advance) for i in range(windows[place][0], windows[place][1] + 1))

    if index.is_table:
        return _table(map(span, range(out)), index.moves)
    period = len(index.first)
    turns = period // math.gcd(period, advance)
    return _index(index.step * advance * turns // period, list(map(span, range(turns * len(windows)))))


@_rule("convolution")
def _convolution(follower, node):
    value, weight, bias, stride, padding, dilation, transposed, _, groups = node.args[:9]
    out = node.outputs[0].shape
    given = [follower.of(extra) for extra in (weight, bias)]  # a kernel computed from the input: all of it counts
    given = [state and state.contracted(range(len(state.layout))).reshaped_away(out) for state in given]
    state = follower.of(value)
    if state is None:
        return follower.union(given)
    if groups > 1 and any(branch.indices[state.place(1)] != (None,) for axis in state.axes for branch in axis):
        per_group, made = value.shape[1] // groups, out[1] // groups
        groups_of = [[o // made * per_group + i for i in range(per_group)] for o in range(out[1])]
        state = state.on_dim(1, lambda index: _table(
            (_cover(map(index.span, group)) for group in groups_of), index.moves), out[1])
    else:
        state = state.contracted((1,)).resized(1, out[1])
    n = len(out) - 2
    kernel = weight.shape[2:]
    stride, padding, dilation = _tuple(stride, n), _tuple(padding, n), _tuple(dilation, n)
    for i, (k, s, p, d) in enumerate(zip(kernel, stride, padding, dilation)):
        if transposed:
            state = state.on_dim(2 + i, lambda index: _spread(index, out[2 + i], k, s, p, d), out[2 + i])
        else:
            state = state.on_dim(2 + i, lambda index: _slide(index, out[2 + i], k, s, p, d), out[2 + i])
    return follower.union([state, *given])


def _spread(index: Index, out: int, kernel: int, stride: int, padding: int, dilation: int) -> Index:
    """The function after a transposed convolution: output o sees the inputs i with o = i * stride - padding + t *
    dilation."""
    def span(o):
        places = (o + padding - t * dilation for t in range(kernel))
        return _cover([index.span(place // stride) for place in places if place % stride == 0] or [NOWHERE])

    if index.is_table:
        return _table(map(span, range(out)), index.moves)
    return _index(index.step, list(map(span, range(stride * len(index.first)))))


@_rule("upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d", "upsample_linear1d", "upsample_bilinear2d",
       "upsample_trilinear3d", "upsample_bicubic2d")
def _upsample(follower, node):
    """Output o lies at a place between the inputs: the nearest below it counts, or one, or two on both sides."""
    value, nearest = node.args[0], "nearest" in node.op
    corners = not nearest and node.args[2]
    scales = node.args[2 if nearest else 3:]
    state = follower.of(value)
    for dim in range(2, len(value.shape)):
        length, out = value.shape[dim], node.outputs[0].shape[dim]
        scale = scales[dim - 2] if dim - 2 < len(scales) else None
        if corners:
            advance = Fraction(length - 1, out - 1) if out > 1 else Fraction(0)
        else:
            advance = 1 / Fraction(scale) if scale else Fraction(length, out)
        windows = []
        for o in range(min(advance.denominator, out)):
            place = o * advance if nearest or corners else (o + Fraction(1, 2)) * advance - Fraction(1, 2)
            low, high = math.floor(place), math.floor(place) if nearest else math.ceil(place)
            wide = node.op == "upsample_bicubic2d" and low < high
            windows.append((low - wide, high + wide))
        if advance.denominator > out:  # no pattern that repeats
            state = state.on_dim(dim, lambda index: _table(
                (_cover(index.span(i) for i in range(low, high + 1)) for low, high in windows), index.moves), out)
        else:
            state = state.on_dim(dim, lambda index: _gathered(index, out, windows, advance.numerator), out)
    return state


def _windows(state: State, dim: int, out: int, kernel: int, stride: int, padding: int, dilation: int) -> State:
    """The fields after `dim` was replaced by two: the place in a window, and `out` windows."""
    def split(index):
        if index is None:
            return [(None, None)]
        if len(index.first) == 1 and not index.is_table:
            shift = index.step * padding
            start = Index(index.step * stride, (index.first[0] - shift,), (index.last[0] - shift,))
            return [(Index(index.step * dilation), start)]
        table = _table((index.span(o * stride - padding + t * dilation) for t in range(kernel) for o in range(out)),
                       index.moves)
        return _split_two(table, kernel, out)

    state = state.merged(dim)
    place = state.place(dim)
    axes = tuple(tuple(
        Branch(branch.first, branch.last, (*branch.indices[:place.start], *way, *branch.indices[place.stop:]),
               branch.everywhere)
        for branch in axis for way in split(branch.indices[place.start])) for axis in state.axes)
    return State((*state.layout[:dim], (kernel,), (out,), *state.layout[dim + 1:]), axes, state.unaligned)


@_rule("im2col")
def _im2col(follower, node):
    """Windows side by side: F.unfold and nn.Unfold, (N, C * kernel positions, window positions)."""
    value, kernel, dilation, padding, stride = node.args[:5]
    state = follower.of(value)
    out = [(n + 2 * p - d * (k - 1) - 1) // s + 1
           for n, k, d, p, s in zip(value.shape[2:], kernel, dilation, padding, stride)]
    for i in (1, 0):
        state = _windows(state, 2 + i, out[i], kernel[i], stride[i], padding[i], dilation[i])
    return state.permuted((0, 1, 2, 4, 3, 5)).reshaped(node.outputs[0].shape)


@_rule("unfold")
def _unfold(follower, node):
    """Tensor.unfold: windows along one dimension, the place in a window last."""
    value, dim, size, step = node.args
    rank = len(value.shape)
    dim %= rank
    state = _windows(follower.of(value), dim, node.outputs[0].shape[dim], size, step, 0, 1)
    return state.permuted((*range(dim), *range(dim + 1, rank + 1), dim))


# Sums over dimensions


@_rule("sum", "mean", "amax", "amin", "max", "min", "var", "var_mean", "std", "std_mean", "prod", "argmax", "argmin",
       "any", "all", "linalg_vector_norm", "logsumexp")
def _reduce(follower, node):
    value = node.args[0]
    rank = len(value.shape)
    place = 2 if node.op == "linalg_vector_norm" else 1
    dims = node.args[place] if len(node.args) > place else None
    if isinstance(dims, Value):  # max and min of two tensors
        return _elementwise(follower, node)
    if isinstance(dims, torch.dtype) or dims is None or dims == ():
        dims = range(rank)
    dims = sorted({dim % rank for dim in ((dims,) if isinstance(dims, int) else dims)})
    state = follower.of(value).contracted(dims)
    if len(node.outputs[0].shape) == rank:
        for dim in dims:
            state = state.resized(dim, 1)
        return state
    return state.without(dims)


@_rule("_softmax", "_log_softmax", "_safe_softmax")
def _softmax(follower, node):
    state = follower.of(node.args[0])
    return follower.union([state, state.contracted((node.args[1] % len(state.layout),))])


@_rule("native_layer_norm")
def _layer_norm(follower, node):
    """Over channels alone this is elementwise; statistics over the image make every unit see everything."""
    state = follower.of(node.args[0])
    rank = len(state.layout)
    return follower.union([state, state.contracted(range(rank - len(node.args[1]), rank))])


@_rule("native_group_norm")
def _group_norm(follower, node):
    state = follower.of(node.args[0])
    return follower.union([state, state.contracted(range(1, len(state.layout)))])


@_rule("mm", "bmm", "addmm", "baddbmm", "linear", "mv", "dot", "addmv")
def _product(follower, node):
    """A matrix product: an output sees a row of the left and a column of the right operand."""
    out = node.outputs[0].shape
    added = None
    left, right = node.args[:2]
    if node.op in ("addmm", "baddbmm", "addmv"):
        added = follower.of(left)
        left, right = node.args[1:3]
    elif node.op == "linear":
        added = follower.of(node.args[2])
    states = [added and added.expanded(out)]
    state = follower.of(left)
    if state is not None:
        dim = len(state.layout) - 1
        state = state.contracted((dim,))
        vector = len(right.shape) == 1
        states.append(state.without((dim,)) if vector else state.resized(dim, out[-1]))
    state = follower.of(right)
    if state is not None:
        if node.op == "linear":
            state = state.permuted((1, 0))
        dim = max(len(state.layout) - 2, 0)
        state = state.contracted((dim,)).without((dim,))
        states.append(state.with_new(dim).expanded(out) if len(out) > len(state.layout) else state.expanded(out))
    return follower.union(states)


@_rule("written_through")
def _written_through(follower, node):
    """A tensor that shares memory with one that was written: what was written there, and elsewhere what was there
    before."""
    before, written, shared = node.args
    old, new = follower.of(before), follower.of(written)
    if shared is None:
        if written.numel != before.numel:
            raise _Unfollowed(
                "a part of a tensor is written by way of a view of other dimensions; use torch.cat instead")
        return new and new.reshaped(before.shape)
    states = []
    if new is not None and all(any(j is not None for j in indices) for indices in shared):
        for dim, indices in enumerate(shared):
            new = _picked(new, dim, indices)
        states.append(new)
    if old is not None:
        for dim, indices in enumerate(shared):  # outside in at least one dimension
            outside = [i if j is None else None for i, j in enumerate(indices)]
            if any(i is not None for i in outside):
                states.append(_picked(old, dim, outside))
    return follower.union(states)


def _picked(state: State, dim: int, indices: Sequence[int | None]) -> State:
    """The fields along `dim` of the elements with these indices, and nothing where there is None."""
    length = math.prod(state.layout[dim])
    if list(indices) == list(range(length)):
        return state
    if None not in indices and len({b - a for a, b in zip(indices, indices[1:])}) < 2:
        step = indices[1] - indices[0] if len(indices) > 1 else 1
        return _taken(state, dim, indices[0], step, len(indices))
    state = state.merged(dim)

    def pick(old):
        index = old[0] or Index(0, moves=False)
        return [_table((NOWHERE if i is None else index.span(i) for i in indices), index.moves)]

    return state.map(state.place(dim), pick, _replace(state.layout, dim, (len(indices),)))


# What people ask for


@dataclass(frozen=True)
class Field:
    """What the units of one layer see of the input, as pairs (height, width), or one entry for each spatial axis.

    Attributes:
        size: length of the largest field of a unit, the part in the padding included.
        stride: how far the field moves from one unit to the next (the "jump"); 0 where there is one field for all
            units.
        start: input coordinate of the first unit's left or upper edge; negative in the padding.
        units: how many units the layer has along the axis.
        aligned: whether all paths to a unit have fields with the same stride and centre.
        unaligned: names of the modules that join paths of which this is not true.
        global_context: whether some path sees the whole input: squeeze-and-excitation, global pooling, attention,
            normalization by statistics of the image. `size`, `stride` and `start` are then those of the other paths, if
            there are any.
    """

    size: tuple[int, ...]
    stride: tuple[int | Fraction, ...]
    start: tuple[int, ...]
    units: tuple[int, ...]
    aligned: bool
    unaligned: tuple[str, ...]
    global_context: bool
    input_size: tuple[int, ...]
    _seen: Callable[[], tuple[tuple[tuple[int, int], ...], ...]] = field(repr=False, compare=False)

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


def _moving(state: State) -> list[tuple[list[int], list[int], list[Branch]]]:
    """For each axis: the factors along which the field moves, their lengths, and the branches that count."""
    still = [dim for dim in range(len(state.layout)) if not any(
        index is not None and index.moves
        for axis in state.axes for branch in axis for index in branch.indices[state.place(dim)])]
    state = state.contracted(still)  # parts of a dimension along which no field moves, such as channels
    lengths = state.factors
    axes = []
    for branches in state.axes:
        local = [branch for branch in branches if not branch.everywhere] or list(branches)
        carrying = [i for i in range(len(lengths)) if any(
            branch.indices[i] is not None and branch.indices[i].moves for branch in local)]
        local = [_unmasked(branch, carrying, lengths) for branch in local]
        local = [branch for branch in local if branch.first != math.inf]
        axes.append((carrying, [lengths[i] for i in carrying], local))
    return axes


def _unmasked(branch: Branch, carrying: Sequence[int], lengths: Sequence[int]) -> Branch:
    """The branch with all that other factors than those of `carrying` let it see."""
    hulls = [index.hull(length) for i, (index, length) in enumerate(zip(branch.indices, lengths))
             if index is not None and i not in carrying]
    if not hulls:
        return branch
    indices = tuple(index if i in carrying else None for i, index in enumerate(branch.indices))
    first, last = (sum(ends, start) for ends, start in zip(zip(*hulls), (branch.first, branch.last)))
    return Branch(first, last, indices, branch.everywhere)


def _spans(carrying: Sequence[int], lengths: Sequence[int], branches: Sequence[Branch]) -> list[tuple[int, int]]:
    """The span of every unit."""
    return [_cover([_span(branch, carrying, unit) for branch in branches] or [NOWHERE])
            for unit in itertools.product(*map(range, lengths))]


def _is_steady(carrying: Sequence[int], branches: Sequence[Branch]) -> bool:
    """Whether the field only moves by the same step from every unit to the next."""
    indices = [branch.indices[place] for place in carrying for branch in branches]
    return len(carrying) == 1 and all(
        index is not None and not index.is_table and len(index.first) == 1 and index.step == indices[0].step
        for index in indices)


def _field(state: State, input_size: tuple[int, ...], seen: Callable) -> Field:
    sizes, strides, starts, units = [], [], [], []
    for carrying, lengths, branches in _moving(state):
        spans = _spans(carrying, (1,) if _is_steady(carrying, branches) else lengths, branches)
        seeing = [span for span in spans if span != NOWHERE]
        sizes.append(max(last - first + 1 for first, last in seeing))
        starts.append(seeing[0][0])
        units.append(math.prod(lengths))
        strides.append(_stride(branches, carrying))
    names = tuple(dict.fromkeys(name for axis in state.unaligned for name in axis))
    everywhere = any(branch.everywhere for axis in state.axes for branch in axis)
    return Field(tuple(sizes), tuple(strides), tuple(starts), tuple(units), not names, names, everywhere, input_size,
                 seen)


def _span(branch: Branch, carrying: Sequence[int], unit: Sequence[int]) -> tuple[int, int]:
    first, last = branch.first, branch.last
    for place, i in zip(carrying, unit):
        index = branch.indices[place]
        if index is not None:
            low, high = index.span(i)
            first += low
            last += high
    return first, last


def _stride(branches: Sequence[Branch], carrying: Sequence[int]) -> int | Fraction:
    """Mean advance from one unit to the next, along the innermost index that moves the field."""
    if not carrying:
        return 0
    steps = []
    for branch in branches:
        index = branch.indices[carrying[-1]]
        if index is not None and index.is_table:
            places = [(i, first) for i, first in enumerate(index.first) if first != math.inf]
            (i, a), (j, b) = places[0], places[-1]
            steps.append(Fraction(b - a, j - i) if j > i else Fraction(0))
        elif index is not None:
            steps.append(Fraction(index.step, len(index.first)))
    stride = max(steps, key=abs)
    return int(stride) if stride.denominator == 1 else stride


class Fields(Mapping):
    """Module names in forward order, each with the `Field` of its output; `output` is the field of the whole network.

    Modules whose output does not depend on the input's pixels are left out. A module called more than once
    stands for its last call.
    """

    def __init__(self, record: Trace, source: int):
        self._record = record
        self._source = source
        self._states = _Follower(record, source).states
        self._bounded = None
        self._fields = {}
        self._values = {call.name: call.outputs[0] for call in record.calls()
                        if call.name and call.outputs and call.outputs[0] in self._states}
        value = record.inputs[source]
        self.input_size = tuple(value.shape[dim] for dim in spatial_dims(value))

    def _field_of(self, value: Value) -> Field:
        if value not in self._fields:
            self._fields[value] = _field(self._states[value], self.input_size, lambda: self._seen(value))
        return self._fields[value]

    def _seen(self, value: Value) -> tuple[tuple[tuple[int, int], ...], ...]:
        """For each axis the span of every unit, borders respected."""
        if self._bounded is None:
            self._bounded = _Follower(self._record, self._source, bounded=True).states
        units = self._field_of(value).units
        if value in self._bounded:
            axes = [_spans(*axis) for axis in _moving(self._bounded[value])]
        else:
            axes = [[NOWHERE]] * len(units)
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
        values = self._record.outputs
        return self._field_of(values[0]) if values and values[0] in self._states else None

    def __str__(self) -> str:
        head = ("layer", "size", "stride", "start", "notes")
        rows = []
        for name, one in self.items():
            notes = ["global context"] * one.global_context + ["unaligned"] * (not one.aligned)
            rows.append((name, *("x".join(map(str, pair)) for pair in (one.size, one.stride)),
                         ", ".join(map(str, one.start)), ", ".join(notes)))
        widths = [max(map(len, column)) for column in zip(head, *rows)]
        lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths)) for row in (head, *rows))
        return "\n".join(map(str.rstrip, lines))

    __repr__ = __str__


def receptive_field(model: nn.Module, input_size: InputSize, *, batch_size: int = 1, source: int = 0) -> Fields:
    """The receptive field of every module's output with respect to the input number `source`.

    `input_size` is as in `cost_table`. The result maps dotted module names to `Field`s. The field is that of the
    function which the network computes from its input's pixels with batch-norm statistics taken as given; it does not
    depend on the weights.

    Raises `TypeError` or `ValueError` for arguments that make no sense and `AnalysisError`, a `ValueError` that
    names the operation and the module, for what cannot be followed.
    """
    record = trace(model, input_size, batch_size=batch_size)
    if not 0 <= source < len(record.inputs):
        raise ValueError(f"source must be the number of an input, below {len(record.inputs)}; got {source}")
    value = record.inputs[source]
    if not spatial_dims(value):
        raise ValueError(f"an input of shape {tuple(value.shape[1:])} has no spatial axes; give (C, H, W), (C, L) or "
                         "(C, D, H, W)")
    return Fields(record, source)
