"""An S3 store of its own for each session, behind the proxy that counts and breaks requests."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest

from datazone_dagster.delta import conditional_writes
from datazone_dagster.model.layout import Layout
from tests.store.proxy import Counts, Proxy, proxy_for
from tests.store.servers import (
    ACCESS_KEY,
    AZURE_ACCOUNT,
    AZURE_KEY,
    AZURITE_MISSING,
    BUCKET,
    MISSING,
    REGION,
    SECRET_KEY,
    azure_server,
    azurite,
    s3_server,
    versitygw,
)
from tests.store.sweep_table import ENVIRONMENT, SWEEP, SweptStep, table_of


@pytest.fixture(scope="session")
def s3_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int]]:
    program = versitygw()
    if program is None:
        pytest.skip(MISSING)
    with s3_server(program, tmp_path_factory.mktemp("s3")) as address:
        yield address


@pytest.fixture(scope="session")
def s3_proxy(s3_address: tuple[str, int]) -> Iterator[Proxy]:
    with proxy_for(s3_address) as proxy:
        yield proxy


@pytest.fixture(scope="session")
def azure_proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    program = azurite()
    if program is None:
        pytest.skip(AZURITE_MISSING)
    folder = tmp_path_factory.mktemp("azure")
    with azure_server(program, folder) as address, proxy_for(address) as proxy:
        yield proxy


@pytest.fixture
def azure_options(azure_proxy: Proxy) -> dict[str, str]:
    """Storage options of Azurite, behind a proxy of its own, by names without prefix."""
    return {
        "account_name": AZURE_ACCOUNT,
        "account_key": AZURE_KEY,
        "endpoint": f"{azure_proxy.url}/{AZURE_ACCOUNT}",
        "allow_http": "true",
    }


@pytest.fixture
def proxy(s3_proxy: Proxy) -> Iterator[Proxy]:
    """The proxy without faults, delays and counts of other tests."""
    s3_proxy.heal()
    s3_proxy.delay(0)
    s3_proxy.counts()
    yield s3_proxy
    s3_proxy.heal()
    s3_proxy.delay(0)


@pytest.fixture
def counted(proxy: Proxy) -> Callable[[], AbstractContextManager[Counts]]:
    """Context manager that counts the requests of its block."""
    return proxy.counted


@pytest.fixture
def s3_options(proxy: Proxy) -> dict[str, str]:
    """Storage options of the store, behind the proxy."""
    return {
        "AWS_ENDPOINT_URL": proxy.url,
        "AWS_ALLOW_HTTP": "true",
        "AWS_REGION": REGION,
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
    }


@pytest.fixture
def s3_lakehouse(s3_options: dict[str, str]) -> Layout:
    """An empty lakehouse in the store, behind the proxy; that the store is sound is known."""
    layout = Layout(f"s3://{BUCKET}/{uuid.uuid4().hex}", s3_options)
    for root in (layout.uri, f"s3://{BUCKET}"):
        conditional_writes._proven.add((root, frozenset(s3_options.items())))
    return layout


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show the table of the sweep, and add its steps to the ledger if there is one."""
    steps = [
        value
        for outcome in ("passed", "failed")
        for report in terminalreporter.stats.get(outcome, ())
        for name, value in getattr(report, "user_properties", ())
        if name == SWEEP
    ]
    if not steps:
        return
    terminalreporter.write_sep("-", "failing requests")
    terminalreporter.write_line(table_of(SweptStep(**one) for one in steps))
    ledger = os.environ.get(ENVIRONMENT)
    if ledger:
        with open(ledger, "a", encoding="utf-8") as lines:
            lines.writelines(json.dumps(one) + "\n" for one in steps)
