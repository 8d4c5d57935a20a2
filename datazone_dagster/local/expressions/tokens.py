"""Tokens of an expression, placeholders of its request, and document paths."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from datazone_dagster.local.expressions.reserved import RESERVED_WORDS
from datazone_dagster.local.service_errors import ServiceError, validation
from datazone_dagster.local.values import Attribute, Item, checked_value

Path = tuple[str | int, ...]
"""Document path: an attribute name, then map keys and list indexes."""

_TOKEN = re.compile(
    r"\s*(?:(?P<value>:[A-Za-z0-9_]+)|(?P<alias>#[A-Za-z0-9_]+)"
    r"|(?P<word>[A-Za-z_][A-Za-z0-9_]*)|(?P<index>\d+)"
    r"|(?P<sign><>|<=|>=|[=<>()\[\],.+-]))"
)
_END = ""
_EXPRESSION_BYTES_MAX = 4096  # of the service ("Service quotas")


class Token(NamedTuple):
    """One token of an expression. `kind` is value, alias, word, index, sign or end."""

    kind: str
    text: str


class Placeholders:
    """ExpressionAttributeNames and ExpressionAttributeValues of one request.

    Values are validated once. A placeholder that no expression uses is an error, as in the
    service.
    """

    def __init__(self, names: Mapping[str, Any] | None, values: Mapping[str, Any] | None) -> None:
        if names is not None and not names:
            raise validation("ExpressionAttributeNames must not be empty")
        if values is not None and not values:
            raise validation("ExpressionAttributeValues must not be empty")
        self._names = dict(names or {})
        self._values = {key: checked_value(value) for key, value in (values or {}).items()}
        self._used: set[str] = set()

    def name(self, alias: str, member: str) -> str:
        """Return the attribute name behind `#alias`."""
        if alias not in self._names:
            raise validation(
                f"Invalid {member}: An expression attribute name used in the document path "
                f"is not defined; attribute name: {alias}"
            )
        self._used.add(alias)
        name = self._names[alias]
        if not isinstance(name, str):
            raise ServiceError("SerializationException", "Expected a string")
        return name

    def value(self, key: str, member: str) -> Attribute:
        """Return the attribute value behind `:key`."""
        if key not in self._values:
            raise validation(
                f"Invalid {member}: An expression attribute value used in expression "
                f"is not defined; attribute value: {key}"
            )
        self._used.add(key)
        return self._values[key]

    def require_all_used(self) -> None:
        """Refuse placeholders that no expression of the request uses."""
        for member, given in (("Names", self._names), ("Values", self._values)):
            unused = sorted(set(given) - self._used)
            if unused:
                raise validation(
                    f"Value provided in ExpressionAttribute{member} unused in expressions: "
                    f"keys: {{{', '.join(unused)}}}"
                )


class TokenStream:
    """Tokens of one expression, with lookahead.

    Args:
        expression: Text of the expression.
        member: Request member that contains the expression; error messages name it.
        placeholders: Names and values of the request.
    """

    def __init__(self, expression: str, member: str, placeholders: Placeholders) -> None:
        if not expression.strip():
            raise validation(f"Invalid {member}: The expression can not be empty;")
        if len(expression.encode()) > _EXPRESSION_BYTES_MAX:
            raise validation(
                f"Invalid {member}: Expression size has exceeded the maximum allowed size; "
                f"expression size: {len(expression.encode())}"
            )
        self.member, self.placeholders = member, placeholders
        self._tokens = list(self._split(expression))
        self._at = 0

    def _split(self, expression: str) -> Sequence[Token]:
        tokens, at = [], 0
        text = expression.rstrip()
        while at < len(text):
            match = _TOKEN.match(text, at)
            if match is None or match.lastgroup is None:
                raise validation(
                    f'Invalid {self.member}: Syntax error; token: "{text[at:].strip()[:1]}", '
                    f'near: "{text[max(0, at - 8) : at + 8].strip()}"'
                )
            tokens.append(Token(match.lastgroup, match.group(match.lastgroup)))
            at = match.end()
        tokens.append(Token("end", _END))
        return tokens

    def peek(self, ahead: int = 0) -> Token:
        """Return the token `ahead` of the next one, without taking it."""
        return self._tokens[min(self._at + ahead, len(self._tokens) - 1)]

    def take(self) -> Token:
        """Take and return the next token."""
        token = self.peek()
        self._at = min(self._at + 1, len(self._tokens) - 1)
        return token

    def takes(self, *texts: str) -> bool:
        """Take the next token if it is one of these signs or keywords (in any case)."""
        token = self.peek()
        if token.kind in ("sign", "word") and token.text.upper() in texts:
            self.take()
            return True
        return False

    def expect(self, text: str) -> None:
        """Take this sign or keyword, or raise a syntax error."""
        if not self.takes(text):
            raise self.syntax_error()

    def syntax_error(self) -> ServiceError:
        """Return the error for a token that is not allowed here."""
        token = self.peek().text or "<EOF>"
        near = " ".join(t.text for t in self._tokens[max(0, self._at - 1) : self._at + 2]).strip()
        return validation(f'Invalid {self.member}: Syntax error; token: "{token}", near: "{near}"')

    def path(self) -> Path:
        """Take and return a document path: `a`, `#a.b[2].c`."""
        parts: list[str | int] = [self._path_name()]
        while True:
            if self.takes("."):
                parts.append(self._path_name())
            elif self.takes("["):
                if self.peek().kind != "index":
                    raise self.syntax_error()
                parts.append(int(self.take().text))
                self.expect("]")
            else:
                return tuple(parts)

    def _path_name(self) -> str:
        token = self.peek()
        if token.kind == "alias":
            return self.placeholders.name(self.take().text, self.member)
        if token.kind != "word":
            raise self.syntax_error()
        if token.text.upper() in RESERVED_WORDS:
            raise validation(
                f"Invalid {self.member}: Attribute name is a reserved keyword; "
                f"reserved keyword: {token.text}"
            )
        return self.take().text

    def at_path(self) -> bool:
        """Return whether the next token can start a document path."""
        return self.peek().kind in ("alias", "word")

    def require_end(self) -> None:
        """Raise a syntax error if a token is left."""
        if self.peek().kind != "end":
            raise self.syntax_error()


def resolve(item: Item, path: Path) -> Attribute | None:
    """Return the value at a document path, None if there is none."""
    value: Attribute | None = item.get(str(path[0]))
    for part in path[1:]:
        if value is None:
            return None
        if isinstance(part, int):
            elements = value.get("L")
            value = elements[part] if elements is not None and part < len(elements) else None
        else:
            members = value.get("M")
            value = members.get(part) if members is not None else None
    return value


def require_disjoint(paths: Sequence[Path], member: str) -> None:
    """Refuse paths of which one lies within the other, or that take one value for map and list."""
    ordered = sorted(paths, key=lambda path: [(isinstance(p, int), p) for p in path])
    for one, other in itertools.pairwise(ordered):
        if other[: len(one)] == one:
            raise _refused(member, "overlap", one, other)
    members: dict[Path, Path] = {}
    for path in paths:
        for length in range(1, len(path)):
            first = members.setdefault(path[:length], path)
            if isinstance(first[length], int) != isinstance(path[length], int):
                raise _refused(member, "conflict", first, path)


def _refused(member: str, how: str, one: Path, other: Path) -> ServiceError:
    return validation(
        f"Invalid {member}: Two document paths {how} with each other; must remove or rewrite one "
        f"of these paths; path one: {_shown(one)}, path two: {_shown(other)}"
    )


def _shown(path: Path) -> str:
    return f"[{', '.join(f'[{part}]' if isinstance(part, int) else part for part in path)}]"
