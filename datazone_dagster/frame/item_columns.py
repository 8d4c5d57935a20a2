"""The columns of items as they grow: declared ones, those of new attributes, and siblings."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

from datazone_dagster.errors import ExpressionError
from datazone_dagster.frame.item_types import (
    SCALAR_NAMES,
    TYPE_OF,
    descriptors_of,
    parse_type,
    type_text,
)
from datazone_dagster.model.attributes import MAX_ATTRIBUTES, AttributeColumn, AttributeMapping


class ItemColumns:
    """A mapping that grows, with what tells fast which column takes a value."""

    def __init__(self, mapping: AttributeMapping, key_names: frozenset[str]) -> None:
        self.mapping = mapping
        self._key_names = key_names
        self._of: dict[str, list[AttributeColumn]] = {}
        for column in mapping:
            self._of.setdefault(column.attribute, []).append(column)

    def declare(self, types: Mapping[str, str]) -> None:
        """Columns of declared types.

        Raises:
            ExpressionError: There is no such type, or the column is of another type already.
        """
        for attribute, declared in types.items():
            wanted = _declared(attribute, declared)
            if attribute not in self._of:
                usual = descriptors_of(parse_type(wanted))[0]
                self._add(attribute, usual, wanted, declared=True)
                continue
            first = self._of[attribute][0]
            if first.type != wanted:
                raise ExpressionError(
                    f"items(types={{{attribute!r}: {declared!r}}}): the column {first.column!r} "
                    f"is {first.type} already.",
                    safe="Nothing was written.",
                    hint="Keep that type, or select the attribute under another name.",
                )

    def grow(self, seen: Iterable[tuple[str, str]]) -> None:
        """Columns for attributes and descriptors that had none, while there is room."""
        for attribute, descriptor in seen:
            known = attribute in self._of
            full = not known and len(self._of) >= MAX_ATTRIBUTES
            if descriptor == "NULL" or full or self.column_for(attribute, descriptor) is not None:
                continue
            text_only = known and descriptor == "N"  # as its other exact texts
            kind = "string" if text_only else TYPE_OF[descriptor]
            self._add(attribute, descriptor, kind, exact=text_only)

    def grow_keys(self, keys: Iterable[tuple[str, str]]) -> str | None:
        """Columns for key attributes. A key keeps its type: a column beside it is none.

        Returns:
            The first key attribute that is of another type than its column, if there is one.
        """
        for attribute, descriptor in keys:
            known = self._of.get(attribute)
            if known is not None and self.column_for(attribute, descriptor) is not known[0]:
                return attribute
            self.grow([(attribute, descriptor)])
        return None

    def column_for(self, attribute: str, descriptor: str) -> AttributeColumn | None:
        """The column that takes an attribute's values of a descriptor."""
        taking = [
            column
            for column in self._of.get(attribute, ())
            if (
                descriptor in descriptors_of(parse_type(column.type))
                if column.declared
                else column.descriptor == descriptor
            )
        ]
        return next((c for c in taking if not c.exact), taking[0] if taking else None)

    def sibling_of(self, column: AttributeColumn, descriptor: str) -> AttributeColumn:
        """The column that takes what a typed one can't hold, added if there is none."""
        for other in self._of[column.attribute]:
            if other.descriptor == descriptor and other.exact:
                return other
        kinds = {"SS": "list<string>", "NS": "list<string>", "BS": "list<string>"}
        kinds |= {"L": "json", "M": "json"}
        return self._add(column.attribute, descriptor, kinds.get(descriptor, "string"), exact=True)

    def output(self, prefix: str, column: AttributeColumn) -> str:
        """The name of a column in the rows: with the prefix of its image, except for keys."""
        if column.attribute in self._key_names:
            return column.column
        name = prefix + column.column
        keys = {c.column.casefold() for key in self._key_names for c in self._of.get(key, ())}
        if prefix and name.casefold() in keys:
            name += "_" + hashlib.sha256(name.encode()).hexdigest()[:8]
        return name

    def _add(
        self,
        attribute: str,
        descriptor: str,
        type: str,
        *,
        declared: bool = False,
        exact: bool = False,
    ) -> AttributeColumn:
        self.mapping = self.mapping.with_column(
            attribute, descriptor, type, declared=declared, exact=exact
        )
        added = self.mapping.columns[-1]
        self._of.setdefault(attribute, []).append(added)
        return added


def _declared(attribute: str, declared: str) -> str:
    """A type as the user declares it, in the one way that it is stored."""
    try:
        return type_text(parse_type(str(declared)))
    except ValueError as error:
        raise ExpressionError(
            f"items(types={{{attribute!r}: {declared!r}}}): there is no such type: {error}.",
            hint=f"Declare {SCALAR_NAMES}, json, list<T>, map<string,T> or "
            "struct<name:T,...> of them.",
        ) from error
