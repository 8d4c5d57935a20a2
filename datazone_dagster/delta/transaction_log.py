"""Live files of a table with their deletion vectors, read from the Delta log.

delta-rs exposes neither the vectors of files nor the raw actions, and a commit of ours must
repeat both verbatim. The log is read as a checkpoint plus the entries after it, by the protocol's
"Action Reconciliation": the last action on (path, vector) counts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, cast
from urllib.parse import unquote, urlsplit

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable
from pyroaring import BitMap64

from datazone_dagster.delta import in_one_line, vectors
from datazone_dagster.delta.store import TableStore
from datazone_dagster.delta.vectors import Vector, VectorError
from datazone_dagster.errors import StorageError

LOG = "_delta_log"
VECTORS_FEATURE = "deletionVectors"
VECTORS_ENABLED = "delta.enableDeletionVectors"

Action = Mapping[str, Any]
"""Value of one action as stored in the log."""

_CHECKPOINT = re.compile(
    r"(?P<version>\d{20})\.checkpoint(\.(?P<part>\d{10})\.(?P<parts>\d{10})|\.[0-9a-f-]{36})?"
    r"\.(parquet|json)"
)
_WANTED = ("add", "protocol", "metaData", "txn", "sidecar")


class _Stats(msgspec.Struct):
    numRecords: int | None = None  # noqa: N815  # the protocol's names
    minValues: dict[str, Any] | None = None  # noqa: N815
    maxValues: dict[str, Any] | None = None  # noqa: N815


_STATS = msgspec.json.Decoder(_Stats)


@dataclass(frozen=True)
class LiveFile:
    """One logical file of a table: a data file and its deleted rows.

    Args:
        add: Add action of the file.
        vector: Deletion vector of the file; None if no row is deleted.
    """

    add: Action
    vector: Vector | None

    @cached_property
    def path(self) -> str:
        """Path relative to the table, as in the store (the log percent-encodes it)."""
        return unquote(self.add["path"])

    @property
    def identity(self) -> tuple[str, str | None]:
        """Path and vector id: the identity of a logical file in the log."""
        return self.add["path"], self.vector.unique_id if self.vector else None

    @property
    def size_bytes(self) -> int:
        """Size of the data file."""
        return cast(int, self.add["size"])

    @property
    def partition_values(self) -> Mapping[str, str | None]:
        """Partition values by column, as spelled in the log."""
        return self.add.get("partitionValues") or {}

    @property
    def num_records(self) -> int | None:
        """Rows of the data file, deleted ones included; None if the log does not say."""
        return self._stats.numRecords

    @property
    def deleted(self) -> int:
        """Number of deleted rows."""
        return self.vector.cardinality if self.vector else 0

    @property
    def minimum(self) -> Mapping[str, Any]:
        """Lower bounds by column, as JSON values."""
        return self._stats.minValues or {}

    @property
    def maximum(self) -> Mapping[str, Any]:
        """Upper bounds by column, as JSON values."""
        return self._stats.maxValues or {}

    @cached_property
    def _stats(self) -> _Stats:
        text = self.add.get("stats")
        return _STATS.decode(text) if text else _Stats()


@dataclass(frozen=True)
class Snapshot:
    """A table at one version."""

    store: TableStore
    version: int
    protocol: Action
    metadata: Action
    transactions: Mapping[str, int]
    files: tuple[LiveFile, ...]
    checkpoint_version: int | None = field(default=None)
    """Version of the checkpoint read; opening the table costs the entries since then."""

    @property
    def configuration(self) -> Mapping[str, str]:
        """The table properties."""
        return self.metadata.get("configuration") or {}

    @property
    def schema_text(self) -> str:
        """The schema as stored in the log, in JSON."""
        return cast(str, self.metadata.get("schemaString") or "")

    @property
    def partition_columns(self) -> tuple[str, ...]:
        """The partition columns, in the order of the table."""
        return tuple(self.metadata.get("partitionColumns") or ())

    @property
    def writes_vectors(self) -> bool:
        """Whether new vectors may be written."""
        features = self.protocol.get("writerFeatures") or ()
        return (
            VECTORS_FEATURE in features
            and self.configuration.get(VECTORS_ENABLED, "").lower() == "true"
        )

    @property
    def live_rows(self) -> int:
        """Rows of the table; for files without statistics, counted from their footers."""
        return sum(self.rows_in(file) - file.deleted for file in self.files)

    @property
    def deleted_rows(self) -> int:
        """Deleted rows that are still in a data file."""
        return sum(file.deleted for file in self.files)

    def rows_in(self, file: LiveFile) -> int:
        """Return the number of rows of a data file, deleted ones included."""
        if file.num_records is not None:
            return file.num_records
        with self.store.open(file.path) as handle:
            return int(pq.read_metadata(handle).num_rows)

    def deleted_in(self, file: LiveFile) -> BitMap64:
        """Return the positions of the deleted rows in a data file.

        Raises:
            StorageError: The file's vector is missing or damaged.
        """
        if file.vector is None:
            return BitMap64()
        try:
            if file.vector.storage_type == vectors.INLINE:
                return vectors.inline(file.vector)
            return vectors.in_file(self._vector_file(file.vector), file.vector)
        except VectorError as error:
            raise StorageError(
                f"The deletion vector of {file.path} in {self.store.uri} can't be used: {error}.",
                safe="Nothing was written.",
                hint="Restore the table to a version before the damage, or restore the file from "
                "a backup.",
            ) from error

    def _vector_file(self, vector: Vector) -> bytes:
        path = vector.path
        if urlsplit(path).scheme:
            root = self.store.uri.rstrip("/") + "/"
            if not path.startswith(root):
                raise VectorError(f"it is outside of the table, at {path}")
            path = path[len(root) :]
        content = self.store.read(path)
        if content is None:
            raise VectorError(f"{path} is missing")
        return content


def read_snapshot(table: DeltaTable, storage_options: Mapping[str, str]) -> Snapshot:
    """Read the table at the version of this handle.

    Raises:
        StorageError: The log can't be read, or uses an unsupported feature.
    """
    store = TableStore(table.table_uri, storage_options)
    version = table.version()
    try:
        checkpoint = _last_checkpoint(store, version)
        state = _State()
        if checkpoint is not None:
            for action in _checkpoint_actions(store, checkpoint):
                state.take(action)
        after = -1 if checkpoint is None else checkpoint.version
        numbers = range(after + 1, version + 1)
        contents = store.read_all(entry_path(number) for number in numbers)
        for number, content in zip(numbers, contents, strict=True):
            if content is None:
                raise _unreadable(store, f"entry {number} is missing")
            state.take_entry(entry_actions(content))
    except (OSError, pa.ArrowInvalid, json.JSONDecodeError) as error:
        raise _unreadable(store, in_one_line(error)) from error
    return state.snapshot(store, version, None if checkpoint is None else checkpoint.version)


def entry_path(version: int) -> str:
    """Return the path of a version's log entry, relative to the table."""
    return f"{LOG}/{version:020d}.json"


