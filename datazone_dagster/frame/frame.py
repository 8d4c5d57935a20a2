"""Lazy frame that a stream input gives a function: one chunk of changes as stream records."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import duckdb
import pyarrow as pa

from datazone_dagster.database.database import DEFAULT_MEMORY_LIMIT_BYTES, Databases
from datazone_dagster.errors import ExpressionError
from datazone_dagster.frame.discovery import KnownItems
from datazone_dagster.frame.items import ImageChoice, needs_of, read_items
from datazone_dagster.frame.key_scope import COMPLETE_KEY, OF_RECORDS, Mixing
from datazone_dagster.frame.lookup import CHANGES, lookup_table
from datazone_dagster.frame.query_session import Coming, Session, Unread
from datazone_dagster.frame.record_view import (
    CHUNK_TABLE,
    FIELDS,
    RECORD_COLUMN,
    STANDARD_COLUMNS,
    FieldNames,
    images_needed,
    is_record,
    plain_value,
    record_query,
)
from datazone_dagster.frame.relation import Relation
from datazone_dagster.frame.relation_plan import Plan
from datazone_dagster.frame.syntax import quoted
from datazone_dagster.frame.volatile import Deciding
from datazone_dagster.model.attributes import AttributeMapping
from datazone_dagster.model.column_names import ATTRIBUTE, HIDDEN, KEY


class Frame(Relation):
    """One row per change, oldest first, as the standard DynamoDB stream record.

    Columns: `eventID`, `eventName` (INSERT, MODIFY, REMOVE), `eventVersion`, `eventSource`,
    `awsRegion`, `dynamodb` and `userIdentity`. `dynamodb` has `ApproximateCreationDateTime`,
    `Keys`, `NewImage`, `OldImage`, `SequenceNumber`, `SizeBytes` and `StreamViewType`.

    An attribute is read by its name and type: `dynamodb.NewImage.status.S`. Attribute names
    are case-sensitive; a name that is not a plain identifier is quoted. S, N and B give strings
    (N exact, B in base64), BOOL and NULL booleans, SS, NS and BS lists of strings. A map, a list
    or a full image gives DynamoDB JSON text. Anything that a record lacks is null. Only the
    named attributes are parsed.

    Example:
        >>> orders.filter("eventName <> 'REMOVE'").select(
        ...     "dynamodb.Keys.id.S as id",
        ...     "cast(dynamodb.NewImage.total.N as decimal(18, 2)) as total",
        ...     "dynamodb.NewImage.address.M.city.S as city",
        ... )
    """

    @classmethod
    def of_changes(
        cls,
        changes: pa.Table | Unread,
        *,
        lookups: Mapping[str, pa.Table] | None = None,
        memory_limit_bytes: int = DEFAULT_MEMORY_LIMIT_BYTES,
        threads: int | None = None,
        attributes: AttributeMapping = AttributeMapping(),
        may_grow: Callable[[str], bool] = lambda _: True,
        databases: Databases | None = None,
        found_paths: frozenset[str] = frozenset(),
        known_items: KnownItems | None = None,
    ) -> Frame:
        """Make the frame of one chunk.

        Args:
            changes: Rows of the change log, oldest first, with `_dz_key`, `_dz_version` and
                `_dz_event_time`; or an `Unread` that reads them on first use, with the images
                requested. Not copied.
            lookups: Tables that `sql()` can join, by name.
            memory_limit_bytes: DuckDB's limit for intermediate results; more spills to disk.
            threads: Number of DuckDB threads; None for DuckDB's default (one per core).
            attributes: Columns that `items()` has given so far.
            may_grow: Whether structs in a column of `items()` may get further fields.
            databases: Databases of the run; None gives the frame its own.
            found_paths: Paths whose attribute some record had before this chunk.
            known_items: Attributes that the run's items had before this chunk; it learns more.

        Raises:
            DefinitionError: A lookup has a reserved name.
        """
        tables: dict[str, pa.Table | Unread] = {CHUNK_TABLE: changes}
        for name, table in (lookups or {}).items():
            tables[name] = lookup_table(name, table)
        names = FieldNames(attributes, may_grow=may_grow, found_paths=found_paths)
        if known_items is not None:
            names.known_items = known_items
        session = Session(
            tables,
            memory_limit_bytes=memory_limit_bytes,
            threads=threads,
            databases=databases,
            notes=names.notes,
        )
        plan = Plan(session, names, record_query, source=CHANGES, row_wise=True, columns=OF_RECORDS)
        return cls(plan.rebound())

    @property
    def is_unread(self) -> bool:
        """Whether nothing of the chunk has been read and `items()` is not part of the frame."""
        return self._plan.session.is_unread

    @property
    def is_row_wise(self) -> bool:
        """Whether the frame is unread and computes the rows of a change from that change alone."""
        return self.is_by_change and self.is_unread

    @property
    def is_by_change(self) -> bool:
        """Whether the SQL, `items()` included, computes the rows of a change from it alone."""
        return self._plan.row_wise

    def rows_of(self, changes: pa.Table | Coming) -> pa.Table:
        """Compute the rows of an unread frame for its chunk, or for any of its changes if row-wise.

        Args:
            changes: Changes in the schema of the chunk; a `Coming` only for a row-wise frame.
                Images that are not needed may be null or missing. Exceptions of a `Coming`
                propagate unchanged.

        Raises:
            TransformError: As for `arrow()`.
        """
        session = self._plan.session
        return self._run(lambda query: session.table_over(query, CHUNK_TABLE, changes))

    def items(self, image: ImageChoice = "new", types: Mapping[str, str] | None = None) -> Frame:
        """Return the items: one row per change, with the attributes as typed columns.

        S becomes a string, B binary, BOOL a boolean, a set a sorted list, L and M plain JSON
        text. N becomes a long while every value is an integer that fits, and a decimal(38, 18)
        from the first other value on. Every value is exact: a number that fits neither goes to a
        text column `<attribute>__n`, and a value of a different type than the column to
        `<attribute>__<type>`. The first type of an attribute fixes the type of its column. Key
        attributes are present for deletes too and never null: a numeric key that fits neither
        type makes its column a string.

        Columns that the function has added before (`with_columns("eventName as event").items()`)
        come after the attributes. One with the name of an attribute's column is an error.

        Args:
            image: "new" or "old"; "both" gives the columns `after_...` and `before_...`.
            types: Declared types by attribute: string, boolean, int, long, double,
                decimal(p,s), binary, date, timestamp (ISO text), timestamp_s, timestamp_ms
                (numbers since 1970), json, and list<T>, map<string,T>, struct<name:T,...>. A
                value that does not fit goes, complete, to `<attribute>__<type>`. A struct grows
                by the attributes that come, where the dataset's schema_policy lets it evolve.

        Returns:
            A frame of these columns, read immediately; select, filter and the other methods
            work on it. If a column can't have its attribute's name, the field's metadata holds
            that name as `datazone.attribute`.

        Raises:
            ExpressionError: The image or a type is unknown, the frame has lost its `dynamodb`
                column, or an added column has the name of an attribute's.
            TransformError: An image of the chunk is not DynamoDB JSON.
        """
        needs = needs_of(image) | (frozenset(FIELDS) if self._added_records else frozenset())
        if types is not None and not isinstance(types, Mapping):
            raise ExpressionError(
                f"items(): types is a {type(types).__name__}, not a mapping.",
                hint='Write items(types={"total": "decimal(18,2)"}).',
            )
        plan = self._plan
        if not any(name == RECORD_COLUMN and is_record(kind) for name, kind in plan.bound):
            raise ExpressionError(
                "items(): this frame no longer has the stream record.",
                hint="Call items() before select().",
            )
        added = [
            name
            for name, _ in plan.bound
            if name.casefold() not in STANDARD_COLUMNS and name not in HIDDEN
        ]
        plan.names.read(needs)
        plan.session.read(images_needed(plan.needs | needs, plan.names))
        try:
            items = read_items(
                plan.session,
                self._records_query(needs),
                image=image,
                mapping=plan.names.attributes,
                types=types or {},
                added=added,
                hidden=self._hidden,
                may_grow=plan.names.may_grow,
                known=plan.names.known_items,
                chunk=None if plan.stages else plan.session.rows(CHUNK_TABLE),
            )
        except duckdb.Error as error:
            raise self._failure(error, f"items(image={image!r})", running=True) from error
        plan.names.attributes = items.mapping
        plan.names.metadata |= items.metadata
        plan.names.sibling_values.update(items.sibling_values)
        session = plan.session.with_table(_ITEMS_TABLE, items.rows)
        folded = {name.casefold() for name in added}
        read = Plan(
            session,
            plan.names,
            _items_query,
            source=CHANGES,
            ready=items.rows,
            columns={
                name.casefold(): items.metadata.get(name, {}).get(ATTRIBUTE, name)
                for name in items.rows.column_names
                if name not in added
            }
            | {name: one for name, one in plan.columns.items() if name in folded}
            | {KEY: COMPLETE_KEY},
            row_wise=plan.row_wise,
            mixing=plan.mixing,
            volatile={name: one for name, one in plan.volatile.items() if name in folded},
            deciding=plan.deciding,
        )
        # The rows are there: only SQL over them needs the new session's database.
        bound = plan.session.columns_of(read.query(), _ITEMS_TABLE, items.rows.schema)
        return Frame(replace(read, bound=tuple(bound)))

    @property
    def _added_records(self) -> dict[str, int]:
        """Columns that a function added and that hold records, as `record_depth`."""
        return {
            name: depth
            for name, depth in self._records.items()
            if name.casefold() not in STANDARD_COLUMNS
        }

    def _records_query(self, needs: frozenset[str]) -> str:
        """Return the SQL of the record, with the added columns as users get them."""
        query = self._plan.query(needs)
        plain = ", ".join(
            f"{plain_value(quoted(name), depth)} AS {quoted(name)}"
            for name, depth in self._added_records.items()
        )
        return f"SELECT * REPLACE ({plain}) FROM ({query})" if plain else query  # noqa: S608  # quoted names

    @property
    def plan(self) -> Plan:
        """The computation of the rows, for an engine that is not DuckDB."""
        return self._plan

    @property
    def mixing(self) -> tuple[Mixing, ...]:
        """Operations over the changes of several rows, in the order of the calls."""
        return self._plan.mixing

    @property
    def deciding(self) -> tuple[Deciding, ...]:
        """Volatile functions that decide which rows there are, in the order of the calls."""
        return self._plan.deciding

    @property
    def volatile(self) -> dict[str, str]:
        """Columns with values of a volatile function, and the function."""
        found = self._plan.volatile
        return {name: found[name.casefold()] for name in self.columns if name.casefold() in found}

    @property
    def field_names(self) -> FieldNames:
        """Names of the chunk's paths and columns, with the notes of the queries run so far."""
        return self._plan.names

    @property
    def attributes(self) -> AttributeMapping:
        """Columns that `items()` gives, for this chunk and all chunks before it."""
        return self._plan.names.attributes

    @property
    def sibling_values(self) -> Mapping[str, int]:
        """Number of values that `items()` put into each sibling column, as they fit no other."""
        return dict(self._plan.names.sibling_values)


_ITEMS_TABLE = "_dz_items"


def _items_query(_needs: frozenset[str], _names: FieldNames) -> str:
    return f"SELECT * FROM {_ITEMS_TABLE}"  # noqa: S608 - our own name
