"""`datazone-dagster accept-function` as a user runs it."""

from __future__ import annotations

from datazone_dagster.pipeline import function_facts, read_dataset
from tests.commands.running import DEFINITIONS, ProjectFolder


def test_rows_of_another_version_are_accepted(project: ProjectFolder) -> None:
    nothing = project.run("accept-function", "current")
    assert nothing.returncode == 1
    assert "no lakehouse" in nothing.stderr
    for number in (1, 2):
        project.put(f"k{number}", number)
        project.drain()
        project.apply()
    same = project.run("accept-function", "current")
    assert same.returncode == 0, same.stderr
    assert same.stdout == "Dataset current has no rows of another version of its function.\n"

    before = read_dataset(project.layout, "current")
    changed = DEFINITIONS.replace("as bigint) as total", "as bigint) + 1 as total")
    (project.path / "definitions.py").write_text(changed, "utf-8")
    done = project.run("accept-function", "current")
    assert done.returncode == 0, done.stderr
    assert "rows of 2 batches that another version made are accepted" in done.stdout
    facts = function_facts(project.layout, "current", "orders")
    ((version, batch),) = facts.record.versions
    assert batch == 1
    assert f"Version {version} counts" in done.stdout
    assert read_dataset(project.layout, "current").equals(before)
    again = project.run("accept-function", "current")
    assert "no rows of another version" in again.stdout

    unknown = project.run("accept-function", "nope")
    assert unknown.returncode == 1
    assert "'nope'" in unknown.stderr
