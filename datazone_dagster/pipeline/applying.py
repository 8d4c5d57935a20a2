"""Apply of a transform, in one go or while its stream has traffic."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator
from functools import partial

from datazone_dagster.api import Transform
from datazone_dagster.api.source import require_stream
from datazone_dagster.apply import ApplySettings
from datazone_dagster.apply.bucket_run import bucket_steps
from datazone_dagster.apply.pacing import Stay
from datazone_dagster.apply.run_choice import run_of
from datazone_dagster.delta.store_errors import converts_errors, guarded
from datazone_dagster.model.key_bucket import WHOLE, KeyBucket
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.protocols import Clock, utc_now
from datazone_dagster.model.report import ApplyReport, ChunkReport
from datazone_dagster.model.run_report import RunReport

_logger = logging.getLogger("datazone_dagster.pipeline")


@converts_errors("Applying a transform")
def apply_transform(
    transform: Transform,
    layout: Layout,
    *,
    settings: ApplySettings = ApplySettings(),
    clock: Clock = utc_now,
    on_chunk: Callable[[ChunkReport], None] | None = None,
    logger: logging.Logger = _logger,
    only: Collection[str] | None = None,
    bucket: KeyBucket = WHOLE,
) -> dict[str, ApplyReport]:
    """Apply everything between the datasets' positions and the head of the change log.

    Changes that land meanwhile are applied too, for `ApplySettings.linger_seconds`. The run ends
    as soon as no change waits.

    Safe at any time: a dataset takes each chunk in one commit that also moves its position. So a
    run that is repeated, doubled or killed neither loses nor doubles a change. With `only`, the
    datasets of other ids stay where they are: a later run applies to each from its own position.
    With `bucket`, only changes of its keys are applied; runs of other buckets are independent.

    Returns:
        One report per dataset, by dataset id.

    Raises:
        DefinitionError: The source has `stream_enabled=False`: use `replace_from_table`.
        TransformError: The function failed, or its result can't be applied. The datasets keep
            the chunks that were applied before; the change log keeps the rest.
        StorageError: The lakehouse can't be read or written.
    """
    require_stream(transform.source, "apply_transform")
    facts = transform, layout, settings, clock, on_chunk, logger
    run = partial(run_of(transform), *facts, only=only, bucket=bucket)
    return dict(list(bucket_steps(run, None))[-1].datasets)


def follow_changes(
    transform: Transform,
    layout: Layout,
    *,
    told_to_end: Callable[[], bool] | None,
    settings: ApplySettings = ApplySettings(),
    clock: Clock = utc_now,
    on_chunk: Callable[[ChunkReport], None] | None = None,
    logger: logging.Logger = _logger,
    only: Collection[str] | None = None,
    bucket: KeyBucket = WHOLE,
) -> Iterator[RunReport]:
    """Apply as `apply_transform` does, and go on with what lands until nothing does for a while.

    It ends after `ApplySettings.idle_seconds` without changes, after `max_run_minutes`, or once
    `told_to_end` returns True, which is asked several times a second. None: as soon as no change
    waits. `only` and `bucket` are as in `apply_transform`.

    Yields:
        What was applied since the last report: after the first chunk, then at most every 30
        seconds (not if `told_to_end` is None), and once at the end. If the run fails, what it had
        committed comes before the error.

    Raises:
        TransformError: As in `apply_transform`; so do the others.
        StorageError: The lakehouse can't be read or written.
    """
    longest_seconds = settings.max_run_minutes * 60
    stay = told_to_end and Stay(settings.idle_seconds, longest_seconds, told_to_end)
    with guarded(layout.uri, "Following the changes of a source"):
        facts = transform, layout, settings, clock, on_chunk, logger
        run = partial(run_of(transform), *facts, only=only, bucket=bucket)
        yield from bucket_steps(run, stay)
