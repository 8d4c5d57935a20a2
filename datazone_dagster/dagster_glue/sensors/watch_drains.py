"""The sensor `watch_drains`: tells when a drain sensor is stopped, fails or does not tick.

The checks of a stream and its datasets come from its drain sensor. If that one is stopped, they
would stay as they were last. So a second sensor looks at Dagster's records of the first one, and
evaluates `drain`, `lag` and `headroom` in its place.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from typing import Any

from dagster import (
    AssetCheckEvaluation,
    AssetCheckKey,
    DagsterInstance,
    SensorDefinition,
    SensorEvaluationContext,
    SensorResult,
    SkipReason,
)

from datazone_dagster.api import DynamoDBSource, Transform
from datazone_dagster.api.kinesis_source import known_retention
from datazone_dagster.dagster_glue.asset_keys import AssetKeys
from datazone_dagster.dagster_glue.checks.rendering import evaluation
from datazone_dagster.dagster_glue.names import (
    DRAIN_CHECK,
    HEADROOM_CHECK,
    LAKEHOUSE_KEY,
    WATCH_SENSOR,
    sensor_name,
)
from datazone_dagster.dagster_glue.options import RunOptions
from datazone_dagster.dagster_glue.resources import Lakehouse
from datazone_dagster.dagster_glue.sensors.freshness import known_caught_up_at
from datazone_dagster.dagster_glue.sensors.sensor_checks import lag_checks
from datazone_dagster.dagster_glue.shared import Group, Member, shared
from datazone_dagster.dagster_glue.ui_links import sensor_link
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.protocols import Clock
from datazone_dagster.observe.drain_watch import (
    DrainStatus,
    SensorFacts,
    drain_status,
    drain_status_metadata,
)
from datazone_dagster.observe.headroom import headroom_metadata, headroom_status
from datazone_dagster.observe.health import StreamHealth
from datazone_dagster.observe.level import Level

INTERVAL_SECONDS = 120
"""Each evaluation is a row of 1.2 KB in Dagster's storage, also on an idle day."""
REPEAT_SECONDS = 300
"""Time after which the evaluations of a drain that does not run are reported again."""

_TICKS = 10


def watch_sensors(
    members: Sequence[Member], lakehouse: Lakehouse, options: RunOptions, clock: Clock
) -> list[SensorDefinition]:
    """Return the sensor that watches the drain sensors; none without a stream."""
    if not any(one.transform.source.stream_enabled for one in members):
        return []

    def arguments(group: Group) -> dict[str, Any]:
        return {
            "name": group.name,
            "evaluation_fn": _Watch(group, clock).evaluate,
            "minimum_interval_seconds": INTERVAL_SECONDS,
            "default_status": options.default_status,
            "required_resource_keys": {LAKEHOUSE_KEY},
            "description": "Evaluates the check drain of each change log: its sensor is switched "
            "on, ticks and does not fail. While it does not, also lag and headroom.",
        }

    wanted = Group(
        WATCH_SENSOR,
        identical=(lakehouse, clock),
        equal={"default_status": options.default_status},
    )
    return [shared(wanted, members, SensorDefinition, arguments)[0]]


def drain_facts(instance: DagsterInstance, sensor: str, repository: str | None) -> SensorFacts:
    """Return what Dagster's storage says about a drain sensor.

    Args:
        instance: The instance.
        sensor: Name of the sensor.
        repository: Name of its repository; None: any.
    """
    if instance.schedule_storage is None:  # an instance in memory has no sensors
        return SensorFacts()
    found = [
        one
        for one in instance.all_instigator_state()
        if one.instigator_name == sensor
        and one.instigator_type.value == "SENSOR"
        and repository in (None, one.origin.repository_origin.repository_name)
    ]
    facts = SensorFacts()
    for state in found:
        ticks = instance.get_ticks(state.instigator_origin_id, state.selector_id, limit=_TICKS)
        failed = 0
        for tick in ticks:
            if tick.status.value != "FAILURE":
                break
            failed += 1
        last = ticks[0] if ticks else None
        interval = getattr(state.instigator_data, "min_interval", None) or 0
        one = SensorFacts(
            state.status.value != "STOPPED",
            None if last is None else datetime.fromtimestamp(last.timestamp, timezone.utc),
            failed,
            "" if last is None or last.error is None else last.error.message,
            timedelta(seconds=interval),
        )
        # A sensor that was defined elsewhere before has older states.
        if facts.ticked_at is None or (one.ticked_at and one.ticked_at > facts.ticked_at):
            facts = one
    return facts


