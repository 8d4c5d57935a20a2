"""Projection expressions: the parts of an item that were asked for."""

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

ROW_GROUP = "ProjectionExpression"


def projection(expression: str, placeholders: Placeholders) -> list[Path]:
    """The paths of a projection expression.

    Raises:
        ServiceError: `ValidationException`: bad syntax, or overlapping paths.
    """
    tokens = TokenStream(expression, ROW_GROUP, placeholders)
    paths = [tokens.path()]
    while tokens.takes(","):
        paths.append(tokens.path())
    tokens.require_end()
    require_disjoint(paths, ROW_GROUP)
    return paths


def project(item: Item, paths: Sequence[Path]) -> Item:
    """Only what lies at the paths; list elements move together, in their order."""
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
