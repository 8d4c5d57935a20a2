"""Monthly cost of a stream, derived from its size: calls, storage and CPU. Pure.

At every tick a drain reads each due shard until a page comes back empty. So a shard with records
takes one call per full page and one more, an idle shard a single call. Quiet shards are polled
less often (see `drain.polling`). Each call is billed.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from datazone_dagster.model.service_limits import PAGE_BYTES, PAGE_RECORDS

SECONDS_A_MONTH = 30 * 24 * 3600
CHECKPOINT_SHARE = 1 / 6
"""Delta checkpoints per commit of ours; each is two reads and two PUTs."""

COMMIT_PUTS = 2 + 2 * CHECKPOINT_SHARE
"""PUTs per landed batch: a data file and a log entry of the change log."""

SAVE_PUTS = 2 + 2 * CHECKPOINT_SHARE
SAVES_A_MONTH = 4 / 3 * SECONDS_A_MONTH / 60
"""PUTs of a save of the checkpoint: once a minute in which a batch landed, and before a Delta
checkpoint of the change log."""

COMMIT_GETS = 5
IDLE_GETS = 2
"""GETs of a tick that lands: three looks, and about two as its share of Delta checkpoints and of
joined files; and of an idle one: two looks."""


MERGE_PUTS = 3 + 2 * CHECKPOINT_SHARE
MERGE_GETS = 9
"""Requests of a merge of few changes: a data file, a deletion vector and a log entry; and looks."""

MERGE_SECONDS = 40.0
LOOK_SECONDS = 3.0
STAY_SECONDS = 30.0
"""Times of a run in an object store: between two small merges, between two looks for changes, and
without changes until it ends."""

LONGEST_RUN_SECONDS = 3600.0
"""Time after which a run that stays ends, and another one starts."""


@dataclass(frozen=True, slots=True)
class StreamSize:
    """Average size of a stream.

    Args:
        shards: Number of open shards: about one per partition of the table.
        writes_per_second: Changes per second over all shards.
        record_bytes: Size of a record as GetRecords sends it, with both images.
        tick_seconds: Time between two drains.
        datasets: Number of datasets made from the stream.
    """

    shards: int
    writes_per_second: float
    record_bytes: int = 1800
    tick_seconds: float = 15.0
    datasets: int = 1

    @property
    def records_per_shard_and_tick(self) -> float:
        """Changes per shard between two drains."""
        return self.writes_per_second * self.tick_seconds / self.shards


@dataclass(frozen=True, slots=True)
class Rates:
    """Prices in US dollars (us-east-1) and measured resource use of this library.

    Measured by `benchmarks/` with records of 1.8 KB; the page 'Performance' of the
    documentation has the figures.

    Args:
        calls_free: Stream reads per month that are free.
        price_100k_calls: Price of 100,000 further stream reads.
        price_gb_month: Price of object storage per GB and month.
        price_1k_puts: Price of 1,000 writes to object storage.
        price_1k_gets: Price of 1,000 reads of object storage.
        stored_share: Stored size of a change, as a share of the record's size.
        drain_cpu_seconds: CPU time per million changes, from the service by HTTP to the change log.
        apply_cpu_seconds: CPU time per million changes, from the change log to a dataset.
        tick_cpu_seconds: CPU time of a drain, regardless of its records.
        landing_cpu_seconds: Further CPU time of a drain that lands a batch, with its report.
        run_start_cpu_seconds: CPU time of a run's process before it applies: Python, Dagster, code.
        run_cores: CPU cores of a run that stays, besides its changes: looks, small merges, reports.
        daemon_cores: CPU cores of Dagster's daemon.
    """

    calls_free: float = 2_500_000
    price_100k_calls: float = 0.02
    price_gb_month: float = 0.023
    price_1k_puts: float = 0.005
    price_1k_gets: float = 0.0004
    stored_share: float = 0.16
    drain_cpu_seconds: float = 13.5
    apply_cpu_seconds: float = 3.5
    tick_cpu_seconds: float = 0.07
    landing_cpu_seconds: float = 0.1
    run_start_cpu_seconds: float = 3.0
    run_cores: float = 0.013
    daemon_cores: float = 0.025


@dataclass(frozen=True, slots=True)
class MonthlyCost:
    """Cost of a month of 30 days. Prices in US dollars."""

    calls: float
    calls_price: float
    puts: float
    puts_price: float
    gets: float
    gets_price: float
    stored_gb: float
    stored_price: float
    runs: float
    drain_cpu_seconds: float
    run_cpu_seconds: float
    daemon_cpu_seconds: float

    @property
    def cpu_seconds(self) -> float:
        """CPU time of the code server's drains, of the processes of runs, and of the daemon."""
        return self.drain_cpu_seconds + self.run_cpu_seconds + self.daemon_cpu_seconds

    @property
    def price(self) -> float:
        """Price of the service and of storage; machines are not included."""
        return self.calls_price + self.puts_price + self.gets_price + self.stored_price

    @property
    def cores(self) -> float:
        """Average number of busy CPU cores."""
        return self.cpu_seconds / SECONDS_A_MONTH


