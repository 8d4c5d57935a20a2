"""What versions of libraries and the settings of a Dagster instance mean for a project."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from datazone_dagster.model.finding import Finding

_REQUIREMENT = re.compile(r"([A-Za-z0-9_.-]+)(?:\[[^]]*\])?\s*([^;]*)(;.*)?")
_BOUND = re.compile(r"(>=|<)\s*([0-9.]+)")

_SETTINGS: Sequence[tuple[str, str, object, str]] = (
    (
        "sensor_threads",
        "sensors.use_threads",
        True,
        "sensors run one after the other, and a slow stream delays all others",
    ),
    (
        "run_queue",
        "run_coordinator.config.dequeue_interval_seconds",
        1,
        "a run starts up to 5 seconds later",
    ),
    (
        "pools",
        "concurrency.pools.granularity",
        "run",
        "a run whose pool another one has starts all the same, and waits in a place of another run",
    ),
    (
        "run_monitoring",
        "run_monitoring.enabled",
        True,
        "a run that does not start holds its place for good",
    ),
    (
        "tick_retention",
        "retention.sensor.purge_after_days",
        None,
        "ticks of sensors, 17,000 a day, are stored for good",
    ),
)
"""Check, path in dagster.yaml, wanted value (None: any), and what happens without it."""

_SHIPPED = (
    'Take it from the shipped one: python -c "import datazone_dagster; '
    'print(datazone_dagster.dagster_yaml())".'
)


def version_findings(
    requirements: Sequence[str], installed: Mapping[str, str]
) -> Iterator[Finding]:
    """Yield one finding for each required library without its right version, or one if all fit.

    Args:
        requirements: Requirements of this package, such as `dagster>=1.13,<1.14`; extras are left
            out.
        installed: Versions by name of library.
    """
    wrong = 0
    fitting = []
    for text in requirements:
        found = _REQUIREMENT.fullmatch(text.strip())
        if found is None or "extra" in (found[3] or ""):
            continue
        name, bounds = found[1], found[2].strip()
        version = installed.get(name)
        if version is None or not _is_within(version, bounds):
            wrong += 1
            what = f"{name} is {version or 'not installed'}; {name} {bounds} is needed."
            yield Finding("versions", name, "fail", what, f"pip install '{name}{bounds}'")
        else:
            fitting.append(f"{name} {version}")
    dagster, aws = installed.get("dagster", ""), installed.get("dagster-aws", "")
    if dagster and aws and _numbers(dagster)[2:3] != _numbers(aws)[2:3]:
        wrong += 1
        what = f"dagster {dagster} and dagster-aws {aws} were not released together."
        yield Finding("versions", "dagster", "warn", what, "Upgrade both at once.")
    if not wrong:
        yield Finding("versions", "libraries", "ok", f"All fit: {', '.join(fitting)}.")


def dagster_findings(
    home: str | None, path: str | None, config: Mapping[str, Any] | None
) -> Iterator[Finding]:
    """Yield the findings about the instance of Dagster.

    Args:
        home: Value of DAGSTER_HOME; None if it is not set.
        path: The dagster.yaml that counts; None if there is none.
        config: Its content; None if it can't be read as YAML.
    """
    if home is None:
        yield Finding(
            "dagster",
            "home",
            "warn",
            "DAGSTER_HOME is not set: runs are forgotten when `dagster dev` ends, and commands "
            "can't report to Dagster. Tables and positions are in the lakehouse, and stay.",
            'export DAGSTER_HOME="$PWD", in the folder of dagster.yaml.',
        )
    else:
        yield Finding("dagster", "home", "ok", f"DAGSTER_HOME is {home}.")
    if path is None:
        what = "There is no dagster.yaml: Dagster runs with its defaults."
        yield Finding("dagster", "dagster_yaml", "warn", what, _SHIPPED)
        return
    if config is None:
        what = f"{path} is not YAML: Dagster does not start with it."
        yield Finding("dagster", "dagster_yaml", "fail", what, _SHIPPED)
        return
    yield Finding("dagster", "dagster_yaml", "ok", f"The settings are in {path}.")
    for check, setting, wanted, without in _SETTINGS:
        value = _at(config, setting)
        if value is None or (wanted is not None and value != wanted):
            shown = "not set" if value is None else f"{value!r}"
            what = f"{setting} is {shown}: {without}."
            yield Finding("dagster", check, "warn", what, _SHIPPED)
        else:
            yield Finding("dagster", check, "ok", f"{setting} is set.")


def _at(config: Mapping[str, Any], setting: str) -> object:
    found: object = config
    for step in setting.split("."):
        found = found.get(step) if isinstance(found, Mapping) else None
    return found


def _is_within(version: str, bounds: str) -> bool:
    have = _numbers(version)
    for operator, bound in _BOUND.findall(bounds):
        limit = _numbers(bound)
        if operator == ">=" and have < limit:
            return False
        if operator == "<" and have >= limit:
            return False
    return True


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version.split("+", maxsplit=1)[0])[:3])
