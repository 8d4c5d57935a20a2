"""After an erasure no byte of the lakehouse has the key, and all else is as it was."""

from __future__ import annotations

import shutil
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable

from datazone_dagster import Dataset
from datazone_dagster.changelog.checkpoints import CheckpointTable
from datazone_dagster.changelog.log import ChangeLog
from datazone_dagster.drain import checkpoint_update
from datazone_dagster.errors import ConcurrentWriterError, DefinitionError
from datazone_dagster.model.snapshot_state import PROPERTY, SnapshotState
from datazone_dagster.pipeline import (
    apply_transform,
    backlog,
    maintain_dataset,
    open_erasure,
    rebuild_dataset,
    redrive_dataset,
)
from datazone_dagster.process import crash_points
from datazone_dagster.sources import DynamoDBSource
from datazone_dagster.testing import Crash, at_point, crash_at
from tests.erase.lakehouse import DATASETS, ERASED, SOURCE, TRACE, Lake, attempted, flow_of

STATES = Dataset("states", mode="history")


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    lake = Lake(tmp_path_factory.mktemp("filled"))
    lake.fill()
    return lake


@pytest.fixture
def lake(filled: Lake, tmp_path: Path) -> Lake:
    """A copy of the filled lakehouse."""
    copy = Lake(tmp_path)
    shutil.copytree(filled.root, copy.root)
    copy.stream, copy.clock = filled.stream, filled.clock
    return copy


def positions(lake: Lake) -> dict[str, int]:
    return {
        one: DeltaTable(lake.layout.dataset(one)).transaction_version("apply/orders") or 0
        for one in lake.ids
    }


def test_nothing_is_left_and_the_rest_is_untouched(lake: Lake) -> None:
    places = "\n".join(lake.traces())
    for folder in (
        "_changelog",
        "_quarantine/events",
        "_tombstones/merged",
        "_unseen/states",
        *(f"{one}/_delta_log" for one in lake.ids),
    ):
        assert folder in places
    assert "name of parted/id=" in places
    others, at, saved = lake.everything(), positions(lake), checkpoint(lake)

    plan = lake.erasure().plan()
    assert "\n".join(lake.traces()) == places
    assert (plan.found, plan.done) == (("key 1",), False)
    report = lake.erasure().run()

    assert lake.traces() == []
    assert report.done
    assert report.found == plan.found
    assert report.rows == plan.rows > 20
    assert TRACE not in repr(report)
    assert (lake.everything(), positions(lake), checkpoint(lake)) == (others, at, saved)
    assert all(lake.rows(one, but="") == lake.rows(one) for one in lake.ids)


def checkpoint(lake: Lake) -> object:
    saved = CheckpointTable(lake.layout, "orders").open()
    assert saved is not None
    return saved.checkpoint


def test_the_key_lives_on_if_it_changes_again(tmp_path: Path) -> None:
    lake = Lake(tmp_path, Dataset("merged"), Dataset("events", mode="append"), STATES)
    lake.fill()
    assert lake.erasure().run().done
    lake.put(ERASED, 1)
    lake.put("a0", 99)
    lake.step()
    lake.delete(ERASED)
    lake.put(ERASED, 2)
    lake.step()
    rows = {one: lake.rows(one, but="") for one in lake.ids}
    assert [row["n"] for row in rows["merged"] if row["id"] == ERASED] == [2]
    assert [row["n"] for row in rows["merged"] if row["id"] == "a0"] == [99]
    events = sorted(rows["events"], key=lambda row: str(row["_dz_version"]))
    assert [row["n"] for row in events if row["id"] == ERASED] == [1, None, 2]
    states = sorted(rows["states"], key=lambda row: str(row["_dz_version"]))
    assert [row["n"] for row in states if row["id"] == ERASED] == [1, 2]
    for flow in lake.flows:
        (dataset,) = flow.outputs.values()
        rebuild_dataset(flow, dataset.id, lake.layout, clock=lake.clock)
        assert lake.rows(dataset.id, but="") == rows[dataset.id]


def test_a_second_time_finds_nothing(lake: Lake) -> None:
    lake.erasure().run()
    again = lake.erasure().run()
    assert (again.done, again.found, again.rows) == (True, (), 0)
    assert sum(table.old_files + table.log_files for table in again.tables) == 0


@pytest.mark.parametrize("point", [crash_points.AFTER_ERASED_ROWS, crash_points.AFTER_ERASED_LOG])
@pytest.mark.parametrize("nth", [1, 2, 5, 9])
def test_interrupted_it_goes_on(lake: Lake, point: str, nth: int) -> None:
    others, at = lake.everything(), positions(lake)
    with pytest.raises(Crash), crash_at(point, nth):
        lake.erasure().run()
    assert lake.traces() != []
    assert lake.everything() == others
    report = lake.erasure().run()
    assert report.done
    assert lake.traces() == []
    assert (lake.everything(), positions(lake)) == (others, at)


