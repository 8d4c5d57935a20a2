"""Row-level commits: one log entry, put if absent, and the handling of a lost commit race.

Only for row-level changes, which delta-rs can't commit (it never writes deletion vectors).
Delta protocol: "Creation of New Log Entries", "Add File and Remove File".
"""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
from deltalake import CommitProperties, Schema, Transaction

from datazone_dagster.delta import LostRaceError, guarded
from datazone_dagster.delta.put_entry import put_entry
from datazone_dagster.delta.rebase import ATTEMPTS, Independent, rebased
from datazone_dagster.delta.table import Table
from datazone_dagster.delta.transaction_log import (
    VECTORS_ENABLED,
    VECTORS_FEATURE,
    LiveFile,
    Snapshot,
)
from datazone_dagster.errors import ConcurrentWriterError

__all__ = [
    "FileActions",
    "LostRaceError",
    "can_come_with_rows",
    "commit_files",
    "enable_vectors",
    "removal",
    "set_properties",
    "why_not",
]

_SUPPORTED_FEATURES = {
    "appendOnly",
    "changeDataFeed",
    "checkConstraints",
    "deletionVectors",
    "domainMetadata",
    "generatedColumns",
    "invariants",
    "timestampNtz",
    "v2Checkpoint",
    "vacuumProtocolCheck",
    "variantType",
}
"""Writer features that our row-level commits comply with, given the other rules of `why_not`."""

_LEGACY_WRITER_VERSION = 4
"""Writer versions up to this one require append-only, invariants, constraints, change data feed
and generated columns."""

_EXCLUDED_PROPERTIES = (
    "delta.appendOnly",
    "delta.enableChangeDataFeed",
    "delta.enableInCommitTimestamps",
)


@dataclass(frozen=True, slots=True)
class FileActions:
    """The file actions of a commit.

    Args:
        adds: Values of add actions.
        removes: Logical files to remove.
        written: Paths of new files in the table's folder, deleted if the commit race is lost.
        data_change: False if the commit only rearranges rows.
    """

    adds: Sequence[Mapping[str, Any]]
    removes: Sequence[LiveFile]
    written: Sequence[str] = ()
    data_change: bool = True


def why_not(snapshot: Snapshot) -> str | None:
    """Return the rule of this table that a commit of ours would break; None if there is none."""
    features = snapshot.protocol.get("writerFeatures")
    version = snapshot.protocol.get("minWriterVersion", 1)
    unknown = sorted(set(features or ()) - _SUPPORTED_FEATURES)
    configuration = snapshot.configuration
    columns = json.loads(snapshot.schema_text or '{"fields":[]}')["fields"]
    rules = {
        f"it asks for writer version {version}": features is None
        and version > _LEGACY_WRITER_VERSION,
        f"it asks for the writer features {', '.join(unknown)}": bool(unknown),
        **{
            f"it has {name} set": configuration.get(name, "").lower() == "true"
            for name in _EXCLUDED_PROPERTIES
        },
        "it has CHECK constraints": any(
            name.startswith("delta.constraints.") for name in configuration
        ),
        "it has column invariants": "delta.invariants" in snapshot.schema_text,
        "it has generated columns": any(
            "delta.generationExpression" in field.get("metadata", {}) for field in columns
        ),
        "it is partitioned by binary values": any(
            field["type"] == "binary" and field["name"] in snapshot.partition_columns
            for field in columns
        ),
    }
    return next((rule for rule, holds in rules.items() if holds), None)


def commit_files(
    snapshot: Snapshot,
    actions: FileActions,
    *,
    operation: str,
    parameters: Mapping[str, str],
    metrics: Mapping[str, int],
    properties: CommitProperties | None = None,
    new_columns: pa.Schema | None = None,
    new_schema: pa.Schema | None = None,
    table_properties: Mapping[str, str] | None = None,
    note: Mapping[str, Any] | None = None,
    independent: Independent | None = None,
) -> Snapshot:
    """Commit file actions on top of a snapshot, and return the table after it.

    Args:
        snapshot: Version that the actions are based on.
        actions: File actions to commit.
        operation: Name of the operation in the table's history.
        parameters: Parameters of the operation in the history.
        metrics: Metrics of the operation in the history.
        properties: Application transactions of the commit.
        new_columns: Columns that the table gets with these files; see `can_come_with_rows`.
        new_schema: Schema that the table gets instead of its own; no file of before may stay.
        table_properties: Table properties that the commit sets.
        note: Our own note, stored in the commit info; see `Snapshot.notes`.
        independent: Which writers change other rows: the commit may come after theirs. None:
            it is valid on this version only.

    Raises:
        LostRaceError: Another commit came first. Nothing of this commit is in the table; the new
            files are deleted again.
        ConcurrentWriterError: Another commit came first, and it did the same work or changed the
            table's metadata or protocol; or the table is not the one of the snapshot any more.
        StorageError: The store failed; reading the table again shows whether the commit happened.
    """
    metadata = _changed_metadata(snapshot, new_columns or pa.schema([]), table_properties or {})
    if new_schema is not None:
        metadata["schemaString"] = Schema.from_arrow(new_schema).to_json()
    values = [
        *([] if metadata == snapshot.metadata else [{"metaData": metadata}]),
        *({"txn": _transaction(one)} for one in _transactions(properties)),
        *({"remove": removal(file, actions.data_change)} for file in actions.removes),
        *({"add": dict(add)} for add in actions.adds),
    ]
    facts = {"operation": operation, "parameters": parameters, "metrics": metrics, "note": note}
    try:
        return _put(snapshot, values, facts, actions, independent)
    except (LostRaceError, ConcurrentWriterError):
        snapshot.store.delete(actions.written)
        raise


