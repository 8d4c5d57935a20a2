"""Tables that a component found by their tag, from one refresh to the next.

A table that has a dataset keeps it when a search no longer finds it: a dataset goes only when its
table is excluded by name, never because a tag was lost or a search looked in a wrong place.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from datazone_dagster.errors import DefinitionError
from datazone_dagster.model.layout import checked_dataset_id
from datazone_dagster.model.tagged_table import NEW_IMAGE_VIEWS, TaggedTable

FORMAT = 1
NOTHING_WRITTEN = "Nothing was written: the tables of the last refresh stay."


@dataclass(frozen=True, slots=True)
class KnownTable:
    """One table of the state.

    Args:
        table_name: Name of the table.
        region: Region of the table.
        view_type: View type of its stream when it was last found; None without a stream.
        has_dataset: Whether the table has a dataset: its stream was readable once.
        is_found: Whether the last refresh found it with the tag.
    """

    table_name: str
    region: str
    view_type: str | None
    has_dataset: bool
    is_found: bool

    @property
    def is_readable(self) -> bool:
        """Whether its stream has new images."""
        return self.view_type in NEW_IMAGE_VIEWS


def refreshed(
    former: Iterable[KnownTable], found: Iterable[TaggedTable], is_excluded: Callable[[str], bool]
) -> tuple[KnownTable, ...]:
    """Return the tables after a search, by region and name.

    Args:
        former: Tables of the refresh before; none if there is none.
        found: Tables that the search found.
        is_excluded: Whether a table of this name is left out.
    """
    before = {(one.region, one.table_name): one for one in former}
    tables: dict[tuple[str, str], KnownTable] = {}
    for one in found:
        place = (one.region, one.table_name)
        had = place in before and before[place].has_dataset
        has = had or one.view_type in NEW_IMAGE_VIEWS
        tables[place] = KnownTable(one.table_name, one.region, one.view_type, has, is_found=True)
    for place, known in before.items():
        if place not in tables and known.has_dataset:
            tables[place] = replace(known, is_found=False)
    return tuple(one for _, one in sorted(tables.items()) if not is_excluded(one.table_name))


def check_required(tables: Iterable[KnownTable], required: Iterable[str]) -> None:
    """Refuse a refresh that lacks a required table.

    Raises:
        DefinitionError: A required table was not found with the tag, or has no readable stream.
    """
    found = {one.table_name: one for one in tables if one.is_found}
    missing = [name for name in required if name not in found]
    if missing:
        raise DefinitionError(
            f"required_tables: {_listed(missing)} not found with the tag, or excluded.",
            safe=NOTHING_WRITTEN,
            hint="Give the table its tag again, or take it out of required_tables.",
        )
    closed = [name for name in required if not found[name].is_readable]
    if closed:
        raise DefinitionError(
            f"required_tables: {_listed(closed)} without a stream that has new images.",
            safe=NOTHING_WRITTEN,
            hint="Enable a stream with NEW_AND_OLD_IMAGES, or take the table out of "
            "required_tables.",
        )


def dataset_ids(
    tables: Iterable[KnownTable], name_of: Callable[[str], str]
) -> Mapping[str, KnownTable]:
    """Return the tables that have a dataset, by its id.

    Args:
        tables: Tables of the state.
        name_of: Function from the name of a table to the id of its dataset.

    Raises:
        DefinitionError: Two tables give one id, or a name gives none that is allowed.
    """
    named: dict[str, KnownTable] = {}
    for table in tables:
        if not table.has_dataset:
            continue
        dataset_id = _checked(name_of(table.table_name), table)
        other = named.setdefault(dataset_id, table)
        if other is not table:
            raise DefinitionError(
                f"The tables {_placed(other)} and {_placed(table)} both give the dataset "
                f"{dataset_id!r}.",
                safe=NOTHING_WRITTEN,
                hint="Exclude one of them, and declare it with DynamoDBStreamComponent, which "
                "names its dataset and its source.",
            )
    return named


def _checked(dataset_id: str, table: KnownTable) -> str:
    try:
        return checked_dataset_id(dataset_id)
    except DefinitionError as error:
        raise DefinitionError(
            f"The table {table.table_name!r} gives the dataset {dataset_id!r}: {error.what}",
            safe=NOTHING_WRITTEN,
            hint="Set dataset_prefix, or exclude the table.",
        ) from None


def remarks(tables: Iterable[KnownTable]) -> list[str]:
    """Return what somebody should know of tables that are not as they should be."""
    known = list(tables)
    groups = {
        "no stream with new images, so no dataset: {}. Enable one "
        "(StreamEnabled=true,StreamViewType=NEW_AND_OLD_IMAGES) and refresh.": [
            one for one in known if not one.has_dataset
        ],
        "no longer found with the tag (they lost it, or were deleted): {}. Their datasets and "
        "sensors stay; to remove them, name the tables in `exclude`.": [
            one for one in known if not one.is_found
        ],
        "the stream was turned off, or shows no new images any more: {}. Their datasets stay, but "
        "get no changes.": [
            one for one in known if one.is_found and one.has_dataset and not one.is_readable
        ],
    }
    return [text.format(_listed(one.table_name for one in of)) for text, of in groups.items() if of]


def encoded(tables: Sequence[KnownTable]) -> str:
    """Return the text of a state file."""
    content = {"format": FORMAT, "tables": [asdict(one) for one in tables]}
    return json.dumps(content, indent=1) + "\n"


def decoded(text: str, where: str) -> tuple[KnownTable, ...]:
    """Return the tables of a state file.

    Args:
        text: Text of the file.
        where: Name of the component and of the file, for the error.

    Raises:
        DefinitionError: The text is no state of this component, or of a later version.
    """
    try:
        content = json.loads(text)
        if content["format"] <= FORMAT:
            return tuple(KnownTable(**one) for one in content["tables"])
        reason = f"format {content['format']} is of a later version of datazone_dagster"
    except (ValueError, TypeError, KeyError) as error:
        reason = f"{type(error).__name__}: {error}"
    raise DefinitionError(
        f"{where}: the state can't be read: {reason}.",
        safe="The datasets in the lakehouse are untouched.",
        hint="Remove it and run dg utils refresh-defs-state. A table that has lost its tag "
        "meanwhile is not found then: name those that must be there in required_tables.",
    )


def _placed(table: KnownTable) -> str:
    return f"{table.table_name!r} ({table.region})"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(repr(name) for name in names)
