"""What users import: exactly these names, and cheap to import."""

import dataclasses
import importlib
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import datazone_dagster
import datazone_dagster.sources
import datazone_dagster.testing
from datazone_dagster import errors, local, pipeline
from datazone_dagster.frame.frame import Frame

HEAVY = ("dagster", "boto3", "botocore", "deltalake", "duckdb", "pyarrow", "polars", "pandas")


def test_the_names_are_these() -> None:
    assert datazone_dagster.__all__ == [
        "CheckEvent",
        "DagsterDatazoneTranslator",
        "Dataset",
        "DatasetReader",
        "DatazoneAssetData",
        "DatazoneError",
        "DynamoDBSource",
        "DynamoDBStreamComponent",
        "DynamoDBStreamsResource",
        "DynamoDBTablesByTagComponent",
        "Expect",
        "Input",
        "Lakehouse",
        "Output",
        "SparkEngine",
        "Stream",
        "Transform",
        "alert_sensor",
        "apprise",
        "build_definitions",
        "dagster_yaml",
        "on_applied",
        "slack",
        "slack_alert",
        "transform",
        "webhook",
    ]
    assert datazone_dagster.sources.__all__ == ["DynamoDBSource", "KinesisSource"]
    assert datazone_dagster.testing.__all__ == [
        "Crash",
        "Fault",
        "FaultKind",
        "FaultPlan",
        "FixedClock",
        "ScriptedStream",
        "answer_lost",
        "at_point",
        "commit_fails",
        "crash_at",
        "full_disk",
        "read_only",
        "run_transform",
        "storage_fails_at",
    ]


@pytest.mark.parametrize("name", datazone_dagster.__all__)
def test_every_name_is_there_with_a_docstring(name: str) -> None:
    value = getattr(datazone_dagster, name)
    assert value.__doc__
    assert value is getattr(datazone_dagster, name)
    assert name in dir(datazone_dagster)


@pytest.mark.parametrize("name", datazone_dagster.testing.__all__)
def test_every_name_for_tests_has_a_docstring(name: str) -> None:
    assert getattr(datazone_dagster.testing, name).__doc__


def test_other_names_are_not() -> None:
    with pytest.raises(AttributeError, match="nonsense"):
        _ = datazone_dagster.nonsense  # type: ignore[attr-defined]  # that is the point
    assert not hasattr(datazone_dagster, "Nonsense")


