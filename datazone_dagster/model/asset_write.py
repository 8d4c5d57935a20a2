"""What the metadata of an asset asks: how its result is written, and by which columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Literal, cast, get_args

from datazone_dagster.errors import DefinitionError

Mode = Literal["overwrite", "append", "merge"]
SchemaMode = Literal["merge", "overwrite"]

MODES: tuple[Mode, ...] = get_args(Mode)
SCHEMA_MODES: tuple[SchemaMode, ...] = get_args(SchemaMode)

OPTIONS = (
    "mode",
    "key",
    "order",
    "delete_where",
    "partition_expr",
    "partition_by",
    "schema_mode",
    "deletion_vectors",
)
"""Metadata of an asset that the IO manager reads; other metadata is the user's own."""

_OF_OTHERS: Mapping[str, str] = {
    "merge_config": 'metadata={"mode": "merge", "key": [...]}',
    "merge_predicate": 'metadata={"key": [...]}',
    "merge_operations_config": 'metadata={"key": [...], "delete_where": "..."}',
    "delta_merge_options": 'metadata={"mode": "merge", "key": [...]}',
    "delta_write_options": 'metadata={"schema_mode": "overwrite"} and {"partition_by": [...]}',
    "overwrite_schema": 'metadata={"schema_mode": "overwrite"}',
    "save_mode": 'metadata={"mode": ...}',
    "write_mode": 'metadata={"mode": ...}',
    "root_name": "the asset's key, which names the table",
}
"""Options of other IO managers for Delta Lake, and what takes their place."""

_MERGE_ONLY = ("key", "order", "delete_where")
_NEAR = 0.8


@dataclass(frozen=True, slots=True)
class AssetWrite:
    """How the result of an asset is written.

    Args:
        mode: `"overwrite"` replaces the rows, those of its partition if the asset has partitions;
            `"append"` adds them, once per run; `"merge"` replaces the rows of the same key.
        key: Columns that identify a row in a merge.
        order: Column that decides which row of a key counts if a result has several.
        delete_where: SQL predicate of the rows of a result whose keys leave the table.
        partition_columns: Column of each dimension of the asset's partitions, by dimension; the
            empty name is that of an asset with one dimension.
        partition_by: Columns by which the files are partitioned; None: chosen by the writer.
        schema_mode: `"merge"` adds and widens columns, `"overwrite"` replaces the schema.
        deletion_vectors: As in `Dataset(deletion_vectors=...)`.
    """

    mode: Mode = "overwrite"
    key: tuple[str, ...] = ()
    order: str | None = None
    delete_where: str | None = None
    partition_columns: tuple[tuple[str, str], ...] = ()
    partition_by: tuple[str, ...] | None = None
    schema_mode: SchemaMode = "merge"
    deletion_vectors: Literal["auto"] | bool = "auto"


def asset_write(
    metadata: Mapping[str, Any], *, asset: str, dimensions: Sequence[str] | None = None
) -> AssetWrite:
    """Return what the metadata of an asset asks for.

    Args:
        metadata: Metadata of the asset's definition, as plain values.
        asset: Name of the asset, for errors.
        dimensions: Dimensions of the asset's partitions, `("",)` if they have no names; None if it
            has no partitions.

    Raises:
        DefinitionError: An option is misspelled, has a wrong value, or contradicts another one.
    """
    options = _Options(metadata, asset)
    options.check_names()
    mode = cast(Mode, options.one_of("mode", MODES))
    schema_mode = cast(SchemaMode, options.one_of("schema_mode", SCHEMA_MODES))
    key = options.names("key") or ()
    if mode == "merge" and not key:
        raise options.wrong(
            "mode='merge' needs the columns that identify a row",
            'Name them: metadata={"mode": "merge", "key": ["id"]}.',
        )
    for name in _MERGE_ONLY:
        if mode != "merge" and metadata.get(name) is not None:
            raise options.wrong(
                f"{name!r} has no effect with mode={mode!r}",
                f"Remove it, or merge: metadata={{'mode': 'merge', 'key': [...], {name!r}: ...}}.",
            )
    if schema_mode == "overwrite" and (mode != "overwrite" or dimensions is not None):
        raise options.wrong(
            "schema_mode='overwrite' replaces the table, so it needs mode='overwrite' and an asset "
            "without partitions",
            "Remove it; new columns are added and types widened without it.",
        )
    vectors = metadata.get("deletion_vectors", "auto")
    if vectors not in ("auto", True, False):
        raise options.wrong(
            f"deletion_vectors={vectors!r} is unknown", "It is 'auto', True or False."
        )
    return AssetWrite(
        mode=mode,
        key=key,
        order=options.text("order"),
        delete_where=options.text("delete_where"),
        partition_columns=options.partition_columns(dimensions),
        partition_by=options.names("partition_by"),
        schema_mode=schema_mode,
        deletion_vectors=vectors,
    )


