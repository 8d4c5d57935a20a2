"""How property tests run, and what the tests of a process do once instead of again and again."""

from __future__ import annotations

import functools
import gc
from collections.abc import Iterable

import botocore.session
import pytest
from alembic.script import Script, ScriptDirectory
from hypothesis import HealthCheck, settings

from datazone_dagster.process.shutdown import shutdown_requested

# How long an example takes says nothing on a machine that is busy.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

# Each client of DynamoDB would parse the models of its services anew: 60 ms.
botocore.session.create_loader = functools.cache(botocore.session.create_loader)

_read_migrations = ScriptDirectory._load_revisions
_migrations: dict[str, list[Script]] = {}


def _known_migrations(directory: ScriptDirectory) -> Iterable[Script]:
    """Return Dagster's 90 migrations: each instance reads them twice to know the last one."""
    folder = str(directory.dir)
    if folder not in _migrations:
        _migrations[folder] = list(_read_migrations(directory))
    return _migrations[folder]


pytest.MonkeyPatch().setattr(ScriptDirectory, "_load_revisions", _known_migrations)


def pytest_collection_finish() -> None:
    """Leave modules and collected tests out of garbage collections: a tenth of the time."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown() -> None:
    """End a run of tests that was told to end, as by its time limit.

    Dagster makes SIGTERM a KeyboardInterrupt, and one that meets a callback of the garbage
    collection is lost. From then on the drains of the process read nothing, as they should: tests
    would fail for that.
    """
    if shutdown_requested():
        pytest.exit("This process was told to end (SIGTERM).", returncode=143)
