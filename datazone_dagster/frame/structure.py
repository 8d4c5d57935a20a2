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

_MANY_NAMES = 16
"""Names of a map from which on they are taken for data, if its structure is too large."""

MAX_DEPTH = 8

_SCALARS = frozenset({"S", "N", "B", "BOOL", "NULL", "SS", "BS"})


@dataclass(slots=True)
class Structure:
    """Kinds of value found at one path: scalars, sets, one list and one map of structures.

    A map has `fields` by name, or `values` of one structure if its names are data. Number sets are
    left out, because numeric order differs from text order.
    """

    scalars: set[str] = field(default_factory=set)
    element: Structure | None = None
    fields: dict[str, Structure] | None = None
    values: Structure | None = None

    @property
    def node_count(self) -> int:
        """Number of structures in this tree, itself included."""
        return 1 + sum(node.node_count for node in self._inner())

    @property
    def members(self) -> list[Structure]:
        """Structures of the values of a map."""
        of_names = list((self.fields or {}).values())
        return of_names if self.values is None else [self.values]

    def _inner(self) -> list[Structure]:
        return self.members if self.element is None else [self.element, *self.members]

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
        elif descriptor == "M" and isinstance(inner, dict) and self.values is not None:
            for attribute in inner.values():
                self.values.learn(attribute, depth + 1)
        elif descriptor == "M" and isinstance(inner, dict):
            self.fields = {} if self.fields is None else self.fields
            folded = {name.casefold(): name for name in self.fields}
            for name, attribute in inner.items():
                # DuckDB folds the case of names: of two that differ in case, the second is left out
                # (and an empty one, which it refuses)
                if name and folded.setdefault(name.casefold(), name) == name:
                    self.fields.setdefault(name, Structure()).learn(attribute, depth + 1)

    def take_names_for_data(self) -> None:
        """Give maps of many names one structure for all their values."""
        for node in self._inner():
            node.take_names_for_data()
        if self.fields is not None and len(self.fields) >= _MANY_NAMES:
            self.values = _of_all(self.fields.values())
            self.fields = None


def _of_all(structures: Iterable[Structure]) -> Structure:
    """Return one structure for what was found at several paths."""
    listed = list(structures)
    merged = Structure(set().union(*(one.scalars for one in listed)))
    elements = [one.element for one in listed if one.element is not None]
    maps = [one for one in listed if one.fields is not None or one.values is not None]
    if elements:
        merged.element = _of_all(elements)
    if any(one.values is not None for one in maps):
        merged.values = _of_all(inner for one in maps for inner in one.members)
    elif maps:
        by_name: dict[str, list[Structure]] = {}
        folded: dict[str, str] = {}
        for one in maps:
            for name, inner in (one.fields or {}).items():
                if folded.setdefault(name.casefold(), name) == name:
                    by_name.setdefault(name, []).append(inner)
        merged.fields = {name: _of_all(found) for name, found in by_name.items()}
    return merged


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
            structure.take_names_for_data()
            if structure.node_count > MAX_NODES:
                return None
    return structure
