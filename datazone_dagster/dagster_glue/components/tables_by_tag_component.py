"""A Dagster component: every DynamoDB table with a tag into a dataset of its own."""

# No postponed annotations here: Dagster makes the schema of the YAML file from them.

import logging
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any

import dagster as dg
from dagster.components import DefsStateConfig, DefsStateConfigArgs

from datazone_dagster.api import Transform
from datazone_dagster.dagster_glue.components.component_fields import described, listed
from datazone_dagster.dagster_glue.components.component_options import ComponentOptions
from datazone_dagster.dagster_glue.components.component_scaffolder import (
    DynamoDBTablesByTagScaffolder,
)
from datazone_dagster.dagster_glue.resources import DynamoDBStreamsResource
from datazone_dagster.dagster_glue.topology import Topology, refuse_job_names
from datazone_dagster.errors import DefinitionError
from datazone_dagster.model.known_tables import (
    NOTHING_WRITTEN,
    KnownTable,
    check_required,
    dataset_ids,
    decoded,
    encoded,
    refreshed,
    remarks,
)
from datazone_dagster.model.layout import source_name
from datazone_dagster.model.tagged_table import TableTag
from datazone_dagster.pipeline.tag_search import tables_with_tag

_logger = logging.getLogger(__name__)

_LOCAL = DefsStateConfigArgs(
    management_type=DefsStateConfigArgs.local_filesystem().management_type, refresh_if_dev=False
)
"""State in the project's folder, written by `dg utils refresh-defs-state` alone."""


