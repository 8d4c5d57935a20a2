"""The tables of a drain are an older copy, the datasets are not: nothing lands or is lost.

Batches that land in such a change log get numbers that a dataset has applied, and it would skip
them, with the changes that are new in them.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from datazone_dagster.errors import StorageError
from datazone_dagster.pipeline import backlog, drain_tick
from tests.dagster_glue.conftest import SOURCE, World

DRAINED = ("_changelog", "_checkpoints")


def copied(tables: Sequence[str], source: Path, target: Path) -> None:
    for name in tables:
        shutil.rmtree(target / name, ignore_errors=True)
        shutil.copytree(source / name, target / name)


def at_batch(world: World, batch: int) -> None:
    for number in range(batch):
        world.put(f"k{number}")
        world.run_until_idle()
    assert backlog(SOURCE.name, "orders", world.layout).position == batch


def test_a_tick_refuses_an_older_change_log_and_goes_on_with_the_newest(
    world: World, tmp_path: Path
) -> None:
    lakehouse = Path(world.layout.uri)
    at_batch(world, 2)
    copied(DRAINED, lakehouse, tmp_path / "older")
    world.put("new")
    world.run_until_idle()
    copied(DRAINED, lakehouse, tmp_path / "newest")

    copied(DRAINED, tmp_path / "older", lakehouse)
    for key in ("newer", "newest"):
        world.put(key)
        with pytest.raises(StorageError, match=r"applied batch 3.*ends at 2.*Restore the newest"):
            world.tick()

    copied(DRAINED, tmp_path / "newest", lakehouse)
    world.run_until_idle()
    assert set(world.rows()) == {"k0", "k1", "new", "newer", "newest"}


def test_a_tick_reads_on_where_all_tables_are_of_the_same_older_copy(
    world: World, tmp_path: Path
) -> None:
    lakehouse = Path(world.layout.uri)
    at_batch(world, 2)
    shutil.copytree(lakehouse, tmp_path / "older")
    world.put("new")
    world.run_until_idle()
    shutil.rmtree(lakehouse)
    shutil.copytree(tmp_path / "older", lakehouse)
    world.put("newer")
    world.run_until_idle()
    assert set(world.rows()) == {"k0", "k1", "new", "newer"}


def test_positions_in_another_change_log_do_not_count(world: World) -> None:
    """The change log was made again on purpose: it begins to be filled at once."""
    at_batch(world, 2)
    for name in DRAINED:
        shutil.rmtree(Path(world.layout.uri) / name)
    world.put("new")
    assert world.tick().materializations()


def test_a_dataset_that_cannot_be_read_does_not_keep_changes_from_landing(world: World) -> None:
    at_batch(world, 1)
    entries = (Path(world.layout.uri) / "orders" / "_delta_log").glob("*.json")
    max(entries).write_bytes(b"")
    world.put("new")
    assert world.tick().materializations()


def test_a_drain_that_is_told_of_no_dataset(world: World) -> None:
    at_batch(world, 1)
    report = drain_tick(SOURCE, world.stream, world.layout, applied={"another log": 99})
    assert report.caught_up
