"""Change logs as an earlier version made them: without an owner."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from datazone_dagster.changelog import owner


@contextmanager
def logs_without_owner() -> Iterator[None]:
    """Make change logs without an owner, and store none in those that are there."""
    create_log = owner.create_log
    with pytest.MonkeyPatch.context() as earlier:
        earlier.setattr(
            "datazone_dagster.changelog.log.create_log",
            lambda uri, options, _, **others: create_log(uri, options, None, **others),
        )
        earlier.setattr("datazone_dagster.drain.batch.owner_to_record", lambda *_: None)
        yield
