"""What the facts about a source mean: a finding for each, with what it breaks and the cure."""

from __future__ import annotations

from collections.abc import Iterator

from datazone_dagster.errors import (
    AccessDeniedError,
    ServiceUnavailableError,
    SourceError,
    ThrottledError,
)
from datazone_dagster.model.finding import Finding, Outcome
from datazone_dagster.model.source_facts import SourceFacts

SKEW_WARN_SECONDS = 30.0
SKEW_FAIL_SECONDS = 240.0
"""AWS refuses requests whose time is 5 minutes off."""

BREAKS = {
    "dynamodb:DescribeTable": "nothing works: neither stream nor table is found",
    "dynamodb:ListStreams": "no change is drained",
    "dynamodb:DescribeStream": "no change is drained: the shards are unknown",
    "dynamodb:GetShardIterator": "no change is drained: no shard can be begun",
    "dynamodb:GetRecords": "no change is drained",
    "dynamodb:Scan": "no snapshot is taken: items that do not change are not in the datasets",
    "dynamodb:BatchGetItem": "no snapshot is handed over: deletes can't be confirmed",
}
"""IAM actions that a source needs, and what is broken without each."""

_VIEWS: dict[str, tuple[Outcome, str]] = {
    "NEW_AND_OLD_IMAGES": ("ok", "it carries new and old images"),
    "NEW_IMAGE": ("warn", "it carries no old images: a function that reads them sees nulls"),
    "OLD_IMAGE": ("fail", "it carries no new images, so no change is drained"),
    "KEYS_ONLY": ("fail", "it carries keys only, so no change is drained"),
}
_ENABLE_AGAIN = (
    "Disable the stream and enable it with NEW_AND_OLD_IMAGES. It is a new stream: changes made in "
    "between are recorded nowhere, and a snapshot repairs them."
)


def source_findings(facts: SourceFacts) -> Iterator[Finding]:
    """Yield the findings about a source, in the order in which a person would look."""
    name = facts.source
    yield _credentials(facts)
    for action in facts.asked:
        if action in BREAKS:
            yield _action(facts, action)
    yield from _unasked(facts)
    if facts.view_type is not None:
        outcome, what = _VIEWS.get(facts.view_type, ("fail", "this view type is unknown"))
        hint = "" if outcome == "ok" else _ENABLE_AGAIN
        yield Finding(name, "view_type", outcome, f"The stream is {facts.view_type}: {what}.", hint)
    elif facts.streams == 0:
        yield Finding(
            name,
            "view_type",
            "fail",
            "The table has no stream: no change is drained.",
            "Enable one with NEW_AND_OLD_IMAGES, or set stream_enabled=False for scans.",
        )
    if facts.view_type is not None:
        yield _readers(facts)
    yield from _recovery(facts)
    yield from _clock(facts)


def _credentials(facts: SourceFacts) -> Finding:
    error = facts.failures.get("sts:GetCallerIdentity")
    if facts.is_local:
        what = "The endpoint is on this machine: there is no account, any credentials do."
        return Finding(facts.source, "credentials", "ok", what)
    if error is None:
        return Finding(facts.source, "credentials", "ok", f"You are {facts.caller}.")
    if isinstance(error, ServiceUnavailableError):
        what = "Who you are is unknown: STS does not answer. The calls below show if it matters."
        return Finding(facts.source, "credentials", "warn", what, error.hint)
    return Finding(facts.source, "credentials", "fail", error.what, error.hint)


def _action(facts: SourceFacts, action: str) -> Finding:
    error, breaks = facts.failures.get(action), BREAKS[action]
    if error is None:
        return Finding(facts.source, action, "ok", "Allowed, and it answers.")
    if _streams_only(facts, action, error):
        return Finding(
            facts.source,
            action,
            "fail",
            f"DynamoDB answers, DynamoDB Streams does not, so {breaks}. A gateway endpoint of a "
            "VPC covers only DynamoDB itself.",
            "Add an interface endpoint for DynamoDB Streams (AWS PrivateLink) or a NAT gateway, "
            "and look at security groups and proxies.",
        )
    if isinstance(error, AccessDeniedError):
        return Finding(facts.source, action, "fail", f"Denied, so {breaks}.", error.hint)
    return Finding(facts.source, action, "fail", f"{error.what} So {breaks}.", error.hint)


