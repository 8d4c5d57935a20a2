"""The admin calls of a local DynamoDB, from any process."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from datazone_dagster.local.faults import Fault, FaultPlan
from datazone_dagster.local.wire_client import post_json


class AdminClient:
    """Moves what a client of AWS can't: shards, the trim horizon, the clock, faults.

    A `shard` is a shard id, an index in creation order (from 0), or None for the oldest open
    shard. A `table` means its newest stream.

    Args:
        endpoint_url: The server's URL.

    Example:
        `server.admin.split("orders", shard=0)`
    """

    def __init__(self, endpoint_url: str) -> None:
        self._endpoint_url = endpoint_url

    def _call(self, name: str, **members: Any) -> dict[str, Any]:
        given = {key: value for key, value in members.items() if value is not None}
        return post_json(self._endpoint_url, f"/_admin/{name}", given)

    def health(self) -> bool:
        """Whether the server answers.

        Raises:
            OSError: It does not.
        """
        return bool(self._call("health")["ok"])

    def reset(self) -> None:
        """Forget every table and stream, the faults, the clock's offset and the counters.

        One server can so serve a whole test run.
        """
        self._call("reset")

    def split(self, table: str, shard: str | int | None = None) -> list[str]:
        """Close an open shard and open two children; returns their ids."""
        return list(self._call("split", table=table, shard=shard)["children"])

    def roll(self, table: str, shard: str | int | None = None) -> list[str]:
        """Close an open shard and open one child in its place; returns its id."""
        return list(self._call("roll", table=table, shard=shard)["children"])

    def trim(self, table: str | None = None, older_than_seconds: float = 0.0) -> int:
        """Trim records older than this by the server's clock, 0: all; returns how many.

        Shards that closed before that moment leave the listing, as they do after 24 hours.
        """
        answer = self._call("trim", table=table, olderThanSeconds=older_than_seconds)
        return int(answer["trimmed"])

    def trim_through(self, table: str, shard: str | int, sequence_number: int | str) -> int:
        """Trim one shard up to and with a sequence number; returns how many records went."""
        answer = self._call(
            "trim", table=table, shard=shard, throughSequenceNumber=str(sequence_number)
        )
        return int(answer["trimmed"])

    def sweep_ttl(self) -> int:
        """Delete the items whose time to live is over; returns how many."""
        return int(self._call("ttl")["deleted"])

    def now(self) -> float:
        """The server's clock, in seconds since 1970."""
        return float(self._call("clock")["now"])

    def advance_clock(self, seconds: float) -> float:
        """Move the server's clock; returns its new time in seconds since 1970."""
        return float(self._call("clock", advanceSeconds=seconds)["now"])

    def set_clock_offset(self, seconds: float) -> float:
        """Put the server's clock this far ahead of real time; returns its new time."""
        return float(self._call("clock", offsetSeconds=seconds)["now"])

    def shards(self, table: str) -> list[dict[str, Any]]:
        """Every shard the newest stream ever had, in creation order, the dropped ones too."""
        return list(self._call("shards", table=table)["shards"])

    def counters(self, *, reset: bool = False) -> dict[str, Any]:
        """`calls` by operation, `errors` by code, `records` and `empty_pages` of GetRecords."""
        return self._call("counters", reset=reset)

    def set_faults(self, plan: FaultPlan | Iterable[Fault]) -> None:
        """Start a fault plan: its counts and its log begin anew."""
        faults = plan if isinstance(plan, FaultPlan) else FaultPlan(tuple(plan))
        self._call("faults", plan=faults.to_members())

    def clear_faults(self) -> None:
        """No more faults; the log is emptied."""
        self.set_faults(())

    def fault_log(self) -> list[dict[str, Any]]:
        """The faults that happened since the plan was set: operation, kind, shard, call, at."""
        return list(self._call("fault-log")["log"])
