"""Tools to test transforms: scripted streams, a fixed clock, fault plans.

    from datazone_dagster.testing import ScriptedStream, run_transform

    stream = ScriptedStream("orders", key=("orderId",))
    stream.put({"orderId": {"S": "1"}, "total": {"N": "9.50"}})
    stream.delete({"orderId": {"S": "1"}})
    tables = run_transform(my_transform, stream, tmp_path)   # {"dataset id": pyarrow.Table}

A `ScriptedStream` is a DynamoDB stream in memory: shards split and roll, sequence numbers
have gaps, records are trimmed, a new stream replaces the old one. For a real server that
boto3 talks to, see `datazone_dagster.local`; its fault plans are re-exported here. The store
fails within `commit_fails`, `answer_lost`, `full_disk` and `read_only`.
"""

from __future__ import annotations

from datazone_dagster.local.faults import Fault, FaultKind, FaultPlan
from datazone_dagster.testing.clock import FixedClock
from datazone_dagster.testing.crashes import Crash, at_point, crash_at, storage_fails_at
from datazone_dagster.testing.running import run_transform
from datazone_dagster.testing.scripted_stream import ScriptedStream
from datazone_dagster.testing.storage_faults import answer_lost, commit_fails, full_disk, read_only

__all__ = [
    "Crash",
    "Fault",
    "FaultKind",
    "FaultPlan",
    "FixedClock",
    "ScriptedStream",
    "answer_lost",
    "at_point",
    "commit_fails",
    "crash_at",
    "full_disk",
    "read_only",
    "run_transform",
    "storage_fails_at",
]
