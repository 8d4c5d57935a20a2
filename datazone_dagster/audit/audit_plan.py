"""What an audit reads: its datasets, its segments, its price."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from datazone_dagster.api import Dataset, DynamoDBSource, Transform
from datazone_dagster.api.mask import mask_steps
from datazone_dagster.audit.first_look import SEGMENTS_PER_SAMPLE, drawn_segments
from datazone_dagster.changelog.log import ChangeLog
from datazone_dagster.dataset.read_dataset import read
from datazone_dagster.errors import DefinitionError, SnapshotError
from datazone_dagster.model.audit_report import AuditPlan, AuditSettings
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.snapshot_report import UNIT_BYTES
from datazone_dagster.model.snapshot_state import ACTIVE, Phase
from datazone_dagster.model.table_scan import TableDescription
from datazone_dagster.snapshot.rate import units_per_second
from datazone_dagster.snapshot.scan import segments_for

APPENDS = "it holds events, not items (mode append)"
MOST_SEGMENTS = 1_000_000
"""Limit of the service on the segments of a scan."""

NO_TABLE = "it has no table yet"
_SAFE = "Nothing was read from the table."


@dataclass(frozen=True)
class Planned:
    """A plan with what it was made from.

    Args:
        plan: The plan.
        transforms: Transforms whose datasets are audited.
        segments: Segments to scan.
    """

    plan: AuditPlan
    transforms: tuple[Transform, ...]
    segments: Sequence[int]


def planned(
    source: DynamoDBSource,
    transforms: Sequence[Transform],
    layout: Layout,
    table: TableDescription,
    dataset_ids: Collection[str],
    settings: AuditSettings,
) -> Planned:
    """Decide what to read.

    Raises:
        DefinitionError: No transform of the source writes one of `dataset_ids`.
        SnapshotError: The source can't be audited now, or not at all.
        StorageError: The lakehouse can't be read.
    """
    _require_auditable(source, layout, table)
    own = [one for one in transforms if one.source.name == source.name]
    datasets = {dataset.id: dataset for one in own for dataset in one.outputs.values()}
    unknown = sorted(set(dataset_ids) - datasets.keys())
    if unknown:
        raise DefinitionError(
            f"No transform of source {source.name!r} writes a dataset {unknown[0]!r}.",
            hint=f"Its datasets: {', '.join(sorted(datasets)) or 'none'}.",
        )
    chosen = {one: datasets[one] for one in dataset_ids or datasets}
    skipped = {
        dataset_id: reason
        for dataset_id, dataset in chosen.items()
        if (reason := _why_not(dataset, layout)) is not None
    }
    audited = tuple(one for one in chosen if one not in skipped)
    total = segments_for(table.size_bytes, settings.workers, hide_keys=False)
    if settings.sample < 1:
        wanted = math.ceil(SEGMENTS_PER_SAMPLE / settings.sample)
        total = max(total, min(MOST_SEGMENTS, wanted))
    segments = drawn_segments(total, settings.sample, settings.seed)
    share = settings.sample
    return Planned(
        AuditPlan(
            source=source.name,
            datasets=audited,
            skipped=skipped,
            item_count=table.item_count,
            table_bytes=table.size_bytes,
            sample=share,
            segments=len(segments),
            segments_total=total,
            units_per_second=units_per_second(table, source.snapshot_rcu),
            read_units=share * table.size_bytes / UNIT_BYTES
            + share * (1 - share) * table.item_count,
        ),
        tuple(one for one in own if any(dataset.id in audited for dataset in one.outputs.values())),
        segments,
    )


def _require_auditable(source: DynamoDBSource, layout: Layout, table: TableDescription) -> None:
    masked = [path for path, _ in source.masked if next(iter(mask_steps(path))) in table.key_names]
    if masked:
        raise SnapshotError(
            f"Source {source.name!r} can't be audited: its mask hashes the key {masked[0]!r}, so "
            "the table can't be asked for the items of rows.",
            safe=_SAFE,
        )
    log = ChangeLog(layout, source).open()
    state = None if log is None else log.snapshot
    if state is not None and (state.phase is Phase.WANTED or state.phase in ACTIVE):
        raise SnapshotError(
            f"Source {source.name!r} can't be audited: its snapshot is not handed over yet "
            f"({state.phase.value}), so its datasets are not complete.",
            safe=_SAFE,
            hint="Audit it once the snapshot is done.",
        )


def _why_not(dataset: Dataset, layout: Layout) -> str | None:
    if dataset.mode == "append":
        return APPENDS
    return NO_TABLE if read(layout, dataset.id) is None else None
