"""What `status`, `tail` and `doctor` print with `--json`."""

from __future__ import annotations

from datazone_dagster.commands.json_shape import (
    count,
    flag,
    listed,
    mapped,
    nullable,
    number,
    optional,
    record,
    text,
    time,
)

PHASE = text("Phase.", "wanted", "announced", "scanning", "scanned", "done", "cancelled")

_SNAPSHOT = record(
    "Last snapshot; null if none was taken.",
    snapshot_phase=PHASE,
    snapshot_reason=text("Why it was taken."),
    snapshot_id=optional(text("Its id.")),
    rows_scanned=count("Items that have landed."),
    items_in_table=optional(count("Items of the table, as the service last counted.")),
    percent=optional(number("Share that is scanned, in percent.")),
    bytes_scanned=count("Size of the scanned items, in bytes."),
    read_units_used=number("Read units used so far."),
    read_units_estimated=optional(number("Read units of the whole scan.")),
    read_units_per_second=optional(number("Present rate.")),
    limit_read_units_per_second=optional(number("Highest rate.")),
    eta_seconds=optional(number("Time left, in seconds.")),
    price_estimated=optional(number("Price of the scan on demand in us-east-1, in US dollars.")),
    segments=count("Segments of the scan."),
    segments_done=count("Segments that are scanned."),
    keys_checked=count("Keys that neither scan nor stream showed, asked for one by one."),
    keys_deleted=count("Keys among them that the table does not have any more."),
    waits_for=optional(text("What it waits for.")),
    began_again=optional(text("Why it began again.")),
    consistent_since=optional(time("Since when the datasets are consistent.")),
)

_STATUS_DATASET = record(
    "A dataset of the source.",
    dataset=text("Id."),
    position=count("Last batch that it has applied."),
    pending_batches=count("Batches that it still has to apply."),
    rows=count("Rows."),
    complete=text("Level of the check `complete`.", "ok", "warn", "error"),
    consistent=nullable(flag("Whether it shows every item; null: there was no snapshot.")),
    consistent_since=nullable(time("Since when.")),
    refusal=nullable(text("Why its runs are refused; null if they are not.")),
    waits_for=nullable(text("What its runs make way for: a rebuild, a repair, wider columns.")),
    waits_until=nullable(time("When they go on at the latest, if that has died.")),
)

STATUS = record(
    "State of the project.",
    sources=listed(
        record(
            "A source. Only the first four members are there if it was never drained.",
            source=text("Name."),
            drained=flag("Whether a batch was ever drained."),
            datasets=listed(_STATUS_DATASET, "Its datasets."),
            read=optional(text("Why it was not drained.")),
            head_batch=optional(count("Last batch of the change log.")),
            read_through=optional(
                nullable(time("Every change up to this time is landed, or recorded as lost."))
            ),
            drain=optional(
                text(
                    "Whether a drain reads the stream, by what it leaves in the lakehouse.",
                    "reads",
                    "silent",
                    "unknown",
                )
            ),
            drained_at=optional(
                nullable(time("When it last did; without changes it is noted every 10 minutes."))
            ),
            drain_age_seconds=optional(nullable(number("How long ago, in seconds."))),
            drain_line=optional(text("The same in one line.")),
            shards_open=optional(count("Open shards.")),
            snapshot=optional(nullable(_SNAPSHOT)),
            snapshot_line=optional(text("The snapshot in one line.")),
            change_log=optional(
                record(
                    "How far back the change log reaches.",
                    truncated_through=count("Last batch that retention has removed; 0: none."),
                    changes_since=nullable(time("Time of the first change that is left.")),
                    new_datasets=flag("Whether a new dataset can be added without a resync."),
                    snapshot_announced_at=nullable(time("Snapshot that it begins with.")),
                )
            ),
            change_log_line=optional(text("The same in one line.")),
            gaps=optional(listed(text("A gap."), "Open gaps, each in one line.")),
            sets=optional(
                listed(
                    record(
                        "A set.",
                        name=text("Name, and partition of its run."),
                        shards=count("Its open shards."),
                        last_batch=count("Last batch that it landed; 0: none."),
                        read_through=nullable(time("Its changes up to this time are landed.")),
                    ),
                    'Sets of shards that drain runs read (drain="runs").',
                )
            ),
        ),
        "Sources of the project.",
    ),
)

TAIL = record(
    "A change.",
    batch=count("Batch of the change log."),
    shard_id=text("Shard of the stream."),
    event_id=nullable(text("Id of the stream record; null for rows of a snapshot.")),
    event_name=nullable(text("Kind; null: not a stream record.")),
    event_time=nullable(time("Time of the change, cut to the second by the service.")),
    sequence_number=nullable(text("Sequence number; null for rows of a snapshot.")),
    by_ttl=flag("Whether the time to live of the item had passed."),
    keys=nullable(mapped({}, "Key, in DynamoDB JSON.")),
    old=nullable(mapped({}, "Item before, in DynamoDB JSON; null: absent, or not in the stream.")),
    new=nullable(mapped({}, "Item after, in DynamoDB JSON; null: deleted, or not in the stream.")),
    malformed=nullable(text("Why the record can't be parsed; null if it can.")),
    hidden=flag("Whether it landed before a mask of today, and values are hidden only here."),
)

DOCTOR = record(
    "The diagnosis.",
    failed=count("Checks that fail."),
    warned=count("Checks that warn."),
    findings=listed(
        record(
            "A finding.",
            subject=text("Name of a source, or lakehouse, versions, dagster."),
            check=text("Check: an IAM action, or a name such as view_type."),
            outcome=text("Outcome.", "ok", "warn", "fail"),
            what=text("What was found, and what it means."),
            hint=text("What to do; may be empty."),
        ),
        "All findings.",
    ),
)
