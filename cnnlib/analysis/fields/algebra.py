"""The algebra of receptive fields: functions of an index, sums of them over the factors of a tensor's dimensions, and unions.

For every tensor and every spatial axis of the input, the first and the last input coordinate that a unit depends on are kept as
functions of the unit's index. Through sliding windows such functions stay periodic up to a slope:
`last(i + period) = last(i) + step`, and in most networks the period is 1 and the step is the layer's stride. Reshapes split and
merge indices; where branches meet, a unit sees what either branch sees.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, reduce
from typing import NamedTuple


# Functions of one index


NOWHERE = (math.inf, -math.inf)  # the span of an index that sees nothing


class Index(NamedTuple):
    """First and last coordinate as functions of an index: `first[i % period] + step * (i // period)`, and so for last.

    A table has one entry for each index and nothing outside; if it does not `move`, it says which indices (channels)
    see at all.
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


STILL = Index(0, moves=False)  # of an index on which the coordinate does not depend


@lru_cache(maxsize=4096)
def hull(index: Index, length: int) -> tuple[int, int]:
    """The first and last coordinate over all indices below `length`."""
    if len(index.first) == 1 and not index.is_table:
        reach = index.step * (length - 1)
        return index.first[0] + min(0, reach), index.last[0] + max(0, reach)
    return cover(index.span(i) for i in range(length))


def cover(spans) -> tuple[int, int]:
    """The smallest span that contains all of `spans`, of which there may be none."""
    spans = list(spans) or [NOWHERE]
    return min(first for first, _ in spans), max(last for _, last in spans)


def table(spans, moves: bool = True) -> Index:
    first, last = zip(*spans)
    return Index(0, first, last, True, moves)


def periodic(step: int, spans: Sequence[tuple[int, int]]) -> Index:
    """The function with these spans in its first period, written with the shortest period."""
    first, last = zip(*spans)
    period = len(spans)
    for shorter in range(1, period):
        if period % shorter == 0 and step * shorter % period == 0:
            small = step * shorter // period
            if all(row[i] == row[i - shorter] + small for row in (first, last) for i in range(shorter, period)):
                return Index(small, first[:shorter], last[:shorter])
    return Index(step, first, last)


LONGEST_PERIOD = 2048


class Unfollowed(Exception):
    """An operation that the fields cannot be followed through; the message says why."""


# What outputs see: windows of inputs, and how far these advance until they start anew

Windows = tuple[Sequence[int], ...]


def sliding(kernel: int, stride: int, padding: int, dilation: int) -> tuple[Windows, int]:
    """Output o covers the inputs o * stride - padding + t * dilation, t < kernel."""
    return (range(-padding, kernel * dilation - padding, dilation),), stride


def transposed(kernel: int, stride: int, padding: int, dilation: int, places: int = 1) -> tuple[Windows, int]:
    """Output o covers the inputs i with o = i * stride - padding + t * dilation, t < kernel; of inputs that have a
    place of their own for each t, `places` = kernel of them, number i * places + t."""
    def window(o):
        turns = [(t, *divmod(o + padding - t * dilation, stride)) for t in range(kernel)]
        return tuple([i * places + t % places for t, i, rest in turns if rest == 0])

    return tuple(map(window, range(stride))), places


