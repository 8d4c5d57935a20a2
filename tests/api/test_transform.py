"""transform: stays callable as the plain function, refuses invalid definitions at import time."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest

from datazone_dagster import Dataset, Input, Output, Stream, Transform, transform
from datazone_dagster.errors import DefinitionError
from datazone_dagster.sources import DynamoDBSource

STREAM = Input(Stream(source=DynamoDBSource("orders")))
ROWS = {"rows": Output(Dataset("rows"))}


@transform(
    input_mapping={"changes": STREAM, "customers": Input(Dataset("customers"))},
    output_mapping={"a": Output(Dataset("one")), "b": Output(Dataset("two"))},
    owners="team:orders",
    group_name="orders",
)
def split(changes: list[int], customers: list[int], limit: int = 2) -> tuple[int, int]:
    """Into two.

    And more.
    """
    return sum(changes[:limit]), sum(customers)


def test_it_is_still_the_plain_function() -> None:
    assert split([1, 2, 3], customers=[4]) == (3, 4)
    assert vars(split)["__name__"] == "split"
    assert split.__module__ == __name__
    assert list(inspect.signature(split).parameters) == ["changes", "customers", "limit"]
    assert inspect.unwrap(split) is split.function


def test_its_attributes() -> None:
    assert (split.name, split.job_name) == ("split", "apply_split")
    assert split.stream_parameter == "changes"
    assert split.source == DynamoDBSource("orders")
    assert dict(split.lookups) == {"customers": Dataset("customers")}
    assert {name: dataset.id for name, dataset in split.outputs.items()} == {"a": "one", "b": "two"}
    assert split.description == "Into two.\n\nAnd more."
    assert (split.owners, split.group_name) == (("team:orders",), "orders")
    assert repr(split) == "<Transform split: orders -> one, two>"
    assert {split} == {split}


def test_it_is_deeply_frozen() -> None:
    with pytest.raises(AttributeError):
        split.name = "other"  # type: ignore[misc]  # that is the point
    for mapping in (split.input_mapping, split.output_mapping, split.lookups, split.outputs):
        with pytest.raises(TypeError):
            mapping["more"] = 1  # type: ignore[index]  # that is the point


def test_the_mappings_given_are_copied() -> None:
    outputs = dict(ROWS)
    one = transform(input_mapping={"changes": STREAM}, output_mapping=outputs)(lambda_like())
    outputs["more"] = Output(Dataset("more"))
    assert list(one.outputs) == ["rows"]


def lambda_like() -> Callable[..., Any]:
    def plain(changes: Any) -> Any:
        return changes

    return plain


def plain(changes: Any) -> Any:
    return changes


def two(changes: Any, other: Any) -> Any:
    return changes


async def waiting(changes: Any) -> Any:
    return changes


def yielding(changes: Any) -> Any:
    yield changes


def rest(changes: Any, *others: Any, **more: Any) -> Any:
    return changes


def positional(changes: Any, /) -> Any:
    return changes


@pytest.mark.parametrize(
    ("function", "options", "words"),
    [
        (plain, {"input_mapping": {"orders": STREAM}}, ["'orders'", "parameter", "'changes'"]),
        (two, {}, ["input_mapping", "'other'"]),
        (two, {"input_mapping": {"changes": STREAM, "other": STREAM}}, ["2 streams", "'other'"]),
        (plain, {"input_mapping": {"changes": Input(Dataset("a"))}}, ["0 streams", "Stream"]),
        (plain, {"input_mapping": {}}, ["input_mapping", "empty"]),
        (plain, {"input_mapping": {"changes": Dataset("a")}}, ["input_mapping['changes']"]),
        (plain, {"output_mapping": {}}, ["output_mapping", "empty"]),
        (plain, {"output_mapping": {"rows": Dataset("a")}}, ["output_mapping['rows']", "Output"]),
        (plain, {"output_mapping": {"my rows": Output(Dataset("a"))}}, ["'my rows'"]),
        (
            plain,
            {"output_mapping": {"a": Output(Dataset("x")), "b": Output(Dataset("x"))}},
            ["'a'", "'b'", "'x'"],
        ),
        (
            two,
            {"input_mapping": {"changes": STREAM, "other": Input(Dataset("rows"))}},
            ["'rows'", "input 'other'", "output 'rows'"],
        ),
        (plain, {"name": "not a name"}, ["name='not a name'", "letters"]),
        (lambda changes: changes, {}, ["<lambda>", "name="]),
        (plain, {"owners": "nobody"}, ["owners", "team:"]),
        (plain, {"group_name": "a b"}, ["group_name"]),
        (plain, {"description": 7}, ["description"]),
        (plain, {"run_tags": {"ecs/cpu": 1024}}, ["run_tags", "strings"]),
        (plain, {"run_tags": ["ecs/cpu"]}, ["run_tags", "mapping"]),
        (plain, {"on_error": "ignore"}, ["on_error='ignore'", "'fail'"]),
        (waiting, {}, ["async"]),
        (yielding, {}, ["yields"]),
        (rest, {}, ["*others", "**more"]),
        (positional, {}, ["changes", "by name"]),
        ("text", {}, ["'text'", "function"]),
    ],
)
def test_an_invalid_definition_is_refused(
    function: Any, options: dict[str, Any], words: list[str]
) -> None:
    arguments: dict[str, Any] = {"input_mapping": {"changes": STREAM}, "output_mapping": ROWS}
    with pytest.raises(DefinitionError) as caught:
        transform(**{**arguments, **options})(function)
    for word in words:
        assert word in str(caught.value)


def test_a_lambda_with_a_name_is_fine() -> None:
    def copied(changes: Any) -> Any:
        return changes

    copied.__name__ = "<lambda>"
    build = transform(input_mapping={"changes": STREAM}, output_mapping=ROWS, name="copied")
    built: Transform = build(copied)
    assert built.name == "copied"


def test_an_input_of_another_kind_is_named_without_its_settings() -> None:
    source: Any = DynamoDBSource("orders", endpoint_url="http://127.0.0.1:8000")
    with pytest.raises(DefinitionError, match="origin is a DynamoDBSource") as refused:
        Input(source)
    assert "endpoint_url" not in str(refused.value)
    assert "Input(Stream(source=" in refused.value.hint
