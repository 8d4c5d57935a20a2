"""The stream record as a view of the change log in Spark SQL: keys, fields and paths.

The view has the columns and the fields that `frame.record_view` gives DuckDB. An image is parsed by
`from_json` into only what the frame reads. What Spark might read in another way than DuckDB does is
a problem of the change, not a value: see `RecordView.problem`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from datazone_dagster.frame.path_checks import PathFields, with_null_probes
from datazone_dagster.frame.paths import ImagePath, Shape, grouped
from datazone_dagster.frame.record_view import FIELDS, IMAGES, RECORD_COLUMN, FieldNames
from datazone_dagster.model.column_names import RECORD_MARKER, Log
from datazone_dagster.model.version import EPOCH_DIGITS
from datazone_dagster.spark.spark_text import any_of, name_of, text_of

CORRUPT = "_dz_corrupt"
"""Field of a parsed image that has its text if Spark can't read it."""

_SPARK_TYPES = {"VARCHAR": "STRING", "BOOLEAN": "BOOLEAN"}

_SEQUENCE_NUMBER = (
    f"coalesce(nullif(trim(LEADING '0' FROM substr({Log.VERSION}, {EPOCH_DIGITS + 1})), ''), '0')"
)

COLUMNS = {
    "eventID": Log.EVENT_ID,
    "eventName": Log.EVENT_NAME,
    "eventVersion": "'1.1'",
    "eventSource": "'aws:dynamodb'",
    "awsRegion": Log.REGION,
    "userIdentity": f"CASE WHEN {Log.USER_TYPE} IS NOT NULL THEN named_struct("
    f"'type', {Log.USER_TYPE}, 'principalId', {Log.USER_PRINCIPAL}) END",
}
"""Columns of the record beside `dynamodb`, each with its SQL over the change log."""

KEY_MAP = "_dz_key_map"
KEY_MAP_SQL = f"from_json({Log.KEYS}, 'MAP<STRING, MAP<STRING, STRING>>')"
"""The key attributes, parsed: each by its name, its value by its descriptor."""

_PLAIN_NUMBER = "^(0|-?[1-9][0-9]{0,37})$"
_BASE64 = "^([A-Za-z0-9+/]{4})*$"
"""Base64 without padding: with it, two texts may be the same bytes."""


def key_sql() -> str:
    """Return the SQL of `_dz_key`, as `items.keys.canonical_key` makes it; null if it is not sure.

    It is over the change log with `KEY_MAP`. Keys are S, N as plain integers of up to 38 digits, or
    B without padding.
    """
    typed = f"{KEY_MAP}[k]"
    kind, value = f"map_keys({typed})[0]", f"map_values({typed})[0]"
    canonical = (
        f"CASE WHEN cardinality({typed}) <> 1 THEN NULL WHEN {kind} = 'S' THEN {value} "
        f"WHEN {kind} = 'N' AND {value} RLIKE {text_of(_PLAIN_NUMBER)} THEN {value} "
        f"WHEN {kind} = 'B' AND {value} RLIKE {text_of(_BASE64)} THEN {value} END"
    )
    attribute = f"concat(length(k), ':', k, {kind}, length({canonical}), ':', {canonical})"
    attributes = f"transform(array_sort(map_keys({KEY_MAP})), k -> {attribute})"
    # array_join leaves nulls out, so they are looked for.
    known = f"cardinality({KEY_MAP}) BETWEEN 1 AND 2 AND NOT exists({attributes}, a -> a IS NULL)"
    escapes = f"contains(lower({Log.KEYS}), {text_of(_SURROGATE)})"
    return f"CASE WHEN {known} AND NOT {escapes} THEN array_join({attributes}, '') END"


_SURROGATE = "\\ud"
"""Half of a character, which each parser of JSON reads in its own way if the other is missing."""


