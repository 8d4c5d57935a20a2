"""Batches of the largest items that the service allows are applied within the default budget.

Each batch has 64 MiB, the most that a drain lands at once. What a function needs for all of it is
more than the budget: such a batch is evaluated in parts.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from datazone_dagster.apply.chunk import CHANGES_SCHEMA, FunctionResult, ReadReport
from datazone_dagster.apply.parts import PartResult, evaluated_in_parts, joined
from datazone_dagster.changelog.log import ChangeLog
from datazone_dagster.changelog.schema import ShardRecords
from datazone_dagster.errors import OutOfMemoryError, ResultError
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.record import ChangeRecord
from datazone_dagster.model.size_policy import (
    APPLY_BUDGET_BYTES,
    LARGEST_BATCH_BYTES,
    batch_limits,
)
from tests.apply.test_memory import run

LONG = pytest.mark.faults
ITEM_BYTES = 390_000


def many_attributes(rng: random.Random) -> dict[str, Any]:
    return {f"a{number}": {"S": rng.randbytes(ITEM_BYTES // 200).hex()} for number in range(100)}


def one_attribute(rng: random.Random) -> dict[str, Any]:
    return {"note": {"S": rng.randbytes(199_000).hex()}}


def nested_document(rng: random.Random) -> dict[str, Any]:
    def node(depth: int) -> dict[str, Any]:
        if not depth:
            return {"S": rng.randbytes(20).hex()}
        below = [node(depth - 1) for _ in range(8)]
        return {"L": below} if depth % 2 else {"M": {f"f{n}": one for n, one in enumerate(below)}}

    return {"doc": {"L": [node(4) for _ in range(1)]}, "more": {"L": [node(3)] * 5}}


KINDS = {
    "many_attributes": (many_attributes, 450),
    "one_attribute": (one_attribute, 450),
    "nested_document": (nested_document, 420),
}


def change(number: int, attributes: dict[str, Any]) -> ChangeRecord:
    keys = {"id": {"S": f"k{number}"}}
    image = json.dumps({**keys, "total": {"N": str(number)}, **attributes}).encode()
    return ChangeRecord(
        event_id=f"e{number}",
        event_name="INSERT",
        sequence_number=10**22 + number,
        created_at=1_700_000_000,
        keys=json.dumps(keys).encode(),
        new_image=image,
        old_image=None,
        size_bytes=len(image),
        region="eu-west-1",
        view_type="NEW_AND_OLD_IMAGES",
    )


def land_full_batches(lake: Path, kind: str) -> int:
    make, items = KINDS[kind]
    log = ChangeLog(Layout(str(lake)), "orders").open_or_create()
    batch: list[ChangeRecord] = []
    for number in range(items):
        batch.append(change(number, make(random.Random(number))))
        if sum(one.size_bytes for one in batch) >= LARGEST_BATCH_BYTES or number == items - 1:
            log.append(1, [ShardRecords("arn", "s", None, batch)])
            batch = []
    return items


@pytest.mark.parametrize("kind", ["many_attributes", pytest.param("one_attribute", marks=LONG),
                                  pytest.param("nested_document", marks=LONG)])  # fmt: skip
@pytest.mark.parametrize(
    "way",
    [
        "items_merge",
        pytest.param("items", marks=LONG),
        pytest.param("items_history", marks=LONG),
        pytest.param("items_soft", marks=LONG),
        pytest.param("images", marks=LONG),
        pytest.param("full", marks=LONG),
        pytest.param("append", marks=LONG),
    ],
)
def test_the_largest_items_fit_the_default_budget(tmp_path: Path, kind: str, way: str) -> None:
    items = land_full_batches(tmp_path / "lake", kind)
    ran = run(tmp_path / "lake", way, APPLY_BUDGET_BYTES)
    shutil.rmtree(tmp_path / "lake")
    assert (ran.records, ran.rows) == (items, items)
    assert ran.peak_bytes < APPLY_BUDGET_BYTES


@pytest.mark.parametrize("way", ["unnested", pytest.param("unnested_append", marks=LONG)])
def test_a_batch_of_long_lists_fits_although_each_element_is_a_row(
    tmp_path: Path, way: str
) -> None:
    """A full batch of 140 items: 64 MB, and 5.6 million rows of 465 MB."""
    elements = {"ls": {"L": [{"N": str(number % 10)} for number in range(40_000)]}}
    batch = [change(number, elements) for number in range(140)]
    assert sum(one.size_bytes for one in batch) >= LARGEST_BATCH_BYTES * 0.95
    log = ChangeLog(Layout(str(tmp_path)), "orders").open_or_create()
    log.append(1, [ShardRecords("arn", "s", None, batch)])
    ran = run(tmp_path, way, APPLY_BUDGET_BYTES)
    assert (ran.records, ran.rows) == (140, 5_600_000)
    assert ran.peak_bytes < APPLY_BUDGET_BYTES


def test_no_budget_makes_a_drain_land_more_than_a_run_can_apply() -> None:
    for budget in (512 << 20, 1 << 30, 64 << 30):
        assert batch_limits(budget).largest_bytes == LARGEST_BATCH_BYTES


def changes(count: int) -> pa.Table:
    return pa.Table.from_pylist(
        [{"keys": str(number), "_dz_key": str(number)} for number in range(count)], CHANGES_SCHEMA
    )


class Evaluation:
    """Evaluates at most so many changes at once; `types` are those of the rows of some changes."""

    def __init__(self, most: int, types: Callable[[Sequence[int]], pa.DataType]) -> None:
        self.most = most
        self.types = types
        self.sizes: list[int] = []

    def evaluate(self, part: pa.Table) -> PartResult:
        self.sizes.append(len(part))
        if len(part) > self.most:
            raise OutOfMemoryError("too much")
        numbers = [int(key) for key in part["_dz_key"].to_pylist()]
        rows = pa.table({"n": pa.array(numbers, pa.int64()).cast(self.types(numbers))})
        return PartResult(
            FunctionResult(part, {"out": rows}, part.slice(0, 0)), ReadReport({"n__s": 1})
        )


def refuse(change: pa.Table, error: OutOfMemoryError) -> PartResult:
    rows = pa.table({"n": pa.array([], pa.int64())})
    return PartResult(FunctionResult(change.slice(0, 0), {"out": rows}, change), ReadReport())


@pytest.mark.parametrize("most", [1, 3, 7, 50])
def test_parts_are_halved_until_they_fit_and_joined_in_order(most: int) -> None:
    evaluation = Evaluation(most, lambda _: pa.int64())
    result = evaluated_in_parts(changes(100), evaluation.evaluate, refuse, lambda _: False)
    assert result.result.rows["out"]["n"].to_pylist() == list(range(100))
    assert result.result.changes["_dz_key"].to_pylist() == [str(n) for n in range(100)]
    assert result.read.sibling_values == {"n__s": sum(size <= most for size in evaluation.sizes)}


def test_parts_that_are_known_to_be_too_large_are_not_tried() -> None:
    evaluation = Evaluation(10, lambda _: pa.int64())
    evaluated_in_parts(changes(64), evaluation.evaluate, refuse, lambda part: len(part) > 10)
    assert evaluation.sizes == [8] * 8


def test_a_single_change_that_does_not_fit_is_decided_on_alone() -> None:
    evaluation = Evaluation(0, lambda _: pa.int64())
    result = evaluated_in_parts(changes(5), evaluation.evaluate, refuse, lambda _: False).result
    assert (len(result.changes), len(result.refused)) == (0, 5)


def test_earlier_parts_get_the_columns_that_later_parts_have_first() -> None:
    widest: list[pa.DataType] = [pa.int64()]

    def type_of(numbers: Sequence[int]) -> pa.DataType:
        if max(numbers) >= 6:
            widest.append(pa.string())
        return widest[-1]

    evaluation = Evaluation(2, type_of)
    result = evaluated_in_parts(changes(8), evaluation.evaluate, refuse, lambda _: False).result
    assert result.rows["out"]["n"].to_pylist() == [str(number) for number in range(8)]


def test_types_that_never_fit_together_are_an_error() -> None:
    evaluation = Evaluation(2, lambda numbers: pa.string() if min(numbers) % 4 else pa.date64())
    with pytest.raises(ResultError, match="other column types for one part"):
        evaluated_in_parts(changes(8), evaluation.evaluate, refuse, lambda _: False)


@pytest.mark.parametrize(
    ("wrapped", "kind"),
    [
        (lambda kind: kind, "plain"),
        (pa.list_, "list"),
        (pa.large_list, "list"),
        (lambda kind: pa.list_(kind, 1), "list"),
        (lambda kind: pa.map_(pa.string(), kind), "map"),
        (lambda kind: pa.struct([("a", kind)]), "struct"),
    ],
)
def test_decimals_are_not_joined_with_floats(wrapped: Any, kind: str) -> None:
    """A float has 17 digits: what Pandas makes of a part without values is a float."""
    exact = Decimal("12345678901234567890.12")
    values = {"plain": exact, "list": [exact], "map": [("a", exact)], "struct": {"a": exact}}
    parts = [
        pa.table({"x": pa.array([value], wrapped(of_part))})
        for value, of_part in ((values[kind], pa.decimal128(22, 2)), (None, pa.float64()))
    ]
    with pytest.raises(ResultError, match="other column types for one part"):
        joined(
            [
                PartResult(FunctionResult(changes(1), {"out": rows}, changes(0)), ReadReport())
                for rows in parts
            ]
        )
