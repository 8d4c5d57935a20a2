"""Growth of declared structs by the fields that values bring. Pure.

A new field gets the type of its first value that has one. A field whose name is not a plain one, or
whose value is a list or map of mixed types, is not added: such a value goes to the sibling column.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from datazone_dagster.frame.item_types import (
    MAX_NESTING,
    ItemType,
    ListOf,
    MapOf,
    Scalar,
    StructOf,
    descriptors_of,
)

MAX_FIELDS = 200
"""Fields of one type, nested ones included; maps whose names are data would grow without end."""

_SCALARS: Mapping[str, ItemType] = {
    "S": Scalar("string"),
    "N": Scalar("decimal", 38, 18),
    "B": Scalar("binary"),
    "BOOL": Scalar("boolean"),
    "SS": ListOf(Scalar("string")),
    "NS": ListOf(Scalar("decimal", 38, 18)),
    "BS": ListOf(Scalar("binary")),
}


def has_struct(item_type: ItemType) -> bool:
    """Return whether a type is or contains a struct."""
    if isinstance(item_type, ListOf):
        return has_struct(item_type.element)
    if isinstance(item_type, MapOf):
        return has_struct(item_type.value)
    return isinstance(item_type, StructOf)


def is_grown(item_type: ItemType, declared: ItemType) -> bool:
    """Return whether a type is the declared one, with or without further fields in its structs."""
    if isinstance(item_type, ListOf) and isinstance(declared, ListOf):
        return is_grown(item_type.element, declared.element)
    if isinstance(item_type, MapOf) and isinstance(declared, MapOf):
        return is_grown(item_type.value, declared.value)
    if isinstance(item_type, StructOf) and isinstance(declared, StructOf):
        pairs = zip(item_type.fields, declared.fields, strict=False)
        return len(item_type.fields) >= len(declared.fields) and all(
            name == wanted and is_grown(one, other) for (name, one), (wanted, other) in pairs
        )
    return item_type == declared


def grown(item_type: ItemType, descriptor: str, inner: Any) -> ItemType:
    """Return a type with the fields of a value that its structs lack.

    Args:
        item_type: Declared type.
        descriptor: DynamoDB type of the value.
        inner: Content of the value, parsed.

    Returns:
        The same type if nothing can be added.
    """
    found = _grown(item_type, descriptor, inner, 0)
    return item_type if found is None or _fields(found) > MAX_FIELDS else found


def _grown(item_type: ItemType, descriptor: str, inner: Any, depth: int) -> ItemType | None:
    """Return the type with new fields, None if the value is not of the type."""
    if descriptor not in descriptors_of(item_type) or depth >= MAX_NESTING:
        return None
    if isinstance(item_type, ListOf) and descriptor == "L" and isinstance(inner, list):
        element = _of_all(item_type.element, inner, depth)
        return None if element is None else ListOf(element)
    if isinstance(item_type, MapOf) and isinstance(inner, dict):
        value = _of_all(item_type.value, list(inner.values()), depth)
        return None if value is None else MapOf(value)
    if isinstance(item_type, StructOf) and isinstance(inner, dict):
        return _struct(item_type, inner, depth)
    return item_type


def _of_all(item_type: ItemType, values: list[Any], depth: int) -> ItemType | None:
    found: ItemType | None = item_type
    for value in values:
        typed = _typed(value)
        if found is not None and typed is not None:
            found = _grown(found, *typed, depth + 1)
    return found


def _struct(struct: StructOf, inner: Mapping[str, Any], depth: int) -> StructOf | None:
    fields = dict(struct.fields)
    folded = {name.casefold() for name in fields}
    for name, value in inner.items():
        typed = _typed(value)
        if typed is None:
            continue
        if name in fields:
            kind = _grown(fields[name], *typed, depth + 1)
            if kind is None:
                return None
            fields[name] = kind
            continue
        new = _inferred(*typed, depth + 1)
        if new is not None and re.fullmatch(r"\w+", name) and name.casefold() not in folded:
            fields[name] = new
            folded.add(name.casefold())
    return StructOf(tuple(fields.items()))


def _inferred(descriptor: str, inner: Any, depth: int) -> ItemType | None:
    """Return the type of a value, None for values without a type: NULL, empty, or mixed."""
    if depth >= MAX_NESTING:
        return None
    if descriptor == "L" and isinstance(inner, list):
        typed = [one for one in map(_typed, inner) if one is not None]
        if len({kind for kind, _ in typed}) > 1:
            return None
        first = _inferred(*typed[0], depth + 1) if typed else None
        element = None if first is None else _of_all(first, inner, depth)
        return None if element is None else ListOf(element)
    if descriptor == "M" and isinstance(inner, dict):
        struct = _struct(StructOf(()), inner, depth)
        return struct if struct is not None and struct.fields else None
    return _SCALARS.get(descriptor)


def _typed(value: Any) -> tuple[str, Any] | None:
    """Return descriptor and content of a typed value, None for NULL and for anything else."""
    if not isinstance(value, dict) or len(value) != 1:
        return None
    ((descriptor, inner),) = value.items()
    return None if descriptor == "NULL" else (descriptor, inner)


def _fields(item_type: ItemType) -> int:
    if isinstance(item_type, ListOf):
        return _fields(item_type.element)
    if isinstance(item_type, MapOf):
        return _fields(item_type.value)
    if isinstance(item_type, StructOf):
        return sum(1 + _fields(field) for _, field in item_type.fields)
    return 0
