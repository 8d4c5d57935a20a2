"""DynamoDB with streams on this machine: shards split and roll, faults follow a script.

`LocalDynamoDB` runs it as a child process, `datazone-dagster emulator` from a shell. Nothing
here imports boto3 or Dagster.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datazone_dagster.local.admin_client import AdminClient
    from datazone_dagster.local.faults import Fault, FaultKind, FaultPlan
    from datazone_dagster.local.process import LocalDynamoDB

__all__ = ["AdminClient", "Fault", "FaultKind", "FaultPlan", "LocalDynamoDB"]

_MODULES = {
    "AdminClient": "admin_client",
    "Fault": "faults",
    "FaultKind": "faults",
    "FaultPlan": "faults",
    "LocalDynamoDB": "process",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
