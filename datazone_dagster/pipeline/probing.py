"""Looks at a source and at a lakehouse for a diagnosis."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from datazone_dagster.api import DynamoDBSource, KinesisSource
from datazone_dagster.delta.conditional_writes import MARKER, require_conditional_writes
from datazone_dagster.errors import DatazoneError
from datazone_dagster.model.finding import Finding
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.source_facts import SourceFacts
from datazone_dagster.observe.kinesis_diagnosis import kinesis_findings
from datazone_dagster.observe.source_diagnosis import source_findings
from datazone_dagster.source.connection_settings import ConnectionSettings

_FREE_BYTES = 1 << 30


def probe_source(source: DynamoDBSource, settings: ConnectionSettings) -> list[Finding]:
    """Try the calls that a source needs, one by one, and say what each answer means.

    Reads one item and one record at most, and changes nothing.
    """
    from datazone_dagster.source.kinesis_probe import KinesisProbe
    from datazone_dagster.source.session import build_clients, build_kinesis_clients
    from datazone_dagster.source.source_probe import SourceProbe, other_clients

    try:
        if isinstance(source, KinesisSource):
            both = build_kinesis_clients(settings, table_name=source.table_name)
            kinesis = KinesisProbe(source, both, role_arn=settings.role_arn).facts()
            return list(kinesis_findings(kinesis))
        clients = build_clients(settings, table_name=source.table_name)
    except DatazoneError as error:
        return [Finding(source.name, "credentials", "fail", error.what, error.hint)]
    region = clients.dynamodb.meta.region_name
    probe = SourceProbe(
        source, clients, other_clients(settings, region), role_arn=settings.role_arn
    )
    facts: SourceFacts = probe.facts()
    return list(source_findings(facts))


def probe_lakehouse(layout: Layout) -> list[Finding]:
    """Say whether the lakehouse can be written, by two writers apart.

    In an object store this creates the marker file that every process creates before it writes.
    """
    if layout.is_remote:
        return [_remote(layout)]
    return list(_local(Path(layout.uri)))


def _remote(layout: Layout) -> Finding:
    try:
        require_conditional_writes(layout.uri, layout.storage_options)
    except DatazoneError as error:
        return Finding("lakehouse", "writable", "fail", error.what, error.hint)
    what = (
        f"{layout.uri} takes files, and refuses to create one twice: two writers stay apart "
        f"({MARKER} proves it)."
    )
    return Finding("lakehouse", "writable", "ok", what)


def _local(folder: Path) -> list[Finding]:
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not (there.is_dir() and os.access(there, os.W_OK | os.X_OK)):
        what = f"{folder} can't be written: this user may not write to {there}."
        hint = "Change its owner, or name another place: DATAZONE_LAKEHOUSE_URI."
        return [Finding("lakehouse", "writable", "fail", what, hint)]
    made = "" if there == folder else ", and is made with the first change"
    found = [Finding("lakehouse", "writable", "ok", f"{folder} can be written{made}.")]
    free_bytes = shutil.disk_usage(there).free
    if free_bytes < _FREE_BYTES:
        what = f"The disk of {folder} has {free_bytes / 1e6:,.0f} MB left."
        found.append(Finding("lakehouse", "space", "warn", what, "Free some, or move the tables."))
    return found
