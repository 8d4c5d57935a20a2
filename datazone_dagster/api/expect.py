"""Expectations: conditions on the rows of a dataset, and what happens to rows that violate them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from datazone_dagster.api import checked
from datazone_dagster.api.calls import explained_class
from datazone_dagster.errors import DefinitionError

OnViolation = Literal["warn", "fail", "quarantine"]

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")


@explained_class('Expect("total >= 0", on_violation="fail")')
@dataclass(frozen=True, slots=True)
class Expect:
    """A condition on each row of a dataset, and what a violation does.

    Args:
        predicate: SQL condition over the columns of one row, such as `"total >= 0"`. As with a
            CHECK of SQL, a row for which it is null does not violate it. A row that has a value
            that it can't take (a cast fails) does.
        on_violation: `"warn"` writes the rows, and the check warns. `"fail"` fails the run before
            anything of the chunk is written. `"quarantine"` writes the other rows and puts the
            changes of these into the quarantine.

    Raises:
        DefinitionError: An argument is invalid; the message names it and its allowed values.
    """

    predicate: str
    on_violation: OnViolation = "warn"

    def __post_init__(self) -> None:
        """Check the arguments."""
        checked.instance("Expect", "predicate", self.predicate, str, 'Expect("total >= 0")')
        checked.optional_text("Expect", "predicate", self.predicate)
        checked.choice("Expect", "on_violation", self.on_violation)


Expectations = tuple[tuple[str, Expect], ...]


def checked_expectations(where: str, expect: object) -> Expectations:
    """Return the expectations as pairs of name and condition; a string is one that warns.

    Raises:
        DefinitionError: A name or a condition is invalid.
    """
    if isinstance(expect, Mapping):
        pairs: tuple[Any, ...] = tuple(expect.items())
    elif isinstance(expect, tuple):
        pairs = expect
    else:
        raise DefinitionError(
            f"{where}: expect={expect!r} is not a mapping.",
            hint='Write expect={"positive": "total >= 0"}.',
        )
    found: dict[str, Expect] = {}
    for name, condition in pairs:
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise DefinitionError(
                f"{where}: expect has the name {name!r}, which is not the name of a check.",
                hint="Use letters, digits and '_', a letter first, at most 64.",
            )
        is_text = isinstance(condition, str) and condition.strip()
        found[name] = checked.instance(
            where,
            f"expect[{name!r}]",
            Expect(condition) if is_text else condition,
            Expect,
            f"expect={{{name!r}: 'total >= 0'}}, or Expect('total >= 0', on_violation='fail')",
        )
    return tuple(found.items())
