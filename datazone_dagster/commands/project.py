"""A user's project for a command: its transforms, its lakehouse and its DynamoDB.

The project is loaded by importing the user's definitions, as Dagster does. Loading runs only
that code: no table is created, opened or written.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import click

from datazone_dagster.api import Dataset, DynamoDBSource, Transform
from datazone_dagster.api.kinesis_source import stream_name_of
from datazone_dagster.dagster_glue.asset_keys import AssetKeys
from datazone_dagster.dagster_glue.built import Built, watched
from datazone_dagster.dagster_glue.options import LOCAL_TICK_SECONDS
from datazone_dagster.dagster_glue.resources import DynamoDBStreamsResource, Lakehouse
from datazone_dagster.dagster_glue.topology import Topology
from datazone_dagster.errors import DatazoneError, DefinitionError
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.protocols import StreamClient
from datazone_dagster.model.table_scan import TableClient
from datazone_dagster.pipeline import ConnectionSettings, change_log_exists

DEFAULT_FILE = "definitions.py"

_Command = TypeVar("_Command", bound=Callable[..., Any])


@dataclass(frozen=True)
class Project:
    """The part of a code location that belongs to this library.

    Args:
        transforms: All transforms, in the order in which they were found.
        layout: Locations of the tables.
        dynamodb: Connection to DynamoDB; its environment variables are resolved at use.
        preview: Whether Dagster's metadata may show rows.
        tick_seconds: Shortest time between two drains of a stream, in seconds.
        keys: Keys in Dagster of each transform, by name; without one, those without a prefix.
    """

    transforms: tuple[Transform, ...]
    layout: Layout
    dynamodb: DynamoDBStreamsResource
    preview: bool = False
    tick_seconds: int = LOCAL_TICK_SECONDS
    keys: Mapping[str, AssetKeys] = field(default_factory=dict)

    @property
    def datasets(self) -> dict[str, Dataset]:
        """The datasets that the transforms write, by id."""
        return {dataset.id: dataset for one in self.transforms for dataset in one.outputs.values()}

    @property
    def sources(self) -> dict[str, DynamoDBSource]:
        """The sources of the transforms, by name."""
        return {one.source.name: one.source for one in self.transforms}

    def writer_of(self, dataset_id: str) -> tuple[Transform, Dataset]:
        """Return the transform that writes a dataset, and the dataset.

        Raises:
            DefinitionError: No transform writes it; the message lists the known datasets.
        """
        for one in self.transforms:
            for dataset in one.outputs.values():
                if dataset.id == dataset_id:
                    return one, dataset
        raise DefinitionError(
            f"No transform writes a dataset {dataset_id!r}.",
            hint=f"Datasets of this project: {', '.join(sorted(self.datasets))}.",
        )

    def keys_of(self, transform: Transform) -> AssetKeys:
        """Return the keys in Dagster of the assets of a transform."""
        return self.keys.get(transform.name, AssetKeys())

    def source_of(self, name: str) -> DynamoDBSource:
        """Return a source by its name or the name of its DynamoDB table.

        Raises:
            DefinitionError: There is none; the message lists the known sources.
        """
        for source in self.sources.values():
            if name in (source.name, source.table_name):
                return source
        raise DefinitionError(
            f"No transform reads a source {name!r}.",
            hint=f"Sources of this project: {', '.join(sorted(self.sources))}.",
        )

    def require_change_log(self, *sources: DynamoDBSource) -> None:
        """Refuse to work on a lakehouse that has no change log of any of these sources.

        Raises:
            DefinitionError: There is none; the message names the path that was looked at.
            StorageError: The lakehouse can't be read.
        """
        if not any(source.stream_enabled for source in sources):
            names = ", ".join(repr(source.name) for source in sources)
            raise DefinitionError(
                f"Source {names} has stream_enabled=False, so it has no change log.",
                safe="Nothing was read or written.",
                hint="A run of the job of its transform scans the table and makes all rows again.",
            )
        if any(change_log_exists(source.name, self.layout) for source in sources):
            return
        uri = self.layout.uri
        if "://" not in uri and not Path(uri).is_dir():
            what = f"There is no lakehouse at {uri}."
        else:
            logs = (f"{one.name!r} at {self.layout.change_log(one.name)}" for one in sources)
            what = f"There is no change log of source {', '.join(logs)}."
        raise DefinitionError(
            what,
            safe="Nothing was read or written.",
            hint="Run the command in the folder and with the environment that Dagster runs in, or "
            "name the lakehouse: --lakehouse URI. It is created when the drain sensor lands its "
            "first change.",
        )

    def connection_settings(self, source: DynamoDBSource) -> ConnectionSettings:
        """Return the connection settings of a source."""
        dynamodb: DynamoDBStreamsResource = self.dynamodb.process_config_and_initialize()
        return dynamodb.connection_settings(region=source.region, endpoint_url=source.endpoint_url)

    def stream_client(self, source: DynamoDBSource) -> StreamClient:
        """Return a client of a source's stream, like the sensor's. It connects on first use."""
        dynamodb: DynamoDBStreamsResource = self.dynamodb.process_config_and_initialize()
        return dynamodb.stream_client(
            source.table_name,
            region=source.region,
            endpoint_url=source.endpoint_url,
            stream_name=stream_name_of(source),
        )

    def table_client(self, source: DynamoDBSource) -> TableClient:
        """Return a client of a source's items. It connects on first use."""
        dynamodb: DynamoDBStreamsResource = self.dynamodb.process_config_and_initialize()
        return dynamodb.table_client(
            source.table_name, region=source.region, endpoint_url=source.endpoint_url
        )