def entry_actions(content: bytes) -> list[dict[str, Any]]:
    """Return the actions of a log entry, each a mapping from its kind to its value."""
    return [json.loads(line) for line in content.splitlines() if line.strip()]


def _unreadable(store: TableStore, reason: str) -> StorageError:
    return StorageError(
        f"The Delta log of {store.uri} can't be read: {reason}.",
        safe="Nothing was written.",
        hint="Check the store; if the log is damaged, restore it from a backup.",
    )


class _State:
    """Fold over actions. The order within one entry is meaningless: removes are applied first."""

    def __init__(self) -> None:
        self._files: dict[tuple[str, str | None], LiveFile] = {}
        self._transactions: dict[str, int] = {}
        self._protocol: Action = {}
        self._metadata: Action = {}

    def take_entry(self, actions: list[dict[str, Any]]) -> None:
        for action in actions:
            remove = action.get("remove")
            if remove is not None:
                self._files.pop(_live(remove).identity, None)
        for action in actions:
            self.take(action)

    def take(self, action: Action) -> None:
        if action.get("add") is not None:
            file = _live(action["add"])
            self._files[file.identity] = file
        elif action.get("txn") is not None:
            self._transactions[action["txn"]["appId"]] = action["txn"]["version"]
        elif action.get("protocol") is not None:
            self._protocol = action["protocol"]
        elif action.get("metaData") is not None:
            self._metadata = action["metaData"]

    def snapshot(self, store: TableStore, version: int, checkpoint_version: int | None) -> Snapshot:
        return Snapshot(
            store,
            version,
            self._protocol,
            self._metadata,
            self._transactions,
            tuple(self._files.values()),
            checkpoint_version,
        )


