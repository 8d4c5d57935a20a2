"""Key condition expressions: the partition that a Query reads."""

from __future__ import annotations

from datazone_dagster.local.expressions.tokens import Placeholders, TokenStream
from datazone_dagster.local.keys import KeySchema
from datazone_dagster.local.service_errors import invalid_parameter, validation
from datazone_dagster.local.values import Attribute

_MEMBER = "KeyConditionExpression"


def partition_value(expression: str, schema: KeySchema, placeholders: Placeholders) -> Attribute:
    """Return the value that the expression requires of the partition key.

    Raises:
        ServiceError: `ValidationException`: the partition key is not compared with `=`, an
            attribute other than the keys is used, or the value has the wrong type.
    """
    tokens = TokenStream(expression, _MEMBER, placeholders)
    found: Attribute | None = None
    while tokens.peek().kind != "end":
        if tokens.takes("OR") or tokens.takes("NOT") or tokens.takes("IN") or tokens.takes("<>"):
            raise validation(f"Invalid operator used in {_MEMBER}")
        token = tokens.peek()
        is_path = tokens.at_path() and tokens.peek(1).text != "("
        if not is_path or token.text.upper() in ("AND", "BETWEEN"):
            tokens.take()
            continue
        path = tokens.path()
        if len(path) != 1 or path[0] not in schema.names:
            raise validation(f"Query key condition not supported: {path[0]}")
        if path[0] == schema.partition:
            if found is not None or not tokens.takes("=") or tokens.peek().kind != "value":
                raise validation("Query key condition not supported")
            found = placeholders.value(tokens.take().text, _MEMBER)
    if found is None:
        raise validation(f"Query condition missed key schema element: {schema.partition}")
    if schema.partition_type not in found:
        raise invalid_parameter("Condition parameter type does not match schema type")
    return found
