"""Keys to erase: as an operator writes them, and as the tables have them. Pure.

The tables have a key as canonical text, and in the records of the change log as DynamoDB JSON. Of
a masked source they have the masked key; rows from before the mask have the plain one: both are
searched.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import product

import pyarrow as pa
import pyarrow.compute as pc

from datazone_dagster.errors import DefinitionError
from datazone_dagster.items.keys import canonical_key, key_column
from datazone_dagster.model.column_names import KEY, Log
from datazone_dagster.model.number import canonical_number

_PAIR = re.compile(r"\s*([^=\s]+)\s*=\s*(.*?)\s*", re.DOTALL)
_DISTINCT_CHARS = 8
"""Length from which a text in a malformed record counts as a key's value without quotes around."""

Key = Mapping[str, Mapping[str, str]]
"""Key attributes in DynamoDB JSON."""


@dataclass(frozen=True, slots=True)
class ErasedKey:
    """One key, in every form that a table may have.

    Args:
        label: Name of the key in reports; it holds no part of the key.
        canonical: Canonical texts.
        texts: Values of its attributes, one alternative each, to find in a malformed record.
        names: Names of its attributes.
    """

    label: str
    canonical: frozenset[str]
    texts: tuple[tuple[str, ...], ...]
    names: frozenset[str]


class ErasedKeys:
    """The keys of one erasure, and the searches for their rows."""

    def __init__(self, keys: Iterable[ErasedKey]) -> None:
        self.keys = tuple(keys)
        self._labels = {text: key.label for key in self.keys for text in key.canonical}
        self._canonical = pa.array(list(self._labels), pa.string())
        self._names = pa.array(list(self._labels.values()), pa.string())

    @property
    def values(self) -> frozenset[str]:
        """All values of key attributes, as texts."""
        return frozenset(text for key in self.keys for one in key.texts for text in one)

    def in_rows(self, rows: pa.RecordBatch) -> pa.Array:
        """Return the label of the key of each row with a canonical key; null: another key."""
        return self._labelled(rows.column(KEY))

    def in_records(self, records: pa.RecordBatch) -> pa.Array:
        """Return the label of the key of each change; null: another key.

        A record that could not be parsed has no key, but its text: a text that has all values of
        a key counts as a record of it.
        """
        keys, _ = key_column(records.column(Log.KEYS))
        raw = records.column(Log.RAW)
        if raw.null_count == len(raw):
            return self._labelled(keys)
        texts = pa.array([self._label_in(text) for text in raw.to_pylist()], pa.string())
        return pc.coalesce(self._labelled(keys), texts)

    def _labelled(self, canonical: pa.Array) -> pa.Array:
        return self._names.take(pc.index_in(canonical, self._canonical))

    def _label_in(self, raw: str | None) -> str | None:
        if raw is None:
            return None
        for key in self.keys:
            if all(any(_is_in(text, raw) for text in one) for one in key.texts):
                return key.label
        return None


def parse_keys(texts: Iterable[str], mask: Callable[[bytes], bytes] | None = None) -> ErasedKeys:
    """Read keys as an operator writes them.

    Args:
        texts: Keys as DynamoDB JSON, `{"id": {"S": "a"}}`, or as `name=value`, with a comma
            between two attributes; such a value is taken for a string and for a number.
        mask: Function that masks a key as the drain does; None if the source has no mask.

    Raises:
        DefinitionError: A text is no key; the message names its place, not its value.
        MaskError: The mask can't be applied.
    """
    keys = []
    for number, text in enumerate(texts, 1):
        plain = _json_keys(text, number) if text.lstrip().startswith("{") else _pairs(text, number)
        canonical: set[str] = set()
        values: dict[str, set[str]] = {}
        for key in plain:
            masked = [key] if mask is None else [key, _decoded(mask(json.dumps(key).encode()))]
            for one in masked:
                canonical.add(_canonical(one, number))
                for name, typed in one.items():
                    values.setdefault(name, set()).update(typed.values())
        texts_by_name = tuple(tuple(sorted(found)) for found in values.values())
        label = f"key {number}"
        keys.append(ErasedKey(label, frozenset(canonical), texts_by_name, frozenset(values)))
    if not keys:
        raise DefinitionError(
            "No key is given.",
            hint="""Name the items to erase: --key id=a, --key '{"id": {"S": "a"}}' or --file.""",
        )
    return ErasedKeys(keys)


def check_names(keys: ErasedKeys, stored: Iterable[str]) -> None:
    """Compare the names of the keys with those that the change log has.

    Raises:
        DefinitionError: A key has other attributes: it would be found nowhere, which looks like
            an erasure that is done.
    """
    expected = frozenset(stored)
    for key in keys.keys:
        if expected and key.names != expected:
            raise DefinitionError(
                f"The {key.label} has the attributes {', '.join(sorted(key.names))}, but the key "
                f"of the table is {', '.join(sorted(expected))}.",
                safe="Nothing was erased.",
                hint="Give exactly the attributes of the table's key.",
            )


def _json_keys(text: str, number: int) -> list[Key]:
    try:
        key = json.loads(text)
        canonical_key(json.dumps(key, ensure_ascii=False))
    except ValueError as error:
        raise _no_key(number) from error
    return [key]


def _pairs(text: str, number: int) -> list[Key]:
    """Return a key as strings and as numbers: a table's key attribute has one type."""
    names, choices = [], []
    for pair in text.split(","):
        found = _PAIR.fullmatch(pair)
        if found is None or found[1] in names:
            raise _no_key(number)
        names.append(found[1])
        choices.append([{"S": found[2]}, *_as_number(found[2])])
    if len(names) > 2:
        raise _no_key(number)
    return [dict(zip(names, one, strict=True)) for one in product(*choices)]


def _as_number(text: str) -> list[Mapping[str, str]]:
    try:
        return [{"N": canonical_number(text)}]
    except ValueError:
        return []


def _canonical(key: Key, number: int) -> str:
    try:
        return canonical_key(json.dumps(key, ensure_ascii=False))
    except ValueError as error:
        raise _no_key(number) from error


def _decoded(keys: bytes) -> Key:
    decoded: Key = json.loads(keys)
    return decoded


def _is_in(text: str, raw: str) -> bool:
    spelled = {json.dumps(text), json.dumps(text, ensure_ascii=False)}
    return any(one in raw for one in spelled) or (len(text) >= _DISTINCT_CHARS and text in raw)


def _no_key(number: int) -> DefinitionError:
    return DefinitionError(
        f"Key {number} is no key of an item.",
        safe="Nothing was erased.",
        hint="""Write it as DynamoDB JSON, '{"id": {"S": "a"}}', or as id=a; two attributes as """
        "pk=a,sk=1. A value with a comma or an equals sign needs the JSON.",
    )
