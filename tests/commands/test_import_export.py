"""`datazone-dagster import-export` against the local DynamoDB, as an operator runs it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest

from datazone_dagster.commands.import_export import WAITS
from datazone_dagster.commands.project import load_project
from datazone_dagster.local import LocalDynamoDB
from datazone_dagster.model.snapshot_state import EXPORT_SETTLE, Phase
from datazone_dagster.pipeline import (
    ConnectionSettings,
    apply_transform,
    connect,
    connect_table,
    drain_once,
    gap_notes,
    lost_window_start,
    open_gaps,
    read_dataset,
    snapshot_source,
    snapshot_status,
    utc_now,
    want_exports,
)
from tests.commands.running import ProjectFolder

DEFINITIONS = """
from datazone_dagster import *
from datazone_dagster.sources import DynamoDBSource

SOURCE = DynamoDBSource(
    "orders", region="us-west-2", endpoint_url="{url}", start="trim_horizon"
)

@transform(
    input_mapping={{"orders": Input(Stream(source=SOURCE))}},
    output_mapping={{"current": Output(Dataset("current"))}},
)
def current(orders):
    return orders.select("dynamodb.Keys.id.S as id", "dynamodb.NewImage.total.N as total")

defs = build_definitions([current], lakehouse=Lakehouse(uri="lake"))
"""


class Followed:
    """A table whose first items its stream never showed, and a project that follows it."""

    def __init__(self, server: LocalDynamoDB, path: Path) -> None:
        self.bucket = path / "bucket"
        self.bucket.mkdir()
        self.admin = server.admin
        self.ahead_seconds = 0.0
        self.admin.set_bucket("exports", self.bucket)
        self._settings = ConnectionSettings(region="us-west-2", endpoint_url=server.endpoint_url)
        self.dynamodb: Any = boto3.client(
            "dynamodb",
            endpoint_url=server.endpoint_url,
            region_name="us-west-2",
            aws_access_key_id="k",
            aws_secret_access_key="s",
        )
        self.dynamodb.create_table(
            TableName="orders",
            KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
        )
        for number in range(7):
            self.put(number, 1)
        self.dynamodb.update_table(
            TableName="orders",
            StreamSpecification={
                "StreamEnabled": True,
                "StreamViewType": "NEW_AND_OLD_IMAGES",
            },
        )
        self.project = ProjectFolder(path, DEFINITIONS.format(url=server.endpoint_url))
        loaded = load_project(str(path / "definitions.py"))
        (self.flow,) = loaded.transforms
        self.source = self.flow.source
        self.layout = self.project.layout
        self.table = connect_table("orders", self._settings)

    def put(self, number: int, total: int) -> None:
        item = {"id": {"S": f"k{number}"}, "total": {"N": str(total)}}
        self.dynamodb.put_item(TableName="orders", Item=item)

    def at(self, hours: float) -> datetime:
        """Set the clock of the service this many hours ahead of real time; return its time."""
        self.ahead_seconds = hours * 3600
        self.admin.set_clock_offset(self.ahead_seconds)
        return utc_now() + timedelta(hours=hours)

    def follow(self, now: datetime | None = None) -> None:
        drain_once(
            self.source,
            connect("orders", self._settings),
            self.layout,
            clock=utc_now if now is None else lambda: now,
        )
        apply_transform(self.flow, self.layout)

    def remember(self) -> datetime:
        """Switch point-in-time recovery on; return a time from which on it remembers."""
        self.dynamodb.update_continuous_backups(
            TableName="orders",
            PointInTimeRecoverySpecification={"PointInTimeRecoveryEnabled": True},
        )
        return utc_now() + timedelta(seconds=1)

    def announce(self, export_after: datetime, lost_from: datetime | None = None) -> None:
        """Announce the snapshot as if it had been done five minutes before a time."""
        want_exports(self.source.name, self.layout, lost_from=lost_from)
        at = export_after - EXPORT_SETTLE
        self.admin.set_clock_offset((at - utc_now()).total_seconds())
        snapshot_source(self.source, self.layout, self.table, clock=lambda: at)
        self.admin.set_clock_offset(self.ahead_seconds)

    def rows(self) -> dict[str, str]:
        return {row["id"]: row["total"] for row in read_dataset(self.layout, "current").to_pylist()}

    def items(self) -> dict[str, str]:
        found = self.dynamodb.scan(TableName="orders")["Items"]
        return {one["id"]["S"]: one["total"]["N"] for one in found}


@pytest.fixture
def followed(tmp_path: Path) -> Iterator[Followed]:
    with LocalDynamoDB(shards=2) as server:
        yield Followed(server, tmp_path)


def test_it_starts_an_export_waits_and_hands_over(followed: Followed) -> None:
    followed.put(1, 5)
    followed.follow()
    followed.announce(followed.remember())
    followed.put(2, 9)
    arguments = ("import-export", "orders", "--start", "s3://exports/daily", "--yes")
    options = ("--bucket-uri", str(followed.bucket), "--json")
    for _ in range(40):
        followed.follow()
        done = followed.project.run(*arguments, *options)
        assert done.returncode in (0, WAITS), done.stderr
        if done.returncode == 0:
            break
    report = json.loads(done.stdout)
    assert (report["phase"], report["rows"], report["executed"]) == ("done", 7, True)
    assert len(report["exports"]) == 1, "one export, however often the command ran"
    assert len(followed.dynamodb.list_exports()["ExportSummaries"]) == 1
    followed.follow()
    assert followed.rows() == followed.items()
    plan = followed.project.run(*arguments[:-1])
    assert "The last import is complete. This begins a new one." in plan.stdout
    key = Path(report["exports"][0]).name
    again = followed.project.run(
        *arguments[:2], "--from", f"{followed.bucket}/daily/AWSDynamoDB/{key}", "--yes"
    )
    assert again.returncode == 0, again.stderr
    assert "handed over before: nothing is read" in again.stdout
    assert "Raises the epoch" not in again.stdout
    status = snapshot_status("orders", followed.layout)
    assert status is not None
    assert (status.phase, status.epoch) == (Phase.DONE, 2), "it is not imported twice"


def test_it_explains_announces_and_says_which_export_fits(followed: Followed) -> None:
    followed.follow()
    planned = followed.project.run("import-export", "orders", "--json")
    assert json.loads(planned.stdout)["executed"] is False
    assert snapshot_status("orders", followed.layout) is None
    too_early = followed.project.run(
        "import-export", "orders", "--from", f"{followed.bucket}/AWSDynamoDB/1-a", "--yes"
    )
    assert too_early.returncode == 1
    assert "every export is too old" in too_early.stderr
    done = followed.project.run("import-export", "orders", "--yes")
    assert done.returncode == WAITS, done.stderr
    status = snapshot_status("orders", followed.layout)
    assert status is not None
    assert status.export_after is not None
    assert status.phase is Phase.ANNOUNCED
    assert f"a full export of {status.export_after:%Y-%m-%d %H:%M:%S} UTC" in done.stdout
    assert "not consistent until" in done.stdout
    assert "The table has about" in done.stdout


def test_without_recovery_it_says_how_to_switch_it_on(followed: Followed) -> None:
    followed.follow()
    followed.announce(utc_now())
    done = followed.project.run("import-export", "orders", "--start", "s3://exports", "--yes")
    assert done.returncode == 1
    assert "update-continuous-backups --table-name orders" in done.stderr
    assert "no export, no cost" in done.stderr


def test_an_export_that_failed_says_why_and_can_be_started_again(followed: Followed) -> None:
    followed.follow()
    followed.announce(followed.remember())
    arguments = ("import-export", "orders", "--yes", "--bucket-uri", str(followed.bucket))
    failed = followed.project.run(*arguments, "--start", "s3://elsewhere")
    assert failed.returncode == 1
    assert "S3NoSuchBucket" in failed.stderr
    followed.follow()
    again = followed.project.run(*arguments, "--start", "s3://exports")
    assert again.returncode in (0, WAITS), again.stderr
    assert "7 rows read" in again.stdout


@pytest.mark.parametrize("finished_by_run", [False, True])
def test_a_gap_is_repaired_and_recorded_as_repaired(
    followed: Followed, finished_by_run: bool
) -> None:
    followed.at(-31)
    followed.remember()
    for number in range(7):
        followed.put(number, 2)
    followed.follow(followed.at(-30))
    followed.put(1, 3)
    followed.put(8, 3)
    followed.dynamodb.delete_item(TableName="orders", Key={"id": {"S": "k2"}})
    followed.follow(followed.at(-4))
    gaps = open_gaps("orders", followed.layout)
    assert gaps
    followed.announce(utc_now() - timedelta(hours=1), lost_window_start(gaps))
    followed.at(0)
    arguments = ("import-export", "orders", "--gap", "--start", "s3://exports", "--yes", "--json")
    for _ in range(6):
        followed.follow()
        done = followed.project.run(*arguments, "--bucket-uri", str(followed.bucket))
        assert done.returncode in (0, WAITS), done.stderr
        if done.returncode == 0:
            break
        if finished_by_run:
            followed.follow()
            snapshot_source(followed.source, followed.layout, followed.table)
    report = json.loads(done.stdout)
    assert (report["phase"], report["rows"], len(report["exports"])) == ("done", 3, 2)
    assert report["already_handed_over"] is finished_by_run
    assert report["notes"][-1].endswith("gaps of the source are repaired.")
    followed.follow()
    assert followed.rows() == followed.items()
    assert open_gaps("orders", followed.layout) == ()
    notes = gap_notes("orders", followed.layout)
    status = snapshot_status("orders", followed.layout)
    assert status is not None
    assert status.epoch == 2, "it is not repaired twice"
    assert all("repaired by export" in (note.accepted_why or "") for note in notes)


def test_where_the_export_goes_and_comes_from(followed: Followed) -> None:
    followed.follow()
    both = followed.project.run("import-export", "orders", "--from", "x", "--start", "s3://y")
    assert "Both --from and --start" in both.stderr
    local = followed.project.run("import-export", "orders", "--start", "/tmp/x")
    assert "exports to S3 only" in local.stderr
    gap = followed.project.run("import-export", "orders", "--gap", "--yes")
    assert "no open gap" in gap.stderr
