"""`rebuild` and `redrive` tell a configured Dagster instance what they did."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from dagster import AssetCheckKey, AssetKey, DagsterInstance

from tests.commands.running import DEFINITIONS, ProjectFolder

NOT_TOLD = "DAGSTER_HOME is not set: Dagster shows this with the next run of the dataset.\n"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    (folder / "dagster.yaml").touch()
    return folder


@pytest.fixture
def filled(project: ProjectFolder) -> ProjectFolder:
    for key, total in (("a", 1), ("b", -4)):
        project.put(key, total)
    project.drain()
    project.apply()
    return project


def shown(home: Path, *prefix: str) -> tuple[dict[str, Any], bool | None]:
    """Return the latest materialization's metadata, and whether the quarantine check passes."""
    with DagsterInstance.from_config(str(home)) as instance:
        event = instance.get_latest_materialization_event(AssetKey([*prefix, "current"]))
        key = AssetCheckKey(AssetKey([*prefix, "current"]), "quarantine")
        record = instance.get_latest_asset_check_evaluation_record(key)
        materialization = event.asset_materialization if event else None
        metadata = materialization.metadata if materialization else {}
        status = record.status.value if record else None
        return {key: one.value for key, one in metadata.items()}, (
            None if status is None else status == "SUCCEEDED"
        )


@pytest.mark.parametrize(("preview", "prefix"), [(True, []), (False, ["team", "raw"])])
def test_both_commands(filled: ProjectFolder, home: Path, preview: bool, prefix: list[str]) -> None:
    options = f'uri="lake"), preview={preview}, key_prefix={prefix}'
    text = DEFINITIONS.replace('uri="lake")', options)
    (filled.path / "definitions.py").write_text(text, "utf-8")
    environment = {"DAGSTER_HOME": str(home)}
    rebuilt = filled.run("rebuild", "current", **environment)
    assert rebuilt.returncode == 0, rebuilt.stderr
    assert "DAGSTER_HOME" not in rebuilt.stderr
    metadata, passed = shown(home, *prefix)
    assert (metadata["dagster/row_count"], metadata["rebuild"], passed) == (1, 1, False)
    assert ("preview" in metadata) is preview

    redriven = filled.run("redrive", "current", FIXED="yes", **environment)
    assert redriven.returncode == 0, redriven.stderr
    assert redriven.stderr == ""
    metadata, passed = shown(home, *prefix)
    assert (metadata["dagster/row_count"], metadata["records_redriven"], passed) == (2, 1, True)


def test_without_an_instance_they_say_so(filled: ProjectFolder) -> None:
    for arguments in (("rebuild", "current"), ("redrive", "current")):
        done = filled.run(*arguments, FIXED="yes", DAGSTER_HOME="")
        assert done.returncode == 0, done.stderr
        assert done.stderr == NOT_TOLD


def test_an_instance_that_does_not_work_hides_nothing(filled: ProjectFolder, home: Path) -> None:
    (home / "dagster.yaml").write_text("storage: nonsense\n", "utf-8")
    done = filled.run("redrive", "current", FIXED="yes", DAGSTER_HOME=str(home))
    assert done.returncode == 0, done.stderr
    assert "current: 1 record applied" in done.stdout
    assert "could not be reported to Dagster" in done.stderr
    assert "Traceback" not in done.stderr
