"""Projection expressions: the document paths of an item that a request selects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from datazone_dagster.local.expressions.tokens import (
    Path,
    Placeholders,
    TokenStream,
    require_disjoint,
    resolve,
)
from datazone_dagster.local.values import Attribute, Item

MEMBER = "ProjectionExpression"


def projection(expression: str, placeholders: Placeholders) -> list[Path]:
    """Return the paths of a projection expression.

    Raises:
        ServiceError: `ValidationException`: bad syntax, or overlapping paths.
    """
    tokens = TokenStream(expression, MEMBER, placeholders)
    paths = [tokens.path()]
    while tokens.takes(","):
        paths.append(tokens.path())
    tokens.require_end()
    require_disjoint(paths, MEMBER)
    return paths


def project(item: Item, paths: Sequence[Path]) -> Item:
    """Return only the values at the paths; list elements close up, in their order."""
    tree: dict[str | int, Any] = {}
    for path in paths:
        if resolve(item, path) is None:
            continue
        node = tree
        for part in path:
            node = node.setdefault(part, {})
    return {str(name): _picked(item[str(name)], below) for name, below in tree.items()}


def _picked(value: Attribute, below: dict[str | int, Any]) -> Attribute:
    if not below:
        return value
    if "L" in value:
        indexes = sorted(index for index in below if isinstance(index, int))
        return {"L": [_picked(value["L"][index], below[index]) for index in indexes]}
    return {"M": {name: _picked(value["M"][name], inner) for name, inner in below.items()}}
