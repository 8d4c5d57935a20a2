"""`datazone-dagster cost`: what a stream costs in a month."""

from __future__ import annotations

import click

from datazone_dagster.drain.polling import (
    QUIET_AFTER_SECONDS,
    QUIET_INTERVAL_SECONDS,
    SILENT_AFTER_SECONDS,
    SILENT_INTERVAL_SECONDS,
)
from datazone_dagster.observe.cost import MonthlyCost, Rates, StreamSize, monthly_cost

POLLING = (
    (QUIET_AFTER_SECONDS, QUIET_INTERVAL_SECONDS),
    (SILENT_AFTER_SECONDS, SILENT_INTERVAL_SECONDS),
)


@click.command(short_help="What a stream costs in a month: calls, storage, CPU.")
@click.option("--shards", type=click.IntRange(min=1), required=True, help="Open shards.")
@click.option(
    "--writes", type=click.FloatRange(min=0), required=True, help="Changes a second, all shards."
)
@click.option(
    "--record-bytes",
    type=click.IntRange(min=1),
    default=1800,
    show_default=True,
    help="A stream record with its images, as JSON.",
)
@click.option(
    "--tick-seconds",
    type=click.FloatRange(min=1),
    default=5.0,
    show_default=True,
    help="Between two drains.",
)
@click.option(
    "--kept-days",
    type=click.FloatRange(min=0),
    default=30.0,
    show_default=True,
    help="How long the change log keeps changes.",
)
def cost(
    shards: int, writes: float, record_bytes: int, tick_seconds: float, kept_days: float
) -> None:
    """What draining and applying a stream costs in a month of 30 days.

    Prices are those of us-east-1 in US dollars; machines are not in them. See docs/cost.md for
    the model and how it is checked.
    """
    size = StreamSize(shards, writes, record_bytes, tick_seconds)
    click.echo(table(monthly_cost(size, POLLING, kept_days=kept_days), Rates()))


def table(found: MonthlyCost, rates: Rates) -> str:
    """The cost as lines of text."""
    return "\n".join(
        (
            f"GetRecords calls   {found.calls:>15,.0f} a month   ${found.calls_price:>9,.2f}"
            f"   ({rates.calls_free:,.0f} are free)",
            f"storage writes     {found.puts:>15,.0f} a month   ${found.puts_price:>9,.2f}",
            f"change log         {found.stored_gb:>15,.1f} GB        ${found.stored_price:>9,.2f}",
            f"CPU                {found.cpu_seconds:>15,.0f} seconds   "
            f"({found.cores:.2f} cores on average)",
            f"together           {'':>15}           ${found.price:>9,.2f}",
        )
    )
