"""Looks at keys that differed, again and again until each is decided: see `verdict`.

No difference counts before its key was looked at after the scan, and before drain and dataset have
passed the time of that look. So live traffic raises no alarm, and a key that can't be decided in
time is undecided.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import chain

import pyarrow as pa
import pyarrow.compute as pc

from datazone_dagster.apply.bad_records import keyed
from datazone_dagster.apply.chunk import CHANGES_SCHEMA
from datazone_dagster.audit.catching_up import CatchingUp
from datazone_dagster.audit.expected_rows import Comparable, ExpectedRows
from datazone_dagster.audit.first_look import require_time, wait_for
from datazone_dagster.audit.verdict import NO_ROWS, Fingerprint, Look, Verdict, verdict
from datazone_dagster.dataset.row_hashes import HASH, ROWS, RowHashes
from datazone_dagster.dataset.rows_of_keys import ShownDataset
from datazone_dagster.items.keys import canonical_key, keys_json
from datazone_dagster.model.audit_report import AuditSettings, DatasetAudit
from datazone_dagster.model.column_names import KEY, VERSION, Log
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.table_scan import ScannedItem, TableClient
from datazone_dagster.snapshot.rate import TokenBucket
from datazone_dagster.snapshot.scan import Until

KEYS_AT_ONCE = 100
"""Keys that are asked for at once: BatchGetItem's limit, and what has to be in memory."""

KEEPS_CHANGING = "it changed at every look"
NOT_DRAINED = "the drain has not passed the look in time"
NOT_APPLIED = "the dataset has not applied what was drained in time"
TOO_MANY = "too many keys differ to look at each of them again"
BY_LOOKUP = "a lookup decides whether it has a row"
NO_KEY = "(no key)"

_PROBED_KEYS = 1_000
_SEGMENTS = 1_000_000
_CUT = timedelta(seconds=1)
_CHUNK_BYTES = 32 << 20


