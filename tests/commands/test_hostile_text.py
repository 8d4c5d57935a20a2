"""Keys and values in what an operator reads: escaped, short, and with the cause."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.commands.running import ProjectFolder

CLEAR_SCREEN = "\x1b[2J"
CLIPBOARD = "\x1b]52;c;cm0gLXJmIC8=\x07"
HOSTILE_KEY = f"k{CLEAR_SCREEN}\n2026-01-01 ERROR forged"
DEFINITIONS = """
from datazone_dagster import *
from datazone_dagster.sources import DynamoDBSource

ORDERS = Input(Stream(source=DynamoDBSource("orders")))

@transform(
    input_mapping={"orders": ORDERS},
    output_mapping={"current": Output(Dataset("current"))},
    on_error="quarantine",
)
def current(orders):
    for row in orders.select("dynamodb.NewImage.bad.S as bad").arrow().to_pylist():
        if row["bad"] is not None:
            raise ValueError("note " + row["bad"] + " is no number")
    return orders.select("dynamodb.Keys.id.S as id")

defs = build_definitions([current], lakehouse=Lakehouse(uri="lake"))
"""
SQL = DEFINITIONS.replace(
    """    for row in orders.select("dynamodb.NewImage.bad.S as bad").arrow().to_pylist():
        if row["bad"] is not None:
            raise ValueError("note " + row["bad"] + " is no number")
    return orders.select("dynamodb.Keys.id.S as id")""",
    """    return orders.select(
        "dynamodb.Keys.id.S as id", "cast(dynamodb.NewImage.bad.S as int) as bad"
    )""",
)


def assert_harmless(text: str) -> None:
    assert not set(text) & {chr(code) for code in (*range(10), *range(11, 32), *range(127, 160))}
    assert not [line for line in text.splitlines() if line.lstrip().startswith("2026-01-01 ERROR")]
    assert max(map(len, text.split()), default=0) <= 300


LONG = "x" * 390_000


@pytest.mark.parametrize(
    ("definitions", "value"),
    [
        (DEFINITIONS, f"{CLEAR_SCREEN}{CLIPBOARD}\n2026-01-01 ERROR forged\u202e"),
        (DEFINITIONS, LONG),
        (SQL, f"{CLEAR_SCREEN}{CLIPBOARD}\n2026-01-01 ERROR forged\u202e"),
        (SQL, LONG),
    ],
    ids=["python-hostile", "python-long", "sql-hostile", "sql-long"],
)
def test_a_quarantined_value_is_shown_escaped_and_short(
    tmp_path: Path, definitions: str, value: str
) -> None:
    project = ProjectFolder(tmp_path, definitions)
    project.stream.put({"id": {"S": HOSTILE_KEY}, "bad": {"S": value}})
    project.stream.put({"id": {"S": "good"}})
    project.drain()
    project.apply()
    listed = project.run("redrive", "current", "--list")
    tried = project.run("redrive", "current")
    assert (listed.returncode, tried.returncode) == (0, 0), listed.stderr + tried.stderr
    for text in (listed.stdout, listed.stderr, tried.stdout, tried.stderr):
        assert_harmless(text)
    cause = "is no number" if definitions is DEFINITIONS else "to INT32"
    assert cause in listed.stdout
    assert r"k\u001b[2J" in listed.stdout  # keys are shown as DynamoDB JSON
    assert r"ERROR forged" in listed.stdout


def test_a_long_reason_is_shown_with_its_cause_and_the_keys(tmp_path: Path) -> None:
    project = ProjectFolder(tmp_path, DEFINITIONS)
    for number in range(8):
        words = "and so on " * 40
        project.stream.put({"id": {"S": f"order-{number}"}, "bad": {"S": words}})
    project.stream.put({"id": {"S": "good"}})
    project.drain()
    project.apply()
    listed = project.run("redrive", "current", "--list").stdout
    assert "current: 8 records in the quarantine." in listed
    assert re.search(r"8 x the function failed: ValueError: note and .* is no number\n", listed)
    assert '    keys: {"id":{"S":"order-0"}}, {"id":{"S":"order-1"}}' in listed
    assert "order-5" not in listed
    assert "and 3 more" in listed


def test_a_list_of_many_reasons_ends(tmp_path: Path) -> None:
    """Values are part of many texts, so each record may have a reason of its own."""
    project = ProjectFolder(tmp_path, DEFINITIONS)
    for number in range(23):
        project.stream.put({"id": {"S": f"order-{number}"}, "bad": {"S": f"value {number}"}})
    for number in range(300):
        project.stream.put({"id": {"S": f"good-{number}"}})
    project.drain()
    project.apply()
    listed = project.run("redrive", "current", "--list").stdout
    assert "current: 23 records in the quarantine." in listed
    assert listed.count("1 x the function failed") == 20
    assert listed.endswith("  3 more for 3 other reasons: --json shows all.\n")
    (line,) = project.run("redrive", "current", "--list", "--json").stdout.splitlines()
    assert len(json.loads(line)["reasons"]) == 23


def test_who_accepts_a_gap_can_not_write_to_the_terminal_of_others(
    project: ProjectFolder,
) -> None:
    project.put("a", 1)
    project.drain()
    project.stream.disable()
    project.stream.enable()
    project.put("b", 1)
    project.drain()
    done = project.run(
        "accept-gap",
        "orders",
        "--why",
        f"ok{CLEAR_SCREEN}\n2026-01-01 ERROR forged",
        "--by",
        "\x07",
    )
    assert done.returncode == 0, done.stderr
    listed = project.run("accept-gap", "orders", "--list")
    for text in (done.stdout, listed.stdout):
        assert_harmless(text)
        assert r"ok\x1b[2J\n2026-01-01 ERROR forged" in text


def test_what_user_code_raises_at_import_is_escaped(project: ProjectFolder) -> None:
    (project.path / "definitions.py").write_text(f"raise ValueError({HOSTILE_KEY!r})", "utf-8")
    done = project.run("redrive", "current")
    assert done.returncode == 1
    assert_harmless(done.stderr)
    assert r"ValueError: k\x1b[2J\n2026-01-01 ERROR forged" in done.stderr


def test_an_unknown_name_is_escaped(project: ProjectFolder) -> None:
    done = project.run("redrive", HOSTILE_KEY)
    assert done.returncode == 1
    assert_harmless(done.stderr)
