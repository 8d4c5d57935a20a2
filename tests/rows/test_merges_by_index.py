"""Chunks applied with the key indexes of a process give the rows that they give without."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Literal

import pytest
from deltalake import DeltaTable
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from datazone_dagster.model.layout import Layout
from datazone_dagster.rows import locate as locate_module
from datazone_dagster.rows import table_maintenance
from datazone_dagster.rows.kept_indexes import KeptIndexes
from datazone_dagster.rows.maintenance_plan import THOROUGH
from datazone_dagster.rows.table_maintenance import maintain
from tests.dataset.history_model import Change, scripts
from tests.dataset.test_modes import Table
from tests.examples import examples

BETWEEN = st.sampled_from(["", "", "maintain", "compact", "restore"])


@contextmanager
def indexed(indexes: KeptIndexes, at_once_rows: int) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched:
        for module in (locate_module, table_maintenance):
            patched.setattr(module, "KEPT_INDEXES", indexes)
        patched.setattr(locate_module, "AT_ONCE_ROWS", at_once_rows)
        yield


def disturb(what: str, table: Table, root: Path, number: int) -> None:
    handle = DeltaTable(table.table.uri)
    if what == "maintain":
        maintain(Layout(str(root)), "t", THOROUGH, datetime.now(timezone.utc))
    elif what == "compact":
        handle.optimize.compact()
    elif what == "restore" and number > 1:
        handle.restore(handle.version() - 1)
        handle.restore(handle.version() - 1)


@settings(max_examples=examples(12), deadline=None, suppress_health_check=list(HealthCheck))
@given(
    script=scripts(),
    between=st.lists(BETWEEN, min_size=18, max_size=18),
    mode=st.sampled_from(["merge", "soft", "history"]),
    partition_by=st.sampled_from([(), ("status",)]),
    vectors=st.booleans(),
    at_once_rows=st.sampled_from([0, 2, 100]),
)
def test_chunks_give_the_same_rows_with_indexes_and_without(
    tmp_path_factory: pytest.TempPathFactory,
    script: tuple[list[Change], list[list[Change]]],
    between: list[str],
    mode: Literal["merge", "soft", "history"],
    partition_by: tuple[str, ...],
    vectors: bool,
    at_once_rows: int,
) -> None:
    """Whatever others do to the table meanwhile, and if every chunk is applied again."""
    shown = []
    for indexes in (KeptIndexes(1 << 20), KeptIndexes(0)):
        root = tmp_path_factory.mktemp("lakehouse")
        table = Table(
            root,
            "history" if mode == "history" else "merge",
            "soft" if mode == "soft" else "hard",
            partition_by=partition_by,
            deletion_vectors=vectors,
        )
        counts = []
        with indexed(indexes, at_once_rows):
            for number, (chunk, what) in enumerate(
                zip([*script[1], *script[1]], between, strict=False)
            ):
                counts.append(table.apply(chunk).counts)
                disturb(what, table, root, number)
        shown.append((counts, sorted(map(str, table.rows()))))
    assert shown[0] == shown[1]
