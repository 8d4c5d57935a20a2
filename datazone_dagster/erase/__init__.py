"""Erasure of items: every trace of their keys, in every table of a source."""

from __future__ import annotations

from collections.abc import Iterable

from datazone_dagster.api import DynamoDBSource
from datazone_dagster.erase.erased_keys import parse_keys
from datazone_dagster.erase.erasure import Erasure
from datazone_dagster.items.masking import Masks
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.protocols import Clock, utc_now

__all__ = ["Erasure", "open_erasure"]


def open_erasure(
    source: DynamoDBSource, keys: Iterable[str], layout: Layout, *, clock: Clock = utc_now
) -> Erasure:
    """Prepare the erasure of items from all tables of a source; its `plan` and `run` do the rest.

    Args:
        source: The source. Keys are masked as its drain masks them.
        keys: Keys of the items, as DynamoDB JSON or as `name=value`, as in `parse_keys`.
        layout: Locations of the tables.
        clock: Source of the current time.

    Raises:
        DefinitionError: A text is no key, or not one of this source's table.
        MaskError: The mask of the source can't be applied.
        StorageError: The lakehouse can't be read.
    """
    masks = Masks.of(source)
    return Erasure(source, layout, parse_keys(keys, None if masks is None else masks.keys), clock)
