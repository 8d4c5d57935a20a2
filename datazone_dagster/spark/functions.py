"""Functions, operators and casts that are the same in DuckDB and in Spark, as Spark SQL. Pure.

What is not here is refused. A cast of a text is exact or an error: texts that the two engines read
in different ways raise `REFUSED` in Spark, and the library's own engine then decides.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from datazone_dagster.spark.spark_text import text_of

REFUSED = "datazone_dagster: a text that only DuckDB can cast"
"""Message of the error that a query raises for values to be left to the library's own engine."""


class Kind(NamedTuple):
    """A type of a value, by what can be done with it.

    Args:
        name: `text`, `bool`, `integer`, `decimal`, `float`, `date`, `time`, `binary`, `null`,
            `list`, `struct` or `other`.
        precision: Digits of a number.
        scale: Digits after the point.
    """

    name: str
    precision: int = 0
    scale: int = 0

    @property
    def is_exact(self) -> bool:
        """Whether it is an exact number."""
        return self.name in {"integer", "decimal"}

    @property
    def family(self) -> str:
        """Name that is the same for types whose values can be compared."""
        return "number" if self.is_exact else self.name


MOST_DIGITS = 38
"""Digits of the longest decimal, in both engines."""

NOT_COMPARED = frozenset({"list", "struct", "other"})
"""Names of kinds whose values are not compared, and not cast."""


class Typed(NamedTuple):
    """An expression.

    Args:
        sql: Its Spark SQL.
        kind: Kind of its type.
        type: Its type in DuckDB.
        text: Its value if it is a constant text.
        number: Its value if it is a constant integer.
    """

    sql: str
    kind: Kind
    type: str
    text: str | None = None
    number: int | None = None


class NotTheSameError(ValueError):
    """An expression that has no equal in Spark. The message says which one and why."""


_DECIMAL = re.compile(r"DECIMAL\((\d+),(\d+)\)")
_KINDS = {
    "VARCHAR": Kind("text"),
    "BOOLEAN": Kind("bool"),
    "TINYINT": Kind("integer", 3),
    "SMALLINT": Kind("integer", 5),
    "INTEGER": Kind("integer", 10),
    "BIGINT": Kind("integer", 19),
    "FLOAT": Kind("float"),
    "DOUBLE": Kind("float"),
    "DATE": Kind("date"),
    "TIMESTAMP": Kind("time"),
    "TIMESTAMP WITH TIME ZONE": Kind("time"),
    "BLOB": Kind("binary"),
    '"NULL"': Kind("null"),
}
_LONG_IN_SPARK = Kind("integer", 20)
"""Spark counts 20 digits of a long when it compares it with a decimal."""

_SPARK = {
    "VARCHAR": "STRING",
    "INTEGER": "INT",
    "TIMESTAMP": "TIMESTAMP",
    "TIMESTAMP WITH TIME ZONE": "TIMESTAMP",
    "BLOB": "BINARY",
    '"NULL"': "STRING",
}


def kind_of(duckdb_type: str) -> Kind:
    """Return the kind of a DuckDB type."""
    match = _DECIMAL.fullmatch(duckdb_type)
    if match is not None:
        return Kind("decimal", int(match[1]), int(match[2]))
    if duckdb_type.endswith("[]"):
        return Kind("list")
    if duckdb_type.startswith("STRUCT("):
        return Kind("struct")
    return _KINDS.get(duckdb_type, Kind("other"))


def spark_type(duckdb_type: str) -> str:
    """Return the Spark type of a value of a DuckDB type.

    Raises:
        NotTheSameError: There is none.
    """
    kind = kind_of(duckdb_type)
    if kind.name in NOT_COMPARED:
        raise NotTheSameError(f"the type {duckdb_type} is not supported")
    return _SPARK.get(duckdb_type, duckdb_type)


def as_type(value: Typed, duckdb_type: str) -> str:
    """Return the SQL of a value in another type that DuckDB gives it without a cast.

    Raises:
        NotTheSameError: Spark may give another value.
    """
    target = kind_of(duckdb_type)
    if value.type == duckdb_type:
        return value.sql
    if value.kind.name == "null" or value.kind.family == target.family:
        return f"CAST({value.sql} AS {spark_type(duckdb_type)})"
    raise NotTheSameError(f"{value.type} becomes {duckdb_type} here; write a cast")


def comparable(*values: Typed) -> None:
    """Check that values can be compared without a cast.

    Raises:
        NotTheSameError: They are of different kinds.
    """
    families = {value.kind.family for value in values} - {"null"}
    kinds = " and ".join(sorted({value.type for value in values}))
    if len(families) > 1 or families & NOT_COMPARED:
        raise NotTheSameError(f"{kinds} are compared; cast one of them")
    exact = [value.kind for value in values if value.kind.is_exact]
    exact += [_LONG_IN_SPARK] if _KINDS["BIGINT"] in exact else []
    if exact and _common_digits(exact) > MOST_DIGITS:
        # Spark rounds both to a type with fewer digits after the point, so 1.4 would equal 1.
        raise NotTheSameError(
            f"{kinds} are compared, which needs over {MOST_DIGITS} digits; cast one of them"
        )


