"""Id of the run that this process works for: it goes into notes that outlive the process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

_run_ids: list[str] = []


@contextmanager
def working_for(run_id: str) -> Iterator[None]:
    """Name the run that the block works for; of several at once, the last one counts."""
    _run_ids.append(run_id)
    try:
        yield
    finally:
        _run_ids.remove(run_id)


def current_run() -> str:
    """Return the id of the run that this process works for; empty outside runs."""
    return _run_ids[-1] if _run_ids else ""
