from __future__ import annotations

from typing import Any

import pytest

from datazone_dagster.local.expressions.conditions import condition
from datazone_dagster.local.expressions.projections import project, projection
from datazone_dagster.local.expressions.tokens import Placeholders
from datazone_dagster.local.expressions.updates import update
from datazone_dagster.local.service_errors import ServiceError
from datazone_dagster.local.values import checked_item

ITEM: dict[str, Any] = checked_item(
    {
        "id": {"S": "a"},
        "n": {"N": "10"},
        "word": {"S": "hello"},
        "payload": {"B": "AQI="},
        "tags": {"SS": ["x", "y"]},
        "numbers": {"NS": ["1", "2"]},
        "flag": {"BOOL": True},
        "deep": {"M": {"parts": {"L": [{"S": "p"}, {"N": "2"}, {"S": "q"}]}, "k": {"N": "1"}}},
    }
)
VALUES: dict[str, Any] = {
    ":ten": {"N": "10.0"},
    ":nine": {"N": "9"},
    ":hel": {"S": "hel"},
    ":x": {"S": "x"},
    ":p": {"S": "p"},
    ":two": {"N": "2"},
    ":list": {"L": [{"S": "new"}]},
    ":set": {"SS": ["y", "z"]},
    ":both": {"SS": ["x", "y"]},
    ":type": {"S": "SS"},
    ":b": {"B": "AQ=="},
}


def holds(expression: str) -> bool:
    return condition(expression, "ConditionExpression", Placeholders({"#n": "n"}, VALUES))(ITEM)


@pytest.mark.parametrize(
    "expression",
    [
        "n = :ten",
        "#n >= :ten AND n <= :ten",
        "n > :nine",
        "NOT n < :nine",
        "n <> :nine",
        "absent <> :nine",
        "n BETWEEN :nine AND :ten",
        "n IN (:nine, :ten)",
        "word = :x OR n = :ten AND flag <> :x",
        "(word = :x OR n = :ten) AND attribute_exists(deep.k)",
        "attribute_not_exists(deep.absent.below)",
        "attribute_exists(deep.parts[2])",
        "attribute_not_exists(deep.parts[3])",
        "attribute_type(tags, :type)",
        "begins_with(word, :hel)",
        "begins_with(payload, :b)",
        "contains(word, :hel)",
        "contains(tags, :x)",
        "contains(numbers, :two)",
        "contains(deep.parts, :p)",
        "size(word) > size(tags)",
        "size(deep.parts) > :two",
        "tags = :both",
        "word > :hel",
    ],
)
def test_true_conditions(expression: str) -> None:
    assert holds(expression)
    assert not holds(f"NOT ({expression})")


@pytest.mark.parametrize(
    "expression",
    [
        "absent = :ten",
        "absent < :ten",
        "n < :hel",
        "word = :ten",
        "absent = also_absent",
        "contains(word, :ten)",
        "contains(tags, :two)",
        "begins_with(n, :hel)",
        "flag < :ten",
        "size(n) = :two",
    ],
)
def test_false_conditions(expression: str) -> None:
    assert not holds(expression)


@pytest.mark.parametrize(
    "expression",
    [
        "",
        "n =",
        "n = :ten extra",
        "n == :ten",
        "n = :ten AND",
        "(n = :ten",
        "unknown_function(n)",
        "n = :absent",
        "#absent = :ten",
        "status = :x",
        "attribute_type(n, :x)",
        "n ! :ten",
        "n[x] = :ten",
        "attribute_exists(:ten)",
        "size(n)",
    ],
)
def test_bad_conditions_are_validation_errors(expression: str) -> None:
    with pytest.raises(ServiceError) as refused:
        holds(expression)
    assert refused.value.code == "ValidationException"


def updated(expression: str) -> dict[str, Any]:
    return update(expression, Placeholders({"#n": "n"}, VALUES)).apply(ITEM)


