"""Argument checks: each returns the checked value or raises a `DefinitionError`."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from datazone_dagster.errors import DefinitionError
from datazone_dagster.model.key_bucket import SLOTS, is_bucket_count

T = TypeVar("T")

SUPPORTED: Mapping[str, tuple[str, ...]] = {
    "mode": ("merge", "append", "history"),
    "deletes": ("hard", "soft"),
    "ttl_deletes": ("apply", "ignore"),
    "on_violation": ("warn", "fail", "quarantine"),
    "on_gap": ("stop", "resync"),
    "drain": ("tick", "runs"),
    "start": ("snapshot", "trim_horizon", "latest"),
    "on_error": ("fail", "quarantine"),
    "on_mismatch": ("null", "quarantine", "fail"),
}
"""Supported values by argument. A value becomes available by an entry here, nowhere else."""

_TAG_KEY = re.compile(r"([A-Za-z0-9_.-]{1,63}/)?[A-Za-z0-9_.-]{1,63}")
_TAG_VALUE = re.compile(r"[A-Za-z0-9_.-]{0,63}")
_NAME = re.compile(r"[A-Za-z0-9_]+")
_GROUP = re.compile(r"[A-Za-z0-9_]+(/[A-Za-z0-9_]+)*")
_KEY_PART = re.compile(r"[A-Za-z0-9_-]+")
_OWNER = re.compile(r"team:.+|[^@\s]+@[^@\s]+\.[^@\s]+")


def choice(where: str, argument: str, value: object) -> str:
    """Check that a value is supported for an argument."""
    supported = SUPPORTED[argument]
    if isinstance(value, str) and value in supported:
        return value
    raise DefinitionError(
        f"{where}: {argument}={value!r} is unknown.",
        hint=f"{argument} is one of {quoted(supported)}.",
    )


def deletion_vectors(where: str, value: object) -> object:
    """Check for `"auto"`, True or False."""
    if value == "auto" or isinstance(value, bool):
        return value
    raise DefinitionError(
        f"{where}: deletion_vectors={value!r} is unknown.",
        hint="deletion_vectors is one of 'auto', True, False.",
    )


def key_prefix(where: str, value: object) -> tuple[str, ...]:
    """Check the first parts of asset keys: None, a name, or a list of names."""
    parts = (value,) if isinstance(value, str) else () if value is None else value
    if isinstance(parts, (list, tuple)) and all(
        isinstance(one, str) and _KEY_PART.fullmatch(one) for one in parts
    ):
        return tuple(parts)
    raise DefinitionError(
        f"{where}: key_prefix={value!r} is not a name, nor a list of names.",
        hint="A name is made of letters, digits, '_' and '-': key_prefix=[\"team\", \"raw\"].",
    )


def buckets(where: str, value: object) -> int:
    """Check for a number of buckets."""
    if not isinstance(value, int) or isinstance(value, bool) or not is_bucket_count(value):
        raise DefinitionError(
            f"{where}: buckets={value!r} is not a number of buckets.",
            hint=f"Give a power of two up to {SLOTS}, such as 16; 1 means none.",
        )
    return value


def instance(where: str, argument: str, value: object, kind: type[T], example: str) -> T:
    """Check that a value has a type; `example` is the argument as it should be written."""
    if not isinstance(value, kind):
        raise DefinitionError(
            f"{where}: {argument} is {described(value)}, not {_one(kind.__name__)}.",
            hint=f"Write {example}.",
        )
    return value


def optional_text(where: str, argument: str, value: object) -> str | None:
    """Check for a string that is not blank, or None."""
    if value is None or (isinstance(value, str) and value.strip()):
        return value
    raise DefinitionError(
        f"{where}: {argument}={value!r} is not a non-empty string.",
        hint="Give a string, or leave it out.",
    )


def positive_number(where: str, argument: str, value: object) -> float | None:
    """Check for a finite number above 0, or None."""
    if value is None:
        return None
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf:
        return float(value)
    raise DefinitionError(
        f"{where}: {argument}={value!r} is not a number above 0.",
        hint="Give a number above 0, or leave it out.",
    )


def flag(where: str, argument: str, value: object) -> bool:
    """Check for True or False; other truthy and falsy values are refused."""
    if isinstance(value, bool):
        return value
    raise DefinitionError(
        f"{where}: {argument}={value!r} is not a bool.", hint="Give True or False."
    )


def texts(where: str, argument: str, value: object) -> tuple[str, ...]:
    """Return a tuple of distinct, non-empty strings; a single string counts as one of them."""
    items: tuple[object, ...] = ()
    if isinstance(value, str):
        items = (value,)
    elif isinstance(value, set | frozenset):
        items = tuple(sorted(value, key=str))
    elif isinstance(value, Sequence) and not isinstance(value, bytes):
        items = tuple(value)
    found = tuple(item for item in items if isinstance(item, str) and item)
    if len(found) != len(items) or not isinstance(value, set | frozenset | Sequence):
        raise DefinitionError(
            f"{where}: {argument}={value!r} is not a sequence of strings.",
            hint="Give a string or a sequence of non-empty strings.",
        )
    if len(set(found)) != len(found):
        raise DefinitionError(
            f"{where}: {argument}={value!r} has a value twice.", hint="Give each value once."
        )
    return found


def tags(where: str, value: object) -> tuple[str, ...]:
    """Return tags as `key` or `key=value`, checked by Dagster's rules for keys and values."""
    if isinstance(value, Mapping):
        value = tuple(f"{key}={text}" if text else f"{key}" for key, text in value.items())
    found = texts(where, "tags", value)
    for tag in found:
        key, _, text = tag.partition("=")
        if not (_TAG_KEY.fullmatch(key) and _TAG_VALUE.fullmatch(text)):
            raise DefinitionError(
                f"{where}: tags: {tag!r} is not a tag.",
                hint="A tag is a key or key=value; key and value are at most 63 letters, digits, "
                "'_', '-' and '.'.",
            )
    keys = [tag.partition("=")[0] for tag in found]
    if len(set(keys)) != len(keys):
        raise DefinitionError(
            f"{where}: tags={value!r} has a key twice.", hint="Give each key one value."
        )
    return found