Polling = Sequence[tuple[float, float]]
"""Pairs of (seconds without a record, seconds between polls of a shard), ascending."""


def calls_of_a_shard(records: float, record_bytes: int) -> float:
    """Return the average number of GetRecords calls that read a shard to its latest position.

    Args:
        records: Records that arrive between two drains, at random times (a Poisson process).
        record_bytes: Size of one record.
    """
    page = max(1, min(PAGE_RECORDS, PAGE_BYTES // record_bytes))
    full_pages = 0.0
    below = term = math.exp(-records) if records < 700 else 0.0
    if not below:  # exp underflows: assume that half a page is left over on average
        return records / page + 1.5
    counted, wanted = 0, 0
    while below < 1 - 1e-9 and wanted <= records + 20 * math.sqrt(records) + page:
        while counted < wanted:
            counted += 1
            term *= records / counted
            below += term
        full_pages += max(0.0, 1 - below)
        wanted += page
    return full_pages + 1


def monthly_calls(size: StreamSize, polling: Polling) -> float:
    """Return the number of GetRecords calls in a month.

    Args:
        size: Size of the stream.
        polling: Poll intervals of idle shards.
    """
    ticks = SECONDS_A_MONTH / size.tick_seconds
    per_second = size.writes_per_second / size.shards
    records = size.records_per_shard_and_tick
    with_records = calls_of_a_shard(records, size.record_bytes) - 1
    empty = 0.0
    stages = [(0.0, size.tick_seconds), *polling, (math.inf, math.inf)]
    for (after, interval), (until, _) in itertools.pairwise(stages):
        share = math.exp(-per_second * after) - math.exp(-per_second * until)
        if per_second == 0:
            share = 1.0 if until == math.inf else 0.0
        ticks_apart = math.ceil(interval / size.tick_seconds)
        empty += share / ticks_apart
    return size.shards * ticks * (with_records + empty)


def monthly_cost(
    size: StreamSize, polling: Polling, *, kept_days: float = 30.0, rates: Rates = Rates()
) -> MonthlyCost:
    """Return the monthly cost of a stream.

    Args:
        size: Size of the stream.
        polling: Poll intervals of idle shards.
        kept_days: Retention of changes in the change log, in days.
        rates: Prices and measured resource use.
    """
    ticks = SECONDS_A_MONTH / size.tick_seconds
    calls = monthly_calls(size, polling)
    changes = size.writes_per_second * SECONDS_A_MONTH
    landing = ticks * _share_with_changes(size, size.tick_seconds)
    merges = size.datasets * _share_with_changes(size, MERGE_SECONDS) / MERGE_SECONDS
    looks = size.datasets * _share_with_changes(size, STAY_SECONDS) / LOOK_SECONDS
    puts = COMMIT_PUTS * landing + SAVE_PUTS * min(landing, SAVES_A_MONTH)
    puts += MERGE_PUTS * merges * SECONDS_A_MONTH
    gets = COMMIT_GETS * landing + IDLE_GETS * (ticks - landing)
    gets += (MERGE_GETS * merges + looks) * SECONDS_A_MONTH
    stored_bytes = size.writes_per_second * 86_400 * kept_days * size.record_bytes
    stored_gb = stored_bytes * rates.stored_share / 1e9
    runs = monthly_runs(size)
    staying_seconds = size.datasets * _share_with_changes(size, STAY_SECONDS) * SECONDS_A_MONTH
    return MonthlyCost(
        calls=calls,
        calls_price=max(0.0, calls - rates.calls_free) / 1e5 * rates.price_100k_calls,
        puts=puts,
        puts_price=puts / 1e3 * rates.price_1k_puts,
        gets=gets,
        gets_price=gets / 1e3 * rates.price_1k_gets,
        stored_gb=stored_gb,
        stored_price=stored_gb * rates.price_gb_month,
        runs=runs,
        drain_cpu_seconds=changes / 1e6 * rates.drain_cpu_seconds
        + ticks * rates.tick_cpu_seconds
        + landing * rates.landing_cpu_seconds,
        run_cpu_seconds=changes / 1e6 * rates.apply_cpu_seconds * size.datasets
        + runs * rates.run_start_cpu_seconds
        + staying_seconds * rates.run_cores,
        daemon_cpu_seconds=SECONDS_A_MONTH * rates.daemon_cores,
    )


def monthly_runs(size: StreamSize) -> float:
    """Return the number of runs in a month: each starts a process.

    A run begins with the first change after the last run's end, which comes after half a minute
    without changes, or after an hour. Each dataset counts as a transform of its own.
    """
    after_silence = size.writes_per_second * math.exp(-size.writes_per_second * STAY_SECONDS)
    after_an_hour = _share_with_changes(size, STAY_SECONDS) / LONGEST_RUN_SECONDS
    return size.datasets * (after_silence + after_an_hour) * SECONDS_A_MONTH


def _share_with_changes(size: StreamSize, seconds: float) -> float:
    """Return the share of intervals of this length in which a change comes, at random times."""
    return -math.expm1(-size.writes_per_second * seconds)
