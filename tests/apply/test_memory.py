"""A run stays within its memory budget, measured by the system for its process."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from datazone_dagster.changelog.log import ChangeLog
from datazone_dagster.changelog.schema import ShardRecords
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.record import ChangeRecord

MIB = 1 << 20
BATCH_BYTES = 32 * MIB


class Ran(NamedTuple):
    records: int
    rows: int
    chunks: int
    peak_bytes: int


def run(lake: Path, way: str, budget: int) -> Ran:
    command = [sys.executable, "-m", "tests.apply.memory_child", str(lake), way, str(budget)]
    output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    return Ran(*map(int, output.split()))


def compact(image: object) -> bytes:
    """Return an image as the service writes it: other ones are parsed in another way."""
    return json.dumps(image, separators=(",", ":")).encode()


def change(number: int, key: str, image_bytes: int) -> ChangeRecord:
    # Noise, or the codec would compress it to nothing.
    filling = random.Random(number).randbytes(image_bytes // 2).hex()
    image = compact({"id": {"S": key}, "total": {"N": str(number)}, "note": {"S": filling}})
    return ChangeRecord(
        event_id=f"e{number}",
        event_name="MODIFY",
        sequence_number=10**22 + number,
        created_at=1_700_000_000,
        keys=compact({"id": {"S": key}}),
        new_image=image,
        old_image=image,
        size_bytes=2 * len(image),
        region="eu-west-1",
        view_type="NEW_AND_OLD_IMAGES",
    )


def batches(keys: Sequence[str], image_bytes: int) -> Iterator[list[ChangeRecord]]:
    batch: list[ChangeRecord] = []
    pending_bytes = 0
    for number, key in enumerate(keys):
        batch.append(change(number, key, image_bytes))
        pending_bytes += batch[-1].size_bytes
        if pending_bytes >= BATCH_BYTES:
            yield batch
            batch, pending_bytes = [], 0
    if batch:
        yield batch


def land(lake: Path, keys: Sequence[str], image_bytes: int) -> int:
    """Land a backlog in batches as a drain makes them; return its decoded bytes."""
    log = ChangeLog(Layout(str(lake)), "orders").open_or_create()
    landed = 0
    for batch in batches(keys, image_bytes):
        log.append(1, [ShardRecords("arn", "s", None, batch)])
        landed += sum(record.size_bytes for record in batch)
    return landed


BUDGET = 512 * MIB


@pytest.fixture(scope="module")
def backlog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """35,000 changes of 20 KB on 7,000 keys."""
    lake = tmp_path_factory.mktemp("backlog")
    assert land(lake, [f"k{number % 7000}" for number in range(35_000)], 10_000) > BUDGET
    return lake


@pytest.fixture(scope="module")
def large_items(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """900 changes of items of 400 KB, the limit of DynamoDB."""
    lake = tmp_path_factory.mktemp("large")
    assert land(lake, [f"k{number % 300}" for number in range(900)], 400_000) > BUDGET
    return lake


LONG = pytest.mark.faults


@pytest.mark.parametrize(
    "way", ["full", pytest.param("images", marks=LONG), pytest.param("row_wise", marks=LONG)]
)
def test_a_backlog_larger_than_the_budget_fits(backlog: Path, way: str) -> None:
    ran = run(backlog, way, BUDGET)
    assert (ran.records, ran.rows) == (35_000, 7000)
    assert ran.peak_bytes < BUDGET
    assert ran.chunks > 2 or way == "row_wise"


@LONG
@pytest.mark.parametrize("way", ["append", "history", "items"])
def test_a_backlog_fits_where_every_change_counts(backlog: Path, way: str) -> None:
    ran = run(backlog, way, BUDGET)
    assert (ran.records, ran.rows) == (35_000, 35_000)
    assert ran.peak_bytes < BUDGET


@LONG  # the default run has test_large_items.py
@pytest.mark.parametrize("way", ["row_wise", "full"])
def test_items_of_the_largest_size_fit(large_items: Path, way: str) -> None:
    ran = run(large_items, way, BUDGET)
    assert (ran.records, ran.rows) == (900, 300)
    assert ran.peak_bytes < BUDGET


def test_one_key_over_and_over_is_one_row_in_one_merge(tmp_path: Path) -> None:
    land(tmp_path, ["hot"] * 100_000, 400)
    ran = run(tmp_path, "row_wise", BUDGET)
    assert (ran.records, ran.rows, ran.chunks) == (100_000, 1, 1)
    assert ran.peak_bytes < BUDGET


@LONG
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("way", "keys"), [("row_wise", 100_000), ("full", 100_000), ("full", 1)])
def test_a_million_changes_fit_the_default_budget_and_half_of_it(
    tmp_path: Path, way: str, keys: int
) -> None:
    lake = tmp_path / "lake"
    assert land(lake, [f"k{n % keys}" for n in range(1_000_000)], 1200) > 2 * 1024 * MIB
    for budget in (1024 * MIB, 512 * MIB):
        ran = run(shutil.copytree(lake, tmp_path / str(budget)), way, budget)
        assert (ran.records, ran.rows) == (1_000_000, keys)
        assert ran.peak_bytes < budget
