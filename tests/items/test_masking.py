"""Masks: only masked attributes change, and masked values appear nowhere in the bytes."""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datazone_dagster.api.mask import SALT_VARIABLE, MaskKind, mask_steps
from datazone_dagster.errors import DefinitionError, MaskError
from datazone_dagster.items.masking import Masks
from datazone_dagster.model.record import ChangeRecord, ChangeRecords, MalformedRecord
from datazone_dagster.sources import DynamoDBSource

SALT = "0123456789abcdef"
SECRET = "Q7secretQ7"
KINDS: tuple[MaskKind, ...] = get_args(MaskKind)

SCALARS = st.one_of(
    st.text(max_size=6).map(lambda text: {"S": text}),
    st.integers(-99, 99).map(lambda number: {"N": str(number)}),
    st.booleans().map(lambda flag: {"BOOL": flag}),
    st.just({"NULL": True}),
    st.lists(st.text("abc", min_size=1), min_size=1, unique=True).map(lambda texts: {"SS": texts}),
)
NAMES = st.one_of(st.sampled_from(["email", "a", "a.b", 'q"q', "street"]), st.text(max_size=4))
VALUES: st.SearchStrategy[Any] = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda values: {"L": values}),
        st.dictionaries(NAMES, inner, max_size=3).map(lambda values: {"M": values}),
    ),
    max_leaves=6,
)
ITEMS = st.dictionaries(NAMES, VALUES, max_size=4)


def masks(**mask: MaskKind) -> Masks:
    return of(mask)


def of(mask: dict[str, MaskKind]) -> Masks:
    found = Masks.of(DynamoDBSource("orders", mask=mask), {SALT_VARIABLE: SALT})
    assert found is not None
    return found


def masked(item: Any, mask: dict[str, MaskKind]) -> Any:
    return json.loads(of(mask).item(json.dumps(item).encode()))


def hashed(value: bytes | str) -> str:
    data = value if isinstance(value, bytes) else value.encode()
    return hmac.new(SALT.encode(), data, hashlib.sha256).hexdigest()


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        ({"S": "a@b.example"}, "hash", {"S": hashed("a@b.example")}),
        ({"N": "1.0"}, "hash", {"S": hashed("1")}),
        ({"N": "10E-1"}, "hash", {"S": hashed("1")}),
        ({"N": "no number"}, "hash", {"S": hashed("no number")}),
        ({"B": "AAE="}, "hash", {"S": hashed(b"\0\1")}),
        ({"BOOL": True}, "hash", {"S": hashed("true")}),
        ({"NULL": True}, "hash", {"NULL": True}),
        ({"SS": ["b", "a"]}, "hash", {"SS": sorted([hashed("a"), hashed("b")])}),
        ({"NS": ["1.0", "2"]}, "hash", {"SS": sorted([hashed("1"), hashed("2")])}),
        ({"M": {"b": {"S": "x"}, "a": {"N": "1"}}}, "hash", None),
        ({"S": "4111111111111111"}, "last4", {"S": "****1111"}),
        ({"N": "4111111111111111"}, "last4", {"S": "****1111"}),
        ({"S": "1234567"}, "last4", {"S": "****"}),
        ({"B": "QUJDREVGR0hJSg=="}, "last4", {"S": "****"}),
        ({"L": [{"S": SECRET}]}, "last4", {"S": "****"}),
        ({"SS": ["12345678", "87654321"]}, "last4", {"SS": ["****4321", "****5678"]}),
        ({"S": "x"}, "null", {"NULL": True}),
        ({"M": {}}, "null", {"NULL": True}),
    ],
)
def test_each_kind_on_each_type(value: Any, kind: MaskKind, expected: Any) -> None:
    expected = expected or {"S": hashed('{"a":{"N":"1"},"b":{"S":"x"}}')}
    assert masked({"x": value, "y": value}, {"x": kind}) == {"x": expected, "y": value}


def test_dropped_is_gone() -> None:
    assert masked({"x": {"S": SECRET}, "y": {"N": "1"}}, {"x": "drop"}) == {"y": {"N": "1"}}


