"""How receptive fields pass through each operation: rules by the name that the table of operators (`ops.py`) gives."""

import itertools
import math
import operator
from collections.abc import Sequence
from fractions import Fraction
from functools import cached_property, lru_cache

import torch

from .. import ops
from ..trace import Missing, Node, Step, Trace, Value
from ..watch import AnalysisError
from .algebra import STILL, Branch, Index, State, Unfollowed, gathered, sliding, split_two, table, transposed, union



class Follower:
    """Carries the fields from an input of a traced graph to all its values.

    By default the image and every feature map go on without end, so that fields have a size and a stride; `bounded`
    ends them where they end. Without `strict`, what cannot be followed is listed in `missing`, and nothing is known of
    what comes out. The rule `name` of the table of operators is `follow_name`: from a node to the states of its
    outputs, or one for all.
    """

    def __init__(self, record: Trace, source: int, bounded: bool = False, strict: bool = True):
        self.states = {}
        self.record = record
        self.makers = {}  # indices -> the pooling that made them
        self.missing = list(record.missing)
        self.strict = strict
        value = record.inputs[source]
        axes = []
        for dim in spatial_dims(value):
            pixels = table((i, i) for i in range(value.shape[dim])) if bounded else Index(1)
            axes.append((Branch(0, 0, tuple(pixels if i == dim else STILL for i in range(len(value.shape)))),))
        layout = tuple((length,) for length in value.shape)
        self.states[value] = State(layout, tuple(axes), ((),) * len(axes))
        self.keeps_parts = any(ops.of(node.op).field in ("parts", "rearranged", "index") for node in record.nodes())
        self.unknown = set()  # values of which nothing is known
        for step in record.steps:
            if isinstance(step, Step):
                self.where = step.call.name if step.call else ""
                self.step = step
                for node in step.nodes:
                    self.follow(node)

    @cached_property
    def used(self) -> set[Value]:
        """What operations read or modules give out."""
        return {value for one in (*self.record.nodes(), *self.record.calls()) for value in (
            one.inputs if isinstance(one, Node) else one.outputs)}

    def of(self, thing) -> State | None:
        """The state of a value, or None for what does not depend on the input."""
        return self.states.get(thing) if isinstance(thing, Value) else None

    def follow(self, node: Node) -> None:
        if self.unknown and not self.unknown.isdisjoint(node.inputs):
            self.unknown.update(node.outputs)
            return
        if not any([value in self.states for value in node.inputs]):
            return
        if node.op == "written_through" and node.outputs[0] not in self.used:
            return
        name = ops.of(node.op).field
        try:
            if not name:
                raise Unfollowed("no rule says which inputs its outputs depend on")
            results = getattr(self, "follow_" + name)(node)
        except Unfollowed as reason:
            if self.strict:
                kind = self.step.call.kind if self.step.call else ""
                raise AnalysisError(
                    f"receptive field: cannot follow the operation {node.op!r} ({self.step.kind}) in module {self.where!r} "
                    f"({kind}): {reason}. Analyse the parts of the network before and after it by themselves, or pass "
                    "strict=False to leave out what comes behind it.") from None
            self.missing.append(Missing(self.where, node.op, str(reason)))
            self.unknown.update(node.outputs)
            return
        if isinstance(results, State) or results is None:
            results = [results] * len(node.outputs)
        for value, state in zip(node.outputs, results):
            if state is not None and (state := state.seeing()) is not None:
                self.states[value] = state

    def union(self, states: Sequence[State | None]) -> State | None:
        states = [state for state in states if state is not None]
        return union(states, self.where) if states else None

    def follow_elementwise(self, node):
        """Each unit sees what the same unit of any operand sees."""
        shape = node.outputs[0].shape
        states = [self.of(value) for value in node.inputs]
        return self.union([state and state.expanded(shape) for state in states])

    def follow_batch_norm(self, node):
        """Each unit sees itself, since statistics count as given; those of one channel of a sample (instance norm) depend on all of it."""
        state = self.follow_elementwise(node)
        if self.step.kind == "instance_norm" and node.arg("training"):
            return self.union([state, state.contracted(range(2, len(state.layout)))])
        return state

    def follow_written(self, node):
        state = self.of(node.args[1])
        return state and state.expanded(node.outputs[0].shape)

    def follow_constant(self, node):
        return None

    def follow_reshape(self, node):
        return self.of(node.args[0]).reshaped(node.outputs[0].shape)

    def follow_as_strided(self, node):
        state = self.of(node.args[0])
        if state.depends(*range(len(state.layout))):
            raise Unfollowed("it addresses memory directly; use a view that names dimensions")
        return state.without(range(len(state.layout))).expanded(node.outputs[0].shape)

    def follow_permute(self, node):
        state = self.of(node.args[0])
        order = list(range(len(state.layout)))
        if node.op == "permute":
            order = [dim % len(order) for dim in node.args[1]]
        else:
            a, b = node.args[1:3] if node.op == "transpose" else (0, -1)
            order[a], order[b] = order[b], order[a]
        return state.permuted(order)

    # Parts and wholes

    def follow_parts(self, node):
        """A slice, the parts of a split one behind the other, or single places, whose dimension goes."""
        value = node.args[0]
        state, dim = self.of(value), node.arg("dim", 0) % len(value.shape)
        length = value.shape[dim]
        if node.op in ("select", "unbind"):
            places = [node.arg("index") % length] if node.op == "select" else range(length)
            return [state.picked(dim, range(place, place + 1)).without((dim,)) for place in places]
        lengths = [out.shape[dim] for out in node.outputs]
        starts = itertools.accumulate(lengths, initial=0)
        if node.op == "slice":
            start = node.arg("start", 0)
            starts = [min(max(start + length if start < 0 else start, 0), length)]
        step = node.arg("step", 1)
        return [state.picked(dim, range(start, start + step * n, step)) for start, n in zip(starts, lengths)]

    def follow_cat(self, node):
        shape = node.outputs[0].shape
        dim = node.arg("dim", 0) % len(shape)
        states, start = [], 0
        for value in node.args[0]:
            if value.shape == (0,) and len(shape) > 1:  # PyTorch lets it pass
                continue
            state, length = self.of(value), 1
            if node.op == "stack":
                state = state and state.with_new(dim)
            else:
                length = value.shape[dim]
            if state is not None and not (self.keeps_parts or state.depends(dim)):
                state = state.resized(dim, shape[dim])
            elif state is not None:
                state = state.picked(dim, [*[None] * start, *range(length), *[None] * (shape[dim] - start - length)])
            states.append(state)
            start += length
        return self.union(states)

    def follow_pad(self, node):
        """The border that is added counts as a continuation of the image; what it repeats lies inside the same fields."""
        value, pads = node.args[:2]
        state = self.of(value)
        for dim, before in zip(range(len(value.shape) - 1, -1, -1), pads[::2]):
            state = state.picked(dim, range(-before, node.outputs[0].shape[dim] - before))
        return state

    def follow_rearranged(self, node):
        """The same elements in another order."""
        value = node.args[0]
        state = self.of(value)
        shifts, dims = ((0,), node.args[1]) if node.op == "flip" else (node.args[1], node.arg("dims", ()))
        if not dims:
            raise Unfollowed("it moves elements across dimensions; name the dimensions")
        for dim, shift in zip(dims, itertools.cycle(shifts)):
            n = value.shape[dim]
            order = [n - 1 - i if node.op == "flip" else (i - shift) % n for i in range(n)]
            state = state.picked(dim % len(value.shape), order)
        return state

    def follow_repeat(self, node):
        value, repeats = node.args[:2]
        state = self.of(value).reshaped((1,) * (len(repeats) - len(value.shape)) + value.shape)
        for dim, times in reversed(list(enumerate(repeats))):
            if times > 1:
                state = state.with_new(dim, times)
        return state.reshaped(node.outputs[0].shape)

    def follow_index(self, node):
        """Elements by constant indices: those along one dimension, or tuples of them along several, which become one."""
        value = node.args[0]
        if node.op == "index_select":
            dim = node.arg("dim", 0) % len(value.shape)
            indices = (None,) * dim + (node.arg("index"),)
        else:
            indices = node.arg("indices")
        dims = [dim for dim, one in enumerate(indices) if one is not None]
        if any(indices[dim].data is None for dim in dims):
            raise Unfollowed("the values of its indices are not known; they must be constants, and not on the meta device")
        tensors = [indices[dim].data.cpu() % value.shape[dim] for dim in dims]  # negative ones count from the end
        start = dims[0] if dims == list(range(dims[0], dims[-1] + 1)) else 0
        stop = start + len(dims)
        others = [dim for dim in range(len(value.shape)) if dim not in dims]
        state = self.of(value).permuted([*others[:start], *dims, *others[start:]])
        along = [[i - tensor.dim() for i, n in enumerate(tensor.shape) if n > 1] for tensor in tensors]
        places = list(itertools.chain(*along))
        if len(set(places)) == len(places) and max(map(len, along)) < 2:  # each along a dimension of its own
            for dim, tensor in enumerate(tensors, start):
                state = state.picked(dim, tensor.flatten().tolist())
            order = sorted(range(start, stop), key=lambda dim: along[dim - start])
            state = state.permuted([*range(start), *order, *range(stop, len(state.layout))])
        else:
            strides = itertools.accumulate([value.shape[dim] for dim in dims[:0:-1]], operator.mul, initial=1)
            places = sum(tensor * stride for tensor, stride in zip(reversed(tensors), strides))
            merged = [math.prod(dim) for dim in state.layout]
            state = state.reshaped([*merged[:start], math.prod(merged[start:stop]), *merged[stop:]])
            state = state.picked(start, places.flatten().tolist())
        return state.reshaped(node.outputs[0].shape)

    def follow_shuffled(self, node):
        value, r = node.args[:2]
        n, c, *rest = value.shape
        if "channel" in node.op:
            shape, order = (n, r, c // r, *rest), (0, 2, 1, *range(3, len(rest) + 3))
        elif "unshuffle" in node.op:
            shape, order = (n, c, rest[0] // r, r, rest[1] // r, r), (0, 1, 3, 5, 2, 4)
        else:
            shape, order = (n, c // r**2, r, r, *rest), (0, 1, 4, 2, 5, 3)
        return self.of(value).reshaped(shape).permuted(order).reshaped(node.outputs[0].shape)

    # Windows

    def follow_pool(self, node):
        value = node.args[0]
        self.makers[node.outputs[-1]] = node
        return _slid(self.of(value), node.outputs[0].shape, [sliding(*one) for one in ops.pooling(node)], value.shape)

    def follow_max_unpool(self, node):
        """A maximum goes back to its place, which is any place of its window: known from the pooling that found it."""
        value, indices = node.args[:2]
        maker = self.makers.get(indices)
        if maker is None:
            raise Unfollowed("its indices are not those of a pooling layer of the network")
        state = self.union([self.of(value), self.of(indices)])
        return _slid(state, node.outputs[0].shape, [transposed(*one) for one in ops.pooling(maker)])

    def follow_adaptive_pool(self, node):
        """The windows of the table of operators, in the least lengths whose pattern repeats."""
        value, sizes = node.args[0], ops.lengths(node.args[1], 1)
        ways = []
        for length, out in zip(value.shape[-len(sizes):], sizes):
            repeats = math.gcd(length, out)
            ways.append((ops.adaptive_windows(length // repeats, out // repeats), length // repeats))
        return _slid(self.of(value), node.outputs[0].shape, ways, value.shape)

    def follow_convolution(self, node):
        value, weight, bias, stride, padding, dilation, is_transposed, _, groups = node.args[:9]
        out = node.outputs[0].shape
        given = [self.of(extra) for extra in (weight, bias)]  # a kernel computed from the input: all of it counts
        given = [state and state.without(range(len(state.layout))).expanded(out) for state in given]
        state = self.of(value)
        if state is None:
            return self.union(given)
        if groups > 1 and state.depends(1):
            per_group, made = value.shape[1] // groups, out[1] // groups
            state = state.gathered(1, out[1], (range(per_group),) * made, per_group)
        else:
            state = state.resized(1, out[1])
        windows = zip(weight.shape[2:], *(ops.lengths(one, len(out) - 2) for one in (stride, padding, dilation)))
        ways = [transposed(*one) if is_transposed else sliding(*one) for one in windows]
        return self.union([_slid(state, out, ways), *given])

    def follow_upsample(self, node):
        """Output o lies at a place between the inputs: the nearest one counts, or those on both sides, or a filter's whole width."""
        value, nearest = node.args[0], "nearest" in node.op
        corners = not nearest and node.args[2]
        scales = node.args[2 if nearest else 3:]
        ways = []
        for length, out, scale in itertools.zip_longest(value.shape[2:], node.outputs[0].shape[2:], scales):
            if nearest:
                windows = tuple((i,) for i in _nearest(node.op, value.dtype, length, out, scale))
                advance = length
            else:
                step = Fraction(length, out)
                if corners:
                    step = Fraction(length - 1, out - 1) if out > 1 else Fraction(0)
                elif scale:
                    step = 1 / Fraction(scale)
                windows = tuple(_sources(node.op, o, step, corners) for o in range(min(step.denominator, out)))
                advance = step.numerator if step.denominator <= out else None  # no pattern that repeats
            ways.append((windows, advance))
        return _slid(self.of(value), node.outputs[0].shape, ways)

    def follow_im2col(self, node):
        """Windows side by side: F.unfold and nn.Unfold, (N, C * kernel positions, window positions)."""
        value, kernel, dilation, padding, stride = node.args[:5]
        state = self.of(value)
        for dim, window in reversed(list(enumerate(zip(kernel, stride, padding, dilation), 2))):
            state = _windows(state, dim, ops.windows_along(value.shape[dim], *window), *window)
        return state.permuted((0, 1, 2, 4, 3, 5)).reshaped(node.outputs[0].shape)

    def follow_col2im(self, node):
        """F.fold and nn.Fold: each place sums the values of the windows that cover it."""
        value, size, kernel, dilation, padding, stride = node.args[:6]
        out = [ops.windows_along(*one) for one in zip(size, kernel, stride, padding, dilation)]
        maps = (value.shape[0], value.shape[1] // math.prod(kernel))
        state = self.of(value).reshaped((*maps, *kernel, *out)).permuted((0, 1, 4, 2, 5, 3))
        state = state.reshaped((*maps, *map(operator.mul, out, kernel)))
        ways = [transposed(*one, one[0]) for one in zip(kernel, stride, padding, dilation)]
        return _slid(state, node.outputs[0].shape, ways)

    def follow_unfold(self, node):
        """Tensor.unfold: windows along one dimension, the place in a window last."""
        value, dim, size, step = node.args
        rank = len(value.shape)
        dim %= rank
        state = _windows(self.of(value), dim, node.outputs[0].shape[dim], size, step, 0, 1)
        return state.permuted((*range(dim), *range(dim + 1, rank + 1), dim))

    # Sums over dimensions

    def follow_reduce(self, node):
        value = node.args[0]
        rank = len(value.shape)
        if len(node.inputs) > 1:  # max and min of two tensors
            return self.follow_elementwise(node)
        dims = node.arg("dim")
        if dims is None or dims == ():
            dims = range(rank)
        dims = sorted({dim % max(rank, 1) for dim in ((dims,) if isinstance(dims, int) else dims)})
        state = self.of(value).without(dims)
        for dim in dims if len(node.outputs[0].shape) == rank else ():
            state = state.with_new(dim)
        return state

    def follow_statistics(self, node):
        """A unit sees itself and all that is summed: one dimension (softmax, running sums), the last ones (layer norm),
        or all but the batch (group norm)."""
        state = self.of(node.args[0])
        rank, dim, last = len(state.layout), node.arg("dim"), node.arg("normalized_shape", ())
        dims = range(rank - len(last), rank) if last else range(1, rank) if dim is None else (dim % rank,)
        return self.union([state, state.contracted(dims)])

    def follow_attention(self, node):
        """A token sees itself and, through keys and values, all tokens."""
        shape = node.outputs[0].shape
        query, *others = map(self.of, node.args[:3])
        states = [query and query.contracted((len(shape) - 1,))]
        states += [state and state.contracted(range(1, len(shape))) for state in others]
        return self.union([state and state.expanded(shape) for state in states])

    def follow_product(self, node):
        """A matrix product: an output sees a row of the left and a column of the right operand, and what is added."""
        out, places = node.outputs[0].shape, ops.of(node.op).operands
        left, right = (node.args[place] for place in places)
        states = [state.expanded(out) for place, value in enumerate(node.args[:3])
                  if place not in places and (state := self.of(value)) is not None]
        for one, other, is_right in ((left, right, False), (right, left, True)):
            state, rank = self.of(one), len(one.shape)
            if state is not None:
                dim = rank - 2 if is_right and rank > 1 and node.op != "linear" else rank - 1
                state = state.without((dim,))
                if len(other.shape) > 1:
                    state = state.with_new(max(len(state.layout) - is_right, 0))
                states.append(state.expanded(out))
        return self.union(states)

    def follow_written_through(self, node):
        """A tensor that shares memory with one that was written: what was written there, elsewhere what was there
        before.

        `shared` holds `Storage.places` of both, or nothing where both are the whole of the memory in one order."""
        before, written, shared = node.args
        old, new = self.of(before), self.of(written)
        if not shared:
            return new and new.reshaped(before.shape)
        if None in shared:
            raise Unfollowed("a part of a tensor is written by way of a view that mixes its dimensions; use torch.cat instead")
        ours, theirs = shared
        at = [[taken.index(i) if i in taken else None for i in places] for (_, places), (_, taken) in zip(ours, theirs)]
        if any(all(i is None for i in indices) for indices in at):  # nothing in common
            return old
        if new is not None:
            new = _along(new, [dim for dim, _ in theirs if dim is not None])
            for axis, ((dim, _), indices) in enumerate(zip(theirs, at)):
                new = (new.with_new(axis) if dim is None else new).picked(axis, indices)
            order = [dim for dim, _ in ours]
            kept = [axis for axis, dim in enumerate(order) if dim is not None]
            new = _along(new, sorted(kept, key=order.__getitem__))
            for dim, length in enumerate(before.shape):
                if dim not in order:
                    new = new.with_new(dim, length)
        states = [new]
        for (dim, _), indices in zip(ours, at) if old is not None else ():  # outside in at least one dimension
            if dim is not None and None in indices:
                states.append(old.picked(dim, [i if j is None else None for i, j in enumerate(indices)]))
        return self.union(states)


def spatial_dims(value: Value) -> tuple[int, ...]:
    """The dimensions of an input that are spatial: all after batch and channels."""
    return tuple(range(2, len(value.shape)))


def _slid(state: State, out: Sequence[int], ways: Sequence[tuple], given: Sequence[int] = ()) -> State:
    """The fields after windows moved along the last dimensions, each by (windows, advance), whose lengths are then
    those of `out`; a pooling's window over a whole dimension of the shape `given` sees everything."""
    for dim, (windows, advance) in enumerate(ways, len(out) - len(ways)):
        state = state.gathered(dim, out[dim], windows, advance)
        if given and out[dim] == 1 < given[dim] <= len(windows[0]) and windows[0].step == 1:
            place = state.places[dim].start
            state = state.changed(state.layout, lambda axis: [branch._replace(
                everywhere=branch.everywhere or branch.indices[place] is not STILL) for branch in axis])
    return state


@lru_cache(maxsize=1024)
def _nearest(op: str, dtype: torch.dtype, length: int, out: int, scale: float | None) -> list[int]:
    """The input that each output of an interpolation by nearest neighbours takes, as the kernel's rounding decides."""
    n = ops.axes(op)
    numbers = torch.arange(length, dtype=dtype if dtype in (torch.float32, torch.float64) else torch.float32, device="cpu")
    kernel, rest = getattr(torch.ops.aten, op), (1,) * (n - 1)
    return kernel(numbers.view(1, 1, length, *rest), [out, *rest], scale, *(None,) * (n - 1)).flatten().int().tolist()


def _sources(op: str, o: int, advance: Fraction, corners: bool) -> Sequence[int]:
    """The inputs between the first and the last that output `o` of an interpolation takes."""
    half = Fraction(1, 2)
    if op.endswith("_aa"):  # the filter is as wide as the advance, around the middle of the output
        wide = max(advance, 1)
        reach, weight = (2, _cubic) if "cubic" in op else (1, lambda x: 1 - abs(x))
        middle = (o + half) * advance
        return tuple(i for i in range(math.floor(middle - reach * wide), math.ceil(middle + reach * wide) + 1)
                     if abs(x := (i + half - middle) / wide) < reach and weight(x))
    place = o * advance if corners else (o + half) * advance - half
    low, high = math.floor(place), math.ceil(place)
    wide = op == "upsample_bicubic2d" and low < high
    return range(low - wide, high + wide + 1)


def _cubic(x: Fraction) -> Fraction:
    """The cubic filter with a = -1/2 that antialiased interpolation uses."""
    x = abs(x)
    return (3 * x - 5) * x * x / 2 + 1 if x < 1 else ((5 - x) * x - 8) * x / 2 + 2


def _windows(state: State, dim: int, out: int, kernel: int, stride: int, padding: int, dilation: int) -> State:
    """The fields after `dim` was replaced by two: the place in a window, and `out` windows."""
    def split(indices):
        index = indices[0]
        if index is STILL:
            return [(STILL, STILL)]
        if len(index.first) == 1 and not index.is_table:
            return [(Index(index.step * dilation), gathered(index, out, ((-padding,),), stride))]
        places = tuple([(o * stride - padding + t * dilation,) for t in range(kernel) for o in range(out)])
        return split_two(gathered(index, kernel * out, places, None), kernel, out)

    return state.merged(dim).rewritten(dim, dim + 1, [(kernel,), (out,)], split)


def _along(state: State, dims: Sequence[int]) -> State:
    """The fields along these dimensions, in this order; each unit sees what all along the others see."""
    rest = [dim for dim in range(len(state.layout)) if dim not in dims]
    return state.permuted([*dims, *rest]).without(range(len(dims), len(state.layout)))
