"""The standard stream record over the change log: what `eventID` and `dynamodb.…` stand for.

`dynamodb` is a struct that holds only the fields that a frame's expressions name: the
record's own fields under their names, and each path into an image as a generated field. A
marker field tells it from other structs, so it stays known wherever SQL carries it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from datazone_dagster.frame.paths import ImagePath, extracted, from_json, grouped
from datazone_dagster.frame.syntax import quoted
from datazone_dagster.model.attributes import AttributeMapping
from datazone_dagster.model.column_names import HIDDEN, Log
from datazone_dagster.model.version import EPOCH_DIGITS

CHUNK_TABLE = "_dz_chunk"
RECORD_COLUMN = "dynamodb"
MARKER = "_dz_record"

IMAGES = {"Keys": Log.KEYS, "NewImage": Log.NEW_IMAGE, "OldImage": Log.OLD_IMAGE}
_SEQUENCE_NUMBER = (
    f"coalesce(nullif(ltrim(substr({Log.VERSION}, {EPOCH_DIGITS + 1}), '0'), ''), '0')"
)
FIELDS = {
    "ApproximateCreationDateTime": Log.EVENT_TIME,
    "Keys": Log.KEYS,
    "NewImage": Log.NEW_IMAGE,
    "OldImage": Log.OLD_IMAGE,
    "SequenceNumber": _SEQUENCE_NUMBER,
    "SizeBytes": Log.SIZE_BYTES,
    "StreamViewType": Log.VIEW_TYPE,
}
"""Fields of `dynamodb` and how they are made from the change log."""

_COLUMNS = (
    f'{Log.EVENT_ID} AS "eventID"',
    f'{Log.EVENT_NAME} AS "eventName"',
    "'1.1' AS \"eventVersion\"",
    "'aws:dynamodb' AS \"eventSource\"",
    f'{Log.REGION} AS "awsRegion"',
)
_USER_IDENTITY = (
    f"CASE WHEN {Log.USER_TYPE} IS NOT NULL THEN "
    f"{{'type': {Log.USER_TYPE}, 'principalId': {Log.USER_PRINCIPAL}}} END AS \"userIdentity\""
)


@dataclass
class FieldNames:
    """Names that one chunk's frames share: of image paths, and of the columns of `items()`.

    It only grows. What a frame needs of it is part of the frame. `origins` has the attribute of
    each column of `items()` that is named otherwise.
    """

    attributes: AttributeMapping = field(default_factory=AttributeMapping)
    origins: dict[str, str] = field(default_factory=dict)
    _names: dict[ImagePath, str] = field(default_factory=dict)

    def name(self, path: ImagePath) -> str:
        """The generated field of a path: the same path, the same name."""
        return self._names.setdefault(path, f"_dz_p{len(self._names)}")

    def shown(self) -> dict[str, str]:
        """What each generated name stands for, as a user would write it."""
        return {name: str(path) for path, name in self._names.items()}

    def needed(self, names: Iterable[str]) -> list[tuple[str, ImagePath]]:
        """The paths among these fields, in the order in which they were first named."""
        wanted = set(names)
        return [(name, path) for path, name in self._names.items() if name in wanted]


def record_query(needs: Iterable[str], names: FieldNames) -> str:
    """The SELECT that shows a chunk as stream records.

    Args:
        needs: Fields of `dynamodb`: names of `FIELDS` and generated names. Nothing else of
            the images is parsed.
        names: What the generated names stand for.
    """
    needs = set(needs)
    fields = [f"{MARKER} := true"]
    fields += [f"{quoted(name)} := {sql}" for name, sql in FIELDS.items() if name in needs]
    parsed: list[str] = []
    paths = names.needed(needs)
    for image, column in IMAGES.items():
        of_image = {path: name for name, path in paths if path.image == image}
        for shape, members in grouped(of_image):
            value = f"_dz_j{len(parsed)}"
            parsed.append(f"{from_json(column, shape)} AS {value}")
            fields += [
                f"{of_image[path]} := {extracted(value, path.column_steps)}" for path in members
            ]
    listed = ", ".join(("*", *parsed))
    chunk = f"(SELECT {listed} FROM {CHUNK_TABLE})"  # noqa: S608  # paths are escaped literals
    record = f"struct_pack({', '.join(fields)}) AS {RECORD_COLUMN}"
    select = ", ".join((*_COLUMNS, record, _USER_IDENTITY, *HIDDEN))
    return f"SELECT {select} FROM {chunk}"  # noqa: S608  # every name is ours or quoted


def images_needed(needs: Iterable[str], names: FieldNames) -> frozenset[str]:
    """The change log's columns of keys and images that the fields need; the others are small."""
    needs = set(needs)
    of_paths = {path.image for _, path in names.needed(needs)}
    return frozenset(column for name, column in IMAGES.items() if name in needs | of_paths)


def record_value(column: str) -> str:
    """The SQL of a record column as users get it: the standard fields, images as JSON text."""
    fields = (f"{quoted(name)} := struct_extract({column}, '{name}')" for name in FIELDS)
    return f"struct_pack({', '.join(fields)})"


def is_record(duckdb_type: str) -> bool:
    """Whether a column of this type is the record's struct."""
    return duckdb_type.startswith("STRUCT(") and MARKER in duckdb_type