@dataclass
class SecondLook:
    """Decides the keys of the datasets of one transform.

    Args:
        source_name: Name of the source.
        layout: Locations of the tables.
        client: Client of the table.
        key_names: Names of the table's key attributes.
        expected: Rows that items make.
        hashes: Compares rows.
        catching_up: Waits for drain and runs.
        bucket: Rate of the reads.
        until: Clock, pause and stop of the audit.
        settings: Bounds of the audit.
        logger: Logger.
    """

    source_name: str
    layout: Layout
    client: TableClient
    key_names: frozenset[str]
    expected: ExpectedRows
    hashes: RowHashes
    catching_up: CatchingUp
    bucket: TokenBucket
    until: Until
    settings: AuditSettings
    logger: logging.Logger
    read_units: float = 0.0
    _looks: dict[str, dict[str, Fingerprint | None]] = field(default_factory=dict)

    def run(
        self, candidates: dict[str, list[str]], results: dict[str, DatasetAudit]
    ) -> dict[str, DatasetAudit]:
        """Decide the candidates of each output; return the results with the verdicts.

        Raises:
            SourceError: The table can't be read.
            StorageError: The lakehouse can't be read.
            SnapshotError: The audit was told to stop.
        """
        results = dict(results)
        for number in range(self.settings.rounds):
            candidates = {output: keys for output, keys in candidates.items() if keys}
            if not candidates:
                return results
            counts = {output: len(keys) for output, keys in candidates.items()}
            self.logger.info("Audit of %s, look %d at %s", self.source_name, number + 1, counts)
            candidates, waits = self._round(candidates, results)
            if waits:
                return results
        for output, keys in candidates.items():
            results[output] = results[output].undecided_for(KEEPS_CHANGING, len(keys))
        return results

    def _round(
        self, candidates: dict[str, list[str]], results: dict[str, DatasetAudit]
    ) -> tuple[dict[str, list[str]], bool]:
        """Look at every candidate once; return those to look at again, and whether it is over."""
        head = self.catching_up.head()
        known = self._known()
        self._looks = {output: {} for output in candidates}
        self._look(sorted(set(chain.from_iterable(candidates.values()))))
        if self._known() != known:  # fingerprints before and after are not comparable
            return candidates, False
        at = self._service_time() + _CUT + timedelta(seconds=self.settings.settle_seconds)
        through = self.catching_up.drained(at)
        ids = {output: self.expected.datasets[output].dataset.id for output in candidates}
        if through is None:
            for output, keys in candidates.items():
                results[output] = results[output].undecided_for(NOT_DRAINED, len(keys))
            return {}, True
        applied = self.catching_up.applied(list(ids.values()), through)
        again: dict[str, list[str]] = {}
        for output, keys in candidates.items():
            if ids[output] in applied:
                results[output], again[output] = self._decided(output, keys, head, results[output])
            else:
                results[output] = results[output].undecided_for(NOT_APPLIED, len(keys))
        return again, False

    def _known(self) -> list[int]:
        return [len(one.not_compared) for one in self.expected.datasets.values()]

    def _look(self, keys: Sequence[str]) -> None:
        """Read the items of these keys, and store the rows that they have to have."""
        for start in range(0, len(keys), KEYS_AT_ONCE):
            require_time(self.until)
            group = keys[start : start + KEYS_AT_ONCE]
            items = self._items(group)
            at = self.catching_up.now()
            if start < _PROBED_KEYS and items:
                self.expected.probe(items, at)
            expected = self.expected.of_items(items, at) if items else {}
            for output, looks in self._looks.items():
                looks.update(dict.fromkeys(group, NO_ROWS))
                if output in expected:
                    without = self.expected.datasets[output].not_compared
                    looks.update(self._fingerprints(expected[output].rows, without))
                    looks.update(dict.fromkeys(expected[output].refused))

    def _items(self, keys: Sequence[str]) -> list[ScannedItem]:
        texts = [text for key in keys if (text := self._asked(key)) is not None]
        if not texts:
            return []
        wait_for(self.bucket, self.until)
        taken = self.bucket.start(self.until.monotonic())
        images = self.client.get_items(texts)
        units = float(len(texts) + sum(len(image) // 4096 for image in images.values()))
        self.bucket.finish(taken, units, self.until.monotonic())
        self.read_units += units
        return [ScannedItem(text, image, len(image.encode())) for text, image in images.items()]

    def _asked(self, key: str) -> str | None:
        """Return the key of an item as DynamoDB JSON; None if no item of the table can have it."""
        try:
            text = keys_json(key)
        except ValueError:
            return None
        names = {name for name in self.key_names if f'"{name}":' in text}
        return text if names == self.key_names and canonical_key(text) == key else None

    def _service_time(self) -> datetime:
        """Return the time of the service after the looks: a page of a tiny segment has it."""
        page = self.client.scan_page(0, _SEGMENTS, None, consistent=True)
        self.read_units += page.read_units
        return page.at

    def _decided(
        self, output: str, keys: list[str], head: int, result: DatasetAudit
    ) -> tuple[DatasetAudit, list[str]]:
        """Compare the rows of one dataset with the looks; return the keys to look at again."""
        comparable, again = self.expected.datasets[output], []
        shown = ShownDataset(self.layout, self.source_name, comparable.dataset.id)
        for start in range(0, len(keys), _PROBED_KEYS):
            group = keys[start : start + _PROBED_KEYS]
            rows = shown.of_keys(group).rows
            found = self._fingerprints(rows, _without(comparable, rows.schema))
            landed = self._landed(output, group, head, shown.newest)
            for key in group:
                look = Look(
                    self._looks[output].get(key, NO_ROWS),
                    found.get(key, NO_ROWS),
                    key in landed,
                    landed.get(key),
                )
                decision = verdict(look)
                if decision is Verdict.AGAIN:
                    again.append(key)
                else:
                    result = self._counted(comparable, result, key, look, decision)
        return result, again

    def _counted(
        self,
        comparable: Comparable,
        result: DatasetAudit,
        key: str,
        look: Look,
        decision: Verdict,
    ) -> DatasetAudit:
        if decision is Verdict.SAME:
            return replace(result, changed=result.changed + 1)
        if decision is Verdict.REFUSED:
            return replace(result, refused=result.refused + 1)
        if decision is Verdict.EXTRA and comparable.dataset.ttl_deletes == "ignore":
            return replace(result, changed=result.changed + 1)
        if comparable.depends_on_lookup:
            return result.undecided_for(BY_LOOKUP, 1)
        self.logger.info("Audit of %s: %s %s", self.source_name, decision.value, look)
        return result.differing(decision.value, key, self.settings.examples)

    def _landed(
        self, output: str, keys: Sequence[str], head: int, newest_batch: int
    ) -> dict[str, Fingerprint | None]:
        """Return, for keys that changed since the look, the rows of their newest change.

        Of a dataset with buckets, it may not be applied yet: then the key is looked at again.
        """
        if newest_batch <= head:
            return {}
        log, wanted = self.catching_up.opened(), pa.array(keys, pa.string())
        found = [CHANGES_SCHEMA.empty_table()]
        for chunk in log.chunks(head, newest_batch, _CHUNK_BYTES):
            changes = keyed(chunk.rows)[0].select(CHANGES_SCHEMA.names)
            found.append(changes.filter(pc.is_in(changes[KEY], wanted)))
        changes = pa.concat_tables(found)
        if not len(changes):
            return {}
        newest = changes.group_by(KEY).aggregate([(VERSION, "max")])
        last = changes.join(
            newest.rename_columns({f"{VERSION}_max": VERSION}),
            keys=[KEY, VERSION],
            join_type="left semi",
        ).sort_by([(Log.BATCH, "ascending")])
        expected = self.expected.of_changes(last.select(CHANGES_SCHEMA.names))[output]
        without = self.expected.datasets[output].not_compared
        landed: dict[str, Fingerprint | None] = dict.fromkeys(last[KEY].to_pylist(), NO_ROWS)
        landed.update(self._fingerprints(expected.rows, without))
        landed.update(dict.fromkeys(expected.refused))
        return landed

    def _fingerprints(self, rows: pa.Table, without: Iterable[str]) -> dict[str, Fingerprint]:
        hashes = self.hashes.of(rows, frozenset(without))
        columns = (hashes[name].to_pylist() for name in (KEY, ROWS, HASH))
        return {key: Fingerprint(count, value) for key, count, value in zip(*columns, strict=True)}


def _without(comparable: Comparable, schema: pa.Schema) -> frozenset[str]:
    """Return the columns of a table that do not count."""
    unknown = {name for name in schema.names if name not in comparable.columns}
    return frozenset(unknown | comparable.not_compared.keys())
