"""Metadata of materializations and checks: numbers, which Dagster plots, times and short texts.

All values are plain: ints and floats are unwrapped. Keys are the same in every run, so that
each key is a series.
"""

from __future__ import annotations

import json
from datetime import datetime

from datazone_dagster.model.report import ApplyReport, DeleteCounts, DrainReport, MaintenanceReport
from datazone_dagster.model.scan_facts import ScanFacts
from datazone_dagster.model.shard import is_kinesis
from datazone_dagster.model.snapshot_base import SnapshotBase
from datazone_dagster.observe.completeness import Completeness
from datazone_dagster.observe.health import StreamHealth, headroom_seconds
from datazone_dagster.observe.lag import LagStatus
from datazone_dagster.text import shown

Plain = int | float | str | datetime


def drain_metadata(
    report: DrainReport, uri: str, *, now: datetime, since_seconds: float = 0.0
) -> dict[str, Plain]:
    """Return the metadata of a materialization of the change log.

    Counts of what should not be, such as gaps, are there while they are 0, too: a check of bounds
    fails where it finds no number. Those that only a stream of Kinesis or drain runs can have come
    with these.

    Args:
        report: The drain.
        uri: Location of the change log.
        now: The current time.
        since_seconds: Time since the drain before, in which the records came; the rates are those
            of this time, or of the drain if it took longer.
    """
    seconds = max(report.duration_seconds, since_seconds, 0.001)
    arrival = report.arrival if is_kinesis(report.stream_arn) else None
    found: dict[str, Plain | None] = {
        "records_landed": report.records,
        "bytes_landed": None if report.sets else report.record_bytes,
        "records_per_second": round(report.records / seconds, 3),
        "bytes_per_second": None if report.sets else round(report.record_bytes / seconds, 1),
        "records_malformed": report.malformed,
        "records_without_time": report.undated,
        "records_repeated": None if arrival is None else arrival.repeated,
        "records_of_other_tables": None if arrival is None else arrival.others,
        "records_with_equal_times": None if arrival is None else arrival.tied,
        "get_records_calls": None if report.sets else report.get_records_calls,
        "drain_workers": sum(one.has_run for one in report.sets) if report.sets else None,
        "sets_without_worker": _without_run(report) if report.sets else None,
        "shards_open": report.shards_open,
        "shards_unfinished": report.shards_unfinished,
        "shards_failing": len(report.shard_errors),
        "gaps": len(report.gaps),
        "headroom_seconds": headroom_seconds(report, now),
        "batch": report.batch,
        "caught_up": int(report.caught_up),
        "landing_lag_seconds": _age_seconds(report.event_time_min, now),
        "landing_lag_seconds_newest": _age_seconds(report.event_time_max, now),
        "event_time_min": report.event_time_min,
        "event_time_max": report.event_time_max,
        "table_version": report.log_version,
        "duration_seconds": round(report.duration_seconds, 3),
        "stream_arn": report.stream_arn,
        "dagster/uri": uri,
    }
    return _known(found)


def _without_run(report: DrainReport) -> int:
    return sum(bool(one.shards) and not one.has_run for one in report.sets)


def apply_metadata(
    report: ApplyReport, lag: LagStatus | None, *, now: datetime
) -> dict[str, Plain]:
    """Return the metadata of a materialization of a dataset.

    `lag_seconds` is the time from event to row of the oldest change of the report,
    `lag_seconds_newest` that of the newest one. Rows of a scan have neither. Counts of what should
    not be, such as values in sibling columns, are there while they are 0, too: a check of bounds
    fails where it finds no number. Those of changes are not there for rows of a scan.
    """
    seconds = max(report.duration_seconds, 0.001)
    deletes = report.deletes if report.scan is None else None
    found: dict[str, Plain | None] = {
        "rows_inserted": report.counts.inserted,
        "rows_updated": report.counts.updated,
        "rows_deleted": report.counts.deleted,
        "records_read": report.records,
        "records_quarantined": report.quarantined,
        "bytes_read": report.record_bytes,
        "records_per_second": round(report.records / seconds, 3),
        "bytes_per_second": round(report.record_bytes / seconds, 1),
        "chunks": report.chunks,
        "first_batch": report.first_batch,
        "last_batch": report.last_batch,
        "position": report.position,
        "lag_seconds": None if lag is None else _age_seconds(report.event_time_min, now),
        "lag_seconds_newest": None if lag is None else _age_seconds(report.event_time_max, now),
        "complete_through": None if lag is None else lag.complete_through,
        "event_time_min": report.event_time_min,
        "event_time_max": report.event_time_max,
        "table_version": report.table_version,
        "duration_seconds": round(report.duration_seconds, 3),
        "deletion_vectors": "on" if report.deletion_vectors else "off",
        "rows_hidden": report.rows_hidden,
        "hidden_share": _share(report.rows_hidden, report.rows_hidden + report.row_count),
        "files": report.files,
        "bytes": report.size_bytes,
        "maintenance": (report.maintenance.did if report.maintenance else "") or None,
        "columns_added": ", ".join(map(shown, report.new_columns)) or None,
        "values_in_sibling_columns": sum(count for _, count in report.sibling_values),
        "values_of_another_type": sum(one.changes for one in report.mismatches),
        "paths_never_found": ", ".join(shown(path) for path, _ in report.unfound_paths) or None,
        "old_images": "none: the stream's view type is NEW_IMAGE"
        if report.lacks_old_images
        else None,
        "setting_ignored": report.setting_ignored,
        "lookups": ", ".join(map(_looked_up, report.lookups)) or None,
        "deletes_filtered": None if deletes is None else deletes.filtered,
        "deletes_filtered_note": _filtered_deletes(report.deletes),
        "ttl_deletes_ignored": None if deletes is None else deletes.ttl_ignored,
        **_scan_metadata(report.scan),
        "begins_with": _begins_with(report.start),
        "dagster/row_count": report.row_count,
        "dagster/table_name": report.dataset_id,
        "dagster/uri": report.uri,
    }
    return _known(found)