def test_defining_a_transform_loads_nothing_heavy() -> None:
    code = f"""
import sys
import datazone_dagster
from datazone_dagster import Dataset, Input, Output, Stream, transform
from datazone_dagster.sources import DynamoDBSource
@transform(
    input_mapping={{"changes": Input(Stream(source=DynamoDBSource("orders")))}},
    output_mapping={{"rows": Output(Dataset("rows"))}},
)
def copied(changes):
    return changes
print([name for name in {HEAVY!r} if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"


def test_the_package_is_typed() -> None:
    assert (Path(datazone_dagster.__file__).parent / "py.typed").is_file()


def test_the_names_of_the_facade_are_these() -> None:
    assert pipeline.__all__ == [
        "LISTENING",
        "POLLING",
        "AccountIdEndpointMode",
        "ApplySettings",
        "AuditSettings",
        "ChangeTail",
        "ConnectionSettings",
        "DatasetReader",
        "DrainSettings",
        "Erasure",
        "FlowCounts",
        "FunctionFacts",
        "MaintenanceSettings",
        "RebuildReport",
        "RetryMode",
        "SnapshotSettings",
        "accept_function",
        "accept_gaps",
        "applied_of_logs",
        "apply_transform",
        "audit_source",
        "backlog",
        "bucket_positions",
        "buckets_behind",
        "cancel_snapshot",
        "change_log_exists",
        "change_log_head",
        "check_expectations",
        "connect",
        "connect_exports",
        "connect_table",
        "dataset_exists",
        "dataset_report",
        "datasets_of_source",
        "drain_once",
        "drain_tick",
        "flow_counts",
        "follow_changes",
        "function_facts",
        "gap_notes",
        "key_report",
        "known_sets",
        "last_scan",
        "look_in_turn",
        "lost_window_start",
        "maintain_dataset",
        "next_drain_seconds",
        "open_dataset",
        "open_erasure",
        "open_exports",
        "open_gaps",
        "plan_audit",
        "plan_snapshot",
        "probe_lakehouse",
        "probe_source",
        "quarantine_report",
        "read_dataset",
        "rebuild_dataset",
        "records_waiting",
        "redrive_dataset",
        "replace_from_table",
        "resync_after_gap",
        "snapshot_source",
        "snapshot_status",
        "source_status",
        "start_exports",
        "stop_waiting_for",
        "take_over_state",
        "truncate_applied",
        "utc_now",
        "waits_for_rebuild",
        "want_exports",
        "want_snapshot",
        "was_drained_by_runs",
    ]
    assert local.__all__ == ["AdminClient", "Fault", "FaultKind", "FaultPlan", "LocalDynamoDB"]
    for name in (*pipeline.__all__, *local.__all__):
        assert hasattr(pipeline if name in pipeline.__all__ else local, name)


SETTINGS = {
    "ApplySettings": [
        "chunk_bytes",
        "memory_budget",
        "maintenance",
        "linger_seconds",
        "idle_seconds",
        "max_run_minutes",
        "show_rows",
    ],
    "AuditSettings": [
        "sample",
        "seed",
        "workers",
        "settle_seconds",
        "wait_seconds",
        "rounds",
        "examples",
        "most_looked_at",
        "memory_limit_bytes",
    ],
    "DrainSettings": [
        "budget_seconds",
        "memory_budget",
        "budget_bytes",
        "max_workers",
        "keep_changes",
        "listen_seconds",
    ],
    "MaintenanceSettings": [
        "join_files",
        "hidden_share",
        "checkpoint_commits",
        "group_bytes",
        "budget_bytes",
        "budget_seconds",
        "retention",
        "clean_every",
    ],
    "SnapshotSettings": ["workers", "sweep_limit", "run_waits_seconds"],
}


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_have_these_fields_each_with_a_text(name: str) -> None:
    settings = getattr(pipeline, name)
    assert [field.name for field in dataclasses.fields(settings)] == SETTINGS[name]
    for field in SETTINGS[name]:
        assert f"{field}:" in (settings.__doc__ or "")


def test_a_frame_has_these_methods() -> None:
    public = {"arrow", "columns", "df", "filter", "items", "pl", "select", "sql", "with_columns"}
    for_the_stages = {"attributes", "images_needed", "is_row_wise", "is_unread", "of_changes"}
    for_the_stages |= {"is_by_change", "rows_of", "sibling_values", "field_names", "mixing", "plan"}
    for_the_stages |= {"deciding", "volatile"}
    assert {name for name in dir(Frame) if not name.startswith("_")} == public | for_the_stages
    assert hasattr(Frame, "__arrow_c_stream__")


def test_the_error_tree_is_drawn_whole() -> None:
    for module in pkgutil.walk_packages(datazone_dagster.__path__, "datazone_dagster."):
        importlib.import_module(module.name)
    drawn = re.findall(r"^[ │├└─]*(\w+Error)\b", errors.__doc__ or "", re.MULTILINE)
    assert sorted(drawn) == sorted(
        {one.__name__ for one in subclasses(errors.DatazoneError)} | {"DatazoneError"}
    )


def subclasses(of: type[Exception]) -> set[type[Exception]]:
    """All subclasses, except those that tests define."""
    found: set[type[Exception]] = set()
    for one in of.__subclasses__():
        if one.__module__.startswith("datazone_dagster."):
            found |= {one, *subclasses(one)}
    return found
