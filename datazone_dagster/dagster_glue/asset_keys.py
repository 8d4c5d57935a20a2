"""Keys of the library's assets and checks in Dagster: the one place that makes them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from dagster import AssetCheckKey, AssetKey

from datazone_dagster.api import Dataset, DynamoDBSource, Transform, checked
from datazone_dagster.api.expect import Expectations
from datazone_dagster.dagster_glue.names import (
    AUDIT_CHECK,
    COMPLETE_CHECK,
    DRAIN_CHECK,
    FUNCTION_CHECK,
    HEADROOM_CHECK,
    LAG_CHECK,
    QUARANTINE_CHECK,
    SCHEMA_CHECK,
    SMALL_FILES_CHECK,
    SNAPSHOT_CHECK,
    STREAM_CHECK,
    UNIQUE_KEYS_CHECK,
    expectation_check_name,
)


@dataclass(frozen=True, slots=True)
class AssetKeys:
    """Keys of the assets and checks of one call of `build_definitions`.

    A prefix changes keys only: names of sensors and jobs, and tables, are the same with any.

    Args:
        prefix: First parts of every key.
    """

    prefix: tuple[str, ...] = ()

    @classmethod
    def of(cls, key_prefix: object) -> AssetKeys:
        """Return the keys with a prefix as users give it: None, a name, or several.

        Raises:
            DefinitionError: It is something else.
        """
        return cls(checked.key_prefix("build_definitions", key_prefix))

    def change_log(self, source: DynamoDBSource | str) -> AssetKey:
        """Return the key of the change log of a source, given by itself or by its name."""
        name = source if isinstance(source, str) else source.name
        return AssetKey([*self.prefix, "dynamodb", name])

    def dataset(self, dataset_id: str) -> AssetKey:
        """Return the key of a dataset."""
        return AssetKey([*self.prefix, dataset_id])

    def selection(self, dataset_ids: Iterable[str]) -> str:
        """Return the selection of datasets as text.

        Unlike keys, it may name datasets that a code location lacks: a drain sensor that several
        calls share also names the jobs of calls that are not merged into it.
        """
        keys = (self.dataset(dataset_id).to_user_string() for dataset_id in dataset_ids)
        return " or ".join(f'key:"{key}"' for key in keys)

    def dataset_check(self, dataset_id: str, name: str) -> AssetCheckKey:
        """Return the key of a check of a dataset."""
        return AssetCheckKey(self.dataset(dataset_id), name)

    def source_check(self, source: DynamoDBSource, name: str) -> AssetCheckKey:
        """Return the key of a check of the change log of a source."""
        return AssetCheckKey(self.change_log(source), name)

    def dataset_checks(
        self,
        dataset_id: str,
        *,
        has_stream: bool = True,
        has_keys: bool = True,
        expect: Expectations = (),
    ) -> tuple[AssetCheckKey, ...]:
        """Return the keys of all checks of a dataset.

        Without a stream, nothing can lag behind it. In append mode, it has no keys to be unique.
        """
        names = (
            *((LAG_CHECK,) if has_stream else ()),
            *(SCHEMA_CHECK, QUARANTINE_CHECK, COMPLETE_CHECK, FUNCTION_CHECK, SMALL_FILES_CHECK),
            *((UNIQUE_KEYS_CHECK,) if has_keys else ()),
            *(expectation_check_name(rule) for rule, _ in expect),
        )
        return tuple(self.dataset_check(dataset_id, name) for name in names)

    def checks_of(self, transform: Transform, dataset: Dataset) -> tuple[AssetCheckKey, ...]:
        """Return the keys of all checks of a dataset of a transform."""
        return self.dataset_checks(
            dataset.id,
            has_stream=transform.source.stream_enabled,
            has_keys=dataset.mode != "append",
            expect=dataset.expect,
        )

    def source_checks(self, source: DynamoDBSource) -> tuple[AssetCheckKey, ...]:
        """Return the keys of the checks of a source's change log that sensors evaluate."""
        names = (STREAM_CHECK, HEADROOM_CHECK, SNAPSHOT_CHECK, DRAIN_CHECK)
        return tuple(self.source_check(source, name) for name in names)

    def audit_check(self, source: DynamoDBSource) -> AssetCheckKey:
        """Return the key of the `audit` check of a source's change log."""
        return self.source_check(source, AUDIT_CHECK)
