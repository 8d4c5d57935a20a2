"""An environment without AWS: no credentials, no region, no endpoints except the test's own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from datazone_dagster.source.session import Clients, ConnectionSettings, build_clients
from tests.source.scripted import ScriptedService


@pytest.fixture(autouse=True)
def no_aws(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "no-config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "no-credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture(scope="module")
def running_service() -> Iterator[ScriptedService]:
    with ScriptedService() as service:
        yield service


@pytest.fixture(scope="module")
def clients(running_service: ScriptedService) -> Clients:
    return _built(running_service)


@pytest.fixture
def new_clients(running_service: ScriptedService) -> Clients:
    """Clients that have got no answer yet."""
    return _built(running_service)


def _built(service: ScriptedService) -> Clients:
    settings = ConnectionSettings(
        region="us-west-2",
        endpoint_url=service.url,
        aws_access_key_id="k",
        aws_secret_access_key="s",
    )
    return build_clients(settings)


@pytest.fixture(scope="module")
def once(running_service: ScriptedService) -> Clients:
    """Clients that call once: an error of the service comes out at once."""
    settings = ConnectionSettings(
        region="us-west-2",
        endpoint_url=running_service.url,
        max_attempts=1,
        aws_access_key_id="k",
        aws_secret_access_key="s",
    )
    return build_clients(settings)


@pytest.fixture
def service(running_service: ScriptedService) -> ScriptedService:
    running_service.clear()
    return running_service
