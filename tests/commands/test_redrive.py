"""`datazone-dagster redrive` as a user runs it, and killed at critical points."""

from __future__ import annotations

import signal

import pytest

from datazone_dagster.pipeline import read_dataset
from datazone_dagster.process import crash_points
from tests.commands.running import ProjectFolder


def rows(project: ProjectFolder, dataset_id: str) -> list[tuple[str, int]]:
    table = read_dataset(project.layout, dataset_id).sort_by("_dz_version")
    return [(row["id"], row["total"]) for row in table.to_pylist()]


@pytest.fixture
def filled(project: ProjectFolder) -> ProjectFolder:
    for key, total in (("a", 1), ("a", -2), ("a", 3), ("b", -4)):
        project.put(key, total)
    project.drain()
    project.apply()
    return project


def test_list_then_redrive(filled: ProjectFolder) -> None:
    listed = filled.run("redrive", "current", "--list")
    assert listed.returncode == 0, listed.stderr
    assert "current: 2 records in the quarantine." in listed.stdout
    assert "1 x the function failed: ValueError: total -2" in listed.stdout
    assert rows(filled, "current") == [("a", 3)]

    not_fixed = filled.run("redrive", "current")
    assert "0 records applied" in not_fixed.stdout
    assert "2 records left" in not_fixed.stdout

    done = filled.run("redrive", "current", FIXED="yes")
    assert done.returncode == 0, done.stderr
    assert done.stdout == (
        "current: 2 records applied (1 rows inserted, 0 updated, 0 deleted; newer rows "
        "stay), 0 records left in the quarantine.\n"
    )
    assert rows(filled, "current") == [("a", 3), ("b", -4)]
    assert rows(filled, "events") == [("a", 1)]


@pytest.mark.parametrize(
    ("dataset_id", "point"),
    [
        ("events", crash_points.AFTER_REDRIVE_PIN),
        ("events", crash_points.AFTER_DATASET_COMMIT),
        ("current", crash_points.AFTER_DATASET_COMMIT),
    ],
)
def test_a_killed_redrive_neither_loses_nor_doubles(
    filled: ProjectFolder, dataset_id: str, point: str
) -> None:
    killed = filled.run("redrive", dataset_id, FIXED="yes", DATAZONE_CRASH_AT=point)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    done = filled.run("redrive", dataset_id, FIXED="yes")
    assert done.returncode == 0, done.stderr
    assert "0 records left" in done.stdout
    expected = {
        "current": [("a", 3), ("b", -4)],
        "events": [("a", 1), ("a", -2), ("a", 3), ("b", -4)],
    }
    assert rows(filled, dataset_id) == expected[dataset_id]


def test_an_unknown_dataset_is_an_error_without_a_traceback(project: ProjectFolder) -> None:
    done = project.run("redrive", "orders")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == (
        "Error: No transform writes a dataset 'orders'. Datasets of this project: current, "
        "events.\n"
    )