def load_project(
    python_file: str | None = None,
    module_name: str | None = None,
    lakehouse_uri: str | None = None,
) -> Project:
    """Import a project's definitions and collect its transforms and resources.

    Args:
        python_file: File with definitions; defaults to `definitions.py`.
        module_name: Module with definitions, instead of a file.
        lakehouse_uri: Lakehouse to use instead of the project's own.

    Raises:
        DefinitionError: There is nothing to load, the code can't be imported, it has no
            transforms, or its transforms clash.
    """
    with watched() as built:
        module, origin = _imported(python_file, module_name)
        lazy = getattr(module, "defs", None)
        if not built and callable(lazy):  # a function marked with dagster's @definitions
            _run_user_code(lazy, origin)
    transforms = _transforms(built, vars(module).values())
    if not transforms:
        raise DefinitionError(
            f"There are no transforms in {origin}.",
            hint="Name the file or module that calls build_definitions: -f path/to/file.py or "
            "-m package.module.",
        )
    return Project(
        Topology.of(transforms).transforms,
        _layout(built, lakehouse_uri, origin),
        built[0].dynamodb if built else DynamoDBStreamsResource(),
        bool(built) and all(call.preview for call in built),
        max((call.options.tick_seconds for call in built), default=LOCAL_TICK_SECONDS),
        {one.name: call.options.keys for call in built for one in call.transforms},
    )


def project_options(command: _Command) -> _Command:
    """Add the options that name a project, and pass the loaded `project` to the command."""

    @click.option(
        "-f",
        "--python-file",
        metavar="FILE",
        help=f"File with your definitions.  [default: {DEFAULT_FILE}]",
    )
    @click.option("-m", "--module-name", metavar="MODULE", help="Module instead of a file.")
    @click.option(
        "--lakehouse",
        metavar="URI",
        help="Lakehouse to use instead of the one in your definitions.",
    )
    @wraps(command)
    def with_project(
        *args: object,
        python_file: str | None,
        module_name: str | None,
        lakehouse: str | None,
        **options: object,
    ) -> object:
        project = load_project(python_file, module_name, lakehouse)
        return command(*args, project=project, **options)

    return with_project  # type: ignore[return-value]  # the same command, given its project


def _imported(python_file: str | None, module_name: str | None) -> tuple[ModuleType, str]:
    if python_file is not None and module_name is not None:
        raise DefinitionError(
            "Both a file (-f) and a module (-m) are given.", hint="Give one of them."
        )
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)  # as dagster does: a project imports its own packages
    if module_name is not None:
        origin = f"module {module_name!r}"
        return _run_user_code(lambda: importlib.import_module(module_name), origin), origin
    path = Path(python_file or DEFAULT_FILE)
    if not path.is_file():
        raise DefinitionError(
            f"There is no file {path} in {here}." if python_file is None else f"No file {path}.",
            hint="Run the command where your definitions.py is, or name the file or module: "
            "-f path/to/file.py or -m package.module.",
        )
    return _run_user_code(lambda: _module_of(path), str(path)), str(path)


def _module_of(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def _run_user_code(load: Callable[[], Any], origin: str) -> Any:
    # Broad on purpose: user code may raise anything, and the error says that it did.
    try:
        return load()
    except DefinitionError as error:
        at = _line_of(error)
        what = f"{at}: {error.what}" if at else error.what
        raise DefinitionError(what, safe=error.safe, hint=error.hint) from error
    except DatazoneError:
        raise
    except Exception as error:
        raise DefinitionError(
            f"{_line_of(error) or origin} can't be imported: {type(error).__name__}: {error}.",
            safe="Nothing was read or written.",
            hint="Fix it, or run the command in the environment and folder that Dagster runs in.",
        ) from error


def _line_of(error: Exception) -> str:
    """Return the project's innermost line that an exception passed; empty if there is none."""
    here = Path.cwd()
    for frame, number in reversed(list(traceback.walk_tb(error.__traceback__))):
        file = Path(frame.f_code.co_filename).absolute()
        inside = file.relative_to(here) if file.is_relative_to(here) else None
        installed = {"site-packages", "datazone_dagster"}
        if inside is not None and file.is_file() and not installed.intersection(inside.parts):
            return f"{inside}, line {number}"
    return ""


def _transforms(built: Iterable[Built], values: Iterable[object]) -> tuple[Transform, ...]:
    """Return the transforms given to `build_definitions`, or else those in the module."""
    given = dict.fromkeys(one for call in built for one in call.transforms)
    return tuple(given or dict.fromkeys(one for one in values if isinstance(one, Transform)))


def _layout(built: list[Built], lakehouse_uri: str | None, origin: str) -> Layout:
    given = [call.lakehouse.process_config_and_initialize() for call in built] or [Lakehouse()]
    first = given[0]
    if lakehouse_uri is not None:
        elsewhere: Layout = first.at(lakehouse_uri).layout
        return elsewhere
    layouts: list[Layout] = [lakehouse.layout for lakehouse in given]
    if any(layout != layouts[0] for layout in layouts):
        uris = ", ".join(dict.fromkeys(layout.uri for layout in layouts))
        raise DefinitionError(
            f"{origin} builds definitions with several lakehouses: {uris}.",
            hint="Name the one to use: --lakehouse URI.",
        )
    return layouts[0]
