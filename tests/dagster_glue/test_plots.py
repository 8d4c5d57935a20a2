"""Plots of a healthy table under traffic move, but for those that the docs mark as quiet."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path

import pytest
from dagster import AssetKey, FloatMetadataValue, IntMetadataValue

from tests.dagster_glue.conftest import World

PAGE = Path(__file__).parents[2] / "docs" / "monitoring.md"
ROUNDS = 5

MORE_STEADY = {
    "change log": {"shards_open", "shards_unfinished"},
    "dataset": {"files", "chunks", "rows_hidden", "hidden_share"},
}
"""Numbers that move, but not in a minute of a table with one shard and a handful of items."""


def marked(kind: str, mark: str) -> set[str]:
    """Return the numbers that the docs mark as `steady` or `if any`."""
    text = PAGE.read_text("utf-8").split(f"### Materialization of a {kind}\n")[1].split("\n#")[0]
    return set(re.findall(rf"^\| `([^`]+)` \|[^|]*\b{mark}\b", text, flags=re.MULTILINE))


@pytest.mark.parametrize(
    ("kind", "key"), [("change log", ["dynamodb", "orders"]), ("dataset", ["orders"])]
)
def test_what_is_plotted_moves(world: World, kind: str, key: list[str]) -> None:
    for turn in range(ROUNDS):
        for number in range(turn + 2):
            world.put(f"k{number * (turn + 1)}", status="placed" * (turn + 1))
        if turn > 2:
            world.stream.delete({"id": {"S": f"k{turn}"}})
        world.clock.advance(timedelta(seconds=3 + turn))
        world.run_until_idle()
    found = world.instance.fetch_materializations(AssetKey(key), limit=ROUNDS).records
    assert len(found) == ROUNDS
    values: dict[str, set[float]] = {}
    for record in found:
        assert record.asset_materialization is not None
        for name, value in record.asset_materialization.metadata.items():
            if isinstance(value, IntMetadataValue | FloatMetadataValue):
                values.setdefault(name, set()).add(value.value or 0)
    assert len(values) > 10
    constant = {name for name, seen in values.items() if len(seen) == 1}
    quiet = marked(kind, "if any")
    assert {name: values[name] for name in quiet & values.keys() if values[name] != {0}} == {}
    assert constant - MORE_STEADY[kind] - quiet == marked(kind, "steady")
