"""The transforms of one code location together: which stream feeds which, and what clashes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from datazone_dagster.api import DynamoDBSource, Transform
from datazone_dagster.errors import DefinitionError


@dataclass(frozen=True)
class Topology:
    """Transforms that fit together.

    Args:
        transforms: All of them, in the order given.
        by_source: Source to the transforms downstream of it.
    """

    transforms: tuple[Transform, ...]
    by_source: Mapping[DynamoDBSource, tuple[Transform, ...]]

    @classmethod
    def of(cls, transforms: Transform | Iterable[Transform]) -> Topology:
        """Check transforms against each other.

        Raises:
            DefinitionError: Two of them claim the same name, dataset or source; both are named.
        """
        found = tuple(_checked(transform) for transform in _flat(transforms))
        _refuse_same_names(found)
        _refuse_shared_datasets(found)
        _refuse_clashing_sources(found)
        _refuse_circles(found)
        sources = dict.fromkeys(transform.source for transform in found)
        return cls(
            found,
            MappingProxyType(
                {source: tuple(one for one in found if one.source == source) for source in sources}
            ),
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
    raise DefinitionError(
        f"build_definitions: {transform!r} is not a transform.",
        hint="Put @transform(input_mapping=..., output_mapping=...) above the function.",
    )


def _place(transform: Transform) -> str:
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
                    f"Dataset {dataset.id!r} is written by two transforms: {_place(other)} and "
                    f"{_place(transform)}.",
                    hint="A dataset has one writer. Give one of them another dataset id.",
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
                f"The tables {other.source.table_name!r} of {_place(other)} and "
                f"{source.table_name!r} of {_place(transform)} get the same name in Dagster: "
                f"{source.name!r}.",
                hint="Put one of them into its own code location with its own lakehouse.",
            )
        raise DefinitionError(
            f"{_place(other)} and {_place(transform)} disagree about table "
            f"{source.table_name!r}: {_differences(other.source, source)}.",
            hint="One drain serves every transform of a table: build one DynamoDBSource and use "
            "it in both.",
        )


def _differences(one: DynamoDBSource, other: DynamoDBSource) -> str:
    return ", ".join(
        f"{name} is {getattr(one, name)!r} and {getattr(other, name)!r}"
        for name in ("region", "endpoint_url", "start", "stream_enabled", "mask")
        if getattr(one, name) != getattr(other, name)
    )


def _refuse_circles(transforms: tuple[Transform, ...]) -> None:
    writers = {dataset.id: one for one in transforms for dataset in one.outputs.values()}
    needs = {
        one.name: [writers[dataset.id] for dataset in one.lookups.values() if dataset.id in writers]
        for one in transforms
    }
    finished: set[str] = set()

    def visit(transform: Transform, path: tuple[str, ...]) -> None:
        if transform.name in path:
            circle = " -> ".join((*path[path.index(transform.name) :], transform.name))
            raise DefinitionError(
                f"Transforms look up each other's datasets in a circle: {circle}.",
                hint="Take one of the lookups away.",
            )
        if transform.name not in finished:
            for needed in needs[transform.name]:
                visit(needed, (*path, transform.name))
            finished.add(transform.name)

    for transform in transforms:
        visit(transform, ())