@pytest.mark.parametrize(
    "point",
    [crash_points.AFTER_QUARANTINE, crash_points.BEFORE_DATASET_COMMIT],
)
def test_a_run_that_has_read_the_key_loses_its_race(tmp_path: Path, point: str) -> None:
    """Without the mark the run would write the erased row after the erasure was done."""
    lake = Lake(tmp_path, Dataset("merged"))
    for key in ("a", "b"):
        lake.put(key, 1)
    lake.step()
    lake.put(ERASED, 1)
    lake.put("a", 2)
    lake.drain()
    with at_point(point, lambda: lake.erasure().run()):
        attempted(lake.apply)
    assert [row["id"] for row in lake.rows("merged", but="")] == ["a", "b"]
    assert point == crash_points.BEFORE_DATASET_COMMIT or lake.traces() == []
    assert lake.erasure().run().done
    assert lake.traces() == []
    lake.apply()
    assert [(row["id"], row["n"]) for row in lake.rows("merged", but="")] == [("a", 2), ("b", 1)]


@pytest.mark.parametrize(
    "dataset", [Dataset("merged"), Dataset("soft", deletes="soft"), STATES], ids=lambda one: one.id
)
@pytest.mark.parametrize("exists", [True, False], ids=["companion", "no companion"])
def test_a_run_that_has_read_the_key_leaves_nothing_of_it_beside_the_dataset(
    tmp_path: Path, dataset: Dataset, exists: bool
) -> None:
    """Tombstones and absorbed changes are written before the commit that loses the race."""
    lake = Lake(tmp_path, dataset)
    lake.put("a", 1)
    lake.put("b", 1)
    if exists:
        lake.delete("b")
    lake.step()
    lake.put(ERASED, 1)
    lake.put(ERASED, 1)
    lake.delete(ERASED)
    lake.delete("a")
    lake.drain()
    with at_point(crash_points.BEFORE_DATASET_COMMIT, lambda: lake.erasure().run()):
        attempted(lambda: apply_transform(lake.flows[0], lake.layout, clock=lake.clock))
    assert lake.traces() == []
    lake.apply()
    assert lake.erasure().plan().found == ()
    assert lake.traces() == []
    assert [row["id"] for row in lake.rows(dataset.id, but="") if is_current(row)] == (
        [] if exists else ["b"]
    )


def is_current(row: dict[str, Any]) -> bool:
    return bool(row.get("_dz_is_current", not row.get("_dz_deleted")))


@pytest.mark.parametrize("point", [crash_points.AFTER_READ, crash_points.AFTER_CHANGE_LOG_COMMIT])
def test_a_drain_at_the_same_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    """Between the two commits of a drain the positions are not saved: the erasure saves them."""
    monkeypatch.setattr(checkpoint_update, "POSITIONS_SAVED_EVERY", timedelta.max)
    lake = Lake(tmp_path, Dataset("events", mode="append"))
    lake.put("a", 1)
    lake.put(ERASED, 1)
    lake.step()
    lake.put(ERASED, 2)
    with at_point(point, lambda: lake.erasure().run()):
        lake.drain()
    saved = CheckpointTable(lake.layout, SOURCE.name).open_or_create().checkpoint
    if point == crash_points.AFTER_CHANGE_LOG_COMMIT:
        assert saved.batch == ChangeLog(lake.layout, SOURCE.name).open_or_create().head
    lake.step()
    assert lake.erasure().run().done
    assert lake.traces() == []
    lake.put("b", 1)
    lake.step()
    assert [(row["id"], row["n"]) for row in lake.rows("events", but="")] == [("a", 1), ("b", 1)]


def test_a_redrive_that_has_read_the_key_writes_nothing(tmp_path: Path) -> None:
    lake = Lake(tmp_path, Dataset("merged"))
    lake.put("a", 1)
    lake.put(ERASED, -1)
    lake.step()
    (fixed,) = flow_of(Dataset("merged"), function=ids)
    with at_point(crash_points.AFTER_REDRIVE_PIN, lambda: lake.erasure().run()):
        attempted(lambda: redrive_dataset(fixed, "merged", lake.layout, clock=lake.clock))
    assert [row["id"] for row in lake.rows("merged", but="")] == ["a"]
    assert lake.erasure().run().done
    assert lake.traces() == []


def ids(changes: Any) -> object:
    return changes.select("dynamodb.Keys.id.S as id", "null::bigint as n", "null::varchar as note")


