"""Entries and checkpoints of a Delta log: their paths and their actions.

A checkpoint is one file, several parts, or (V2) a list of sidecars; all are read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow.parquet as pq

from datazone_dagster.delta.store import TableStore

LOG = "_delta_log"

Action = Mapping[str, Any]
"""Value of one action as stored in the log."""

ENTRY = re.compile(r"\d{20}\.json")
_CHECKPOINT = re.compile(
    r"(?P<version>\d{20})\.checkpoint(\.(?P<part>\d{10})\.(?P<parts>\d{10})|\.[0-9a-f-]{36})?"
    r"\.(parquet|json)"
)
_WANTED = ("add", "protocol", "metaData", "txn", "domainMetadata", "sidecar")


def entry_path(version: int) -> str:
    """Return the path of a version's log entry, relative to the table."""
    return f"{LOG}/{version:020d}.json"


def entry_actions(content: bytes) -> list[dict[str, Any]]:
    """Return the actions of a log entry, each a mapping from its kind to its value.

    Raises:
        ValueError: The entry is damaged. An empty one is, too: no commit is, but what a loss of
            power leaves of one, and to go on without its changes would lose them.
    """
    actions = [json.loads(line) for line in content.splitlines() if line.strip(b"\0 \t")]
    if not actions:
        raise ValueError(
            "an entry of the log is empty, as a loss of power or a full disk may leave it"
        )
    return actions


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint: its version, and the names of its files in the log's folder."""

    version: int
    names: tuple[str, ...]


def hinted_version(store: TableStore) -> int | None:
    """Return the version of the one-file checkpoint that the log's hint names; None: no such."""
    hint = store.read(f"{LOG}/_last_checkpoint")
    last = {} if hint is None else json.loads(hint)
    if last.get("parts") or "v2Checkpoint" in last:
        return None
    version: int | None = last.get("version")
    return version


def hinted_checkpoint(store: TableStore) -> Checkpoint | None:
    """Return the checkpoint that the log's hint names, if it is one file and is there."""
    version = hinted_version(store)
    if version is None:
        return None
    name = f"{version:020d}.checkpoint.parquet"
    if store.identity_of(f"{LOG}/{name}") is None:
        return None
    return Checkpoint(version, (name,))


def last_checkpoint(store: TableStore, version: int) -> Checkpoint | None:
    """Return the newest checkpoint up to `version`."""
    hinted = hinted_checkpoint(store)
    if hinted is not None and hinted.version <= version:
        return hinted
    if hinted is None and (version == 0 or store.identity_of(entry_path(0)) is not None):
        return None
    complete = complete_checkpoints(store.names(LOG))
    return max(
        (one for one in complete if one.version <= version),
        key=lambda one: one.version,
        default=None,
    )


def complete_checkpoints(names: Iterable[str]) -> list[Checkpoint]:
    """Return the checkpoints all of whose parts are among these names of the log's folder."""
    parts: dict[tuple[int, int], list[str]] = {}
    single_files = []
    for name in sorted(names):
        match = _CHECKPOINT.fullmatch(name)
        if match is None:
            continue
        version = int(match["version"])
        if match["parts"] is None:
            single_files.append(Checkpoint(version, (name,)))
        else:
            parts.setdefault((version, int(match["parts"])), []).append(name)
    return single_files + [
        Checkpoint(version, tuple(found))
        for (version, count), found in parts.items()
        if len(found) == count
    ]


def checkpoint_actions(
    store: TableStore, checkpoint: Checkpoint, wanted: tuple[str, ...] = _WANTED
) -> Iterator[Action]:
    """Yield the actions of a checkpoint of the wanted kinds, as they are in JSON."""
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
    "domainMetadata": (),
    "sidecar": (),
}


def _parquet_actions(store: TableStore, path: str, kinds: tuple[str, ...]) -> Iterator[Action]:
    with store.open_small(path) as handle:
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
