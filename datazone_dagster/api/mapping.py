"""What stands in the mappings of a transform: where its inputs come from and outputs go."""

from __future__ import annotations

from dataclasses import dataclass

from datazone_dagster.api import checked
from datazone_dagster.api.dataset import Dataset
from datazone_dagster.api.source import DynamoDBSource
from datazone_dagster.errors import DefinitionError


@dataclass(frozen=True, slots=True)
class Stream:
    """The changes of a source, in order per item.

    Args:
        source: The table whose stream it is; it must have one (`stream_enabled`).
    """

    source: DynamoDBSource

    def __post_init__(self) -> None:
        """Check the source."""
        source = checked.instance(
            "Stream", "source", self.source, DynamoDBSource, "Stream(source=DynamoDBSource(...))"
        )
        if not source.stream_enabled:
            raise DefinitionError(
                f"Stream(source=DynamoDBSource({source.table_name!r})): stream_enabled=False.",
                hint="Enable the table's stream with NEW_AND_OLD_IMAGES or NEW_IMAGE, then say "
                "stream_enabled=True.",
            )


@dataclass(frozen=True, slots=True)
class Input:
    """What a parameter of the function receives.

    Args:
        origin: A `Stream`: the parameter gets one chunk of changes at a time. Or a `Dataset`:
            it gets the whole table as it is now, for lookups.
    """

    origin: Stream | Dataset

    def __post_init__(self) -> None:
        """Check the origin."""
        if not isinstance(self.origin, Stream | Dataset):
            raise DefinitionError(
                f"Input({self.origin!r}): an input is a Stream or a Dataset.",
                hint="Write Input(Stream(source=DynamoDBSource(...))) or Input(Dataset(id=...)).",
            )


@dataclass(frozen=True, slots=True)
class Output:
    """Where a result of the function goes.

    Args:
        dataset: The Delta table that it is merged into.
    """

    dataset: Dataset

    def __post_init__(self) -> None:
        """Check the dataset."""
        checked.instance("Output", "dataset", self.dataset, Dataset, "Output(Dataset(id=...))")
