"""SQL that reads sets, lists and maps completely, to the last byte, or not at all.

DuckDB's `from_json` drops whatever its shape does not name, and takes the first of two equal
names. Each reading therefore also counts the bytes of JSON that it has read: nothing was dropped
only if the count equals the length of the text. `plain` and `exact` read all other values.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import NamedTuple

from datazone_dagster.frame.item_types import (
    ItemType,
    ListOf,
    MapOf,
    Scalar,
    StructOf,
    descriptors_of,
)
from datazone_dagster.frame.paths import Shape, extracted, type_of
from datazone_dagster.frame.structure import Structure
from datazone_dagster.frame.syntax import quoted, text_literal
from datazone_dagster.frame.typed import reading

_EMPTY = 2  # bytes of [] and {}
_NULL = "NULL"
_JSON_NUMBER = r'"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?"'

Sql = Callable[[str], str]
"""Maps the SQL of a parsed value to SQL computed from that value."""


class Reading(NamedTuple):
    """SQL that reads one kind of value.

    `shape` is the shape for `from_json`. `value` gives the value, null if the JSON does not fit.
    `size` gives the bytes of JSON that were read, null or too few if some were not.
    """

    shape: Shape
    value: Sql
    size: Sql


def typed_content(item_type: ItemType, descriptor: str) -> Reading:
    """Return the reading of the content of a set, list or map as a declared type."""
    return _typed_forms(item_type, 0)[descriptor]


def plain_content(structure: Structure, descriptor: str) -> Reading | None:
    """Return the reading of a list or map as plain JSON text, None if the sample had none."""
    return _plain_forms(structure, 0).get(descriptor)


def exactly(read: Reading, parsed: str, text: str, *, plain: bool) -> str:
    """Return the SQL of the value, null unless the complete text was read.

    Args:
        read: Reading to apply.
        parsed: SQL of the result of `from_json` on the text.
        text: SQL of the text, without whitespace between tokens.
        plain: Whether the value is JSON text. Python then reads the texts with control
            characters, so that equal values have equal texts regardless of who wrote them.
    """
    complete = f"{read.size(parsed)} = strlen({text})"
    if plain:
        complete += f" AND NOT contains({text}, '\\u')"
    return f"CASE WHEN {complete} THEN {read.value(parsed)} END"


def _wrapped(forms: dict[str, Reading]) -> Reading:
    """Return the reading of a typed value, `{"S": ...}`, in whichever form is present."""

    def field(value: str, descriptor: str) -> str:
        return extracted(value, (descriptor,))

    def value(parsed: str) -> str:
        return _first(form.value(field(parsed, name)) for name, form in forms.items())

    def size(parsed: str) -> str:
        around = len('{"":}')
        return _first(
            f"{form.size(field(parsed, name))} + {len(name) + around}"
            for name, form in forms.items()
        )

    return Reading({name: form.shape for name, form in forms.items()}, value, size)


def _first(sqls: Iterable[str]) -> str:
    listed = list(sqls)
    return listed[0] if len(listed) == 1 else f"coalesce({', '.join(listed)})"


def _sized(value: Sql) -> Sql:
    """Return the size of a scalar: the length of its JSON if the value was read, else null."""
    return lambda parsed: f"CASE WHEN {value(parsed)} IS NOT NULL THEN strlen({parsed}) END"


def _text(parsed: str) -> str:
    """Return the SQL of the text of a JSON string, null for any other JSON."""
    return f"CASE WHEN starts_with({parsed}, '\"') THEN {parsed} ->> '$' END"


def _list_size(element: Reading, depth: int) -> Sql:
    """Return the size of a list: its elements, a separator for each, and the brackets."""
    name = f"s{depth}"
    return lambda parsed: _if_present(
        parsed,
        f"greatest({_EMPTY}, 1 + coalesce(list_sum(list_transform({parsed}, "
        f"lambda {name}: {element.size(name)} + 1)), 0))",
    )


def _if_present(parsed: str, sql: str) -> str:
    return f"CASE WHEN {parsed} IS NOT NULL THEN {sql} END"


# --- declared types


def _typed_value(item_type: ItemType, depth: int) -> Reading:
    """Return the reading of any form that the type accepts, or of NULL, whose value is null."""
    read = _wrapped(_typed_forms(item_type, depth))
    is_null = _wrapped({_NULL: Reading("JSON", lambda _: "NULL", _sized(_is_null))})
    assert isinstance(read.shape, dict)
    assert isinstance(is_null.shape, dict)
    return Reading(
        read.shape | is_null.shape,
        read.value,
        lambda parsed: _first((read.size(parsed), is_null.size(parsed))),
    )


def _is_null(parsed: str) -> str:
    return f"CASE WHEN {parsed} = 'true' THEN 'null' END"


def _typed_forms(item_type: ItemType, depth: int) -> dict[str, Reading]:
    if isinstance(item_type, Scalar):
        value = _typed_scalar(item_type)
        return {name: Reading("JSON", value, _sized(value)) for name in descriptors_of(item_type)}
    if isinstance(item_type, ListOf):
        return _typed_lists(item_type, depth)
    if isinstance(item_type, MapOf):
        return {"M": _typed_map(item_type, depth)}
    return {"M": _typed_struct(item_type, depth)}


def _typed_scalar(scalar: Scalar) -> Sql:
    if scalar.name == "boolean":
        return lambda parsed: f"CASE {parsed} WHEN 'true' THEN true WHEN 'false' THEN false END"
    return lambda parsed: reading(scalar, _text(parsed)) or _text(parsed)


def _typed_lists(listed: ListOf, depth: int) -> dict[str, Reading]:
    element, name = _typed_value(listed.element, depth + 1), f"e{depth}"
    forms = {
        "L": Reading(
            [element.shape],
            lambda parsed: f"list_transform({parsed}, lambda {name}: {element.value(name)})",
            _list_size(element, depth),
        )
    }
    for descriptor in descriptors_of(listed)[1:]:
        assert isinstance(listed.element, Scalar)
        forms[descriptor] = _typed_set(listed.element, depth)
    return forms


def _typed_set(scalar: Scalar, depth: int) -> Reading:
    value, name = _typed_scalar(scalar), f"e{depth}"
    return Reading(
        ["JSON"],
        lambda parsed: f"list_sort(list_transform({parsed}, lambda {name}: {value(name)}))",
        _list_size(Reading("JSON", value, _sized(value)), depth),
    )


def _typed_map(mapped: MapOf, depth: int) -> Reading:
    value, name = _typed_value(mapped.value, depth + 1), f"e{depth}"
    entry = f"{{'key': {name}.key, 'value': {value.value(f'{name}.value')}}}"
    size = f"strlen(to_json({name}.key)) + 2 + {value.size(f'{name}.value')}"
    return Reading(
        f"MAP(VARCHAR, {type_of(value.shape)})",
        lambda parsed: (
            f"map_from_entries(list_sort(list_transform(map_entries({parsed}), "
            f"lambda {name}: {entry})))"
        ),
        lambda parsed: _if_present(
            parsed,
            f"greatest({_EMPTY}, 1 + coalesce(list_sum(list_transform(map_entries({parsed}), "
            f"lambda {name}: {size})), 0))",
        ),
    )


def _typed_struct(struct: StructOf, depth: int) -> Reading:
    fields = {name: _typed_value(field, depth + 1) for name, field in struct.fields}

    def value(parsed: str) -> str:
        packed = ", ".join(
            f"{quoted(name)} := {field.value(extracted(parsed, (name,)))}"
            for name, field in fields.items()
        )
        return _if_present(parsed, f"struct_pack({packed})")

    shape: Shape = {name: field.shape for name, field in fields.items()}
    return Reading(shape, value, _fields_size(fields))


def _fields_size(fields: dict[str, Reading]) -> Sql:
    """Return the size of a map of known names, where an absent field counts 0."""

    def size(parsed: str) -> str:
        sizes = [
            f"coalesce({field.size(extracted(parsed, (name,)))} "
            f"+ {len(_name(name).encode()) + 2}, 0)"
            for name, field in fields.items()
        ]
        return _if_present(parsed, f"greatest({_EMPTY}, {' + '.join(['1', *sizes])})")

    return size


def _name(name: str) -> str:
    """Return an attribute name as a JSON string."""
    return json.dumps(name, ensure_ascii=False)


# --- plain JSON


def _plain_value(structure: Structure, depth: int) -> Reading | None:
    forms = _plain_forms(structure, depth)
    return _wrapped(forms) if forms else None


def _plain_forms(structure: Structure, depth: int) -> dict[str, Reading]:
    forms = {}
    for name in sorted(structure.scalars):
        if name in {"SS", "BS"}:
            forms[name] = _plain_set(depth)
        else:
            value = _PLAIN_SCALARS[name]
            forms[name] = Reading("JSON", value, _sized(value))
    if structure.element is not None:
        forms["L"] = _plain_list(structure.element, depth)
    if structure.fields is not None:
        forms["M"] = _plain_map(structure.fields, depth)
    return forms


def _plain_text(parsed: str) -> str:
    return f"CASE WHEN starts_with({parsed}, '\"') THEN {parsed}::VARCHAR END"


_PLAIN_SCALARS: dict[str, Sql] = {
    "S": _plain_text,
    "B": _plain_text,
    "N": lambda parsed: (
        f"CASE WHEN regexp_full_match({parsed}, '{_JSON_NUMBER}') THEN trim({parsed}, '\"') END"
    ),
    "BOOL": lambda parsed: f"CASE WHEN {parsed} IN ('true', 'false') THEN {parsed}::VARCHAR END",
    "NULL": _is_null,
}


def _empty(brackets: str) -> Reading:
    """Return the reading of a list or map that was empty throughout the sample."""
    return Reading(
        "JSON",
        lambda parsed: f"CASE WHEN {parsed} = '{brackets}' THEN '{brackets}' END",
        lambda parsed: f"CASE WHEN {parsed} = '{brackets}' THEN {_EMPTY} END",
    )


def _plain_set(depth: int) -> Reading:
    name = f"e{depth}"
    return Reading(
        ["JSON"],
        lambda parsed: (
            f"'[' || array_to_string(list_transform(list_sort(list_transform({parsed}, "
            f"lambda {name}: {_text(name)})), lambda {name}: to_json({name})::VARCHAR), ',') || ']'"
        ),
        _list_size(Reading("JSON", _text, _sized(_text)), depth),
    )


def _plain_list(element: Structure, depth: int) -> Reading:
    read, name = _plain_value(element, depth + 1), f"e{depth}"
    if read is None:
        return _empty("[]")
    return Reading(
        [read.shape],
        lambda parsed: (
            f"'[' || array_to_string(list_transform({parsed}, lambda {name}: {read.value(name)}), "
            "',') || ']'"
        ),
        _list_size(read, depth),
    )


def _plain_map(fields: dict[str, Structure], depth: int) -> Reading:
    readings = {
        name: read
        for name in sorted(fields)
        if (read := _plain_value(fields[name], depth + 1)) is not None
    }
    if not readings:
        return _empty("{}")

    def value(parsed: str) -> str:
        members = ", ".join(
            f"{text_literal(_name(name) + ':')} || {read.value(extracted(parsed, (name,)))}"
            for name, read in readings.items()
        )
        return _if_present(parsed, f"'{{' || concat_ws(',', {members}) || '}}'")

    shape: Shape = {name: read.shape for name, read in readings.items()}
    return Reading(shape, value, _fields_size(readings))
