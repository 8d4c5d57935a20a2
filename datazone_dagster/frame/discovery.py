"""Discovery of the attributes in the images of a chunk, without a Python object per record."""

from __future__ import annotations

from collections.abc import Sequence

from datazone_dagster.frame.query_session import MalformedImageError, Session

Seen = dict[tuple[str, str], None]
"""Attributes and their descriptors, in order of first appearance."""

_JSON_TYPES = {
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
_EXPECTED = ", ".join(f"('{descriptor}', '{kind}')" for descriptor, kind in _JSON_TYPES.items())

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


def seen_in(session: Session, query: str, images: Sequence[str]) -> Seen:
    """Return the attributes of the images of a query's records, by row, then in item order.

    Args:
        session: Session that the query runs in.
        query: SQL that gives the records.
        images: SQL of each image.

    Raises:
        MalformedImageError: An image is not an item in DynamoDB JSON, or repeats a name.
        duckdb.Error: The query fails, or an image is not JSON.
    """
    found: list[tuple[int, int, int, str, str]] = []
    for at, image in enumerate(images):
        text = _QUERY.format(image=image, query=query, expected=_EXPECTED)
        for row in session.table(text).to_pylist():
            if row["odd"]:
                raise MalformedImageError(
                    "items(): a record of this chunk holds an image that is not DynamoDB JSON.",
                    safe="Nothing was written; the change log keeps the record.",
                )
            first, position = row["first"].values()
            found.append((first, at, position, row["name"], row["kind"]))
    return dict.fromkeys((name, kind) for *_, name, kind in sorted(found))
