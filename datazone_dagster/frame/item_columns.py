"""Growth of the item columns: declared columns, columns for new attributes, and siblings."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace

from datazone_dagster.errors import ExpressionError
from datazone_dagster.frame.item_types import (
    SCALAR_NAMES,
    TYPE_OF,
    WIDER,
    descriptors_of,
    parse_type,
    type_text,
)
from datazone_dagster.frame.struct_growth import is_grown
from datazone_dagster.model.attributes import (
    MAX_COLUMNS,
    MAX_NAME_BYTES,
    AttributeColumn,
    AttributeMapping,
    free_name,
)

_SETS = ("SS", "NS", "BS")
_KEY_NUMBERS = (TYPE_OF["N"], WIDER[TYPE_OF["N"]])


def holds_key_numbers(column: AttributeColumn) -> bool:
    """Return whether a column holds the canonical texts of a numeric key."""
    undeclared = not column.exact and not column.declared
    return undeclared and column.descriptor == "N" and column.type == "string"


def takes_empty_lists(column: AttributeColumn | None) -> bool:
    """Return whether a column holds sets of an undeclared type: an empty list is an empty set."""
    return column is not None and not column.declared and column.descriptor in _SETS


def _is_too_long(attribute: str) -> bool:
    return len(attribute.encode("utf-8", "surrogatepass")) > MAX_NAME_BYTES


class ItemColumns:
    """A growing mapping with an index from an attribute to its columns.

    Args:
        mapping: The mapping to start with.
        key_names: Attributes of the key.
        may_grow: Whether the structs of a column may get further fields.
        taken: Names that no new column gets.
    """

    def __init__(
        self,
        mapping: AttributeMapping,
        key_names: frozenset[str],
        may_grow: Callable[[str], bool] = lambda _: True,
        taken: Collection[str] = (),
    ) -> None:
        self.mapping = mapping
        self.key_names = key_names
        self.may_grow = may_grow
        self._taken = taken
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
            if not is_grown(parse_type(first.type), parse_type(wanted)):
                raise ExpressionError(
                    f"items(types={{{attribute!r}: {declared!r}}}): the column {first.column!r} "
                    f"already has type {first.type}.",
                    safe="Nothing was written.",
                    hint="Keep the existing type, or select the attribute under another name.",
                )
            if self.wider_type(first) is not None:  # from now on the type is final
                self._put(first, replace(first, declared=True))

    def grow(self, seen: Iterable[tuple[str, str]]) -> None:
        """Add columns for new attributes and descriptors, up to `MAX_COLUMNS` columns.

        An attribute with a name of more than `MAX_NAME_BYTES` has no column.
        """
        for attribute, descriptor in seen:
            has_column = self.column_for(attribute, descriptor) is not None
            if descriptor == "NULL" or has_column or self._is_full or _is_too_long(attribute):
                continue
            self._add_usual(attribute, descriptor)

    def grow_keys(self, keys: Iterable[tuple[str, str]]) -> str | None:
        """Add columns for key attributes. A key attribute never gets a sibling column.

        Returns:
            The first key attribute whose type differs from its column's, None if there is none.
        """
        for attribute, descriptor in keys:
            known = self._by_attribute.get(attribute)
            if known is not None and self.column_for(attribute, descriptor) is not known[0]:
                return attribute
            if known is None:
                self._add_usual(attribute, descriptor)
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
        plain = next((column for column in matching if not column.exact), None)
        if plain is None and descriptor == "L" and takes_empty_lists(self.first(attribute)):
            return self.first(attribute)
        return plain or (matching[0] if matching else None)

    def has_column(self, attribute: str, descriptor: str) -> bool:
        """Return whether values of a descriptor have a column, as those of keys always have."""
        return attribute in self.key_names or self.column_for(attribute, descriptor) is not None

    def are_json(self, attribute: str, descriptor: str) -> bool:
        """Return whether values of a descriptor have a column of plain JSON text."""
        column = self.column_for(attribute, descriptor)
        return column is not None and column.type == "json"

    def first(self, attribute: str) -> AttributeColumn | None:
        """Return the first column of an attribute, None if it has none."""
        return next(iter(self._by_attribute.get(attribute, ())), None)

    def sibling_of(self, column: AttributeColumn, descriptor: str) -> AttributeColumn | None:
        """Return the sibling for values that a typed column can't represent, added on first use.

        Returns:
            None if there are `MAX_COLUMNS` columns already.
        """
        for other in self._by_attribute[column.attribute]:
            if other.descriptor == descriptor and other.exact:
                return other
        if self._is_full:
            return None
        kinds = {"SS": "list<string>", "NS": "list<string>", "BS": "list<string>"}
        kinds |= {"L": "json", "M": "json"}
        return self._add(column.attribute, descriptor, kinds.get(descriptor, "string"), exact=True)

    def current(self, column: AttributeColumn) -> AttributeColumn:
        """Return a column as it is now: its type may have become wider."""
        same = self._by_attribute[column.attribute]
        return next(other for other in same if other.column == column.column)

    def wider_type(self, column: AttributeColumn) -> str | None:
        """Return the type that a column may widen to, None if its type is final."""
        now = self.current(column)
        return None if now.declared or now.exact else WIDER.get(now.type)

    def may_become_text(self, key: AttributeColumn) -> bool:
        """Return whether the column of a numeric key may become text: a key is never null."""
        now = self.current(key)
        return not now.declared and now.descriptor == "N" and now.type in _KEY_NUMBERS

    def widen(self, column: AttributeColumn, type: str) -> None:
        """Give a column a wider type."""
        now = self.current(column)
        wider = replace(now, type=type)
        self._put(now, wider)

    def _put(self, old: AttributeColumn, new: AttributeColumn) -> None:
        self.mapping = self.mapping.with_replaced(old, new)
        same = self._by_attribute[old.attribute]
        same[same.index(old)] = new

    def output(self, prefix: str, column: AttributeColumn) -> str:
        """Return the name of a column in the rows: prefixed by its image, except for keys."""
        if column.attribute in self.key_names:
            return column.column
        name = prefix + column.column
        keys = {
            key_column.column.casefold()
            for key in self.key_names
            for key_column in self._by_attribute.get(key, ())
        }
        if prefix and name.casefold() in keys:
            return free_name(name, keys, identity=name)
        return name

    @property
    def _is_full(self) -> bool:
        return len(self.mapping) >= MAX_COLUMNS

    def _add_usual(self, attribute: str, descriptor: str) -> None:
        # A number in a sibling is a text, like the attribute's other exact texts.
        text_only = attribute in self._by_attribute and descriptor == "N"
        kind = "string" if text_only else TYPE_OF[descriptor]
        self._add(attribute, descriptor, kind, exact=text_only)

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
            attribute, descriptor, type, declared=declared, exact=exact, taken=self._taken
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
