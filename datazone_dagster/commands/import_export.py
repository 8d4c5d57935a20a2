"""`datazone-dagster import-export`: exports to S3 in place of a scan, or for a lost window."""

from __future__ import annotations

import getpass
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import cached_property

import click

from datazone_dagster.api import DynamoDBSource
from datazone_dagster.commands.output import note, say, say_json
from datazone_dagster.commands.project import Project, project_options
from datazone_dagster.errors import DefinitionError
from datazone_dagster.model.snapshot_report import SnapshotReport
from datazone_dagster.model.snapshot_state import ACTIVE, Phase
from datazone_dagster.model.table_export import PRICE_GB
from datazone_dagster.model.table_scan import TableClient
from datazone_dagster.pipeline import (
    ConnectionSettings,
    SnapshotSettings,
    accept_gaps,
    connect_exports,
    connect_table,
    gap_notes,
    lost_window_start,
    open_exports,
    open_gaps,
    snapshot_source,
    snapshot_status,
    start_exports,
    want_exports,
)

WAITS = 3
"""Exit code when the import waits for something: run the command again."""

_POLL_SECONDS = 10.0


@dataclass
class Import:
    """One import.

    Args:
        project: The project.
        source: Source of the table.
        uris: Locations of finished exports, in order.
        start: Location of exports to start, `s3://bucket/prefix`; None: none is started.
        bucket_uri: Location of that bucket; None: S3.
        gap: Whether incremental exports repair the open gaps.
        sweep_limit: Share of a dataset's rows that may be deleted without asking, 0 to 1.
    """

    project: Project
    source: DynamoDBSource
    uris: Sequence[str]
    start: str | None
    bucket_uri: str | None
    gap: bool
    sweep_limit: float
    notes: list[str] = field(default_factory=list)

    @cached_property
    def status(self) -> SnapshotReport | None:
        """The last snapshot of the source, before this command."""
        return snapshot_status(self.source.name, self.project.layout)

    @property
    def is_announced(self) -> bool:
        """Whether a snapshot is under way."""
        return self.status is not None and self.status.phase in ACTIVE

    @cached_property
    def is_over(self) -> bool:
        """Whether nothing is left to import: these exports were, or the gap was since."""
        return self._is_done or self._gap_is_done

    def explain(self) -> dict[str, object]:
        """Return the plan as JSON.

        Raises:
            DefinitionError: The exports given come before the announcement, so they are too old.
            ExportError: There is no open gap to repair.
            SourceError: The table can't be described.
        """
        if self.uris and not self.is_announced and not self.is_over:
            raise DefinitionError(
                f"No snapshot of source {self.source.name!r} is announced yet, so every export is "
                "too old: its items would win over changes that were drained since.",
                safe="Nothing was changed.",
                hint=f"Run datazone-dagster import-export {self.source.name} without --from first: "
                "it tells from which time on an export fits.",
            )
        if self.gap and not self.is_announced:
            lost_window_start(open_gaps(self.source.name, self.project.layout))
        table = self._table.describe_table()
        plan: dict[str, object] = {
            "source": self.source.name,
            "reads": "windows" if self.gap else "export",
            "table_items": table.item_count,
            "table_bytes": table.size_bytes,
            "starts_exports": self.start is not None,
            "already_handed_over": self.is_over,
        }
        if self.start is not None and not self.gap:
            plan["estimated_price"] = round(table.size_bytes / 1e9 * PRICE_GB, 4)
        return plan

    def run(self) -> SnapshotReport:
        """Go as far as it goes now."""
        if self.status is not None and self.is_over:
            self._accept(self.status)  # a run of the snapshot's job may have handed over
            return self.status
        layout, name = self.project.layout, self.source.name
        since = None
        if self.gap:
            known = self.status.lost_from if self.status is not None and self.is_announced else None
            since = known or lost_window_start(open_gaps(name, layout))
        want_exports(name, layout, lost_from=since)
        report = self._snapshot(())
        uris = self.uris
        if self.start is not None and report.phase in (Phase.ANNOUNCED, Phase.SCANNING):
            uris = self._started(self.start)
        if uris:
            report = self._snapshot(uris)
        if report.phase is Phase.DONE:
            self._accept(report)
        return report

    @property
    def _is_done(self) -> bool:
        """Whether exactly these exports were imported before."""
        done = self.status is not None and self.status.phase is Phase.DONE
        if not (done and self.uris):
            return False
        with open_exports(self.uris, self.project.layout, self._table) as exports:
            return self.status is not None and exports.arns == self.status.exports

    @property
    def _gap_is_done(self) -> bool:
        """Whether a snapshot was handed over since every gap that is open."""
        if not self.gap or self.status is None or self.status.phase is not Phase.DONE:
            return False
        return len(self._repaired(self.status)) == len(
            open_gaps(self.source.name, self.project.layout)
        )

    def _repaired(self, report: SnapshotReport) -> list[str]:
        """Return the shards of open gaps from before the announcement of a snapshot."""
        at = report.announced_at
        return [
            one.gap.shard_id
            for one in gap_notes(self.source.name, self.project.layout)
            if one.is_open and at is not None and (one.gap.until or one.detected_at) <= at
        ]

    def _snapshot(self, uris: Sequence[str]) -> SnapshotReport:
        ids = [
            dataset.id
            for one in self.project.transforms
            if one.source.name == self.source.name
            for dataset in one.outputs.values()
        ]
        settings = SnapshotSettings(sweep_limit=self.sweep_limit)
        layout = self.project.layout
        if not uris:
            return snapshot_source(
                self.source, layout, self._table, dataset_ids=ids, settings=settings
            )
        with open_exports(uris, layout, self._table) as exports:
            for manifest in exports.manifests:
                self.notes += [
                    f"{name} of the {manifest.summary.name} has no checksum that can be compared."
                    for name in manifest.unverified
                ]
            return snapshot_source(
                self.source,
                layout,
                self._table,
                dataset_ids=ids,
                settings=settings,
                exports=exports,
            )

    def _started(self, location: str) -> list[str]:
        """Start the exports, wait until they are completed, and return their locations."""
        bucket, _, prefix = location.removeprefix("s3://").partition("/")
        client = connect_exports(self.source.table_name, self._settings)
        said = ""
        while True:
            started = start_exports(
                self.source.name,
                self.project.layout,
                client,
                bucket=bucket,
                prefix=prefix.strip("/"),
            )
            if started.are_complete:
                return started.locations(self.bucket_uri)
            seconds, text = _POLL_SECONDS, "Waiting for the exports: minutes to hours."
            if not started.exports:
                left = (started.not_before - datetime.now(timezone.utc)).total_seconds()
                seconds = min(_POLL_SECONDS, max(0.1, left))
                text = f"The export starts at {started.not_before:%H:%M:%S} UTC."
            if text != said:
                note(text)
                said = text
            time.sleep(seconds)

    def _accept(self, report: SnapshotReport) -> None:
        """Record that the gaps before the announcement are repaired."""
        shards = self._repaired(report)
        if shards:
            ids = ", ".join(arn.rpartition("/")[2] for arn in report.exports)
            accept_gaps(
                self.source.name,
                self.project.layout,
                by=getpass.getuser(),
                why=f"repaired by export {ids} (import-export)",
                shard_ids=shards,
            )
            self.notes.append(f"{len(shards)} gaps of the source are repaired.")

    @property
    def _settings(self) -> ConnectionSettings:
        return self.project.connection_settings(self.source)

    @cached_property
    def _table(self) -> TableClient:
        return connect_table(self.source.table_name, self._settings)


