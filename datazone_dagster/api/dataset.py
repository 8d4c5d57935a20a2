"""Datasets: the Delta tables that transforms write and read."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from datazone_dagster.api import checked
from datazone_dagster.api.columns import checked_columns, checked_policies
from datazone_dagster.errors import DefinitionError
from datazone_dagster.model.column_names import RESERVED_PREFIX
from datazone_dagster.model.contract import Column, Contract, Policies, SchemaPolicy
from datazone_dagster.model.layout import checked_dataset_id

DEFAULT_MAX_LAG = timedelta(minutes=5)
DEFAULT_QUARANTINE_THRESHOLD = 100
DEFAULT_KINDS = ("deltalake", "dynamodb")


@dataclass(frozen=True, init=False, slots=True)
class Dataset:
    """A Delta table at `<lakehouse>/<id>`, and the asset of that name.

    Args:
        id: Letters, digits, `_` and `-`; names the folder and the asset.
        tags: Dagster tags: texts `key` or `key=value`, or a mapping. Kept as such texts.
        mode: `"merge"` keeps the newest rows of each item; `"append"` keeps every event;
            `"history"` keeps a row per interval in which an item did not change (SCD2), with
            `_dz_valid_from`, `_dz_valid_to` (null while it lasts) and `_dz_is_current`.
        deletes: `"hard"`: the row of a deleted item leaves the table. `"soft"`: it stays, with
            `_dz_deleted` and `_dz_delete_cause` (user or ttl). In history a delete closes the
            interval either way; soft marks which ones a delete has closed.
        partition_by: Columns that the table is partitioned by. Fixed once the table exists;
            `datazone-dagster rebuild` makes it anew by others.
        max_lag: From this lag on, the `lag` check fails with an error.
        deletion_vectors: Merges hide replaced rows instead of rewriting their files. True: from
            the start. False: never; every reader opens the table, but a merge into a large
            one rewrites much of it. `"auto"`: from the first merge on that would rewrite
            32 MB; then the table keeps them.
        schema_policy: What happens to columns that the table does not have, and to values that
            its columns can't hold. `"evolve"`: columns are added and widened. `"freeze"`: they
            stay out of the table and the `schema` check fails. `"quarantine"`: the records go
            to the quarantine. A mapping gives single columns their own, `"*"` the others.
        schema: The columns as they have to be: a `pyarrow.Schema` or a Pydantic model. Kept as
            declared columns. Without it, the first result says what they are.
        quarantine_threshold: With more waiting records than that, the `quarantine` check fails
            with an error; with any at all, it warns.
        description: Shown in Dagster; the default is the docstring of the function.
        owners: E-mail addresses or `team:<name>`; the default is those of the transform.
        kinds: At most ten, shown as icons.
        group_name: The asset's group; the default is that of the transform.
        track: In history mode, the columns that begin a new interval when they change; what
            other columns become shows in the interval that lasts. The default is all.

    Raises:
        DefinitionError: An argument can't be used; the text names it and what it takes.
    """

    id: str
    tags: tuple[str, ...]
    mode: Literal["merge", "append", "history"]
    deletes: Literal["hard", "soft"]
    partition_by: tuple[str, ...]
    max_lag: timedelta
    deletion_vectors: Literal["auto"] | bool
    schema_policy: Policies
    schema: tuple[Column, ...]
    quarantine_threshold: int
    description: str | None
    owners: tuple[str, ...]
    kinds: tuple[str, ...]
    group_name: str | None
    track: tuple[str, ...]

    def __init__(
        self,
        id: str,
        tags: Sequence[str] | Mapping[str, str] = (),
        mode: Literal["merge", "append", "history"] = "merge",
        deletes: Literal["hard", "soft"] = "hard",
        partition_by: str | Sequence[str] = (),
        max_lag: timedelta = DEFAULT_MAX_LAG,
        deletion_vectors: Literal["auto"] | bool = "auto",
        *,
        schema_policy: SchemaPolicy | Mapping[str, SchemaPolicy] | Policies = "evolve",
        schema: object = None,
        quarantine_threshold: int = DEFAULT_QUARANTINE_THRESHOLD,
        description: str | None = None,
        owners: str | Sequence[str] = (),
        kinds: str | Collection[str] = DEFAULT_KINDS,
        group_name: str | None = None,
        track: str | Sequence[str] = (),
    ) -> None:
        where = f"Dataset({checked_dataset_id(id)!r})"
        values: dict[str, object] = {
            "id": id,
            "tags": checked.tags(where, tags),
            "mode": checked.choice(where, "mode", mode),
            "deletes": checked.choice(where, "deletes", deletes),
            "partition_by": _own_columns(where, "partition_by", partition_by),
            "max_lag": _positive(where, max_lag),
            "deletion_vectors": checked.deletion_vectors(where, deletion_vectors),
            "schema_policy": checked_policies(where, schema_policy),
            "schema": checked_columns(where, schema),
            "quarantine_threshold": _threshold(where, quarantine_threshold),
            "description": checked.optional_text(where, "description", description),
            "owners": checked.owners(where, owners),
            "kinds": checked.kinds(where, kinds),
            "group_name": checked.group_name(where, group_name),
            "track": _tracked(where, mode, track),
        }
        if (mode, deletes) == ("append", "soft"):
            raise DefinitionError(
                f"{where}: mode='append' keeps every event, deletes too; deletes='soft' has "
                "nothing to mark.",
                hint="Leave deletes out, or choose mode='merge'.",
            )
        for name, value in values.items():
            object.__setattr__(self, name, value)
        _check_partitions_declared(where, self)

    @property
    def contract(self) -> Contract:
        """What its columns have to be."""
        return Contract(self.schema_policy, self.schema)


def _tracked(where: str, mode: str, track: object) -> tuple[str, ...]:
    columns = _own_columns(where, "track", track)
    if columns and mode != "history":
        raise DefinitionError(
            f"{where}: track names {checked.quoted(columns)}, but mode={mode!r} has no intervals.",
            hint="Say mode='history', or leave track out.",
        )
    return columns


def _own_columns(where: str, argument: str, names: object) -> tuple[str, ...]:
    columns = checked.texts(where, argument, names)
    ours = [name for name in columns if name.startswith(RESERVED_PREFIX)]
    if ours:
        raise DefinitionError(
            f"{where}: {argument} names {checked.quoted(ours)}, columns that we add.",
            hint=f"Choose columns of the function's result; {RESERVED_PREFIX!r} is reserved.",
        )
    return columns


def _positive(where: str, max_lag: object) -> timedelta:
    lag = checked.instance(where, "max_lag", max_lag, timedelta, "max_lag=timedelta(minutes=5)")
    if lag <= timedelta(0):
        raise DefinitionError(
            f"{where}: max_lag={lag} is not positive.",
            hint="Give the lag at which the check fails, such as timedelta(minutes=5).",
        )
    return lag


def _threshold(where: str, threshold: object) -> int:
    if isinstance(threshold, int) and not isinstance(threshold, bool) and threshold >= 0:
        return threshold
    raise DefinitionError(
        f"{where}: quarantine_threshold={threshold!r}.",
        hint="It is a number of records, 0 or more.",
    )


def _check_partitions_declared(where: str, dataset: Dataset) -> None:
    declared = {column.name for column in dataset.schema}
    missing = [name for name in dataset.partition_by if declared and name not in declared]
    if missing:
        raise DefinitionError(
            f"{where}: partition_by names {checked.quoted(missing)}, which schema does not have.",
            hint="Declare the column.",
        )
