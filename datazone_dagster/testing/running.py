"""A transform over a scripted stream, as Dagster would run it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from datazone_dagster.errors import SourceError
from datazone_dagster.model.layout import Layout

if TYPE_CHECKING:
    import pyarrow as pa

    from datazone_dagster.api import Transform
    from datazone_dagster.model.protocols import StreamClient


DRAINS_IN_VAIN = 20
"""Drains in a row that land nothing before a stream counts as unreadable."""


def run_transform(
    transform: Transform, stream: StreamClient, directory: Path | str
) -> dict[str, pa.Table]:
    """Drain a stream to its end and apply a transform to it, in a lakehouse under `directory`.

    Call it again after more changes: it goes on where it was, as Dagster would.

    Args:
        transform: What to apply.
        stream: A `ScriptedStream`, or a client of a real stream.
        directory: Where the tables go.

    Returns:
        The datasets' tables by dataset id, hidden columns included.

    Raises:
        TransformError: The function failed, or its result can't be applied.
        StorageError: No change was ever written, so there is no table.
        SourceError: The stream can't be read to its end.
    """
    from datazone_dagster.pipeline import apply_transform, drain_once, read_dataset

    layout = Layout(str(directory))
    in_vain = 0
    while not (report := drain_once(transform.source, stream, layout)).caught_up:
        in_vain = 0 if report.batch is not None else in_vain + 1
        if in_vain == DRAINS_IN_VAIN:
            failing = "; ".join(f"{shard}: {text}" for shard, text in report.shard_errors)
            raise SourceError(
                f"The stream of {transform.source.name!r} is not read to its end: the last "
                f"{in_vain} drains landed nothing. {failing}",
                hint="Does a fault plan strike for ever? Give it times=...",
            )
    apply_transform(transform, layout)
    return {dataset.id: read_dataset(layout, dataset.id) for dataset in transform.outputs.values()}
