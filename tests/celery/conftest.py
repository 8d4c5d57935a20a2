from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from datazone_dagster.local import LocalDynamoDB


@pytest.fixture(scope="session")
def server() -> Iterator[LocalDynamoDB]:
    with LocalDynamoDB(shards=2) as server:
        yield server


@pytest.fixture(scope="session", autouse=True)
def set_up() -> None:
    if shutil.which("redis-server") is None:
        pytest.skip("Redis is not installed here: run `make test-celery` (apt-get, as root)")
    pytest.importorskip("dagster_celery", reason="run `make test-celery`")
