"""A quarantined change of a key whose delete was lost: after a resync its redrive adds no row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from datazone_dagster import Dataset, Input, Output, Stream, Transform, transform
from datazone_dagster.model.layout import Layout
from datazone_dagster.pipeline import redrive_dataset, want_snapshot
from tests.snapshot.flow import SOURCE, World, item, key, rows_of


def flow(sql: str, **options: Any) -> Transform:
    @transform(
        name="flow",
        on_error="quarantine",
        input_mapping={"orders": Input(Stream(source=SOURCE))},
        output_mapping={"current": Output(Dataset("current", **options))},
    )
    def current(orders: Any) -> Any:
        return orders.select("dynamodb.Keys.id.S as id", f"{sql} as total")

    return current


FAILS = "cast(case when dynamodb.NewImage.total.N = '13' then 'x' else '0' end as int)"


@pytest.mark.parametrize(
    "options",
    [
        {},
        *(
            pytest.param(one, marks=pytest.mark.faults)
            for one in ({"deletes": "soft"}, {"mode": "history"})
        ),
    ],
    ids=str,
)
def test_a_redrive_after_a_resync_restores_no_deleted_key(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    world = World(Layout(str(tmp_path)), flow(FAILS, **options))
    for number in range(20):
        world.stream.put(item(number))
    world.drain()
    world.hand_over()
    world.stream.put(item(90, 13))
    world.stream.put(item(91, 13))
    world.drain()
    world.apply()
    world.table.delete_unseen(key(90))
    want_snapshot("orders", world.layout, "resync", clock=world.clock)
    world.hand_over()

    fixed = flow("0", **options)
    redrive_dataset(fixed, "current", world.layout, clock=world.clock)
    assert sorted(rows_of(world.layout, "current")) == sorted(world.items())
