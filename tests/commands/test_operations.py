"""The commands in docs/operations.md do what the page says, in the project shown there."""

from __future__ import annotations

import re
import shlex
from datetime import timedelta
from pathlib import Path

from datazone_dagster.commands.project import load_project
from datazone_dagster.pipeline import apply_transform, drain_once, open_gaps, read_dataset
from datazone_dagster.testing import FixedClock, ScriptedStream
from tests.commands.running import run_forked

PAGE = (Path(__file__).parents[2] / "docs" / "operations.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_the_commands_of_the_page(tmp_path: Path) -> None:
    definitions = blocks("python")[0]
    (tmp_path / "definitions.py").write_text(definitions, "utf-8")
    environment = {"DATAZONE_LAKEHOUSE_URI": str(tmp_path / "lake")}
    project = load_project(str(tmp_path / "definitions.py"), None, str(tmp_path / "lake"))
    (transform,) = project.transforms
    clock = FixedClock()
    stream = ScriptedStream("orders", key=("orderId",), clock=clock)

    def put(key: str, total: str) -> None:
        stream.put({"orderId": {"S": key}, "total": {"N": total}})
        drain_once(transform.source, stream, project.layout, clock=clock)

    put("o-1", "1E+20")
    clock.advance(timedelta(hours=26))
    stream.put({"orderId": {"S": "o-2"}, "total": {"N": "2"}})
    stream.trim()
    put("o-3", "3")
    apply_transform(transform, project.layout)
    assert len(open_gaps("orders", project.layout)) == 1

    fixed = definitions.replace("cast(", "try_cast(")
    (tmp_path / "definitions.py").write_text(fixed, "utf-8")
    for line in "".join(blocks("sh")).splitlines():
        program, *arguments = shlex.split(line)
        assert program == "datazone-dagster"
        done = run_forked(*arguments, cwd=tmp_path, environment=environment)
        assert done.returncode == 0, done.stderr
    rows = read_dataset(project.layout, "order_totals")
    assert sorted(rows["order_id"].to_pylist()) == ["o-1", "o-3"]
    assert open_gaps("orders", project.layout) == ()