def _put(
    snapshot: Snapshot,
    values: Sequence[Mapping[str, Any]],
    facts: Mapping[str, Any],
    actions: FileActions,
    independent: Independent | None,
) -> Snapshot:
    """Put the entry, after those of independent writers."""
    removes = {file.identity for file in actions.removes}
    for _ in range(ATTEMPTS):
        try:
            return put_entry(snapshot, values, **facts)
        except LostRaceError:
            moved = None if independent is None else rebased(snapshot, removes, independent)
            if moved is None:
                raise
            snapshot = moved
    raise LostRaceError(f"others were faster {ATTEMPTS} times at {snapshot.store.uri}")


def can_come_with_rows(fields: Iterable[pa.Field]) -> bool:
    """Return whether columns of these types change nothing in a table but its schema.

    Timestamps without a zone need the table feature `timestampNtz`, which delta-rs adds.
    """
    return "timestamp_ntz" not in Schema.from_arrow(pa.schema(fields)).to_json()


def _changed_metadata(
    snapshot: Snapshot, columns: pa.Schema, properties: Mapping[str, str]
) -> dict[str, Any]:
    """Return the table's metadata with nullable columns appended and properties set."""
    changed = dict(snapshot.metadata)
    if len(columns):
        schema = json.loads(snapshot.schema_text)
        schema["fields"] += json.loads(Schema.from_arrow(columns).to_json())["fields"]
        changed["schemaString"] = json.dumps(schema)
    if properties:
        changed["configuration"] = {**snapshot.configuration, **properties}
    return changed


def set_properties(
    table: Table, properties: Mapping[str, str], *, outdated: Collection[str] = ()
) -> None:
    """Set table properties; the table is at the new version afterwards.

    delta-rs commits them only where our own commits are not possible, and where the table has
    no deletion vectors: there it would add the reader feature `variantType`, which locks out
    readers for no reason. Nor can it remove any. Such a commit may come after others.

    Args:
        table: The table.
        properties: Properties to set.
        outdated: Properties that nobody reads: removed, where our own commits are possible.

    Raises:
        ConcurrentWriterError: Another commit came first; nothing was set.
        StorageError: The store failed.
    """
    snapshot = table.at
    with guarded(table.uri, "Setting table properties"):
        has_vectors = VECTORS_FEATURE in (snapshot.protocol.get("writerFeatures") or ())
        if not has_vectors and why_not(snapshot) is not None:
            with table.by_delta_rs() as handle:
                handle.alter.set_table_properties(dict(properties), raise_if_not_exists=False)
            return
        kept = {
            name: value for name, value in snapshot.configuration.items() if name not in outdated
        }
        snapshot = replace(snapshot, metadata={**snapshot.metadata, "configuration": kept})
        try:
            table.move_to(_put_properties(snapshot, properties, []))
        except LostRaceError as lost:
            raise ConcurrentWriterError(
                f"Setting properties of {table.uri}: {lost}.",
                safe="Nothing was set; the other writer's commit is intact.",
                hint="This attempt lost the commit race; the next one continues from the new "
                "state.",
            ) from lost


def enable_vectors(snapshot: Snapshot) -> Snapshot:
    """Enable deletion vectors on the table, and return its new version, with the same rows.

    Raises:
        LostRaceError: As in `commit_files`.
        ConcurrentWriterError: As in `commit_files`.
        StorageError: As in `commit_files`.
    """
    old = snapshot.protocol
    readers, writers = set(old.get("readerFeatures") or ()), set(old.get("writerFeatures") or ())
    if old.get("writerFeatures") is None:
        # Once features are listed, those implied by version 2 (delta-rs's) must be listed as well.
        writers |= {"appendOnly", "invariants"}
        if old.get("minWriterVersion", 1) > 2:
            writers |= {"checkConstraints"}
        if old.get("minWriterVersion", 1) > 3:
            writers |= {"changeDataFeed", "generatedColumns"}
    protocol = {
        "minReaderVersion": 3,
        "minWriterVersion": 7,
        "readerFeatures": sorted(readers | {VECTORS_FEATURE}),
        "writerFeatures": sorted(writers | {VECTORS_FEATURE}),
    }
    changed = replace(snapshot, protocol=protocol)
    return _put_properties(changed, {VECTORS_ENABLED: "true"}, [{"protocol": protocol}])


def _put_properties(
    snapshot: Snapshot, properties: Mapping[str, str], other_actions: Sequence[Mapping[str, Any]]
) -> Snapshot:
    metadata = _changed_metadata(snapshot, pa.schema([]), properties)
    return put_entry(
        snapshot,
        [*other_actions, {"metaData": metadata}],
        operation="SET TBLPROPERTIES",
        parameters={"properties": json.dumps(dict(properties))},
        metrics={},
    )


def removal(file: LiveFile, data_change: bool = True) -> dict[str, Any]:
    """Return the remove action of a logical file, with the vector that is part of its identity."""
    copied = ("stats", "tags", "baseRowId", "defaultRowCommitVersion")
    return {
        "path": file.add["path"],
        "deletionTimestamp": int(time.time() * 1000),
        "dataChange": data_change,
        "extendedFileMetadata": True,
        "partitionValues": dict(file.partition_values),
        "size": file.size_bytes,
        **{name: file.add[name] for name in copied if file.add.get(name) is not None},
        **({"deletionVector": file.vector.action()} if file.vector else {}),
    }


def _transactions(properties: CommitProperties | None) -> Iterable[Any]:
    return (properties and properties.app_transactions) or ()


def _transaction(one: Transaction) -> dict[str, Any]:
    """Return the action of an application transaction; with a time, a checkpoint may expire it."""
    found: dict[str, Any] = {"appId": one.app_id, "version": one.version}
    if one.last_updated is not None:
        found["lastUpdated"] = one.last_updated
    return found
