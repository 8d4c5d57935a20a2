"""Monthly price of a Kinesis stream that takes the changes of a table. Pure.

DynamoDB bills the changes that it sends, Kinesis the stream. Calls that read a stream are free.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

HOURS_A_MONTH = 30 * 24
DAYS_A_MONTH = 30
_KB = 1024
_GB = 1024**3
_LONG_DAYS = 7
"""Days after which changes are kept at the price of long-term retention."""


@dataclass(frozen=True, slots=True)
class KinesisStream:
    """A stream of Kinesis.

    Args:
        mode: Capacity mode.
        shards: Number of open shards; their hours are billed in provisioned mode only.
        kept_days: Retention of the stream, in days.
    """

    mode: Literal["on-demand", "provisioned"]
    shards: int
    kept_days: float = 1.0


@dataclass(frozen=True, slots=True)
class KinesisRates:
    """Prices in US dollars, of us-east-1 in November 2026.

    From https://aws.amazon.com/kinesis/data-streams/pricing/ and, for the changes that DynamoDB
    sends, https://aws.amazon.com/dynamodb/pricing/on-demand/. Give others for another region.

    Args:
        price_1m_units: A million change data capture units: 1 KB each of the larger image.
        price_shard_hour: Hour of a provisioned shard.
        price_1m_puts: A million puts of 25 KB into a provisioned stream.
        price_kept_shard_hour: Hour of a provisioned shard that keeps changes for up to 7 days.
        price_stream_hour: Hour of an on-demand stream.
        price_gb_in: GB written to an on-demand stream; each record counts in full KB.
        price_gb_out: GB read from an on-demand stream.
        price_kept_gb: GB and month in an on-demand stream, for up to 7 days.
        price_long_gb: GB and month in any stream, after 7 days.
    """

    price_1m_units: float = 0.10
    price_shard_hour: float = 0.015
    price_1m_puts: float = 0.014
    price_kept_shard_hour: float = 0.02
    price_stream_hour: float = 0.04
    price_gb_in: float = 0.08
    price_gb_out: float = 0.04
    price_kept_gb: float = 0.10
    price_long_gb: float = 0.023


@dataclass(frozen=True, slots=True)
class KinesisCost:
    """Cost of a month of 30 days. Prices in US dollars.

    Args:
        units: Change data capture units.
        units_price: Their price.
        stream_price: Price of the stream, of what is written to it, and of what is read.
        kept_price: Price of keeping changes for more than a day.
    """

    units: float
    units_price: float
    stream_price: float
    kept_price: float

    @property
    def price(self) -> float:
        """Price of it all."""
        return self.units_price + self.stream_price + self.kept_price


def kinesis_cost(
    stream: KinesisStream,
    changes: float,
    record_bytes: int,
    rates: KinesisRates = KinesisRates(),
) -> KinesisCost:
    """Return the monthly cost of a stream of Kinesis.

    Args:
        stream: The stream.
        changes: Changes in a month.
        record_bytes: Size of a record, with two images of about the same size.
        rates: Prices.
    """
    units = changes * max(1, math.ceil(record_bytes / 2 / _KB))
    gb = changes * math.ceil(record_bytes / _KB) * _KB / _GB
    gb_a_day = gb / DAYS_A_MONTH
    extended_days = min(stream.kept_days, _LONG_DAYS) - 1
    if stream.mode == "provisioned":
        shard_hours = stream.shards * HOURS_A_MONTH
        puts = changes * math.ceil(record_bytes / (25 * _KB))
        stream_price = shard_hours * rates.price_shard_hour + puts / 1e6 * rates.price_1m_puts
        kept_price = shard_hours * rates.price_kept_shard_hour if extended_days > 0 else 0.0
    else:
        stream_price = HOURS_A_MONTH * rates.price_stream_hour
        stream_price += gb * (rates.price_gb_in + rates.price_gb_out)
        kept_price = gb_a_day * max(0.0, extended_days) * rates.price_kept_gb
    kept_price += gb_a_day * max(0.0, stream.kept_days - _LONG_DAYS) * rates.price_long_gb
    return KinesisCost(units, units / 1e6 * rates.price_1m_units, stream_price, kept_price)
