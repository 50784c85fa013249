"""Modules that a function computes with although it is none, such as a discriminator in a generator's loss."""

import inspect
from collections.abc import Iterable, Iterator
from functools import partial
from types import FunctionType, MethodType
from typing import Any

from torch import nn

# A function, those that it calls, and theirs.
_DEPTH = 3


def reached_modules(function: Any, depth: int = _DEPTH) -> Iterator[nn.Module]:
    """Yield the modules that a callable is, or reaches by its closure, globals, attributes or given arguments.

    What it reaches otherwise, such as by an object's objects, is not seen.
    """
    if isinstance(function, nn.Module):
        yield function
    elif depth > 0:
        for value in _values_of(function):
            if isinstance(value, (nn.Module, FunctionType, MethodType, partial)):
                yield from reached_modules(value, depth - 1)


def _values_of(function: Any) -> Iterator[Any]:
    if isinstance(function, partial):
        yield from _flat([function.func, *function.args, *function.keywords.values()])
    elif isinstance(function, MethodType):
        yield from (function.__self__, function.__func__)
        yield from _flat(getattr(function.__self__, "__dict__", {}).values())
    elif isinstance(function, FunctionType):
        yield from _values_of_function(function)
    else:
        yield from _flat(getattr(function, "__dict__", {}).values())


def _values_of_function(function: Any) -> Iterator[Any]:
    """Yield what a function reaches, and those that its decorators were given."""
    while isinstance(function, FunctionType) and (function.__module__ or "").partition(".")[0] not in (
        "adamqlr",
        "torch",
    ):
        try:
            found = inspect.getclosurevars(function)
        except ValueError:
            # A variable that is yet to be given a value.
            return
        attributes = vars(function)
        yield from _flat([*found.nonlocals.values(), *found.globals.values(), *attributes.values()])
        function = attributes.get("__wrapped__")


def _flat(values: Iterable[Any]) -> Iterator[Any]:
    for value in values:
        if isinstance(value, (list, tuple)):
            yield from value
        elif isinstance(value, dict):
            yield from value.values()
        else:
            yield value
