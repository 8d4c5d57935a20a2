"""Calls of public names: one with a wrong or missing argument says what to write instead."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from inspect import Parameter
from types import MappingProxyType
from typing import ParamSpec, TypeVar

from datazone_dagster.errors import DefinitionError

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

_NO_NOTES: Mapping[str, str] = MappingProxyType({})
_parameters: dict[str, tuple[str, ...]] = {}
"""Names of the arguments of each public name, to say whose argument a misplaced one is."""


def explained(
    example: str, notes: Mapping[str, str] = _NO_NOTES
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Return a decorator of a function, whose wrong calls raise a `DefinitionError`.

    Args:
        example: A call as it should be written.
        notes: What to say of arguments that there are not, by name.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        refuse = _refuser(function.__name__, inspect.signature(function), example, notes)

        @functools.wraps(function)
        def checked(*args: P.args, **kwargs: P.kwargs) -> R:
            refuse(args, kwargs)
            return function(*args, **kwargs)

        return checked

    return decorate


def explained_class(
    example: str, notes: Mapping[str, str] = _NO_NOTES
) -> Callable[[type[T]], type[T]]:
    """Return a decorator of a class, as `explained` is one of a function."""

    def decorate(cls: type[T]) -> type[T]:
        refuse = _refuser(cls.__name__, inspect.signature(cls), example, notes)
        build: Callable[..., None] = cls.__init__

        @functools.wraps(build)
        def checked(self: object, *args: object, **kwargs: object) -> None:
            if type(self) is cls:  # a subclass may take other arguments, and checks its own
                refuse(args, kwargs)
            build(self, *args, **kwargs)

        type.__setattr__(cls, "__init__", checked)
        return cls

    return decorate


def _refuser(
    name: str, signature: inspect.Signature, example: str, notes: Mapping[str, str]
) -> Callable[[Sequence[object], Mapping[str, object]], None]:
    parameters = signature.parameters
    _parameters[name] = tuple(parameters)

    def refuse(args: Sequence[object], kwargs: Mapping[str, object]) -> None:
        unknown = [given for given in kwargs if given not in parameters]
        if unknown:
            hint = notes.get(unknown[0]) or _place_of(name, unknown[0], tuple(parameters))
            raise DefinitionError(
                f"{name}: there is no argument {unknown[0]}=.", hint=f"{hint} Write {example}."
            )
        what = _miscount(parameters, args, kwargs)
        if what:
            raise DefinitionError(f"{name}: {what}.", hint=f"Write {example}.")

    return refuse


def _place_of(name: str, argument: str, own: Sequence[str]) -> str:
    """Say which argument was meant, or where the argument belongs."""
    elsewhere = [other for other, names in _parameters.items() if argument in names]
    near = get_close_matches(argument, own, n=1)
    if near:
        return f"Perhaps {near[0]}= is meant."
    if elsewhere:
        return f"{argument}= is an argument of {' and '.join(elsewhere[:2])}."
    return f"The arguments of {name} are {', '.join(own)}."


def _miscount(
    parameters: Mapping[str, Parameter], args: Sequence[object], kwargs: Mapping[str, object]
) -> str:
    """Say which arguments are too many, given twice, or missing; empty if none are."""
    unnamed = [one.name for one in parameters.values() if one.kind != Parameter.KEYWORD_ONLY]
    if len(args) > len(unnamed):
        if inspect.isfunction(args[0]):
            return "the decorator is written without its arguments"
        if not unnamed:
            return "its arguments are given by name"
        plural = "argument" if len(unnamed) == 1 else "arguments"
        return f"{len(unnamed)} {plural} can be given without a name, not {len(args)}"
    twice = [name for name in unnamed[: len(args)] if name in kwargs]
    if twice:
        return f"{twice[0]}= is given twice"
    missing = [
        f"{one.name}="
        for one in parameters.values()
        if one.default is Parameter.empty
        and one.name not in kwargs
        and one.name not in unnamed[: len(args)]
    ]
    verb = "is" if len(missing) == 1 else "are"
    return f"{' and '.join(missing)} {verb} missing" if missing else ""
