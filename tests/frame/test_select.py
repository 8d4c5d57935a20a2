"""Expressions: SQL paths into the standard stream record."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from datazone_dagster.errors import ExpressionError
from datazone_dagster.frame.frame import Frame
from datazone_dagster.model.column_names import HIDDEN, Log
from datazone_dagster.model.version import row_version
from tests.frame.chunks import EVENT_TIME_OF_ALL, FIRST_SEQUENCE_NUMBER, chunk

ORDER: dict[str, Any] = {
    "id": {"S": "1"},
    "orderId": {"S": "o-1"},
    "total": {"N": "12345678901234567890123456789.012345678"},
    "order id": {"S": "spaced"},
    "quo\"te's": {"S": "quoted"},
    "a": {"S": "lower"},
    "A": {"S": "upper"},
    "blob": {"B": "AAEC"},
    "paid": {"BOOL": True},
    "gone": {"NULL": True},
    "tags": {"SS": ["x", "y"]},
    "sizes": {"NS": ["1", "2.5"]},
    "blobs": {"BS": ["AA=="]},
    "address": {"M": {"city": {"S": "Bern"}, "geo": {"M": {"lat": {"N": "46.9"}}}}},
    "lines": {
        "L": [
            {"M": {"sku": {"S": "k1"}, "parts": {"L": [{"S": "p1"}, {"S": "p2"}]}}},
            {"M": {"sku": {"S": "k2"}, "SKU": {"S": "K2"}}},
        ]
    },
}


def one(expression: str, *, new: Any = ORDER, old: Any = None) -> Any:
    """Return the value of an expression in a chunk of one change."""
    rows = Frame.of_changes(chunk((new, old)), threads=1).select(f"{expression} as value").arrow()
    assert rows.num_rows == 1
    return rows.column("value")[0].as_py()


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("eventID", "e0"),
        ("eventName", "INSERT"),
        ("eventVersion", "1.1"),
        ("eventSource", "aws:dynamodb"),
        ("awsRegion", "us-west-2"),
        ("userIdentity", None),
        ("userIdentity.type", None),
        ("dynamodb.ApproximateCreationDateTime", EVENT_TIME_OF_ALL),
        ("dynamodb.SequenceNumber", str(FIRST_SEQUENCE_NUMBER)),
        ("dynamodb.SizeBytes", 100),
        ("dynamodb.StreamViewType", "NEW_AND_OLD_IMAGES"),
        ("dynamodb.Keys.id.S", "1"),
        ("dynamodb.NewImage.orderId.S", "o-1"),
        ("DynamoDB.newimage.orderId.S", "o-1"),
        ("changes.dynamodb.NewImage.orderId.S", "o-1"),
        ("dynamodb.NewImage['orderId'].S", "o-1"),
        ("dynamodb.NewImage.total.N", "12345678901234567890123456789.012345678"),
        (
            "cast(dynamodb.NewImage.total.N as decimal(38, 9))",
            Decimal("12345678901234567890123456789.012345678"),
        ),
        ('dynamodb.NewImage."order id".S', "spaced"),
        ('dynamodb.NewImage."quo""te\'s".S', "quoted"),
        ("dynamodb.NewImage.a.S", "lower"),
        ("dynamodb.NewImage.A.S", "upper"),
        ("dynamodb.NewImage.a.S || dynamodb.NewImage.A.S", "lowerupper"),
        ("dynamodb.NewImage.ORDERID.S", None),
        ("dynamodb.NewImage.blob.B", "AAEC"),
        ("dynamodb.NewImage.paid.BOOL", True),
        ("dynamodb.NewImage.gone.NULL", True),
        ("dynamodb.NewImage.tags.SS", ["x", "y"]),
        ("dynamodb.NewImage.tags.SS[2]", "y"),
        ("dynamodb.NewImage.sizes.NS", ["1", "2.5"]),
        ("dynamodb.NewImage.blobs.BS", ["AA=="]),
        ("dynamodb.NewImage.address.M.city.S", "Bern"),
        ("dynamodb.NewImage.address.M.geo.M.lat.N", "46.9"),
        ("dynamodb.NewImage.address.M.geo", '{"M":{"lat":{"N":"46.9"}}}'),
        ("dynamodb.NewImage.address.M.geo.M", '{"lat":{"N":"46.9"}}'),
        ("dynamodb.NewImage.address.M.geo.M || dynamodb.NewImage.address.M.geo.M.lat.N",
         '{"lat":{"N":"46.9"}}46.9'),
        ("dynamodb.NewImage.lines.L[2].M.sku.S", "k2"),
        ("dynamodb.NewImage.lines.L[2].M.SKU.S", "K2"),
        ("dynamodb.NewImage.lines.L[-1].M.sku.S", "k2"),
        ("dynamodb.NewImage.lines.L[3].M.sku.S", None),
        ("dynamodb.NewImage.lines.L[len(dynamodb.NewImage.lines.L)].M.sku.S", "k2"),
        ("dynamodb.NewImage.lines.L[1].M.parts.L[2].S", "p2"),
        ("dynamodb.NewImage.lines.L[1].M.parts", '{"L":[{"S":"p1"},{"S":"p2"}]}'),
        ("dynamodb.NewImage.lines.L[1].M.parts.L", '[{"S":"p1"},{"S":"p2"}]'),
        ("len(dynamodb.NewImage.lines.L)", 2),
        ("list_transform(dynamodb.NewImage.lines.L, lambda x: x->>'$.M.sku.S')", ["k1", "k2"]),
        ("dynamodb.NewImage->>'$.address.M.city.S'", "Bern"),
        ("dynamodb.NewImage.status.S", None),
        ("dynamodb.NewImage.orderId.N", None),
        ("dynamodb.NewImage.orderId.M.deep.S", None),
        ("dynamodb.NewImage.address.L[1].S", None),
        ("dynamodb.OldImage", None),
        ("dynamodb.OldImage.orderId.S", None),
        ("case when dynamodb.NewImage.paid.BOOL then 'paid' else 'open' end", "paid"),
        ("upper(dynamodb.NewImage.orderId.S)", "O-1"),
        ("date_trunc('day', dynamodb.ApproximateCreationDateTime)::varchar",
         "2024-05-06 00:00:00+00"),
    ],
)  # fmt: skip
def test_an_expression_reads_the_stream_record(expression: str, value: Any) -> None:
    assert one(expression) == value


def test_an_image_that_is_absent_from_the_full_chunk_is_null() -> None:
    frame = Frame.of_changes(chunk((None, ORDER), (None, {"id": {"S": "2"}})))
    rows = frame.select("dynamodb.NewImage", "dynamodb.NewImage.orderId.S as o", "eventName")
    assert rows.arrow().select(["NewImage", "o", "eventName"]).to_pylist() == [
        {"NewImage": None, "o": None, "eventName": "REMOVE"},
        {"NewImage": None, "o": None, "eventName": "REMOVE"},
    ]


def test_user_identity_of_a_ttl_delete() -> None:
    changes = chunk((None, ORDER), user=("Service", "dynamodb.amazonaws.com"))
    row = Frame.of_changes(changes).select("userIdentity", "userIdentity.type").arrow()
    assert row.to_pylist()[0]["userIdentity"] == {
        "type": "Service",
        "principalId": "dynamodb.amazonaws.com",
    }
    assert row.column("type").to_pylist() == ["Service"]


def test_the_sequence_number_of_a_scanned_row_is_zero() -> None:
    changes = chunk((ORDER, None))
    position = changes.column_names.index(Log.VERSION)
    changes = changes.set_column(position, Log.VERSION, pa.array([row_version(3, 0)]))
    frame = Frame.of_changes(changes).select("dynamodb.SequenceNumber")
    assert frame.arrow().column("SequenceNumber").to_pylist() == ["0"]


def test_the_full_record_has_the_standard_fields() -> None:
    row = Frame.of_changes(chunk((ORDER, None))).arrow().to_pylist()[0]
    assert list(row) == [
        "eventID", "eventName", "eventVersion", "eventSource", "awsRegion", "dynamodb",
        "userIdentity", *HIDDEN,
    ]  # fmt: skip
    assert list(row["dynamodb"]) == [
        "ApproximateCreationDateTime", "Keys", "NewImage", "OldImage", "SequenceNumber",
        "SizeBytes", "StreamViewType",
    ]  # fmt: skip
    assert row["dynamodb"]["Keys"] == '{"id":{"S":"1"}}'


@pytest.mark.parametrize(
    ("expression", "name"),
    [
        ("dynamodb.NewImage.orderId.S", "orderId"),
        ("dynamodb.NewImage.address.M.city.S", "city"),
        ("dynamodb.NewImage.address.M", "address"),
        ("dynamodb.NewImage.lines.L[1].M.sku.S", "sku"),
        ("dynamodb.NewImage.tags.SS[1]", "tags"),
        ('dynamodb.NewImage."order id".S', "order id"),
        ("dynamodb.Keys.id.S", "id"),
        ("dynamodb.NewImage", "NewImage"),
        ("dynamodb.SequenceNumber", "SequenceNumber"),
        ("eventid", "eventID"),
        ("userIdentity.type", "type"),
        ("upper(dynamodb.NewImage.orderId.S)", "upper(dynamodb.NewImage.orderId.S)"),
        ("dynamodb.NewImage.orderId.S as \"x y\"", "x y"),
    ],
)  # fmt: skip
def test_a_result_is_named_by_its_alias_or_its_last_attribute(expression: str, name: str) -> None:
    assert Frame.of_changes(chunk((ORDER, None))).select(expression).columns == [name]


def test_unnest_makes_rows_that_keep_the_hidden_columns() -> None:
    frame = Frame.of_changes(chunk((ORDER, None), ({"id": {"S": "2"}}, None)))
    rows = frame.select(
        "unnest(dynamodb.NewImage.lines.L)->>'$.M.sku.S' as sku", "dynamodb.Keys.id.S"
    ).arrow()
    assert rows.column("sku").to_pylist() == ["k1", "k2"]
    assert rows.column("_dz_key").to_pylist() == ["2:idS1:1"] * 2
    tags = frame.select("unnest(dynamodb.NewImage.tags.SS) as tag").arrow()
    assert tags.column("tag").to_pylist() == ["x", "y"]


def test_a_stage_reads_the_columns_of_the_stage_before() -> None:
    frame = Frame.of_changes(chunk((ORDER, None), ({"id": {"S": "2"}}, None)))
    rows = (
        frame.with_columns("dynamodb.NewImage.a.S as letter", "lower(eventName) as eventName")
        .filter("dynamodb.NewImage.A.S = 'upper' and letter = 'lower'")
        .select("letter", "* exclude (letter, dynamodb)", "dynamodb.NewImage.orderId.S as o")
    )
    assert rows.columns == [
        "letter", "eventID", "eventName", "eventVersion", "eventSource", "awsRegion",
        "userIdentity", "o",
    ]  # fmt: skip
    assert rows.arrow().to_pylist()[0]["eventName"] == "insert"
    assert rows.arrow().num_rows == 1


def test_with_columns_replaces_in_place() -> None:
    frame = Frame.of_changes(chunk((ORDER, None))).select("eventID", "eventName")
    assert frame.with_columns("1 as EVENTID", "2 as n").columns == ["EVENTID", "eventName", "n"]


def test_a_frame_is_never_changed() -> None:
    frame = Frame.of_changes(chunk((ORDER, None)))
    before = frame.columns
    frame.select("eventID").filter("false")
    assert frame.columns == before
    assert frame.arrow().num_rows == 1


def test_rows_stay_in_order_oldest_first() -> None:
    changes = chunk(*(({"id": {"S": str(n)}}, None) for n in range(60)))
    many = pa.concat_tables([changes] * 1000)
    rows = Frame.of_changes(many, threads=2).select("dynamodb.NewImage.id.S as id").arrow()
    assert rows.column("id").to_pylist() == many.num_rows // 60 * [str(n) for n in range(60)]


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("nope", 'there is no column "nope". Available columns: eventID, eventName'),
        ("nope", "An attribute is a path with its type, such as dynamodb.NewImage."),
        ("NewImage.a.S", 'there is no table "NewImage"'),
        ("NewImage.a.S", "An attribute is a path with its type, such as dynamodb.NewImage."),
        ("dynamodb.NewImage.a.X", "a must be followed by its type"),
        ("dynamodb.NewImage.a.S.x", "S holds a single value"),
        ("dynamodb.NewImage.l.L.x", "a list element is picked by its position"),
        ("dynamodb.NewImage[1]", "an attribute name is expected"),
        ("dynamodb.NewImagee.a.S", "dynamodb has no field 'NewImagee'"),
        ("a from x", "more than expressions"),
        ("a where true", "more than expressions"),
        ("1; select 2", "one statement is expected"),
        ("1 +", "syntax error at"),
        ("", "select('')"),
        ("count(*)", "aggregate"),
        ("eventID, eventName as EVENTid", "two columns are named 'eventID' and 'EVENTid'"),
        ("eventID as _dz_x", "'_dz_x' is reserved"),
        ("_dz_key", "_dz_key is selected twice. It travels"),
        ("dynamodb.NewImage.a.S + date '2020-01-01'", "No function matches"),
        ("read_text('/etc/passwd')", "table function"),
        ("no_such_function(eventID)", "no_such_function"),
    ],
)
def test_a_wrong_expression_says_what_is_wrong(expression: str, reason: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        Frame.of_changes(chunk((ORDER, None))).select("eventID as fine", expression)
    assert reason in str(caught.value)
    assert "_dz_p" not in str(caught.value).replace("_dz_previous", "")
    assert "_dz_previous" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_value_that_does_not_fit_its_cast_says_so_when_read() -> None:
    frame = Frame.of_changes(chunk(({"id": {"S": "1"}, "n": {"S": "x1"}}, None)))
    with pytest.raises(ExpressionError, match=r"select\('cast.*\"?x1\"?.*try_cast"):
        frame.select("cast(dynamodb.NewImage.n.S as int) as n").arrow()


@pytest.mark.parametrize("text", ["a, b", "a as b", "sum(1)", "1 = 1; drop table x"])
def test_filter_takes_one_condition(text: str) -> None:
    with pytest.raises(ExpressionError):
        Frame.of_changes(chunk((ORDER, None))).filter(text)


def test_expressions_must_be_strings() -> None:
    with pytest.raises(ExpressionError, match="an expression must be a string, not int"):
        Frame.of_changes(chunk((ORDER, None))).select(1)  # type: ignore[arg-type]  # on purpose


@pytest.mark.parametrize(
    ("expression", "step"),
    [
        ("{'d': dynamodb} as x", lambda x: x["d"]),
        ("[dynamodb] as x", lambda x: x[0]),
        ("struct_pack(d := changes.dynamodb) as x", lambda x: x["d"]),
        ("case when true then dynamodb end as x", lambda x: x),
    ],
)
def test_a_record_within_an_expression_is_the_record_that_users_get(
    expression: str, step: Any
) -> None:
    frame = Frame.of_changes(chunk((ORDER, None)))
    plain = frame.select("dynamodb").arrow()["dynamodb"][0].as_py()
    assert json.loads(plain["NewImage"])["orderId"] == {"S": "o-1"}
    assert step(frame.select(expression).arrow()["x"][0].as_py()) == plain
    query = f"select {expression}, dynamodb from changes"
    both = frame.sql(query).select("x", "dynamodb.NewImage.orderId.S as id").arrow()
    assert step(both["x"][0].as_py()) == plain
    assert both["id"].to_pylist() == ["o-1"]


def test_a_record_as_json_has_its_fields_and_no_mark_of_ours() -> None:
    frame = Frame.of_changes(chunk((ORDER, None)))
    found = json.loads(frame.select("to_json(dynamodb) as x").arrow()["x"][0].as_py())
    assert "SequenceNumber" in found
    assert not any(name.startswith("_dz_") for name in found)


def test_two_columns_of_one_short_name_are_named_in_the_error() -> None:
    frame = Frame.of_changes(chunk((ORDER, None)))
    with pytest.raises(ExpressionError, match="two columns are named 's'"):
        frame.select("eventName as s", "eventID as s")


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda frame: frame.filter("eventName = INSERT"), "single quotes"),
        (lambda frame: frame.filter(True), r'filter\("a > 5"\)'),
        (lambda frame: frame.select("status"), r"items\(\) makes columns"),
        (lambda frame: frame.select("dynamodb.NewImage.total.N + 1 as t"), "numbers as text"),
        (lambda frame: frame.filter("dynamodb.NewImage.total.N > 1"), "numbers as text"),
        (lambda frame: frame.select("dynamodb.NewImage.lines.L[0].M.sku.S as s"), r"is \[1\]"),
        (lambda frame: frame.select("count(*) as n"), "in an asset downstream"),
        (lambda frame: frame.items(types=["total"]), "types is a list, not a mapping"),
    ],
)
def test_a_beginners_mistake_is_answered_with_what_to_write(call: Any, text: str) -> None:
    with pytest.raises(ExpressionError, match=text):
        call(Frame.of_changes(chunk((ORDER, None))))
