"""Masked values are in no byte of the lakehouse or of Dagster's storage, whatever goes wrong."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pyarrow.parquet as pq
import pytest
from dagster import DagsterInstance, build_sensor_context

from datazone_dagster import (
    Dataset,
    DynamoDBSource,
    DynamoDBStreamsResource,
    Input,
    Lakehouse,
    Output,
    Stream,
    build_definitions,
    transform,
)
from datazone_dagster.api.mask import SALT_VARIABLE
from datazone_dagster.errors import MaskError
from datazone_dagster.local import Fault, FaultKind, FaultPlan, LocalDynamoDB
from datazone_dagster.model.layout import Layout
from datazone_dagster.pipeline import read_dataset

SECRET = "zq-Secret-zq"
HASHED, GONE, TAIL, INNER, LISTED = (f"{SECRET}{letter}@mail.example" for letter in "hgtil")
WHERE = {
    "region_name": "us-east-1",
    "aws_access_key_id": "local",
    "aws_secret_access_key": "local",
}

failing = False


@transform(
    input_mapping={
        "people": Input(
            Stream(
                source=DynamoDBSource(
                    "people",
                    region="us-east-1",
                    mask={
                        "email": "hash",
                        "note": "null",
                        "phone": "last4",
                        "address.street": "drop",
                        "cards.number": "drop",
                        "id": "hash",
                    },
                )
            )
        )
    },
    output_mapping={"rows": Output(Dataset("people"))},
)
def people(people: Any) -> object:
    if failing:
        raise ValueError(f"can't take {people.arrow().to_pylist()!r}")
    return people.items(image="both")


def item(number: int) -> dict[str, Any]:
    return {
        "id": {"S": f"{SECRET}{number}"},
        "email": {"S": HASHED},
        "note": {"S": GONE},
        "phone": {"S": TAIL},
        "address": {"M": {"street": {"S": INNER}, "city": {"S": "Lisbon"}}},
        "cards": {"L": [{"M": {"number": {"S": LISTED}, "kind": {"S": "debit"}}}]},
    }


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalDynamoDB]:
    monkeypatch.setenv(SALT_VARIABLE, "a salt of the test, long enough")
    with LocalDynamoDB() as server:
        client = boto3.client("dynamodb", endpoint_url=server.endpoint_url, **WHERE)  # type: ignore[call-overload]  # keywords from a dict
        client.create_table(
            TableName="people",
            KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
            StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"},
        )
        for number in range(3):
            client.put_item(TableName="people", Item=item(number))
        client.put_item(TableName="people", Item=item(0) | {"age": {"N": "7"}})
        client.delete_item(TableName="people", Key={"id": item(1)["id"]})
        yield server


def files_with(text: str, *roots: Path) -> list[str]:
    """Return the files that contain a text, in their bytes or in their Parquet rows."""
    found = []
    files = [path for root in roots for path in root.rglob("*") if path.is_file()]
    assert files
    for path in files:
        data = path.read_bytes()
        if path.suffix == ".parquet":
            parquet = pq.ParquetFile(path)
            data += repr(parquet.read().to_pylist()).encode() + repr(parquet.metadata).encode()
        if text.encode() in data:
            found.append(str(path))
    return found


def test_masked_values_are_nowhere(
    server: LocalDynamoDB, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake, home = tmp_path / "lake", tmp_path / "dagster"
    home.mkdir()
    bad = Fault(
        operation="GetRecords",
        kind=FaultKind.MALFORMED_RECORD,
        first=1,
        payload=f'{{"dynamodb":{{"NewImage":{{"email":{{"S":"{HASHED}"}}}}}},"note":"{GONE}"}}',
    )
    server.admin.set_faults(FaultPlan((bad,)))
    defs = build_definitions(
        people,
        lakehouse=Lakehouse(uri=str(lake)),
        dynamodb=DynamoDBStreamsResource(endpoint_url=server.endpoint_url),
    )
    with DagsterInstance.local_temp(str(home)) as instance:
        sensor = defs.resolve_sensor_def("drain_people")
        resources = defs.resources or {}
        with build_sensor_context(
            instance=instance,
            definitions=defs,
            resources={key: resources[key] for key in sensor.required_resource_keys},
        ) as context:
            for event in sensor.evaluate_tick(context).asset_events:
                instance.report_runless_asset_event(event)
        job = defs.resolve_job_def("apply_people")
        monkeypatch.setattr(f"{__name__}.failing", True)
        assert not job.execute_in_process(instance=instance, raise_on_error=False).success
        monkeypatch.setattr(f"{__name__}.failing", False)
        assert job.execute_in_process(instance=instance).success

    rows = read_dataset(Layout(str(lake)), "people").to_pylist()
    assert len(rows) == 2
    assert {len(row["after_email"]) for row in rows} == {64}
    assert {row["after_phone"] for row in rows} == {"****mple"}
    assert {row["after_address"] for row in rows} == {'{"city":"Lisbon"}'}
    assert {row["after_cards"] for row in rows} == {'[{"kind":"debit"}]'}
    assert all(re.fullmatch(r"2:idS64:[0-9a-f]{64}", row["_dz_key"]) for row in rows)
    assert files_with("Lisbon", lake, home), "the search finds nothing at all"
    assert files_with("withheld", lake / "_quarantine")
    assert files_with(SECRET, lake, home) == []


def test_without_the_salt_nothing_is_read(
    server: LocalDynamoDB, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(SALT_VARIABLE)
    defs = build_definitions(
        people,
        lakehouse=Lakehouse(uri=str(tmp_path / "lake")),
        dynamodb=DynamoDBStreamsResource(endpoint_url=server.endpoint_url),
    )
    with DagsterInstance.ephemeral() as instance:
        sensor = defs.resolve_sensor_def("drain_people")
        resources = defs.resources or {}
        with (
            build_sensor_context(
                instance=instance,
                definitions=defs,
                resources={key: resources[key] for key in sensor.required_resource_keys},
            ) as context,
            pytest.raises(MaskError, match=SALT_VARIABLE),
        ):
            sensor.evaluate_tick(context)
    assert not (tmp_path / "lake" / "_changelog").exists()
