"""Definitions that several calls of `build_definitions` share, so that `Definitions.merge` works.

`Definitions.merge` compares resources by identity, and a code location must not have two different
definitions of one name. So calls with equal settings return the same objects, which Dagster counts
once. Each call adds its transforms to the shared objects. `Definitions` that are not merged work as
well, because a tick serves only the transforms of its own code location.

A definition is shared for as long as a `Definitions` holds it.
"""

from __future__ import annotations

import gc
import logging
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from dagster import AssetsDefinition, ExecutorDefinition, RepositoryDefinition

from datazone_dagster.api import Transform
from datazone_dagster.dagster_glue.applier import Applier
from datazone_dagster.dagster_glue.asset_keys import AssetKeys

D = TypeVar("D")
R = TypeVar("R")

_logger = logging.getLogger(__name__)
_resources: list[weakref.ref[Any]] = []


def shared_resource(resource: R, *, given: bool = True) -> R:
    """Return a resource in use of the same class and fields, else this one.

    Args:
        resource: The resource.
        given: Whether the user gave it, so that a different one in use is told.
    """
    alive = [found for ref in _resources if (found := ref()) is not None]
    for found in alive:
        if type(found) is type(resource) and _same_fields(found, resource):
            same: R = found
            return same
    if given:
        _warn_of_resource(resource, [one for one in alive if type(one) is type(resource)])
    _resources[:] = [weakref.ref(one) for one in (*alive, resource)]
    return resource


def _warn_of_resource(resource: Any, others: Sequence[Any]) -> None:
    """Say what differs: if both are merged, Dagster only says that a key is there twice."""
    for other in others:
        mine, theirs = dict(resource), dict(other)
        shown = type(resource).model_fields
        different = "; ".join(
            f"{name} is {theirs.get(name)!r} and {mine[name]!r}"
            if shown[name].repr
            else f"{name} differs"
            for name in mine
            if name in shown and theirs.get(name) != mine[name]
        )
        _logger.warning(
            "Two calls of build_definitions have a different %s: %s. Dagster refuses to merge the "
            "two. Give both the same one, or load them as two code locations.",
            type(resource).__name__,
            different,
        )


def _same_fields(one: Any, other: Any) -> bool:
    mine, theirs = dict(one), dict(other)
    return mine.keys() == theirs.keys() and all(
        mine[name] is theirs[name] or mine[name] == theirs[name] for name in mine
    )


@dataclass(slots=True)
class Companions:
    """The group of a transform; None until the definitions of its source are made."""

    group: Group | None = None


@dataclass(frozen=True, slots=True)
class Member:
    """A transform in a group, its job, and its asset, which lives while a `Definitions` has it."""

    applier: Applier
    job: Any  # the type that define_asset_job returns has no public name
    asset: weakref.ref[AssetsDefinition]
    companions: Companions

    @property
    def transform(self) -> Transform:
        """The transform."""
        return self.applier.transform

    @property
    def keys(self) -> AssetKeys:
        """Keys of its assets."""
        return self.applier.keys

    @property
    def dataset_ids(self) -> set[str]:
        """Ids of the datasets that the transform writes."""
        return {dataset.id for dataset in self.transform.outputs.values()}

    def is_in(self, repository: RepositoryDefinition | None) -> bool:
        """Return whether a code location has the transform; True if the location is unknown."""
        if repository is None:
            return True
        assets = (
            repository.assets_defs_by_key.get(self.keys.dataset(dataset_id))
            for dataset_id in self.dataset_ids
        )
        return all(
            one is not None and one.is_executable and one.node_def.name == self.transform.name
            for one in assets
        )

    def fits(self, other: Member) -> bool:
        """Return whether one code location can have both: they are equal, or write other tables."""
        if self.transform.name == other.transform.name:
            return self.dataset_ids == other.dataset_ids
        return not self.dataset_ids & other.dataset_ids


