"""What each command prints with `--json`, and its exit codes; the documentation is made of it.

Names and types here are stable: members may be added, none is renamed or removed without a line in
the changelog. The tests validate every JSON output of every command.
"""

from __future__ import annotations

from collections.abc import Mapping

from datazone_dagster.commands.json_of_state import DOCTOR, PHASE, STATUS, TAIL
from datazone_dagster.commands.json_shape import (
    Schema,
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

ERROR = record(
    "Printed in place of a result when a command fails.",
    error=record(
        "The error.",
        type=text("Class of the error, such as DefinitionError; UsageError for wrong options."),
        message=text("What happened, and where."),
        safe=text("What is safe or lost; may be empty."),
        hint=text("What to do next; may be empty."),
    ),
)

REPEATED: Mapping[str, str] = {
    "demo": "One object per line: `ready` once, then `figures` every 5 seconds.",
    "status": "State of the project; with --watch one object per look.",
    "tail": "A change, one per line.",
    "emulator": "One object, on the first line, once the server answers.",
}
"""Commands that print one object per line, and when."""

EXIT_CODES: Mapping[str, Mapping[int, str]] = {
    "audit": {
        0: "nothing differs",
        1: "rows are missing, extra or stale",
        2: "something could not be decided, or the audit failed",
    },
    "doctor": {0: "no check fails", 1: "a check fails"},
    "erase": {0: "done, or only planned", 1: "failed, or not done: run the command again"},
    "import-export": {
        0: "done, or only planned",
        1: "failed",
        3: "waits for the drain, the datasets or an export: run the command again",
    },
}
"""Exit codes of commands that have others than 0 and 1, or another meaning of 1."""

_GAP = record(
    "A gap.",
    stream_arn=text("Stream."),
    shard_id=text("Shard, or a name for the time between two streams."),
    reason=text("Why the changes are gone."),
    since=nullable(time("Begin of the time in which changes may be missing.")),
    until=nullable(time("Its end.")),
    detected_at=time("When the drain found it."),
    state=text("State.", "open", "accepted", "repaired"),
    accepted_by=nullable(text("Who accepted or repaired it.")),
    accepted_at=nullable(time("When.")),
    accepted_why=nullable(text("Why.")),
)

_AUDIT_PLAN = record(
    "What was going to be read.",
    source=text("Name of the source."),
    datasets=listed(text("Id."), "Datasets that are audited."),
    skipped=mapped(text("Reason."), "Datasets that can't be audited, with the reason."),
    item_count=count("Items of the table, as the service last counted."),
    table_bytes=count("Their size, in bytes."),
    sample=number("Share of the table that is scanned."),
    segments=count("Segments that are scanned."),
    segments_total=count("Segments of the table."),
    units_per_second=number("Limit of the scan, in read units per second."),
    read_units=number("Estimate of the read units."),
    price=number("Price on demand in us-east-1, in US dollars."),
    seconds=number("Least time of the scan, in seconds."),
)

_AUDIT_DATASET = record(
    "Result for one dataset.",
    dataset_id=text("Id."),
    items=count("Items scanned and compared."),
    rows=count("Rows compared."),
    looked_again=count("Keys that differed at first."),
    changed=count("Keys among them that had only changed meanwhile."),
    differences=record(
        "Differing keys.",
        missing=count("The table has the item, the dataset no row."),
        extra=count("The dataset has a row, the table no item."),
        stale=count("The row is not what the function makes of the item."),
    ),
    undecided=mapped(count("Keys."), "Keys that could not be decided, by the reason."),
    refused=count("Items that the function or the contract refuses."),
    examples=mapped(listed(text("Key."), "Keys."), "Some keys of each difference."),
    not_compared=mapped(text("Reason."), "Columns that were not compared, with the reason."),
)

_ERASED_TABLE = record(
    "One table.",
    table=text("Name."),
    uri=text("Location."),
    rows=count("Rows to erase, or erased."),
    files=count("Files of the newest version with such rows."),
    size_bytes=count("Size of these files, in bytes."),
    old_files=count("Files of older versions with such rows."),
    young_files=count("Files with such rows that a writer may be about to commit."),
    log_files=count("Files of the Delta log that repeat values of such rows."),
    blocked=nullable(text("Why nothing can be erased from it.")),
)

_REASON = record(
    "Records with one reason.",
    reason=text("Reason."),
    records=count("Number of records."),
    keys=listed(text("Key, shortened."), "The first keys."),
)

SCHEMAS: Mapping[str, Schema] = {
    "accept-function": record(
        "Rows that count as made by the current function.",
        dataset=text("Id."),
        accepted_batches=count("Batches that another version had made; 0: there were none."),
        version=text("Version of the function that counts for all rows now."),
        position=count("Last batch of these rows."),
    ),
    "accept-gap": record(
        "Gaps that were accepted; with --list all gaps.",
        source=text("Name of the source."),
        gaps=listed(_GAP, "The gaps."),
    ),
    "audit": record(
        "Result of the audit.",
        result=text("Result.", "clean", "differences", "undecided"),
        plan=_AUDIT_PLAN,
        datasets=listed(_AUDIT_DATASET, "Result for each dataset."),
        read_units=number("Read units used."),
        scanned_at=nullable(time("Last page of the scan.")),
        proven_at=nullable(time("A clean dataset shows the table as of this time, at least.")),
    ),
    "completion": record(
        "Shell completion.",
        shell=text("Shell.", "bash", "zsh", "fish"),
        script=text("Script to evaluate in that shell."),
    ),
    "cost": record(
        "Cost of a month of 30 days, in US dollars (us-east-1).",
        calls=number("GetRecords calls."),
        calls_price=number("Price."),
        puts=number("Writes to the store."),
        puts_price=number("Price."),
        gets=number("Reads of the store."),
        gets_price=number("Price."),
        stored_gb=number("Size of the change log, in GB."),
        stored_price=number("Price."),
        runs=number("Runs."),
        drain_cpu_seconds=number("CPU time of drains, in seconds; not in the price."),
        run_cpu_seconds=number("CPU time of the processes of runs, in seconds; not in the price."),
        daemon_cpu_seconds=number("CPU time of the daemon, in seconds; not in the price."),
        cpu_seconds=number("CPU time together, in seconds."),
        cores=number("Busy CPU cores on average."),
        price=number("Price of services and store together."),
        kinesis=nullable(
            record(
                "Kinesis; with `--kinesis`.",
                units=number("Change data capture units that DynamoDB sends."),
                units_price=number("Price."),
                stream_price=number("Price of the stream, its writes and reads."),
                kept_price=number("Price of its retention of more than a day."),
            )
        ),
    ),
    "demo": record(
        "One line of the demo.",
        event=text("Kind.", "ready", "figures", "stopped"),
        dagster_url=optional(text("Dagster; with `ready`.")),
        dynamodb_url=optional(text("Local DynamoDB; with `ready`.")),
        lakehouse_uri=optional(text("Tables; with `ready`.")),
        was_running=optional(flag("Whether a demo ran; with `stopped`, the answer to --stop.")),
        seconds=optional(number("Time since the start, in seconds; with `figures`, as all below.")),
        written=optional(count("Changes written to DynamoDB.")),
        drained=optional(count("Changes in the change log.")),
        applied=optional(count("Changes in the dataset.")),
        lag_seconds=optional(number("Age of the oldest change that waits, in seconds.")),
        rows=optional(count("Rows of the dataset.")),
        items=optional(count("Items of the table.")),
        shards_open=optional(count("Open shards.")),
        shards=optional(count("All shards.")),
        checks=optional(mapped(text("Outcome."), "Checks, by asset and name.")),
    ),
    "doctor": DOCTOR,
    "emulator": record(
        "The running server.",
        url=text("Endpoint."),
        data_dir=nullable(text("Folder of the state; null: deleted when the server stops.")),
        orders_per_second=nullable(number("Changes of made-up orders per second.")),
    ),
    "erase": record(
        "The plan; with --yes what was done.",
        executed=flag("Whether anything was erased: with --yes."),
        source=text("Name of the source."),
        keys=count("Keys that were given."),
        found=listed(text("Number of a key."), "Those of them that have rows."),
        tables=listed(_ERASED_TABLE, "Each table."),
        done=flag("Whether a last search through every file found nothing."),
        unreachable=listed(text("Place."), "Places that the command does not reach."),
        dagster_events=optional(
            listed(
                record(
                    "An event of Dagster that mentions a key.",
                    what=text("Asset and kind."),
                    run_id=text("Run; may be empty."),
                    at=time("Time."),
                ),
                "Events to delete, by their runs.",
            )
        ),
        dagster_unread=optional(nullable(text("Why Dagster's events were not searched."))),
    ),
    "import-export": record(
        "The plan; with --yes how far it is.",
        executed=flag("Whether anything was read or announced: with --yes."),
        source=text("Name of the source."),
        reads=text("What is read.", "export", "windows"),
        table_items=count("Items of the table, as the service last counted."),
        table_bytes=count("Their size, in bytes."),
        starts_exports=flag("Whether the command starts exports: with --start."),
        already_handed_over=flag("Whether these exports were imported before."),
        estimated_price=optional(number("Price of a started full export, in US dollars.")),
        phase=optional(PHASE),
        rows=optional(count("Items that have landed.")),
        deleted=optional(count("Keys deleted that the table does not have any more.")),
        waits_for=optional(text("What it waits for; empty: nothing.")),
        exports=optional(listed(text("ARN."), "Exports that were read.")),
        export_after=optional(nullable(time("Earliest time of an export that fits."))),
        lost_from=optional(nullable(time("Begin of the window that incremental exports cover."))),
        notes=optional(listed(text("Note."), "What else was found or done.")),
    ),
    "init": record(
        "The new project.",
        directory=text("Folder."),
        created=listed(text("File."), "Files that were written."),
        kept=listed(text("File."), "Files that existed and stay as they are."),
        next=listed(text("Command."), "Commands to run next."),
    ),
    "maintain": record(
        "Maintenance of each table.",
        datasets=listed(
            record(
                "One dataset. Only the first two members are there if it has no table yet.",
                dataset=text("Id."),
                uri=text("Location of the table."),
                files=optional(count("Data files.")),
                size_bytes=optional(count("Their size, in bytes.")),
                rows=optional(count("Rows.")),
                hidden_rows=optional(count("Rows hidden by deletion vectors.")),
                files_joined=optional(count("Files that were joined.")),
                files_written=optional(count("Files that were written.")),
                rows_dropped=optional(count("Hidden rows that were dropped.")),
                bytes_read=optional(count("Bytes read.")),
                bytes_written=optional(count("Bytes written.")),
                checkpoint=optional(flag("Whether a checkpoint of the Delta log was written.")),
                files_deleted=optional(count("Files that were deleted.")),
                lost_race=optional(flag("Whether a merge came first: run the command again.")),
                duration_seconds=optional(number("Time it took, in seconds.")),
                uploads_aborted=optional(count("Unfinished uploads of S3 that were aborted.")),
                uploads_refused=optional(
                    text("Code of a store that did not let us look for them, or else empty.")
                ),
            ),
            "Datasets.",
        ),
    ),
    "rebuild": record(
        "The rebuilt dataset.",
        dataset=text("Id."),
        generation=count("Number of rebuilds of this dataset."),
        rows=count("Rows."),
        position=count("Last batch that it has applied."),
        head_batch=count("Last batch of the change log."),
        quarantined=count("Records in the quarantine."),
        proof=record(
            "Comparison with the change log before the swap.",
            changes=count("Changes with a key."),
            keys=count("Keys."),
            rows_keys=count("Keys with rows."),
            without_rows=count("Keys that were not deleted and have no rows."),
        ),
        unshown_keys=count("Keys with rows that the last resync did not ask for: resync again."),
        not_reported=nullable(text("Why Dagster was not told; null if it was.")),
    ),
    "redrive": record(
        "What was redriven, and what waits.",
        dataset=text("Id."),
        redriven=count("Records applied; 0 with --list."),
        inserted=count("Rows inserted."),
        updated=count("Rows updated."),
        deleted=count("Rows deleted."),
        waiting=count("Records in the quarantine."),
        reasons=listed(_REASON, "Why they wait."),
        not_reported=nullable(text("Why Dagster was not told; null if it was, and with --list.")),
    ),
    "resync": record(
        "The plan; with --yes it is asked for. With --cancel only `source` and `phase`.",
        source=text("Name of the source."),
        phase=nullable(PHASE),
        executed=optional(flag("Whether the snapshot was asked for: with --yes.")),
        goes_on=optional(flag("Whether one is under way and goes on.")),
        gaps=optional(count("Open gaps that it repairs.")),
        rows=optional(count("Items that have landed.")),
        items=optional(nullable(count("Items of the table."))),
        bytes=optional(nullable(count("Their size, in bytes."))),
        read_units=optional(nullable(number("Estimate of the read units."))),
        price=optional(nullable(number("Price on demand in us-east-1, in US dollars."))),
        limit_read_units_per_second=optional(nullable(number("Highest rate."))),
        seconds=optional(nullable(number("Time left, in seconds."))),
    ),
    "status": STATUS,
    "tail": TAIL,
}
"""Schema of the JSON that each command prints, by the name of the command."""
