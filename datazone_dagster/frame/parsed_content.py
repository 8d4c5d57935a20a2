"""SQL that converts sets, lists and maps that `parsed_images` has read: exactly, or not at all.

The counterpart of `containers`, which reads JSON text. Here the parts are there already, so only
the scalars inside are converted, and a value fits if all of them do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pyarrow as pa

from datazone_dagster.frame.item_types import ItemType, ListOf, MapOf, Scalar, descriptors_of
from datazone_dagster.frame.paths import SETS, extracted
from datazone_dagster.frame.syntax import quoted
from datazone_dagster.frame.typed import reading

Sql = Callable[[str], str]
"""Maps the SQL of a parsed value to SQL computed from that value."""


class Content(NamedTuple):
    """How one kind of value is parsed, the SQL of its value, and of whether that is exact."""

    kind: pa.DataType
    value: Sql
    fits: Sql


def content_of(item_type: ItemType, descriptor: str) -> Content | None:
    """Return the conversion of a set, list or map to a type; None if the type needs its JSON."""
    if _needs_json(item_type):
        return None
    return _forms(item_type, 0).get(descriptor)


def _needs_json(item_type: ItemType) -> bool:
    if isinstance(item_type, Scalar):
        return item_type.name == "json"
    if isinstance(item_type, MapOf):  # its names are data, so no schema has them
        return True
    if isinstance(item_type, ListOf):
        return _needs_json(item_type.element)
    # DuckDB's names of fields fold case.
    names = {name.casefold() for name, _ in item_type.fields}
    return len(names) < len(item_type.fields) or any(
        _needs_json(field) for _, field in item_type.fields
    )


def _forms(item_type: ItemType, depth: int) -> dict[str, Content]:
    if isinstance(item_type, Scalar):
        return {name: _scalar(item_type, name) for name in descriptors_of(item_type)}
    if isinstance(item_type, ListOf):
        return {
            name: _set(item_type.element, name, depth)
            if name in SETS
            else _list(item_type.element, depth)
            for name in descriptors_of(item_type)
        }
    assert not isinstance(item_type, MapOf)
    return {"M": _struct(dict(item_type.fields), depth)}


def _scalar(scalar: Scalar, descriptor: str) -> Content:
    if descriptor == "BOOL":
        return Content(pa.bool_(), lambda parsed: parsed, lambda parsed: f"{parsed} IS NOT NULL")

    def value(parsed: str) -> str:
        return reading(scalar, parsed) or parsed

    return Content(pa.string(), value, lambda parsed: f"{value(parsed)} IS NOT NULL")


def _value(item_type: ItemType, depth: int) -> Content:
    """Return the conversion of a typed value, `{"S": ...}`, in whichever form is present."""
    forms = _forms(item_type, depth)

    def value(parsed: str) -> str:
        sqls = [form.value(extracted(parsed, (name,))) for name, form in forms.items()]
        return sqls[0] if len(sqls) == 1 else f"coalesce({', '.join(sqls)})"

    def fits(parsed: str) -> str:
        fields = {name: extracted(parsed, (name,)) for name in forms}
        found = [
            f"({fields[name]} IS NOT NULL AND {form.fits(fields[name])})"
            for name, form in forms.items()
        ]
        is_null = f"{extracted(parsed, ('NULL',))} IS NOT NULL"
        present = " + ".join(f"({field} IS NOT NULL)::TINYINT" for field in fields.values())
        once = f"{present} + ({is_null})::TINYINT = 1"
        return f"({once} AND ({' OR '.join([*found, is_null])}))"

    kinds = [pa.field(name, form.kind) for name, form in forms.items()]
    return Content(pa.struct([*kinds, pa.field("NULL", pa.bool_())]), value, fits)


def _list(element_type: ItemType, depth: int) -> Content:
    element, name = _value(element_type, depth + 1), f"e{depth}"
    return Content(
        pa.list_(element.kind),
        lambda parsed: f"list_transform({parsed}, lambda {name}: {element.value(name)})",
        lambda parsed: _all_fit(parsed, element, name),
    )


def _set(element_type: ItemType, descriptor: str, depth: int) -> Content:
    assert isinstance(element_type, Scalar)
    element, name = _scalar(element_type, descriptor), f"e{depth}"
    return Content(
        pa.list_(element.kind),
        lambda parsed: f"list_sort(list_transform({parsed}, lambda {name}: {element.value(name)}))",
        lambda parsed: _all_fit(parsed, element, name),
    )


def _all_fit(parsed: str, element: Content, name: str) -> str:
    each = f"list_transform({parsed}, lambda {name}: {element.fits(name)})"
    return f"coalesce(list_bool_and({each}), true)"


def _struct(types: dict[str, ItemType], depth: int) -> Content:
    fields = {name: _value(field, depth + 1) for name, field in types.items()}

    def value(parsed: str) -> str:
        packed = ", ".join(
            f"{quoted(name)} := {field.value(extracted(parsed, (name,)))}"
            for name, field in fields.items()
        )
        return f"CASE WHEN {parsed} IS NOT NULL THEN struct_pack({packed}) END"

    def fits(parsed: str) -> str:
        each = [
            f"({extracted(parsed, (name,))} IS NULL OR {field.fits(extracted(parsed, (name,)))})"
            for name, field in fields.items()
        ]
        return f"({' AND '.join(each)})"

    return Content(
        pa.struct([pa.field(name, field.kind) for name, field in fields.items()]), value, fits
    )
