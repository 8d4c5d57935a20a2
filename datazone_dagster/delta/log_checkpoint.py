"""The file of a Delta checkpoint, from what is known of a table; no IO.

Delta protocol: "Checkpoints", "Checkpoint Schema", V1. A checkpoint has everything that a reader
needs of the entries up to its version, and the removed files within the retention: VACUUM of other
programs deletes only files that it knows to be removed for long.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from datazone_dagster.delta.intervals import TRANSACTION_RETENTION, interval_in
from datazone_dagster.delta.live_file import live_file
from datazone_dagster.delta.log_files import Action
from datazone_dagster.delta.transaction_log import Snapshot

_RETENTION = "delta.deletedFileRetentionDuration"
_DEFAULT_RETENTION = timedelta(days=7)

_FEATURES = {
    "appendOnly",
    "changeDataFeed",
    "checkConstraints",
    "columnMapping",
    "deletionVectors",
    "domainMetadata",
    "generatedColumns",
    "identityColumns",
    "invariants",
    "timestampNtz",
    "vacuumProtocolCheck",
}
"""Features that ask nothing of a checkpoint that is not here."""

_OTHER_FORMS = {
    "delta.checkpointPolicy": "v2",
    "delta.checkpoint.writeStatsAsStruct": "true",
    "delta.checkpoint.writeStatsAsJson": "false",
    "delta.enableRowTracking": "true",
}
"""Table properties that ask for another form of checkpoints."""

_TEXTS = pa.map_(pa.string(), pa.string())
_NAMES = pa.list_(pa.string())
_VECTOR = pa.struct(
    [
        ("storageType", pa.string()),
        ("pathOrInlineDv", pa.string()),
        ("offset", pa.int32()),
        ("sizeInBytes", pa.int32()),
        ("cardinality", pa.int64()),
    ]
)
_ROWS = [("baseRowId", pa.int64()), ("defaultRowCommitVersion", pa.int64())]
_ADD = pa.struct(
    [
        ("path", pa.string()),
        ("partitionValues", _TEXTS),
        ("size", pa.int64()),
        ("modificationTime", pa.int64()),
        ("dataChange", pa.bool_()),
        ("stats", pa.string()),
        ("tags", _TEXTS),
        ("deletionVector", _VECTOR),
        *_ROWS,
        ("clusteringProvider", pa.string()),
    ]
)
REMOVE = pa.struct(
    [
        ("path", pa.string()),
        ("deletionTimestamp", pa.int64()),
        ("dataChange", pa.bool_()),
        ("extendedFileMetadata", pa.bool_()),
        ("partitionValues", _TEXTS),
        ("size", pa.int64()),
        ("deletionVector", _VECTOR),
        *_ROWS,
    ]
)
"""A removed file; its bounds and tags are left out, which nobody reads."""

_METADATA = pa.struct(
    [
        ("id", pa.string()),
        ("name", pa.string()),
        ("description", pa.string()),
        ("format", pa.struct([("provider", pa.string()), ("options", _TEXTS)])),
        ("schemaString", pa.string()),
        ("partitionColumns", _NAMES),
        ("createdTime", pa.int64()),
        ("configuration", _TEXTS),
    ]
)
_PROTOCOL = pa.struct(
    [
        ("minReaderVersion", pa.int32()),
        ("minWriterVersion", pa.int32()),
        ("readerFeatures", _NAMES),
        ("writerFeatures", _NAMES),
    ]
)
_TRANSACTION = pa.struct(
    [("appId", pa.string()), ("version", pa.int64()), ("lastUpdated", pa.int64())]
)
_DOMAIN = pa.struct(
    [("domain", pa.string()), ("configuration", pa.string()), ("removed", pa.bool_())]
)
_SCHEMA = pa.schema(
    [
        ("txn", _TRANSACTION),
        ("add", _ADD),
        ("remove", REMOVE),
        ("metaData", _METADATA),
        ("protocol", _PROTOCOL),
        ("domainMetadata", _DOMAIN),
    ]
)


@dataclass(frozen=True, slots=True)
class CheckpointFile:
    """Contents of a checkpoint's file, and of the log's hint that names it."""

    content: bytes
    hint: bytes


def needs_delta_rs(snapshot: Snapshot) -> bool:
    """Return whether a checkpoint of this table has something that this file does not know."""
    features = {
        *(snapshot.protocol.get("readerFeatures") or ()),
        *(snapshot.protocol.get("writerFeatures") or ()),
    }
    properties = snapshot.configuration
    return bool(
        features - _FEATURES
        or snapshot.remainder.unknown
        or any(properties.get(name, "").lower() == text for name, text in _OTHER_FORMS.items())
        or _unknown_fields([snapshot.metadata], _METADATA)
        or _unknown_fields([snapshot.protocol], _PROTOCOL)
        or _unknown_fields((file.add for file in snapshot.files), _ADD)
    )


def has_hidden_partitions(snapshot: Snapshot) -> bool:
    """Return whether files were removed from a partition that has no file any more.

    An erasure may have removed them, and the value of the partition from the log: what is kept in
    memory may not come back there.
    """
    live = {_spelled(file.partition_values) for file in snapshot.files}
    return any(
        _spelled(remove["partitionValues"]) not in live
        for _, remove in snapshot.remainder.removes
        if remove.get("partitionValues")
    )


def _transactions(snapshot: Snapshot, now: datetime) -> Iterator[Action]:
    """Yield the application transactions; those with a time expire as the table says."""
    times = snapshot.remainder.transaction_times
    retention = interval_in(snapshot.configuration.get(TRANSACTION_RETENTION, ""))
    oldest_ms = 0 if retention is None else int((now - retention).timestamp() * 1000)
    for app_id, version in snapshot.transactions.items():
        time = times.get(app_id)
        if time is None or time >= oldest_ms:
            yield {"appId": app_id, "version": version, "lastUpdated": time}


def checkpoint_file(
    snapshot: Snapshot, earlier: pa.StructArray | None, now: datetime
) -> CheckpointFile:
    """Return the checkpoint of a snapshot.

    Args:
        snapshot: The table; its remainder is complete.
        earlier: Removed files of the checkpoint before, of type `REMOVE`; None if there is none.
        now: The current time, by which removed files expire.
    """
    removes = _removes(snapshot, earlier, _oldest_ms(snapshot.configuration, now))
    values = {
        "protocol": pa.array([snapshot.protocol], _PROTOCOL),
        "metaData": pa.array([_metadata(snapshot.metadata)], _METADATA),
        "txn": pa.array(list(_transactions(snapshot, now)), _TRANSACTION),
        "domainMetadata": pa.array(
            [one for one in snapshot.remainder.domains.values() if not one.get("removed")], _DOMAIN
        ),
        "add": pa.array([_file(file.add) for file in snapshot.files], _ADD),
        "remove": removes,
    }
    size = sum(map(len, values.values()))
    rows = pa.Table.from_batches(
        [
            pa.record_batch(
                [
                    array if field.name == name else pa.nulls(len(array), field.type)
                    for field in _SCHEMA
                ],
                schema=_SCHEMA,
            )
            for name, array in values.items()
        ]
    ).combine_chunks()
    sink = io.BytesIO()
    pq.write_table(rows, sink, compression="snappy", store_schema=False)
    content = sink.getvalue()
    hint = {
        "version": snapshot.version,
        "size": size,
        "sizeInBytes": len(content),
        "numOfAddFiles": len(snapshot.files),
    }
    return CheckpointFile(content, json.dumps(hint, separators=(",", ":")).encode())


def conformed(removes: pa.StructArray) -> pa.StructArray:
    """Return remove actions of any writer's checkpoint in the type `REMOVE`."""
    return _conformed(removes, REMOVE)