@click.command(short_help="Read exports to S3 in place of a scan, or for a lost window.")
@click.argument("source_name", metavar="SOURCE")
@click.option(
    "--from",
    "uris",
    multiple=True,
    metavar="URI",
    help="Folder AWSDynamoDB/<export id> of a finished export; with --gap one for each window, in "
    "their order.",
)
@click.option(
    "--start",
    metavar="s3://BUCKET/PREFIX",
    help="Start the exports there, wait until they are completed, and read them.",
)
@click.option("--gap", is_flag=True, help="Repair the open gaps by incremental exports.")
@click.option(
    "--bucket-uri",
    metavar="URI",
    help="Where the bucket of --start can be read.  [default: s3://BUCKET]",
)
@click.option(
    "--sweep-limit",
    type=click.FloatRange(0, 1),
    default=SnapshotSettings().sweep_limit,
    show_default=True,
    help="Share of a dataset's rows that may be deleted without asking.",
)
@click.option("--yes", is_flag=True, help="Go on without asking.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON: without --yes the plan only.")
@project_options
def import_export(
    project: Project,
    source_name: str,
    uris: tuple[str, ...],
    start: str | None,
    gap: bool,
    bucket_uri: str | None,
    sweep_limit: float,
    yes: bool,
    as_json: bool,
) -> None:
    """Bring the datasets of SOURCE up to the table by exports to S3.

    A full export takes the place of a scan and uses no read capacity. With --gap, incremental
    exports show just what changed since a gap began, deletes included. Exports have to be of a time
    after the snapshot was announced: without --from and --start the command announces it, and says
    from which time on an export fits. Run it again to go on: it continues after its last commit.

    Exit code 0: done. 3: it waits for the drain, the datasets or an export.
    """
    source = project.source_of(source_name)
    project.require_change_log(source)
    if uris and start:
        raise DefinitionError("Both --from and --start are given.", hint="Give one of them.")
    if start is not None and not start.startswith("s3://"):
        raise DefinitionError(
            f"--start {start} is not in S3: the service exports to S3 only.",
            hint="Give s3://bucket/prefix.",
        )
    work = Import(project, source, uris, start, bucket_uri, gap, sweep_limit)
    plan = work.explain()
    if not as_json:
        _explain(work, plan)
    if not yes and (as_json or not click.confirm("Go on?", err=True)):
        if as_json:
            say_json({"executed": False, **plan})
        return
    report = work.run()
    if as_json:
        say_json({"executed": True, **plan, **_as_json(report), "notes": work.notes})
    else:
        _tell(source, report, work)
    if report.phase is not Phase.DONE:
        sys.exit(WAITS)


