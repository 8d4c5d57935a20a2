"""Tables whose folders a file system that ignores case takes for one."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

from datazone_dagster.dagster_glue.options import is_remote_now
from datazone_dagster.dagster_glue.resources import Lakehouse
from datazone_dagster.dagster_glue.topology import Topology
from datazone_dagster.errors import DefinitionError

IGNORE_CASE: Sequence[str] = ("darwin", "win32")
"""Platforms whose file systems ignore case, unless somebody has set up another one."""


def refuse_shared_folders(topology: Topology, lakehouse: Lakehouse) -> None:
    """Refuse datasets and sources whose names differ in case only, where folders would be shared.

    Raises:
        DefinitionError: Two names do, the lakehouse is on this machine, and its system ignores
            case. The message names both.
    """
    if sys.platform not in IGNORE_CASE or is_remote_now(lakehouse):
        return
    _refuse(
        "datasets",
        (one.id for each in topology.transforms for one in each.outputs.values()),
        "Give one of them another id.",
    )
    _refuse(
        "sources",
        (one.name for one in topology.by_source),
        'Give one of them a name of its own: DynamoDBSource(..., name="...").',
    )


def _refuse(kind: str, names: Iterable[str], hint: str) -> None:
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(name.casefold(), name)
        if other != name:
            raise DefinitionError(
                f"The {kind} {other!r} and {name!r} would share a folder: file names of this "
                "system ignore case.",
                safe="Nothing was written.",
                hint=f"{hint} In an object store, and on Linux, both can be there.",
            )
