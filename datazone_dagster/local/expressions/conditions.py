"""Condition, filter and key condition expressions, compiled to predicates on an item."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from datazone_dagster.local.expressions.tokens import Placeholders, TokenStream, resolve
from datazone_dagster.local.service_errors import validation
from datazone_dagster.local.values import Attribute, Item, sort_bytes

Condition = Callable[[Item], bool]
_Operand = Callable[[Item], "Attribute | None"]

_ORDERED = ("S", "N", "B")
_DESCRIPTORS = ("S", "N", "B", "SS", "NS", "BS", "BOOL", "NULL", "L", "M")
_FUNCTIONS = {
    "attribute_exists": 1,
    "attribute_not_exists": 1,
    "attribute_type": 2,
    "begins_with": 2,
    "contains": 2,
}
_COMPARATORS: dict[str, Callable[[bytes, bytes], bool]] = {
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}


def condition(expression: str, member: str, placeholders: Placeholders) -> Condition:
    """Compile an expression.

    Args:
        expression: Text of the expression.
        member: `ConditionExpression`, `FilterExpression` or `KeyConditionExpression`.
        placeholders: Names and values of the request.

    Raises:
        ServiceError: `ValidationException` for anything the grammar does not allow.
    """
    tokens = TokenStream(expression, member, placeholders)
    compiled = _either(tokens)
    tokens.require_end()
    return compiled


def _either(tokens: TokenStream) -> Condition:
    left = _both(tokens)
    while tokens.takes("OR"):
        left = _or(left, _both(tokens))
    return left


def _both(tokens: TokenStream) -> Condition:
    left = _negated(tokens)
    while tokens.takes("AND"):
        left = _and(left, _negated(tokens))
    return left


def _or(left: Condition, right: Condition) -> Condition:
    return lambda item: left(item) or right(item)


def _and(left: Condition, right: Condition) -> Condition:
    return lambda item: left(item) and right(item)


def _negated(tokens: TokenStream) -> Condition:
    if tokens.takes("NOT"):
        inner = _negated(tokens)
        return lambda item: not inner(item)
    if tokens.takes("("):
        inner = _either(tokens)
        tokens.expect(")")
        return inner
    token = tokens.peek()
    if token.kind == "word" and tokens.peek(1).text == "(" and token.text != "size":
        return _function(tokens)
    return _comparison(tokens)


def _operand(tokens: TokenStream) -> _Operand:
    token = tokens.peek()
    if token.kind == "value":
        constant = tokens.placeholders.value(tokens.take().text, tokens.member)
        return lambda _item: constant
    if token == ("word", "size") and tokens.peek(1).text == "(":
        tokens.take()
        tokens.expect("(")
        inner = _operand(tokens)
        tokens.expect(")")
        return lambda item: _size(inner(item))
    path = tokens.path()
    return lambda item: resolve(item, path)


def _size(value: Attribute | None) -> Attribute | None:
    if value is None:
        return None
    ((descriptor, inner),) = value.items()
    if descriptor in ("N", "BOOL", "NULL"):
        return None
    if descriptor in ("S", "B"):
        return {"N": str(len(sort_bytes(value)))}
    return {"N": str(len(inner))}


def _comparison(tokens: TokenStream) -> Condition:
    left = _operand(tokens)
    if tokens.takes("BETWEEN"):
        low = _operand(tokens)
        tokens.expect("AND")
        high = _operand(tokens)
        at_least, at_most = _COMPARATORS[">="], _COMPARATORS["<="]
        return lambda item: (
            _compare(left(item), low(item), at_least) and _compare(left(item), high(item), at_most)
        )
    if tokens.takes("IN"):
        tokens.expect("(")
        choices = [_operand(tokens)]
        while tokens.takes(","):
            choices.append(_operand(tokens))
        tokens.expect(")")
        if len(choices) > 100:
            raise validation(f"Invalid {tokens.member}: The IN operator takes at most 100 operands")
        return lambda item: any(_equal(left(item), choice(item)) for choice in choices)
    sign = tokens.peek().text
    if sign == "=":
        tokens.take()
        right = _operand(tokens)
        return lambda item: _equal(left(item), right(item))
    if sign == "<>":
        tokens.take()
        right = _operand(tokens)
        return lambda item: not _equal(left(item), right(item))
    comparator = _COMPARATORS.get(sign)
    if comparator is None:
        raise tokens.syntax_error()
    tokens.take()
    right = _operand(tokens)
    return lambda item: _compare(left(item), right(item), comparator)


def _equal(left: Attribute | None, right: Attribute | None) -> bool:
    return left is not None and left == right


def _compare(
    left: Attribute | None, right: Attribute | None, compare: Callable[[bytes, bytes], bool]
) -> bool:
    if left is None or right is None or left.keys() != right.keys():
        return False
    if next(iter(left)) not in _ORDERED:
        return False
    return compare(sort_bytes(left), sort_bytes(right))


def _function(tokens: TokenStream) -> Condition:
    name = tokens.take().text
    arity = _FUNCTIONS.get(name)
    if arity is None:
        raise validation(f"Invalid {tokens.member}: Invalid function name; function: {name}")
    tokens.expect("(")
    if arity == 1:
        path = tokens.path()
        tokens.expect(")")
        wanted = name == "attribute_exists"
        return lambda item: (resolve(item, path) is not None) == wanted
    left = _operand(tokens)
    tokens.expect(",")
    right = _operand(tokens)
    tokens.expect(")")
    if name == "attribute_type":
        wanted_type = _constant_type(right, tokens)
        return lambda item: wanted_type in (left(item) or ())
    if name == "begins_with":
        return lambda item: _begins_with(left(item), right(item))
    return lambda item: _contains(left(item), right(item))


def _constant_type(operand: _Operand, tokens: TokenStream) -> str:
    value = operand({}) or {}
    name = value.get("S")
    if name not in _DESCRIPTORS:
        raise validation(
            f"Invalid {tokens.member}: Invalid attribute type name found; type: {name}, "
            f"valid types: {{{', '.join(_DESCRIPTORS)}}}"
        )
    return str(name)


def _begins_with(value: Attribute | None, prefix: Attribute | None) -> bool:
    if value is None or prefix is None or value.keys() != prefix.keys():
        return False
    if next(iter(value)) not in ("S", "B"):
        return False
    return sort_bytes(value).startswith(sort_bytes(prefix))


def _contains(value: Attribute | None, wanted: Attribute | None) -> bool:
    if value is None or wanted is None:
        return False
    ((descriptor, inner),) = value.items()
    ((wanted_descriptor, wanted_inner),) = wanted.items()
    if descriptor == "L":
        return wanted in inner
    if descriptor in ("SS", "NS", "BS"):
        elements: list[Any] = inner
        return descriptor[0] == wanted_descriptor and wanted_inner in elements
    if descriptor in ("S", "B") and descriptor == wanted_descriptor:
        return sort_bytes(wanted) in sort_bytes(value)
    return False
