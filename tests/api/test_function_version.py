"""The fingerprint follows the code: not its comments, not the process."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from datazone_dagster.api.function_version import fingerprint

MODULE = '''
STATUS = "dynamodb.NewImage.status.S as status"
COLUMNS = ["dynamodb.Keys.id.S as id"]

def cut(frame):
    return frame.filter("true")

def orders(changes):
    """Orders."""
    # every column
    return cut(changes).select(*COLUMNS, STATUS)
'''


def function_of(text: str, folder: Path, name: str = "orders_module") -> Callable[..., Any]:
    path = folder / f"{name}.py"
    path.write_text(text)
    module = ModuleType(name)
    exec(compile(text, str(path), "exec"), vars(module))
    function: Callable[..., Any] = module.orders
    return function


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("NewImage.status", "NewImage.state"),
        ("Keys.id", "Keys.ID"),
        ('"true"', '"false"'),
        ("*COLUMNS, STATUS", "STATUS, *COLUMNS"),
    ],
)
def test_changes_of_code_constants_and_helpers_count(
    tmp_path: Path, before: str, after: str
) -> None:
    changed = MODULE.replace(before, after)
    assert changed != MODULE
    one = fingerprint(function_of(MODULE, tmp_path, "one"))
    assert fingerprint(function_of(changed, tmp_path, "other")) != one


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("# every column", "# all of them"),
        ('"""Orders."""', '"""Orders as they are."""'),
        ("cut(changes).select", "cut( changes ) .select"),
        ("def orders", "@staticmethod\ndef orders"),
    ],
)
def test_comments_docstrings_decorators_and_formatting_do_not(
    tmp_path: Path, before: str, after: str
) -> None:
    changed = MODULE.replace(before, after)
    assert changed != MODULE
    function = function_of(changed, tmp_path, "other")
    plain = getattr(function, "__func__", function)
    assert fingerprint(plain) == fingerprint(function_of(MODULE, tmp_path, "one"))


def test_it_is_the_same_in_another_process(tmp_path: Path) -> None:
    own = fingerprint(function_of(MODULE, tmp_path))
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from orders_module import orders\n"
        "from datazone_dagster.api.function_version import fingerprint\n"
        "print(fingerprint(orders))"
    )
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path)],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(Path(__file__).parents[2])},
        )
        assert done.stdout.strip() == own


def test_functions_without_source_have_one_as_well() -> None:
    space: dict[str, Any] = {}
    exec("one = lambda c: c.select('a')\ntwo = lambda c: c.select('b')", space)
    assert fingerprint(space["one"]) != fingerprint(space["two"])
    assert fingerprint(space["one"]) == fingerprint(space["one"])
