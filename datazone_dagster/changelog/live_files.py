"""Data files of the change log, sorted by batch, as the kept state of its table lists them.

A tick changes one file of thousands: what is known of the others is taken over.
"""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any
from weakref import WeakKeyDictionary

from datazone_dagster.changelog import ranges
from datazone_dagster.changelog.key_slots_note import slot_bits_in
from datazone_dagster.changelog.numbering import number_in
from datazone_dagster.delta.live_file import LiveFile
from datazone_dagster.delta.table_state import KeptTable
from datazone_dagster.delta.transaction_log import Snapshot
from datazone_dagster.model.column_names import Log
from datazone_dagster.model.table_file import DataFile

_sorted: WeakKeyDictionary[KeptTable, tuple[Any, list[DataFile]]] = WeakKeyDictionary()
"""Files of each change log, with the mapping of the snapshot that they were taken from."""


def files_by_batches(table: KeptTable, snapshot: Snapshot) -> list[DataFile]:
    """Return the live files of a change log in the order of their batches. Not to be changed."""
    live, known = snapshot.by_identity, _sorted.get(table)
    if known is not None and known[0] is live:
        return known[1]
    before: dict[str, DataFile] = {} if known is None else {one.path: one for one in known[1]}
    files = ranges.by_batches(
        before.get(file.add["path"]) or _data_file(file) for file in live.values()
    )
    _sorted[table] = (live, files)
    return files


def _data_file(file: LiveFile) -> DataFile:
    number = number_in(file.add)
    return DataFile(
        path=file.add["path"],
        size_bytes=file.size_bytes,
        written_at=datetime.fromtimestamp(file.add["modificationTime"] / 1000, timezone.utc),
        num_records=file.num_records or 0,
        minimum=_typed(file.minimum),
        maximum=_typed(file.maximum),
        partition={
            name: None if value is None else int(value)
            for name, value in file.partition_values.items()
        },
        slots=slot_bits_in(file.add),
        constants={} if number is None else {Log.BATCH: number},
    )


def _typed(bounds: Any) -> dict[str, Any]:
    """Return bounds as Python values; the log spells times as texts."""
    found = {name: value for name, value in bounds.items() if value is not None}
    if Log.EVENT_TIME in found:
        text = found[Log.EVENT_TIME].replace("Z", "+00:00")
        found[Log.EVENT_TIME] = datetime.fromisoformat(text)
    return found
