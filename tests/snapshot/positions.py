"""What happens between a look at the change log and one at the positions of the shards."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from datazone_dagster.changelog.checkpoints import CheckpointSnapshot, CheckpointTable


def before_positions_are_read(monkeypatch: pytest.MonkeyPatch, act: Callable[[], None]) -> None:
    """Act once, directly before the positions are read for the next time."""
    read, acts = CheckpointTable.open, [act]

    def act_and_read(checkpoints: CheckpointTable) -> CheckpointSnapshot | None:
        if acts:
            acts.pop()()
        return read(checkpoints)

    monkeypatch.setattr(CheckpointTable, "open", act_and_read)
