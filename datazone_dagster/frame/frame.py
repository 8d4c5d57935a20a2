"""The frame: one chunk of changes as stream records, lazy, what a stream input gives a function."""

from __future__ import annotations

from collections.abc import Mapping

import duckdb
import pyarrow as pa

from datazone_dagster.errors import ExpressionError
from datazone_dagster.frame.database import Databases
from datazone_dagster.frame.items import ImageChoice, needs_of, read_items
from datazone_dagster.frame.lookup import CHANGES, lookup_table
from datazone_dagster.frame.query_session import DEFAULT_MEMORY_LIMIT_BYTES, Coming, Session, Unread
from datazone_dagster.frame.record_view import (
    CHUNK_TABLE,
    RECORD_COLUMN,
    FieldNames,
    images_needed,
    is_record,
    record_query,
)
from datazone_dagster.frame.relation import Plan, Relation
from datazone_dagster.model.attributes import AttributeMapping


class Frame(Relation):
    """One row per change, oldest first, as the standard DynamoDB stream record.

    Columns: `eventID`, `eventName` (INSERT, MODIFY, REMOVE), `eventVersion`, `eventSource`,
    `awsRegion`, `dynamodb` and `userIdentity`. `dynamodb` has `ApproximateCreationDateTime`,
    `Keys`, `NewImage`, `OldImage`, `SequenceNumber`, `SizeBytes` and `StreamViewType`.

    An attribute is read by its name and type: `dynamodb.NewImage.status.S`. Attribute names
    are case-sensitive and quoted where they are not plain. S, N and B give strings (N exact,
    B in base64), BOOL and NULL booleans, SS, NS and BS lists of strings; whatever is taken
    whole is DynamoDB JSON text. What a record does not have is null. Only what is named is
    parsed.

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
        databases: Databases | None = None,
    ) -> Frame:
        """The frame of one chunk.

        Args:
            changes: Columns of the change log, oldest first, with `_dz_key`, `_dz_version` and
                `_dz_event_time`; or how to read them when they are asked for, with the images
                that are asked for. Not copied.
            lookups: Tables that `sql()` can join, by name.
            memory_limit_bytes: What DuckDB may use for intermediate results; more spills to disk.
            threads: Of DuckDB; None leaves it to DuckDB.
            attributes: The columns that `items()` has given so far.
            databases: Of the run; None: the frame has its own.

        Raises:
            DefinitionError: A lookup has a name of ours.
        """
        tables: dict[str, pa.Table | Unread] = {CHUNK_TABLE: changes}
        for name, table in (lookups or {}).items():
            tables[name] = lookup_table(name, table)
        session = Session(
            tables, memory_limit_bytes=memory_limit_bytes, threads=threads, databases=databases
        )
        names = FieldNames(attributes)
        plan = Plan(session, names, record_query, source=CHANGES, row_wise=True)
        return cls(plan.rebound())

    @property
    def is_unread(self) -> bool:
        """Whether nothing of the chunk was read yet, and no view of `items()` is part of it."""
        return self._plan.session.is_unread

    @property
    def is_row_wise(self) -> bool:
        """Whether it is unread, and the rows of a change depend on that change alone."""
        return self._plan.row_wise and self.is_unread

    def rows_of(self, changes: pa.Table | Coming) -> pa.Table:
        """What a frame that is unread gives for its chunk, or if row-wise for some changes of it.

        Args:
            changes: In the schema of the chunk, or how they come, row-wise. Images that are not
                needed may be null, or not there.

        Raises:
            TransformError: As for `arrow()`. What `changes` raise comes as it is.
        """
        session = self._plan.session
        return self._run(lambda query: session.table_over(query, CHUNK_TABLE, changes))

    def items(self, image: ImageChoice = "new", types: Mapping[str, str] | None = None) -> Frame:
        """The items themselves: one row per change, their attributes as typed columns.

        S is a string, N a decimal(38, 9), B binary, BOOL a boolean, sets are sorted lists, L
        and M plain JSON text. Every value is exact: a number that does not fit goes to a column
        of text `<attribute>__n`, a value of another type than the column's to
        `<attribute>__<type>`. The first type of an attribute is its column's for good. Key
        attributes are there for deletes too.

        Args:
            image: "new" or "old", or "both" with the columns `after_...` and `before_...`.
            types: Declared types by attribute: string, boolean, int, long, double,
                decimal(p,s), binary, date, timestamp (ISO text), timestamp_s, timestamp_ms
                (numbers since 1970), json, and list<T>, map<string,T>, struct<name:T,...>. A
                value that does not fit goes, whole, to `<attribute>__<type>`.

        Returns:
            A frame of these columns, read now; select, filter and the others work on it. A
            column that could not have its attribute's name has it in its field's metadata,
            as `datazone.attribute`.

        Raises:
            ExpressionError: There is no such image or type, or `dynamodb` was selected away.
            TransformError: An image of the chunk is not DynamoDB JSON.
        """
        needs = needs_of(image)
        plan = self._plan
        if not any(name == RECORD_COLUMN and is_record(kind) for name, kind in plan.bound):
            raise ExpressionError(
                "items(): the stream record is not there any more.",
                hint="Call items() before select().",
            )
        plan.session.read(images_needed(plan.needs | needs, plan.names))
        try:
            items = read_items(
                plan.session,
                plan.query(needs),
                image=image,
                mapping=plan.names.attributes,
                types=types or {},
                hidden=self._hidden,
            )
        except duckdb.Error as error:
            raise self._failure(error, f"items(image={image!r})", running=True) from error
        plan.names.attributes = items.mapping
        plan.names.origins |= items.origins
        session = plan.session.with_table(_ITEMS_TABLE, items.rows)
        read = Plan(session, plan.names, _items_query, source=CHANGES, ready=items.rows)
        return Frame(read.rebound())

    @property
    def attributes(self) -> AttributeMapping:
        """The columns that `items()` gives, of this chunk and all before it."""
        return self._plan.names.attributes


_ITEMS_TABLE = "_dz_items"


def _items_query(_needs: frozenset[str], _names: FieldNames) -> str:
    return f"SELECT * FROM {_ITEMS_TABLE}"  # noqa: S608 - our own name
