"""A commit of ours: one log entry, put if absent, and what it means if another came first.

For row-level changes only, which delta-rs can't commit (it never writes deletion vectors).
Delta protocol: "Creation of New Log Entries", "Add File and Remove File".
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version as installed_version
from typing import Any

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Schema

from datazone_dagster.delta import guarded, in_one_line
from datazone_dagster.delta.store import TableStore
from datazone_dagster.delta.transaction_log import (
    VECTORS_ENABLED,
    VECTORS_FEATURE,
    LiveFile,
    Snapshot,
    entry_actions,
    entry_path,
    read_snapshot,
)
from datazone_dagster.errors import ConcurrentWriterError, StorageError

_KEPT_FEATURES = {
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
"""Writer features that a row-level commit of ours keeps to, given `why_not`'s other rules."""

_LEGACY_WRITER_VERSION = 4
"""Versions up to it ask for append-only, invariants, constraints, change data feed and
generated columns."""

_NOT_WITH = ("delta.appendOnly", "delta.enableChangeDataFeed", "delta.enableInCommitTimestamps")


class LostRaceError(Exception):
    """Other commits came first, none of which forbids to read the table again and retry."""


@dataclass(frozen=True, slots=True)
class FileActions:
    """The file actions of a commit.

    Args:
        adds: Values of add actions.
        removes: Logical files that go.
        written: Paths of new files in the table's folder, removed if the commit is lost.
        data_change: False if the commit only rearranges rows.
    """

    adds: Sequence[Mapping[str, Any]]
    removes: Sequence[LiveFile]
    written: Sequence[str] = ()
    data_change: bool = True


def why_not(snapshot: Snapshot) -> str | None:
    """Why a commit of ours would break a rule of this table; None: it would not."""
    features = snapshot.protocol.get("writerFeatures")
    version = snapshot.protocol.get("minWriterVersion", 1)
    unknown = sorted(set(features or ()) - _KEPT_FEATURES)
    configuration = snapshot.configuration
    columns = json.loads(snapshot.schema_text or '{"fields":[]}')["fields"]
    rules = {
        f"it asks for writer version {version}": features is None
        and version > _LEGACY_WRITER_VERSION,
        f"it asks for the writer features {', '.join(unknown)}": bool(unknown),
        **{
            f"it has {name} set": configuration.get(name, "").lower() == "true"
            for name in _NOT_WITH
        },
        "its commits go through a lock of delta-rs": snapshot.store.has_commit_lock,
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
) -> int:
    """Commit file actions on top of a snapshot, and give the new version.

    Args:
        snapshot: What they go by.
        actions: The files.
        operation: For the table's history, as `parameters` and `metrics`.
        parameters: Of the operation.
        metrics: Of the operation.
        properties: Application transactions of the commit.
        new_columns: Columns that the table gets with these files; see `can_come_with_rows`.

    Raises:
        LostRaceError: Another commit came first. Nothing of ours is in the table; the new
            files are removed again.
        ConcurrentWriterError: As above, and it did our own work or changed what the table is.
        StorageError: The store failed; reading the table again tells whether it happened.
    """
    wider = _with_columns(snapshot, new_columns) if new_columns else None
    values = [
        *([] if wider is None else [{"metaData": wider}]),
        *({"txn": {"appId": one.app_id, "version": one.version}} for one in _of(properties)),
        *({"remove": removal(file, actions.data_change)} for file in actions.removes),
        *({"add": dict(add)} for add in actions.adds),
    ]
    try:
        return _put(snapshot, values, operation=operation, parameters=parameters, metrics=metrics)
    except (LostRaceError, ConcurrentWriterError):
        snapshot.store.delete(actions.written)
        raise


def can_come_with_rows(fields: Iterable[pa.Field]) -> bool:
    """Whether columns of these types need nothing of a table but its schema.

    Times without a zone need the table feature `timestampNtz`, which delta-rs sees to.
    """
    return "timestamp_ntz" not in Schema.from_arrow(pa.schema(fields)).to_json()


def _with_columns(snapshot: Snapshot, columns: pa.Schema) -> dict[str, Any]:
    """The table's metadata with nullable columns at the end of its schema."""
    schema = json.loads(snapshot.schema_text)
    schema["fields"] += json.loads(Schema.from_arrow(columns).to_json())["fields"]
    return {**snapshot.metadata, "schemaString": json.dumps(schema)}


