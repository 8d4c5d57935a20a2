"""Conversion of a Pydantic model to declared columns, by its annotations. Loads nothing."""

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
"""Pydantic's own classes, by name, so that Pydantic need not be imported."""

_UNBOUNDED_DECIMAL = (38, 9)
"""Digits and decimals that `items()` uses for a number without a declared type."""


def model_columns(where: str, model: Any) -> tuple[Column, ...]:
    """Return the fields of a model as columns, under their Python names.

    Only `X | None` is nullable. A Decimal has the digits of its field (`max_digits`,
    `decimal_places`), or 38 digits with 9 decimals if the field has none.

    Raises:
        DefinitionError: A field has a type that Delta does not support, or one that is not
            defined yet.
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
        type_ = _type(where, name, kind, field.metadata)
        columns.append(Column(name, type_, nullable, field.description))
    return tuple(columns)


def _without_none(annotation: Any) -> tuple[Any, bool]:
    if get_origin(annotation) in (Union, types.UnionType):
        kinds = [kind for kind in get_args(annotation) if kind is not type(None)]
        if len(kinds) < len(get_args(annotation)):
            return (kinds[0] if len(kinds) == 1 else Union[tuple(kinds)]), True  # noqa: UP007 - built from a list
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
            "Use str, int, float, bool, bytes, Decimal, date, datetime, UUID, an Enum of "
            "strings, a list, a dict, another model, or one of these | None.",
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
        # A Field inside Annotated carries its constraints one level deeper.
        for one in (constraint, *getattr(constraint, "metadata", ())):
            digits = _known(getattr(one, "max_digits", None), digits)
            places = _known(getattr(one, "decimal_places", None), places)
    return ("decimal", digits, min(places, digits))


def _known(value: int | None, otherwise: int) -> int:
    return otherwise if value is None else value
