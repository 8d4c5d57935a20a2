"""Removal of values of erased rows from a table's Delta log, which repeats them in several ways.

Bounds and partition values of files that are gone, predicates of old commits, and earlier values
of table properties may each hold a value of a row that is in no version any more. The entries and
checkpoints are replaced in place, one at a time, by the same actions without these. They are not
deleted: a writer that still holds an old version would otherwise put its commit into the hole, and
believe that it counts. Files of the newest version keep everything.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq

from datazone_dagster.delta.transaction_log import LOG, Snapshot, entry_actions

_SIDECARS = f"{LOG}/_sidecars"
_HINT = f"{LOG}/_last_checkpoint"
_NAME = re.compile(r"(?P<version>\d{20})\..*")
_ROWS_AT_A_TIME = 4096


@dataclass(frozen=True, slots=True)
class _Redaction:
    """Replacement of actions: see the module.

    Args:
        live: Paths of the newest version's files, as spelled in the log.
        partitions: Partition values of these files.
        stored: Paths of the files that exist and stay, decoded.
        metadata: Metadata of the newest version.
        properties: Table properties that older metadata lose.
    """

    live: frozenset[str]
    partitions: frozenset[tuple[tuple[str, str | None], ...]]
    stored: frozenset[str]
    metadata: Mapping[str, Any]
    properties: frozenset[str]

    def metadata_of(self, value: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the value of a metaData action; only the newest one keeps all properties."""
        configuration = dict(value.get("configuration") or {})
        if configuration == dict(self.metadata.get("configuration") or {}):
            return value
        kept = {name: text for name, text in configuration.items() if name not in self.properties}
        return {**value, "configuration": kept}

    def file(self, value: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the value of an add, remove or cdc action without values of erased rows."""
        if value["path"] in self.live:
            return value
        redacted = {name: kept for name, kept in value.items() if name not in _BOUNDS}
        partition = dict(value.get("partitionValues") or {})
        if self._is_hidden(value["path"], partition):
            redacted["path"] = _placeholder(value["path"])
            redacted["partitionValues"] = dict.fromkeys(partition)
        return redacted

    def _is_hidden(self, path: str, partition: Mapping[str, str | None]) -> bool:
        gone = path != _placeholder(path) and unquote(path) not in self.stored
        spelled = tuple(sorted(partition.items()))
        return bool(gone and partition and spelled not in self.partitions)


_BOUNDS = ("stats", "stats_parsed", "partitionValues_parsed")
_PLACEHOLDER = re.compile(r"erased-[0-9a-f]{32}\.parquet")


def redact_log(
    snapshot: Snapshot, stored: Collection[str], properties: Collection[str] = ()
) -> int:
    """Remove values of erased rows from the log up to this version; it is safe to repeat.

    Older versions can be read as before, as far as their files exist.

    Args:
        snapshot: Newest version of the table.
        stored: Paths of all data files in the table's folder that stay, relative to it.
        properties: Names of table properties whose earlier values may have a value of a row.

    Returns:
        Number of files of the log that were replaced or deleted.

    Raises:
        OSError: The store failed; some files are replaced, and the log is readable.
    """
    redaction = _Redaction(
        live=frozenset(file.add["path"] for file in snapshot.files),
        partitions=frozenset(
            tuple(sorted(file.partition_values.items())) for file in snapshot.files
        ),
        stored=frozenset(stored),
        metadata=snapshot.metadata,
        properties=frozenset(properties),
    )
    store, changed = snapshot.store, 0
    for path in _log_files(snapshot):
        if path.endswith(".crc"):  # optional, and may repeat the bounds of all files
            store.delete([path])
            changed += 1
            continue
        content = store.read(path)
        if content is None:
            continue
        parquet = path.endswith(".parquet")
        redacted = (_parquet if parquet else _entry)(content, redaction)
        if redacted != content:
            store.replace(path, redacted)
            _correct_hint(snapshot, path, len(redacted))
            changed += 1
    return changed


def _log_files(snapshot: Snapshot) -> Iterator[str]:
    """Yield the files of the log up to the version; newer ones may name files we do not know."""
    names = snapshot.store.names(LOG)
    newest = 0
    for name in sorted(names):
        match = _NAME.fullmatch(name)
        if match is None:
            continue
        newest = max(newest, int(match["version"]))
        if int(match["version"]) <= snapshot.version and not name.endswith(".tmp"):
            yield f"{LOG}/{name}"
    if newest <= snapshot.version:
        for name in snapshot.store.names(_SIDECARS):
            yield f"{_SIDECARS}/{name}"


def _entry(content: bytes, redaction: _Redaction) -> bytes:
    """Return an entry, or a checkpoint in JSON; the same bytes if there is nothing to remove."""
    actions = entry_actions(content)
    redacted = [_action(action, redaction) for action in actions]
    if redacted == actions:
        return content
    return "\n".join(
        json.dumps(action, ensure_ascii=False, separators=(",", ":")) for action in redacted
    ).encode()


def _action(action: dict[str, Any], redaction: _Redaction) -> dict[str, Any]:
    redacted = dict(action)
    for kind in ("add", "remove", "cdc"):
        if action.get(kind) is not None:
            redacted[kind] = redaction.file(action[kind])
    if action.get("metaData") is not None:
        redacted["metaData"] = redaction.metadata_of(action["metaData"])
    info = action.get("commitInfo")
    if info is not None and isinstance(info.get("operationParameters"), dict):
        parameters = {
            name: value
            for name, value in info["operationParameters"].items()
            if not re.search("predicate|where|propert", name.lower())
        }
        redacted["commitInfo"] = {**info, "operationParameters": parameters}
    return redacted


def _parquet(content: bytes, redaction: _Redaction) -> bytes:
    """Return a checkpoint or a sidecar; the same bytes if there is nothing to remove."""
    parquet = pq.ParquetFile(io.BytesIO(content))
    schema = parquet.schema_arrow.remove_metadata()
    sink, changed = io.BytesIO(), False
    with pq.ParquetWriter(sink, schema, store_schema=False) as writer:
        for batch in parquet.iter_batches(_ROWS_AT_A_TIME):
            rows = batch.to_pylist()
            for row in rows:
                for kind in ("add", "remove"):
                    if row.get(kind) is not None:
                        redacted = redaction.file(row[kind])
                        changed |= _differs(row[kind], redacted)
                        row[kind] = redacted
                if row.get("metaData") is not None:
                    redacted = redaction.metadata_of(row["metaData"])
                    changed |= redacted is not row["metaData"] and dict(
                        redacted["configuration"]
                    ) != dict(row["metaData"]["configuration"])
                    row["metaData"] = redacted
            writer.write_batch(pa.RecordBatch.from_pylist(rows, schema))
    return sink.getvalue() if changed else content


def _differs(value: Mapping[str, Any], redacted: Mapping[str, Any]) -> bool:
    return any(found is not None and redacted.get(name) != found for name, found in value.items())


def _placeholder(path: str) -> str:
    """Return the path that replaces one with an erased partition value, always the same."""
    if _PLACEHOLDER.fullmatch(path):
        return path
    return f"erased-{hashlib.sha256(path.encode()).hexdigest()[:32]}.parquet"


def _correct_hint(snapshot: Snapshot, path: str, size_bytes: int) -> None:
    """Correct the size of a checkpoint in the hint that names the newest one."""
    content = snapshot.store.read(_HINT)
    hint = {} if content is None else json.loads(content)
    name = f"{LOG}/{hint.get('version', 0):020d}.checkpoint.parquet"
    if path == name and "sizeInBytes" in hint:
        changed = json.dumps({**hint, "sizeInBytes": size_bytes}, separators=(",", ":"))
        snapshot.store.replace(_HINT, changed.encode())
