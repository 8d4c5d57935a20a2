"""Topology of a code location: the transforms of each source, checked for clashes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType

from datazone_dagster.api import DynamoDBSource, Transform
from datazone_dagster.dagster_glue.names import source_job_name
from datazone_dagster.errors import DefinitionError
from datazone_dagster.pipeline import check_expectations


@dataclass(frozen=True)
class Topology:
    """Transforms without clashes.

    Args:
        transforms: All transforms, in the order given.
        by_source: Transforms downstream of each source.
    """

    transforms: tuple[Transform, ...]
    by_source: Mapping[DynamoDBSource, tuple[Transform, ...]]

    @property
    def streams(self) -> tuple[DynamoDBSource, ...]:
        """Sources with a stream."""
        return tuple(source for source in self.by_source if source.stream_enabled)

    @classmethod
    def of(cls, transforms: Transform | Iterable[Transform]) -> Topology:
        """Check transforms against each other.

        Raises:
            DefinitionError: An argument is not a transform, two transforms clash in a name, a
                dataset or a source (the message names both), lookups form a cycle, or an
                expectation is no condition on a row.
        """
        found = tuple(_checked(transform) for transform in _flat(transforms))
        _refuse_same_names(found)
        _refuse_shared_datasets(found)
        _refuse_clashing_sources(found)
        _refuse_cycles(found)
        check_expectations(one for each in found for one in each.outputs.values())
        sources = dict.fromkeys(transform.source for transform in found)
        return cls(
            found,
            MappingProxyType(
                {source: tuple(one for one in found if one.source == source) for source in sources}
            ),
        )


def refuse_job_names(topology: Topology, *, one_run_per_source: bool) -> None:
    """Refuse a transform whose job would have the name of the job of all transforms of a source.

    Raises:
        DefinitionError: There is one; the message names both.
    """
    if not one_run_per_source:
        return
    jobs = {source_job_name(one): one for one in topology.by_source}
    for transform in topology.transforms:
        source = jobs.get(transform.job_name)
        if source is not None:
            raise DefinitionError(
                f"Transform {_described(transform)} has the job {transform.job_name!r}: with "
                f"one_run_per_source=True that is the job of all transforms of {source.name!r}.",
                hint="Give the transform another name: transform(name=...).",
            )


def _flat(transforms: object) -> Iterable[object]:
    if isinstance(transforms, Transform):
        return (transforms,)
    if isinstance(transforms, Iterable) and not isinstance(transforms, str | Mapping):
        return transforms
    raise DefinitionError(
        f"build_definitions(transforms={transforms!r}): not a sequence of transforms.",
        hint="Write build_definitions([my_transform]).",
    )


def _checked(transform: object) -> Transform:
    if isinstance(transform, Transform):
        return transform
    is_decorator = getattr(transform, "__module__", "") == Transform.__module__
    raise DefinitionError(
        "build_definitions: it got the decorator transform(...), not a transform."
        if is_decorator
        else f"build_definitions: {transform!r} is not a transform.",
        hint="Put @transform(input_mapping=..., output_mapping=...) above the function, and give "
        "the function: build_definitions([my_transform]).",
    )


def _described(transform: Transform) -> str:
    return f"{transform.name!r} ({transform.function.__module__})"


def _refuse_same_names(transforms: tuple[Transform, ...]) -> None:
    seen: dict[str, Transform] = {}
    for transform in transforms:
        other = seen.setdefault(transform.name, transform)
        if other is not transform:
            raise DefinitionError(
                f"Two transforms are named {transform.name!r}: one in "
                f"{other.function.__module__}, one in {transform.function.__module__}.",
                hint="Give one of them another name: transform(name=...).",
            )
    if len(seen) != len(transforms):
        raise DefinitionError(
            "build_definitions: a transform is given twice.", hint="List each transform once."
        )


def _refuse_shared_datasets(transforms: tuple[Transform, ...]) -> None:
    writers: dict[str, Transform] = {}
    for transform in transforms:
        for dataset in transform.outputs.values():
            other = writers.setdefault(dataset.id, transform)
            if other is not transform:
                raise DefinitionError(
                    f"Dataset {dataset.id!r} is written by two transforms: {_described(other)} "
                    f"and {_described(transform)}.",
                    hint="A dataset has one writer: give one of the transforms another dataset.",
                )


def _refuse_clashing_sources(transforms: tuple[Transform, ...]) -> None:
    seen: dict[str, Transform] = {}
    for transform in transforms:
        source = transform.source
        other = seen.setdefault(source.name, transform)
        if other.source == source:
            continue
        if other.source.table_name != source.table_name:
            raise DefinitionError(
                f"The tables {other.source.table_name!r} of {_described(other)} and "
                f"{source.table_name!r} of {_described(transform)} get the same name in Dagster: "
                f"{source.name!r}.",
                hint="Give one of them a name of its own: "
                f'DynamoDBSource({source.table_name!r}, name="...").',
            )
        raise DefinitionError(
            f"{_described(other)} and {_described(transform)} disagree about table "
            f"{source.table_name!r}: {_differences(other.source, source)}.",
            hint="One drain serves every transform of a table: build one DynamoDBSource and use "
            "it in both transforms. If these are two tables, of two regions or endpoints, give "
            'one of them a name of its own: DynamoDBSource(..., name="...").',
        )


def _differences(one: DynamoDBSource, other: DynamoDBSource) -> str:
    return ", ".join(
        f"{name} is {getattr(one, name)!r} and {getattr(other, name)!r}"
        for name in (field.name for field in fields(one))
        if getattr(one, name) != getattr(other, name)
    )


def _refuse_cycles(transforms: tuple[Transform, ...]) -> None:
    writers = {dataset.id: one for one in transforms for dataset in one.outputs.values()}
    needs = {
        one.name: [writers[dataset.id] for dataset in one.lookups.values() if dataset.id in writers]
        for one in transforms
    }
    finished: set[str] = set()

    def visit(transform: Transform, path: tuple[str, ...]) -> None:
        if transform.name in path:
            cycle = " -> ".join((*path[path.index(transform.name) :], transform.name))
            raise DefinitionError(
                f"Transforms look up each other's datasets in a cycle: {cycle}.",
                hint="Remove one of the lookups.",
            )
        if transform.name not in finished:
            for needed in needs[transform.name]:
                visit(needed, (*path, transform.name))
            finished.add(transform.name)

    for transform in transforms:
        visit(transform, ())