@dataclass(eq=False)
class Group:
    """The transforms behind one shared definition.

    Args:
        name: Name of the definition.
        identical: Settings that calls share if they are the same objects.
        equal: Settings, by name, that calls share if they are equal.
        beside: Further definitions to share, which know nothing of the transforms.
    """

    name: str
    identical: Sequence[object]
    equal: Mapping[str, object]
    beside: tuple[Any, ...] = ()
    members: dict[str, Member] = field(default_factory=dict)

    @property
    def transforms(self) -> tuple[Transform, ...]:
        """Transforms of all calls."""
        return tuple(one.transform for one in self.members.values())

    @property
    def dataset_ids(self) -> set[str]:
        """Ids of the datasets that the transforms in use write."""
        alive = [one for one in self.members.values() if one.asset() is not None]
        return {dataset_id for one in alive for dataset_id in one.dataset_ids}

    @property
    def jobs(self) -> list[Any]:
        """Jobs of the transforms of all calls."""
        return [one.job for one in self.members.values()]

    def members_in(self, repository: RepositoryDefinition | None) -> tuple[Member, ...]:
        """Return the members whose transforms a code location has."""
        return tuple(one for one in self.members.values() if one.is_in(repository))

    def transforms_in(self, repository: RepositoryDefinition | None) -> tuple[Transform, ...]:
        """Return the transforms that a code location has."""
        return tuple(one.transform for one in self.members_in(repository))

    def takes(self, members: Sequence[Member]) -> bool:
        """Return whether these transforms can be in one code location with those of the group."""
        if not all(one.fits(other) for one in members for other in self.members.values()):
            gc.collect()  # assets are in reference cycles: what was replaced may still be there
            self._drop_unused()
        return all(one.fits(other) for one in members for other in self.members.values())

    def add(self, members: Iterable[Member]) -> None:
        """Add transforms, and drop those that no `Definitions` has any more."""
        self._drop_unused()
        for one in members:
            self.members[one.transform.name] = one

    def _drop_unused(self) -> None:
        self.members = {name: one for name, one in self.members.items() if one.asset() is not None}


_groups: weakref.WeakKeyDictionary[Any, Group] = weakref.WeakKeyDictionary()
"""Group of each shared definition in use."""


def shared(
    wanted: Group,
    members: Sequence[Member],
    kind: type[D],
    arguments: Callable[[Group], Mapping[str, Any]],
) -> tuple[D, Group]:
    """Return the definition in use with these settings, or make it, for these transforms as well.

    A definition in use is constructed again in place: Dagster has no other public way to give a
    sensor more jobs, and a `Definitions` that is merged already holds that very object.

    Args:
        wanted: Name and settings.
        members: Transforms to add.
        kind: Class of the definition.
        arguments: Function that returns the arguments of its constructor.
    """
    for definition, group in reversed(list(_groups.items())):  # a newer build replaces an older
        if not isinstance(definition, kind) or group.name != wanted.name:
            continue
        if list(map(id, group.identical)) != list(map(id, wanted.identical)):
            continue
        if not group.takes(members):
            continue  # this call replaces that one: it has the same transforms, changed
        if group.equal != wanted.equal:
            _warn_of_difference(group, wanted, members)
            continue
        group.add(members)
        kind.__init__(definition, **arguments(group))
        return definition, group
    wanted.add(members)
    made = kind(**arguments(wanted))
    _groups[made] = wanted
    return made, wanted


def shared_job(
    name: str,
    dataset_ids: set[str],
    keys: AssetKeys,
    executor: ExecutorDefinition,
    run_tags: Mapping[str, str],
) -> Any:
    """Return the job in use of a transform with this name, executor and more, else None."""
    for group in list(_groups.values()):
        member = group.members.get(name)
        if (
            member is not None
            and member.dataset_ids == dataset_ids
            and member.keys == keys
            and member.job.executor_def is executor
            and member.job.run_tags == run_tags
        ):
            return member.job
    return None


def _warn_of_difference(group: Group, wanted: Group, members: Sequence[Member]) -> None:
    """Say what differs: if both are merged, Dagster only says that a name is there twice."""
    others = [one for name, one in group.members.items() if one.asset() is not None]
    names = {one.transform.name for one in members}
    if not others or names & {one.transform.name for one in others}:
        return
    different = "; ".join(
        f"{name} is {group.equal.get(name)!r} and {value!r}"
        for name, value in wanted.equal.items()
        if group.equal.get(name) != value
    )
    _logger.warning(
        "Two calls of build_definitions disagree about %s, the one of %s and the one of %s: %s. "
        "Dagster refuses to merge them into one code location. Use the same settings in both.",
        wanted.name,
        ", ".join(repr(one.transform.name) for one in others),
        ", ".join(repr(one.transform.name) for one in members),
        different,
    )
