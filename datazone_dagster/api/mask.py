"""Masks: attributes of a source's items that are made unreadable before anything is written."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal, cast, get_args

from datazone_dagster.api import checked
from datazone_dagster.errors import DefinitionError

MaskKind = Literal["hash", "null", "drop", "last4"]
MASK_KINDS: tuple[str, ...] = get_args(MaskKind)

SALT_VARIABLE = "DATAZONE_MASK_SALT"
"""Environment variable with the salt: the secret key of all hashes."""

HIDDEN = "****"
SHOWN_CHARACTERS = 4
"""What `"last4"` makes: this, and so many characters of the end of a long text."""

Masked = tuple[tuple[str, MaskKind], ...]

Tree = dict[str, "MaskKind | Tree"]
"""Masks below an attribute, by attribute name."""

_STEP = re.compile(r'"((?:[^"]|"")+)"|([^".]+)')


def mask_steps(path: str) -> tuple[str, ...]:
    """Split a path such as `address.street` or `"odd.name".street` into attribute names.

    A name with a dot or a double quote in it is written in double quotes. A double quote inside
    a quoted name is doubled.

    Raises:
        ValueError: The text is not a path.
    """
    steps: list[str] = []
    at = 0
    while True:
        found = _STEP.match(path, at)
        if found is None:
            raise ValueError("not a path")
        steps.append(found[2] if found[1] is None else found[1].replace('""', '"'))
        at = found.end()
        if at == len(path):
            return tuple(steps)
        if path[at] != ".":
            raise ValueError("not a path")
        at += 1


def mask_tree(mask: Masked) -> Tree:
    """Return the kinds of mask below each attribute name."""
    tree: Tree = {}
    for path, kind in mask:
        *outer, last = mask_steps(path)
        branch = tree
        for step in outer:
            branch = cast("Tree", branch.setdefault(step, {}))
        branch[last] = kind
    return tree


def checked_mask(where: str, mask: object) -> Masked:
    """Return the mask as pairs of path and kind.

    Raises:
        DefinitionError: A path or a kind is invalid, or one path is inside another one.
    """
    if isinstance(mask, Mapping):
        pairs: tuple[Any, ...] = tuple(mask.items())
    elif isinstance(mask, tuple):
        pairs = mask
    else:
        raise DefinitionError(
            f"{where}: mask={mask!r} is not a mapping.",
            hint='Write mask={"email": "hash", "address.street": "drop"}.',
        )
    found: dict[tuple[str, ...], str] = {}
    for path, kind in pairs:
        if kind not in MASK_KINDS:
            raise DefinitionError(
                f"{where}: mask[{path!r}]={kind!r} is unknown.",
                hint=f"A kind is one of {checked.quoted(MASK_KINDS)}.",
            )
        try:
            steps = mask_steps(path) if isinstance(path, str) else ()
        except ValueError:
            steps = ()
        if not steps:
            raise DefinitionError(
                f"{where}: mask has the invalid path {path!r}.",
                hint="A path is attribute names joined by dots; put a name that contains a dot "
                "in double quotes: '\"a.b\".street'.",
            )
        for other in found:
            shorter = min(len(steps), len(other))
            if steps[:shorter] == other[:shorter]:
                raise DefinitionError(
                    f"{where}: mask names {path!r} and {'.'.join(other)!r}, which are the same "
                    "or one inside the other.",
                    hint="Mask the outer attribute, or name its inner attributes one by one.",
                )
        found[steps] = kind
    return tuple((path, kind) for path, kind in pairs)
