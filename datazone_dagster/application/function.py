"""Calling the user's function on a chunk, and reading what it returned as rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pyarrow as pa

from datazone_dagster.api import Transform
from datazone_dagster.changelog.log import Chunk
from datazone_dagster.errors import DatazoneError, TransformError
from datazone_dagster.frame.frame import Frame
from datazone_dagster.frame.lookup import Lookup
from datazone_dagster.frame.result import rows_of, split_outputs
from datazone_dagster.model.attributes import AttributeMapping
from datazone_dagster.model.columns import KEY

_KEYS_IN_AN_ERROR = 5


class Function:
    """The function of a transform, as a run calls it: chunk in, rows of each output out.

    `attributes` are the columns that `items()` has given so far; they grow with the calls.
    """

    def __init__(self, transform: Transform, attributes: AttributeMapping) -> None:
        self.attributes = attributes
        self._transform = transform

    def rows(
        self,
        outputs: Iterable[str],
        changes: pa.Table,
        lookups: Mapping[str, pa.Table],
        chunk: Chunk,
    ) -> dict[str, pa.Table]:
        """What the function makes of the changes of one chunk, for these outputs.

        Raises:
            TransformError: It raised, or its result can't be applied. Nothing was written.
        """
        returned = self._call(changes, lookups, chunk)
        datasets = self._transform.outputs
        return {
            output: rows_of(
                returned[output], dataset_id=datasets[output].id, mode=datasets[output].mode
            )
            for output in outputs
        }

    def _call(
        self, changes: pa.Table, lookups: Mapping[str, pa.Table], chunk: Chunk
    ) -> dict[str, object]:
        frame = Frame.of_changes(changes, lookups=lookups, attributes=self.attributes)
        arguments: dict[str, object] = {self._transform.stream_parameter: frame}
        arguments |= {name: Lookup.of_table(name, rows) for name, rows in lookups.items()}
        names = [(output, dataset.id) for output, dataset in self._transform.outputs.items()]
        try:
            returned = self._transform.function(**arguments)
            self.attributes = frame.attributes
            return dict(zip(self._transform.outputs, split_outputs(returned, names), strict=True))
        except DatazoneError:
            raise
        except Exception as error:
            keys = ", ".join(changes[KEY].slice(0, _KEYS_IN_AN_ERROR).to_pylist())
            raise TransformError(
                f"The function of transform {self._transform.name!r} raised "
                f"{type(error).__name__}: {error} (batches {chunk.first_batch} to "
                f"{chunk.last_batch}, {len(changes)} changes, first keys: {keys}).",
                safe="Nothing of this chunk was applied; the change log keeps it and the next "
                "run tries again.",
                hint="Mend the function and run it again.",
            ) from error
