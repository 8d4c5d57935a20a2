"""Expectations: rows that violate them warn, fail the run or wait in the quarantine."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable

from datazone_dagster import Dataset, Expect, Input, Output, Stream, Transform, transform
from datazone_dagster.errors import DefinitionError, ExpectationError, ExpressionError
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.report import ApplyReport, RedriveReport
from datazone_dagster.pipeline import (
    ApplySettings,
    apply_transform,
    check_expectations,
    drain_once,
    quarantine_report,
    read_dataset,
    rebuild_dataset,
    redrive_dataset,
)
from datazone_dagster.sources import DynamoDBSource
from datazone_dagster.testing import FixedClock, ScriptedStream

SOURCE = DynamoDBSource("orders", start="trim_horizon")
MODES: dict[str, dict[str, Any]] = {
    "merge": {},
    "soft": {"deletes": "soft"},
    "history": {"mode": "history"},
    "append": {"mode": "append"},
}


def columns(changes: Any) -> Any:
    return changes.select(
        "dynamodb.Keys.id.S as id",
        "cast(dynamodb.NewImage.total.N as int) as total",
        "dynamodb.NewImage.note.S as note",
    )


def as_python(changes: Any) -> Any:
    """Like `columns`, in a way that reads the chunk itself."""
    return columns(changes).arrow()


def as_items(changes: Any) -> Any:
    return changes.items().select("id", "total", "note")


def flow(expect: Any, function: Any = columns, **dataset: Any) -> Transform:
    return transform(
        name="flow",
        input_mapping={"changes": Input(Stream(source=SOURCE))},
        output_mapping={"rows": Output(Dataset("d", expect=expect, **dataset))},
    )(function)


WAYS = [
    ("merge", columns),
    ("merge", as_python),
    ("merge", as_items),
    ("history", columns),
    ("append", as_python),
]


class World:
    def __init__(self, root: Path) -> None:
        self.layout = Layout(str(root))
        self.clock = FixedClock()
        self.stream = ScriptedStream("orders", clock=self.clock)

    def put(self, key: str, total: int | None, note: str = "") -> None:
        self.clock.advance(timedelta(seconds=1))
        item: dict[str, Any] = {"id": {"S": key}, "note": {"S": note}}
        if total is not None:
            item["total"] = {"N": str(total)}
        self.stream.put(item)

    def delete(self, key: str) -> None:
        self.clock.advance(timedelta(seconds=1))
        self.stream.delete({"id": {"S": key}})

    def drain(self) -> None:
        drain_once(SOURCE, self.stream, self.layout, clock=self.clock)

    def apply(self, one: Transform, **settings: Any) -> ApplyReport:
        self.drain()
        return apply_transform(
            one,
            self.layout,
            settings=ApplySettings(linger_seconds=0, **settings),
            clock=self.clock,
        )["d"]

    def totals(self) -> dict[str, int | None]:
        return {row["id"]: row["total"] for row in read_dataset(self.layout, "d").to_pylist()}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def counts(report: ApplyReport | RedriveReport) -> dict[str, tuple[int, int, str | None]]:
    return {one.rule: (one.rows, one.violations, one.example_key) for one in report.expectations}


@pytest.mark.parametrize("function", [columns, as_python])
def test_rows_that_warn_are_written_and_counted(world: World, function: Any) -> None:
    expected = flow({"positive": "total >= 0", "noted": "note is not null"}, function)
    for key, total in (("a", 5), ("b", -1), ("c", None), ("d", -2)):
        world.put(key, total)
    report = world.apply(expected)
    # As with a CHECK of SQL, null is no violation.
    assert counts(report) == {"positive": (4, 2, "2:idS1:b"), "noted": (4, 0, None)}
    assert world.totals() == {"a": 5, "b": -1, "c": None, "d": -2}


@pytest.mark.parametrize(("mode", "function"), WAYS)
def test_rows_that_fail_fail_the_run_before_anything_is_written(
    world: World, mode: str, function: Any
) -> None:
    rule = Expect("total >= 0", on_violation="fail")
    expected = flow({"positive": rule}, function, **MODES[mode])
    world.put("a", 1)
    world.apply(expected)
    before = DeltaTable(f"{world.layout.uri}/d").version()
    world.put("b", 2)
    world.put("c", -7, note="x" * 100)
    with pytest.raises(ExpectationError) as caught:
        world.apply(expected)
    text = str(caught.value)
    assert "1 of 2 rows violate the expectation 'positive' (total >= 0)" in text
    assert '{"id":{"S":"c"}}: id = c, total = -7, note = xxx' in text
    assert "Nothing of this chunk was applied" in text
    assert (caught.value.dataset_id, caught.value.violations) == ("d", {"positive": 1})
    assert DeltaTable(f"{world.layout.uri}/d").version() == before
    with pytest.raises(ExpectationError) as hidden:
        world.apply(expected, show_rows=False)
    assert "-7" not in str(hidden.value)
    # A rule that only warns lets the same chunk in, once.
    report = world.apply(flow({"positive": "total >= 0"}, function, **MODES[mode]))
    assert counts(report)["positive"][:2] == (2, 1)
    assert world.totals() == {"a": 1, "b": 2, "c": -7}


def test_masked_values_stay_masked_in_the_error(tmp_path: Path) -> None:
    world = World(tmp_path)
    source = DynamoDBSource("orders", start="trim_horizon", mask={"note": "last4"})
    masked = transform(
        name="flow",
        input_mapping={"changes": Input(Stream(source=source))},
        output_mapping={
            "rows": Output(
                Dataset("d", expect={"positive": Expect("total >= 0", on_violation="fail")})
            )
        },
    )(columns)
    world.put("a", -1, note="DE89370400440532013000")
    drain_once(source, world.stream, world.layout, clock=world.clock)
    with pytest.raises(ExpectationError, match=r"note = .*3000") as caught:
        apply_transform(masked, world.layout, clock=world.clock)
    assert "DE89" not in str(caught.value)


def test_a_failing_dataset_keeps_the_others_of_its_transform_back(world: World) -> None:
    rule = Expect("total >= 0", on_violation="fail")

    @transform(
        input_mapping={"changes": Input(Stream(source=SOURCE))},
        output_mapping={
            "first": Output(Dataset("first")),
            "second": Output(Dataset("second", expect={"positive": rule})),
        },
    )
    def both(changes: Any) -> Any:
        return columns(changes), columns(changes)

    world.put("a", -1)
    world.drain()
    with pytest.raises(ExpectationError):
        apply_transform(both, world.layout, clock=world.clock)
    assert not (Path(world.layout.uri) / "first").exists()


@pytest.mark.parametrize(("mode", "function"), WAYS)
def test_rows_for_the_quarantine_wait_there_and_are_redriven(
    world: World, mode: str, function: Any
) -> None:
    rule = Expect("total >= 0", on_violation="quarantine")
    expected = flow({"positive": rule}, function, **MODES[mode])
    world.put("a", 1)
    world.put("b", -2)
    world.put("c", 3)
    report = world.apply(expected)
    assert counts(report) == {"positive": (3, 1, "2:idS1:b")}
    assert (report.quarantined, world.totals()) == (1, {"a": 1, "c": 3})
    waiting = quarantine_report(expected, "d", world.layout)
    assert waiting.reasons == (("it violates an expectation: positive, total >= 0", 1),)
    # Still violating: it stays. Allowed: it comes, once.
    assert redrive_dataset(expected, "d", world.layout).redriven == 0
    allowed = flow({"positive": "total >= 0"}, function, **MODES[mode])
    done = redrive_dataset(allowed, "d", world.layout)
    assert (done.redriven, done.waiting) == (1, 0)
    assert [(one.rule, one.violations) for one in done.expectations] == [("positive", 1)]
    assert world.totals() == {"a": 1, "b": -2, "c": 3}
    assert redrive_dataset(allowed, "d", world.layout).redriven == 0


@pytest.mark.parametrize(("mode", "function"), WAYS)
def test_a_redrive_leaves_only_the_records_that_violate_a_rule_that_fails(
    world: World, mode: str, function: Any
) -> None:
    def with_rule(rule: Expect) -> Transform:
        return flow({"positive": rule}, function, **MODES[mode])

    for key, total in (("a", -20), ("b", -1)):
        world.put(key, total)
    world.apply(with_rule(Expect("total >= 0", on_violation="quarantine")))
    fails = with_rule(Expect("total >= -10", on_violation="fail"))
    done = redrive_dataset(fails, "d", world.layout)
    assert (done.redriven, world.totals()) == (1, {"b": -1})
    stays = (("it violates an expectation: positive, total >= -10", 1),)
    assert (done.waiting, done.reasons) == (1, stays)
    # No run failed: the check is about the row that was written.
    assert counts(done) == {"positive": (1, 0, None)}
    again = redrive_dataset(fails, "d", world.layout)
    assert (again.redriven, again.reasons, again.expectations) == (0, stays, ())
    # A run still fails by it.
    world.put("c", -30)
    with pytest.raises(ExpectationError):
        world.apply(fails)


@pytest.mark.parametrize("deletes", ["hard", "soft"])
def test_a_superseded_record_is_redriven_whatever_a_rule_that_fails_says_of_it(
    world: World, deletes: str
) -> None:
    """A run does not look at a row that it does not write; nor does a redrive."""

    def with_rule(rule: Expect) -> Transform:
        return flow({"positive": rule}, deletes=deletes)

    changes = [("a", -1), ("a", 1), ("b", -2), ("b", -3), ("c", -4), ("d", -5), ("d", -9)]
    for key, total in changes:
        world.put(key, total)
    world.delete("c")
    first = world.apply(with_rule(Expect("total >= 0", on_violation="quarantine")))
    assert first.quarantined == 6
    fails = with_rule(Expect("total >= -3 and total <> -2", on_violation="fail"))
    done = redrive_dataset(fails, "d", world.layout)
    # a: the table has a newer one, which it keeps. b: the newer one of the portion is written.
    # c: it was deleted since. d: nothing newer is taken, so both versions wait.
    assert (done.redriven, done.waiting) == (4, 2)
    deleted = {"c": -4} if deletes == "soft" else {}  # its last image, marked: rules pass it over
    assert world.totals() == {"a": 1, "b": -3, **deleted}
    assert redrive_dataset(fails, "d", world.layout).redriven == 0
    # A rule that quarantines looks at every row, as in a run.
    quarantines = with_rule(Expect("total >= 0", on_violation="quarantine"))
    world.put("d", 1)
    world.apply(quarantines)
    assert redrive_dataset(quarantines, "d", world.layout).waiting == 2
    assert redrive_dataset(fails, "d", world.layout).waiting == 0
    assert world.totals()["d"] == 1


def test_an_older_state_stays_while_the_newest_waits(world: World) -> None:
    expected = flow({"positive": Expect("total >= 0", on_violation="quarantine")})
    world.put("a", 1)
    world.put("a", -1)
    world.put("b", -1)
    world.put("b", 2)
    assert world.apply(expected).quarantined == 2
    assert world.totals() == {"a": 1, "b": 2}


def test_in_append_mode_later_changes_of_the_key_wait_behind(world: World) -> None:
    expected = flow({"positive": Expect("total >= 0", on_violation="quarantine")}, mode="append")
    world.put("a", -1)
    world.apply(expected)
    world.put("a", 2)
    world.put("b", 3)
    assert world.apply(expected).quarantined == 1
    assert world.totals() == {"b": 3}


@pytest.mark.parametrize(
    ("mode", "action"),
    [("merge", "fail"), ("soft", "quarantine"), ("history", "warn"), ("append", "quarantine")],
)
def test_rows_of_deletes_are_not_checked(world: World, mode: str, action: Any) -> None:
    rule = Expect("note is not null", on_violation=action)
    expected = flow({"noted": rule}, **MODES[mode])
    world.put("a", 1)
    world.apply(expected)
    world.delete("a")
    report = world.apply(expected)
    assert (report.quarantined, counts(report)["noted"][1]) == (0, 0)


@pytest.mark.parametrize("function", [columns, as_python])
def test_a_state_that_a_later_change_replaces_does_not_count(world: World, function: Any) -> None:
    expected = flow({"positive": Expect("total >= 0", on_violation="fail")}, function)
    world.put("a", -1)
    world.put("a", 1)
    assert counts(world.apply(expected))["positive"][1] == 0
    history = flow({"positive": "total >= 0"}, function, mode="append")
    rebuilt = rebuild_dataset(
        transform(
            name="flow",
            input_mapping=history.input_mapping,
            output_mapping={"rows": Output(Dataset("d", expect={"positive": "total >= 0"}))},
        )(function),
        "d",
        world.layout,
    )
    assert counts(rebuilt.applied)["positive"][1] == 0


def test_a_value_that_the_condition_cannot_take_violates_it(world: World) -> None:
    expected = flow({"number": "cast(note as int) > 0"})
    world.put("a", 1, note="12")
    world.put("b", 1, note="twelve")
    world.put("c", 1, note="-1")
    assert counts(world.apply(expected))["number"][:2] == (3, 2)


@pytest.mark.parametrize("function", [columns, as_python, as_items])
@pytest.mark.parametrize("action", ["warn", "fail", "quarantine"])
def test_a_column_that_no_item_has_had_counts_as_null_and_is_named(
    world: World, caplog: pytest.LogCaptureFixture, function: Any, action: Any
) -> None:
    def rules(*predicates: str) -> Transform:
        named = {f"rule{number}": Expect(one, action) for number, one in enumerate(predicates)}
        return flow(named, function)

    world.put("a", 1)
    absent = ("totl >= 0", "place.city <> ''", "day(sent_at - interval 1 day) > 3", "is_open")
    report = world.apply(rules(*absent, "total >= 0"))
    assert world.totals() == {"a": 1}
    missing = [one.missing for one in report.expectations]
    assert missing == [("totl",), ("place",), ("sent_at",), ("is_open",), ()]
    assert report.expectations[0].columns == ("id", "total", "note")
    (text,) = [one for one in caplog.messages if "totl" in one]
    assert "Dataset('d'): expectation 'rule0': There is no column \"totl\"" in text
    assert "Available columns: id, total, note" in text


def test_the_column_counts_from_the_first_item_that_has_it(world: World) -> None:
    expected = flow({"low": "discount < 10"}, lambda changes: changes.items())
    world.put("a", 1)
    assert world.apply(expected).expectations[0].missing == ("discount",)
    for key, discount in (("b", "5"), ("c", "50")):
        world.stream.put({"id": {"S": key}, "discount": {"N": discount}})
    report = world.apply(expected)
    assert counts(report)["low"] == (2, 1, "2:idS1:c")
    assert report.expectations[0].missing == ()
    world.put("d", 1)  # without the attribute: the table has the column
    assert world.apply(expected).expectations[0].missing == ()


def with_address(changes: Any) -> Any:
    return changes.select(
        "dynamodb.Keys.id.S as id",
        "cast(dynamodb.NewImage.total.N as int) as total",
        "struct_pack(city := dynamodb.NewImage.note.S, geo := struct_pack(lat := 1.0)) as address",
        "[struct_pack(sku := 'x')] as lines",
    )


@pytest.mark.parametrize("action", ["warn", "quarantine"])
def test_a_field_that_no_item_has_had_counts_as_null_and_is_named(
    world: World, action: Any
) -> None:
    own = "lambda Address: address.sku = 'x'"  # a parameter hides the column of its name
    of_two = "lambda address, n: address.sku = 'x' and n = 1"
    rules = {
        "changes.totl >= 0": ("totl",),
        "changes.total >= 0": (),
        "address.zip <> ''": ("address.zip",),
        "Changes.Address.Geo.lon > 1 or address.zip = 'x'": ("Address.Geo.lon", "address.zip"),
        "address.geo.lat = 1 and address.City = 'Bonn'": (),
        "address.alt.lat > 1 and totl > 0": ("totl", "address.alt"),
        "address['zip'] <> ''": ("zip",),
        "lines[1].quantity > 0": ("quantity",),
        "address.zip": ("address.zip",),
        f"len(list_filter(lines, {own})) = 1 and address.zip is null": ("address.zip",),
        f"len(list_filter(lines, {of_two})) = 1 and address.zip is null": ("address.zip",),
    }
    named = {f"rule{number}": Expect(one, action) for number, one in enumerate(rules)}
    world.put("a", 1, note="Bonn")
    report = world.apply(flow(named, with_address))
    assert [one.missing for one in report.expectations] == list(rules.values())
    assert world.totals() == {"a": 1}
    world.put("b", 1)
    with pytest.raises(ExpectationError, match=r"There is no column \"address.zip\": it counts"):
        world.apply(flow({"there": Expect("address.zip is not null", "fail")}, with_address))
    for wrong in ("address.city.foo = 1", "address.zip > 0 and nonsense(total)"):
        with pytest.raises(ExpressionError, match="rule"):
            world.apply(flow({"rule": Expect(wrong)}, with_address))


def test_a_field_that_the_table_has_is_not_missing(world: World) -> None:
    def fields(*names: str) -> Any:
        packed = ", ".join(f"{name} := '{name}'" for name in names)
        return lambda changes: changes.select(
            "dynamodb.Keys.id.S as id", f"struct_pack({packed}) as address"
        )

    rule = {"plain": "address.zip is null"}
    world.put("a", 1)
    report = world.apply(flow(rule, fields("city", "zip")))
    assert counts(report)["plain"][:2] == (1, 1)
    world.put("b", 1)
    report = world.apply(flow(rule, fields("city")))
    assert (counts(report)["plain"][:2], report.expectations[0].missing) == ((1, 0), ())


def test_rows_without_a_column_that_must_not_be_null_violate(world: World) -> None:
    world.put("a", 1)
    with pytest.raises(ExpectationError, match=r"There is no column \"totl\": it counts as null"):
        world.apply(flow({"there": Expect("totl is not null", "fail")}))
    report = world.apply(flow({"there": Expect("totl is not null", "quarantine")}))
    assert (report.quarantined, report.expectations[0].missing) == (1, ("totl",))


def test_what_is_no_condition_or_names_a_hidden_column_is_an_error(world: World) -> None:
    world.put("a", 1)
    with pytest.raises(ExpressionError, match="of type INTEGER, not a condition") as caught:
        world.apply(flow({"positive": "total"}))
    assert "Dataset('d'): expectation 'positive' (total)" in str(caught.value)
    for predicate in ("_dz_is_current", "totl > 0 and _dz_is_current"):
        with pytest.raises(ExpressionError, match=r"_dz_is_current.*Available columns: id, total"):
            world.apply(flow({"positive": predicate}, mode="history"))
    report = world.apply(flow({"positive": "totl >= 0"}, schema=declared()))
    assert (report.chunks, report.expectations[0].missing) == (1, ())


def declared() -> pa.Schema:
    names = [("id", pa.string()), ("total", pa.int32()), ("note", pa.string())]
    return pa.schema([*names, ("totl", pa.int32())])


@pytest.mark.parametrize(
    "predicate",
    [
        "total >=",
        "total >= 0, note is null",
        "total >= 0 as positive",
        "true) or (true",
        "total >= 0; select 1",
        "total > avg(total)",
        "total > lag(total) over ()",
        "id in (select id from changes)",
        "random() > 0.5",
        "_dz_event_time < now()",
        "_dz_event_time < current_timestamp",
        "columns(*) is not null",
        "unnest([total > 0])",
        "total > ?",
    ],
)
def test_what_is_no_condition_on_one_row_is_refused_before_any_run(predicate: str) -> None:
    with pytest.raises(DefinitionError, match="expectation 'positive'"):
        check_expectations([Dataset("d", expect={"positive": predicate})])


@pytest.mark.parametrize(
    "predicate",
    [
        "status in ('open', 'it''s closed')",
        "total between 0 and 10 -- bounds",
        "regexp_matches(email, '^[^@]+@[^@]+$')",
        "coalesce(total, 0) >= 0 or (note is null and len(id) > 3)",
        "_dz_event_time >= created_at - interval 1 day",
        "list_contains(tags, 'x') or address.city <> ''",
        "case when kind = 'a' then total > 0 else true end",
    ],
)
def test_conditions_of_every_kind_are_accepted(predicate: str) -> None:
    check_expectations([Dataset("d", expect={"rule": predicate})])


@pytest.mark.parametrize(
    ("expect", "says"),
    [
        ({"a b": "x > 0"}, "letters, digits"),
        ({"rule": " "}, r"expect\['rule'\]"),
        ({"rule": 5}, "on_violation='fail'"),
        (["x > 0"], "is not a mapping"),
    ],
)
def test_arguments_that_are_no_expectations_are_refused(expect: Any, says: str) -> None:
    with pytest.raises(DefinitionError, match=says):
        Dataset("d", expect=expect)


def test_actions_are_checked_and_values_are_frozen() -> None:
    with pytest.raises(DefinitionError, match="'warn', 'fail', 'quarantine'"):
        Expect("x > 0", on_violation="stop")  # type: ignore[arg-type]  # that is the point
    with pytest.raises(DefinitionError, match="predicate"):
        Expect("")
    dataset = Dataset("d", expect={"rule": "x > 0"})
    assert dataset.expect == (("rule", Expect("x > 0", on_violation="warn")),)
    assert Dataset("d", expect=dataset.expect) == dataset
    assert hash(dataset)
