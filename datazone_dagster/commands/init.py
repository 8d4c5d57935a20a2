"""`datazone-dagster init`: a project from nothing that runs at once."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from importlib import metadata
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from string import Template

import click

from datazone_dagster.api import DynamoDBSource
from datazone_dagster.commands.output import json_option, say, say_json
from datazone_dagster.dagster_glue.instance_config import dagster_yaml
from datazone_dagster.errors import DefinitionError

PACKAGE = "datazone-dagster"
EMULATOR = "datazone-dagster emulator --orders 5 --data-dir .datazone/dynamodb"


@click.command(short_help="Create a project that runs at once.")
@click.argument("directory", default=".", type=click.Path(file_okay=False, path_type=Path))
@click.option("--table", help="DynamoDB table.  [default: orders of a local DynamoDB]")
@click.option("--region", help="AWS region of the table.")
@json_option
def init(directory: Path, table: str | None, region: str | None, as_json: bool) -> None:
    """Create a project in DIRECTORY: definitions, a test, settings of Dagster, a README.

    Without --table it reads live orders from a local DynamoDB, so it needs no AWS account. With
    --table it has every item of that table as a row; the columns are the attributes of the items.
    Asks no service, and overwrites no file: one that exists stays as it is, and is named.
    """
    if region is not None and table is None:
        raise DefinitionError("--region is given without --table.", hint="Give both, or neither.")
    folder = directory.absolute()
    definitions = folder / "definitions.py"
    if definitions.exists():
        raise DefinitionError(
            f"{definitions} exists, so there is a project already.",
            safe="Nothing was written.",
            hint="Name another directory.",
        )
    source = None if table is None else DynamoDBSource(table, region=region)
    wanted = project_files(folder.name, source, installed_requirement())
    kept = [name for name, text in wanted.items() if not _written(folder / name, text)]
    commands = _next_commands(directory, source)
    if as_json:
        created = [name for name in wanted if name not in kept]
        found = {"directory": str(folder), "created": created, "kept": kept}
        say_json({**found, "next": commands})
        return
    say(f"Created {len(wanted) - len(kept)} files in {folder}.")
    for name in kept:
        say(f"  {name} existed and stays as it is.")
    if "pyproject.toml" in kept:
        say("  So name the definitions yourself: dagster dev -f definitions.py")
    say("Next:")
    for command in commands:
        say(f"  {command}")


def project_files(name: str, source: DynamoDBSource | None, requirement: str) -> dict[str, str]:
    """Return the text of each file of a new project, by its path.

    Args:
        name: Name of the project's folder.
        source: Table to read; None: `orders` of a local DynamoDB.
        requirement: Requirement on this package, for pyproject.toml.
    """
    kind = "local" if source is None else "table"
    words = {"project": _project_name(name), "requirement": requirement}
    if source is not None:
        region = "" if source.region is None else f", region={json.dumps(source.region)}"
        words |= {
            "table": source.table_name,
            "source": json.dumps(source.table_name) + region,
            "source_name": source.name,
            "dataset": f"current_{re.sub(r'[^0-9A-Za-z_]', '_', source.name)}",
        }
    return {
        "definitions.py": _filled(f"definitions_{kind}.py", words),
        "tests/test_transforms.py": _filled(f"test_{kind}.py", words),
        "pyproject.toml": _filled("pyproject.toml", words),
        "dagster.yaml": dagster_yaml(),
        ".gitignore": _filled("gitignore", words),
        "README.md": _filled(f"README_{kind}.md", words),
        "AGENTS.md": _filled("AGENTS.md", words),
    }


def installed_requirement() -> str:
    """Return a requirement that installs this package again, from where it was installed.

    A package that did not come from an index records its location (PEP 610).
    """
    installed = metadata.distribution(PACKAGE)
    recorded = json.loads(installed.read_text("direct_url.json") or "{}")
    if not recorded:
        return f"{PACKAGE}[webserver]>={installed.version}"
    url, vcs = recorded["url"], recorded.get("vcs_info")
    location = f"{vcs['vcs']}+{url}@{vcs['commit_id']}" if vcs else url
    return f"{PACKAGE}[webserver] @ {location}"


def webserver_requirement() -> str:
    """Return the requirement on Dagster's UI that fits the installed Dagster.

    The packages of Dagster pin one another exactly, so the newest one may not fit.
    """
    return f"dagster-webserver=={metadata.version('dagster')}"


def _filled(template: str, words: Mapping[str, str]) -> str:
    text = files("datazone_dagster.commands") / "new_project" / f"{template}.txt"
    return Template(text.read_text("utf-8")).substitute(words)


def _project_name(folder: str) -> str:
    name = re.sub(r"[^a-z0-9]+", "-", folder.lower()).strip("-") or "project"
    # A project that is named like a package that it needs could not be installed.
    return f"{name}-project" if find_spec(name.replace("-", "_")) else name


def _written(path: Path, text: str) -> bool:
    """Write a new file; return False if there is one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        return False
    return True


def _next_commands(directory: Path, source: DynamoDBSource | None) -> list[str]:
    commands = [] if directory == Path() else [f"cd {directory}"]
    if find_spec("dagster_webserver") is None:
        commands.append(f"pip install {webserver_requirement()}")
    if source is None:
        commands.append(f"{EMULATOR}    # then, in a second terminal:")
    return [*commands, "dagster dev    # http://127.0.0.1:3000"]
