"""Both collapses agree with a model of a few lines, whatever the order and the chunks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta, timezone

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datazone_dagster.dataset.keyed_changes import collapse, each_change
from datazone_dagster.errors import ResultError
from datazone_dagster.model.column_names import EVENT_TIME, KEY, VERSION
from datazone_dagster.model.version import row_version
from datazone_dagster.rows.merge_batch import (
    CAUSE,
    EACH_CHANGE_SCHEMA,
    KEYED_CHANGES_SCHEMA,
    MergeBatch,
)
from tests.dataset.test_modes import CHANGES

START = datetime(2030, 1, 1, tzinfo=timezone.utc)
ROWS = pa.schema([(KEY, pa.string()), (VERSION, pa.string()), ("value", pa.int64())])
Identity = tuple[str, int]
Change = tuple[str, int]
"""Event name of a change, and the number of rows that the function returned for it."""
Chunk = tuple[dict[Identity, Change], list[Identity], int]
"""The changes of a chunk, the order in which they come (some twice), and the size of a piece."""
Result = tuple[dict[tuple[str, str], str | None], list[tuple[str, str, int]]]
"""The cause of each keyed change, and the rows."""
EVENTS = ("INSERT", "MODIFY", "REMOVE", "TTL")


@pytest.fixture(scope="module", params=[1, 1 << 17], autouse=True)
def rows_at_a_time(request: pytest.FixtureRequest) -> Iterator[None]:
    """Look up the rows' changes one at a time, and all at once as with rows as few as here."""
    with pytest.MonkeyPatch.context() as patch:
        module = "datazone_dagster.dataset.keyed_changes"
        patch.setattr(f"{module}._FEWEST_AT_A_TIME", request.param)
        patch.setattr(f"{module}._TIMES_THE_CHANGES", 0)
        yield


@st.composite
def chunks(draw: st.DrawFn) -> Chunk:
    identities = st.tuples(st.sampled_from("abc"), st.integers(1, 4))
    contents = st.tuples(st.sampled_from(EVENTS), st.integers(0, 3))
    changes = draw(st.dictionaries(identities, contents, max_size=8))
    again = draw(st.lists(st.sampled_from(sorted(changes)), max_size=3)) if changes else []
    return changes, draw(st.permutations([*changes, *again])), draw(st.integers(1, 4))


def version(number: int) -> str:
    return row_version(1, number)


def changes_of(chunk: Chunk) -> pa.Table:
    changes, order, piece = chunk
    rows: list[dict[str, object]] = [
        {
            KEY: key,
            VERSION: version(number),
            EVENT_TIME: START + timedelta(seconds=number),
            "event_name": "REMOVE" if changes[key, number][0] == "TTL" else changes[key, number][0],
            "user_principal": (
                "dynamodb.amazonaws.com" if changes[key, number][0] == "TTL" else None
            ),
        }
        for key, number in order
    ]
    return in_pieces(rows, CHANGES, piece)


def rows_of(chunk: Chunk) -> pa.Table:
    changes, order, piece = chunk
    rows: list[dict[str, object]] = [
        {KEY: key, VERSION: version(number), "value": value}
        for key, number in dict.fromkeys(order)
        for value in range(changes[key, number][1])
    ]
    return in_pieces(rows, ROWS, piece)


def in_pieces(rows: list[dict[str, object]], schema: pa.Schema, piece: int) -> pa.Table:
    table = pa.Table.from_pylist(rows, schema=schema)
    return pa.Table.from_batches(table.to_batches(max_chunksize=piece), schema)


def expected(changes: dict[Identity, Change], counted: Iterable[Identity]) -> Result:
    causes: dict[tuple[str, str], str | None] = {}
    rows = []
    for key, number in counted:
        event, count = changes[key, number]
        cause = {"TTL": "ttl", "REMOVE": "user"}.get(event) or (None if count else "filtered")
        causes[key, version(number)] = cause
        rows += [(key, version(number), value) for value in range(count) if cause is None]
    return causes, sorted(rows)


def found(batch: MergeBatch) -> Result:
    keyed = batch.keyed_changes.to_pylist()
    causes = {(one[KEY], one[VERSION]): one[CAUSE] for one in keyed}
    assert len(causes) == len(keyed)
    return causes, sorted((row[KEY], row[VERSION], row["value"]) for row in batch.rows.to_pylist())


@given(chunks())
def test_collapse_counts_the_highest_version_of_each_key(chunk: Chunk) -> None:
    batch = collapse(changes_of(chunk), rows_of(chunk), dataset_id="d")
    highest = {key: (key, number) for key, number in sorted(chunk[0])}
    assert found(batch) == expected(chunk[0], highest.values())
    assert batch.keyed_changes.schema.equals(KEYED_CHANGES_SCHEMA)
    assert batch.rows.schema.equals(ROWS)


@given(chunks())
def test_each_change_counts_every_change_once(chunk: Chunk) -> None:
    batch = each_change(changes_of(chunk), rows_of(chunk), dataset_id="d")
    assert found(batch) == expected(chunk[0], chunk[0])
    assert batch.keyed_changes.schema.equals(EACH_CHANGE_SCHEMA)
    for one in batch.keyed_changes.to_pylist():
        assert row_version(1, (one[EVENT_TIME] - START).seconds) == one[VERSION]


@pytest.mark.parametrize("collapsing", [collapse, each_change])
@pytest.mark.parametrize(("key", "number"), [("a", 3), ("b", 1), ("b", 2), (None, 1)])
def test_a_row_of_no_change_is_refused(
    collapsing: Callable[..., MergeBatch], key: str | None, number: int
) -> None:
    chunk: Chunk = ({("a", 1): ("INSERT", 1), ("a", 2): ("MODIFY", 1)}, [("a", 1), ("a", 2)], 1)
    other = pa.Table.from_pylist([{KEY: key, VERSION: version(number), "value": 7}], schema=ROWS)
    rows = pa.concat_tables([rows_of(chunk), other])
    with pytest.raises(ResultError) as error:
        collapsing(changes_of(chunk), rows, dataset_id="d")
    assert f"key {key!r} and version {version(number)!r}" in str(error.value)
