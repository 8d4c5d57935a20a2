"""Checks of a transform's function: its kind, and its parameters against the inputs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence

from datazone_dagster.api import checked
from datazone_dagster.errors import DefinitionError

Function = Callable[..., object]


def check_function(function: object) -> None:
    """Refuse anything but a plain, synchronous function.

    Raises:
        DefinitionError: `function` is not callable, is async, or is a generator.
    """
    if not callable(function):
        raise DefinitionError(
            f"transform: {function!r} is not a function.",
            hint="Put @transform(input_mapping=..., output_mapping=...) above a function.",
        )
    if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
        name = getattr(function, "__name__", "function")
        raise DefinitionError(
            f"transform {name!r}: the function is async or yields.",
            hint="Write a plain function that returns the result; it is called once per chunk of "
            "changes.",
        )


def check_parameters(where: str, function: Function, inputs: Sequence[str]) -> None:
    """Refuse inputs without a parameter, and parameters without an input.

    Raises:
        DefinitionError: Inputs and parameters don't match, or a parameter can't be passed by
            name.
    """
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError) as error:
        raise DefinitionError(
            f"{where}: the parameters of the function can't be read.",
            hint="Wrap the function in one of your own.",
        ) from error
    unnamed = [
        str(parameter)
        for parameter in parameters.values()
        if parameter.kind
        in (parameter.POSITIONAL_ONLY, parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    if unnamed:
        raise DefinitionError(
            f"{where}: the function takes {', '.join(unnamed)}.",
            hint="Inputs are passed by name: give each input its own parameter.",
        )
    unknown = [name for name in inputs if name not in parameters]
    if unknown:
        raise DefinitionError(
            f"{where}: input_mapping has {checked.quoted(unknown)}, but the function has no such "
            "parameter.",
            hint=f"Parameters of the function: {checked.quoted(parameters) or 'none'}. Write "
            f"{_renamed(inputs, unknown[0], list(parameters))}.",
        )
    missing = [
        name
        for name, parameter in parameters.items()
        if name not in inputs and parameter.default is parameter.empty
    ]
    if missing:
        raise DefinitionError(
            f"{where}: input_mapping lacks parameters of the function: {checked.quoted(missing)}.",
            hint=f'Give it an input: input_mapping={{"{missing[0]}": Input(...)}}, or a default '
            "value. A transform gets no Dagster context.",
        )


def _renamed(inputs: Sequence[str], unknown: str, parameters: list[str]) -> str:
    """Return the corrected line for an input that the function has no parameter for."""
    free = [name for name in parameters if name not in inputs]
    if free:
        return f'input_mapping={{"{free[0]}": ...}}, or name the parameter {unknown}'
    return f"def function({', '.join([*parameters, unknown])})"


def docstring(function: Function) -> str | None:
    """Return the function's docstring without its indentation; None if it has none."""
    return inspect.getdoc(function) if getattr(function, "__doc__", None) else None
