"""A transform over a scripted stream, as Dagster would run it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from datazone_dagster.model.layout import Layout

if TYPE_CHECKING:
    import pyarrow as pa

    from datazone_dagster.api import Transform
    from datazone_dagster.model.protocols import StreamClient


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
    """
    from datazone_dagster.pipeline import apply_transform, drain_once, read_dataset

    layout = Layout(str(directory))
    while not drain_once(transform.source, stream, layout).caught_up:
        pass
    apply_transform(transform, layout)
    return {dataset.id: read_dataset(layout, dataset.id) for dataset in transform.outputs.values()}
