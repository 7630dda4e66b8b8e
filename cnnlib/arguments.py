"""Whether values are of the kind that a signature names, or name classes, in words that say what is allowed."""

import collections.abc
import math
import numbers
import types
import typing
from collections.abc import Callable, Mapping

from torch import Tensor


def unfit(function: Callable, values: Mapping[str, object], known: Mapping[str, list]) -> str:
    """What is wrong with the first value that is none of what the annotations of `function` say; "" if nothing is.

    Whole numbers, also those in sequences, are at least 1, or 0 where one of the argument's `known` values holds a 0.
    """
    function = function.__init__ if isinstance(function, type) else function
    kinds = typing.get_type_hints(function)
    for name, value in values.items():
        kind = kinds.get(name, object)
        least = 0 if _holds_zero(known.get(name)) else 1
        if not _is(value, kind, least):
            return f"{name}={value!r} must be {_words(kind, least)}"
    return ""


def check_classes(name: str, values: Tensor, classes: int) -> None:
    """Raises `ValueError` unless all `values` are whole numbers from 0 to `classes` - 1; `name` says what they are."""
    if values.is_floating_point():
        raise ValueError(f"{name} are {values.dtype}; they must be whole numbers")
    if values.numel() and not 0 <= int(values.min()) <= int(values.max()) < classes:
        raise ValueError(f"{name} go from {int(values.min())} to {int(values.max())}, but there are {classes} classes")


def _is(value: object, kind: object, least: int) -> bool:
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return any(_is(value, part, least) for part in parts)
    if origin is typing.Literal:
        return any(type(value) is type(part) and value == part for part in parts)  # True is 1, and is not meant
    if origin is collections.abc.Callable:
        return callable(value)
    if origin in (tuple, collections.abc.Sequence):
        if not isinstance(value, collections.abc.Sequence) or isinstance(value, str):
            return False
        each = parts if origin is tuple and Ellipsis not in parts else len(value) * parts[:1]
        return len(each) == len(value) and all(_is(one, part, least) for one, part in zip(value, each))
    if kind is int:
        return isinstance(value, numbers.Integral) and not isinstance(value, bool) and value >= least
    if kind is float:
        return isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)
    return isinstance(value, origin or kind) if isinstance(origin or kind, type) else True


WORDS = {float: "a finite number", bool: "True or False", types.NoneType: "None"}


def _words(kind: object, least: int) -> str:
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType, typing.Literal):
        return " or ".join(repr(part) if origin is typing.Literal else _words(part, least) for part in parts)
    if origin is tuple and Ellipsis not in parts:
        return f"{len(parts)} values: {', '.join(_words(part, least) for part in parts)}"
    if origin in (tuple, collections.abc.Sequence):
        return f"a sequence, each {_words(parts[0], least)}"
    if origin is type:
        return "a class"
    if origin is collections.abc.Callable:
        return "what can be called"
    if kind is int:
        return f"a whole number of at least {least}"
    return WORDS.get(kind) or getattr(origin or kind, "__name__", str(kind))


def _holds_zero(value: object) -> bool:
    """Whether it is the whole number 0, or a list or tuple that holds one somewhere."""
    if isinstance(value, (list, tuple)):
        return any(map(_holds_zero, value))
    return isinstance(value, numbers.Integral) and not isinstance(value, bool) and value == 0
