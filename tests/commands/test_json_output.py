"""`--json` of every command: documented, validated, and the same for errors.

`tests/commands/running.py` validates whatever a command prints with `--json`, in all tests.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from datazone_dagster.cli import COMMANDS, main
from datazone_dagster.commands.json_schemas import ERROR, EXIT_CODES, REPEATED, SCHEMAS
from datazone_dagster.demo.command import figures
from datazone_dagster.demo.facts import DemoFacts
from datazone_dagster.local import LocalDynamoDB
from datazone_dagster.local.traffic import create_orders_table
from datazone_dagster.local.wire_client import WireClient
from datazone_dagster.testing import FixedClock
from tests.commands.command_page import page
from tests.commands.running import DEFINITIONS, ProjectFolder, run_command, validate_json

PAGE = Path(__file__).parents[2] / "docs" / "command-line.md"

CALLS: dict[str, tuple[str, ...]] = {
    "accept-function": ("current",),
    "accept-gap": ("orders", "--list"),
    "audit": ("orders", "--wait-seconds", "0"),
    "completion": ("bash",),
    "cost": ("--shards", "4", "--writes", "100"),
    "demo": ("--stop",),
    "doctor": (),
    "erase": ("orders", "--key", "id=a"),
    "import-export": ("orders",),
    "init": ("shop",),
    "maintain": (),
    "rebuild": ("current",),
    "redrive": ("current",),
    "resync": ("orders",),
    "status": (),
    "tail": ("orders", "--from", "start", "--changes", "1"),
}
ELSEWHERE = {"emulator"}
"""Commands that stay: tests/local/test_command_line.py validates what they print."""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProjectFolder]:
    with LocalDynamoDB(shards=1) as server, pytest.MonkeyPatch.context() as patch:
        create_orders_table(WireClient(server.endpoint_url))
        patch.setenv("AWS_ENDPOINT_URL", server.endpoint_url)
        definitions = DEFINITIONS.replace('("orders")', '("orders", start="trim_horizon")', 1)
        folder = ProjectFolder(tmp_path_factory.mktemp("project"), definitions)
        clock = FixedClock()
        folder.put("a", 1)
        folder.put("b", -1)
        folder.drain(clock)
        folder.apply()
        clock.advance(timedelta(hours=26))
        folder.put("c", 1)
        folder.stream.trim()
        folder.put("d", 1)
        folder.drain(clock)
        yield folder


def test_every_command_is_called_here_or_elsewhere() -> None:
    assert {*CALLS, *ELSEWHERE} == set(COMMANDS)
    assert set(SCHEMAS) == set(COMMANDS)
    assert {*REPEATED, *EXIT_CODES} <= set(COMMANDS)


@pytest.mark.parametrize("name", sorted(CALLS))
def test_the_output_is_as_documented(project: ProjectFolder, name: str) -> None:
    done = project.run(name, *CALLS[name], "--json")
    assert done.returncode in EXIT_CODES.get(name, {0}), done.stdout + done.stderr
    [line] = done.stdout.splitlines()
    assert "error" not in json.loads(line)


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_the_schema_is_printed_without_a_project(tmp_path: Path, name: str) -> None:
    done = run_command(name, "--json-schema", cwd=tmp_path)
    assert json.loads(done.stdout) == SCHEMAS[name]
    command = main.get_command(click.Context(main), name)
    assert command is not None
    assert sum("--json" in option.opts for option in command.params) == 1
    assert sum("--json-schema" in option.opts for option in command.params) == 1


@pytest.mark.parametrize(
    ("arguments", "code", "kind", "words"),
    [
        (("rebuild", "nothing"), 1, "DefinitionError", "No transform writes a dataset"),
        (("audit", "nothing"), 2, "DefinitionError", "No transform reads a source"),
        (("status", "--nonsense"), 2, "UsageError", "No such option"),
        (("cost",), 2, "UsageError", "Missing option"),
        (("nonsense",), 2, "UsageError", "No such command"),
    ],
)
def test_an_error_is_an_object_with_the_same_exit_code(
    project: ProjectFolder, arguments: tuple[str, ...], code: int, kind: str, words: str
) -> None:
    done = project.run(*arguments, "--json")
    assert done.returncode == code
    error = json.loads(done.stdout)["error"]
    assert (error["type"], done.stderr) == (kind, "")
    assert words in error["message"]
    plain = project.run(*arguments)
    assert (plain.returncode, plain.stdout) == (code, "")
    assert words in plain.stderr


def test_figures_of_the_demo_are_as_documented() -> None:
    facts = DemoFacts(9, 8, 7, 1.5, 5, 6, 2, 3, (("orders lag", "passed"),))
    validate_json("demo", json.dumps(figures(facts, 20.04)))
    assert figures(facts, 20.04)["seconds"] == 20.0


def test_a_member_that_nobody_documented_is_found() -> None:
    known = {"shell": "bash", "script": ""}
    validate_json("completion", json.dumps(known))
    for wrong in ({**known, "more": 1}, {"shell": "bash"}, {**known, "shell": "ksh"}):
        with pytest.raises(Exception, match=r"more|script|ksh"):
            validate_json("completion", json.dumps(wrong))
    with pytest.raises(Exception, match="hint"):
        validate_json("completion", json.dumps({"error": dict.fromkeys(["type", "message"], "x")}))
    assert ERROR["required"] == ["error"]


def test_the_page_is_made_of_the_commands() -> None:
    assert PAGE.read_text("utf-8") == page(), "make command-page"


def test_the_shell_completes_commands_and_options(tmp_path: Path) -> None:
    def completed(words: str, number: int) -> set[str]:
        environment = {
            "_DATAZONE_DAGSTER_COMPLETE": "bash_complete",
            "COMP_WORDS": f"datazone-dagster {words}",
            "COMP_CWORD": str(number),
        }
        done = CliRunner().invoke(main, [], env=environment, prog_name="datazone-dagster")
        return set(done.stdout.split())

    assert completed("re", 1) == {"plain,rebuild", "plain,redrive", "plain,resync"}
    assert "plain,--json" in completed("cost --", 2)
    for shell in ("bash", "zsh", "fish"):
        script = run_command("completion", shell, cwd=tmp_path).stdout
        assert "_DATAZONE_DAGSTER_COMPLETE=" in script
        assert "datazone-dagster" in script
