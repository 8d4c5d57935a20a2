"""Client of the admin calls of a local DynamoDB; usable from any process."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from datazone_dagster.local.faults import Fault, FaultPlan
from datazone_dagster.local.wire_client import post_json

_HEADER = "X-Datazone-Admin"  # as in admin_endpoint.py, which loads the whole server


class AdminClient:
    """Controls what an AWS client can't: shards, the trim horizon, the clock, faults.

    A `shard` argument is a shard id, an index in creation order (from 0), or None for the oldest
    open shard. A `table` argument refers to the newest stream of the table.

    Args:
        endpoint_url: URL of the server.

    Example:
        `server.admin.split("orders", shard=0)`
    """

    def __init__(self, endpoint_url: str) -> None:
        self._endpoint_url = endpoint_url

    def _call(self, name: str, **members: Any) -> dict[str, Any]:
        given = {key: value for key, value in members.items() if value is not None}
        return post_json(self._endpoint_url, f"/_admin/{name}", given, {_HEADER: "1"})

    def health(self) -> bool:
        """Return True when the server answers.

        Raises:
            OSError: The server does not answer.
        """
        return bool(self._call("health")["ok"])

    def reset(self) -> None:
        """Delete all tables and streams; reset the faults, the clock offset and the counters.

        One server can then serve an entire test run.
        """
        self._call("reset")

    def split(self, table: str, shard: str | int | None = None) -> list[str]:
        """Close an open shard, open two children and return their ids."""
        return list(self._call("split", table=table, shard=shard)["children"])

    def roll(self, table: str, shard: str | int | None = None) -> list[str]:
        """Close an open shard, open one child in its place and return the child's id."""
        return list(self._call("roll", table=table, shard=shard)["children"])

    def trim(self, table: str | None = None, older_than_seconds: float = 0.0) -> int:
        """Trim records older than `older_than_seconds` on the server's clock; return their number.

        With 0, all records go. Shards that closed before that moment leave the listing, as they do
        in the service after 24 hours.
        """
        answer = self._call("trim", table=table, olderThanSeconds=older_than_seconds)
        return int(answer["trimmed"])

    def trim_through(self, table: str, shard: str | int, sequence_number: int | str) -> int:
        """Trim one shard up to and including a sequence number; return the number of records."""
        answer = self._call(
            "trim", table=table, shard=shard, throughSequenceNumber=str(sequence_number)
        )
        return int(answer["trimmed"])

    def sweep_ttl(self) -> int:
        """Delete the items whose time to live has passed; return their number."""
        return int(self._call("ttl")["deleted"])

    def now(self) -> float:
        """Return the server's time, in seconds since 1970."""
        return float(self._call("clock")["now"])

    def advance_clock(self, seconds: float) -> float:
        """Move the server's clock; return its new time in seconds since 1970."""
        return float(self._call("clock", advanceSeconds=seconds)["now"])

    def set_clock_offset(self, seconds: float) -> float:
        """Set the server's clock this many seconds ahead of real time; return its new time."""
        return float(self._call("clock", offsetSeconds=seconds)["now"])

    def shards(self, table: str) -> list[dict[str, Any]]:
        """Return every shard the newest stream ever had, in creation order, dropped ones too."""
        return list(self._call("shards", table=table)["shards"])

    def counters(self, *, reset: bool = False) -> dict[str, Any]:
        """Return `calls` by operation, `errors` by code, `records` and `empty_pages` of GetRecords.

        Args:
            reset: Whether to set every counter to 0 afterwards.
        """
        return self._call("counters", reset=reset)

    def set_faults(self, plan: FaultPlan | Iterable[Fault]) -> None:
        """Start a fault plan with its counts at 0 and an empty log."""
        faults = plan if isinstance(plan, FaultPlan) else FaultPlan(tuple(plan))
        self._call("faults", plan=faults.to_members())

    def set_lag(
        self, table: str, *, writes: int | None = None, seconds: float | None = None
    ) -> None:
        """Let reads without ConsistentRead show a table as it was some writes or seconds ago.

        Without arguments they show it as it is. The past reaches back to the first call: a lag
        never shows what was before it.
        """
        self._call("lag", table=table, writes=writes, seconds=seconds)

    def set_read_capacity(self, table: str, units_per_second: float | None) -> None:
        """Throttle reads of a table beyond this many read units per second; None allows all.

        A read of more units than that is let in after a pause that pays for it. Other reads are
        refused with `ProvisionedThroughputExceededException`; a BatchGetItem leaves the keys
        that are too many unprocessed.
        """
        self._call("read-capacity", table=table, unitsPerSecond=units_per_second)

    def set_bucket(self, bucket: str, folder: str | Path) -> None:
        """Let a folder stand for the bucket that exports are written to."""
        self._call("bucket", bucket=bucket, folder=str(Path(folder).absolute()))

    def set_exports(self, *, seconds: float = 0.0, fail: bool = False) -> None:
        """Let new exports take some seconds of the server's clock; let exports fail when done.

        An export completes when someone asks for it after that time. By default it is complete
        at once.
        """
        self._call("exports", seconds=seconds, fail=fail)

    def hold_kinesis(self, stream: str, *, hold: bool = True) -> None:
        """Let a Kinesis stream collect the records of changes until they are delivered."""
        self._call("kinesis-hold", stream=stream, hold=hold)

    def deliver_kinesis(self, stream: str, order: Sequence[int] | None = None) -> int:
        """Deliver held records to a Kinesis stream; return how many are still held.

        Args:
            stream: Name of the stream.
            order: Indexes of held records, from 0, in the order of delivery. An index given twice
                is a duplicate, one left out stays held. None delivers each once, oldest first.
        """
        given = None if order is None else list(order)
        return int(self._call("kinesis-deliver", stream=stream, order=given)["left"])

    def trim_kinesis(self, stream: str) -> int:
        """Trim every record of a Kinesis stream so far, and closed shards; return their number."""
        return int(self._call("kinesis-trim", stream=stream)["trimmed"])

    def clear_faults(self) -> None:
        """Remove all faults and empty the log."""
        self.set_faults(())

    def fault_log(self) -> list[dict[str, Any]]:
        """Return the faults that occurred under this plan: operation, kind, shard, call, at."""
        return list(self._call("fault-log")["log"])
