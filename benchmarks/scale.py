"""Ten thousand shards, a million changes a second: what a tick costs, and what is to be set.

    python -m benchmarks.scale [shards]

The code that decides is the real one: which parts of a listing to ask for, which shards to read,
what the checkpoint becomes and how it is saved, how large batches are, which bucket has a key.
The service is simulated: there are no records, no network and no store. Rates per CPU second are
those that the other benchmarks measured.
"""

from __future__ import annotations

import json
import logging
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.batch_simulation import World, simulated
from benchmarks.many_shards import ARN, ManyShards
from benchmarks.measure import RESULTS, child_variant
from datazone_dagster.changelog.checkpoints import CheckpointTable
from datazone_dagster.drain.checkpoint_update import (
    is_worth_saving,
    moved_positions,
    updated_checkpoint,
)
from datazone_dagster.drain.drain_report import drain_report
from datazone_dagster.drain.plan import ShardRead, plan_drain
from datazone_dagster.drain.polling import POLLING, Activities, due, record_activity
from datazone_dagster.drain.pruning import pruned
from datazone_dagster.drain.shard_listing import ListingState, ShardListing
from datazone_dagster.drain.stream_choice import Listing, stream_to_read
from datazone_dagster.model.checkpoint import Checkpoint, fold
from datazone_dagster.model.key_bucket import key_buckets
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.size_policy import batch_limits
from datazone_dagster.observe.cost import Rates, StreamSize, calls_of_a_shard, monthly_cost
from datazone_dagster.rows.key_hash import are_of, slots_of_keys

SHARDS = 10_000
CHANGES_PER_SECOND = 1_000_000
RECORD_BYTES = 1800
TICK_SECONDS = 5.0
RECORDS_PER_CPU_SECOND = 115_000
"""Records of 1.8 KB that a process drains: benchmarks/results/drain.md."""
APPLIED_PER_CPU_SECOND = 1e6 / Rates().apply_cpu_seconds
MEMORY_BUDGET = 512 << 20
DESCRIBE_LIMIT = 10.0
"""DescribeStream calls a second, for all streams of an account in a region."""
LOGGER = logging.getLogger(__name__)


class Spent:
    """CPU seconds by step."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def on(self, step: str) -> Iterator[None]:
        started = time.process_time()
        yield
        took = time.process_time() - started
        self.seconds[step] = self.seconds.get(step, 0.0) + took


class Drains:
    """Ticks of one process over a simulated stream: everything but records and the change log."""

    def __init__(self, stream: ManyShards) -> None:
        self.stream = stream
        self.checkpoint = Checkpoint()
        self.state: ListingState | None = None
        self.spent = Spent()
        self.ticks = 0
        self.waits: list[float] = []
        self.saved = Checkpoint()
        self.saves = 0
        self._activities: Activities = {}
        self._asked_at: dict[str, float] = {}

    def tick(self, batches: int = 2) -> None:
        """One tick: a batch, and the ones after it, which read the children of ended shards."""
        self.stream.advance(TICK_SECONDS)
        self.ticks += 1
        for _ in range(batches):
            self._batch()

    def _batch(self) -> None:
        stream, spent, now = self.stream, self.spent, self.stream.now
        with spent.on("fold"):
            checkpoint = fold(self.checkpoint, [], self.checkpoint.batch, now)
            checkpoint = checkpoint.without_ended_streams()
        with spent.on("listing"):
            described = stream_to_read(
                lambda arn: self._listed(arn, checkpoint), Listing((ARN,), None, None), checkpoint
            )
        if self.state is None or not (checkpoint.shards or self.state.view.listed_at):
            return
        with spent.on("plan"):
            plan = plan_drain(described, checkpoint, start="trim_horizon", now=now)
        with spent.on("poll"):
            poll = due(plan.reads, self._activities, stream.seconds, POLLING)
        outcomes = stream.read(poll.reads)
        self._note_waits(poll.reads)
        with spent.on("advance"):
            reached = updated_checkpoint(plan.checkpoint, outcomes, now, now)
            moved_positions(reached, outcomes)
            batch = checkpoint.batch + 1
            reached = pruned(reached.at(batch=batch), described, now=now)
        with spent.on("is a save due"):
            self.saves += is_worth_saving(self.saved, reached, positions=False)
            self.saved = reached
        with spent.on("report"):
            record_activity(self._activities, outcomes, stream.seconds)
            drain_report(
                "orders",
                described,
                plan,
                poll,
                outcomes,
                reached,
                batch=batch,
                head=batch,
                log_version=1,
                began_at=now,
                lost_race=False,
                duration_seconds=1.0,
                snapshot=None,
            )
        self.checkpoint = reached

    def _listed(self, arn: str, checkpoint: Checkpoint) -> Any:
        listing = ShardListing(
            self.stream,
            arn,
            checkpoint,
            self.state,
            now=self.stream.now,
            seconds=self.stream.seconds,
            logger=LOGGER,
        )
        listing.look()
        self.state = listing.state
        return listing.state.view.described()

    def _note_waits(self, reads: Sequence[ShardRead]) -> None:
        """Note how long after its parent's end a new shard is read first."""
        for read in reads:
            row = read.shard
            parent = row.parent_shard_id
            if row.sequence_number is None and parent is not None and self.stream.is_closed(parent):
                ended_at = self.stream.ended_at(parent)
                if ended_at > 0:  # since the first tick
                    self.waits.append(self.stream.seconds - ended_at)