def drain_evaluation(
    key: AssetCheckKey, status: DrainStatus, link: str | None = None
) -> AssetCheckEvaluation:
    """Return the evaluation of the check `drain` of a source, with a link to its sensor."""
    plain = drain_status_metadata(status)
    return evaluation(key, status.level, status.reason, plain, sensor_link=link)


class _Watch:
    """Evaluates the ticks of the sensor."""

    def __init__(self, group: Group, clock: Clock) -> None:
        self._group = group
        self._clock = clock
        self._since = clock()

    def evaluate(self, context: SensorEvaluationContext) -> SensorResult:
        """Report what changed, and what fails again after a while."""
        layout: Layout = getattr(context.resources, LAKEHOUSE_KEY).layout
        now, members = self._clock(), self._group.members_in(context.repository_def)
        before, after = _told(context.cursor), dict[str, tuple[str, float]]()
        events: list[AssetCheckEvaluation] = []
        failing = 0
        sources = {
            one.transform.source: one.keys for one in members if one.transform.source.stream_enabled
        }
        for source, keys in sources.items():
            facts = drain_facts(context.instance, sensor_name(source), context.repository_name)
            status = drain_status(
                sensor_name(source),
                facts,
                now=now,
                watched_since=self._since,
                retention=known_retention(source),
            )
            key = keys.source_check(source, DRAIN_CHECK)
            found = [drain_evaluation(key, status, sensor_link(context, sensor_name(source)))]
            if not status.level.passed:
                failing += 1
                of_source = [one.transform for one in members if one.transform.source == source]
                found += _in_its_place(source, keys, of_source, layout, context.instance, now)
            for one in found:
                name = f"{one.asset_key.to_user_string()}:{one.check_name}"
                level = Level.OK.value if one.passed else one.severity.value
                told, at = before.get(name, ("", 0.0))
                due = not status.level.passed and now.timestamp() - at >= REPEAT_SECONDS
                if told != level or due:
                    events.append(one)
                    at = now.timestamp()
                after[name] = (level, at)
        summary = f"{len(sources) - failing} of {len(sources)} drains tick."
        return SensorResult(
            skip_reason=SkipReason(summary), cursor=json.dumps(after), asset_events=events
        )


def _in_its_place(
    source: DynamoDBSource,
    keys: AssetKeys,
    transforms: Sequence[Transform],
    layout: Layout,
    instance: DagsterInstance,
    now: datetime,
) -> Iterator[AssetCheckEvaluation]:
    """Yield the checks that grow worse while nobody drains."""
    caught_up_at = known_caught_up_at(instance, source, keys)
    if caught_up_at is None:
        return
    retention = known_retention(source)
    if retention is not None:  # else only a drain knows it
        left = max(0.0, (retention - (now - caught_up_at)).total_seconds())
        headroom = headroom_status(StreamHealth(Level.OK, "", headroom_seconds=left))
        key = keys.source_check(source, HEADROOM_CHECK)
        yield evaluation(key, headroom.level, headroom.reason, headroom_metadata(headroom))
    lags = lag_checks(transforms, keys, layout, None, now=now, caught_up_at=caught_up_at, look=True)
    for check in lags.values():
        yield check.event()


def _told(cursor: str | None) -> Mapping[str, tuple[str, float]]:
    try:
        found = json.loads(cursor or "{}")
        return {name: (str(level), float(at)) for name, (level, at) in found.items()}
    except (AttributeError, TypeError, ValueError):
        return {}