@lru_cache(maxsize=4096)
def gathered(index: Index, out: int, windows: Windows, advance: int | None) -> Index:
    """The function of `out` outputs of which number o covers the input indices of windows[o]; after all windows they start anew
    `advance` further on, or there are as many as outputs (None). Raises `Unfollowed` for patterns that are too long."""
    period = len(index.first)
    if period == 1 and not index.is_table:  # the ends decide
        windows = [(*window[:1], *window[-1:]) for window in windows]

    def span(o):
        turn, place = divmod(o, len(windows))
        return cover(index.span(i + turn * (advance or 0)) for i in windows[place])

    if index.is_table or advance is None or not index.moves:
        return table(map(span, range(out)), index.moves)
    turns = period // math.gcd(period, advance)
    count = turns * len(windows)
    if count > LONGEST_PERIOD:
        # maps resized by odd ratios again and again have endless patterns
        raise Unfollowed(f"the pattern of its fields repeats only after {count} units, and {LONGEST_PERIOD} are the most that are followed")
    return periodic(index.step * advance * turns // period, list(map(span, range(count))))


# Fields of a tensor


class Branch(NamedTuple):
    """The field along one input axis by one kind of path: spans of all indices on which it depends, added up.

    `indices` has one entry for each factor of the tensor's layout.
    `everywhere` marks paths through a global operation: pooling to one value, attention, statistics of the image.
    """

    first: int
    last: int
    indices: tuple[Index, ...]
    everywhere: bool = False

    def with_indices(self, indices: tuple[Index, ...]) -> "Branch":
        return Branch(self.first, self.last, indices, self.everywhere)

    def span(self, carrying: Sequence[int], unit: Sequence[int]) -> tuple[int, int]:
        """That of a unit by its indices along the factors of `carrying`."""
        first, last = self.first, self.last
        for place, i in zip(carrying, unit):
            low, high = self.indices[place].span(i)
            first += low
            last += high
        return first, last

    def summed(self, places: Iterable[int], lengths: Sequence[int]) -> "Branch":
        """The branch with all that the factors at `places` let it see."""
        first, last, left = self.first, self.last, list(self.indices)
        for i in places:
            if left[i] is not STILL:
                low, high = hull(left[i], lengths[i])
                first, last, left[i] = first + low, last + high, STILL
        return Branch(first, last, tuple(left), self.everywhere)


@dataclass(eq=False)
class State:
    """The fields of one tensor: a layout, which splits each dimension into factors, and branches for each input axis.

    `unaligned` names the modules in which branches met whose fields have different strides or centres."""

    layout: tuple[tuple[int, ...], ...]
    axes: tuple[tuple[Branch, ...], ...]
    unaligned: tuple[tuple[str, ...], ...]

    @cached_property
    def factors(self) -> list[int]:
        return [length for dim in self.layout for length in dim]

    @cached_property
    def places(self) -> list[range]:
        """Where the factors of each dimension stand in the flat list."""
        ends = list(itertools.accumulate(map(len, self.layout), initial=0))
        return list(map(range, ends, ends[1:]))

    def depends(self, *dims: int) -> bool:
        """Whether some field depends on one of the dimensions."""
        places = [i for dim in dims for i in self.places[dim]]
        return any(branch.indices[i] is not STILL for axis in self.axes for branch in axis for i in places)

    def seeing(self) -> "State | None":
        """The same without branches by which no unit sees anything; None if there are no others."""
        axes = tuple([tuple([branch for branch in axis if not _is_blind(branch)]) for axis in self.axes])
        if not any(axes):
            return None
        return self if axes == self.axes else State(self.layout, axes, self.unaligned)

    def changed(self, layout, change: Callable) -> "State":
        """The same in another layout, with what `change` makes of the branches of each axis."""
        return State(layout, tuple([tuple(change(axis)) for axis in self.axes]), self.unaligned)

    def rewritten(self, start: int, stop: int, dims: Sequence[tuple[int, ...]], ways: Callable) -> "State":
        """The dimensions from `start` up to `stop` replaced by `dims`, each given by its factors; of a branch's indices
        there `ways` makes the ways to write them anew: a list, one for each new branch."""
        begin, end = (sum(map(len, self.layout[:dim])) for dim in (start, stop))
        return self.changed((*self.layout[:start], *dims, *self.layout[stop:]), lambda axis: [
            branch.with_indices((*branch.indices[:begin], *way, *branch.indices[end:]))
            for branch in axis for way in ways(branch.indices[begin:end])])

    def merged(self, dim: int) -> "State":
        """The same with a single factor for `dim`."""
        lengths = self.layout[dim]

        def merge(indices):
            merged, before = indices[0], lengths[0]
            for index, length in zip(indices[1:], lengths[1:]):
                merged = merge_two(merged, index, before, length)
                before *= length
            return [(merged,)]

        return self if len(lengths) == 1 else self.rewritten(dim, dim + 1, [(math.prod(lengths),)], merge)

    def gathered(self, dim: int, out: int, windows: Windows, advance: int | None = None,
                 still: bool = False) -> "State":
        """The same after windows along `dim`, now of length `out`, also where nothing moves along it if `still`."""
        def gather(old):
            return [[STILL if old[0] is STILL and not still else gathered(old[0], out, windows, advance)]]

        return self.merged(dim).rewritten(dim, dim + 1, [(out,)], gather)

    def picked(self, dim: int, places: Sequence[int | None]) -> "State":
        """The elements at these places along `dim`, nothing for None; places in front and behind continue it."""
        if None not in places and len(places) and not isinstance(places, range):
            regular = range(places[0], places[-1] + 1, max(places[1] - places[0], 1) if len(places) > 1 else 1)
            places = regular if list(regular) == list(places) else places
        if places == range(math.prod(self.layout[dim])):
            return self
        if isinstance(places, range):
            return self.gathered(dim, len(places), ((places.start,),), places.step)
        windows = tuple([() if i is None else (i,) for i in places])
        return self.gathered(dim, len(places), windows, still=None in places)

    def contracted(self, dims: Sequence[int]) -> "State":
        """Each unit sees what all units along `dims` see; the dimensions keep their lengths.

        That is everything where no place is left along an axis, or where `dims` hold all places of a map (N, C, ...):
        channels may still differ by parts of a pixel."""
        whole = len(self.layout) == len(self.axes) + 2 and set(dims) >= set(range(2, len(self.layout)))
        places = {i for dim in dims for i in self.places[dim]}

        def contract(branch):
            left = branch.summed(places, self.factors)
            reduced = any([branch.indices[i].moves for i in places if self.factors[i] > 1])
            everywhere = reduced and (whole or not any([index.moves for index in left.indices]))
            return left._replace(everywhere=True) if everywhere else left

        return self.changed(self.layout, lambda axis: outermost(
            [branch for branch in map(contract, axis) if branch.first != math.inf], self.factors))

    def resized(self, dim: int, length: int) -> "State":
        """Each unit sees what all units along `dim` see, which gets another length."""
        return self.contracted((dim,)).rewritten(dim, dim + 1, [(length,)], lambda _: [(STILL,)])

    def without(self, dims: Sequence[int]) -> "State":
        """Each unit sees what all units along `dims` see, and these dimensions go."""
        state = self.contracted(dims)
        for dim in sorted(dims, reverse=True):
            state = state.rewritten(dim, dim + 1, [], lambda _: [()])
        return state

    def with_new(self, dim: int, length: int = 1) -> "State":
        """A new dimension at `dim`, on which no field depends."""
        return self.rewritten(dim, dim, [(length,)], lambda _: [(STILL,)])

    def permuted(self, order: Sequence[int]) -> "State":
        positions = [i for dim in order for i in self.places[dim]]
        layout = tuple(self.layout[dim] for dim in order)
        return self.changed(layout, lambda axis: [
            branch.with_indices(tuple([branch.indices[i] for i in positions])) for branch in axis])

    def expanded(self, shape: Sequence[int]) -> "State":
        """Broadcast to `shape`."""
        state = self
        while len(state.layout) < len(shape):
            state = state.with_new(0)
        for dim, length in enumerate(shape):
            if math.prod(state.layout[dim]) != length:
                state = state.resized(dim, length)
        return state

    def reshaped(self, shape: Sequence[int]) -> "State":
        """The fields after a view as `shape`: factors are split and regrouped, merged where borders cannot be kept."""
        if math.prod(shape) != math.prod(self.factors):
            raise Unfollowed(f"a view as {tuple(shape)} does not fit {self.layout}")
        ends = [math.prod(shape[i:]) for i in range(len(shape))]
        groups: list[tuple[int, ...]] = []
        for i, length in enumerate(self.factors):
            below = math.prod(self.factors[i:])
            if groups and any(below % end and end % below for end in ends):
                groups[-1] += (length,)
            else:
                groups.append((length,))
        state, below = State(tuple(groups), self.axes, self.unaligned), 1  # a dimension for each factor
        for dim in reversed(range(len(groups))):
            above = below * math.prod(groups[dim])
            cuts = list(dict.fromkeys([above, *(end for end in ends if below < end < above), below]))
            parts = [a // b for a, b in zip(cuts, cuts[1:])]
            state, below = state.merged(dim), above
            if len(parts) > 1:
                dims = [(part,) for part in parts]
                state = state.rewritten(dim, dim + 1, dims, lambda indices: split(indices[0], parts))
        dim, layout = 0, []
        for length in shape:
            begin, left = dim, length
            while left > 1:
                factor, = state.layout[dim]
                if factor == 1:
                    state = state.without((dim,))
                else:
                    left, dim = left // factor, dim + 1
            if length == 1:
                state = state if state.layout[dim:dim + 1] == ((1,),) else state.with_new(dim)
                dim += 1
            layout.append(tuple(state.factors[begin:dim]))
        state = state.without(range(dim, len(state.layout)))
        return State(tuple(layout), state.axes, state.unaligned)


def _is_blind(branch: Branch) -> bool:
    return branch.first == math.inf or any([min(index.first, default=math.inf) == math.inf for index in branch.indices])


@lru_cache(maxsize=4096)
def merge_two(outer: Index, inner: Index, before: int, length: int) -> Index:
    """One function of i = i1 * length + i2 from functions of i1 < `before` and i2 < `length`."""
    if outer is STILL and inner is STILL:
        return STILL
    ends = outer.is_table or inner.is_table
    count = before if ends else len(outer.first)
    pairs = [zip(outer.span(i // length), inner.span(i % length)) for i in range(count * length)]
    spans = [(sum(firsts), sum(lasts)) for firsts, lasts in pairs]
    return table(spans, outer.moves or inner.moves) if ends else periodic(outer.step, spans)


@lru_cache(maxsize=4096)
def split_two(index: Index, outer: int, inner: int) -> list[tuple[Index, Index]]:
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
    return [(table(begins, index.moves), table(pattern, index.moves)) for pattern, begins in rows.items()]


def split(index: Index, lengths: Sequence[int]) -> list[list[Index]]:
    """The ways to write a function of one index as a sum of functions of its parts; each covers some of the indices."""
    if index is STILL:
        return [[STILL] * len(lengths)]
    if len(lengths) == 1:
        return [[index]]
    return [[outer, *rest] for outer, inner in split_two(index, lengths[0], math.prod(lengths[1:]))
            for rest in split(inner, lengths[1:])]


# Where branches meet


def _common_factors(first: tuple[int, ...], second: tuple[int, ...]) -> tuple[int, ...]:
    """The coarsest factors that refine both, or a single one if there are none."""
    if first == second:
        return first
    cuts = sorted({math.prod(lengths[i:]) for lengths in (first, second) for i in range(len(lengths))}, reverse=True)
    if any(a % b for a, b in zip(cuts, cuts[1:])):
        return (math.prod(first),)
    return tuple(a // b for a, b in zip(cuts, (*cuts[1:], 1)))


@lru_cache(maxsize=4096)
def _difference(a: Index, b: Index, length: int) -> tuple[int, int]:
    """The least of first(a) - first(b) and of last(b) - last(a) over all indices below `length` at which `a` sees."""
    if a == b:
        return 0, 0
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


def outermost(branches: Sequence[Branch], lengths: Sequence[int]) -> tuple[Branch, ...]:
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
        return 0 if index.is_table else sum(index.span(i))

    differing = [(x, y, length) for x, y, length in zip(a.indices, b.indices, lengths) if x is not y and x != y]
    if a.first + a.last - b.first - b.last + sum([centre(x, 0) - centre(y, 0) for x, y, _ in differing]):
        return False
    for x, y, length in differing:
        if x.is_table or y.is_table:
            continue  # parts of a whole: they need not agree
        indices = (length - 1,) if len(x.first) == len(y.first) == 1 else range(length)
        if any(centre(x, i) - centre(y, i) != centre(x, 0) - centre(y, 0) for i in indices):
            return False
    return True


def union(states: Sequence[State], where: str) -> State:
    """A unit sees what it sees by any of the states, which have one shape; `where` is the module that joins them."""
    states = list({id(state): state for state in states}.values())
    if len(states) == 1:
        return states[0]
    for dim, lengths in enumerate([reduce(_common_factors, dims) for dims in zip(*[state.layout for state in states])]):
        states = [state if state.layout[dim] == lengths else state.merged(dim).rewritten(
            dim, dim + 1, [lengths], lambda indices: split(indices[0], lengths)) for state in states]
    lengths = states[0].factors
    axes, unaligned = [], []
    for i in range(len(states[0].axes)):
        names = dict.fromkeys(name for state in states for name in state.unaligned[i])
        branches = [branch for state in states for branch in state.axes[i]]
        local = [branch for branch in branches if not branch.everywhere]
        if not all(_same_centres(branch, local[0], lengths) for branch in local[1:]):
            names[where] = None
        axes.append(outermost(branches, lengths))
        unaligned.append(tuple(names))
    return State(states[0].layout, tuple(axes), tuple(unaligned))


