"""Contracts as users write them: policies, pyarrow schemas, Pydantic models."""

from __future__ import annotations

import copy
import enum
import pickle
import subprocess
import sys
from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, Any, Literal, Optional
from uuid import UUID

import pyarrow as pa
import pytest
from pydantic import AwareDatetime, BaseModel, Field, NaiveDatetime

from datazone_dagster import Dataset
from datazone_dagster.errors import DefinitionError
from datazone_dagster.model.contract import Column


class Status(enum.Enum):
    OPEN = "open"


class Line(BaseModel):
    sku: str
    count: int | None


class Order(BaseModel):
    id: str
    total: Annotated[Decimal, Field(max_digits=18, decimal_places=2)]
    weight: Optional[float] = None  # noqa: UP045 - users write both
    tax: Decimal | None
    rate: Optional[Annotated[Decimal, Field(max_digits=5, decimal_places=4)]]  # noqa: UP045
    lines: list[Line]
    attributes: dict[str, str]
    placed_at: datetime
    seen_at: AwareDatetime
    local_at: NaiveDatetime
    day: date
    flag: bool
    raw: bytes
    reference: UUID
    status: Status
    kind: Literal["a", "b"] | None


def test_a_pydantic_model() -> None:
    assert Dataset("orders", schema=Order).schema == (
        Column("id", "string", False),
        Column("total", ("decimal", 18, 2), False),
        Column("weight", "float64", True),
        Column("tax", ("decimal", 38, 9), True),
        Column("rate", ("decimal", 5, 4), True),
        Column("lines", ("list", ("struct", (("sku", "string"), ("count", "int64")))), False),
        Column("attributes", ("map", "string", "string"), False),
        Column("placed_at", "timestamp", False),
        Column("seen_at", "timestamp", False),
        Column("local_at", "timestamp_ntz", False),
        Column("day", "date", False),
        Column("flag", "bool", False),
        Column("raw", "binary", False),
        Column("reference", "string", False),
        Column("status", "string", False),
        Column("kind", "string", True),
    )


def test_a_pyarrow_schema() -> None:
    schema = pa.schema(
        [
            pa.field("id", pa.large_string(), nullable=False),
            ("n", pa.uint16()),
            ("total", pa.decimal128(18, 2)),
            ("at", pa.timestamp("ms", tz="Europe/Rome")),
            ("local", pa.timestamp("s")),
            ("tags", pa.large_list(pa.string())),
            ("attrs", pa.map_(pa.string(), pa.int32())),
            ("line", pa.struct([("sku", pa.dictionary(pa.int8(), pa.string()))])),
            ("x", pa.float32()),
        ]
    )
    assert Dataset("orders", schema=schema).schema == (
        Column("id", "string", False),
        Column("n", "int32"),
        Column("total", ("decimal", 18, 2)),
        Column("at", "timestamp"),
        Column("local", "timestamp_ntz"),
        Column("tags", ("list", "string")),
        Column("attrs", ("map", "string", "int32")),
        Column("line", ("struct", (("sku", "string"),))),
        Column("x", "float32"),
    )


def test_policies() -> None:
    assert Dataset("orders").contract.policy_of("any") == "evolve"
    assert Dataset("orders", schema_policy="freeze").contract.policy_of("any") == "freeze"
    mixed = Dataset("orders", schema_policy={"total": "quarantine", "*": "freeze"}).contract
    assert (mixed.policy_of("total"), mixed.policy_of("other")) == ("quarantine", "freeze")
    single = Dataset("orders", schema_policy={"total": "freeze"}).contract
    assert (single.policy_of("total"), single.policy_of("other")) == ("freeze", "evolve")


def test_a_dataset_with_a_contract_is_a_value_like_others() -> None:
    dataset = Dataset("orders", schema=Order, schema_policy={"total": "freeze", "*": "quarantine"})
    for other in (copy.deepcopy(dataset), pickle.loads(pickle.dumps(dataset))):
        assert other == dataset
        assert hash(other) == hash(dataset)


class Odd(BaseModel):
    when: Any


class Unfinished(BaseModel):
    other: Missing  # type: ignore[name-defined]  # noqa: F821 - that is the point


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"schema_policy": "strict"}, "'evolve', 'freeze', 'quarantine'"),
        ({"schema_policy": {"total": "strict"}}, "'strict' for column 'total'"),
        ({"schema_policy": ["freeze"]}, "schema_policy=\\['freeze'\\]"),
        ({"schema": {"id": "string"}}, "pyarrow.Schema, such as"),
        ({"schema": 7}, "schema is 7"),
        ({"schema": Odd}, "column 'when' is Any"),
        ({"schema": Unfinished}, "'Unfinished' names types that are not defined"),
        ({"schema": pa.schema([("t", pa.time64("us"))])}, "'t' is time64"),
        ({"schema": pa.schema([("t", pa.decimal256(60, 2))])}, "'t' is decimal256"),
        ({"schema": pa.schema([])}, "no columns"),
        ({"schema": pa.schema([("_dz_key", pa.string())])}, "'_dz_' is reserved"),
        ({"schema": pa.schema([("a", pa.string()), ("A", pa.string())])}, "'a' and 'A'"),
        ({"schema": pa.schema([("a", pa.string())]), "partition_by": "day"}, "'day'"),
        ({"quarantine_threshold": -1}, "quarantine_threshold=-1"),
        ({"quarantine_threshold": True}, "quarantine_threshold=True"),
        ({"quarantine_limit": 0}, "quarantine_limit=0"),
        ({"quarantine_limit": 1.01}, "quarantine_limit=1.01"),
        ({"quarantine_limit": float("nan")}, "quarantine_limit=nan"),
        ({"quarantine_limit": True}, "quarantine_limit=True"),
        ({"quarantine_limit": "10%"}, "quarantine_limit='10%'"),
    ],
)
def test_a_wrong_contract_is_refused_by_name(options: dict[str, Any], words: str) -> None:
    with pytest.raises(DefinitionError, match=words):
        Dataset("orders", **options)


def test_a_model_loads_no_library() -> None:
    code = """
import sys
from datazone_dagster import Dataset
class Model:
    model_fields = {}
try:
    Dataset("orders", schema=Model)
except ValueError as error:
    assert "no columns" in str(error)
print([name for name in ("pyarrow", "deltalake", "duckdb", "pydantic") if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"
