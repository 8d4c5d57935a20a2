"""Merge of an asset's result by the IO manager's writer, against a hand-written delta-rs MERGE.

    python -m benchmarks.asset_merge [rows of the table]      (default: 1,000,000)

Each variant is a process of its own, which makes the same table and merges 10,000 scattered keys
five times. Measured from Arrow rows to commit, with the IO manager's maintenance: without Dagster,
whose cost is the same for both.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from statistics import median

import numpy as np
import pyarrow as pa
from deltalake import DeltaTable, WriterProperties, write_deltalake

from benchmarks.measure import RESULTS, Measured, child_variant, in_child, measuring, report, write
from datazone_dagster.model.asset_write import AssetWrite
from datazone_dagster.model.layout import Layout
from datazone_dagster.pipeline.table_calls import write_table

OURS, BY_HAND = "IO manager, mode merge", "delta-rs MERGE by hand"
KEYS, REPEATS, ROWS = 10_000, 5, 1_000_000
MERGE = AssetWrite(mode="merge", key=("customer_id",))


def customers(ids: np.ndarray, seed: int) -> pa.Table:
    chance = np.random.default_rng(seed)
    return pa.table(
        {
            "customer_id": pa.array(ids, pa.int64()),
            "name": [f"customer {one} of the shop" for one in ids],
            **{f"value_{number}": chance.random(len(ids)) for number in range(8)},
            "seen_at": pa.array(chance.integers(0, 10**15, len(ids))).cast(
                pa.timestamp("us", tz="UTC")
            ),
        }
    )


def merge(variant: str, layout: Layout, rows: pa.Table) -> None:
    if variant == OURS:
        write_table(layout, "customers", MERGE, rows)
        return
    DeltaTable(layout.table("customers")).merge(
        rows,
        predicate="t.customer_id = s.customer_id",
        source_alias="s",
        target_alias="t",
        writer_properties=WriterProperties(compression="ZSTD", compression_level=1),
    ).when_matched_update_all().when_not_matched_insert_all().execute()


def child(variant: str, rows: int) -> Measured:
    chance = np.random.default_rng(7)
    times: list[Measured] = []
    with tempfile.TemporaryDirectory(prefix="asset-merge-") as folder:
        layout = Layout(folder)
        every = customers(chance.permutation(rows), 0)
        if variant == OURS:
            write_table(layout, "customers", AssetWrite(), every)
        else:
            write_deltalake(layout.table("customers"), every)
        for number in range(REPEATS + 1):  # the first one loads libraries
            batch = customers(chance.choice(rows + KEYS // 10, KEYS, replace=False), number)
            times.append(Measured(variant, records=KEYS))
            with measuring(times[-1]):
                merge(variant, layout, batch)
    del times[0]
    measured = times[-1]
    measured.cpu_seconds = median(one.cpu_seconds for one in times)
    measured.wall_seconds = median(one.wall_seconds for one in times)
    return measured


def main(folder: Path, rows: int) -> None:
    found = [in_child("benchmarks.asset_merge", one, str(rows)) for one in (OURS, BY_HAND)]
    lines = [
        f"### Merge of {KEYS:,} rows into a table of {rows:,}",
        "",
        "| | CPU s per merge | wall s | peak MiB of the process |",
        "|---|---:|---:|---:|",
        *(
            f"| {one.name} | {one.cpu_seconds:.2f} | {one.wall_seconds:.2f} | {one.peak_mib:.0f} |"
            for one in found
        ),
        "",
        f"{found[1].cpu_seconds / found[0].cpu_seconds:.1f} times less CPU.",
        "",
    ]
    write(folder, "asset_merge", found, "\n".join(lines))


if __name__ == "__main__":
    asked = child_variant(sys.argv)
    if asked:
        report(child(asked[0], int(asked[1][0])))
    else:
        main(RESULTS, int(sys.argv[1]) if len(sys.argv) > 1 else ROWS)
