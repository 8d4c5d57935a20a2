"""What the first items of a run have: usually, all others have nothing else.

They are looked at in Python: a few hundred items take less time than one query.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Literal

import msgspec
import pyarrow as pa

from datazone_dagster.frame.discovery import KnownItems, Seen
from datazone_dagster.frame.paths import SETS
from datazone_dagster.frame.plain import NotDynamoDBJsonError, decoded

FIRST_ROWS = 1024
"""Items that are looked at before all are read by what these have."""

_SAMPLES = 200
"""Values of an attribute that its structure is learnt from."""

_CONTAINERS = frozenset({*SETS, "L", "M"})
_MAY_BE_EMPTY = frozenset({"L", "M"})
_EMPTY = ("[]", "{}")

_Descriptor = Literal["S", "N", "B", "BOOL", "NULL", "SS", "NS", "BS", "L", "M"]
_Item = Mapping[str, Mapping[_Descriptor, msgspec.Raw]]
_decode = msgspec.json.Decoder(dict[str, dict[_Descriptor, msgspec.Raw]]).decode


class UnusualItemError(Exception):
    """An image is not an item that can be relied on: all of them are to be looked at."""


class FirstImages:
    """Attributes of some images, in the order in which a look at all of them finds them.

    Args:
        images: Texts of each image, by row; null for no image.
        has_column: Whether an attribute with a descriptor has a column.

    Attributes:
        seen: Attributes with their descriptors.
        samples: Texts of the values of sets, lists and maps, some of each attribute.

    Raises:
        UnusualItemError: An image is not an item, or an attribute has only empty lists or maps,
            which have no type, and no column.
    """

    def __init__(
        self, images: Iterable[pa.ChunkedArray], has_column: Callable[[str, str], bool]
    ) -> None:
        self.samples: dict[tuple[str, str], list[str]] = {}
        self._has_column = has_column
        self._first: dict[tuple[int, str, str], tuple[int, int]] = {}
        self._only_empty: dict[tuple[int, str, str], int] = {}
        for at, texts in enumerate(images):
            for row, text in enumerate(texts.to_pylist()):
                if text is not None:
                    self._look(at, row, _item(text))
        if self._only_empty:
            raise UnusualItemError
        found = sorted(
            (row, at, position, name, kind)
            for (at, name, kind), (row, position) in self._first.items()
        )
        self.seen: Seen = {(name, kind): None for *_, name, kind in found}

    def _look(self, image: int, row: int, item: _Item) -> None:
        for position, (name, value) in enumerate(item.items()):
            if len(value) != 1:
                raise UnusualItemError
            ((kind, content),) = value.items()
            where = image, name, kind
            if kind not in _CONTAINERS:
                self._first.setdefault(where, (row, position))
                continue
            text = bytes(content).decode()
            samples = self.samples.setdefault((name, kind), [])
            if len(samples) < _SAMPLES:
                samples.append(text)
            if where in self._first:
                continue
            first = self._only_empty.setdefault(where, position)
            is_typed = kind not in _MAY_BE_EMPTY or self._has_column(name, kind)
            if is_typed or "".join(text.split()) not in _EMPTY:
                self._first[where] = row, first
                del self._only_empty[where]

    def learn_contents(self, known: KnownItems, are_json: Callable[[str, str], bool]) -> None:
        """Add the structures of the values that become plain JSON text to what is known."""
        try:
            for (name, kind), texts in self.samples.items():
                if are_json(name, kind):
                    known.learn_content(name, kind, [{kind: decoded(text)} for text in texts])
        except NotDynamoDBJsonError as error:
            raise UnusualItemError from error


def _item(text: str) -> _Item:
    try:
        return _decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise UnusualItemError from error
