"""A call of the function on a few changes, before the first chunk of a run is read.

What a function returns says which changes and images it needs. Nothing that the call teaches the
function's frames stays: the few changes are read again with their chunk.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from datazone_dagster.api import Transform
from datazone_dagster.apply.change_scan import FullChunkNeededError
from datazone_dagster.apply.first_changes import FirstChanges
from datazone_dagster.apply.function import Function
from datazone_dagster.apply.latest_parts import LatestPart
from datazone_dagster.apply.row_wise_promise import Promise
from datazone_dagster.errors import TransformError
from datazone_dagster.frame.frame import Frame


@dataclass(frozen=True, slots=True)
class Trial:
    """What a call on a few changes has shown.

    Args:
        images: Images that the function reads of the latest changes; None: it returns unread
            frames, or needs every change.
        changes: Number of changes it was called on.
        rows: Its rows for them, by output.
    """

    images: frozenset[str] | None = None
    changes: int = 0
    rows: Mapping[str, pa.Table] = field(default_factory=dict)


def trial_call(
    transform: Transform,
    function: Function,
    first: FirstChanges,
    promise: Promise,
    outputs: Sequence[str],
    lookups: Mapping[str, pa.Table],
) -> Trial | None:
    """Call the function on the first changes of a range.

    Args:
        transform: The transform; each of its datasets holds the latest change of a key only. If it
            says that the function is row-wise, that is checked where the frames don't show it.
        function: Its function.
        first: The changes.
        promise: Its promise to be row-wise, which is checked on the changes.
        outputs: Outputs to prepare.
        lookups: Lookup tables by parameter.

    Returns:
        What it has shown; None if the function fails on these changes, which their chunk handles.

    Raises:
        ResultError: The function is not row-wise.
        StorageError: The change log can't be read.
    """
    row_wise = transform.row_wise
    with function.on_trial():
        try:
            returned = function.returned(first, lookups)
            is_by_change = function.is_by_change
            if (is_by_change or not row_wise) and are_unread(returned):
                return Trial()
            if not (is_by_change or row_wise):
                return Trial()
            rows = function.read(outputs, returned)
        except TransformError:
            return None
        images = first.images_read
        changes = first.changes_with(images)
        promise.begin()
        promise.add(LatestPart(changes, images, *first.batches), rows)
        try:
            promise.check(outputs, lookups)
        except FullChunkNeededError:  # some of the changes need further images
            return None
    return Trial(images, len(changes), rows)


def are_unread(returned: Mapping[str, object]) -> bool:
    """Return whether all values are frames that were not read yet."""
    return unread(returned) is not None


def unread(returned: Mapping[str, object]) -> dict[str, Frame] | None:
    """Return the values if all of them are frames that were not read yet, else None."""
    frames = {
        output: value
        for output, value in returned.items()
        if isinstance(value, Frame) and value.is_unread
    }
    return frames if len(frames) == len(returned) else None
