"""Names of the library's checks, sensors, jobs, pools, resources and tags in Dagster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from datazone_dagster.api import DynamoDBSource, Transform

LAKEHOUSE_KEY = "datazone_lakehouse"
DYNAMODB_KEY = "datazone_dynamodb"
IO_MANAGER_KEY = "datazone_io_manager"

LAG_CHECK = "lag"
SCHEMA_CHECK = "schema"
QUARANTINE_CHECK = "quarantine"
COMPLETE_CHECK = "complete"
FUNCTION_CHECK = "function"
SMALL_FILES_CHECK = "small_files"
UNIQUE_KEYS_CHECK = "unique_keys"
STREAM_CHECK = "stream_health"
HEADROOM_CHECK = "headroom"
SNAPSHOT_CHECK = "snapshot"
AUDIT_CHECK = "audit"
DRAIN_CHECK = "drain"
ALERT_SENSOR = "datazone_check_alerts"
WATCH_SENSOR = "watch_drains"

SOURCE_TAG = "datazone/source"
"""Tag of a run that the drain sensor requested: the source."""
END_TAG = "datazone/end"
"""Tag that ends a run that stays, after its chunk: why."""
FAILURE_TAG = "datazone/failure"
"""Tag of a run whose application failed, or whose snapshot did: the start of the error."""
WAIT_TAG = "datazone/waits_for"
"""Tag of a run of a snapshot that ended because it had to wait too long: what for."""

# Tags with Dagster's prefix `.dagster/` are in its storage, and its pages do not show them.
BATCH_TAG = ".dagster/datazone_batch"
"""Hidden tag of a requested run: the head of the change log that the tick saw."""
LAKEHOUSE_TAG = ".dagster/datazone_lakehouse"
"""Hidden tag of such a run, too: where that change log is."""
VERSION_TAG = ".dagster/datazone_version"
"""Hidden tag of a requested run: version of the transform, as of the request."""
ALIVE_TAG = ".dagster/datazone_alive_at"
"""Hidden tag: time of a run's last heartbeat; empty once steps go on that send none."""

READ_TAG = ".dagster/datazone_read_at"
"""Hidden tag of a drain run: time at which it had last read all its shards to the latest
position."""

UNKNOWN_TAG = ".dagster/datazone_unknown_shards"
"""Hidden tag of a drain run: shards that the service did not know when it read them last; the first
few, separated by commas."""

FAILING_TAG = ".dagster/datazone_failing_shards"
"""Hidden tag of a drain run: shards that it could not read last, each with the error, as JSON; the
first few."""

RIVAL_TAG = ".dagster/datazone_rival"
"""Hidden tag of a drain run: when another code location last wanted to drain the same source with
other settings, and what it says of that."""

SHARED_TAG = ".dagster/datazone_shared"
"""Hidden tag of a requested run of all transforms of a source: the source."""
RETRIES_TAG = ".dagster/datazone_retries"
"""Hidden tag of a run of all transforms of a source: those that failed before, see
`model.retries`."""
FAILED_TAG = ".dagster/datazone_failed"
"""Hidden tag of such a run, too: those that have failed in it."""
TURN_TAG = ".dagster/datazone_turn"
"""Hidden tag of such a run: the transform whose first turn it is; empty once all had theirs. If the
process dies, that one is to blame."""
DATASET_METADATA = "datazone/dataset"
"""Metadata of an asset whose key is not that of its table: the id of its dataset."""

_FORMER_TAGS = {
    BATCH_TAG: "datazone/batch",
    LAKEHOUSE_TAG: "datazone/lakehouse",
    VERSION_TAG: "datazone/version",
    ALIVE_TAG: "datazone/alive_at",
}


def hidden_tag(tags: Mapping[str, str], name: str) -> str | None:
    """Return a hidden tag of a run, also of one that an earlier version requested; else None."""
    return tags.get(name, tags.get(_FORMER_TAGS[name]))


def expectation_check_name(rule: str) -> str:
    """Return the name of the check of an expectation."""
    return f"expect_{rule}"


def audit_name(source: DynamoDBSource) -> str:
    """Return the name of the job that audits a source, and of its schedule."""
    return f"audit_{source.name}"


def sensor_name(source: DynamoDBSource) -> str:
    """Return the name of the sensor that drains a source."""
    return f"drain_{source.name}"


def snapshot_job_name(source: DynamoDBSource) -> str:
    """Return the name of the job that takes the snapshot of a source."""
    return f"snapshot_{source.name}"


def resync_job_name(source: DynamoDBSource) -> str:
    """Return the name of the job that takes a new snapshot of a source."""
    return f"resync_{source.name}"


def source_job_name(source: DynamoDBSource) -> str:
    """Return the name of the job that applies all transforms of a source in one run."""
    return f"apply_source_{source.name}"


def drain_job_name(source: DynamoDBSource) -> str:
    """Return the name of the job whose runs drain the shards of a source with `drain="runs"`."""
    return f"drain_shards_{source.name}"


def drain_pool_name(source: DynamoDBSource, prefix: Sequence[str] = ()) -> str:
    """Return the name of the pool of these runs; each number of runs has a pool of its own."""
    return own_pool_name(f"{drain_job_name(source)}/{source.drain_workers}_sets", prefix)


def pool_name(transform: Transform, prefix: Sequence[str] = ()) -> str:
    """Return the name of the pool that prevents two runs of a transform at a time.

    Its limit is 1, or the number of buckets: each number has a pool of its own.
    """
    buckets = f"/{transform.buckets}_buckets" if transform.buckets > 1 else ""
    return own_pool_name(f"{transform.job_name}{buckets}", prefix)


def snapshot_pool_name(source: DynamoDBSource, prefix: Sequence[str] = ()) -> str:
    """Return the name of the pool, of limit 1, that prevents two scans of a source at a time."""
    return own_pool_name(snapshot_job_name(source), prefix)


def own_pool_name(name: str, prefix: Sequence[str] = ()) -> str:
    """Return the name of a pool of the library.

    Pools are those of the whole instance. The prefix of the asset keys keeps code locations apart
    whose jobs have the same names.
    """
    return "/".join(("datazone", *prefix, name))
