"""Change log and tables of a masked source hold what plain Python masks, and nothing else."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datazone_dagster.changelog.log import ChangeLog
from datazone_dagster.model.column_names import Log
from datazone_dagster.sources import DynamoDBSource
from tests.examples import examples
from tests.truth.items import ITEMS
from tests.truth.reference import Change, Item, Row, in_text, plain_item
from tests.truth.test_tables import ROW_BY_ROW, SHAPES
from tests.truth.world import MODES, World

FIRST = datetime.min.replace(tzinfo=timezone.utc)
LAST = datetime.max.replace(tzinfo=timezone.utc)
SALT = "a salt of sixteen characters"
PATHS: Mapping[str, Sequence[str]] = {
    "a": ["a"],
    "A": ["A"],
    "tags": ["tags"],
    "order id": ["order id"],
    '"x.""y"': ['x."y'],
    "select": ["select"],
    "é.a": ["é", "a"],
    "é.b": ["é", "b"],
    'é.B."x.""y"': ["é", "B", 'x."y'],
    "_dz_key": ["_dz_key"],
    "absent.inner": ["absent", "inner"],
}
SETS = {"SS": "S", "NS": "N", "BS": "B"}

Tree = dict[str, Any]


def tree_of(mask: Mapping[str, str]) -> Tree:
    tree: Tree = {}
    for path, kind in mask.items():
        steps = [path] if path == "id" else PATHS[path]
        branch = tree
        for step in steps[:-1]:
            branch = branch.setdefault(step, {})
        branch[steps[-1]] = kind
    return tree


def masked(item: Item, tree: Tree) -> dict[str, Any]:
    found = {name: masked_value(typed, tree.get(name)) for name, typed in item.items()}
    return {name: typed for name, typed in found.items() if typed is not None}


def masked_value(typed: Mapping[str, Any], rule: str | Tree | None) -> Any:
    """Return a masked value; None if it is dropped."""
    ((kind, inner),) = typed.items()
    if rule is None or (kind == "NULL" and rule != "drop"):
        return typed
    if isinstance(rule, str):
        if rule == "drop":
            return None
        if rule == "null":
            return {"NULL": True}
        of_one = last4 if rule == "last4" else hashed
        if kind in SETS:
            return {"SS": sorted({of_one(SETS[kind], one) for one in inner})}
        return {"S": of_one(kind, inner)}
    if kind == "M":
        return {"M": masked(inner, rule)}
    if kind == "L":
        elements = [masked_value(one, rule) for one in inner]
        return {"L": [one for one in elements if one is not None]}
    return {"NULL": True}


def last4(kind: str, inner: Any) -> str:
    shows = kind in {"S", "N"} and len(inner) >= 8
    return "****" + (inner[-4:] if shows else "")


def hashed(kind: str, inner: Any) -> str:
    if kind == "N":
        number = Decimal(inner)
        exponent = number.adjusted()
        content = f"{number:f}" if abs(exponent) < 38 else "999E123"
        data = content.encode()
    elif kind == "B":
        data = base64.b64decode(inner)
    elif isinstance(inner, str):
        data = inner.encode()
    else:
        data = json.dumps(inner, sort_keys=True, separators=(",", ":")).encode()
    return hmac.new(SALT.encode(), data, hashlib.sha256).hexdigest()


def masked_change(change: Change, tree: Tree) -> Change:
    """Return a change as the drain has to write it; its key is that of its masked item."""
    key: Mapping[str, str] = masked({"id": {"S": change.key}}, tree)["id"]
    images = [None if image is None else masked(image, tree) for image in (change.new, change.old)]
    return replace(change, key=key["S"], new=images[0], old=images[1])


KINDS = st.sampled_from(["hash", "last4", "null", "drop"])
MASKS = st.tuples(
    st.dictionaries(st.sampled_from(list(PATHS)), KINDS, max_size=6), st.booleans()
).map(lambda found: found[0] | ({"id": "hash"} if found[1] else {}))
OPERATIONS = st.tuples(
    st.sampled_from(["k", "K", 'é"']), ITEMS | st.sampled_from(["delete", "expire"])
)


@pytest.mark.parametrize("mode", MODES)
@settings(max_examples=examples(12), deadline=None)
@given(
    mask=MASKS.filter(bool),
    operations=st.lists(OPERATIONS, min_size=5, max_size=15),
    shape=st.sampled_from(list(ROW_BY_ROW)),
    chunk_bytes=st.sampled_from([0, 900]),
)
def test_masked_attributes_are_as_python_masks_them(
    tmp_path_factory: pytest.TempPathFactory,
    mode: str,
    mask: dict[str, Any],
    operations: list[tuple[str, Item | str]],
    shape: str,
    chunk_bytes: int,
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATAZONE_MASK_SALT", SALT)
        source = DynamoDBSource("orders", start="trim_horizon", mask=mask)
        world = World(
            tmp_path_factory.mktemp("lake"),
            mode,
            SHAPES[shape].function,
            source=source,
            chunk_bytes=chunk_bytes,
        )
        half = len(operations) // 2
        changes: list[Change] = []
        for some in (operations[:half], operations[half:]):
            world.write(some)
            changes = [masked_change(one, tree_of(mask)) for one in world.changes()]
            if changes:
                world.apply()
                check(world, changes, shape)
        if changes:
            check_log(world, changes)
            world.rebuild()
            check(world, changes, shape)


def check(world: World, changes: Sequence[Change], shape: str) -> None:
    def rows_of(change: Change) -> Sequence[Row]:
        rows_of = SHAPES[shape].rows_of
        if rows_of is not None:
            return rows_of(change)
        return [in_text({**plain_item(change.new), "id": change.key})]

    world.check(world.reference(changes, rows_of), items=SHAPES[shape].rows_of is None)


def check_log(world: World, changes: Sequence[Change]) -> None:
    """Compare keys and images in the change log with the masked ones."""
    log = ChangeLog(world.layout, "orders").open()
    assert log is not None
    columns = [Log.VERSION, Log.KEYS, Log.NEW_IMAGE, Log.OLD_IMAGE]
    rows = pa.concat_tables(log.rows_of_time(FIRST, LAST, columns)).sort_by(Log.VERSION)
    found = [
        tuple(json.loads(row[name] or "null") for name in columns[1:]) for row in rows.to_pylist()
    ]
    assert found == [({"id": {"S": one.key}}, one.new, one.old) for one in changes]
