"""The standard stream record as a view of the change log: `eventID`, `dynamodb.…` and so on.

`dynamodb` is a struct of only the fields that a frame's expressions name: the record's own
fields under their names, and each path into an image as a generated field. A marker field
distinguishes `dynamodb` from other structs, so it is recognised wherever SQL carries it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from datazone_dagster.frame.discovery import KnownItems
from datazone_dagster.frame.path_checks import PathFields, attribute_names, with_null_probes
from datazone_dagster.frame.path_notes import PathNotes
from datazone_dagster.frame.paths import ImagePath, from_json, grouped
from datazone_dagster.frame.syntax import quoted
from datazone_dagster.model.attributes import AttributeMapping
from datazone_dagster.model.column_names import HIDDEN, RECORD_MARKER, Log
from datazone_dagster.model.version import EPOCH_DIGITS

CHUNK_TABLE = "_dz_chunk"
RECORD_COLUMN = "dynamodb"

OLD_IMAGE = "OldImage"
IMAGES = {"Keys": Log.KEYS, "NewImage": Log.NEW_IMAGE, OLD_IMAGE: Log.OLD_IMAGE}
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
"""Fields of `dynamodb`, each with its SQL over the change log."""

_COLUMNS = (
    f'{Log.EVENT_ID} AS "eventID"',
    f'{Log.EVENT_NAME} AS "eventName"',
    "'1.1' AS \"eventVersion\"",
    "'aws:dynamodb' AS \"eventSource\"",
    f'{Log.REGION} AS "awsRegion"',
)
STANDARD_COLUMNS = frozenset(
    name.casefold()
    for name in (
        "eventID",
        "eventName",
        "eventVersion",
        "eventSource",
        "awsRegion",
        RECORD_COLUMN,
        "userIdentity",
    )
)
"""Columns of the stream record, casefolded: the others were added by a function."""

_USER_IDENTITY = (
    f"CASE WHEN {Log.USER_TYPE} IS NOT NULL THEN "
    f"{{'type': {Log.USER_TYPE}, 'principalId': {Log.USER_PRINCIPAL}}} END AS \"userIdentity\""
)


@dataclass(frozen=True, slots=True)
class OtherTypeRead:
    """Values that a path could not give, because their attribute has another type.

    Args:
        path: The path as a user writes it.
        attribute: Attribute of another type, on the way down the path.
        outermost: First attribute of the path.
        descriptor: Descriptor found.
        changes: The changes, as `path_notes.change_id`.
        decides: Whether the path decides if a change has rows; else the value is in its rows.
    """

    path: str
    attribute: str
    outermost: str
    descriptor: str
    changes: frozenset[int]
    decides: bool


@dataclass
class FieldNames:
    """Names that the frames of one chunk share, for image paths and for columns of `items()`.

    Names are only ever added; each frame records which of them it needs. `metadata` is
    the metadata of columns of `items()`: the attribute of a renamed column, a mark on numeric keys.
    `sibling_values` counts the values that `items()` put into each sibling column. `may_grow`
    says whether structs in a column of `items()` may get further fields. `notes` are those of the
    queries, `found_paths` the paths whose attribute some record had before this chunk.
    `reads_old_images` says whether a frame names the old image, `rows_read` whether rows of a
    frame were read. `known_items` are the attributes of the run's items so far.
    """

    attributes: AttributeMapping = field(default_factory=AttributeMapping)
    metadata: dict[str, Mapping[str, str]] = field(default_factory=dict)
    sibling_values: Counter[str] = field(default_factory=Counter)
    may_grow: Callable[[str], bool] = lambda _: True
    notes: PathNotes = field(default_factory=PathNotes)
    found_paths: frozenset[str] = frozenset()
    reads_old_images: bool = False
    rows_read: bool = False
    known_items: KnownItems = field(default_factory=KnownItems)
    _deciding: set[str] = field(default_factory=set)
    _behind: dict[str, set[str]] = field(default_factory=dict)
    _origins: dict[str, set[str]] = field(default_factory=dict)
    _names: dict[ImagePath, str] = field(default_factory=dict)

    def name(self, path: ImagePath) -> str:
        """Return the generated field of a path; the same path always gets the same name."""
        return self._names.setdefault(path, f"_dz_p{len(self._names)}")

    def read(self, fields: Iterable[str]) -> None:
        """Record fields of the record that a frame names, such as images."""
        self.reads_old_images = self.reads_old_images or OLD_IMAGE in fields

    def put_behind(self, column: str, needs: Iterable[str], columns: Iterable[str]) -> None:
        """Record what a column is computed from: fields, and columns of the stage before."""
        behind = self._behind.setdefault(column.casefold(), set())
        behind.update(needs, self._fields_behind(columns))

    def originate(self, column: str, names: Iterable[str]) -> None:
        """Record the names in the rewritten expression of a column, for `sources`."""
        origins: set[str] = set()
        for one in names:
            origins |= self._origins.get(one.casefold(), {one})
        self._origins.setdefault(column.casefold(), set()).update(origins)

    def sources(self, column: str) -> tuple[str, ...]:
        """Return what a column of the result is from: paths and fields of the stream record."""
        paths = self.shown()
        attributes = {one.column: f"dynamodb.NewImage.{one.attribute}" for one in self.attributes}
        origins = self._origins.get(column.casefold(), {column} & attributes.keys())
        return tuple(sorted(paths.get(one) or attributes.get(one) or one for one in origins))

    def decide(self, needs: Iterable[str], columns: Iterable[str]) -> None:
        """Record fields and columns that decide whether a change has rows, or how many."""
        self._deciding.update(needs, self._fields_behind(columns))

    def other_types(self) -> list[OtherTypeRead]:
        """Return the notes about values of another type, in the order of the paths."""
        paths = {name: path for path, name in self._names.items()}
        return [
            OtherTypeRead(
                str(paths[found.field]),
                attribute_names(paths[found.field])[found.level],
                paths[found.field].steps[0] or "",
                found.descriptor,
                frozenset(changes),
                found.field in self._deciding,
            )
            for found, changes in sorted(self.notes.other_types.items())
        ]

    def found(self) -> dict[str, tuple[int, bool]]:
        """Return per path how many records were looked at, and whether one has the attribute."""
        return {
            str(path): (self.notes.records[name], self.notes.present[name] > 0)
            for path, name in self._names.items()
            if name in self.notes.records
        }

    def paths(self) -> list[str]:
        """Return the paths that were named, as a user writes them."""
        return [str(path) for path in self._names]

    def unfound(self, names: Iterable[str]) -> frozenset[str]:
        """Return the fields among these whose attribute no record had before this chunk."""
        needed = self.needed(names)
        return frozenset(name for name, path in needed if str(path) not in self.found_paths)

    def _fields_behind(self, columns: Iterable[str]) -> set[str]:
        return {name for column in columns for name in self._behind.get(column.casefold(), ())}

    def shown(self) -> dict[str, str]:
        """Return the path behind each generated name, as a user would write it."""
        return {name: str(path) for path, name in self._names.items()}

    def needed(self, names: Iterable[str]) -> list[tuple[str, ImagePath]]:
        """Return the paths among these fields, in the order in which they were first named."""
        wanted = set(names)
        return [(name, path) for path, name in self._names.items() if name in wanted]


def record_query(needs: Iterable[str], names: FieldNames) -> str:
    """Return the SELECT that presents a chunk as stream records.

    Args:
        needs: Fields of `dynamodb`: names from `FIELDS` and generated names. Nothing else in
            the images is parsed.
        names: Paths behind the generated names.
    """
    needs = set(needs)
    fields = [f"{RECORD_MARKER} := true"]
    fields += [f"{quoted(name)} := {sql}" for name, sql in FIELDS.items() if name in needs]
    parsed: list[str] = []
    paths, unfound = names.needed(needs), names.unfound(needs)
    for image, column in IMAGES.items():
        of_image = {path: name for name, path in paths if path.image == image}
        values: dict[ImagePath, str] = {}
        for shape, members in grouped(with_null_probes(of_image)):
            value = f"_dz_j{len(parsed)}"
            parsed.append(f"{from_json(column, shape)} AS {value}")
            values |= dict.fromkeys(members, value)
        image_fields = PathFields(column, values, of_image, unfound)
        fields += [f"{name} := {image_fields.sql(path)}" for path, name in of_image.items()]
    listed = ", ".join(("*", *parsed))
    chunk = f"(SELECT {listed} FROM {CHUNK_TABLE})"  # noqa: S608  # paths are escaped literals
    record = f"struct_pack({', '.join(fields)}) AS {RECORD_COLUMN}"
    select = ", ".join((*_COLUMNS, record, _USER_IDENTITY, *HIDDEN))
    return f"SELECT {select} FROM {chunk}"  # noqa: S608  # every name is ours or quoted


def images_needed(needs: Iterable[str], names: FieldNames) -> frozenset[str]:
    """Return the key and image columns of the change log that the fields need.

    The other columns are small and always read.
    """
    needs = set(needs)
    of_paths = {path.image for _, path in names.needed(needs)}
    return frozenset(column for name, column in IMAGES.items() if name in needs | of_paths)


def record_value(column: str) -> str:
    """Return the SQL of a record column as users get it: standard fields, images as JSON text."""
    fields = (f"{quoted(name)} := struct_extract({column}, '{name}')" for name in FIELDS)
    return f"CASE WHEN {column}.{RECORD_MARKER} THEN struct_pack({', '.join(fields)}) END"


def list_of_record_values(column: str) -> str:
    """Return the SQL of a column of lists of records as users get it."""
    return f"list_transform({column}, lambda _dz_one: {record_value('_dz_one')})"


def plain_value(column: str, depth: int | None) -> str:
    """Return the SQL of a column as users get it; `depth` as of `record_depth`."""
    if depth is None:
        return column
    return list_of_record_values(column) if depth else record_value(column)


def is_record(duckdb_type: str) -> bool:
    """Return whether a column of this type is the record struct."""
    return record_depth(duckdb_type) == 0


def record_depth(duckdb_type: str) -> int | None:
    """Return 0 for the type of the record struct, 1 for a list of them, None for any other."""
    if not duckdb_type.startswith(f"STRUCT({RECORD_MARKER} "):
        return None
    return 1 if duckdb_type.endswith(")[]") else 0