def phase(name: str, drains: Drains, ticks: int) -> dict[str, Any]:
    """Run some ticks and return what they asked for and how long children waited."""
    calls, seconds = drains.stream.describe_calls, drains.stream.seconds
    drains.waits.clear()
    each: list[int] = []
    for _ in range(ticks):
        before = drains.stream.describe_calls
        drains.tick()
        each.append(drains.stream.describe_calls - before)
    took = drains.stream.seconds - seconds
    waits = sorted(drains.waits)
    return {
        "phase": name,
        "seconds": took,
        "calls": drains.stream.describe_calls - calls,
        "calls_per_second": (drains.stream.describe_calls - calls) / took,
        "most_calls_of_a_tick": max(each),
        "whole_listings_per_second": -(-drains.stream.listed // 100) / TICK_SECONDS,
        "children": len(waits),
        "longest_wait_seconds": waits[-1] if waits else 0.0,
    }


def a_day(shards: int) -> tuple[list[dict[str, Any]], dict[str, Any], Drains]:
    """Simulate parts of a day: the first listing, steady traffic, many ends at once, a restart."""
    stream = ManyShards(shards)
    drains = Drains(stream)
    phases = [phase("first listing", drains, 32)]
    drains.spent, drains.ticks = Spent(), 0
    phases.append(phase("steady", drains, 6))
    per_tick = {step: took / drains.ticks for step, took in drains.spent.seconds.items()}
    stream.end_all_within(60.0)
    phases.append(phase("all shards end within a minute", drains, 14))
    drains.state = None
    phases.append(phase("a new process", drains, 2))
    return phases, per_tick, drains


def saved(drains: Drains) -> dict[str, float]:
    """Save the checkpoint once and once more, and read it in a new process."""
    with tempfile.TemporaryDirectory(prefix="bench-scale-") as folder:
        layout = Layout(folder)
        CheckpointTable(layout, "orders").open_or_create().save(drains.checkpoint)
        drains.tick()
        opened = CheckpointTable(layout, "orders").known_or_created()
        started = time.process_time()
        opened.save(drains.checkpoint)
        save_seconds = time.process_time() - started
        sizes = [path.stat().st_size for path in Path(folder).rglob("*.parquet")]
        read_seconds = json.loads(_in_child("read", folder))
    return {
        "rows": len(drains.checkpoint.shards),
        "bytes": min(sizes),
        "save_cpu_seconds": save_seconds,
        "read_cpu_seconds": read_seconds,
    }


def read_seconds_of(folder: str) -> float:
    started = time.process_time()
    opened = CheckpointTable(Layout(folder), "orders").open()
    assert opened is not None
    return time.process_time() - started


def lag_of_workers(
    workers: int, changes_per_second: float, commit_seconds: float
) -> dict[str, float]:
    """Simulate ten minutes of one of the workers, by the real size policy."""
    arriving = changes_per_second / workers * RECORD_BYTES
    world = World(
        arriving_bytes_per_second=lambda _: arriving,
        work_bytes_per_second=lambda _: RECORDS_PER_CPU_SECOND * RECORD_BYTES,
        commit_seconds=lambda _: commit_seconds,
    )
    steps = list(simulated(world, 600.0, limits=batch_limits(MEMORY_BUDGET)))
    late = [step.backlog_bytes / arriving for step in steps if step.at_seconds > 300]
    batches = len([step for step in steps if step.batch_bytes]) / 600.0
    return {
        "workers": workers,
        "lag_seconds": max(late),
        "grows": float(late[-1] > 1.2 * late[0] + TICK_SECONDS),
        "commits_per_second": batches * workers,
    }


def bucket_shares(buckets: int, keys: int = 200_000) -> float:
    """Return the keys of the largest bucket as a share of the mean."""
    slots = slots_of_keys(pa.array([f"S:customer-{number}" for number in range(keys)]))
    counts = [int(np.count_nonzero(are_of(one, slots))) for one in key_buckets(buckets)]
    return max(counts) * buckets / keys


def measured(shards: int) -> dict[str, Any]:
    started = time.process_time()
    phases, per_tick, drains = a_day(shards)
    found: dict[str, Any] = {
        "shards": shards,
        "listed": drains.stream.listed,
        "phases": phases,
        "tick_cpu_ms": {step: 1e3 * took for step, took in per_tick.items()},
        "checkpoint": saved(drains),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    found["lag"] = [
        {"commit_seconds": commit, **lag_of_workers(workers, CHANGES_PER_SECOND, commit)}
        for commit in (0.02, 0.1)
        for workers in (4, 8, 12, 16, 24)
    ]
    found["buckets"] = {count: bucket_shares(count) for count in (4, 16, 64)}
    size = StreamSize(shards, CHANGES_PER_SECOND, RECORD_BYTES, TICK_SECONDS)
    cost = monthly_cost(size, POLLING, kept_days=2.0)
    found["cost"] = {
        "calls_per_second": cost.calls / (30 * 86_400),
        "calls_a_shard_and_tick": calls_of_a_shard(size.records_per_shard_and_tick, RECORD_BYTES),
        "calls_price": cost.calls_price,
        "puts_price": cost.puts_price,
        "stored_price": cost.stored_price,
        "cores": cost.cores,
    }
    found["cpu_seconds"] = time.process_time() - started
    return found


def table(found: dict[str, Any]) -> str:
    listed = found["listed"]
    lines = [
        f"### {found['shards']:,} open shards, {listed:,} listed ones: simulated",
        "",
        "DescribeStream calls; the service allows "
        f"{DESCRIBE_LIMIT:.0f} a second for all streams of an account and region.",
        "",
        "| | seconds | calls | a second | most in a tick | new shards | longest wait, s |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {one['phase']} | {one['seconds']:.0f} | {one['calls']:,} | "
        f"{one['calls_per_second']:.1f} | {one['most_calls_of_a_tick']} | {one['children']:,} | "
        f"{one['longest_wait_seconds']:.0f} |"
        for one in found["phases"]
    ]
    whole = found["phases"][0]["whole_listings_per_second"]
    lines += [
        "",
        f"A listing of all pages at each tick would take {whole:.0f} calls a second.",
        "",
        "CPU of a tick of two batches, without records (ms):",
        "",
        "| step | ms |",
        "|---|---:|",
        *(f"| {step} | {ms:.0f} |" for step, ms in found["tick_cpu_ms"].items()),
        f"| together | {sum(found['tick_cpu_ms'].values()):.0f} |",
    ]
    kept, cost = found["checkpoint"], found["cost"]
    lines += [
        "",
        f"Checkpoint: {kept['rows']:,} rows; a save writes {kept['bytes'] / 1e6:.1f} MB and takes "
        f"{kept['save_cpu_seconds']:.2f} CPU s, a new process reads it in "
        f"{kept['read_cpu_seconds']:.2f} CPU s. Peak memory of the simulation: "
        f"{found['peak_mib']:.0f} MiB.",
        "",
        f"### {CHANGES_PER_SECOND:,} changes a second, by drain workers of one core: simulated",
        "",
        f"From {RECORDS_PER_CPU_SECOND:,} records per CPU second (measured) and batches by the "
        "size policy.",
        "",
        "| workers | commit, s | lag, s | commits a second |",
        "|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {one['workers']} | {one['commit_seconds']} | "
        f"{'grows' if one['grows'] else format(one['lag_seconds'], '.0f')} | "
        f"{one['commits_per_second']:.0f} |"
        for one in found["lag"]
    ]
    lines += [
        "",
        "Largest bucket, as a share of the mean: "
        + ", ".join(f"{share:.2f} of {count}" for count, share in found["buckets"].items())
        + ".",
        "",
        f"A month: {cost['calls_per_second']:,.0f} GetRecords calls a second "
        f"(${cost['calls_price']:,.0f}), PUTs ${cost['puts_price']:,.0f}, two days of the change "
        f"log ${cost['stored_price']:,.0f}, {cost['cores']:.1f} cores.",
        "",
    ]
    return "\n".join(lines)


def _in_child(what: str, argument: str) -> str:
    command = [sys.executable, "-m", "benchmarks.scale", "--child", what, argument]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.splitlines()[-1]


def main(results: Path, shards: int = SHARDS) -> None:
    """Simulate in a process of its own, whose memory is measured as well."""
    found = json.loads(_in_child("measured", str(shards)))
    results.mkdir(parents=True, exist_ok=True)
    (results / "scale.json").write_text(json.dumps(found, indent=1))
    (results / "scale.md").write_text(table(found))
    print(table(found))


if __name__ == "__main__":
    asked = child_variant(sys.argv)
    if asked:
        what, (argument,) = asked
        print(json.dumps(read_seconds_of(argument) if what == "read" else measured(int(argument))))
    else:
        main(RESULTS, *map(int, sys.argv[1:]))
