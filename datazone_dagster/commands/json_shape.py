"""Words to describe what a command prints with `--json`: JSON Schema, written as it is read.

Every member of a record is required unless it is `optional`, and no other member is allowed.
"""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]

_OPTIONAL = "x-optional"


def text(description: str, *allowed: str) -> Schema:
    """Return the schema of a text, which is one of `allowed` if any are given."""
    return {
        "type": "string",
        "description": description,
        **({"enum": list(allowed)} if allowed else {}),
    }


def count(description: str) -> Schema:
    """Return the schema of an integer of 0 or more."""
    return {"type": "integer", "minimum": 0, "description": description}


def number(description: str) -> Schema:
    """Return the schema of a number of 0 or more."""
    return {"type": "number", "minimum": 0, "description": description}


def flag(description: str) -> Schema:
    """Return the schema of true and false."""
    return {"type": "boolean", "description": description}


def time(description: str) -> Schema:
    """Return the schema of a time: ISO 8601 with its offset."""
    return {"type": "string", "format": "date-time", "description": description}


def listed(items: Schema, description: str) -> Schema:
    """Return the schema of a list."""
    return {"type": "array", "items": items, "description": description}


def mapped(values: Schema, description: str) -> Schema:
    """Return the schema of an object whose names are data."""
    return {"type": "object", "additionalProperties": values, "description": description}


def record(description: str, **members: Schema) -> Schema:
    """Return the schema of an object with these members and no others."""
    return {
        "type": "object",
        "description": description,
        "properties": {
            name: {key: value for key, value in member.items() if key != _OPTIONAL}
            for name, member in members.items()
        },
        "required": [name for name, member in members.items() if _OPTIONAL not in member],
        "additionalProperties": False,
    }


def optional(schema: Schema) -> Schema:
    """Return the schema of a member that may be absent."""
    return {**schema, _OPTIONAL: True}


def nullable(schema: Schema) -> Schema:
    """Return the schema of a value that may be null."""
    changed = {**schema, "type": [schema["type"], "null"]}
    return {**changed, "enum": [*schema["enum"], None]} if "enum" in schema else changed
