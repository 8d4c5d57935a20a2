"""Removal of old changes from a change log, once every dataset of the source has applied them."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from datetime import datetime

from datazone_dagster.changelog.log import ChangeLog
from datazone_dagster.dataset.source_datasets import datasets_of_source
from datazone_dagster.delta.store_errors import converts_errors
from datazone_dagster.errors import ConcurrentWriterError
from datazone_dagster.model.layout import Layout

_logger = logging.getLogger(__name__)


@converts_errors("Truncating a change log")
def truncate_applied(
    source_name: str,
    dataset_ids: Iterable[str],
    layout: Layout,
    *,
    created_before: datetime,
    logger: logging.Logger = _logger,
) -> int:
    """Remove old changes that every dataset has applied from a change log, for good.

    Every dataset of the lakehouse with a position of the source counts, whoever declared it. A
    declared dataset without a table has applied nothing, so nothing is removed. If another commit
    wins the race, nothing is removed either; the next call tries again.

    Args:
        source_name: Name of the source.
        dataset_ids: Ids of the declared datasets of the source.
        layout: Locations of the tables.
        created_before: Time from which on changes stay.
        logger: Logger that is told which undeclared dataset keeps changes from being removed.

    Returns:
        Number of changes removed.

    Raises:
        StorageError: The lakehouse can't be read or written.
    """
    log = ChangeLog(layout, source_name).open()
    if log is None:
        return 0
    found = datasets_of_source(source_name, layout)
    declared = {dataset_id: found.get(dataset_id, 0) for dataset_id in dataset_ids}
    positions = found | declared
    if not positions:
        return 0
    last = min(positions, key=positions.__getitem__)
    if last not in declared and positions[last] < log.head:
        logger.info(
            "Changes after batch %d stay in the change log of %s: dataset %r, which this code "
            "location does not declare, has not applied them. If nobody writes it any more, move "
            "its table away.",
            positions[last],
            source_name,
            last,
        )
    try:
        return log.truncate(positions[last], created_before)
    except ConcurrentWriterError:
        return 0
