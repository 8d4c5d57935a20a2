"""Update expressions: SET, REMOVE, ADD and DELETE on a copy of an item."""

from __future__ import annotations

import copy
import decimal
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from datazone_dagster.local.expressions.tokens import (
    Path,
    Placeholders,
    TokenStream,
    require_disjoint,
    resolve,
)
from datazone_dagster.local.service_errors import validation
from datazone_dagster.local.values import (
    Attribute,
    Item,
    decimal_of,
    normalised_number,
    sorted_set,
)

MEMBER = "UpdateExpression"
_SETS = ("SS", "NS", "BS")
# Enough digits to add any two numbers of the service exactly (1E-130 to 9.99E+125).
_EXACT = decimal.Context(prec=300)
_Value = Callable[[Item], Attribute]


@dataclass
class Update:
    """Compiled update expression. Every operand reads the item before the update."""

    sets: list[tuple[Path, _Value]] = field(default_factory=list)
    removes: list[Path] = field(default_factory=list)
    adds: list[tuple[Path, Attribute]] = field(default_factory=list)
    deletes: list[tuple[Path, Attribute]] = field(default_factory=list)

    @property
    def paths(self) -> list[Path]:
        """Document paths that the update writes."""
        written = [path for path, _ in (*self.sets, *self.adds, *self.deletes)]
        return [*written, *self.removes]

    def apply(self, before: Item) -> Item:
        """Return the item after the update; `before` does not change.

        Raises:
            ServiceError: `ValidationException`: an operand is missing or has the wrong type,
                or a path does not exist.
        """
        values = [(path, value(before)) for path, value in self.sets]
        after = copy.deepcopy(before)
        for path, attribute in values:
            _put(after, path, attribute)
        for path, attribute in self.adds:
            _put(after, path, _added(resolve(before, path), attribute))
        for path, attribute in self.deletes:
            _delete_elements(after, path, attribute)
        # The highest list index first: a removal moves only the elements after it.
        for path in sorted(self.removes, key=_path_order, reverse=True):
            _remove(after, path)
        return after


def update(expression: str, placeholders: Placeholders) -> Update:
    """Compile an update expression.

    Raises:
        ServiceError: `ValidationException`: bad syntax, a clause twice, overlapping paths.
    """
    tokens = TokenStream(expression, MEMBER, placeholders)
    compiled, seen = Update(), set[str]()
    clauses = {"SET": _set, "REMOVE": _remove_path, "ADD": _add, "DELETE": _delete}
    while tokens.peek().kind != "end":
        word = tokens.peek().text.upper()
        if word not in clauses:
            raise tokens.syntax_error()
        if word in seen:
            raise validation(
                f'Invalid {MEMBER}: The "{word}" section can only be used once '
                "in an update expression;"
            )
        seen.add(word)
        tokens.take()
        clauses[word](tokens, compiled)
        while tokens.takes(","):
            clauses[word](tokens, compiled)
    require_disjoint(compiled.paths, MEMBER)
    return compiled


def _set(tokens: TokenStream, into: Update) -> None:
    path = tokens.path()
    tokens.expect("=")
    left = _set_operand(tokens)
    if tokens.takes("+"):
        value = _arithmetic(left, _set_operand(tokens), plus=True)
    elif tokens.takes("-"):
        value = _arithmetic(left, _set_operand(tokens), plus=False)
    else:
        value = left
    into.sets.append((path, value))


def _remove_path(tokens: TokenStream, into: Update) -> None:
    into.removes.append(tokens.path())


def _add(tokens: TokenStream, into: Update) -> None:
    path, value = _path_and_value(tokens)
    if not value.keys() & {"N", *_SETS}:
        raise _bad_operand("ADD", value)
    into.adds.append((path, value))


def _delete(tokens: TokenStream, into: Update) -> None:
    path, value = _path_and_value(tokens)
    if not value.keys() & set(_SETS):
        raise _bad_operand("DELETE", value)
    into.deletes.append((path, value))


def _bad_operand(operator: str, value: Attribute) -> Exception:
    return validation(
        f"Invalid {MEMBER}: Incorrect operand type for operator or function; "
        f"operator: {operator}, operand type: {next(iter(value))}"
    )