@dataclass(frozen=True, slots=True)
class _Options:
    """Metadata of an asset, read by kind of value."""

    metadata: Mapping[str, Any]
    asset: str

    def wrong(self, what: str, hint: str) -> DefinitionError:
        return DefinitionError(f"Asset {self.asset!r}: {what}.", hint=hint)

    def check_names(self) -> None:
        """Refuse options of other IO managers, and what looks like a misspelled one of ours."""
        for name in self.metadata:
            if name in OPTIONS or name.startswith("dagster/"):
                continue
            instead = _OF_OTHERS.get(name)
            if instead is not None:
                raise self.wrong(
                    f"the metadata {name!r} is an option of another IO manager",
                    f"Here it is {instead}.",
                )
            near = get_close_matches(name.lower(), OPTIONS, 1, _NEAR)
            if near:
                raise self.wrong(
                    f"the metadata {name!r} looks like the option {near[0]!r}",
                    f"Write {near[0]!r}, or give metadata of your own another name.",
                )

    def one_of(self, name: str, allowed: Sequence[str]) -> str:
        value = self.metadata.get(name, allowed[0])
        if value not in allowed:
            raise self.wrong(
                f"{name}={value!r} is unknown", f"It is one of {', '.join(map(repr, allowed))}."
            )
        return cast(str, value)

    def text(self, name: str) -> str | None:
        value = self.metadata.get(name)
        if value is None or (isinstance(value, str) and value.strip()):
            return value
        raise self.wrong(f"{name}={value!r} is not a text", f"Give one: {{{name!r}: '...'}}.")

    def names(self, name: str) -> tuple[str, ...] | None:
        value = self.metadata.get(name)
        if value is None:
            return None
        found = (value,) if isinstance(value, str) else value
        if (
            not isinstance(found, Sequence)
            or not all(isinstance(one, str) and one for one in found)
            or len(set(found)) != len(found)
            or (not found and name == "key")
        ):
            raise self.wrong(
                f"{name}={value!r} is not a list of different column names",
                f'Give a list: {{"{name}": ["id"]}}.',
            )
        return tuple(found)

    def partition_columns(self, dimensions: Sequence[str] | None) -> tuple[tuple[str, str], ...]:
        value = self.metadata.get("partition_expr")
        if dimensions is None:
            if value is not None:
                raise self.wrong(
                    "it has partition_expr, but no partitions",
                    "Give the asset a partitions_def, or name columns for the files: partition_by.",
                )
            return ()
        by_name = {"": value} if tuple(dimensions) == ("",) else value
        if not isinstance(by_name, Mapping):
            by_name = {}
        columns = {name: by_name.get(name) for name in dimensions}
        if set(by_name) - set(columns) or not all(
            isinstance(column, str) and column for column in columns.values()
        ):
            example = (
                '"day"'
                if tuple(dimensions) == ("",)
                else "{" + ", ".join(f'"{name}": "{name}"' for name in dimensions) + "}"
            )
            raise self.wrong(
                f"it has partitions, and partition_expr={value!r} does not name the column of each "
                "dimension",
                f'Name it: metadata={{"partition_expr": {example}}}.',
            )
        return tuple((name, cast(str, column)) for name, column in columns.items())
