"""The table client against moto: the suite without what moto does otherwise."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from moto.server import ThreadedMotoServer

from tests.source.table_conformance import BotoTableWorld, TableClientConformance


@pytest.fixture(scope="module")
def moto_world() -> Iterator[BotoTableWorld]:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        yield BotoTableWorld(f"http://127.0.0.1:{server.get_host_and_port()[1]}")
    finally:
        server.stop()


class TestTableClient(TableClientConformance):
    @pytest.fixture
    def world(self, moto_world: BotoTableWorld) -> BotoTableWorld:
        return moto_world
