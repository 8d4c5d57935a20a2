"""SQL that converts sets, lists and maps that `parsed_images` has read: exactly, or not at all.

The counterpart of `containers`, which reads JSON text. Here the parts are there already, so only
the scalars inside are converted, and a value fits if all of them do. A value without a declared
type becomes plain JSON text, as `plain` writes it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import NamedTuple

import pyarrow as pa

from datazone_dagster.frame.item_types import ItemType, ListOf, MapOf, Scalar, descriptors_of
from datazone_dagster.frame.paths import SETS, extracted
from datazone_dagster.frame.structure import Structure
from datazone_dagster.frame.syntax import quoted, text_literal
from datazone_dagster.frame.typed import reading

_JSON_NUMBER = r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?"

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
    """Return the conversion of a typed value, `{"S": ...}`; the value of NULL is null."""
    return _wrapped(_forms(item_type, depth), null=None)


def _wrapped(forms: dict[str, Content], *, null: str | None) -> Content:
    """Return the conversion of a typed value, in whichever form is present.

    Args:
        forms: Conversion of each descriptor but NULL.
        null: SQL of the value of NULL; None: null.
    """

    def is_null(parsed: str) -> str:
        return f"{extracted(parsed, ('NULL',))} IS NOT NULL"

    def value(parsed: str) -> str:
        sqls = [form.value(extracted(parsed, (name,))) for name, form in forms.items()]
        if null is not None:
            sqls.append(f"CASE WHEN {is_null(parsed)} THEN {null} END")
        return f"coalesce({', '.join([*sqls, 'NULL'])})"

    def fits(parsed: str) -> str:
        fields = {name: extracted(parsed, (name,)) for name in forms}
        found = [
            f"({fields[name]} IS NOT NULL AND {form.fits(fields[name])})"
            for name, form in forms.items()
        ]
        present = [f"({field} IS NOT NULL)::TINYINT" for field in fields.values()]
        once = " + ".join([*present, f"({is_null(parsed)})::TINYINT"])
        return f"({once} = 1 AND ({' OR '.join([*found, is_null(parsed)])}))"

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

    return Content(_struct_kind(fields), value, lambda parsed: _fields_fit(parsed, fields))


def _struct_kind(fields: dict[str, Content]) -> pa.DataType:
    return pa.struct([pa.field(name, one.kind) for name, one in fields.items()])


def _fields_fit(parsed: str, fields: dict[str, Content]) -> str:
    each = [
        f"({extracted(parsed, (name,))} IS NULL OR {one.fits(extracted(parsed, (name,)))})"
        for name, one in fields.items()
    ]
    return f"({' AND '.join(each)})"


# --- plain JSON


def plain_content_of(structure: Structure, descriptor: str) -> Content | None:
    """Return the conversion of a list or map to plain JSON, None if no sample had one."""
    return _plain_forms(structure, 0).get(descriptor)


def _plain_forms(structure: Structure, depth: int) -> dict[str, Content]:
    forms = {
        name: _PLAIN[name] if name in _PLAIN else _plain_set(depth)
        for name in sorted(structure.scalars - {"NULL"})
    }
    if structure.element is not None:
        forms["L"] = _plain_list(structure.element, depth)
    if structure.fields:
        forms["M"] = _plain_map(structure.fields, depth)
    return forms


def _plain_value(structure: Structure, depth: int) -> Content:
    return _wrapped(_plain_forms(structure, depth), null="'null'")


def _is_usual(text: str) -> str:
    """Return the SQL of whether a text has only characters that all writers escape alike."""
    return f"NOT regexp_matches({text}, '[\\x00-\\x07\\x0b\\x0e-\\x1f\\x7f]')"


_TEXT = Content(pa.string(), lambda parsed: f"to_json({parsed})::VARCHAR", _is_usual)
_PLAIN = {
    "S": _TEXT,
    "B": _TEXT,
    "N": Content(
        pa.string(),
        lambda parsed: parsed,
        lambda parsed: f"regexp_full_match({parsed}, '{_JSON_NUMBER}')",
    ),
    "BOOL": Content(
        pa.bool_(), lambda parsed: f"{parsed}::VARCHAR", lambda parsed: f"{parsed} IS NOT NULL"
    ),
}


def _plain_set(depth: int) -> Content:
    name = f"e{depth}"
    return Content(
        pa.list_(pa.string()),
        lambda parsed: _in_brackets(parsed, f"list_sort({parsed})", _TEXT, name),
        lambda parsed: _all_fit(parsed, _TEXT, name),
    )


def _plain_list(element_structure: Structure, depth: int) -> Content:
    element, name = _plain_value(element_structure, depth + 1), f"e{depth}"
    return Content(
        pa.list_(element.kind),
        lambda parsed: _in_brackets(parsed, parsed, element, name),
        lambda parsed: _all_fit(parsed, element, name),
    )


def _in_brackets(parsed: str, listed: str, element: Content, name: str) -> str:
    each = f"list_transform({listed}, lambda {name}: {element.value(name)})"
    text = f"'[' || coalesce(array_to_string({each}, ','), '') || ']'"
    return f"CASE WHEN {parsed} IS NOT NULL THEN {text} END"


def _plain_map(structures: dict[str, Structure], depth: int) -> Content:
    fields = {name: _plain_value(structures[name], depth + 1) for name in sorted(structures)}

    def value(parsed: str) -> str:
        members = ", ".join(
            f"{text_literal(json.dumps(name, ensure_ascii=False) + ':')} || "
            f"{one.value(extracted(parsed, (name,)))}"
            for name, one in fields.items()
        )
        return f"CASE WHEN {parsed} IS NOT NULL THEN '{{' || concat_ws(',', {members}) || '}}' END"

    return Content(_struct_kind(fields), value, lambda parsed: _fields_fit(parsed, fields))
