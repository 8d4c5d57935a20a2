"""Discovery of the attributes in the images of a chunk, without a Python object per record."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from datazone_dagster.frame.paths import ImagePath, extracted, from_json, grouped
from datazone_dagster.frame.query_session import MalformedImageError, Session
from datazone_dagster.frame.structure import Structure, learnt

Seen = dict[tuple[str, str], None]
"""Attributes and their descriptors, in order of first appearance."""

JSON_TYPES = {
    "S": "VARCHAR",
    "N": "VARCHAR",
    "B": "VARCHAR",
    "BOOL": "BOOLEAN",
    "NULL": "BOOLEAN",
    "SS": "ARRAY",
    "NS": "ARRAY",
    "BS": "ARRAY",
    "L": "ARRAY",
    "M": "OBJECT",
}
_EXPECTED = ", ".join(f"('{descriptor}', '{kind}')" for descriptor, kind in JSON_TYPES.items())

# Images with the same names, descriptors and JSON types share one layout; layouts are few.
_QUERY = """
WITH images AS (
    SELECT {image} AS image, row_number() OVER () AS row FROM ({query})
), layouts AS (
    SELECT json_keys(image) AS names, json_keys(image, '$.*') AS kinds,
        json_type(image, '$.*.*') AS types,
        CASE WHEN len(json_keys(image)) = 0 THEN json_type(image) END AS bare, min(row) AS row
    FROM images WHERE image IS NOT NULL GROUP BY 1, 2, 3, 4
), attributes AS (
    SELECT unnest(CASE WHEN bare <> 'OBJECT' THEN [''] ELSE names END) AS name,
        unnest(kinds) AS kind, unnest(types) AS type,
        generate_subscripts(names, 1) AS position, row,
        len(names) <> len(list_distinct(names)) AS odd
    FROM layouts
)
SELECT name, attributes.kind[1] AS kind, min({{'row': row, 'position': position}}) AS first,
    bool_or(odd OR name = '' OR len(attributes.kind) <> 1
        OR expected.type IS DISTINCT FROM attributes.type) AS odd
FROM attributes LEFT JOIN (VALUES {expected}) AS expected (kind, type)
    ON expected.kind = attributes.kind[1]
