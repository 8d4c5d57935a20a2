"""Values of a transform's mappings: the origins of its inputs and targets of its outputs."""

from __future__ import annotations

from dataclasses import dataclass

from datazone_dagster.api import checked
from datazone_dagster.api.calls import explained_class
from datazone_dagster.api.dataset import Dataset
from datazone_dagster.api.source import DynamoDBSource
from datazone_dagster.errors import DefinitionError


@explained_class('Stream(source=DynamoDBSource("orders"))')
@dataclass(frozen=True, slots=True)
class Stream:
    """The items of a source, as a stream.

    Args:
        source: DynamoDB table. With an enabled stream, its changes; those of one item arrive in
            order. With `stream_enabled=False`, every item of the table in each run. A
            `KinesisSource` is one, too; its changes may arrive in any order.

    Raises:
        DefinitionError: `source` is neither a `DynamoDBSource` nor a `KinesisSource`.
    """

    source: DynamoDBSource

    def __post_init__(self) -> None:
        """Check the source."""
        checked.instance(
            "Stream", "source", self.source, DynamoDBSource, "Stream(source=DynamoDBSource(...))"
        )


@explained_class('Input(Stream(source=DynamoDBSource("orders")))')
@dataclass(frozen=True, slots=True)
class Input:
    """Input of a transform: the origin of what a parameter of the function receives.

    Args:
        origin: A `Stream` or a `Dataset`. For a `Stream`, the parameter receives a lazy frame of
            one chunk of changes, oldest first. For a `Dataset`, it receives a read-only frame of
            the full table as it is when the run reads it, for lookups.

    Raises:
        DefinitionError: `origin` is neither a `Stream` nor a `Dataset`.
    """

    origin: Stream | Dataset

    def __post_init__(self) -> None:
        """Check the origin."""
        if not isinstance(self.origin, Stream | Dataset):
            raise DefinitionError(
                f"Input: origin is {checked.described(self.origin)}, not a Stream or a Dataset.",
                hint="Write Input(Stream(source=DynamoDBSource(...))) or Input(Dataset(id=...)).",
            )


@explained_class('Output(Dataset("orders"))')
@dataclass(frozen=True, slots=True)
class Output:
    """Output of a transform: the target of a result of the function.

    Args:
        dataset: Delta table that the result's rows are written to, by the dataset's `mode`.

    Raises:
        DefinitionError: `dataset` is not a `Dataset`.
    """

    dataset: Dataset

    def __post_init__(self) -> None:
        """Check the dataset."""
        checked.instance("Output", "dataset", self.dataset, Dataset, "Output(Dataset(id=...))")