def _common_digits(kinds: Sequence[Kind]) -> int:
    """Return the digits of the type that holds numbers of all of these types."""
    whole = max(kind.precision - kind.scale for kind in kinds)
    return whole + max(kind.scale for kind in kinds)


_END = "\\z"
"""End of the text: `$` would allow a line break before it."""

_INTEGER_TEXT = "^[+-]?[0-9]{1,18}\\z"
_NUMBER_TEXT = "^[+-]?[0-9]{1,37}([.][0-9]{1,37})?\\z"
_DATE_TEXT = "^(19|[2-9][0-9])[0-9]{2}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])\\z"
_TIME_TEXT = (
    "^(19|[2-9][0-9])[0-9]{2}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])"
    "([ T]([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]([.][0-9]{1,6})?)?"
)
_TEXTS = {
    "integer": _INTEGER_TEXT,
    "decimal": _NUMBER_TEXT,
    "float": _NUMBER_TEXT,
    "bool": "^([tT][rR][uU][eE]|[fF][aA][lL][sS][eE])\\z",
    "date": _DATE_TEXT,
}
EXACT_IN_A_DOUBLE = 15
"""Digits that a double holds exactly."""

PLAIN_SCALE = 6
"""Digits after the point up to which Spark writes a decimal without an exponent."""

_SAME_CASTS = {("bool", "text"), ("time", "date"), ("date", "time"), ("time", "time")}


def cast_sql(value: Typed, duckdb_type: str) -> str:
    """Return the SQL of a cast.

    Raises:
        NotTheSameError: The two engines may give different values.
    """
    source, target, spark = value.kind, kind_of(duckdb_type), spark_type(duckdb_type)
    if source.name == "text":
        return _from_text(value.sql, target, duckdb_type, spark)
    if source.is_exact and target.name == "integer":
        return f"CAST(round({value.sql}, 0) AS {spark})"
    if source.name == "decimal" and target.name == "float":
        if source.precision > EXACT_IN_A_DOUBLE:
            raise NotTheSameError(f"{value.type} is cast to {duckdb_type}, which rounds")
    elif not (
        value.type == duckdb_type
        or source.name == "null"
        or (source.is_exact and target.name in {"decimal", "float"})
        or (source.is_exact and target.name == "text" and _is_plain(source))
        or (source.name, target.name) in _SAME_CASTS
    ):
        raise NotTheSameError(f"{value.type} is cast to {duckdb_type}")
    return f"CAST({value.sql} AS {spark})"


def _is_plain(number: Kind) -> bool:
    """Return whether both engines write a number alike: DuckDB writes .5 if no digit is before."""
    return number.scale <= PLAIN_SCALE and number.precision > number.scale


def _from_text(sql: str, target: Kind, duckdb_type: str, spark: str) -> str:
    if target.name == "text":
        return sql
    pattern = _TEXTS.get(target.name)
    if target.name == "time":
        zone = "(Z|[+-](0[0-9]|1[0-4]):[0-5][0-9])?" if "ZONE" in duckdb_type else "Z?"
        pattern = f"{_TIME_TEXT}{zone}{_END}"
    if pattern is None:
        raise NotTheSameError(f"a text is cast to {duckdb_type}")
    return (
        f"CASE WHEN {sql} IS NULL THEN NULL WHEN {sql} RLIKE {text_of(pattern)} "
        f"THEN CAST({sql} AS {spark}) ELSE CAST(raise_error({text_of(REFUSED)}) AS {spark}) END"
    )


Rule = Callable[[Sequence[Typed], str], str]
"""Returns the SQL of a call from its arguments and its type in DuckDB."""


def _texts(form: str, count: int) -> Rule:
    def rule(given: Sequence[Typed], _: str) -> str:
        require(len(given) == count, f"it takes {count} texts")
        require(all(one.kind.name in {"text", "null"} for one in given), "it takes texts only")
        return form.format(*(one.sql for one in given))

    return rule


def _length(given: Sequence[Typed], kind: str) -> str:
    if given[0].kind.name == "list":
        return f"CASE WHEN {given[0].sql} IS NOT NULL THEN CAST(size({given[0].sql}) AS BIGINT) END"
    return _texts("length({})", 1)(given, kind)


def _replace(given: Sequence[Typed], kind: str) -> str:
    require(len(given) == 3 and bool(given[1].text), "what it replaces is a constant text")
    return _texts("replace({}, {}, {})", 3)(given, kind)


