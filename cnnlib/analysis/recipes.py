"""What is remembered of functions that ran before: the nodes of the first time, to be written down again with new values."""

from collections.abc import Callable
from types import FunctionType

import torch
from torch import Tensor

from .record import Storage, Value, made_of
from .watch import mapped, tensors_in

_recipes: dict = {}
_MOST_RECIPES = 4096
_NUMBERS = {int, float, bool, str, type(None)}
_NESTED = {tuple, list, dict, slice}


def remembered(tracer, func, args, kwargs):
    """The result of `func`, recorded: by its recipe if it was called on such arguments before, else by running it."""
    given = list(tensors_in((*args, *kwargs.values())))
    places = {id(tensor): i for i, tensor in enumerate(given)}
    try:
        key = func, _key(args, places), _key(kwargs, places)
        recipe = _recipes.get(key)
    except TypeError:  # something without a hash
        key = recipe = None
    before = [tracer.value(tensor) for tensor in given]
    if recipe is not None:
        return recipe(tracer, given, before)
    live = tracer.live
    count = len(tracer.step.nodes) if tracer.step else 0
    peak, where, now = live.peak, live.peak_where, live.now
    live.peak = now
    try:
        result = tracer.run(func, args, kwargs)
    finally:
        extra = live.peak - now
        if live.peak <= peak:
            live.peak, live.peak_where = peak, where
    untouched = all(tracer.value(tensor) is value for tensor, value in zip(given, before))
    if key is not None and untouched and not torch.is_inference_mode_enabled():
        if len(_recipes) >= _MOST_RECIPES:
            _recipes.clear()
        try:
            nodes = tracer.step.nodes[count:] if tracer.step else []
            _recipes[key] = _recipe(nodes, given, places, before, result, extra)
        except _Unrepeatable:
            pass
    return result


def _key(thing, places):
    kind = type(thing)
    if kind in _NUMBERS:  # a number's type too: True is 1
        return kind, thing
    if kind is Tensor or isinstance(thing, Tensor):
        return thing.shape, thing.stride(), thing.dtype, places[id(thing)]
    if kind in _NESTED:
        parts = thing.items() if kind is dict else (thing.start, thing.stop, thing.step) if kind is slice else thing
        return kind, tuple([_key(part, places) for part in parts])
    hash(thing)
    return kind, thing


class _Unrepeatable(Exception):
    """What shapes alone do not tell."""


def _recipe(nodes, given, places, before, result, extra) -> Callable:
    """A function that writes these nodes down for other tensors than those `given`, and makes the result anew."""
    known = set(before)
    for node in nodes:
        if any(value.role != "result" for value in node.inputs if value not in known) or not known.isdisjoint(node.outputs):
            raise _Unrepeatable
        known.update(node.inputs, node.outputs)
    if any(value.data is not None and value.numel > 4096 for value in known):  # a recipe holds its values
        raise _Unrepeatable
    made = set()

    def described(tensor):
        """A function that makes it again: one of the tensors given now, a view of one, or a new one."""
        place = places.get(id(tensor))
        if place is not None:
            return lambda tracer, now, values: now[place]
        value = getattr(tensor, "_cnnlib", (None, None))[1]
        if value not in known:
            raise _Unrepeatable
        owner = next((i for i, one in enumerate(before) if one.storage is value.storage), None)
        strides, offset = tensor.stride(), tensor.storage_offset()
        if owner is not None:
            offset -= given[owner].storage_offset()
        elif offset or value.storage in made:
            raise _Unrepeatable
        made.add(value.storage)

        def make(tracer, now, values):
            if owner is None:
                again = torch.empty_strided(value.shape, strides, dtype=value.dtype, device="meta")
            else:
                again = now[owner].as_strided(value.shape, strides, now[owner].storage_offset() + offset)
            tracer.attach(again, values[value])
            return again

        return make

    if not _is_repeatable(result):
        raise _Unrepeatable
    makers = mapped(described, result)

    def repeated(tracer, given, now):
        tracer.live.reach(tracer.live.now + extra)
        values = dict(zip(before, now))
        storages = {old.storage: new.storage for old, new in zip(reversed(before), reversed(now))}

        def renewed(value, parameters=()):
            if value not in values:
                if value.storage not in storages:
                    storages[value.storage] = Storage(value.storage.nbytes)
                values[value] = Value(value.shape, value.dtype, storages[value.storage], "result", parameters)
            return values[value]

        for node in nodes:
            inputs = tuple([renewed(value) for value in node.inputs])
            parameters = made_of(inputs)
            outputs = tuple([renewed(value, parameters) for value in node.outputs])
            tracer.record(node.op, mapped(values.__getitem__, node.args, Value), inputs, outputs, node.is_view, node.names)
        return mapped(lambda make: make(tracer, given, values), makers, FunctionType)

    return repeated


def _is_repeatable(result) -> bool:
    if isinstance(result, (list, tuple)):
        return all(map(_is_repeatable, result))
    return isinstance(result, (Tensor, int, float, str, type(None), torch.dtype))
