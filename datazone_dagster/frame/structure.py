"""Structure of maps and lists, learnt from a sample, so that SQL can read all other values.

A structure that is absent from the sample costs time but never loses a value: SQL accounts for
every byte of a value that it reads, and Python reads the values that SQL can't account for.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

MAX_NODES = 200
"""Limit of nodes in one structure; maps whose names are data would make it grow without end."""

MAX_DEPTH = 8

_SCALARS = frozenset({"S", "N", "B", "BOOL", "NULL", "SS", "BS"})


@dataclass(slots=True)
class Structure:
    """Kinds of value found at one path: scalars, sets, one list and one map of structures.

    Number sets are left out, because numeric order differs from text order.
    """

    scalars: set[str] = field(default_factory=set)
    element: Structure | None = None
    fields: dict[str, Structure] | None = None

    @property
    def node_count(self) -> int:
        """Number of structures in this tree, itself included."""
        inner = [] if self.element is None else [self.element]
        return 1 + sum(node.node_count for node in (*inner, *(self.fields or {}).values()))

    def learn(self, value: Any, depth: int = 0) -> None:
        """Add the structure of a typed value such as `{"S": "x"}`."""
        if not isinstance(value, dict) or len(value) != 1 or depth > MAX_DEPTH:
            return
        ((descriptor, inner),) = value.items()
        if descriptor in _SCALARS:
            self.scalars.add(descriptor)
        elif descriptor == "L" and isinstance(inner, list):
            self.element = self.element or Structure()
            for element in inner:
                self.element.learn(element, depth + 1)
        elif descriptor == "M" and isinstance(inner, dict):
            self.fields = {} if self.fields is None else self.fields
            folded = {name.casefold(): name for name in self.fields}
            for name, attribute in inner.items():
                # DuckDB folds the case of names: of two that differ in case, the second is left out
                # (and an empty one, which it refuses)
                if name and folded.setdefault(name.casefold(), name) == name:
                    self.fields.setdefault(name, Structure()).learn(attribute, depth + 1)


def learnt(values: Iterable[Any], before: Structure | None = None) -> Structure | None:
    """Return the structure of typed values, None if it exceeds `MAX_NODES`.

    Args:
        values: Typed values.
        before: Structure of earlier values; it learns these, too.
    """
    structure = before or Structure()
    for value in values:
        structure.learn(value)
        if structure.node_count > MAX_NODES:
            return None
    return structure
