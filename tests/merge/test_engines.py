from __future__ import annotations

from datazone_dagster.merge.delta_merge import DeltaMergeEngine
from datazone_dagster.merge.engines import AutoEngine, CopyOnWriteEngine, MergeOnReadEngine
from tests.merge.engine_conformance import EngineConformance


class TestCopyOnWrite(EngineConformance):
    engine = CopyOnWriteEngine()


class TestCopyOnWritePartitioned(EngineConformance):
    engine = CopyOnWriteEngine()
    partition_by = ("part",)


class TestMergeOnRead(EngineConformance):
    engine = MergeOnReadEngine()


class TestMergeOnReadPartitioned(EngineConformance):
    engine = MergeOnReadEngine()
    partition_by = ("part",)


class TestAutoThatSwitches(EngineConformance):
    engine = AutoEngine(rewrite_bytes=2000)


class TestDeltaMerge(EngineConformance):
    engine = DeltaMergeEngine()
    plans_again = False
