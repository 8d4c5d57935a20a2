"""Paths into DynamoDB JSON: resolve the names in an expression to the few fields to parse.

`dynamodb.NewImage.address.M.city.S` names an attribute, its type descriptor, an attribute of
the map, and that attribute's descriptor. Attribute names are case-sensitive and DuckDB's names
are not, so each path becomes one generated field and never an SQL name. All paths of an image
are parsed by as few `from_json` calls as their shapes allow, usually one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Union

from datazone_dagster.frame.syntax import quoted, text_literal

SCALARS = {"S": "VARCHAR", "N": "VARCHAR", "B": "VARCHAR", "BOOL": "BOOLEAN", "NULL": "BOOLEAN"}
SETS = ("SS", "NS", "BS")
DESCRIPTORS = (*SCALARS, *SETS, "L", "M")

Step = str | None
"""An attribute name or a descriptor; None stands for any element of a list."""

Shape = Union[str, dict[str, "Shape"], list["Shape"]]  # noqa: UP007  # recursive, on 3.10
"""Shape that `from_json` parses into: a type, an object's fields, or a list's element."""


class PathError(ValueError):
    """A path that is impossible in DynamoDB JSON. The message names the wrong step."""


@dataclass(frozen=True, slots=True)
class ImagePath:
    """A value in one image that an expression reads.

    `leaf` is the DuckDB type of the value; `leaf_is_list` makes it a list of that type. An
    attribute, a map or a list that is read as a unit gives its DynamoDB JSON as text.
    """

    image: str
    steps: tuple[Step, ...]
    leaf: str
    leaf_is_list: bool = False

    def __str__(self) -> str:
        names = (f'"{s}"' if s and not s.isidentifier() else s for s in self.steps)
        return ".".join(("dynamodb", self.image, *("[...]" if n is None else n for n in names)))

    @property
    def shape(self) -> Shape:
        """Smallest shape that contains the value."""
        shape: Shape = [self.leaf] if self.leaf_is_list else self.leaf
        for step in reversed(self.steps):
            shape = [shape] if step is None else {step: shape}
        return shape

    @property
    def column_steps(self) -> tuple[str, ...]:
        """Steps down to the value, or to the first list that an element is picked from."""
        steps: list[str] = []
        for step in self.steps:
            if step is None:
                break
            steps.append(step)
        return tuple(steps)


class Resolved(NamedTuple):
    """A path, the number of steps that it covers, and the name of its last attribute.

    DuckDB evaluates the remaining steps: into the elements of a list, or the characters of a
    string.
    """

    path: ImagePath
    covered: int
    attribute: str


def resolve(image: str, steps: Sequence[Step], *, as_list: bool = False) -> Resolved:
    """Resolve the steps that an expression takes into an image.

    Args:
        image: `Keys`, `NewImage` or `OldImage`.
        steps: Names in order, not empty; None where a list element is picked.
        as_list: Whether a path that ends at an `L` gives a list (the argument of `unnest`)
            instead of JSON text.

    Raises:
        PathError: A step is impossible at its position.
    """
    attribute, expected, first_element = "", "name", 0
    for position, step in enumerate(steps):
        if expected == "name":
            if not step:
                raise PathError("an attribute name is expected: a string that is not empty")
            attribute, expected = step, "type"
        elif expected == "element":
            if step is not None:
                raise PathError(f"a list element is picked by its position, as in {attribute}.L[1]")
            first_element, expected = first_element or position, "type"
        elif step not in DESCRIPTORS:
            raise PathError(_wrong_descriptor(attribute, step))
        elif step in {"M", "L"}:
            expected = "name" if step == "M" else "element"
        else:
            covered = position + 1
            if covered < len(steps) and steps[covered] is not None:
                raise PathError(f"{step} holds a single value with nothing inside it")
            leaf = SCALARS.get(step or "", "VARCHAR")
            path = ImagePath(image, tuple(steps[:covered]), leaf, step in SETS)
            return Resolved(path, first_element or covered, attribute)
    path = ImagePath(image, tuple(steps), "VARCHAR", as_list and expected == "element")
    return Resolved(path, first_element or len(steps), attribute)


def _wrong_descriptor(attribute: str, step: Step) -> str:
    known = ", ".join(DESCRIPTORS)
    if step is None:
        return f"{attribute} must be followed by its type ({known}), as in {attribute}.L[1]"
    return f"{attribute} must be followed by its type ({known}), not {step!r}"


def grouped(paths: Iterable[ImagePath]) -> list[tuple[Shape, list[ImagePath]]]:
    """Group paths of one image by shapes that one `from_json` call can return.

    Two paths need separate shapes if one of them ends where the other continues, or if two
    names differ only in case, because DuckDB's struct fields fold case.
    """
    groups: list[tuple[Shape, list[ImagePath]]] = []
    for path in paths:
        for position, (shape, members) in enumerate(groups):
            joined = _joined(shape, path.shape)
            if joined is not None:
                groups[position] = (joined, [*members, path])
                break
        else:
            groups.append((path.shape, [path]))
    return groups


def _joined(one: Shape, other: Shape) -> Shape | None:
    """Return one shape that contains both, None if there is none."""
    if isinstance(one, str) or isinstance(other, str):
        return one if one == other else None
    if isinstance(one, list) or isinstance(other, list):
        if not (isinstance(one, list) and isinstance(other, list)):
            return None
        element = _joined(one[0], other[0])
        return None if element is None else [element]
    joined = dict(one)
    folded = {name.casefold(): name for name in one}
    for name, shape in other.items():
        twin = folded.get(name.casefold())
        if twin is None:
            joined[name] = shape
            continue
        inner = _joined(one[twin], shape) if twin == name else None
        if inner is None:
            return None
        joined[name] = inner
    return joined


def from_json(column: str, shape: Shape) -> str:
    """Return the SQL that parses a JSON column into a shape; values that do not fit are null."""
    return f"from_json({column}, {text_literal(json.dumps(shape))})"


def type_of(shape: Shape) -> str:
    """Return a shape as a DuckDB type, because a MAP can't contain shapes."""
    if isinstance(shape, str):
        return shape
    if isinstance(shape, list):
        return f"{type_of(shape[0])}[]"
    fields = ", ".join(f"{quoted(name)} {type_of(inner)}" for name, inner in shape.items())
    return f"STRUCT({fields})"


def extracted(value: str, steps: Sequence[str]) -> str:
    """Return the SQL that descends into a struct by names of any characters."""
    for step in steps:
        value = f"struct_extract({value}, {text_literal(step)})"
    return value
