"""Growth of the item columns: declared columns, columns for new attributes, and siblings."""

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
    """A growing mapping with an index from an attribute to its columns."""

    def __init__(self, mapping: AttributeMapping, key_names: frozenset[str]) -> None:
        self.mapping = mapping
        self._key_names = key_names
        self._by_attribute: dict[str, list[AttributeColumn]] = {}
        for column in mapping:
            self._by_attribute.setdefault(column.attribute, []).append(column)

    def declare(self, types: Mapping[str, str]) -> None:
        """Add columns of declared types.

        Raises:
            ExpressionError: The type is unknown, or the column already has a different type.
        """
        for attribute, declared in types.items():
            wanted = _declared(attribute, declared)
            if attribute not in self._by_attribute:
                usual = descriptors_of(parse_type(wanted))[0]
                self._add(attribute, usual, wanted, declared=True)
                continue
            first = self._by_attribute[attribute][0]
            if first.type != wanted:
                raise ExpressionError(
                    f"items(types={{{attribute!r}: {declared!r}}}): the column {first.column!r} "
                    f"already has type {first.type}.",
                    safe="Nothing was written.",
                    hint="Keep the existing type, or select the attribute under another name.",
                )

    def grow(self, seen: Iterable[tuple[str, str]]) -> None:
        """Add columns for new attributes and descriptors, up to `MAX_ATTRIBUTES` attributes."""
        for attribute, descriptor in seen:
            known = attribute in self._by_attribute
            full = not known and len(self._by_attribute) >= MAX_ATTRIBUTES
            if descriptor == "NULL" or full or self.column_for(attribute, descriptor) is not None:
                continue
            text_only = known and descriptor == "N"  # like the attribute's other exact texts
            kind = "string" if text_only else TYPE_OF[descriptor]
            self._add(attribute, descriptor, kind, exact=text_only)

    def grow_keys(self, keys: Iterable[tuple[str, str]]) -> str | None:
        """Add columns for key attributes. A key attribute never gets a sibling column.

        Returns:
            The first key attribute whose type differs from its column's, None if there is none.
        """
        for attribute, descriptor in keys:
            known = self._by_attribute.get(attribute)
            if known is not None and self.column_for(attribute, descriptor) is not known[0]:
                return attribute
            self.grow([(attribute, descriptor)])
        return None

    def column_for(self, attribute: str, descriptor: str) -> AttributeColumn | None:
        """Return the column for an attribute's values of a descriptor, None if there is none."""
        matching = [
            column
            for column in self._by_attribute.get(attribute, ())
            if (
                descriptor in descriptors_of(parse_type(column.type))
                if column.declared
                else column.descriptor == descriptor
            )
        ]
        return next((c for c in matching if not c.exact), matching[0] if matching else None)

    def sibling_of(self, column: AttributeColumn, descriptor: str) -> AttributeColumn:
        """Return the sibling for values that a typed column can't represent, added on first use."""
        for other in self._by_attribute[column.attribute]:
            if other.descriptor == descriptor and other.exact:
                return other
        kinds = {"SS": "list<string>", "NS": "list<string>", "BS": "list<string>"}
        kinds |= {"L": "json", "M": "json"}
        return self._add(column.attribute, descriptor, kinds.get(descriptor, "string"), exact=True)

    def output(self, prefix: str, column: AttributeColumn) -> str:
        """Return the name of a column in the rows: prefixed by its image, except for keys."""
        if column.attribute in self._key_names:
            return column.column
        name = prefix + column.column
        keys = {
            key_column.column.casefold()
            for key in self._key_names
            for key_column in self._by_attribute.get(key, ())
        }
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
        self._by_attribute.setdefault(attribute, []).append(added)
        return added


def _declared(attribute: str, declared: str) -> str:
    """Return the canonical text of a type that the user declares."""
    try:
        return type_text(parse_type(str(declared)))
    except ValueError as error:
        raise ExpressionError(
            f"items(types={{{attribute!r}: {declared!r}}}): the type is not valid: {error}.",
            hint=f"Declare {SCALAR_NAMES}, json, or list<T>, map<string,T> or "
            "struct<name:T,...> of these.",
        ) from error
