"""A Pydantic model as declared columns. Reads its fields' annotations, loads nothing."""

from __future__ import annotations

import datetime
import decimal
import enum
import types
import uuid
from collections.abc import Iterable
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from datazone_dagster.api.checked import unsupported
from datazone_dagster.errors import DefinitionError
from datazone_dagster.model.contract import Column, ColumnType

_SCALARS: dict[object, str] = {
    str: "string",
    int: "int64",
    float: "float64",
    bool: "bool",
    bytes: "binary",
    datetime.datetime: "timestamp",
    datetime.date: "date",
    uuid.UUID: "string",
}
_BY_NAME = {"AwareDatetime": "timestamp", "NaiveDatetime": "timestamp_ntz"}
"""Pydantic's own classes."""

_UNBOUNDED_DECIMAL = (38, 9)
"""As `items()` holds a number whose type nobody declared."""


def model_columns(where: str, model: Any) -> tuple[Column, ...]:
    """The fields of a model, by the names that they have in Python.

    `X | None` may be null, everything else not. A Decimal has the digits of its field
    (`max_digits`, `decimal_places`), 38 with 9 decimals without them.

    Raises:
        DefinitionError: A type that a Delta table does not have, or that is not defined yet.
    """
    if not getattr(model, "__pydantic_complete__", True):
        model.model_rebuild(raise_errors=False)
        if not model.__pydantic_complete__:
            raise DefinitionError(
                f"{where}: schema: {model.__name__!r} names types that are not defined yet.",
                hint="Define them before the dataset, then call its model_rebuild().",
            )
    columns = []
    for name, field in model.model_fields.items():
        kind, nullable = _without_none(field.annotation)
        columns.append(Column(name, _type(where, name, kind, field.metadata), nullable))
    return tuple(columns)


def _without_none(annotation: Any) -> tuple[Any, bool]:
    if get_origin(annotation) in (Union, types.UnionType):
        kinds = [kind for kind in get_args(annotation) if kind is not type(None)]
        if len(kinds) < len(get_args(annotation)):
            return (kinds[0] if len(kinds) == 1 else Union[tuple(kinds)]), True  # noqa: UP007 - of a list
    return annotation, False


def _type(where: str, column: str, annotation: Any, constraints: Iterable[Any] = ()) -> ColumnType:
    kind, _ = _without_none(annotation)
    if get_origin(kind) is Annotated:
        inner, *more = get_args(kind)
        return _type(where, column, inner, more)
    if kind is decimal.Decimal:
        return _decimal(constraints)
    if kind in _SCALARS:
        return _SCALARS[kind]
    found = _generic(where, column, kind) or _class(where, kind)
    if found is None:
        raise unsupported(
            where,
            column,
            getattr(kind, "__name__", kind),
            "Use str, int, float, bool, bytes, Decimal, date, datetime, UUID, an Enum of texts, "
            "a list, a dict, another model, or one of these | None.",
        )
    return found


def _generic(where: str, column: str, kind: Any) -> ColumnType | None:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (list, set, frozenset) and arguments:
        return ("list", _type(where, column, arguments[0]))
    if origin is dict:
        return ("map", _type(where, column, arguments[0]), _type(where, column, arguments[1]))
    if origin is Literal and all(isinstance(value, str) for value in arguments):
        return "string"
    return None


def _class(where: str, kind: Any) -> ColumnType | None:
    if not isinstance(kind, type):
        return None
    if hasattr(kind, "model_fields"):
        fields = model_columns(where, kind)
        return ("struct", tuple((field.name, field.type) for field in fields))
    if issubclass(kind, enum.Enum) and all(isinstance(one.value, str) for one in kind):
        return "string"
    return _BY_NAME.get(kind.__name__)


def _decimal(constraints: Iterable[Any]) -> ColumnType:
    digits, places = _UNBOUNDED_DECIMAL
    for constraint in constraints:
        # A Field inside of Annotated carries its constraints one level further down.
        for one in (constraint, *getattr(constraint, "metadata", ())):
            digits = _known(getattr(one, "max_digits", None), digits)
            places = _known(getattr(one, "decimal_places", None), places)
    return ("decimal", digits, min(places, digits))


def _known(value: int | None, otherwise: int) -> int:
    return otherwise if value is None else value