def run_tags(where: str, value: object) -> dict[str, str]:
    """Return tags of runs: a mapping of texts, whose values may be JSON for a launcher."""
    if value is None:
        return {}
    if isinstance(value, Mapping) and all(
        isinstance(key, str) and key and isinstance(text, str) for key, text in value.items()
    ):
        return dict(value)
    raise DefinitionError(
        f"{where}: run_tags={value!r} is not a mapping from tag to value, both strings.",
        hint='Write run_tags={"ecs/cpu": "1024"}; a value that is JSON is a string, too.',
    )


def owners(where: str, value: object) -> tuple[str, ...]:
    """Return owners: e-mail addresses or `team:<name>`."""
    found = texts(where, "owners", value)
    for owner in found:
        if not _OWNER.fullmatch(owner):
            raise DefinitionError(
                f"{where}: owners: {owner!r} is not an owner.",
                hint="An owner is an e-mail address or 'team:<name>'.",
            )
    return found


def kinds(where: str, value: object) -> tuple[str, ...]:
    """Return the asset's kinds, shown as icons; Dagster allows at most ten."""
    found = texts(where, "kinds", value)
    if len(found) > 10:
        raise DefinitionError(
            f"{where}: kinds has {len(found)} values.", hint="Dagster allows at most ten kinds."
        )
    for kind in found:
        if not _TAG_VALUE.fullmatch(kind):
            raise DefinitionError(
                f"{where}: kinds: {kind!r} is not a kind.",
                hint="A kind is at most 63 letters, digits, '_', '-' and '.'.",
            )
    return found


def dagster_name(where: str, argument: str, value: object) -> str:
    """Check a name by Dagster's rule for ops and jobs: letters, digits and `_`."""
    if isinstance(value, str) and _NAME.fullmatch(value):
        return value
    raise DefinitionError(
        f"{where}: {argument}={value!r} can't be a name in Dagster.",
        hint=f"Use only letters, digits and '_' in {argument}=.",
    )


def group_name(where: str, value: object) -> str | None:
    """Check the name of a group of assets; None is the default group."""
    if value is None or (isinstance(value, str) and _GROUP.fullmatch(value)):
        return value
    raise DefinitionError(
        f"{where}: group_name={value!r} is not a group name.",
        hint="Use only letters, digits and '_', with '/' between levels.",
    )


def quoted(values: Iterable[str]) -> str:
    """Return the values as a list for an error text."""
    return ", ".join(repr(value) for value in values)


def described(value: object) -> str:
    """Return the kind of a value for an error text: `a list`, `the class Dataset`."""
    return f"the class {value.__name__}" if isinstance(value, type) else _one(type(value).__name__)


def _one(name: str) -> str:
    return f"{'an' if name[0] in 'AEIOaeio' else 'a'} {name}"


def unsupported(where: str, column: str, what: object, hint: str) -> DefinitionError:
    """Return the error for a declared type that Delta does not support."""
    return DefinitionError(
        f"{where}: schema: column {column!r} is {what}, which Delta does not support.", hint=hint
    )