def test_paths_go_into_maps_and_every_element_of_lists() -> None:
    item = {
        "address": {"M": {"street": {"S": SECRET}, "city": {"S": "Rome"}}},
        "lines": {"L": [{"M": {"card": {"S": SECRET}}}, {"L": [{"M": {"card": {"S": SECRET}}}]}]},
        "a.b": {"M": {'q"q': {"S": SECRET}}},
        "street": {"S": "mine"},
    }
    mask: dict[str, MaskKind] = {"address.street": "null", "lines.card": "drop"}
    mask['"a.b"."q""q"'] = "last4"
    found = masked(item, mask)
    assert found == {
        "address": {"M": {"street": {"NULL": True}, "city": {"S": "Rome"}}},
        "lines": {"L": [{"M": {}}, {"L": [{"M": {}}]}]},
        "a.b": {"M": {'q"q': {"S": "****etQ7"}}},
        "street": {"S": "mine"},
    }


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "value",
    [
        {"S": SECRET},
        {"N": "7"},
        {"B": "UTdzZWNyZXRRNw=="},
        {"SS": [SECRET]},
        {"L": [{"S": SECRET}]},
        {"L": [{"L": [{"SS": [SECRET]}]}]},
        {"M": {"street": {"M": {"name": {"S": SECRET}}}, "zip": {"N": "1"}}},
    ],
)
def test_a_mask_inside_a_value_that_is_no_map_masks_all_of_it(value: Any, kind: MaskKind) -> None:
    found = of({"address.street": kind})
    after = found.item(json.dumps({"address": value, "id": {"S": "1"}}).encode())
    assert SECRET.encode() not in after
    assert b"UTdzZWNyZXRRNw" not in after
    assert json.loads(after)["id"] == {"S": "1"}
    kept = json.loads(after)["address"]
    if "M" in value:
        assert kept["M"]["zip"] == {"N": "1"}
        assert found.masked_whole == set()
    else:
        assert found.masked_whole == {"address"}


def test_a_null_on_a_masked_path_is_no_surprise() -> None:
    found = of({"address.street": "hash"})
    assert json.loads(found.item(b'{"address":{"NULL":true}}')) == {"address": {"NULL": True}}
    assert found.masked_whole == set()


def test_a_fingerprint_tells_salts_apart_and_reveals_nothing() -> None:
    def fingerprint(salt: str) -> str | None:
        found = Masks.of(DynamoDBSource("orders", mask={"a": "hash"}), {SALT_VARIABLE: salt})
        assert found is not None
        return found.salt_fingerprint

    assert fingerprint(SALT) == fingerprint(SALT) != fingerprint(SALT + "x")
    assert SALT not in (fingerprint(SALT) or "")
    assert masks(a="drop").salt_fingerprint is None


@settings(deadline=None)
@given(ITEMS, st.sampled_from(KINDS), st.booleans())
def test_nothing_but_the_masked_attribute_changes(
    item: dict[str, Any], kind: MaskKind, ascii_only: bool
) -> None:
    raw = json.dumps(item, ensure_ascii=ascii_only).encode("utf-8", "replace")
    before = json.loads(raw)
    after = json.loads(masks(email=kind).item(raw))
    assert {n: v for n, v in after.items() if n != "email"} == {
        n: v for n, v in before.items() if n != "email"
    }
    assert ("email" in after) == ("email" in before and kind != "drop")


@settings(deadline=None)
@given(VALUES, st.sampled_from(KINDS))
def test_a_secret_is_nowhere_in_the_output(outside: Any, kind: MaskKind) -> None:
    item = {"email": {"S": SECRET}, "o": {"L": [outside, {"M": {"p": {"SS": [SECRET]}}}]}}
    out = of({"email": kind, "o.p": kind}).item(json.dumps(item).encode())
    assert SECRET.encode() not in out


@pytest.mark.parametrize(
    "image",
    [
        '{"em\\u0061il":{"S":"%s"}}',
        '{"email":{"S":"%s"},"email":{"S":"x"}}',
        '{"email":{"S":"%s\\ud800"}}',
        '{"bad":{"S":"\\ud800"},"\\udfff":{"S":"x"},"email":{"S":"%s"}}',
        ' {"email" : { "S" : "%s" } } ',
    ],
)
def test_odd_spellings_hide_nothing(image: str) -> None:
    raw = (image % SECRET).encode()
    for kind in KINDS:
        out = of({"email": kind}).item(raw)
        assert SECRET.encode() not in out
        json.loads(out)


