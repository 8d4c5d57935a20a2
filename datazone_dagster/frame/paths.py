"""Paths into DynamoDB JSON: from what an expression names to the few fields that are parsed.

`dynamodb.NewImage.address.M.city.S` is an attribute, its type descriptor, an attribute of
the map, and its descriptor. Attribute names are case-sensitive; DuckDB's names are not, so
each path becomes one generated field and never an SQL name. All paths of an image are
parsed by as few `from_json` calls as their shapes allow, usually one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Union

from datazone_dagster.frame.syntax import text_literal

SCALARS = {"S": "VARCHAR", "N": "VARCHAR", "B": "VARCHAR", "BOOL": "BOOLEAN", "NULL": "BOOLEAN"}
SETS = ("SS", "NS", "BS")
DESCRIPTORS = (*SCALARS, *SETS, "L", "M")

Step = str | None
"""An attribute name or a descriptor; None stands for any element of a list."""

Shape = Union[str, dict[str, "Shape"], list["Shape"]]  # noqa: UP007  # recursive, on 3.10
"""What `from_json` is asked for: a type, an object's fields, or a list's element."""


class PathError(ValueError):
    """A path that DynamoDB JSON can't have. The message names the wrong step."""


@dataclass(frozen=True, slots=True)
class ImagePath:
    """A place in one image that an expression reads.

    `leaf` is the type of the value there: a DuckDB type, or a list of one. The value of an
    attribute, a map or a list that is taken whole is its DynamoDB JSON as text.
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
        """The smallest shape that holds the value."""
        shape: Shape = [self.leaf] if self.leaf_is_list else self.leaf
        for step in reversed(self.steps):
            shape = [shape] if step is None else {step: shape}
        return shape

    @property
    def column_steps(self) -> tuple[str, ...]:
        """The steps down to the value, or to the first list whose elements are picked."""
        steps: list[str] = []
        for step in self.steps:
            if step is None:
                break
            steps.append(step)
        return tuple(steps)


class Resolved(NamedTuple):
    """A path, how many of the steps it covers, and the name of its last attribute.

    What the path does not cover is left to DuckDB: the elements of a list and what is inside
    them, the characters of a string.
    """

    path: ImagePath
    covered: int
    attribute: str


def resolve(image: str, steps: Sequence[Step], *, as_list: bool = False) -> Resolved:
    """Reads the steps that an expression takes into an image.

    Args:
        image: `Keys`, `NewImage` or `OldImage`.
        steps: Names in order; None where a list element is picked. Not empty.
        as_list: Whether an `L` taken whole is wanted as a list (the argument of `unnest`)
            and not as JSON text.

    Raises:
        PathError: A step is not possible where it stands.
    """
    attribute, expected, first_element = "", "name", 0
    for position, step in enumerate(steps):
        if expected == "name":
            if not step:
                raise PathError("an attribute name is expected, as text and not empty")
            attribute, expected = step, "type"
        elif expected == "element":
            if step is not None:
                raise PathError(f"a list has elements, as in {attribute}.L[1]")
            first_element, expected = first_element or position, "type"
        elif step not in DESCRIPTORS:
            raise PathError(_wrong_descriptor(attribute, step))
        elif step in {"M", "L"}:
            expected = "name" if step == "M" else "element"
        else:
            covered = position + 1
            if covered < len(steps) and steps[covered] is not None:
                raise PathError(f"{step} holds a value, there is nothing inside it")
            leaf = SCALARS.get(step or "", "VARCHAR")
            path = ImagePath(image, tuple(steps[:covered]), leaf, step in SETS)
            return Resolved(path, first_element or covered, attribute)
    path = ImagePath(image, tuple(steps), "VARCHAR", as_list and expected == "element")
    return Resolved(path, first_element or len(steps), attribute)


def _wrong_descriptor(attribute: str, step: Step) -> str:
    known = ", ".join(DESCRIPTORS)
    if step is None:
        return f"after {attribute} comes its type ({known}), as in {attribute}.L[1]"
    return f"after {attribute} comes its type ({known}), not {step!r}"


def grouped(paths: Iterable[ImagePath]) -> list[tuple[Shape, list[ImagePath]]]:
    """Puts paths of one image together into shapes that `from_json` can return at once.

    Two paths part where one is a value and the other goes inside it, or where two names
    differ in case only: DuckDB's struct fields fold case.
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
    """One shape that holds both, None if there is none."""
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
    """The SQL that parses a JSON column into a shape; what does not fit is null."""
    return f"from_json({column}, {text_literal(json.dumps(shape))})"


def extracted(value: str, steps: Sequence[str]) -> str:
    """The SQL that goes down a struct by names of any characters."""
    for step in steps:
        value = f"struct_extract({value}, {text_literal(step)})"
    return value