def _path_and_value(tokens: TokenStream) -> tuple[Path, Attribute]:
    path = tokens.path()
    if tokens.peek().kind != "value":
        raise tokens.syntax_error()
    return path, tokens.placeholders.value(tokens.take().text, MEMBER)


def _set_operand(tokens: TokenStream) -> _Value:
    token = tokens.peek()
    if token.kind == "value":
        constant = tokens.placeholders.value(tokens.take().text, MEMBER)
        return lambda _item: constant
    if tokens.takes("("):
        inner = _set_operand(tokens)
        tokens.expect(")")
        return inner
    if token.kind == "word" and tokens.peek(1).text == "(":
        return _set_function(tokens)
    path = tokens.path()
    return lambda item: _present(item, path)


def _set_function(tokens: TokenStream) -> _Value:
    name = tokens.take().text
    tokens.expect("(")
    if name == "if_not_exists":
        path = tokens.path()
        tokens.expect(",")
        default = _set_operand(tokens)
        tokens.expect(")")
        return lambda item: resolve(item, path) or default(item)
    if name == "list_append":
        first = _set_operand(tokens)
        tokens.expect(",")
        second = _set_operand(tokens)
        tokens.expect(")")
        return lambda item: {"L": [*_list(first(item)), *_list(second(item))]}
    raise validation(f"Invalid {MEMBER}: Invalid function name; function: {name}")


def _present(item: Item, path: Path) -> Attribute:
    value = resolve(item, path)
    if value is None:
        raise validation(
            "The provided expression refers to an attribute that does not exist in the item"
        )
    return value


def _wrong_type() -> Exception:
    return validation("An operand in the update expression has an incorrect data type")


def _list(value: Attribute) -> list[Any]:
    if "L" not in value:
        raise _wrong_type()
    elements: list[Any] = value["L"]
    return elements


def _arithmetic(left: _Value, right: _Value, *, plus: bool) -> _Value:
    def computed(item: Item) -> Attribute:
        a, b = left(item), right(item)
        if "N" not in a or "N" not in b:
            raise _wrong_type()
        return {"N": _sum(a["N"], b["N"], plus=plus)}

    return computed


def _sum(left: str, right: str, *, plus: bool) -> str:
    operation = _EXACT.add if plus else _EXACT.subtract
    return normalised_number(str(operation(decimal_of(left), decimal_of(right))))


def _added(existing: Attribute | None, value: Attribute) -> Attribute:
    if existing is None:
        return value
    ((descriptor, inner),) = value.items()
    if descriptor not in existing:
        raise _wrong_type()
    if descriptor == "N":
        return {"N": _sum(existing["N"], inner, plus=True)}
    return {descriptor: sorted_set(descriptor, list({*existing[descriptor], *inner}))}


def _delete_elements(item: Item, path: Path, value: Attribute) -> None:
    existing = resolve(item, path)
    if existing is None:
        return
    ((descriptor, inner),) = value.items()
    if descriptor not in existing:
        raise _wrong_type()
    remaining = sorted_set(descriptor, list(set(existing[descriptor]) - set(inner)))
    if remaining:
        _put(item, path, {descriptor: remaining})
    else:  # the service stores no empty sets
        _remove(item, path)


def _container(item: Item, path: Path) -> Any:
    """Return the dict or list that contains the last step of the path, None if there is none."""
    if len(path) == 1:
        return item
    parent = resolve(item, path[:-1])
    return None if parent is None else parent.get("L" if isinstance(path[-1], int) else "M")


def _invalid_path() -> Exception:
    return validation("The document path provided in the update expression is invalid for update")


def _put(item: Item, path: Path, value: Attribute) -> None:
    holder, last = _container(item, path), path[-1]
    if holder is None:
        raise _invalid_path()
    if isinstance(last, int) and last >= len(holder):
        holder.append(copy.deepcopy(value))
    else:
        holder[last] = copy.deepcopy(value)


def _remove(item: Item, path: Path) -> None:
    holder, last = _container(item, path), path[-1]
    if holder is None:
        if len(path) > 1 and resolve(item, path[:1]) is None:
            raise _invalid_path()
        return
    if isinstance(last, int):
        if last < len(holder):
            del holder[last]
    else:
        holder.pop(last, None)


def _path_order(path: Path) -> list[tuple[bool, str | int]]:
    return [(isinstance(part, int), part) for part in path]
