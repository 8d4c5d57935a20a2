"""A changed salt of masked values is refused before anything is read."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from datazone_dagster.api.mask import SALT_VARIABLE
from datazone_dagster.changelog.log import ChangeLog
from datazone_dagster.changelog.mask_salt import PROPERTY
from datazone_dagster.errors import MaskError
from datazone_dagster.model.layout import Layout
from datazone_dagster.pipeline import drain_once
from datazone_dagster.sources import DynamoDBSource
from datazone_dagster.testing import ScriptedStream

HASHING = DynamoDBSource("people", mask={"email": "hash"})
FIRST, SECOND = "0123456789abcdef", "fedcba9876543210"


def put(stream: ScriptedStream, key: str) -> None:
    stream.put({"id": {"S": key}, "email": {"S": "ada@mail.example"}})


def landed(layout: Layout) -> int:
    log = ChangeLog(layout, HASHING).open()
    return 0 if log is None else log.head


def test_a_changed_salt_is_refused_and_the_former_one_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout, stream = Layout(str(tmp_path)), ScriptedStream("people")
    monkeypatch.setenv(SALT_VARIABLE, FIRST)
    put(stream, "a")
    drain_once(HASHING, stream, layout)
    put(stream, "b")
    monkeypatch.setenv(SALT_VARIABLE, SECOND)
    with pytest.raises(MaskError) as refused:
        drain_once(HASHING, stream, layout)
    assert landed(layout) == 1
    for words in ("not the one", "former salt", "DynamoDBSource(name=...)", "24 hours"):
        assert words in str(refused.value)
    assert FIRST not in str(refused.value)
    monkeypatch.setenv(SALT_VARIABLE, FIRST)
    drain_once(HASHING, stream, layout)
    assert landed(layout) == 2


def test_a_new_name_begins_with_the_new_salt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The way out that the error names."""
    layout, stream = Layout(str(tmp_path)), ScriptedStream("people")
    put(stream, "a")
    monkeypatch.setenv(SALT_VARIABLE, FIRST)
    drain_once(HASHING, stream, layout)
    monkeypatch.setenv(SALT_VARIABLE, SECOND)
    renamed = DynamoDBSource("people", name="people_2", mask={"email": "hash"})
    assert drain_once(renamed, stream, layout).records == 1


def test_a_change_log_without_fingerprint_gets_that_of_the_next_drain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Change logs of earlier versions have none; nor has one of a source that hashed nothing."""
    layout, stream = Layout(str(tmp_path)), ScriptedStream("people")
    put(stream, "a")
    drain_once(DynamoDBSource("people"), stream, layout)
    log = ChangeLog(layout, HASHING).open()
    assert log is not None
    assert PROPERTY not in log.properties
    monkeypatch.setenv(SALT_VARIABLE, FIRST)
    put(stream, "b")
    drain_once(HASHING, stream, layout)
    log = ChangeLog(layout, HASHING).open()
    assert log is not None
    assert FIRST not in log.properties[PROPERTY]
    monkeypatch.setenv(SALT_VARIABLE, SECOND)
    with pytest.raises(MaskError, match="not the one"):
        drain_once(HASHING, stream, layout)


def test_a_source_that_hashes_nothing_needs_no_salt(tmp_path: Path) -> None:
    layout, stream = Layout(str(tmp_path)), ScriptedStream("people")
    put(stream, "a")
    drain_once(DynamoDBSource("people", mask={"email": "null"}), stream, layout)
    assert landed(layout) == 1


def test_a_value_that_is_masked_as_a_whole_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    layout, stream = Layout(str(tmp_path)), ScriptedStream("people")
    stream.put({"id": {"S": "a"}, "address": {"S": "12 Main Street"}})
    masked = DynamoDBSource("people", mask={"address.street": "drop"})
    with caplog.at_level(logging.WARNING):
        drain_once(masked, stream, layout)
    assert "address had values that are neither map nor list" in caplog.text
    assert "12 Main Street" not in caplog.text