def record(keys: str = '{"id":{"S":"1"}}', image: bytes = b"{}") -> ChangeRecord:
    return ChangeRecord("e", "INSERT", 7, 0, keys.encode(), image, image, 1, "r", "v")


@pytest.mark.parametrize(
    "image",
    [
        b'{"email":{"S":"Q7secretQ7"',
        b'{"email":{"S":"Q7secretQ7","N":"1"}}',
        b'{"email":["Q7secretQ7"]}',
        b'{"email":{"SS":"Q7secretQ7"}}',
    ],
)
def test_a_record_that_cant_be_masked_is_quarantined_without_its_text(image: bytes) -> None:
    good = record(image=b'{"email":{"S":"ok@ok.example"}}')
    accepted, refused = masks(email="hash").records(ChangeRecords.of([good, record(image=image)]))
    assert len(accepted) == 1
    [malformed] = refused
    assert malformed.sequence_number == 7
    assert SECRET not in malformed.raw.decode() + malformed.reason
    assert "withheld" in malformed.reason


def test_withheld_records_are_distinguished_and_recognised() -> None:
    mask = masks(email="hash")
    one, other, repeated = (mask.withheld(MalformedRecord(raw, "?")) for raw in (b"x", b"y", b"x"))
    assert one.raw != other.raw
    assert one == repeated


def test_a_hashed_key_is_the_same_in_keys_and_images() -> None:
    image = b'{"id":{"S":"a@b.example"},"n":{"N":"1"}}'
    hashed_records, _ = masks(id="hash").records(
        ChangeRecords.of([record('{"id":{"S":"a@b.example"}}', image)])
    )
    [found] = hashed_records
    assert json.loads(found.keys) == {"id": {"S": hashed("a@b.example")}}
    assert json.loads(found.new_image or b"")["id"] == json.loads(found.keys)["id"]
    assert json.loads(found.old_image or b"")["id"] == json.loads(found.keys)["id"]


@pytest.mark.parametrize("kind", ["null", "drop", "last4"])
def test_a_key_can_only_be_hashed(kind: MaskKind) -> None:
    with pytest.raises(MaskError, match=r"'id'.*only 'hash'"):
        masks(id=kind).records(ChangeRecords.of([record()]))


@pytest.mark.parametrize(("salt", "words"), [("", "is not set"), ("short", "only 5 characters")])
def test_no_hash_without_a_salt(salt: str, words: str) -> None:
    source = DynamoDBSource("orders", mask={"email": "hash"})
    with pytest.raises(MaskError, match=words) as caught:
        Masks.of(source, {SALT_VARIABLE: salt} if salt else {})
    assert "DATAZONE_MASK_SALT" in str(caught.value)
    assert not salt or salt not in str(caught.value)
    assert Masks.of(DynamoDBSource("orders", mask={"email": "null"}), {}) is not None
    assert Masks.of(DynamoDBSource("orders"), {}) is None


def test_paths() -> None:
    assert mask_steps("a") == ("a",)
    assert mask_steps('"a.b".c d."e""f"') == ("a.b", "c d", 'e"f')


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        ({"email": "sha1"}, "'hash', 'null', 'drop', 'last4'"),
        ({"": "hash"}, "path ''"),
        ({"a.": "hash"}, "path 'a.'"),
        ({".a": "hash"}, "path '.a'"),
        ({"a..b": "hash"}, "path 'a..b'"),
        ({'"a': "hash"}, "path"),
        ({'"a"b': "hash"}, "path"),
        ({7: "hash"}, "path 7"),
        ({"a": "hash", "a.b": "drop"}, "one inside the other"),
        ({"a": "hash", '"a"': "drop"}, "are the same"),
        (["email"], "not a mapping"),
        ("email", "not a mapping"),
    ],
)
def test_a_wrong_mask_is_refused_by_name(mask: Any, words: str) -> None:
    with pytest.raises(DefinitionError, match="mask") as caught:
        DynamoDBSource("orders", mask=mask)
    assert words in str(caught.value)