GROUP BY 1, 2 ORDER BY first
"""


_EMPTY = "('[]', '{}')"
_AT_ONCE = 64
_MOST_FAILURES = 3
"""Attempts that fail in a row before no further one is made: each costs time and saves none."""


class _Appearance(NamedTuple):
    """First appearance of an attribute with a descriptor: row, image and position in the item."""

    row: int
    image: int
    position: int
    name: str
    kind: str


class Discovered(NamedTuple):
    """Attributes of a chunk's images.

    `seen` are those with values. An empty list or map has no type: an attribute that has no other
    value in an image, and no column, is in `empty` instead: by image, attribute and descriptor,
    whether the value of each row is empty, null where there is none.
    """

    seen: Seen
    empty: dict[tuple[int, str, str], pa.ChunkedArray]


@dataclass
class KnownItems:
    """Attributes of the items of a run so far: those of keys, and of images.

    `structures` are those of lists and maps that become JSON text, by attribute and descriptor;
    None: too large. `failures` counts the attempts to rely on all this that failed in a row.
    `are_accounted` says that the bytes of all images were accounted for: see `parsed_images`.
    """

    keys: Seen = field(default_factory=dict)
    images: Seen = field(default_factory=dict)
    structures: dict[tuple[str, str], Structure | None] = field(default_factory=dict)
    failures: int = 0
    are_accounted: bool = True

    def learn(self, keys: Seen, images: Seen) -> None:
        """Add what the images of a chunk had."""
        self.keys |= keys
        self.images |= images

    def learn_content(self, attribute: str, descriptor: str, values: Iterable[object]) -> None:
        """Add the structure of some typed values of an attribute."""
        before = self.structures.setdefault((attribute, descriptor), Structure())
        if before is not None:
            self.structures[attribute, descriptor] = learnt(values, before)

    @property
    def is_empty(self) -> bool:
        """Whether nothing is known, and nothing was tried yet."""
        return not self.keys and not self.failures

    @property
    def is_worth_trying(self) -> bool:
        """Whether items were read, and the attempts did not fail again and again."""
        return bool(self.keys) and self.failures < _MOST_FAILURES


def seen_in(session: Session, query: str, image: str) -> Seen:
    """Return the attributes of one image of a query's records, by row, then in item order.

    Raises:
        MalformedImageError: An image is not an item in DynamoDB JSON, or repeats a name.
        duckdb.Error: The query fails, or an image is not JSON.
    """
    return {(one.name, one.kind): None for one in _appearances(session, query, [image])}


def discovered(
    session: Session,
    query: str,
    images: Sequence[str],
    has_column: Callable[[str, str], bool],
) -> Discovered:
    """Return the attributes of the images of a query's records, by row, then in item order.

    Args:
        session: Session that the query runs in.
        query: SQL that gives the records.
        images: SQL of each image.
        has_column: Whether an attribute with a descriptor has a column.

    Raises:
        MalformedImageError: An image is not an item in DynamoDB JSON, or repeats a name.
        duckdb.Error: The query fails, or an image is not JSON.
    """
    found = _appearances(session, query, images)
    empty: dict[tuple[int, str, str], pa.ChunkedArray] = {}
    for one in _empty_at_first(session, query, images, found, has_column):
        found.remove(one)
        (values,) = _are_empty(session, query, images[one.image], [one]).columns
        first_row = pc.index(values, pa.scalar(False)).as_py()
        if first_row < 0:
            empty[one.image, one.name, one.kind] = values
        else:
            found.append(one._replace(row=first_row + 1))
    return Discovered({(one.name, one.kind): None for one in sorted(found)}, empty)


def _appearances(session: Session, query: str, images: Sequence[str]) -> list[_Appearance]:
    found: list[_Appearance] = []
    for at, image in enumerate(images):
        text = _QUERY.format(image=image, query=query, expected=_EXPECTED)
        for row in session.table(text).to_pylist():
            if row["odd"]:
                raise MalformedImageError(
                    "items(): a record of this chunk holds an image that is not DynamoDB JSON.",
                    safe="Nothing was written; the change log keeps the record.",
                )
            first, position = row["first"].values()
            found.append(_Appearance(first, at, position, row["name"], row["kind"]))
    return sorted(found)


def _empty_at_first(
    session: Session,
    query: str,
    images: Sequence[str],
    found: Sequence[_Appearance],
    has_column: Callable[[str, str], bool],
) -> list[_Appearance]:
    """Return the lists and maps without a column whose first value is empty."""
    empty: list[_Appearance] = []
    for at, image in enumerate(images):
        doubtful = [
            one
            for one in found
            if one.image == at and one.kind in {"L", "M"} and not has_column(one.name, one.kind)
        ]
        for start in range(0, len(doubtful), _AT_ONCE):
            asked = doubtful[start : start + _AT_ONCE]
            rows = sorted({one.row for one in asked})
            values = _are_empty(session, query, image, asked, rows)
            empty += [
                one
                for position, one in enumerate(asked)
                if values[f"e{position}"][rows.index(one.row)].as_py()
            ]
    return empty


def _are_empty(
    session: Session,
    query: str,
    image: str,
    asked: Sequence[_Appearance],
    rows: Sequence[int] = (),
) -> pa.Table:
    """Return per row whether each value is an empty list or map; null where it is absent."""
    paths = {ImagePath("", (one.name, one.kind), "VARCHAR"): at for at, one in enumerate(asked)}
    parsed: list[str] = []
    texts: dict[int, str] = {}
    for shape, members in grouped(paths):
        texts |= {paths[one]: extracted(f"j{len(parsed)}", one.column_steps) for one in members}
        parsed.append(f"{from_json('image', shape)} AS j{len(parsed)}")
    only = f"WHERE row IN ({', '.join(map(str, rows))})" if rows else ""
    numbered = f"SELECT {image} AS image, row_number() OVER () AS row FROM ({query})"  # noqa: S608  # ours
    listed = ", ".join(f"{texts[at]} IN {_EMPTY} AS e{at}" for at in range(len(asked)))
    return session.table(
        f"SELECT {listed} FROM (SELECT row, {', '.join(parsed)} FROM ({numbered}) {only}) "  # noqa: S608  # escaped literals
        "ORDER BY row"
    )
