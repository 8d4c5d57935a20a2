"""Worlds with a handed-over snapshot, and audits while drain and runs go on."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from datazone_dagster.items.keys import canonical_key
from datazone_dagster.model.audit_report import AuditReport, DatasetAudit
from datazone_dagster.model.layout import Layout
from datazone_dagster.pipeline import AuditSettings, audit_source
from tests.snapshot.flow import World, item, key
from tests.snapshot.scripted_table import compact

ITEMS = 40


def handed_over(root: Path, function: Any, kind: type[World] = World) -> World:
    """Return a world with rows of both, scan and stream: item 1 is deleted."""
    world = kind(Layout(str(root)), function, page_items=4)
    for number in range(ITEMS):
        world.table.put_unseen(item(number))
    world.drain()
    world.hand_over()
    for number in range(0, ITEMS, 3):
        world.stream.put(item(number, 7))
    world.stream.delete(key(1))
    world.drain()
    world.apply()
    return world


def copied(world: World, root: Path) -> World:
    """Return a copy of a world, with its lakehouse at another path."""
    shutil.copytree(world.layout.uri, root)
    found = copy.copy(world)
    found.clock, found.stream, found.table = copy.deepcopy((world.clock, world.stream, world.table))
    found.layout = Layout(str(root))
    return found


def audit(
    world: World,
    *,
    meanwhile: Callable[[], None] = lambda: None,
    transforms: tuple[Any, ...] = (),
    dataset_ids: tuple[str, ...] = (),
    source: Any = None,
    drains: bool = True,
    **settings: Any,
) -> AuditReport:
    """Audit while drain and runs go on, a second each."""

    def monotonic() -> float:
        return world.clock.now.timestamp()

    def pause(seconds: float) -> None:
        world.clock.advance(timedelta(seconds=seconds))
        if seconds < 1:  # between two pages
            return
        meanwhile()
        if drains:
            world.drain()
            world.apply()

    return audit_source(
        source or world.flow.source,
        transforms or (world.flow,),
        world.layout,
        world.table,
        dataset_ids=dataset_ids,
        settings=AuditSettings(**settings),
        clock=world.clock,
        monotonic=monotonic,
        pause=pause,
        stop=lambda: False,
    )


def result_of(report: AuditReport, dataset_id: str) -> DatasetAudit:
    (found,) = [one for one in report.datasets if one.dataset_id == dataset_id]
    return found


def name(number: int) -> str:
    return canonical_key(compact(key(number)))
