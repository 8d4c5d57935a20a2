"""Names of the library's assets, checks, sensors, pools, resources and tags in Dagster."""

from __future__ import annotations

from collections.abc import Mapping

from dagster import AssetCheckKey, AssetKey

from datazone_dagster.api import Dataset, DynamoDBSource, Transform
from datazone_dagster.api.expect import Expectations

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

RETRIES_TAG = ".dagster/datazone_retries"
"""Hidden tag of a run of all transforms of a source: those that failed before, see
`model.retries`."""
FAILED_TAG = ".dagster/datazone_failed"
"""Hidden tag of such a run, too: those that have failed in it."""

_FORMER_TAGS = {
    BATCH_TAG: "datazone/batch",
    LAKEHOUSE_TAG: "datazone/lakehouse",
    VERSION_TAG: "datazone/version",
    ALIVE_TAG: "datazone/alive_at",
}


def hidden_tag(tags: Mapping[str, str], name: str) -> str | None:
    """Return a hidden tag of a run, also of one that an earlier version requested; else None."""
    return tags.get(name, tags.get(_FORMER_TAGS[name]))


def change_log_key(source: DynamoDBSource) -> AssetKey:
    """Return the asset key of a source's change log."""
    return AssetKey(["dynamodb", source.name])


def dataset_key(dataset_id: str) -> AssetKey:
    """Return the asset key of a dataset."""
    return AssetKey([dataset_id])


def lag_check_key(dataset_id: str) -> AssetCheckKey:
    """Return the key of a dataset's `lag` check."""
    return AssetCheckKey(dataset_key(dataset_id), LAG_CHECK)


def complete_check_key(dataset_id: str) -> AssetCheckKey:
    """Return the key of a dataset's `complete` check."""
    return AssetCheckKey(dataset_key(dataset_id), COMPLETE_CHECK)


def dataset_check_keys(
    dataset_id: str,
    *,
    has_stream: bool = True,
    has_keys: bool = True,
    expect: Expectations = (),
) -> tuple[AssetCheckKey, ...]:
    """Return the keys of all checks of a dataset.

    Without a stream, nothing can lag behind it. In append mode, it has no keys to be unique.
    """
    lag = (LAG_CHECK,) if has_stream else ()
    unique = (UNIQUE_KEYS_CHECK,) if has_keys else ()
    names = (
        *(*lag, SCHEMA_CHECK, QUARANTINE_CHECK, COMPLETE_CHECK, FUNCTION_CHECK),
        *(SMALL_FILES_CHECK, *unique),
    )
    expected = (expectation_check_name(rule) for rule, _ in expect)
    return tuple(AssetCheckKey(dataset_key(dataset_id), name) for name in (*names, *expected))


def expectation_check_name(rule: str) -> str:
    """Return the name of the check of an expectation."""
    return f"expect_{rule}"


def stream_check_key(source: DynamoDBSource) -> AssetCheckKey:
    """Return the key of the `stream_health` check of a source's change log."""
    return AssetCheckKey(change_log_key(source), STREAM_CHECK)


def source_check_keys(source: DynamoDBSource) -> tuple[AssetCheckKey, ...]:
    """Return the keys of the checks of a source's change log that sensors evaluate."""
    names = (STREAM_CHECK, HEADROOM_CHECK, SNAPSHOT_CHECK, DRAIN_CHECK)
    return tuple(AssetCheckKey(change_log_key(source), name) for name in names)


def checks_of_dataset(transform: Transform, dataset: Dataset) -> tuple[AssetCheckKey, ...]:
    """Return the keys of all checks of a dataset of a transform."""
    return dataset_check_keys(
        dataset.id,
        has_stream=transform.source.stream_enabled,
        has_keys=dataset.mode != "append",
        expect=dataset.expect,
    )


def audit_check_key(source: DynamoDBSource) -> AssetCheckKey:
    """Return the key of the `audit` check of a source's change log."""
    return AssetCheckKey(change_log_key(source), AUDIT_CHECK)


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


def pool_name(transform: Transform) -> str:
    """Return the name of the pool, of limit 1, that prevents two runs of a transform at a time."""
    return f"datazone/{transform.job_name}"


def snapshot_pool_name(source: DynamoDBSource) -> str:
    """Return the name of the pool, of limit 1, that prevents two scans of a source at a time."""
    return f"datazone/{snapshot_job_name(source)}"
