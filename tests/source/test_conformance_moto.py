"""The client against moto, which has one shard per table and is correct for plain writes."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from moto.server import ThreadedMotoServer

from tests.source.conformance import BotoWorld, StreamClientConformance


@pytest.fixture(scope="module")
def moto_url() -> Iterator[str]:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        yield f"http://127.0.0.1:{server.get_host_and_port()[1]}"
    finally:
        server.stop()


@pytest.fixture(scope="module")
def raw_world(moto_url: str) -> BotoWorld:
    return BotoWorld(moto_url, raw_pages=True)


@pytest.fixture(scope="module")
def parsed_world(moto_url: str) -> BotoWorld:
    return BotoWorld(moto_url, raw_pages=False)


class TestRawPages(StreamClientConformance):
    @pytest.fixture
    def world(self, raw_world: BotoWorld) -> BotoWorld:
        return raw_world


class TestParsedPages(StreamClientConformance):
    @pytest.fixture
    def world(self, parsed_world: BotoWorld) -> BotoWorld:
        return parsed_world
