"""Time of a drain by the clock of the service, which trims records by it.

What is lost, late or past its retention is decided by that clock, and every time in the checkpoint
and in gaps is of it: the clock of this machine may be wrong, and those of two machines may differ.
"""

from __future__ import annotations

import time
from datetime import datetime, timedelta

from datazone_dagster.model.protocols import StreamClient, TellsTime


def told_now(client: StreamClient) -> datetime | None:
    """Return the time by the clock of the service, in whole seconds as its answers tell it.

    It is never ahead of that clock: what was read since then is read up to this time. None: no
    answer has told it, so the clock of this machine has to do.
    """
    told = client.told_time() if isinstance(client, TellsTime) else None
    if told is None:
        return None
    at, arrived_seconds = told
    now = at + timedelta(seconds=time.monotonic() - arrived_seconds)
    return now.replace(microsecond=0)
