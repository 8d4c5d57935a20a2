"""The structure of maps and lists, learnt from a sample, so that SQL can read the rest.

What the sample did not show costs time, never a value: SQL accounts for every byte of a
value that it reads, and what it can't account for is read in Python.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

MAX_ROW_GROUPS = 200
"""Parts of one structure; maps whose names are data would make it grow without end."""

MAX_DEPTH = 8

_SCALARS = frozenset({"S", "N", "B", "BOOL", "NULL", "SS", "BS"})


@dataclass(slots=True)
class Structure:
    """What values at one place were: scalars, sets, a list of one structure, a map of named ones.

    Number sets are left out: their order is not that of their texts.
    """

    scalars: set[str] = field(default_factory=set)
    element: Structure | None = None
    fields: dict[str, Structure] | None = None

    @property
    def parts(self) -> int:
        """How many structures this one is made of."""
        inner = [] if self.element is None else [self.element]
        return 1 + sum(part.parts for part in (*inner, *(self.fields or {}).values()))

    def learn(self, value: Any, depth: int = 0) -> None:
        """Takes in a typed value, as `{"S": "x"}`."""
        if not isinstance(value, dict) or len(value) != 1 or depth > MAX_DEPTH:
            return
        ((descriptor, inner),) = value.items()
        if descriptor in _SCALARS:
            self.scalars.add(descriptor)
        elif descriptor == "L" and isinstance(inner, list):
            self.element = self.element or Structure()
            for element in inner:
                self.element.learn(element, depth + 1)
        elif descriptor == "M" and isinstance(inner, dict):
            self.fields = {} if self.fields is None else self.fields
            folded = {name.casefold(): name for name in self.fields}
            for name, attribute in inner.items():
                # DuckDB folds the case of names: the second of two twins is left out
                if folded.setdefault(name.casefold(), name) == name:
                    self.fields.setdefault(name, Structure()).learn(attribute, depth + 1)


def learnt(values: Iterable[Any]) -> Structure | None:
    """The structure of typed values; None if it has too many parts to be one."""
    structure = Structure()
    for value in values:
        structure.learn(value)
        if structure.parts > MAX_ROW_GROUPS:
            return None
    return structure
