"""Delta table of orders with hash-like keys, created once and cached in the temporary folder."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from deltalake import WriterProperties, write_deltalake

from datazone_dagster.delta import create_table
from datazone_dagster.model.column_names import KEY, VERSION
from datazone_dagster.model.version import row_version

Ids = np.ndarray[Any, np.dtype[np.uint64]]

DATASET = "orders"
_FORM = 1
"""Number of the table's form; a new number creates the table again."""

_HEX = np.frombuffer(b"0123456789abcdef", np.uint8)
_ROWS_AT_A_TIME = 250_000
_FIRST_SEQUENCE = 4 * 10**18


def cached(rows: int) -> Path:
    """Return the lakehouse with a table of this many rows; about 50 bytes a row on disk."""
    folder = Path(tempfile.gettempdir()) / "datazone-benchmarks" / f"merge-{_FORM}-{rows}"
    if not (folder / "done").exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        table = create_table(str(folder / DATASET), {}, "dataset", _schema())
        write_deltalake(
            table,
            pa.RecordBatchReader.from_batches(_schema(), _batches(rows)),
            mode="append",
            writer_properties=WriterProperties(compression="ZSTD", compression_level=1),
        )
        (folder / "done").touch()
    return folder


def copied(folder: Path) -> Path:
    """Return a copy to write to. Data files are hard links: nothing ever changes a data file."""
    to = Path(tempfile.mkdtemp(prefix="merge-", dir=folder.parent))
    shutil.copytree(folder, to, dirs_exist_ok=True, copy_function=os.link)
    return to


def scattered(rows: int, keys: int, seed: int) -> Ids:
    """Return ids anywhere in the table; one in 21 is new."""
    found: Ids = np.random.default_rng(seed).choice(rows + rows // 20, keys, replace=False)
    return found.astype(np.uint64)


def local(rows: int, keys: int, seed: int) -> Ids:
    """Return ids that were written one after the other."""
    start = np.random.default_rng(seed).integers(rows - keys)
    return np.arange(start, start + keys, dtype=np.uint64)


def changes(ids: Ids, number: int) -> pa.Table:
    """Return new rows of these ids, newer than all rows of lower numbers."""
    return _rows(ids, _FIRST_SEQUENCE + (number + 1) * 10**15)


def _batches(rows: int) -> Iterator[pa.RecordBatch]:
    for start in range(0, rows, _ROWS_AT_A_TIME):
        ids = np.arange(start, min(rows, start + _ROWS_AT_A_TIME), dtype=np.uint64)
        yield from _rows(ids, _FIRST_SEQUENCE + start * 1000).to_batches()


def _schema() -> pa.Schema:
    return _rows(np.arange(1, dtype=np.uint64), 0).schema


def _rows(ids: Ids, first_sequence: int) -> pa.Table:
    count = len(ids)
    hashes = _hashes(ids)
    dice = _mixed(ids ^ np.uint64(77))
    key_start = np.tile(np.frombuffer(b"7:orderIdS32:", np.uint8), (count, 1))
    # Only the last 20 digits of a version differ between rows.
    start = row_version(1, first_sequence)[:-20].encode()
    sequence = np.uint64(first_sequence) + np.arange(count, dtype=np.uint64) * np.uint64(1000)
    versions = np.concatenate(
        [np.tile(np.frombuffer(start, np.uint8), (count, 1)), _digits(sequence, 20)], 1
    )
    return pa.table(
        {
            "order_id": _texts(hashes),
            "customer": _picked([f"customer{n}@example.com" for n in range(5003)], dice),
            "total": pa.array((dice >> np.uint64(8)).astype(np.int64) % 1_000_000),
            "status": _picked(["placed", "paid", "shipped", "done", "open"], dice >> np.uint64(3)),
            "currency": _picked(["EUR", "USD"], dice >> np.uint64(5)),
            "quantity": pa.array(((dice >> np.uint64(11)) % np.uint64(9)).astype(np.int32)),
            "city": _picked([f"city-{n}" for n in range(997)], dice >> np.uint64(17)),
            "gift": pa.array(((dice >> np.uint64(21)) % np.uint64(2)).astype(bool)),
            "updated_at": pa.array(
                (dice % np.uint64(10**13)).astype(np.int64) + 1_700_000_000_000_000,
                pa.timestamp("us", tz="UTC"),
            ),
            KEY: _texts(np.concatenate([key_start, hashes], 1)),
            VERSION: _texts(versions),
            "_dz_event_time": pa.array(
                np.full(count, 1_700_000_000_000_000), pa.timestamp("us", tz="UTC")
            ),
        }
    )


def _mixed(ids: Ids) -> Ids:
    """Hash ids with SplitMix64, so that neighbours end up far apart."""
    ids = ids + np.uint64(0x9E3779B97F4A7C15)
    ids = (ids ^ (ids >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    ids = (ids ^ (ids >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ids ^ (ids >> np.uint64(31))


def _hashes(ids: Ids) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return 32 hexadecimal digits for each id."""
    halves = np.stack([_mixed(ids), _mixed(ids + np.uint64(1 << 40))], 1)
    raw = halves.view(np.uint8).reshape(len(ids), 16)
    digits = np.empty((len(ids), 32), np.uint8)
    digits[:, 0::2], digits[:, 1::2] = _HEX[raw >> 4], _HEX[raw & 15]
    return digits


def _digits(numbers: Ids, width: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    digits = np.empty((len(numbers), width), np.uint8)
    for position in range(width - 1, -1, -1):
        digits[:, position] = 48 + numbers % np.uint64(10)
        numbers = numbers // np.uint64(10)
    return digits


def _texts(letters: np.ndarray[Any, np.dtype[np.uint8]]) -> pa.Array:
    count, width = letters.shape
    offsets = (np.arange(count + 1) * width).astype(np.int32)
    letters = np.ascontiguousarray(letters)
    return pa.Array.from_buffers(
        pa.string(), count, [None, pa.py_buffer(offsets), pa.py_buffer(letters)]
    )


def _picked(values: list[str], numbers: Ids) -> pa.Array:
    at = (numbers % np.uint64(len(values))).astype(np.int32)
    return pa.DictionaryArray.from_arrays(pa.array(at), pa.array(values)).cast(pa.string())
