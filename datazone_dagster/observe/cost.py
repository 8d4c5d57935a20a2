"""What a stream costs in a month: calls, storage and CPU, from its size. Pure.

Calls are what a drain makes: at every tick each shard that is due is read until a page comes
back empty, so a shard with records takes its full pages and one more, an idle one a single
call. Quiet shards are asked less often (see `drain.polling`). Each call is billed.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

SECONDS_A_MONTH = 30 * 24 * 3600
PAGE_RECORDS = 1000
PAGE_BYTES = 1_000_000
"""A GetRecords answer: at most 1,000 records or 1 MB (DynamoDB Streams API)."""

COMMIT_PUTS = 4
"""A landed batch: a data file and a log entry, in the change log and in the checkpoint table."""


@dataclass(frozen=True, slots=True)
class StreamSize:
    """A stream as it is on average.

    Args:
        shards: Open shards: about one per partition of the table.
        writes_per_second: Changes a second in all of them together.
        record_bytes: A record as GetRecords sends it, with both images.
        tick_seconds: Between two drains.
    """

    shards: int
    writes_per_second: float
    record_bytes: int = 1800
    tick_seconds: float = 5.0

    @property
    def records_per_shard_and_tick(self) -> float:
        """How many changes a shard has between two drains."""
        return self.writes_per_second * self.tick_seconds / self.shards


@dataclass(frozen=True, slots=True)
class Rates:
    """Prices in US dollars (us-east-1) and what this library was measured to take.

    Measured by `benchmarks/`, records of 1.8 KB; see docs/performance.md.

    Args:
        calls_free: Stream reads a month that are free.
        price_100k_calls: Of 100,000 further ones.
        price_gb_month: Of object storage.
        price_1k_puts: Of 1,000 writes to it.
        stored_share: Size of a change in the change log, of the record's.
        drain_cpu_seconds: Per million changes, from the service by HTTP to the change log.
        apply_cpu_seconds: Per million changes, from the change log to a dataset.
        tick_cpu_seconds: Of a drain, whatever it finds.
    """

    calls_free: float = 2_500_000
    price_100k_calls: float = 0.02
    price_gb_month: float = 0.023
    price_1k_puts: float = 0.005
    stored_share: float = 0.16
    drain_cpu_seconds: float = 13.5
    apply_cpu_seconds: float = 3.5
    tick_cpu_seconds: float = 0.07


@dataclass(frozen=True, slots=True)
class MonthlyCost:
    """A month of 30 days. Prices in US dollars."""

    calls: float
    calls_price: float
    puts: float
    puts_price: float
    stored_gb: float
    stored_price: float
    cpu_seconds: float

    @property
    def price(self) -> float:
        """Of the service and of storage; machines are not in it."""
        return self.calls_price + self.puts_price + self.stored_price

    @property
    def cores(self) -> float:
        """CPU cores that are busy on average."""
        return self.cpu_seconds / SECONDS_A_MONTH


Polling = Sequence[tuple[float, float]]
"""After so many seconds without a record, a shard is asked after so many seconds; ascending."""


def calls_of_a_shard(records: float, record_bytes: int) -> float:
    """GetRecords calls that reading a shard to its tip takes, on average.

    Args:
        records: That arrive between two drains; they come at random times (a Poisson process).
        record_bytes: Of one record.
    """
    page = max(1, min(PAGE_RECORDS, PAGE_BYTES // record_bytes))
    full_pages = 0.0
    below = term = math.exp(-records) if records < 700 else 0.0
    if not below:  # too many for single terms: half a page is left over on average
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
    """GetRecords calls of a month.

    Args:
        size: The stream.
        polling: How idle shards are asked.
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
    """What a stream costs in a month.

    Args:
        size: The stream.
        polling: How idle shards are asked.
        kept_days: How long the change log keeps changes.
        rates: Prices, and what was measured.
    """
    ticks = SECONDS_A_MONTH / size.tick_seconds
    calls = monthly_calls(size, polling)
    changes = size.writes_per_second * SECONDS_A_MONTH
    landing = ticks * -math.expm1(-size.writes_per_second * size.tick_seconds)
    puts = COMMIT_PUTS * landing
    stored_bytes = size.writes_per_second * 86_400 * kept_days * size.record_bytes
    stored_gb = stored_bytes * rates.stored_share / 1e9
    cpu_seconds = (
        changes / 1e6 * (rates.drain_cpu_seconds + rates.apply_cpu_seconds)
        + ticks * rates.tick_cpu_seconds
    )
    return MonthlyCost(
        calls=calls,
        calls_price=max(0.0, calls - rates.calls_free) / 1e5 * rates.price_100k_calls,
        puts=puts,
        puts_price=puts / 1e3 * rates.price_1k_puts,
        stored_gb=stored_gb,
        stored_price=stored_gb * rates.price_gb_month,
        cpu_seconds=cpu_seconds,
    )
