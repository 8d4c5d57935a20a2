"""Runs a transform over a scripted stream, as Dagster would."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from datazone_dagster.errors import SourceError
from datazone_dagster.model.layout import Layout

if TYPE_CHECKING:
    import pyarrow as pa

    from datazone_dagster.api import Transform
    from datazone_dagster.model.protocols import StreamClient


EMPTY_DRAINS_MAX = 20
"""Successive drains without a batch after which a stream counts as unreadable."""


def run_transform(
    transform: Transform, stream: StreamClient, directory: Path | str
) -> dict[str, pa.Table]:
    """Drain a stream to its end and apply a transform to it, in a lakehouse under `directory`.

    A further call, after more changes, continues where the last one stopped, as Dagster would.

    Args:
        transform: Transform to apply.
        stream: `ScriptedStream`, or a client of a real stream.
        directory: Directory for the tables.

    Returns:
        Tables of the datasets by dataset id, hidden columns included.

    Raises:
        DefinitionError: The source has `stream_enabled=False`.
        TransformError: The function failed, or its result can't be applied.
        StorageError: No change was ever written, so no table exists.
        SourceError: The stream can't be read to its end.
    """
    from datazone_dagster.api.source import require_stream
    from datazone_dagster.pipeline import apply_transform, drain_once, read_dataset

    require_stream(transform.source, "run_transform")
    layout = Layout(str(directory))
    empty_drains = 0
    while not (report := drain_once(transform.source, stream, layout)).caught_up:
        empty_drains = 0 if report.batch is not None else empty_drains + 1
        if empty_drains == EMPTY_DRAINS_MAX:
            failing = "; ".join(f"{shard}: {text}" for shard, text in report.shard_errors)
            raise SourceError(
                f"The stream of {transform.source.name!r} can't be read to its end: the last "
                f"{empty_drains} drains appended nothing to the change log. {failing}",
                hint="If a fault plan strikes without limit, give it times=...",
            )
    apply_transform(transform, layout)
    return {dataset.id: read_dataset(layout, dataset.id) for dataset in transform.outputs.values()}