@pytest.mark.parametrize(
    ("expression", "name", "value"),
    [
        ("SET n = :nine", "n", {"N": "9"}),
        ("SET #n = n + :two", "n", {"N": "12"}),
        ("SET n = n - :ten", "n", {"N": "0"}),
        ("SET n = if_not_exists(n, :two) + :two", "n", {"N": "12"}),
        ("SET fresh = if_not_exists(fresh, :two)", "fresh", {"N": "2"}),
        ("set word = id", "word", {"S": "a"}),
        ("ADD n :two", "n", {"N": "12"}),
        ("ADD fresh :two", "fresh", {"N": "2"}),
        ("ADD tags :set", "tags", {"SS": ["x", "y", "z"]}),
        ("DELETE tags :set", "tags", {"SS": ["x"]}),
        ("DELETE tags :both", "tags", None),
        ("DELETE absent :both", "absent", None),
        ("REMOVE word", "word", None),
        ("REMOVE absent", "absent", None),
    ],
)
def test_updates_of_an_attribute(expression: str, name: str, value: object) -> None:
    assert updated(expression).get(name) == value


@pytest.mark.parametrize(
    ("expression", "elements"),
    [
        ("SET deep.parts[0] = :x", [{"S": "x"}, {"N": "2"}, {"S": "q"}]),
        ("SET deep.parts[9] = :x", [{"S": "p"}, {"N": "2"}, {"S": "q"}, {"S": "x"}]),
        ("REMOVE deep.parts[0], deep.parts[2]", [{"N": "2"}]),
        ("REMOVE deep.parts[9]", [{"S": "p"}, {"N": "2"}, {"S": "q"}]),
        (
            "SET deep.parts = list_append(:list, deep.parts)",
            [{"S": "new"}, {"S": "p"}, {"N": "2"}, {"S": "q"}],
        ),
        ("SET deep.parts[1] = :x REMOVE deep.parts[0]", [{"S": "x"}, {"S": "q"}]),
    ],
)
def test_updates_inside_a_document(expression: str, elements: object) -> None:
    assert updated(expression)["deep"]["M"]["parts"] == {"L": elements}


def test_operands_see_the_item_as_it_was() -> None:
    after = updated("SET n = :two, copied = n")
    assert (after["n"], after["copied"]) == ({"N": "2"}, {"N": "10"})
    assert ITEM["n"] == {"N": "10"}


@pytest.mark.parametrize(
    "expression",
    [
        "SET n = absent",
        "SET n = n + :hel",
        "SET deep.absent.below = :x",
        "REMOVE absent.below",
        "SET n = :two SET word = :x",
        "SET n = :two, n = :ten",
        "SET deep = :x REMOVE deep.k",
        "ADD word :two",
        "ADD n :hel",
        "ADD deep.k deep",
        "DELETE n :two",
        "DELETE n :both",
        "SET n = list_append(:list, word)",
        "SET n = unknown(n)",
        "SET status = :x",
        "PUT n = :two",
        "SET n :two",
        "REMOVE",
    ],
)
def test_bad_updates_are_validation_errors(expression: str) -> None:
    with pytest.raises(ServiceError) as refused:
        updated(expression)
    assert refused.value.code == "ValidationException"


def test_a_sum_beyond_38_digits_is_refused() -> None:
    values = {":big": {"N": "1e37"}, ":small": {"N": "0.1"}}
    with pytest.raises(ServiceError, match="38 significant digits"):
        update("SET n = :big + :small", Placeholders(None, values)).apply({})


def test_projection_keeps_the_shape_of_the_document() -> None:
    paths = projection("id, deep.parts[2], deep.parts[0], absent.x", Placeholders(None, None))
    assert project(ITEM, paths) == {
        "id": {"S": "a"},
        "deep": {"M": {"parts": {"L": [{"S": "p"}, {"S": "q"}]}}},
    }


@pytest.mark.parametrize(
    ("paths", "how"),
    [("deep, deep.k", "overlap"), ("deep.k, id, deep[0]", "conflict"), ("id, id", "overlap")],
)
def test_paths_that_exclude_each_other_are_refused(paths: str, how: str) -> None:
    with pytest.raises(ServiceError, match=f"Two document paths {how} with each other"):
        projection(paths, Placeholders(None, None))


def test_unused_placeholders_are_refused() -> None:
    placeholders = Placeholders({"#a": "a", "#b": "b"}, None)
    projection("#a", placeholders)
    with pytest.raises(ServiceError, match=r"unused in expressions: keys: \{#b\}"):
        placeholders.require_all_used()