def _streams_only(facts: SourceFacts, action: str, error: SourceError) -> bool:
    described = "dynamodb:DescribeTable" not in facts.failures
    of_streams = action in ("dynamodb:ListStreams", "dynamodb:DescribeStream")
    return described and of_streams and isinstance(error, ServiceUnavailableError)


def _unasked(facts: SourceFacts) -> Iterator[Finding]:
    """Yield what could not be tried, because an answer that it needs is missing."""
    wanted = [
        action
        for action in BREAKS
        if facts.reads_items or action not in ("dynamodb:Scan", "dynamodb:BatchGetItem")
    ]
    missing = [action for action in wanted if action not in facts.asked]
    if missing and facts.failures:
        what = f"Not tried, because of a failure above: {', '.join(missing)}."
        yield Finding(facts.source, "not_tried", "warn", what, "Repair that, and run doctor again.")


def _readers(facts: SourceFacts) -> Finding:
    error = facts.failures.get("dynamodb:GetRecords")
    others = [f"function {one}" for one in facts.lambdas or ()]
    if facts.replicas:
        others.append(f"the global table's replication to {', '.join(facts.replicas)}")
    known = f"It is also read by {' and '.join(others)}. " if others else ""
    if isinstance(error, ThrottledError) or len(others) > 1:
        return Finding(
            facts.source,
            "readers",
            "fail" if isinstance(error, ThrottledError) else "warn",
            f"{known}A shard has room for two readers: a third one is throttled, and slows all.",
            "Stop a reader, or give others the change log's table in place of the stream.",
        )
    if others:
        what = f"{known}A shard has room for two readers, so it is full with the drain."
        return Finding(facts.source, "readers", "warn", what, "Add no other reader.")
    if facts.is_local or facts.lambdas is not None:
        what = "No function reads the stream. Other programs that do can't be seen from here."
        return Finding(facts.source, "readers", "ok", what)
    return Finding(
        facts.source,
        "readers",
        "warn",
        "Whether functions read the stream is unknown: lambda:ListEventSourceMappings is denied. A "
        "shard has room for two readers.",
        "Look for triggers of the stream in the console, or allow the action.",
    )


def _recovery(facts: SourceFacts) -> Iterator[Finding]:
    if facts.recovery is None:
        if "dynamodb:DescribeContinuousBackups" in facts.failures:
            what = "Whether point-in-time recovery is on is unknown: the action is denied."
            yield Finding(
                facts.source,
                "recovery",
                "warn",
                what,
                "Allow dynamodb:DescribeContinuousBackups; nothing but this line needs it.",
            )
    elif facts.recovery:
        what = "Point-in-time recovery is on: exports can repair a gap, deletes included."
        yield Finding(facts.source, "recovery", "ok", what)
    else:
        what = "Point-in-time recovery is off: a gap can be repaired by a scan only."
        hint = "Turn it on if the changes between two states matter (history, append)."
        yield Finding(facts.source, "recovery", "warn", what, hint)


def _clock(facts: SourceFacts) -> Iterator[Finding]:
    ahead = facts.clock_seconds
    if ahead is None:
        return
    where = "ahead of" if ahead > 0 else "behind"
    what = f"This machine's clock is {abs(ahead):.0f} s {where} the service's."
    hint = "Set the clock by NTP: lag is measured with it, and AWS refuses requests 5 minutes off."
    if abs(ahead) >= SKEW_FAIL_SECONDS:
        yield Finding(facts.source, "clock", "fail", what, hint)
    elif abs(ahead) >= SKEW_WARN_SECONDS:
        yield Finding(facts.source, "clock", "warn", what, hint)
    else:
        yield Finding(facts.source, "clock", "ok", what)
