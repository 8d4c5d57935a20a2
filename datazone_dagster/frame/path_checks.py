"""SQL of the fields behind paths: the value, and a note where the record has another type. Pure.

A path is checked attribute by attribute. An attribute that is missing or NULL gives null, as SQL
expects. One that has another descriptor gives null too, and a note, unless the frame also reads
that descriptor, or the attribute as a unit: then the function looks at both itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from datazone_dagster.frame.paths import ImagePath, extracted
from datazone_dagster.frame.syntax import text_literal
from datazone_dagster.model.column_names import KEY, VERSION

OTHER_TYPE = "_dz_other_type"
"""SQL function `(field, level, key, version, descriptor)`: the attribute has this descriptor."""

FOUND = "_dz_found"
"""SQL function `(field, present)`: whether a record with the image has the attribute."""

_NULL = "NULL"


def with_null_probes(paths: Iterable[ImagePath]) -> list[ImagePath]:
    """Return the paths of an image, and for each attribute to check the path of its NULL."""
    found = dict.fromkeys(paths)
    for path in tuple(found):
        for attribute, _ in _levels(path):
            found.setdefault(_null_of(path.image, attribute))
    return list(found)


@dataclass(frozen=True)
class PathFields:
    """The fields of one image.

    Args:
        column: Column of the chunk that has the image.
        parsed: SQL of the parsed value that contains each path, probes included.
        read: The paths that the frame reads.
        unfound: Fields whose attribute no record had so far: they are looked for.
        extract: Function that returns the SQL of a field inside a parsed value.
    """

    column: str
    parsed: Mapping[ImagePath, str]
    read: Mapping[ImagePath, str]
    unfound: frozenset[str]
    extract: Callable[[str, Sequence[str]], str] = extracted

    def sql(self, path: ImagePath) -> str:
        """Return the SQL of a path's field."""
        name, value = self.read[path], self.value(path)
        levels = self._checked_levels(path)
        sql = self._checked(path, name, value, levels) if levels else value
        if name not in self.unfound:
            return sql
        found = f"{FOUND}({text_literal(name)}, {self.is_present(path)})"
        return f"CASE WHEN {self.column} IS NOT NULL AND NOT {found} THEN NULL ELSE {sql} END"

    def _checked(
        self,
        path: ImagePath,
        name: str,
        value: str,
        levels: list[tuple[tuple[str, ...], str]],
    ) -> str:
        fits, note = "", ""
        for level, (attribute, descriptor) in reversed(list(enumerate(levels))):
            below = self._at(path, (*attribute, descriptor))
            fits = self._fits(path, attribute, descriptor, fits)
            keys = f"json_keys({self.column}, {text_literal(_pointer(attribute))})"
            called = f"{OTHER_TYPE}({text_literal(name)}, {level}, {KEY}, {VERSION}, {keys}[1])"
            note = f"CASE WHEN {below} IS NULL THEN {called} ELSE {note} END" if note else called
        return f"CASE WHEN {fits} THEN {value} WHEN {note} THEN {value} END"

    def fits(self, path: ImagePath) -> str:
        """Return the SQL of whether the attributes of a path have the types that it expects."""
        fits = ""
        for attribute, descriptor in reversed(self._checked_levels(path)):
            fits = self._fits(path, attribute, descriptor, fits)
        return fits or "true"

    def value(self, path: ImagePath) -> str:
        """Return the SQL of the value of a path, without any check."""
        return self._at(path, path.column_steps)

    def is_present(self, path: ImagePath) -> str:
        """Return the SQL of whether the record has the last attribute of a path."""
        return f"{self._at(path, _attributes(path)[-1])} IS NOT NULL"

    def _checked_levels(self, path: ImagePath) -> list[tuple[tuple[str, ...], str]]:
        return [level for level in _levels(path) if not self._covered(path, level[0])]

    def _fits(
        self, path: ImagePath, attribute: tuple[str, ...], descriptor: str, inner: str
    ) -> str:
        """Return the SQL of whether an attribute, and those inside of it, fit the path."""
        below = self._at(path, (*attribute, descriptor))
        null = _null_of(path.image, attribute)
        return " OR ".join(
            [
                f"{self._at(path, attribute)} IS NULL",
                f"{self._at(null, null.column_steps)} IS NOT NULL",
                *self._others_read(attribute, descriptor),
                f"({below} IS NOT NULL AND ({inner}))" if inner else f"{below} IS NOT NULL",
            ]
        )

    def _at(self, path: ImagePath, steps: tuple[str, ...]) -> str:
        return self.extract(self.parsed[path], steps)

    def _covered(self, path: ImagePath, attribute: tuple[str, ...]) -> bool:
        """Return whether the frame reads the attribute, or one around it, as a unit."""
        return any(
            other != path
            and len(other.steps) == len(other.column_steps) <= len(attribute)
            and path.column_steps[: len(other.steps)] == other.steps
            for other in self.read
        )

    def _others_read(self, attribute: tuple[str, ...], descriptor: str) -> list[str]:
        depth = len(attribute)
        found = {
            other.column_steps[depth]: self._at(other, other.column_steps[: depth + 1])
            for other in self.read
            if len(other.column_steps) > depth and other.column_steps[:depth] == attribute
        }
        return [
            f"{sql} IS NOT NULL" for kind, sql in found.items() if kind not in {descriptor, _NULL}
        ]


def attribute_names(path: ImagePath) -> list[str]:
    """Return the attributes of a path down to the first list, outermost first."""
    return [attribute[-1] for attribute in _attributes(path)]


def _attributes(path: ImagePath) -> list[tuple[str, ...]]:
    steps = path.column_steps
    return [steps[: at + 1] for at in range(0, len(steps), 2)]


def _levels(path: ImagePath) -> list[tuple[tuple[str, ...], str]]:
    """Return the attributes of a path with the descriptor that it expects of each.

    A path to NULL asks for the type itself.
    """
    steps = path.column_steps
    if steps[-1:] == (_NULL,) and len(steps) % 2 == 0:
        return []
    return [(steps[: at + 1], steps[at + 1]) for at in range(0, len(steps) - 1, 2)]


def _null_of(image: str, attribute: tuple[str, ...]) -> ImagePath:
    return ImagePath(image, (*attribute, _NULL), "BOOLEAN")


def _pointer(steps: tuple[str, ...]) -> str:
    """Return the JSON pointer (RFC 6901) to an attribute."""
    return "".join(f"/{step.replace('~', '~0').replace('/', '~1')}" for step in steps)
