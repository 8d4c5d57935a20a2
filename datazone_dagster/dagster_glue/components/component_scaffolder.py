"""What `dg scaffold` writes for a component: a file that says what else there is."""

from __future__ import annotations

import json
from typing import Any

import dagster as dg
from dagster.components import scaffold_component
from pydantic import BaseModel, Field

from datazone_dagster.api import Dataset, DynamoDBSource

_FILE = """\
type: {type}

attributes:
  table_name: {table}
{region}  dataset: {dataset}

  # Columns, each an SQL expression over the stream record. Without them, the attributes of the
  # items are the columns.
  # select:
  #   - dynamodb.Keys.id.S as id
  #   - cast(dynamodb.NewImage.total.N as decimal(12, 2)) as total

  # Or a function of yours, which takes the frame of changes and returns rows.
  # transform: my_project.transforms.{dataset_name}

  # kinesis_stream: orders-changes   # the table sends its changes there; unset: its own stream
  # mode: history                # merge: the newest state; append: every event
  # credentials: {{profile_name: shop}}
  # lakehouse: {{uri: s3://acme-lake/orders}}
"""


_TAG_FILE = """\
type: {type}

attributes:
  tag_key: {key}
  tag_value: {value}
{region}{prefix}
  # Tables that get no dataset, by name or pattern. Also the way to remove a dataset: a table that
  # only loses its tag keeps it.
  # exclude: [orders_test, "tmp_*"]

  # Tables without which a refresh is refused.
  # required_tables: [orders]

  # mode: history                # merge: the newest state; append: every event
  # credentials: {{profile_name: shop}}
  # lakehouse: {{uri: s3://acme-lake/orders}}

# Find the tables, now and whenever they change: dg utils refresh-defs-state
"""


class StreamParams(BaseModel):
    """Options of `dg scaffold defs datazone_dagster.DynamoDBStreamComponent`."""

    table_name: str = Field(default="orders", description="DynamoDB table.")
    region: str | None = Field(default=None, description="AWS region of the table.")
    dataset: str | None = Field(
        default=None, description="Id of the dataset; unset: current_<table>."
    )


class TagParams(BaseModel):
    """Options of `dg scaffold defs datazone_dagster.DynamoDBTablesByTagComponent`."""

    tag_key: str = Field(default="lakehouse", description="Key of the tag.")
    tag_value: str = Field(default="orders", description="Value of the tag.")
    region: str | None = Field(default=None, description="AWS region of the tables.")
    dataset_prefix: str | None = Field(default=None, description="Prefix of every dataset id.")


class DynamoDBStreamScaffolder(dg.Scaffolder[StreamParams]):
    """Writes a `defs.yaml` with comments, or a `component.py`."""

    @classmethod
    def get_scaffold_params(cls) -> type[StreamParams]:
        """Return the options."""
        return StreamParams

    def scaffold(self, request: dg.ScaffoldRequest[StreamParams]) -> None:
        """Write the file."""
        params = request.params
        source = DynamoDBSource(params.table_name, region=params.region)
        dataset = Dataset(params.dataset or f"current_{source.name}").id
        if request.scaffold_format != "yaml":
            scaffold_component(request)
            return
        region = "" if params.region is None else f"  region: {params.region}\n"
        written = _FILE.format(
            type=request.type_name,
            table=_quoted(params.table_name),
            region=region,
            dataset=_quoted(dataset),
            dataset_name=dataset.replace("-", "_"),
        )
        _write(request, written)


class DynamoDBTablesByTagScaffolder(dg.Scaffolder[TagParams]):
    """Writes a `defs.yaml` with comments, or a `component.py`."""

    @classmethod
    def get_scaffold_params(cls) -> type[TagParams]:
        """Return the options."""
        return TagParams

    def scaffold(self, request: dg.ScaffoldRequest[TagParams]) -> None:
        """Write the file."""
        params = request.params
        if params.region is not None:
            DynamoDBSource("any", region=params.region)
        if params.dataset_prefix is not None:
            Dataset(f"{params.dataset_prefix}any")
        if request.scaffold_format != "yaml":
            scaffold_component(request)
            return
        more = {"region": params.region, "dataset_prefix": params.dataset_prefix}
        lines = {
            name: f"  {name}: {_quoted(text)}\n" if text else "" for name, text in more.items()
        }
        written = _TAG_FILE.format(
            type=request.type_name,
            key=_quoted(params.tag_key),
            value=_quoted(params.tag_value),
            region=lines["region"],
            prefix=lines["dataset_prefix"],
        )
        _write(request, written)


def _write(request: dg.ScaffoldRequest[Any], written: str) -> None:
    path = request.target_path if request.append else request.target_path / "defs.yaml"
    with path.open("a" if request.append else "w", encoding="utf-8") as file:
        file.write(f"---\n{written}" if request.append else written)


def _quoted(text: str) -> Any:
    """Return a name as YAML reads it back: `1e3` and `no` are texts only in quotes."""
    return text if text.isidentifier() and text.lower() not in _WORDS else json.dumps(text)


_WORDS = {"true", "false", "yes", "no", "on", "off", "null", "y", "n"}
