"""Secrets in the YAML file of a component: `{{ env.NAME }}` stays the name of the variable.

Dagster replaces a template by its value when it loads the component, and stores and shows the
settings of resources. In a field for a secret the template becomes an `EnvVar`, as a user of Python
would write it: Dagster stores the name, and the resource gets the value where it is used.
"""

# No postponed annotations here: Dagster makes the schema of the YAML file from them.

import os
import re
from collections.abc import Mapping
from typing import Any

import dagster as dg

_VARIABLE = re.compile(r"""\{\{\s*env(?:\.(\w+)|\(\s*(["'])(\w+)\2\s*\))\s*\}\}""")


def secret(description: str, example: object) -> Any:  # Dagster's class has no types
    """Return the resolution of a text that may be a secret, with what an editor shows of it."""
    return dg.Resolver(
        _named,
        model_field_type=str | None,
        inject_before_resolve=False,
        description=description,
        examples=[example],
    )


def secrets(description: str, example: object) -> Any:  # as above
    """Return the resolution of a mapping whose values may be secrets."""
    return dg.Resolver(
        _all_named,
        model_field_type=dict[str, str] | None,
        inject_before_resolve=False,
        description=description,
        examples=[example],
    )


def _named(context: dg.ResolutionContext, given: Any) -> Any:
    """Return the variable that a template names; else the value, with its templates replaced.

    A variable that is not set is no value, as in every other field.
    """
    found = _VARIABLE.fullmatch(given.strip()) if isinstance(given, str) else None
    if found is not None and (name := found[1] or found[3]) in os.environ:
        return dg.EnvVar(name)
    return context.resolve_value(given)


def _all_named(context: dg.ResolutionContext, given: Any) -> Any:
    if not isinstance(given, Mapping):
        return context.resolve_value(given)
    return {name: _named(context, value) for name, value in given.items()}
