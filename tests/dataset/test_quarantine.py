"""A record is stored once, however often it is put."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

import pyarrow as pa

from datazone_dagster import Dataset
from datazone_dagster.dataset.quarantine import Quarantine
from datazone_dagster.dataset.quarantine_rows import SCHEMA
from datazone_dagster.model.layout import Layout
from datazone_dagster.pipeline import maintain_dataset
from tests.dataset.test_quarantine_memory import records

FIRST, LATER = datetime(2026, 1, 1, tzinfo=timezone.utc), datetime(2026, 1, 2, tzinfo=timezone.utc)


def refused(numbers: range, reason: str) -> pa.Table:
    rows = records(numbers, 10)
    at = rows.column_names.index("reason")
    return rows.set_column(at, SCHEMA.field("reason"), [[reason] * len(rows)])


def test_a_put_that_is_repeated_only_says_so(tmp_path: Path) -> None:
    quarantine = Quarantine(Layout(str(tmp_path)), "out")
    twice = pa.concat_tables([refused(range(3), "first"), refused(range(1), "again")])
    assert quarantine.put(twice, FIRST) == 3
    assert quarantine.put(refused(range(1, 5), "later"), LATER) == 2
    found = {row["version"][-1]: row for row in quarantine.waiting().to_pylist()}
    assert {version: row["reason"] for version, row in found.items()} == {
        "0": "first",
        **dict.fromkeys("1234", "later"),
    }
    assert [row["first_seen_at"] for _, row in sorted(found.items())] == [FIRST] * 3 + [LATER] * 2
    assert [row["last_seen_at"] for _, row in sorted(found.items())] == [FIRST] + [LATER] * 4
    assert all(row["new_image"] for row in found.values())


def test_a_redriven_record_that_fails_again_waits_again(tmp_path: Path) -> None:
    quarantine = Quarantine(Layout(str(tmp_path)), "out")
    quarantine.put(refused(range(2), "first"), FIRST)
    redrive = quarantine.start_redrive()
    assert redrive is not None
    redrive.pin(redrive.records(0), 0, LATER)
    redrive.mark(redrive.number, LATER)
    assert quarantine.waiting_count(redrive.number) == 0
    assert quarantine.put(refused(range(1), "second"), LATER) == 0
    assert quarantine.waiting(redrive.number)["reason"].to_pylist() == ["second"]


def test_maintenance_deletes_the_files_that_were_replaced(tmp_path: Path) -> None:
    layout = Layout(str(tmp_path))
    quarantine = Quarantine(layout, "out")
    for reason in ("first", "second", "third"):
        quarantine.put(refused(range(2), reason), LATER)
    records_before = quarantine.waiting()

    def files() -> int:
        return len(list(Path(quarantine.uri).glob("*.parquet")))

    def maintain(days: int) -> None:
        at = datetime.now(timezone.utc) + timedelta(days=days)
        assert maintain_dataset(Dataset("out"), layout, clock=lambda: at) is None, "no table yet"

    assert files() == 3
    maintain(days=6)
    assert files() == 3, "for readers of older versions"
    maintain(days=8)
    assert files() == 1
    assert quarantine.waiting().equals(records_before)


def test_a_record_that_was_erased_meanwhile_does_not_come_back(tmp_path: Path) -> None:
    """A redrive read the record before its key was erased, and then the function failed on it."""
    quarantine = Quarantine(Layout(str(tmp_path)), "out")
    quarantine.put(refused(range(1), "first"), FIRST)
    quarantine.put_again(refused(range(2), "second"), LATER)
    assert quarantine.waiting()["reason"].to_pylist() == ["second"]


def test_a_record_without_a_size_has_that_of_its_text(tmp_path: Path) -> None:
    """Portions of a redrive are bounded by sizes."""
    quarantine = Quarantine(Layout(str(tmp_path)), "out")
    raw = pa.Table.from_pylist(
        [{"stream_arn": "arn", "shard_id": "s", "batch": 1, "raw": "x" * 5_000, "reason": "odd"}],
        SCHEMA,
    )
    quarantine.put(raw, FIRST)
    assert quarantine.waiting()["size_bytes"].to_pylist() == [5_000]
