"""Tables hold what plain Python computes though Kinesis delivers in disorder, and some twice."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datazone_dagster.process import crash_points
from datazone_dagster.sources import KinesisSource
from datazone_dagster.testing import Crash, crash_at
from tests.examples import examples
from tests.truth.items import OPERATIONS
from tests.truth.kinesis import KinesisInMemory
from tests.truth.reference import Change, Item, Row, in_text, plain_item
from tests.truth.test_tables import ROW_BY_ROW, SHAPES
from tests.truth.world import MODES, World

SOURCE = KinesisSource("orders", "changes", start="trim_horizon")
TIE_DIGITS = 22
PAUSES = st.sampled_from([1, 400_000, 3_000_000])
STEPS = st.sampled_from(["apply", "drain", "split", "merge", "restart", "new process"])
POINTS = st.sampled_from(
    [
        crash_points.AFTER_READ,
        crash_points.AFTER_CHANGE_LOG_COMMIT,
        crash_points.AFTER_CHECKPOINT_COMMIT,
    ]
)


@pytest.mark.parametrize("mode", MODES)
@settings(max_examples=examples(12), deadline=None)
@given(
    data=st.data(),
    operations=st.lists(OPERATIONS, min_size=3, max_size=15),
    shape=st.sampled_from(list(ROW_BY_ROW)),
    ignores=st.booleans(),
    chunk_bytes=st.sampled_from([0, 1, 900]),
    page_records=st.sampled_from([1, 3, 1000]),
)
def test_any_disorder_gives_what_python_computes(
    tmp_path_factory: pytest.TempPathFactory,
    mode: str,
    data: st.DataObject,
    operations: list[tuple[str, Item | str]],
    shape: str,
    ignores: bool,
    chunk_bytes: int,
    page_records: int,
) -> None:
    world = World(
        tmp_path_factory.mktemp("lake"),
        mode,
        SHAPES[shape].function,
        dataset={"ttl_deletes": "ignore" if ignores else "apply"},
        source=SOURCE,
        chunk_bytes=chunk_bytes,
    )
    stream = KinesisInMemory(world.clock, page_records)
    world.client = stream
    for key, written in operations:
        stream.write(key, written)
        world.clock.advance(timedelta(microseconds=data.draw(PAUSES)))
    if not stream.changes:
        return
    of_number = {one.number: one for one in stream.changes}

    def rows_of(change: Change) -> Sequence[Row]:
        rows_of = SHAPES[shape].rows_of
        if rows_of is not None:
            return rows_of(change)
        return [in_text(plain_item(change.new) | {"id": change.key})]

    def check(delivered: Sequence[int]) -> None:
        changes = [of_number[number] for number in sorted(set(delivered))]
        counted = [one for one in changes if not (ignores and one.is_ttl)]
        expected = world.reference(counted, rows_of)
        world.check(expected, items=SHAPES[shape].rows_of is None, tie_digits=TIE_DIGITS)

    left = list(zip([one.number for one in stream.changes], stream.undelivered, strict=True))
    everything = list(left)
    delivered: list[int] = []
    while left:
        at = data.draw(st.lists(st.integers(0, len(left) - 1), min_size=1, max_size=len(left) + 2))
        again = data.draw(st.lists(st.sampled_from(everything), max_size=2)) if delivered else []
        again = [one for one in again if one[0] in delivered]
        batch = [left[index] for index in at] + again
        stream.deliver([(one, data.draw(st.integers(0, 3))) for _, one in batch])
        delivered += [number for number, _ in batch]
        left = [one for one in left if one[0] not in delivered]
        for step in data.draw(st.lists(STEPS, max_size=4)):
            if step == "split":
                stream.split(data.draw(st.integers(0, 3)))
            elif step == "merge":
                stream.merge()
            elif step == "restart":
                try:
                    with crash_at(data.draw(POINTS)):
                        world.drain()
                except Crash:
                    pass
            elif step == "new process":
                stream = world.client = stream.seen_by_another_process()
            elif step == "drain":
                world.drain()
            else:
                world.drain()
                world.apply()
                check(delivered)
    world.drain()
    world.apply()
    check(delivered)
    world.rebuild()
    check(delivered)
