"""`datazone-dagster doctor`: is everything there that a project needs."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import click
import msgspec

from datazone_dagster.commands.output import json_option, say, say_json
from datazone_dagster.commands.project import Project, project_options
from datazone_dagster.model.finding import Finding
from datazone_dagster.observe.setup_diagnosis import dagster_findings, version_findings
from datazone_dagster.pipeline import probe_lakehouse, probe_source

PACKAGE = "datazone-dagster"
NAMES = ("dagster.yaml", "dagster.yml")
FAILED = 1


@click.command(short_help="Check credentials, IAM actions, streams, lakehouse and Dagster.")
@json_option
@project_options
def doctor(project: Project, as_json: bool) -> None:
    """Look for what is missing or wrong: every line is ok, warn or fail, and says what to do.

    Of each source: who you are, each IAM action by a call as small as it can be, the stream's view
    type, other readers, point-in-time recovery, whether DynamoDB Streams can be reached, the clock.
    Then the lakehouse, the versions of libraries, and dagster.yaml. Changes nothing; in an object
    store it creates the marker file _conditional_writes, as every process does that writes there.

    Exit code 0: no line is fail. 1: one is.
    """
    found: list[Finding] = []
    for one in findings(project):
        found.append(one)
        if not as_json:
            _show(one)
    failed = sum(one.outcome == "fail" for one in found)
    warned = sum(one.outcome == "warn" for one in found)
    if as_json:
        lines = [asdict(one) for one in found]
        say_json({"failed": failed, "warned": warned, "findings": lines})
    else:
        say(f"{len(found)} checks: {failed} fail, {warned} warn.")
    if failed:
        sys.exit(FAILED)


def findings(project: Project) -> Iterator[Finding]:
    """Yield all findings, each as soon as it is there."""
    for source in project.sources.values():
        yield from probe_source(source, project.connection_settings(source))
    yield from probe_lakehouse(project.layout)
    needed = metadata.requires(PACKAGE) or []
    yield from version_findings(needed, _installed(needed))
    home = os.environ.get("DAGSTER_HOME")
    yield from dagster_findings(home, *_dagster_yaml(Path(home) if home else Path.cwd()))


def _installed(requirements: list[str]) -> dict[str, str]:
    names = {found[0] for one in requirements if (found := re.match(r"[\w.-]+", one))}
    there = {}
    for name in names:
        try:
            there[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return there


def _dagster_yaml(folder: Path) -> tuple[str | None, dict[str, Any] | None]:
    """Return the path of the settings, and what they say; None where there is no such thing."""
    path = next((folder / name for name in NAMES if (folder / name).is_file()), None)
    if path is None:
        return None, None
    try:
        config = msgspec.yaml.decode(path.read_bytes())
    except (msgspec.DecodeError, OSError):
        return str(path), None
    return str(path), config if isinstance(config, dict) else {}


def _show(finding: Finding) -> None:
    style = {"ok": "green", "warn": "yellow", "fail": "red"}[finding.outcome]
    head = click.style(f"{finding.outcome:4}", fg=style)
    click.echo(f"{head}  ", nl=False)
    say(f"{finding.subject} {finding.check}: {finding.what}")
    if finding.hint:
        say(f"      {finding.hint}")