@dataclass(frozen=True)
class RecordView:
    """Parts of the view of a frame's record.

    Args:
        parsed: Parsed images: SQL by column.
        record: SQL of the column `dynamodb`, over the change log with the parsed images.
        problem: SQL of whether the change has a value that Spark may read in another way.
        found: SQL of the records with an image and of those with the attribute, for each field
            whose attribute no record had so far: one condition each.
    """

    parsed: tuple[tuple[str, str], ...]
    record: str
    problem: str
    found: tuple[tuple[str, str, str], ...]


def record_view(needs: Iterable[str], names: FieldNames) -> RecordView:
    """Return the view of a record with these fields: see `frame.record_view.record_query`.

    Raises:
        ValueError: A path is not supported; the message names it.
    """
    needs = set(needs)
    paths, unfound = names.needed(needs), names.unfound(needs)
    for _, path in paths:
        if path.leaf_is_list and path.steps[-1] == "L":
            raise ValueError(f"{path} is read as a list")
        if _is_text(path):
            raise ValueError(f"{path} is read as JSON text")
    fields = [f"{text_of(RECORD_MARKER)}, true"]
    fields += [f"{text_of(name)}, {_field(name)}" for name in FIELDS if name in needs]
    parsed: list[tuple[str, str]] = []
    problems: list[str] = []
    found: list[tuple[str, str, str]] = []
    for image, column in IMAGES.items():
        of_image = {path: name for name, path in paths if path.image == image}
        values: dict[ImagePath, str] = {}
        for shape, members in grouped(with_null_probes(of_image)):
            value = f"_dz_j{len(parsed)}"
            parsed.append((value, _from_json(column, shape)))
            values |= dict.fromkeys(members, name_of(value))
            problems.append(f"{_inside(name_of(value), [CORRUPT])} IS NOT NULL")
        view = PathFields(column, values, of_image, unfound, _inside)
        fields += [f"{text_of(name)}, {view.value(path)}" for path, name in of_image.items()]
        problems += [f"NOT coalesce({view.fits(path)}, true)" for path in of_image]
        if of_image:
            problems.append(f"coalesce(contains(lower({column}), {text_of(_SURROGATE)}), false)")
        found += [
            (name, f"{column} IS NOT NULL", view.is_present(path))
            for path, name in of_image.items()
            if name in unfound
        ]
    record = f"named_struct({', '.join(fields)})"
    return RecordView(tuple(parsed), record, any_of(problems), tuple(found))


def _is_text(path: ImagePath) -> bool:
    """Return whether a path ends at a map, a list or an attribute: its value is JSON text."""
    expects_type = False
    for step in path.steps:
        if expects_type and step not in {"L", "M"}:
            return False
        expects_type = not expects_type  # after L comes None, for an element, and after M a name
    return True


def view_columns(view: RecordView) -> list[str]:
    """Return the select list of the columns of a record."""
    columns = [f"{sql} AS {name_of(name)}" for name, sql in COLUMNS.items()]
    return [*columns, f"{view.record} AS {name_of(RECORD_COLUMN)}"]


def _field(name: str) -> str:
    return _SEQUENCE_NUMBER if name == "SequenceNumber" else FIELDS[name]


def _from_json(column: str, shape: Shape) -> str:
    assert isinstance(shape, dict), "an image is an object"
    kind = _struct({**shape, CORRUPT: "VARCHAR"})
    options = f"map('columnNameOfCorruptRecord', {text_of(CORRUPT)})"
    return f"from_json({column}, {text_of(kind)}, {options})"


def _struct(shape: Shape) -> str:
    if isinstance(shape, str):
        return _SPARK_TYPES[shape]
    if isinstance(shape, list):
        return f"ARRAY<{_struct(shape[0])}>"
    return f"STRUCT<{', '.join(f'{name_of(name)}: {_struct(one)}' for name, one in shape.items())}>"


def _inside(value: str, steps: Sequence[str]) -> str:
    return ".".join((value, *map(name_of, steps)))
