"""What users import: exactly these names, and cheap to import."""

import subprocess
import sys
from pathlib import Path

import pytest

import datazone_dagster
import datazone_dagster.sources
import datazone_dagster.testing

HEAVY = ("dagster", "boto3", "botocore", "deltalake", "duckdb", "pyarrow", "polars", "pandas")


def test_the_names_are_these() -> None:
    assert datazone_dagster.__all__ == [
        "CheckEvent",
        "Dataset",
        "DatazoneError",
        "DynamoDBSource",
        "DynamoDBStreamsResource",
        "Input",
        "Lakehouse",
        "Output",
        "Stream",
        "Transform",
        "build_definitions",
        "dagster_yaml",
        "slack_alert",
        "transform",
    ]
    assert datazone_dagster.sources.__all__ == ["DynamoDBSource"]
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
