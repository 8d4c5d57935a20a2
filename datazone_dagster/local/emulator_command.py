"""`datazone-dagster emulator`: runs the local DynamoDB in the foreground."""

from __future__ import annotations

import errno
import json
import sqlite3
from pathlib import Path

import click

from datazone_dagster.errors import LocalServerError
from datazone_dagster.local.live_orders import LiveOrders
from datazone_dagster.local.process import port_taken
from datazone_dagster.local.server import serve
from datazone_dagster.local.service import Settings

_READY = """\
Local DynamoDB with streams: {url}

  client = boto3.client("dynamodb", endpoint_url="{url}", region_name="us-east-1",
                        aws_access_key_id="local", aws_secret_access_key="local")

or, for every client started from a shell:

  export AWS_ENDPOINT_URL_DYNAMODB={url}
  export AWS_ENDPOINT_URL_DYNAMODB_STREAMS={url}
  export AWS_ACCESS_KEY_ID=local AWS_SECRET_ACCESS_KEY=local AWS_DEFAULT_REGION=us-east-1
  export AWS_ACCOUNT_ID_ENDPOINT_MODE=disabled

State: {state}. Press Ctrl-C to stop."""


@click.command(short_help="Run a local DynamoDB with streams on 127.0.0.1.")
@click.option(
    "--port",
    default=8000,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="Port on 127.0.0.1; 0 takes a free one.",
)
@click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Directory for state that survives restarts. Without it, state is deleted at the end.",
)
@click.option(
    "--shards",
    default=4,
    show_default=True,
    type=click.IntRange(1, 1000),
    help="Number of shards of a new stream.",
)
@click.option(
    "--roll-after",
    "roll_after_seconds",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="Age at which a child replaces an open shard. The service does so every 4 hours.",
)
@click.option(
    "--ttl-interval",
    "ttl_interval_seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="Interval between deletions of items whose time to live has passed.",
)
@click.option(
    "--bucket",
    "buckets",
    multiple=True,
    metavar="NAME=FOLDER",
    help="Folder that stands for a bucket that exports are written to. Can be repeated.",
)
@click.option(
    "--orders",
    "changes_per_second",
    type=click.FloatRange(min=0, min_open=True, max=1000),
    metavar="PER_SECOND",
    help="Create the table orders, and write this many changes of made-up orders a second to it.",
)
@click.option("--two-readers-a-shard", is_flag=True, help="Throttle a third reader of a shard.")
@click.option("--json", "as_json", is_flag=True, help="Print the URL as JSON, and nothing else.")
def emulator(
    port: int,
    data_dir: Path | None,
    shards: int,
    roll_after_seconds: float | None,
    ttl_interval_seconds: float,
    changes_per_second: float | None,
    two_readers_a_shard: bool,
    buckets: tuple[str, ...],
    as_json: bool,
) -> None:
    """Run a local DynamoDB with streams on 127.0.0.1.

    boto3 and every AWS SDK can use it. Shards split and roll as in the service; no request
    leaves this machine.
    """
    state = "deleted when the server stops" if data_dir is None else str(data_dir)

    def ready(url: str) -> None:
        if changes_per_second is not None:
            LiveOrders.in_new_table(url, changes_per_second).start()
        if as_json:
            folder = None if data_dir is None else str(data_dir)
            found = {"url": url, "data_dir": folder, "orders_per_second": changes_per_second}
            click.echo(json.dumps(found))
            return
        click.echo(_READY.format(url=url, state=state))
        if changes_per_second is not None:
            click.echo(f"Writing {changes_per_second:g} changes a second to the table orders.")

    try:
        serve(
            port=port,
            data_dir=data_dir,
            settings=Settings(
                initial_shards=shards,
                roll_after_seconds=roll_after_seconds,
                two_readers_a_shard=two_readers_a_shard,
                buckets=_folders(buckets),
            ),
            ttl_interval_seconds=ttl_interval_seconds,
            ready=ready,
        )
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise port_taken(port) from error
        raise _not_started(error) from error
    except sqlite3.Error as error:
        raise _not_started(error) from error
    if not as_json:
        click.echo("Local DynamoDB stopped.")


def _not_started(error: Exception) -> LocalServerError:
    return LocalServerError(
        f"The local DynamoDB can't start: {error}.", hint="Choose another folder with --data-dir."
    )


def _folders(buckets: tuple[str, ...]) -> dict[str, str]:
    folders: dict[str, str] = {}
    for bucket in buckets:
        name, equals, folder = bucket.partition("=")
        if not (name and equals and folder):
            raise click.BadParameter("expected NAME=FOLDER", param_hint="--bucket")
        folders[name] = str(Path(folder).absolute())
    return folders
