"""Makes docs/command-line.md of the commands themselves: `make command-page`.

Options come from click, members of the JSON from the schemas.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from typing import Any

import click

from datazone_dagster.cli import COMMANDS, main
from datazone_dagster.commands.json_schemas import ERROR, EXIT_CODES, REPEATED, SCHEMAS

INTRODUCTION = """\
# The command line

Made by `make command-page` from the commands. `datazone-dagster COMMAND --help` and
`--json-schema` show the same. `python -m datazone_dagster COMMAND` works too, where the script
is not on the PATH.

Commands that take `-f` load your `definitions.py`, as Dagster does, and work on the lakehouse that
it names. All of them are safe while Dagster runs.

## Completion

```text
echo 'eval "$(datazone-dagster completion bash)"' >> ~/.bashrc
echo 'eval "$(datazone-dagster completion zsh)"' >> ~/.zshrc
datazone-dagster completion fish > ~/.config/fish/completions/datazone-dagster.fish
```

## JSON

Every command takes `--json`, asks nothing, and prints one object on one line of standard output.
Commands that ask before they change something print their plan, and do it with `--yes`. Notes for
people are on standard error. `--json-schema` prints the JSON Schema, without loading a project.

Members are always there unless the tables below say *optional*. Times are ISO 8601 with their
offset. A later version may add members.

A command that fails prints this object, with the exit code that it has without `--json`:

{error}

## Exit codes

0 is success, 1 a failure with a text that says what to do, 2 a wrong option. Commands with other
codes list them.
"""


def page() -> str:
    """Return the text of the page."""
    parts = [INTRODUCTION.format(error=table(ERROR))]
    parts += [section(name) for name in sorted(COMMANDS)]
    return "\n".join(parts)


def section(name: str) -> str:
    context = click.Context(main, info_name="datazone-dagster")
    command = main.get_command(context, name)
    assert command is not None
    child = click.Context(command, info_name=name, parent=context)
    usage = " ".join((child.command_path, *command.collect_usage_pieces(child)))
    lines = [f"## {name}", "", f"    {usage}", "", prose(command), ""]
    lines += ["| option | meaning |", "|---|---|"]
    lines += [f"| {option} | {text} |" for option, text in options(command, child)]
    codes = EXIT_CODES.get(name)
    if codes is not None:
        told = "; ".join(f"{code} {text}" for code, text in codes.items())
        lines += ["", f"Exit codes: {told}."]
    lines += [
        "",
        f"JSON: {REPEATED.get(name, SCHEMAS[name]['description'])}",
        "",
        table(SCHEMAS[name]),
    ]
    return "\n".join(lines) + "\n"


def prose(command: click.Command) -> str:
    """The help text, one paragraph a line; blocks that click keeps as they are become code."""
    paragraphs = []
    for block in inspect.cleandoc(command.help or "").split("\n\n"):
        if block.startswith("\b\n"):
            paragraphs.append("```text\n" + block.removeprefix("\b\n") + "\n```")
        else:
            paragraphs.append(escape(" ".join(block.split())))
    return "\n\n".join(paragraphs)


def options(command: click.Command, context: click.Context) -> Iterator[tuple[str, str]]:
    for parameter in command.params:
        shown = parameter.get_help_record(context)
        if shown is None or not shown[1] or parameter.name in ("as_json", "json_schema"):
            continue  # arguments are in the usage, and these two are described once
        yield f"`{shown[0]}`", escape(" ".join(shown[1].split()))


def table(schema: dict[str, Any]) -> str:
    rows = [f"| `{path}` | {kind} | {text} |" for path, kind, text in members(schema)]
    return "\n".join(["| member | type | meaning |", "|---|---|---|", *rows])


def members(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, str, str]]:
    """Yield path, type and meaning of each member, depth first."""
    for name, member in schema.get("properties", {}).items():
        inside = f"{path}{name}"
        optional = "" if name in schema["required"] else ", optional"
        yield inside, kind_of(member) + optional, meaning(member)
        if "items" in member:
            yield from members(member["items"], f"{inside}[].")
        yield from members(member, f"{inside}.")


def kind_of(schema: dict[str, Any]) -> str:
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    names = {"string": "time" if schema.get("format") == "date-time" else "text"}
    told = [str(names.get(kind, kind)) for kind in kinds]
    if "array" in kinds:
        told[0] = f"list of {kind_of(schema['items'])}"
    values = schema.get("additionalProperties")
    if values:  # an empty schema, of any value, is not told
        told[0] = f"object of {kind_of(values)} by name"
    return " or ".join(told)


def meaning(schema: dict[str, Any]) -> str:
    allowed = [f"`{one}`" for one in schema.get("enum", ()) if one is not None]
    return escape(schema["description"]) + (f" {', '.join(allowed)}" if allowed else "")


def escape(text: str) -> str:
    """Keep what Markdown would read as HTML, emphasis or a cell of a table."""
    return re.sub(r"([|<*])", r"\\\1", re.sub(r"(\w)_(\w)", r"\1\\_\2", text))


if __name__ == "__main__":
    sys.stdout.write(page())
