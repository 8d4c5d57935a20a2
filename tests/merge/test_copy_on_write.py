from __future__ import annotations

from datazone_dagster.merge.copy_on_write import CopyOnWriteEngine
from tests.merge.engine_conformance import EngineConformance


class TestCopyOnWrite(EngineConformance):
    engine = CopyOnWriteEngine()


class TestCopyOnWritePartitioned(EngineConformance):
    engine = CopyOnWriteEngine()
    partition_by = ("part",)
