"""A file with keys of several buckets as one file per bucket, so that their writers do not meet."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from datazone_dagster.delta.data_file import write_data_file
from datazone_dagster.delta.live_file import LiveFile
from datazone_dagster.delta.read_file import live_batches
from datazone_dagster.delta.transaction_log import Action, Snapshot
from datazone_dagster.model.column_names import KEY, VERSION
from datazone_dagster.model.key_bucket import KeyBucket, key_buckets
from datazone_dagster.rows.bucket_files import may_have_keys, tag_of, tagged
from datazone_dagster.rows.key_hash import are_of, slots_of_keys


def split_file(snapshot: Snapshot, file: LiveFile, buckets: int) -> list[Action]:
    """Write the live rows of a file by bucket, and return the add actions.

    The file is read once for each bucket: memory holds one row group, whatever its size.

    Raises:
        OSError: The store failed.
        StorageError: A deletion vector is damaged.
    """
    written = (
        (bucket, _written(snapshot, file, bucket))
        for bucket in key_buckets(buckets)
        if may_have_keys(file, bucket)
    )
    return [tagged(add, tag_of(bucket)) for bucket, add in written if add is not None]


def _written(snapshot: Snapshot, file: LiveFile, bucket: KeyBucket) -> Action | None:
    schema, hidden = snapshot.schema, snapshot.deleted_in(file)

    def batches() -> Iterator[pa.RecordBatch]:
        for batch in live_batches(snapshot, file, schema, hidden):
            keys = batch.column(KEY).cast(pa.string())
            yield batch.filter(pa.array(are_of(bucket, slots_of_keys(keys))))

    return write_data_file(
        snapshot.store,
        schema,
        file.partition_values,
        batches(),
        data_change=False,
        plain_columns=(KEY, VERSION),
    )
