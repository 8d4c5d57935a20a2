"""Wrong calls of public names, as beginners make them: the error says what to write."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from datazone_dagster import (
    Dataset,
    DynamoDBSource,
    DynamoDBStreamsResource,
    Expect,
    Input,
    Lakehouse,
    Output,
    SparkEngine,
    Stream,
    build_definitions,
    transform,
)
from datazone_dagster.errors import DefinitionError
from datazone_dagster.sources import KinesisSource

SOURCE = DynamoDBSource("orders")
INPUTS = {"orders": Input(Stream(source=SOURCE))}
OUTPUTS = {"orders": Output(Dataset("orders"))}
DECORATED = '@transform(input_mapping={"orders": Input(Stream(source=DynamoDBSource("orders")))}'


def function(orders: object) -> object:
    return orders


WRONG: list[tuple[Any, tuple[object, ...], dict[str, object], tuple[str, ...]]] = [
    # name, arguments, named arguments, texts of the error
    (transform, (function,), {}, ("written without its arguments", DECORATED)),
    (transform, (), {}, ("input_mapping= and output_mapping= are missing", DECORATED)),
    (transform, (INPUTS, OUTPUTS), {}, ("given by name", DECORATED)),
    (transform, (), {"inputs": INPUTS, "outputs": OUTPUTS}, ("inputs=", "input_mapping= is meant")),
    (
        transform,
        (),
        {"input_mapping": INPUTS, "output_mapping": OUTPUTS, "mode": "merge"},
        ("no argument mode=", "mode= is an argument of Dataset"),
    ),
    (Input, (), {}, ("origin= is missing", "Input(Stream(source=DynamoDBSource(")),
    (Input, (), {"source": SOURCE}, ("no argument source=", "an argument of Stream")),
    (Output, (), {"id": "orders"}, ("no argument id=", 'Output(Dataset("orders"))')),
    (Stream, (SOURCE, SOURCE), {}, ("1 argument can be given without a name, not 2", "Stream(")),
    (Stream, (), {"table_name": "x"}, ("an argument of DynamoDBSource", "Stream(source=")),
    (Dataset, (), {"tags": "x"}, ("id= is missing", 'Dataset("orders"')),
    (Dataset, (), {"name": "x"}, ("The name of a dataset is its id", 'Dataset("orders"')),
    (Dataset, ("x",), {"id": "x"}, ("id= is given twice",)),
    (Dataset, ("x",), {"primary_key": "id"}, ("key of the DynamoDB table",)),
    (Dataset, ("x",), {"expectations": {}}, ("Perhaps expect= is meant",)),
    (Dataset, ("x",), {"colour": "red"}, ("The arguments of Dataset are id, tags, mode",)),
    (DynamoDBSource, (), {"table": "orders"}, ("table_name= is meant", 'DynamoDBSource("orders"')),
    (DynamoDBSource, ("orders",), {"region_name": "eu-west-1"}, ("region= is meant",)),
    (DynamoDBSource, ("orders",), {"types": {}}, ("items(types={...})",)),
    (KinesisSource, ("orders",), {}, ("stream_name= is missing", "KinesisSource(")),
    (KinesisSource, (), {"drain": "runs"}, ("no argument drain=", "by its sensor only")),
    (KinesisSource, ("o", "s"), {"stream_enabled": False}, ("always reads a stream",)),
    (Expect, (), {}, ("predicate= is missing", 'Expect("total >= 0"')),
    (SparkEngine, (), {}, ("remote= is missing", "SparkEngine(remote=")),
    (build_definitions, (), {}, ("transforms= is missing", "build_definitions([my_transform")),
    (build_definitions, ([],), {"resources": {}}, ("Definitions.merge",)),
    (build_definitions, ([], Lakehouse()), {}, ("1 argument can be given without a name",)),
    (Lakehouse, ("s3://lake",), {}, ("given by name", "Lakehouse(uri=")),
    (Lakehouse, (), {"path": "s3://lake"}, ("no argument path=", "uri= is meant")),
    (DynamoDBStreamsResource, (), {"region": "x"}, ("region_name= is meant",)),
]


@pytest.mark.parametrize(("name", "args", "kwargs", "texts"), WRONG)
def test_a_wrong_call_says_what_to_write(
    name: Any, args: tuple[object, ...], kwargs: dict[str, object], texts: tuple[str, ...]
) -> None:
    with pytest.raises(DefinitionError) as caught:
        name(*args, **kwargs)
    message = str(caught.value)
    assert message.startswith(f"{name.__name__}: ")
    assert "Write " in message
    for text in texts:
        assert text in message


def test_a_value_of_another_kind_is_named_without_its_contents() -> None:
    whole: Any = Input(Stream(source=SOURCE))
    with pytest.raises(DefinitionError) as caught:
        transform(input_mapping=whole, output_mapping=OUTPUTS)(function)
    assert "input_mapping is an Input, not a mapping" in str(caught.value)
    assert len(str(caught.value)) < 200
    stream: Any = {"orders": Stream(source=SOURCE)}
    with pytest.raises(DefinitionError, match=r'Write input_mapping={"orders": Input\(Stream\('):
        transform(input_mapping=stream, output_mapping=OUTPUTS)(function)
    cls: Any = Stream
    with pytest.raises(DefinitionError, match="origin is the class Stream"):
        Input(cls)


def test_a_parameter_with_another_name_gets_the_corrected_line() -> None:
    with pytest.raises(DefinitionError, match="or name the parameter changes"):
        transform(input_mapping={"changes": INPUTS["orders"]}, output_mapping=OUTPUTS)(function)
    with pytest.raises(DefinitionError, match=r"def function\(orders\)"):
        transform(input_mapping=INPUTS, output_mapping=OUTPUTS)(lambda: None)
    with pytest.raises(DefinitionError, match="no Dagster context"):
        transform(input_mapping=INPUTS, output_mapping=OUTPUTS)(lambda context, orders: orders)


def test_a_decorator_is_no_transform() -> None:
    decorator: Any = transform(input_mapping=INPUTS, output_mapping=OUTPUTS)
    with pytest.raises(DefinitionError, match=r"the decorator transform\(\.\.\.\)"):
        build_definitions([decorator])


def test_settings_that_are_empty_are_refused_too() -> None:
    settings: Any = {}
    with pytest.raises(DefinitionError, match="apply_settings is a dict"):
        build_definitions([], apply_settings=settings)


@pytest.mark.parametrize("name", {one[0].__name__: one[0] for one in WRONG}.values())
def test_checked_calls_still_show_their_arguments(name: Any) -> None:
    parameters = inspect.signature(name).parameters
    assert parameters
    assert not any(one.kind == one.VAR_POSITIONAL for one in parameters.values())
    assert name.__doc__
