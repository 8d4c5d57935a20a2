"""A redrive hashes masked values with the salt of the change log, or not at all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from datazone_dagster import Dataset, Input, Output, Stream, Transform, transform
from datazone_dagster.api.mask import SALT_VARIABLE
from datazone_dagster.errors import MaskError
from datazone_dagster.frame.frame import Frame
from datazone_dagster.model.layout import Layout
from datazone_dagster.pipeline import (
    apply_transform,
    drain_once,
    quarantine_report,
    read_dataset,
    redrive_dataset,
)
from datazone_dagster.sources import DynamoDBSource
from datazone_dagster.testing import ScriptedStream

SOURCE = DynamoDBSource("people", mask={"email": "hash"})
FIRST, SECOND = "0123456789abcdef", "fedcba9876543210"


def select(people: Frame) -> Frame:
    return people.select("dynamodb.Keys.id.S as id", "dynamodb.NewImage.email.S as email")


def refusing(people: Frame) -> Frame:
    if "b" in select(people).arrow()["id"].to_pylist():
        raise ValueError("b")
    return select(people)


def flow(function: Callable[[Frame], Frame]) -> Transform:
    return transform(
        input_mapping={"people": Input(Stream(source=SOURCE))},
        output_mapping={"people": Output(Dataset("people", quarantine_limit=1.0))},
        on_error="quarantine",
        name="people",
    )(function)


def test_a_redrive_with_another_salt_is_refused_and_the_former_one_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a redrive parses again would have another hash than the rows next to it."""
    layout, stream = Layout(str(tmp_path)), ScriptedStream("people")
    monkeypatch.setenv(SALT_VARIABLE, FIRST)
    for key in "ab":
        stream.put({"id": {"S": key}, "email": {"S": "ada@mail.example"}})
    drain_once(SOURCE, stream, layout)
    apply_transform(flow(refusing), layout)
    before = read_dataset(layout, "people")
    assert before["id"].to_pylist() == ["a"]

    monkeypatch.setenv(SALT_VARIABLE, SECOND)
    with pytest.raises(MaskError, match="not the one") as refused:
        redrive_dataset(flow(select), "people", layout)
    assert FIRST not in str(refused.value)
    assert SECOND not in str(refused.value)
    assert read_dataset(layout, "people").equals(before)
    assert quarantine_report(flow(select), "people", layout).waiting == 1

    monkeypatch.setenv(SALT_VARIABLE, FIRST)
    assert redrive_dataset(flow(select), "people", layout).redriven == 1
    emails = read_dataset(layout, "people")["email"].to_pylist()
    assert len(emails) == 2
    assert len(set(emails)) == 1
    assert "ada" not in emails[0]
