"""`datazone-dagster accept-gap` as a user runs it, and killed halfway."""

from __future__ import annotations

import shutil
import signal
from datetime import timedelta

import pytest

from datazone_dagster.pipeline import gap_notes, open_gaps
from datazone_dagster.process import crash_points
from datazone_dagster.testing import FixedClock
from tests.commands.running import ProjectFolder


@pytest.fixture
def with_gap(project: ProjectFolder) -> ProjectFolder:
    clock = FixedClock()
    project.put("a", 1)
    project.drain(clock)
    clock.advance(timedelta(hours=26))
    project.put("b", 2)
    project.stream.trim()
    project.put("c", 3)
    project.drain(clock)
    return project


def test_list_refuse_accept(with_gap: ProjectFolder) -> None:
    listed = with_gap.run("accept-gap", "orders", "--list")
    assert listed.returncode == 0, listed.stderr
    assert "records were trimmed before they were read" in listed.stdout
    assert listed.stdout.endswith("  open\n")

    no_reason = with_gap.run("accept-gap", "orders")
    assert no_reason.returncode == 1
    assert "--why" in no_reason.stderr

    done = with_gap.run("accept-gap", "orders", "--why", "test orders only", "--by", "ann")
    assert done.returncode == 0, done.stderr
    assert "accepted by ann at 20" in done.stdout
    assert done.stdout.endswith("UTC: test orders only\n")
    assert open_gaps("orders", with_gap.layout) == ()

    again = with_gap.run("accept-gap", "orders", "--why", "once more")
    assert again.returncode == 1
    assert "Source 'orders' has no open gap." in again.stderr


def test_a_killed_acceptance_survives_the_loss_of_the_checkpoint(
    with_gap: ProjectFolder,
) -> None:
    killed = with_gap.run(
        *("accept-gap", "orders", "--why", "test orders only", "--by", "ann"),
        DATAZONE_CRASH_AT=crash_points.AFTER_CHECKPOINT_COMMIT,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    with_gap.drain()
    shutil.rmtree(with_gap.layout.checkpoint("orders"))
    with_gap.drain()
    [note] = gap_notes("orders", with_gap.layout)
    assert (note.accepted_by, note.accepted_why) == ("ann", "test orders only")