def _live(action: Action) -> LiveFile:
    vector = action.get("deletionVector")
    return LiveFile(action, None if vector is None else Vector.of_action(vector))


@dataclass(frozen=True)
class _Checkpoint:
    version: int
    names: tuple[str, ...]


def _last_checkpoint(store: TableStore, version: int) -> _Checkpoint | None:
    """Return the newest checkpoint up to `version`."""
    hint = store.read(f"{LOG}/_last_checkpoint")
    if hint is not None:
        last = json.loads(hint)
        if last["version"] <= version and not last.get("parts") and "v2Checkpoint" not in last:
            name = f"{last['version']:020d}.checkpoint.parquet"
            if store.filesystem.get_file_info(f"{LOG}/{name}").is_file:
                return _Checkpoint(last["version"], (name,))
    elif version == 0 or store.filesystem.get_file_info(entry_path(0)).is_file:
        return None
    complete = _complete_checkpoints(store.names(LOG))
    return max(
        (one for one in complete if one.version <= version),
        key=lambda one: one.version,
        default=None,
    )


def _complete_checkpoints(names: Iterable[str]) -> list[_Checkpoint]:
    parts: dict[tuple[int, int], list[str]] = {}
    single_files = []
    for name in sorted(names):
        match = _CHECKPOINT.fullmatch(name)
        if match is None:
            continue
        version = int(match["version"])
        if match["parts"] is None:
            single_files.append(_Checkpoint(version, (name,)))
        else:
            parts.setdefault((version, int(match["parts"])), []).append(name)
    return single_files + [
        _Checkpoint(version, tuple(found))
        for (version, count), found in parts.items()
        if len(found) == count
    ]


def removals(snapshot: Snapshot) -> Iterator[Action]:
    """Yield the remove actions still in the log: they name the files that old versions need."""
    store = snapshot.store
    checkpoint = _last_checkpoint(store, snapshot.version)
    if checkpoint is not None:
        for action in _checkpoint_actions(store, checkpoint, ("remove", "sidecar")):
            if action.get("remove") is not None:
                yield action["remove"]
    after = -1 if checkpoint is None else checkpoint.version
    for number in range(after + 1, snapshot.version + 1):
        for action in entry_actions(store.read(entry_path(number)) or b""):
            if action.get("remove") is not None:
                yield action["remove"]


def _checkpoint_actions(
    store: TableStore, checkpoint: _Checkpoint, wanted: tuple[str, ...] = _WANTED
) -> Iterator[Action]:
    for name in checkpoint.names:
        if name.endswith(".json"):
            actions: Iterable[Action] = entry_actions(store.read(f"{LOG}/{name}") or b"")
        else:
            actions = _parquet_actions(store, f"{LOG}/{name}", wanted)
        for action in actions:
            if action.get("sidecar") is not None:
                sidecar = action["sidecar"]["path"]
                path = sidecar if "/" in sidecar else f"{LOG}/_sidecars/{sidecar}"
                yield from _parquet_actions(store, path, wanted)
            else:
                yield action


_MAPS = {
    "add": ("partitionValues", "tags"),
    "remove": ("partitionValues", "tags"),
    "metaData": ("configuration",),
    "protocol": (),
    "txn": (),
    "sidecar": (),
}


def _parquet_actions(store: TableStore, path: str, kinds: tuple[str, ...]) -> Iterator[Action]:
    with store.open(path) as handle:
        parquet = pq.ParquetFile(handle)
        wanted = [name for name in kinds if name in parquet.schema_arrow.names]
        for batch in parquet.iter_batches(columns=wanted):
            for name in wanted:
                for value in batch.column(name).drop_null().to_pylist():
                    yield {name: _as_in_json(name, value)}


def _as_in_json(name: str, value: dict[str, Any]) -> dict[str, Any]:
    """Return an action as it is in JSON: absent fields left out, lists of pairs as mappings."""
    found = {key: content for key, content in value.items() if content is not None}
    for key in _MAPS[name]:
        if key in found:
            found[key] = dict(found[key])
    if name == "metaData" and "format" in found:
        found["format"] = {**found["format"], "options": dict(found["format"]["options"] or ())}
    return {key: content for key, content in found.items() if not key.endswith("_parsed")}
