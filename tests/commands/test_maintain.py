"""`datazone-dagster maintain` as a user runs it."""

from __future__ import annotations

import pyarrow as pa
from deltalake import DeltaTable

from datazone_dagster.model.asset_write import AssetWrite
from datazone_dagster.pipeline import read_dataset
from datazone_dagster.pipeline.table_calls import write_table
from tests.commands.running import ProjectFolder, run_forked


def test_all_datasets_or_one(project: ProjectFolder) -> None:
    project.drain()
    nothing = project.run("maintain")
    assert nothing.returncode == 0, nothing.stderr
    assert nothing.stdout == "".join(
        f"{one}: no table yet at {project.layout.dataset(one)}\n" for one in ("current", "events")
    )

    for number in range(3):
        project.put(f"k{number}", number)
        project.drain()
        project.apply()
    before = read_dataset(project.layout, "events").sort_by("_dz_version")
    # In a process of its own: it joins no more than fits in memory beside what is there.
    done = run_forked("maintain", "events", cwd=project.path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("events: joined 3 files, made a checkpoint; 3 rows, 0 hidden")
    assert len(DeltaTable(project.layout.dataset("events")).file_uris()) == 1
    assert read_dataset(project.layout, "events").sort_by("_dz_version").equals(before)

    again = run_forked("maintain", "events", cwd=project.path)
    assert again.stdout.startswith("events: nothing to do; 3 rows")

    write_table(project.layout, "report", AssetWrite(), pa.table({"n": [1]}))
    assert project.run("maintain", "report").stdout.startswith("report: made a checkpoint; 1 rows")
    assert project.run("maintain").stdout.splitlines()[-1].startswith("report: ")

    unknown = project.run("maintain", "nope")
    assert unknown.returncode == 1
    assert "'nope'" in unknown.stderr
