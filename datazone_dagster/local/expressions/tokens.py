"""Words of an expression, the placeholders of its request, and document paths."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from datazone_dagster.local.expressions.reserved import RESERVED_WORDS
from datazone_dagster.local.service_errors import ServiceError, validation
from datazone_dagster.local.values import Attribute, Item, checked_value

Path = tuple[str | int, ...]
"""A document path: an attribute name, then names of maps and indexes of lists."""

_TOKEN = re.compile(
    r"\s*(?:(?P<value>:[A-Za-z0-9_]+)|(?P<alias>#[A-Za-z0-9_]+)"
    r"|(?P<word>[A-Za-z_][A-Za-z0-9_]*)|(?P<index>\d+)"
    r"|(?P<sign><>|<=|>=|[=<>()\[\],.+-]))"
)
_END = ""


class Token(NamedTuple):
    """One word of an expression. `kind` is value, alias, word, index, sign or end."""

    kind: str
    text: str


class Placeholders:
    """ExpressionAttributeNames and ExpressionAttributeValues of one request.

    Values are validated once. What no expression used is an error, as in the service.
    """

    def __init__(self, names: Mapping[str, Any] | None, values: Mapping[str, Any] | None) -> None:
        if names is not None and not names:
            raise validation("ExpressionAttributeNames must not be empty")
        if values is not None and not values:
            raise validation("ExpressionAttributeValues must not be empty")
        self._names = dict(names or {})
        self._values = {key: checked_value(value) for key, value in (values or {}).items()}
        self._used: set[str] = set()

    def name(self, alias: str, part: str) -> str:
        """The attribute name behind `#alias`."""
        if alias not in self._names:
            raise validation(
                f"Invalid {part}: An expression attribute name used in the document path "
                f"is not defined; attribute name: {alias}"
            )
        self._used.add(alias)
        name = self._names[alias]
        if not isinstance(name, str):
            raise ServiceError("SerializationException", "Expected a string")
        return name

    def value(self, key: str, part: str) -> Attribute:
        """The attribute value behind `:key`."""
        if key not in self._values:
            raise validation(
                f"Invalid {part}: An expression attribute value used in expression "
                f"is not defined; attribute value: {key}"
            )
        self._used.add(key)
        return self._values[key]

    def require_all_used(self) -> None:
        """Refuse placeholders that no expression of the request used."""
        for member, given in (("Names", self._names), ("Values", self._values)):
            unused = sorted(set(given) - self._used)
            if unused:
                raise validation(
                    f"Value provided in ExpressionAttribute{member} unused in expressions: "
                    f"keys: {{{', '.join(unused)}}}"
                )


class TokenStream:
    """Tokens of one expression with one word of lookahead.

    Args:
        expression: The text.
        part: The request member it came in; error messages name it.
        placeholders: The request's names and values.
    """

    def __init__(self, expression: str, part: str, placeholders: Placeholders) -> None:
        if not expression.strip():
            raise validation(f"Invalid {part}: The expression can not be empty;")
        self.part, self.placeholders = part, placeholders
        self._tokens = list(self._split(expression))
        self._at = 0

    def _split(self, expression: str) -> Sequence[Token]:
        tokens, at = [], 0
        text = expression.rstrip()
        while at < len(text):
            match = _TOKEN.match(text, at)
            if match is None or match.lastgroup is None:
                raise validation(
                    f'Invalid {self.part}: Syntax error; token: "{text[at:].strip()[:1]}", '
                    f'near: "{text[max(0, at - 8) : at + 8].strip()}"'
                )
            tokens.append(Token(match.lastgroup, match.group(match.lastgroup)))
            at = match.end()
        tokens.append(Token("end", _END))
        return tokens

    def peek(self, ahead: int = 0) -> Token:
        """The next token, not taken."""
        return self._tokens[min(self._at + ahead, len(self._tokens) - 1)]

    def take(self) -> Token:
        """The next token."""
        token = self.peek()
        self._at = min(self._at + 1, len(self._tokens) - 1)
        return token

    def takes(self, *texts: str) -> bool:
        """Take the next token if it is this sign or this keyword (in any case)."""
        token = self.peek()
        if token.kind in ("sign", "word") and token.text.upper() in texts:
            self.take()
            return True
        return False

    def expect(self, text: str) -> None:
        """Take exactly this sign or keyword."""
        if not self.takes(text):
            raise self.syntax_error()

    def syntax_error(self) -> ServiceError:
        """The error for a token that can't stand here."""
        token = self.peek().text or "<EOF>"
        near = " ".join(t.text for t in self._tokens[max(0, self._at - 1) : self._at + 2]).strip()
        return validation(f'Invalid {self.part}: Syntax error; token: "{token}", near: "{near}"')

    def path(self) -> Path:
        """A document path: `a`, `#a.b[2].c`."""
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
            return self.placeholders.name(self.take().text, self.part)
        if token.kind != "word":
            raise self.syntax_error()
        if token.text.upper() in RESERVED_WORDS:
            raise validation(
                f"Invalid {self.part}: Attribute name is a reserved keyword; "
                f"reserved keyword: {token.text}"
            )
        return self.take().text

    def at_path(self) -> bool:
        """Whether the next token can start a document path."""
        return self.peek().kind in ("alias", "word")

    def require_end(self) -> None:
        """Nothing may follow."""
        if self.peek().kind != "end":
            raise self.syntax_error()


def resolve(item: Item, path: Path) -> Attribute | None:
    """The value at a document path, None where there is nothing."""
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


def require_disjoint(paths: Sequence[Path], part: str) -> None:
    """Refuse two paths of which one lies within the other, or that conflict in kind."""
    ordered = sorted(paths, key=lambda path: [(isinstance(p, int), p) for p in path])
    for one, other in itertools.pairwise(ordered):
        if other[: len(one)] == one:
            raise validation(
                f"Invalid {part}: Two document paths overlap with each other; must remove or "
                f"rewrite one of these paths; path one: {_shown(one)}, path two: {_shown(other)}"
            )


def _shown(path: Path) -> str:
    return f"[{', '.join(f'[{part}]' if isinstance(part, int) else part for part in path)}]"