def _explain(work: Import, plan: dict[str, object]) -> None:
    name = work.source.name
    if work.gap:
        say(f"Incremental exports repair the open gaps of source {name}, deletes included.")
    else:
        say(f"A full export of the table takes the place of a scan of source {name}.")
    say(f"  The table has about {plan['table_items']:,} items, {_size(plan['table_bytes'])}.")
    if "estimated_price" in plan:
        say(f"  The export costs about ${plan['estimated_price']:,} (us-east-1), and S3 storage.")
    elif work.start is not None:
        say("  AWS bills incremental exports by the size of what changed in their windows.")
    say("  It reads the export; of the table only keys whose delete nobody saw, one by one.")
    if work.is_over:
        say("  It was handed over before: nothing is read, open gaps are recorded as repaired.")
    elif not work.is_announced:
        if work.status is not None and work.status.phase is Phase.DONE and work.status.exports:
            say("  The last import is complete. This begins a new one.")
        say("  Raises the epoch: datasets count as not consistent until the export is applied.")


def _tell(source: DynamoDBSource, report: SnapshotReport, work: Import) -> None:
    for line in work.notes:
        say(line)
    if report.phase is Phase.DONE:
        say(
            f"Done: {report.rows:,} rows read, {report.sweep.deleted:,} keys deleted that the "
            "table does not have any more."
        )
        return
    say(f"{report.rows:,} rows read so far. It waits for {report.waits_for or 'its next run'}.")
    if report.exports:
        say(f"Dagster's job snapshot_{source.name} does the rest: see `datazone-dagster status`.")
        say(
            "Without Dagster, run the command again. Once it is complete, that begins a new import."
        )
    if report.phase is Phase.ANNOUNCED and report.export_after is not None and not work.uris:
        after = report.export_after
        say(f"Then: datazone-dagster import-export {source.name}{' --gap' if work.gap else ''}")
        say("  --start s3://BUCKET/PREFIX to have it made, or --from URI with one of your own:")
        if work.gap and report.lost_from is not None:
            say(
                f"  incremental exports from {report.lost_from:%Y-%m-%d %H:%M:%S} UTC, less 5 "
                f"minutes, up to {after:%Y-%m-%d %H:%M:%S} UTC or later, without hole or overlap."
            )
        else:
            say(f"  a full export of {after:%Y-%m-%d %H:%M:%S} UTC or later.")


def _as_json(report: SnapshotReport) -> dict[str, object]:
    return {
        "phase": report.phase.value,
        "rows": report.rows,
        "deleted": report.sweep.deleted,
        "waits_for": report.waits_for,
        "exports": list(report.exports),
        "export_after": report.export_after,
        "lost_from": report.lost_from,
    }


def _size(size_bytes: object) -> str:
    assert isinstance(size_bytes, int)
    return f"{size_bytes / 1e9:,.2f} GB" if size_bytes >= 1e8 else f"{size_bytes / 1e6:,.2f} MB"
