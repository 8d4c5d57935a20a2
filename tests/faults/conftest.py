from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from datazone_dagster.local import LocalDynamoDB
from datazone_dagster.model.layout import Layout


@pytest.fixture(scope="session")
def server() -> Iterator[LocalDynamoDB]:
    with LocalDynamoDB(shards=2) as server:
        yield server


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(str(tmp_path / "lakehouse"))