def _scan_metadata(scan: ScanFacts | None) -> dict[str, Plain | None]:
    if scan is None:
        return {}
    return {
        "items_scanned": scan.items,
        "bytes_scanned": scan.bytes,
        "read_units": round(scan.read_units, 1),
        "scan_started_at": scan.started_at,
        "scan_ended_at": scan.ended_at,
    }


def _begins_with(start: SnapshotBase | None) -> str | None:
    if start is None:
        return None
    return (
        f"the snapshot announced at {start.announced_at:%Y-%m-%d %H:%M:%S} UTC: changes before it "
        "are not in this dataset"
    )


def _looked_up(lookup: tuple[str, int, int]) -> str:
    dataset_id, first, last = lookup
    return f"{dataset_id} at version{'' if first == last else f's {first} to'} {last}"


def _filtered_deletes(deletes: DeleteCounts) -> str | None:
    if not deletes.filtered:
        return None
    return (
        f"The function returned no row for {deletes.filtered} deletes, "
        f"{deletes.filtered_by_ttl} of them by time to live. A delete removes the rows of its key "
        "all the same: the result of the function decides only about items that exist. "
        "Dataset(ttl_deletes='ignore') leaves the rows of items that expired."
    )


def maintenance_metadata(report: MaintenanceReport) -> dict[str, Plain]:
    """Return the metadata of an observation after a dataset's maintenance."""
    return {
        "maintenance": report.did or "nothing to do",
        "files": report.files,
        "bytes": report.size_bytes,
        "rows_hidden": report.hidden_rows,
        "hidden_share": _share(report.hidden_rows, report.hidden_rows + report.rows),
        "bytes_read": report.bytes_read,
        "bytes_written": report.bytes_written,
        "duration_seconds": round(report.duration_seconds, 3),
        "dagster/row_count": report.rows,
    }


def lag_metadata(lag: LagStatus) -> dict[str, Plain]:
    """Return the metadata of a `lag` check."""
    return _known(
        {
            "lag_seconds": round(lag.lag_seconds, 3),
            "unapplied_seconds": round(lag.unapplied_seconds, 3),
            "unlanded_seconds": round(lag.unlanded_seconds, 3),
            "pending_batches": lag.pending_batches,
            "pending_records": lag.pending_records,
            "position": lag.position,
            "head_batch": lag.head_batch,
            "complete_through": lag.complete_through,
            "bucket_positions": json.dumps(lag.buckets) if lag.buckets else None,
        }
    )


def health_metadata(
    health: StreamHealth,
    caught_up_at: datetime | None,
    *,
    polled_at: datetime | None = None,
    newest_at: datetime | None = None,
    now: datetime | None = None,
) -> dict[str, Plain]:
    """Return the metadata of a `stream_health` check.

    Args:
        health: The health.
        caught_up_at: Time when every shard was last read to its latest position.
        polled_at: Time of the last drain that succeeded.
        newest_at: Event time of the newest change that was landed.
        now: The current time, for its age.
    """
    return _known(
        {
            "state": health.state,
            "headroom_seconds": _rounded(health.headroom_seconds),
            "gaps": health.gaps,
            "missing_seconds": health.missing_seconds,
            "shards_failing": health.failing_shards,
            "shards_open": health.shards_open,
            "shards_unread": health.shards_unread,
            "sets_behind": health.sets_behind,
            "caught_up_at": caught_up_at,
            "polled_at": polled_at,
            "source_age_seconds": None if now is None else _age_seconds(newest_at, now),
        }
    )


def completeness_metadata(complete: Completeness) -> dict[str, Plain]:
    """Return the metadata of a `complete` check, also shown on materializations of a dataset."""
    return _known(
        {
            "complete": int(complete.level.passed),
            "gaps": complete.gaps,
            "missing_seconds": complete.missing_seconds,
            "consistent": None if complete.consistent is None else str(complete.consistent).lower(),
            "consistent_since": complete.consistent_since,
            "states_unknown": complete.states_unknown or None,
        }
    )


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)


def _share(count: int, total: int) -> float:
    return round(count / total, 4) if total else 0.0


def _age_seconds(time: datetime | None, now: datetime) -> float | None:
    # Event times are floored to the second and clocks differ: never return less than 0.
    return None if time is None else round(max(0.0, (now - time).total_seconds()), 3)


def _known(found: dict[str, Plain | None]) -> dict[str, Plain]:
    return {key: value for key, value in found.items() if value is not None}
