"""`datazone-dagster demo`: starts everything, shows live figures, leaves nothing running."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.live import Live
from rich.table import Table

from datazone_dagster.dagster_glue.instance_config import dagster_yaml
from datazone_dagster.demo.facts import DemoFacts, gather
from datazone_dagster.demo.servers import (
    DagsterDev,
    DemoError,
    free_port,
    only_demo,
    stop_demo,
    write_lock,
)
from datazone_dagster.local import LocalDynamoDB
from datazone_dagster.local.live_orders import LiveOrders
from datazone_dagster.local.traffic import (
    OrderTraffic,
    create_orders_table,
    enable_stream,
    run_traffic,
)
from datazone_dagster.local.wire_client import WireClient
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.store_options import store_kind
from datazone_dagster.pipeline import utc_now

FOLDER = Path(".datazone") / "demo"
SPLIT_AFTER_SECONDS = 20.0
COUPON_AFTER_CHANGES = 300
OLD_ORDERS = 9_000_000
OLD_CHANGES = 300


@click.command()
@click.option("--stop", is_flag=True, help="Stop the demo that runs in this folder.")
@click.option(
    "--port", default=3000, show_default=True, help="Port of Dagster, or the next free one."
)
@click.option(
    "--emulator-port",
    default=8000,
    show_default=True,
    help="Port of the local DynamoDB, or the next free one.",
)
@click.option(
    "--changes-per-second", default=10.0, show_default=True, help="Pace of the order traffic."
)
@click.option("--changes", type=int, help="Stop the traffic after this many changes.")
@click.option("--seconds", type=float, help="Stop the demo after this many seconds.")
@click.option("--seed", default=1, show_default=True, help="Seed of the random orders.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, an object per line.")
def demo(
    stop: bool,
    port: int,
    emulator_port: int,
    changes_per_second: float,
    changes: int | None,
    seconds: float | None,
    seed: int,
    as_json: bool,
) -> None:
    """Run live orders in a local DynamoDB, and Dagster to turn them into a Delta table.

    Run the demo in the folder of definitions.py and workspace.yaml. Everything it writes is
    below .datazone/demo, which each start recreates. Where DATAZONE_LAKEHOUSE_URI names an object
    store, the tables are there, in a new folder demo-<time> for each start. Press Ctrl-C to stop.
    """
    project = Path.cwd()
    if stop:
        running = stop_demo(project / FOLDER)
        if as_json:
            click.echo(json.dumps({"event": "stopped", "was_running": running}))
        else:
            click.echo("The demo has stopped." if running else "No demo is running here.")
        return
    if not (project / "workspace.yaml").exists():
        raise DemoError(
            f"There is no workspace.yaml in {project}.",
            hint="Run the demo in a checkout of the project.",
        )
    _run(
        project,
        free_port(port),
        free_port(emulator_port),
        OrderTraffic(seed=seed, coupon_after=COUPON_AFTER_CHANGES),
        {"changes": changes, "changes_per_second": changes_per_second},
        seconds,
        as_json=as_json,
    )


def lakehouse_uri(state: Path, named: str, now: datetime) -> str:
    """Return where the tables of a demo go: a folder of its own, local or in an object store.

    Args:
        state: Folder of the demo's state.
        named: Value of DATAZONE_LAKEHOUSE_URI; used if it is an object store.
        now: Start of the demo. Each has a new table in DynamoDB, so it needs new tables here.
    """
    if store_kind(named) == "local":
        return str(state / "lakehouse")
    return f"{named.rstrip('/')}/demo-{now:%Y%m%d-%H%M%S}"


def _run(
    project: Path,
    port: int,
    emulator_port: int,
    traffic: OrderTraffic,
    pace: dict[str, Any],
    seconds: float | None,
    *,
    as_json: bool,
) -> None:
    console = Console(quiet=as_json)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    folder = project / FOLDER
    with ExitStack() as stack:
        lock = stack.enter_context(only_demo(folder))
        state = folder / "state"
        shutil.rmtree(state, ignore_errors=True)
        home = state / "dagster"
        home.mkdir(parents=True)
        (home / "dagster.yaml").write_text(dagster_yaml(), "utf-8")

        console.print("Starting the local DynamoDB and Dagster ...")
        server = stack.enter_context(LocalDynamoDB(port=emulator_port, shards=2))
        client = WireClient(server.endpoint_url)
        create_orders_table(client, with_stream=False)
        # Orders that are older than the stream: only a snapshot brings them into the dataset.
        run_traffic(client, OrderTraffic(seed=0, first_order=OLD_ORDERS), changes=OLD_CHANGES)
        enable_stream(client)
        named = os.environ.get("DATAZONE_LAKEHOUSE_URI", "")
        layout = Layout(lakehouse_uri(state, named, utc_now()))
        dagster = DagsterDev(
            project,
            home,
            port,
            {
                "AWS_ENDPOINT_URL_DYNAMODB": server.endpoint_url,
                "AWS_ENDPOINT_URL_DYNAMODB_STREAMS": server.endpoint_url,
                "DATAZONE_LAKEHOUSE_URI": layout.uri,
            },
        )
        stack.callback(_stop_dagster, console, dagster)
        writer = LiveOrders(server.endpoint_url, traffic, **pace)
        stack.callback(writer.stop)
        writer.start()
        dagster.wait_until_ready()
        write_lock(lock, {"pid": os.getpid(), "url": dagster.url})
        if as_json:
            urls = {"dagster_url": dagster.url, "dynamodb_url": server.endpoint_url}
            _say_json({"event": "ready", **urls, "lakehouse_uri": layout.uri})
        asset_url = f"{dagster.url}/assets/processed_orders"
        console.print(f"Dagster:  [bold]{dagster.url}[/]  (asset: {asset_url})", soft_wrap=True)
        console.print(f"DynamoDB: {server.endpoint_url}", soft_wrap=True)
        console.print(f"Tables:   {layout.uri}", soft_wrap=True)
        console.print("Press Ctrl-C to stop everything.")

        def facts_now() -> DemoFacts:
            return gather(writer.count, client, server.admin, layout, dagster.url, utc_now())

        def split() -> None:
            server.admin.split("orders", 0)

        _watch(console, stop, facts_now, split, seconds, as_json=as_json)


def _stop_dagster(console: Console, dagster: DagsterDev) -> None:
    console.print("Stopping Dagster and the local DynamoDB ...")
    dagster.stop()


def _watch(
    console: Console,
    stop: threading.Event,
    facts_now: Any,
    split: Any,
    seconds: float | None,
    *,
    as_json: bool,
) -> None:
    """Show the facts until stopped; split a shard after `SPLIT_AFTER_SECONDS`."""
    started_seconds = time.monotonic()
    has_split = False
    shown = Live(console=console, auto_refresh=False, transient=True)
    every_seconds = 1.0 if console.is_terminal and not as_json else 5.0
    with shown:
        while not stop.wait(every_seconds):
            elapsed_seconds = time.monotonic() - started_seconds
            if not has_split and elapsed_seconds >= SPLIT_AFTER_SECONDS:
                split()
                has_split = True
            facts = facts_now()
            if as_json:
                _say_json(figures(facts, elapsed_seconds))
            elif console.is_terminal:
                shown.update(screen(facts, elapsed_seconds), refresh=True)
            else:
                console.print(line(facts, elapsed_seconds), soft_wrap=True)
            if seconds is not None and elapsed_seconds >= seconds:
                return


def screen(facts: DemoFacts, elapsed_seconds: float) -> Table:
    """Return the live view as a table."""
    table = Table(title=f"orders -> processed_orders, {elapsed_seconds:.0f} s", show_header=False)
    table.add_row("changes written to DynamoDB", f"{facts.written:,}")
    table.add_row("drained into the change log", f"{facts.drained:,}")
    table.add_row("applied to the dataset", f"{facts.applied:,}")
    table.add_row("lag of the drained changes", f"{facts.lag_seconds:.0f} s")
    table.add_row("rows / items in DynamoDB", f"{facts.rows:,} / {facts.items:,}")
    table.add_row("shards open / all", f"{facts.shards_open} / {facts.shards}")
    for name, outcome in facts.checks:
        style = {"passed": "green", "warn": "yellow", "error": "red"}.get(outcome, "dim")
        table.add_row(f"check {name}", f"[{style}]{outcome}[/]")
    return table


def line(facts: DemoFacts, elapsed_seconds: float) -> str:
    """Return the live view as one line, for an output that is not a terminal."""
    return (
        f"{elapsed_seconds:4.0f} s  written {facts.written}  drained {facts.drained}  "
        f"applied {facts.applied}  lag {facts.lag_seconds:.0f} s  "
        f"rows {facts.rows} of {facts.items}  shards {facts.shards_open}/{facts.shards}  "
        f"checks {_in_short(facts.checks)}"
    )


def figures(facts: DemoFacts, elapsed_seconds: float) -> dict[str, object]:
    """Return the live view as values of JSON."""
    found = {**asdict(facts), "checks": dict(facts.checks)}
    return {"event": "figures", "seconds": round(elapsed_seconds, 1), **found}


def _say_json(found: dict[str, object]) -> None:
    click.echo(json.dumps(found))


def _in_short(checks: tuple[tuple[str, str], ...]) -> str:
    """Name the failing checks; if none fails, count the passed, running and not yet run ones."""
    outcomes = Counter(outcome for _, outcome in checks)
    failing = [f"{name}: {outcome}" for name, outcome in checks if outcome in ("warn", "error")]
    return ", ".join(failing) or ", ".join(
        f"{outcomes[outcome]} {outcome}"
        for outcome in ("passed", "running", "not yet")
        if outcomes[outcome] or outcome == "passed"
    )
