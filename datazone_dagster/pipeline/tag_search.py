"""Search for tables by a tag."""

from __future__ import annotations

from datazone_dagster.model.tagged_table import TableTag, TaggedTable
from datazone_dagster.source.connection_settings import ConnectionSettings


def tables_with_tag(tag: TableTag, settings: ConnectionSettings) -> tuple[TaggedTable, ...]:
    """Return the tables of an account and region that have a tag, by name.

    Args:
        tag: The tag.
        settings: Region, endpoint, credentials, retries and timeouts.

    Raises:
        SourceError: A call failed, or there are no credentials or no region.
    """
    from datazone_dagster.source.tagged_tables import find_tables  # loads boto3

    return find_tables(tag, settings)
