"""What a diagnosis has found out about a table and its stream."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from datazone_dagster.errors import SourceError


@dataclass(frozen=True, slots=True)
class SourceFacts:
    """Facts about one source; None stands for what could not be told.

    Args:
        source: Name of the source.
        is_local: Whether the endpoint is on this machine, so that there is no account.
        caller: ARN of the credentials; None without an account.
        asked: IAM actions that were tried, in order.
        failures: The error of each action that failed. Actions that need its answer are not tried.
        reads_items: Whether the source needs the actions that read items.
        view_type: View type of the stream; None without a stream.
        streams: Number of streams that can be read.
        replicas: Regions of a global table, besides this one.
        lambdas: Functions that read the stream.
        recovery: Whether point-in-time recovery is on.
        clock_seconds: Seconds that the clock of this machine is ahead of the service's.
    """

    source: str
    is_local: bool = False
    caller: str | None = None
    asked: tuple[str, ...] = ()
    failures: Mapping[str, SourceError] = field(default_factory=dict)
    reads_items: bool = True
    view_type: str | None = None
    streams: int | None = None
    replicas: tuple[str, ...] = ()
    lambdas: tuple[str, ...] | None = None
    recovery: bool | None = None
    clock_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class KinesisFacts:
    """Facts about one source whose changes come through Kinesis.

    Args:
        source: Name of the source.
        stream_name: Kinesis stream.
        is_local: Whether the endpoint is on this machine.
        asked: IAM actions that were tried, in order.
        failures: The error of each action that failed. Actions that need its answer are not tried.
        reads_items: Whether the source needs the actions that read items.
        status: State of the stream as a destination of the table; empty if it never was one.
        is_coarse: Whether the times of changes have milliseconds only.
        retention_hours: Time that the stream keeps a record; None if unknown.
    """

    source: str
    stream_name: str
    is_local: bool = False
    asked: tuple[str, ...] = ()
    failures: Mapping[str, SourceError] = field(default_factory=dict)
    reads_items: bool = True
    status: str = ""
    is_coarse: bool = False
    retention_hours: int | None = None
