"""`datazone-dagster cost`: estimate what a stream costs a month."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Literal

import click

from datazone_dagster.commands.output import json_option, say_json
from datazone_dagster.observe.cost import (
    SECONDS_A_MONTH,
    MonthlyCost,
    Polling,
    Rates,
    StreamSize,
    monthly_cost,
)
from datazone_dagster.observe.kinesis_cost import KinesisCost, KinesisStream, kinesis_cost
from datazone_dagster.pipeline import LISTENING, POLLING


@click.command(short_help="Estimate what a stream costs a month: calls, storage, CPU.")
@click.option("--shards", type=click.IntRange(min=1), required=True, help="Number of open shards.")
@click.option(
    "--writes",
    type=click.FloatRange(min=0),
    required=True,
    help="Changes per second, over all shards.",
)
@click.option(
    "--record-bytes",
    type=click.IntRange(min=1),
    default=1800,
    show_default=True,
    help="Size of a stream record with its images, as JSON.",
)
@click.option(
    "--tick-seconds",
    type=click.FloatRange(min=1),
    default=15.0,
    show_default=True,
    help="Seconds between two drains: 15 in an object store, if you set no others.",
)
@click.option(
    "--listening",
    is_flag=True,
    help="Ticks listen, in a local lakehouse: a busy shard is read every second, storage is yours.",
)
@click.option(
    "--datasets",
    type=click.IntRange(min=0),
    default=1,
    show_default=True,
    help="Number of datasets made from the stream.",
)
@click.option(
    "--kept-days",
    type=click.FloatRange(min=0),
    default=30.0,
    show_default=True,
    help="Days that the change log stores changes.",
)
@click.option(
    "--kinesis",
    type=click.Choice(["on-demand", "provisioned"]),
    help="Capacity mode of the Kinesis stream that the changes come through; unset: they come "
    "through the stream of the table.",
)
@click.option(
    "--kinesis-days",
    type=click.FloatRange(1, 365),
    default=1.0,
    show_default=True,
    help="Days that the Kinesis stream keeps changes.",
)
@json_option
def cost(
    shards: int,
    writes: float,
    record_bytes: int,
    tick_seconds: float,
    listening: bool,
    datasets: int,
    kept_days: float,
    kinesis: Literal["on-demand", "provisioned"] | None,
    kinesis_days: float,
    as_json: bool,
) -> None:
    """Estimate what draining and applying a stream costs in a month of 30 days.

    Prices are those of us-east-1 in US dollars and do not include machines. The page
    'Cost' of the documentation has the model, and how it is checked.
    """
    polling: Polling = POLLING
    rates = Rates()
    if listening:
        (_, tick_seconds), *polling = LISTENING
        rates = Rates(price_1k_puts=0, price_1k_gets=0, price_gb_month=0)
    through: KinesisCost | None = None
    if kinesis is not None:
        rates = replace(rates, price_100k_calls=0)
        stream = KinesisStream(kinesis, shards, kinesis_days)
        through = kinesis_cost(stream, writes * SECONDS_A_MONTH, record_bytes)
    size = StreamSize(shards, writes, record_bytes, tick_seconds, datasets)
    costs = monthly_cost(size, polling, kept_days=kept_days, rates=rates)
    if as_json:
        sums = {name: getattr(costs, name) for name in ("cpu_seconds", "cores", "price")}
        if through is not None:
            sums["price"] += through.price
        say_json({**asdict(costs), **sums, "kinesis": through and asdict(through)})
    else:
        click.echo(table(costs, rates, through))


def table(costs: MonthlyCost, rates: Rates, through: KinesisCost | None = None) -> str:
    """Return the cost as lines of text."""
    free = f"{rates.calls_free:,.0f}" if through is None else "all"
    price = costs.price + (0.0 if through is None else through.price)
    return "\n".join(
        (
            f"GetRecords calls   {costs.calls:>15,.0f} a month   ${costs.calls_price:>9,.2f}"
            f"   ({free} are free)",
            *(() if through is None else _kinesis_lines(through)),
            f"storage writes     {costs.puts:>15,.0f} a month   ${costs.puts_price:>9,.2f}",
            f"storage reads      {costs.gets:>15,.0f} a month   ${costs.gets_price:>9,.2f}",
            f"change log         {costs.stored_gb:>15,.1f} GB        ${costs.stored_price:>9,.2f}",
            f"runs               {costs.runs:>15,.0f} a month",
            f"CPU                {costs.cpu_seconds:>15,.0f} seconds   "
            f"({costs.cores:.2f} cores on average: {_shares(costs)})",
            f"total              {'':>15}           ${price:>9,.2f}",
        )
    )


def _kinesis_lines(through: KinesisCost) -> tuple[str, ...]:
    return (
        f"sent by DynamoDB   {through.units:>15,.0f} units     ${through.units_price:>9,.2f}",
        f"Kinesis stream     {'':>15}           ${through.stream_price:>9,.2f}",
        f"Kinesis retention  {'':>15}           ${through.kept_price:>9,.2f}",
    )


def _shares(costs: MonthlyCost) -> str:
    shares = {
        "drains": costs.drain_cpu_seconds,
        "runs": costs.run_cpu_seconds,
        "daemon": costs.daemon_cpu_seconds,
    }
    return ", ".join(f"{name} {one / SECONDS_A_MONTH:.3f}" for name, one in shares.items())