@dg.scaffold_with(DynamoDBTablesByTagScaffolder)
@dataclass
class DynamoDBTablesByTagComponent(ComponentOptions, dg.StateBackedComponent):
    """Turns every DynamoDB table with a tag into a Delta table.

    The tables of the account and region that have the tag are found by `dg utils
    refresh-defs-state`, never while a code location loads. Each gets a drain, a change log and one
    dataset with the attributes of its items as columns. A table that has a dataset keeps it until
    it is named in `exclude`, also when it loses the tag.

    Subclass it to override `get_dataset_id`, `get_asset_spec` or `execute`.
    """

    tag_key: Annotated[str, described("Key of the tag, as it is written in AWS.", "lakehouse")]
    tag_value: Annotated[str, described("Value of the tag, as it is written in AWS.", "orders")]
    dataset_prefix: Annotated[
        str,
        described(
            "Prefix of every dataset id, which goes on with the table's name, `_` for `-` and `.`.",
            "raw_",
        ),
    ] = ""
    exclude: Annotated[
        list[str] | None,
        described(
            "Tables that get no dataset: names, or patterns with * and ?.", ["orders_test", "tmp_*"]
        ),
    ] = None
    required_tables: Annotated[
        list[str] | None,
        described(
            "Tables without which a refresh is refused: each must have the tag and a stream with "
            "new images.",
            ["orders", "customers"],
        ),
    ] = None
    defs_state: Annotated[
        DefsStateConfigArgs | None,
        described(
            "Storage of the tables found, as Dagster describes it for state-backed components. "
            "Unset: a file in the project's folder, written by `dg utils refresh-defs-state` only; "
            "otherwise `dagster dev` writes it as well, unless `refresh_if_dev` is false.",
            {"management_type": "VERSIONED_STATE_STORAGE", "refresh_if_dev": False},
        ),
    ] = None

    @classmethod
    def get_spec(cls) -> dg.ComponentTypeSpec:
        """Return what the list of components shows."""
        return dg.ComponentTypeSpec(
            description="Turns every DynamoDB table with a tag into a Delta table.",
            tags=["dynamodb", "deltalake", "cdc"],
            produces=["asset", "asset_check", "sensor", "job", "schedule", "resource"],
        )

    def get_dataset_id(self, table_name: str) -> str:
        """Return the id of a table's dataset; override it to name datasets otherwise."""
        return f"{self.dataset_prefix}{source_name(table_name)}"

    @property
    def defs_state_config(self) -> DefsStateConfig:
        """Storage of the state, under a key of tag, region, prefix and credentials."""
        credentials = self.credentials
        parts = [
            str(self._tag),
            self.region or (credentials and credentials.region_name),
            self.dataset_prefix,
            credentials and credentials.profile_name,
            credentials and credentials.role_to_assume,
        ]
        key = f"DynamoDBTablesByTag[{','.join(part for part in parts if part)}]"
        return DefsStateConfig.from_args(self.defs_state or _LOCAL, default_key=key)

    def write_state_to_path(self, state_path: Path) -> None:
        """Find the tables in AWS and write them to a file.

        Raises:
            DefinitionError: Nothing was found, a required table is missing, or two tables give one
                dataset, source, transform or job. The former state stays.
            SourceError: A call of AWS failed. The former state stays.
        """
        resource = self.credentials.initialized() if self.credentials else DynamoDBStreamsResource()
        found = tables_with_tag(self._tag, resource.connection_settings(region=self.region))
        tables = refreshed(self._former(state_path), found, self._is_excluded)
        check_required(tables, listed(self.required_tables))
        if not tables:
            raise self._found_nothing(len(found))
        self._refuse_clashes(dataset_ids(tables, self.get_dataset_id))
        self._report(tables)
        new = state_path.with_name(f"{state_path.name}.new")
        new.write_text(encoded(tables), "utf-8")
        new.replace(state_path)  # a process that dies leaves the former state

    def build_defs_from_state(
        self, context: dg.ComponentLoadContext, state_path: Path | None
    ) -> dg.Definitions:
        """Build the definitions of all tables of the state; calls nothing."""
        _ = context
        if state_path is None:
            _logger.warning(
                "%s knows no tables yet: find them with `dg utils refresh-defs-state`.",
                self._titled,
            )
            return dg.Definitions()
        tables = self._read(state_path)
        wanted = [one for one in tables if not self._is_excluded(one.table_name)]
        self._report(wanted)
        named = dataset_ids(wanted, self.get_dataset_id)
        if not named:
            return dg.Definitions()
        return self._definitions_of([self._transform(*one) for one in named.items()])

    @property
    def _titled(self) -> str:
        return f"Component of the tables with the tag {self._tag}"

    @property
    def _tag(self) -> TableTag:
        return TableTag(self.tag_key, self.tag_value)

    def _transform(self, dataset_id: str, table: KnownTable) -> Transform:
        def attributes(changes: Any) -> Any:
            return changes.items()

        source = self._source_of(table.table_name, region=table.region)
        return self._transform_of(source, dataset_id, attributes)

    def _refuse_clashes(self, named: Mapping[str, KnownTable]) -> None:
        """Refuse tables whose definitions can't be built together, as building them would."""
        try:
            topology = Topology.of([self._transform(*one) for one in named.items()])
            refuse_job_names(topology, one_run_per_source=self.one_run_per_source)
        except DefinitionError as error:
            datasets = ", ".join(f"{one!r} of {table.table_name!r}" for one, table in named.items())
            raise DefinitionError(
                f"{self._titled}: {error.what} Its datasets: {datasets}.",
                safe=NOTHING_WRITTEN,
                hint="Name one of the tables in `exclude`, or give its dataset another id in "
                "get_dataset_id.",
            ) from error

    def _is_excluded(self, table_name: str) -> bool:
        return any(fnmatchcase(table_name, one) for one in listed(self.exclude))

    def _former(self, state_path: Path) -> tuple[KnownTable, ...]:
        """Return the tables of the refresh before, wherever Dagster keeps them."""
        if state_path.is_file():
            return self._read(state_path)
        storage, config = dg.UPathDefsStateStorage.get(), self.defs_state_config
        known = storage and storage.get_latest_defs_state_info()
        info = known and known.info_mapping.get(config.key)
        if not storage or not info or info.management_type != config.management_type:
            return ()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "state"
            storage.download_state_to_path(config.key, info.version, path)
            return self._read(path) if path.is_file() else ()

    def _read(self, path: Path) -> tuple[KnownTable, ...]:
        where = f"{self._titled} ({self.defs_state_config.key}, {path})"
        return decoded(path.read_text("utf-8"), where)

    def _report(self, tables: Iterable[KnownTable]) -> None:
        for remark in remarks(tables):
            _logger.warning("%s: %s", self._titled, remark)

    def _found_nothing(self, excluded: int) -> DefinitionError:
        what = f"{excluded} found, all excluded" if excluded else "none found"
        return DefinitionError(
            f"{self._titled}: {what}.",
            safe="Nothing was written.",
            hint="Check key and value (upper and lower case count), the region and the account of "
            "the credentials. A tag that was set a moment ago may not be seen yet.",
        )
