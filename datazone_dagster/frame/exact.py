"""Exact conversion in Python of the values that SQL could not read, once per distinct text."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from datazone_dagster.frame.item_types import (
    ItemType,
    ListOf,
    MapOf,
    Scalar,
    StructOf,
    descriptors_of,
)
from datazone_dagster.frame.plain import NotDynamoDBJsonError, decoded
from datazone_dagster.frame.typed import exact_value


class UnfitError(ValueError):
    """A value that the type of its column can't represent exactly."""


def exact_content(
    item_type: ItemType, descriptor: str, text: str, *, known_fields: bool = False
) -> Any:
    """Convert the content of a typed value (text of a number, JSON of a list) to an item type.

    Args:
        item_type: Type to convert to.
        descriptor: DynamoDB type of the value.
        text: Content of the value.
        known_fields: Whether fields that a struct lacks are left out; else the value does not fit.

    Raises:
        UnfitError: The type can't represent the value.
        NotDynamoDBJsonError: The text is not DynamoDB JSON.
    """
    if isinstance(item_type, Scalar):
        return _scalar(item_type, descriptor, text)
    return _content(item_type, descriptor, decoded(text), known_fields)


def texts_of_set(text: str) -> list[str]:
    """Return the members of a set as written, in the order of their values.

    Raises:
        NotDynamoDBJsonError: The text is not a JSON array of strings.
    """
    members = decoded(text)
    if not isinstance(members, list) or not all(isinstance(one, str) for one in members):
        raise NotDynamoDBJsonError("a set that is not a JSON array of strings")
    try:
        return sorted(members, key=Decimal)
    except InvalidOperation:
        return sorted(members)


def _value(item_type: ItemType, value: Any, known_fields: bool) -> Any:
    if not isinstance(value, dict) or len(value) != 1:
        raise NotDynamoDBJsonError("a value without exactly one type")
    ((descriptor, inner),) = value.items()
    if descriptor == "NULL":
        return None
    if descriptor not in descriptors_of(item_type):
        raise UnfitError
    return _content(item_type, descriptor, inner, known_fields)


def _content(item_type: ItemType, descriptor: str, inner: Any, known_fields: bool) -> Any:
    if isinstance(item_type, Scalar):
        return _scalar(item_type, descriptor, inner)
    if isinstance(item_type, ListOf):
        if not isinstance(inner, list):
            raise NotDynamoDBJsonError("a list that is not a JSON array")
        if descriptor == "L":
            return [_value(item_type.element, element, known_fields) for element in inner]
        element_type = item_type.element
        return sorted(_content(element_type, descriptor, one, known_fields) for one in inner)
    if not isinstance(inner, dict):
        raise NotDynamoDBJsonError("a map that is not a JSON object")
    if isinstance(item_type, MapOf):
        return sorted(
            (name, _value(item_type.value, value, known_fields)) for name, value in inner.items()
        )
    return _struct(item_type, inner, known_fields)


def _struct(item_type: StructOf, inner: dict[str, Any], known_fields: bool) -> dict[str, Any]:
    types = dict(item_type.fields)
    unknown = [value for name, value in inner.items() if name not in types]
    if not known_fields and any(not _is_null(value) for value in unknown):
        raise UnfitError
    return {
        name: _value(types[name], value, known_fields)
        for name, value in inner.items()
        if name in types
    }


def _is_null(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() == {"NULL"}


def _scalar(scalar: Scalar, descriptor: str, inner: Any) -> Any:
    if descriptor == "BOOL":
        if not isinstance(inner, bool):
            raise NotDynamoDBJsonError("a value that is not a JSON boolean")
        return inner
    if not isinstance(inner, str):
        raise NotDynamoDBJsonError("a value that is not a JSON string")
    if scalar.name == "string":
        return inner
    value = exact_value(scalar, inner)
    if value is None:
        raise UnfitError
    return value


def read_distinct(
    texts: pa.ChunkedArray, read: Callable[[str], Any], into: pa.DataType
) -> tuple[pa.ChunkedArray, pa.ChunkedArray]:
    """Convert each distinct text once.

    Args:
        texts: Texts to convert.
        read: Conversion of one text; raises `UnfitError` for a text without a value.
        into: Arrow type of the values.

    Returns:
        The values, null for a text without one; and the texts without a value, else null.

    Raises:
        NotDynamoDBJsonError: A text is not DynamoDB JSON.
    """
    encoded = texts.combine_chunks().dictionary_encode()
    values: list[Any] = []
    unfit: list[str | None] = []
    for text in encoded.dictionary.to_pylist():
        try:
            values.append(read(text))
            unfit.append(None)
        except UnfitError:
            values.append(None)
            unfit.append(text)
    return (
        pc.take(pa.chunked_array([pa.array(values, into)]), encoded.indices),
        pc.take(pa.chunked_array([pa.array(unfit, pa.string())]), encoded.indices),
    )