def test_resume_keys_of_a_snapshot_are_erased_too(tmp_path: Path) -> None:
    """The scan's state is a table property, and each commit of the log repeats it."""
    lake = Lake(tmp_path, Dataset("merged"))
    lake.put("a", 1)
    lake.put(ERASED, 1)
    lake.step()
    log = lake.layout.change_log("orders")
    key = f'{{"id":{{"S":"{ERASED}"}}}}'
    state = SnapshotState(id="s", epoch=2, segments=1)
    for one in (replace(state, next_segment=1, open={0: key}), state):
        properties = {PROPERTY: one.to_json()}
        DeltaTable(log).alter.set_table_properties(properties, raise_if_not_exists=False)
        report = lake.erasure().run()
        assert report.done is (one is state)
        assert [table.table for table in report.blocked] == ["change log"] * (one is not state)
    assert lake.traces() == []


def test_unapplied_changes_that_are_gone_do_not_wait_for_ever(tmp_path: Path) -> None:
    lake = Lake(tmp_path, Dataset("merged"))
    lake.put("a", 1)
    lake.step()
    lake.put(ERASED, 1)
    lake.drain()
    assert backlog("orders", "merged", lake.layout).pending
    lake.erasure().run()
    assert not backlog("orders", "merged", lake.layout).pending
    lake.put("b", 1)
    lake.step()
    assert [row["id"] for row in lake.rows("merged")] == ["a", "b"]


@pytest.mark.parametrize("point", [crash_points.AFTER_QUARANTINE, crash_points.BEFORE_SWAP])
def test_a_rebuild_that_has_read_the_key_is_not_swapped_in(tmp_path: Path, point: str) -> None:
    lake = Lake(tmp_path, Dataset("merged"))
    lake.put("a", 1)
    lake.put(ERASED, 1)
    lake.step()
    (flow,) = lake.flows
    with (
        at_point(point, lambda: lake.erasure().run()),
        pytest.raises(ConcurrentWriterError, match="keys were erased"),
    ):
        rebuild_dataset(flow, "merged", lake.layout, clock=lake.clock)
    assert lake.erasure().run().done
    assert lake.traces() == []
    assert [row["id"] for row in lake.rows("merged", but="")] == ["a"]


def test_after_maintenance_the_log_is_readable_by_others(lake: Lake) -> None:
    lake.erasure().run()
    for dataset in DATASETS:
        maintain_dataset(dataset, lake.layout, memory_budget=8 << 30, clock=lake.clock)
        table = DeltaTable(lake.layout.dataset(dataset.id))
        table.create_checkpoint()
        assert DeltaTable(lake.layout.dataset(dataset.id)).version() == table.version()
    lake.put("a0", 7)
    lake.step()
    assert lake.traces() == []


def test_a_masked_source_is_erased_by_its_plain_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows from before the mask have the plain key, later ones its hash."""
    monkeypatch.setenv("DATAZONE_MASK_SALT", "0123456789abcdef")
    lake = Lake(tmp_path, Dataset("events", mode="append"))
    lake.put(ERASED, 1)
    lake.put("a", 1)
    lake.step()
    masked = DynamoDBSource("orders", mask={"id": "hash", "note": "null"})
    from tests.erase import lakehouse

    monkeypatch.setattr(lakehouse, "SOURCE", masked)
    lake.flows = lakehouse.flow_of(Dataset("events", mode="append"))
    lake.put(ERASED, 2)
    lake.step()
    hashed = {row["id"] for row in lake.rows("events", but="")} - {ERASED, "a"}
    assert len(hashed) == 1
    report = open_erasure(masked, [f"id={ERASED}"], lake.layout, clock=lake.clock).run()
    assert report.done
    assert lake.traces() == []
    assert lake.traces(hashed.pop()) == []
    assert [row["id"] for row in lake.rows("events", but="")] == ["a"]


@pytest.mark.parametrize(
    "key",
    ["", "zq", "id=a,id=b", "a=1,b=2,c=3", '{"id": "a"}', '{"id": {"S": 1}}', '{"id"', "{}"],
)
def test_a_text_that_is_no_key_is_refused_without_quoting_it(lake: Lake, key: str) -> None:
    with pytest.raises(DefinitionError, match="Key 2 is no key of an item") as caught:
        lake.erasure("id=a", key)
    assert not key or key not in str(caught.value).replace(str(caught.value.hint), "")


def test_a_key_of_another_table_is_refused(lake: Lake) -> None:
    """Found nowhere, it would look as if it had been erased."""
    with pytest.raises(DefinitionError, match="key 1 has the attributes customer, but the key"):
        lake.erasure(f"customer={ERASED}")
    assert SOURCE.name == "orders"


def test_only_the_given_keys_go(lake: Lake) -> None:
    before = {one: lake.rows(one) for one in lake.ids}
    report = lake.erasure('{"id": {"S": "a4"}}', "id=zz0", "id=never").run()
    assert report.found == ("key 1", "key 2")
    for one in lake.ids:
        assert lake.rows(one) == [row for row in before[one] if row["id"] not in ("a4", "zz0")]
    assert lake.traces() != []