def set_properties(
    table: DeltaTable, storage_options: Mapping[str, str], properties: Mapping[str, str]
) -> None:
    """Set table properties; the handle is at the new version afterwards.

    delta-rs does it, except where the table has deletion vectors: there it would add the
    reader feature `variantType`, which shuts readers out for nothing.

    Raises:
        ConcurrentWriterError: Another commit came first; nothing was set.
        StorageError: The store failed.
    """
    with guarded(table.table_uri, "Setting table properties"):
        if VECTORS_FEATURE not in (table.protocol().writer_features or ()):
            table.alter.set_table_properties(dict(properties), raise_if_not_exists=False)
            return
        snapshot = read_snapshot(table, storage_options)
        try:
            _put_properties(snapshot, properties, [])
        except LostRaceError as lost:
            raise ConcurrentWriterError(
                f"Setting properties of {table.table_uri}: {lost}.",
                safe="Nothing was set; the other writer's work stands.",
                hint="This one gives way and goes on from the new state next time.",
            ) from lost
        table.update_incremental()


def enable_vectors(snapshot: Snapshot) -> Snapshot:
    """Let the table have deletion vectors, and give it as it is then: the same rows.

    Raises:
        LostRaceError: As `commit_files`.
        ConcurrentWriterError: As `commit_files`.
        StorageError: As `commit_files`.
    """
    old = snapshot.protocol
    readers, writers = set(old.get("readerFeatures") or ()), set(old.get("writerFeatures") or ())
    if old.get("writerFeatures") is None:
        # What version 2, which delta-rs makes, implies must be named when features are.
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
    snapshot: Snapshot, properties: Mapping[str, str], also: Sequence[Mapping[str, Any]]
) -> Snapshot:
    configuration = {**snapshot.configuration, **properties}
    metadata = {**snapshot.metadata, "configuration": configuration}
    version = _put(
        snapshot,
        [*also, {"metaData": metadata}],
        operation="SET TBLPROPERTIES",
        parameters={"properties": json.dumps(dict(properties))},
        metrics={},
    )
    return replace(snapshot, version=version, metadata=metadata)


def removal(file: LiveFile, data_change: bool = True) -> dict[str, Any]:
    """The remove action of a logical file, with the vector that is part of its identity."""
    kept = ("stats", "tags", "baseRowId", "defaultRowCommitVersion")
    return {
        "path": file.add["path"],
        "deletionTimestamp": int(time.time() * 1000),
        "dataChange": data_change,
        "extendedFileMetadata": True,
        "partitionValues": dict(file.partition_values),
        "size": file.size_bytes,
        **{name: file.add[name] for name in kept if file.add.get(name) is not None},
        **({"deletionVector": file.vector.action()} if file.vector else {}),
    }


def _of(properties: CommitProperties | None) -> Iterable[Any]:
    return (properties and properties.app_transactions) or ()


def _put(
    snapshot: Snapshot,
    values: Sequence[Mapping[str, Any]],
    *,
    operation: str,
    parameters: Mapping[str, str],
    metrics: Mapping[str, int],
) -> int:
    number, token = snapshot.version + 1, str(uuid.uuid4())
    info = {
        "timestamp": int(time.time() * 1000),
        "operation": operation,
        "operationParameters": dict(parameters),
        "readVersion": snapshot.version,
        "isolationLevel": "Serializable",
        "isBlindAppend": False,
        "operationMetrics": {name: str(value) for name, value in metrics.items()},
        "engineInfo": f"datazone-dagster/{installed_version('datazone-dagster')}",
        "txnId": token,
    }
    entry = "\n".join(
        json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        for value in ({"commitInfo": info}, *values)
    )
    try:
        won = snapshot.store.put_if_absent(entry_path(number), entry.encode())
        if won or _is_ours(snapshot.store, number, token):
            return number
        _give_way(snapshot, {action["txn"]["appId"] for action in values if "txn" in action})
    except OSError as error:
        raise StorageError(
            f"Committing version {number} to {snapshot.store.uri} failed: {in_one_line(error)}.",
            safe="Earlier commits are untouched; the next attempt reads the table again to see "
            "whether this one happened.",
            hint="Check the store: permissions, free space, reachability.",
        ) from error
    raise LostRaceError(f"version {number} of {snapshot.store.uri} is taken")


def _is_ours(store: TableStore, number: int, token: str) -> bool:
    """Whether the entry is there because an answer was lost and the put was tried again."""
    content = store.read(entry_path(number))
    return content is not None and any(
        action.get("commitInfo", {}).get("txnId") == token for action in entry_actions(content)
    )


def _give_way(snapshot: Snapshot, app_ids: set[str]) -> None:
    """Raise if one of the commits since the snapshot leaves us nothing to retry."""
    number = snapshot.version + 1
    while (content := snapshot.store.read(entry_path(number))) is not None:
        for action in entry_actions(content):
            if action.get("txn", {}).get("appId") in app_ids:
                what = "another run applied the same changes"
            elif "metaData" in action or "protocol" in action:
                what = "another writer changed the table's metadata"
            else:
                continue
            raise ConcurrentWriterError(
                f"Committing to {snapshot.store.uri}: {what} in version {number}.",
                safe="Nothing of this attempt is in the table; the other writer's work stands.",
                hint="This one gives way and goes on from the new state next time.",
            )
        number += 1