def _conformed(array: pa.StructArray, wanted: pa.StructType) -> pa.StructArray:
    children = []
    for field in wanted:
        at = array.type.get_field_index(field.name)
        if at < 0:
            children.append(pa.nulls(len(array), field.type))
        elif pa.types.is_struct(field.type):
            children.append(_conformed(array.field(at), field.type))
        else:
            children.append(array.field(at).cast(field.type))
    return pa.StructArray.from_arrays(children, fields=list(wanted), mask=array.is_null())


def _removes(
    snapshot: Snapshot, earlier: pa.StructArray | None, oldest_ms: int
) -> pa.ChunkedArray | pa.Array:
    """Return the removed files that are not live again, and not expired, each once."""
    newer = {live_file(one).identity: one for _, one in snapshot.remainder.removes}
    values = [
        _file(one)
        for identity, one in newer.items()
        if identity not in snapshot.by_identity and (one.get("deletionTimestamp") or 0) >= oldest_ms
    ]
    found = pa.array(values, REMOVE)
    if earlier is None or not len(earlier):
        return found
    times = pc.fill_null(pc.struct_field(earlier, "deletionTimestamp"), 0)
    earlier = earlier.filter(pc.greater_equal(times, oldest_ms))
    doubtful = pa.array(
        {path for path, _ in newer} | {path for path, _ in snapshot.by_identity}, pa.string()
    )
    is_doubtful = pc.is_in(pc.struct_field(earlier, "path"), doubtful)
    kept = pa.array(
        [
            not doubt or _is_only_there(earlier[at].as_py(), newer, snapshot)
            for at, doubt in enumerate(is_doubtful.to_pylist())
        ],
        pa.bool_(),
    )
    return pa.concat_arrays([earlier.filter(kept), found])


def _is_only_there(
    remove: dict[str, Any], newer: Mapping[tuple[str, str | None], Action], snapshot: Snapshot
) -> bool:
    identity = live_file(remove).identity
    return identity not in newer and identity not in snapshot.by_identity


def _oldest_ms(properties: Mapping[str, str], now: datetime) -> int:
    """Return the time of the oldest removal that stays; all stay if the property is not clear."""
    text = properties.get(_RETENTION)
    retention = _DEFAULT_RETENTION if text is None else interval_in(text)
    return 0 if retention is None else int((now - retention).timestamp() * 1000)


def _unknown_fields(values: Iterable[Action], known: pa.StructType) -> bool:
    names = {field.name for field in known}
    return any(not names.issuperset(value) for value in values)


def _spelled(partition: Mapping[str, str | None]) -> tuple[tuple[str, str | None], ...]:
    return tuple(sorted(partition.items()))


def _metadata(value: Action) -> dict[str, Any]:
    stored_as = value.get("format") or {}
    return {
        **value,
        "format": {
            "provider": stored_as.get("provider", "parquet"),
            "options": _pairs(stored_as.get("options")),
        },
        "partitionColumns": value.get("partitionColumns") or [],
        "configuration": _pairs(value.get("configuration")),
    }


def _file(value: Action) -> dict[str, Any]:
    """Return an add or remove action as a row; nothing changes by reading it in a checkpoint."""
    tags = value.get("tags")
    return {
        **value,
        "dataChange": False,
        "partitionValues": _pairs(value.get("partitionValues")),
        "tags": None if tags is None else _pairs(tags),
    }


def _pairs(mapping: Mapping[str, str | None] | None) -> Sequence[tuple[str, str | None]]:
    return list((mapping or {}).items())