def _substring(given: Sequence[Typed], _: str) -> str:
    numbers = [one.number for one in given[1:]]
    require(
        len(numbers) in {1, 2}
        and given[0].kind.name == "text"
        and all(one is not None for one in numbers)
        and (numbers[0] or 0) >= 1
        and (numbers[-1] or 0) >= 0,
        "it takes a text, a constant position from 1 on, and a constant length",
    )
    return f"substring({', '.join(one.sql for one in given)})"


def _like(form: str) -> Rule:
    def rule(given: Sequence[Typed], _: str) -> str:
        pattern = given[1].text
        require(
            given[0].kind.name == "text" and pattern is not None and "\\" not in pattern,
            "the pattern is a constant text without a backslash",
        )
        return form.format(given[0].sql, given[1].sql)

    return rule


def _sum(operator: str) -> Rule:
    def rule(given: Sequence[Typed], kind: str) -> str:
        require(all(one.kind.is_exact for one in given), "it takes integers and decimals only")
        target = kind_of(kind)
        require(target.is_exact, f"its result is {kind}")
        if len(given) == 1:
            require(operator == "-", "it takes two numbers")
            return f"CAST(-({given[0].sql}) AS {spark_type(kind)})"
        if target.name == "integer":
            return f" {operator} ".join(f"CAST({one.sql} AS {spark_type(kind)})" for one in given)
        digits = _digits(operator, [one.kind for one in given])
        require(digits <= MOST_DIGITS, f"it has over {MOST_DIGITS} digits")
        sides = [
            f"CAST({one.sql} AS DECIMAL({one.kind.precision},{one.kind.scale}))" for one in given
        ]
        return f"CAST(({sides[0]} {operator} {sides[1]}) AS {spark_type(kind)})"

    return rule


def _digits(operator: str, kinds: Sequence[Kind]) -> int:
    """Return the digits that the result of a sum or a product of decimals may have."""
    if operator == "*":
        return sum(kind.precision for kind in kinds) + 1
    return _common_digits(kinds) + 1


def _same_family(form: str) -> Rule:
    def rule(given: Sequence[Typed], kind: str) -> str:
        comparable(*given)
        return form.format(", ".join(as_type(one, kind) for one in given))

    return rule


def _concat(given: Sequence[Typed], _: str) -> str:
    require(all(one.kind.name in {"text", "null"} for one in given), "it takes texts only")
    return f"concat_ws('', {', '.join(one.sql for one in given)})"


def _nullif(given: Sequence[Typed], _: str) -> str:
    comparable(*given)
    return f"nullif({given[0].sql}, {given[1].sql})"


def _milliseconds(given: Sequence[Typed], kind: str) -> str:
    require(given[0].kind.name == "integer" and kind == "TIMESTAMP", "it takes an integer")
    # timestamp_millis fails with an error without a class if this is too large.
    return f"timestamp_micros(CAST({given[0].sql} AS BIGINT) * 1000L)"


def require(is_so: bool, reason: str) -> None:
    """Raise `NotTheSameError` for a reason unless something is so."""
    if not is_so:
        raise NotTheSameError(reason)


FUNCTIONS: dict[str, Rule] = {
    "||": _texts("concat({}, {})", 2),
    "concat": _concat,
    "length": _length,
    "len": _length,
    "strlen": _texts("octet_length({})", 1),
    "contains": _texts("contains({}, {})", 2),
    "starts_with": _texts("startswith({}, {})", 2),
    "prefix": _texts("startswith({}, {})", 2),
    "^@": _texts("startswith({}, {})", 2),
    "ends_with": _texts("endswith({}, {})", 2),
    "suffix": _texts("endswith({}, {})", 2),
    "md5": _texts("md5({})", 1),
    "sha256": _texts("sha2({}, 256)", 1),
    "replace": _replace,
    "substring": _substring,
    "substr": _substring,
    "~~": _like("({} LIKE {})"),
    "!~~": _like("({} NOT LIKE {})"),
    "+": _sum("+"),
    "-": _sum("-"),
    "*": _sum("*"),
    "greatest": _same_family("greatest({})"),
    "least": _same_family("least({})"),
    "nullif": _nullif,
    "epoch_ms": _milliseconds,
}
"""The functions, by their names in DuckDB."""

NOT_THE_SAME = {
    "lower": "they change other letters than a to z in different ways",
    "upper": "they change other letters than a to z in different ways",
    "lcase": "they change other letters than a to z in different ways",
    "ucase": "they change other letters than a to z in different ways",
    "trim": "they take other characters for spaces",
    "ltrim": "they take other characters for spaces",
    "rtrim": "they take other characters for spaces",
    "/": "they divide decimals, and by zero, in different ways; divide downstream",
    "round": "they round in different ways; cast to a decimal",
    "strftime": "their formats differ; format downstream",
    "regexp_matches": "their regular expressions differ; use LIKE",
}
"""Why some well-known functions are not among them."""
