"""Guards of the flow, each with the test that fails when the guard is removed.

`test_guards.py` removes the guards one by one, in a copy of the project, and runs the test.
`reliability_table` lists them in docs/reliability.md.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Guard:
    """A few lines of a file, their replacement without the guard, and the test.

    Args:
        what: Description of the guard in a few words.
        file: Path below `datazone_dagster/`.
        code: Code of the guard, which occurs once in the file.
        without: Replacement of `code` that removes the guard.
        test: pytest node id below `tests/`, then options for pytest after a space.
    """

    what: str
    file: str
    code: str
    without: str
    test: str


GUARDS = (
    Guard(
        "A batch is committed on the version that gave its number",
        "changelog/log_head.py",
        "self.move_to(self._table.took(self._append(file, batch, landed)))",
        "self.at = self._table.now() or self.at\n"
        "                self.move_to(self._table.took(self._append(file, batch, landed)))",
        "faults/test_overlap.py::test_two_drains_at_once_without_a_save",
    ),
    Guard(
        "Files joined by another drain are not joined again",
        "changelog/log.py",
        "join_files(self._head.at, files, self._head.source)",
        "join_files(self._table.now(), files, self._head.source)",
        "changelog/test_maintain_log.py::test_files_that_another_drain_joined_are_not_joined_again",
    ),
    Guard(
        "A batch of a set is put again only after commits of other shards",
        "changelog/set_commits.py",
        'return "another drain read one of the same shards" if moved & shards else None',
        "return None",
        "changelog/test_set_commits.py::"
        "test_every_interleaving_lands_each_record_once_and_whoever_meets_no_other_wins",
    ),
    Guard(
        "A drain run that was frozen lands nothing of a set that was taken over",
        "changelog/set_commits.py",
        "        if self.app_id in app_ids:\n",
        "        if False:\n",
        "changelog/test_set_commits.py::"
        "test_a_drain_whose_set_was_taken_over_while_it_slept_lands_nothing",
    ),
    Guard(
        "A checkpoint of one of several drains is saved on top of the others'",
        "changelog/checkpoints.py",
        "wanted = with_changes(newest.checkpoint, base, checkpoint)",
        "wanted = checkpoint",
        "drain/test_sets.py::test_a_save_keeps_what_another_drain_saved_meanwhile",
    ),
    Guard(
        "A batch is not committed once its log moved past another drain's batch",
        "changelog/log_head.py",
        "            if not self.fence.allows(based_on):\n",
        "            if False:\n",
        "changelog/test_maintain_log.py::test_a_drain_moved_past_another_batch_loses_the_race",
    ),
    Guard(
        "A batch that lost the race to anything but scanned rows is given up",
        "changelog/log_head.py",
        "if not only_scanned_since(self.at, newest):",
        "if False:",
        "changelog/test_set_commits.py::"
        "test_every_interleaving_lands_each_record_once_and_whoever_meets_no_other_wins",
    ),
    Guard(
        "Scanned rows land only on top of the state that they were read after",
        "changelog/log_head.py",
        "            if self.snapshot != before:\n",
        "            if False:\n",
        "changelog/test_scan_log.py::test_one_of_two_scans_at_once_has_lost",
    ),
    Guard(
        "Scanned rows move no position",
        "changelog/positions.py",
        "pc.not_equal(rows[Log.SHARD_ID], SCAN_SHARD_ID)",
        "True",
        "changelog/test_scan_log.py::test_a_drain_that_lost_to_scans_only_takes_the_next_number",
    ),
    Guard(
        "What is drained after the announcement of a snapshot has its epoch",
        "changelog/current_checkpoint.py",
        "epoch=max(noted.epoch, announced)",
        "epoch=noted.epoch",
        "snapshot/test_announce.py::test_what_is_drained_after_the_announcement_has_its_epoch",
    ),
    Guard(
        "A checkpoint is saved on the version that it was read from",
        "changelog/checkpoints.py",
        "                    self._at,\n                    FileActions(",
        "                    self._table.now() or self._at,\n                    FileActions(",
        "changelog/test_checkpoints.py::"
        "test_saving_replaces_all_rows_and_a_stale_snapshot_loses_the_race",
    ),
    Guard(
        "A batch lands only on the newest checkpoint",
        "changelog/checkpoints.py",
        "        if newest is None or newest.anchor != self._at.anchor:\n",
        "        if False:\n",
        "changelog/test_checkpoints.py::test_a_drain_whose_checkpoint_is_not_the_newest_is_told",
    ),
    Guard(
        "The files of a commit that may still come stay",
        "delta/commit.py",
        "    except (LostRaceError, ConcurrentWriterError):\n        snapshot.store.delete",
        "    except Exception:\n        snapshot.store.delete",
        "faults/test_late_commits.py -m faults -k current",
    ),
    Guard(
        "A commit goes only above the entry that was read",
        "delta/put_entry.py",
        "        require_same_table(snapshot)\n",
        "",
        "delta/test_table_state.py::test_a_commit_on_a_table_made_again_loses_and_leaves_no_hole",
    ),
    Guard(
        "A local log has an entry only once the files that it names are on the disk",
        "delta/put_entry.py",
        "        snapshot.store.sync(new_files(values))\n",
        "",
        "faults/test_power_cuts.py",
    ),
    Guard(
        "A local log entry has its name only once its content is on the disk",
        "delta/durable_files.py",
        "            os.fsync(handle.fileno())\n",
        "",
        "faults/test_power_cuts.py",
    ),
    Guard(
        "An empty entry of a log is damage, not a commit without changes",
        "delta/log_files.py",
        "    if not actions:\n",
        "    if False:\n",
        "faults/test_lost_and_foreign_tables.py -k emptied_entry",
    ),
    Guard(
        "A checkpoint is written only into the table that was read",
        "delta/log_upkeep.py",
        "    require_same_table(snapshot)\n",
        "",
        "delta/test_log_checkpoint.py::test_a_table_made_again_gets_no_checkpoint_of_the_former_one",
    ),
    Guard(
        "What an erasure took from the log does not come back from memory",
        "delta/log_upkeep.py",
        " and not has_hidden_partitions(snapshot)",
        "",
        "delta/test_log_checkpoint.py"
        "::test_an_erased_value_of_a_partition_does_not_come_back_from_memory",
    ),
    Guard(
        "A table made again is read anew",
        "delta/table_state.py",
        "            if _is_there(known):\n",
        "            if True:\n",
        "delta/test_table_state.py::test_the_kept_state_equals_a_cold_read",
    ),
    Guard(
        "Positions include the batches written since the checkpoint",
        "changelog/current_checkpoint.py",
        "fold(saved, log.landed_since(saved.batch), log.head, now)",
        "fold(saved, (), log.head, now)",
        "faults/test_storage_faults.py::test_the_process_goes_on_after_a_failure",
    ),
    Guard(
        "The checkpoint is opened before the change log",
        "drain/source_tables.py",
        "        saved = opening()\n"
        "        log = ChangeLog(layout, source, identify).open_or_create()\n",
        "        log = ChangeLog(layout, source, identify).open_or_create()\n"
        "        saved = opening()\n",
        "faults/test_overlap.py::test_another_drain_commits_while_this_one_opens_its_tables",
    ),
    Guard(
        "A drain stops if the change log ends before its checkpoint",
        "drain/source_tables.py",
        "if saved.checkpoint.batch > log.head:",
        "if saved.checkpoint.batch > log.head + 10**9:",
        "faults/test_lost_and_foreign_tables.py::test_a_lost_change_log_is_not_started_again",
    ),
    Guard(
        "A drain lands nothing in an older copy of a change log that datasets have applied",
        "drain/source_tables.py",
        "        if batch > self.log.head:\n",
        "        if False:\n",
        "dagster_glue/test_older_copies.py",
    ),
    Guard(
        "A child shard is read only after its parent's end is committed",
        "drain/plan.py",
        "    return all(parent is not None and parent.is_done for parent in parents)\n",
        "    return True\n",
        "drain/test_plan.py",
    ),
    Guard(
        "A merged shard is read only after the ends of both parents are committed",
        "drain/plan.py",
        "    return all(parent is not None and parent.is_done for parent in parents)\n",
        "    return not parents or any(one is not None and one.is_done for one in parents)\n",
        "drain/test_plan.py::test_a_merged_shard_waits_for_the_ends_of_both_parents",
    ),
    Guard(
        "A change that Kinesis delivers again lands once",
        "changelog/known_events.py",
        "            if digits in known or (second < since and digits in landed):\n",
        "            if False:\n",
        "drain/test_kinesis.py::test_the_last_write_wins_whatever_the_order",
    ),
    Guard(
        "A new process does not take a part of the landed changes of a second for all of them",
        "changelog/known_events.py",
        "            since = datetime.fromtimestamp(self._since, timezone.utc)\n",
        "            since, self._since = start, int(start.timestamp())\n",
        "changelog/test_known_events.py::test_a_new_process_knows_what_landed_whatever_the_order_of_the_files",
    ),
    Guard(
        "An older change that Kinesis delivers after a snapshot's announcement does not win",
        "drain/late_changes.py",
        "raised_at = None if stream.is_ordered else _raised_at(snapshot, epoch)",
        "raised_at = None",
        "drain/test_kinesis.py::test_what_comes_late_after_the_announcement_does_not_win",
    ),
    Guard(
        "A Kinesis shard that was not read for its retention is a gap",
        "drain/plan.py",
        "(row.sequence_number is None or not stream.is_ordered)",
        "row.sequence_number is None",
        "drain/test_plan.py::test_a_shard_of_kinesis_that_was_not_read_for_its_retention_is_a_gap",
    ),
    Guard(
        "A child shard that starts before its parent's end stops the drain",
        "drain/plan.py",
        "child.starting_sequence_number <= max(ends)",
        "child.starting_sequence_number < 0",
        "drain/test_plan.py",
    ),
    Guard(
        "A child shard waits for a parent that no listing shows, then the parent is a gap",
        "drain/plan.py",
        "if listed_at - row.unread_from >= LATE_PARENT_GRACE",
        "if listed_at == row.unread_from",
        "drain/test_plan.py",
    ),
    Guard(
        "Records of a page without NextShardIterator are read",
        "drain/reader.py",
        "        self._take(page)\n",
        "        if page.next_iterator is not None:\n            self._take(page)\n",
        "faults/test_server_faults.py -k missing_next_iterator",
    ),
    Guard(
        "A record that arrives again is not written again",
        "drain/reader.py",
        ".newer_than(outcome.sequence_number)",
        ".newer_than(None)",
        "faults/test_server_faults.py::test_a_trimmed_data_error_without_a_trim",
    ),
    Guard(
        "An expired iterator is renewed",
        "drain/reader.py",
        "        except ExpiredIteratorError:\n            self._open_iterator(self._position())\n",
        "        except ExpiredIteratorError:\n            raise\n",
        "faults/test_server_faults.py::test_iterators_that_expire_between_drains",
    ),
    Guard(
        "Trimmed records are a gap",
        "drain/reader.py",
        "            gap = trim_gap(self._shard_so_far(), self._answered_at())\n",
        "            gap = None\n",
        "faults/test_server_faults.py::test_trimmed_in_the_middle_of_a_shard",
    ),
    Guard(
        "What is lost is decided by the clock of the service",
        "drain/batch.py",
        "        return self._told_at or self._here\n",
        "        return self._here\n",
        "drain/test_wrong_clock.py",
    ),
    Guard(
        "That records are trimmed is judged at the time of the answer that says so",
        "drain/reader.py",
        "        return told_now(self._client) or self._now\n",
        "        return self._now\n",
        "drain/test_wrong_clock.py::"
        "test_a_machine_that_sleeps_for_a_day_between_listing_and_reading",
    ),
    Guard(
        "A child that is listed late is as old as what was last read of its parents",
        "drain/plan.py",
        "opened_after(shard, opened, now)",
        "now",
        "drain/test_late_children.py::test_a_child_that_a_second_outage_leaves_unread_is_a_gap",
    ),
    Guard(
        "A shard that is read to its end late does not make its children young",
        "drain/checkpoint_update.py",
        "if outcome.at_latest or outcome.vanished",
        "if outcome.at_latest or outcome.ended",
        "drain/test_late_children.py::"
        "test_a_child_that_is_found_after_its_parents_end_is_as_old_as_that",
    ),
    Guard(
        "A shard without a position is judged when it is read, by a drain run too",
        "drain/reader.py",
        "            self._note_overdue()\n",
        "            pass\n",
        "drain/test_wrong_clock.py::"
        "test_a_run_that_reads_before_the_sensor_after_a_day_hides_no_gap",
    ),
    Guard(
        "What others have read while a run slept is no gap",
        "drain/commit_set.py",
        "newest.is_done or newest.read_through > row.read_through",
        "newest.is_done",
        "drain/test_wrong_clock.py::test_what_others_read_while_a_run_slept_is_no_gap",
    ),
    Guard(
        "A listing from before the machine slept is not used again",
        "drain/recent_listing.py",
        "abs((here - self.at).total_seconds())",
        "0.0",
        "drain/test_wrong_clock.py::test_a_machine_that_sleeps_for_a_day_between_two_drains",
    ),
    Guard(
        "A resync repairs what was lost before its announcement by the clock of the service",
        "model/snapshot_state.py",
        "        return lost_until > self.raised_at\n",
        "        return lost_until > (self.announced_at or lost_until)\n",
        "snapshot/test_next_step.py",
    ),
    Guard(
        "A shard that vanished unread is a gap",
        "drain/reader.py",
        "self.outcome.gap or vanished_gap(self._shard_so_far(), self._now)",
        "self.outcome.gap",
        "faults/test_server_faults.py::test_a_shard_that_vanished_unread",
    ),
    Guard(
        "An open shard is not abandoned after one ResourceNotFoundException",
        "drain/reader.py",
        "            if self._read.listed_open:\n",
        "            if False:\n",
        "faults/test_server_faults.py::test_an_open_shard_is_not_abandoned_after_one_error",
    ),
    Guard(
        "A drain stops reading once a shutdown is requested",
        "drain/reader.py",
        "            or self.shutdown_requested()\n",
        "",
        "faults/test_graceful_end.py::test_a_drain_commits_what_it_read_before_a_shutdown",
    ),
    Guard(
        "The old stream is drained to its end before the new one",
        "drain/stream_choice.py",
        "dict.fromkeys((*unfinished, *new))",
        "dict.fromkeys((*new, *unfinished))",
        "faults/test_server_faults.py::test_a_stream_disabled_and_enabled_again",
    ),
    Guard(
        "A chunk starts at the dataset's own position",
        "dataset/dataset_progress.py",
        "if position != expected.position:",
        "if False:",
        "faults/test_overlap.py::test_two_runs_at_once",
    ),
    Guard(
        "A chunk starts where each part of its bucket was",
        "dataset/dataset_progress.py",
        "if found.ahead != expected.ahead:",
        "if False:",
        "apply/test_bucket_modes.py::"
        "test_an_event_is_appended_once_where_a_former_bucket_commits_after_the_run_began",
    ),
    Guard(
        "A run that has read erased keys does not commit them",
        "dataset/dataset_progress.py",
        "if erasures_of(table, source) != erasures:",
        "if False:",
        "erase/test_erasure.py::test_a_run_that_has_read_the_key_loses_its_race",
    ),
    Guard(
        "Rows that hold the position of a drain are not erased before it is recorded",
        "changelog/erase_log.py",
        "if saved.checkpoint.batch < head:",
        "if False:",
        "erase/test_erasure.py::test_a_drain_at_the_same_time",
    ),
    Guard(
        "An erased item does not come back by a second delivery of Kinesis",
        "changelog/known_events.py",
        "if digits in self._erased[1]:",
        "if False:",
        "drain/test_kinesis.py::test_an_erased_item_does_not_come_back_by_a_second_delivery",
    ),
    Guard(
        "An erasure stores nothing that is made of a key",
        "changelog/erase_log.py",
        "row[Log.SHARD_ID] != SCAN_SHARD_ID",
        "row[Log.SHARD_ID] is not None",
        "drain/test_kinesis_state.py"
        "::test_an_erasure_stores_numbers_of_events_and_none_of_a_scanned_row",
    ),
    Guard(
        "A stream whose records are all erased is not taken for one made again",
        "changelog/known_records.py",
        "if erased and any(",
        "if False and any(",
        "drain/test_restarts.py::test_a_stream_whose_records_are_all_erased_is_no_other_stream",
    ),
    Guard(
        "Files of older versions that have erased rows are deleted",
        "rows/erase_rows.py",
        "    snapshot.store.delete(sorted(old))\n",
        "",
        "erase/test_erasure.py::test_nothing_is_left_and_the_rest_is_untouched",
    ),
    Guard(
        "A rebuilt table that contradicts the change log is not swapped in",
        "apply/prove_rebuild.py",
        "    if proof.wrong:\n",
        "    if False:\n",
        "test_rebuild.py::test_a_rebuilt_table_that_contradicts_the_change_log_is_not_swapped_in",
    ),
    Guard(
        "Rows and position are one commit",
        "dataset/dataset_table.py",
        "        commit = transaction(self.app_id, through_batch)\n",
        "        commit = transaction(self.app_id + '-lost', through_batch)\n",
        "faults/test_lost_and_foreign_tables.py::"
        "test_a_checkpoint_table_from_yesterday_is_only_behind",
    ),
    Guard(
        "A dataset is not applied from another change log",
        "changelog/followed_log.py",
        '    if made_from not in ("", log.table_id):\n',
        "    if False:\n",
        "faults/test_lost_and_foreign_tables.py::"
        "test_a_dataset_is_not_applied_from_another_change_log",
    ),
    Guard(
        "Tombstones are written before rows are deleted",
        "dataset/modes.py",
        "        self._tombstones.write(batch.keyed_changes, chunk.now)\n",
        "",
        "dataset/test_any_order.py",
    ),
    Guard(
        "A key that changed after an audit looked at it is no difference",
        "audit/verdict.py",
        "    if look.moved:\n",
        "    if False:\n",
        "audit/test_verdict.py",
    ),
    Guard(
        "A dataset begins with a snapshot only if every change since its announcement is left",
        "model/log_reach.py",
        "base.batch < max(1, truncated_through) else base",
        "base.batch < 1 else base",
        "apply/test_dataset_start.py::test_the_start_is_where_everything_is_left",
    ),
    Guard(
        "A run does not pass over changes that were removed before it applied them",
        "apply/run.py",
        "            if start < log.truncated_through:\n",
        "            if False:\n",
        "apply/test_dataset_start.py::test_a_dataset_added_later_equals_one_from_the_start",
    ),
    Guard(
        "A run without heartbeats is ended, and another one is requested",
        "dagster_glue/sensors/runs_wanted.py",
        "end_silent_runs(self.instance, jobs | own, now, quick_to_end=quick, handed_on=handed_on)",
        "_ = now",
        "dagster_glue/test_heartbeat.py::test_a_silent_run_is_ended_and_another_one_requested",
    ),
    Guard(
        "Transforms that share a run take turns: a slow one costs the others one chunk",
        "model/turns.py",
        "        self._order.append(name)\n",
        "        self._order.insert(0, name)\n",
        "model/test_turns.py::test_between_two_turns_of_one_each_other_has_at_most_one",
    ),
    Guard(
        "A run of several transforms has the slot of each before it applies it",
        "dagster_glue/assets/source_run.py",
        "return name == self._own or self._slots.claim(seat.lazy_apply.pool, name)",
        "return True",
        "dagster_glue/test_source_runs.py"
        "::test_a_transform_whose_pool_is_taken_joins_once_it_is_free",
    ),
    Guard(
        "A transform that failed waits, also in a run that the others get meanwhile",
        "dagster_glue/assets/source_run.py",
        "            if name in self._seats and retry.until > now:\n",
        "            if False:\n",
        "dagster_glue/test_source_runs.py"
        "::test_a_transform_that_failed_waits_while_the_others_get_runs",
    ),
    Guard(
        "An unrecognised table is refused",
        "delta/table_state.py",
        "        if found != self.kind:\n",
        "        if False:\n",
        "faults/test_lost_and_foreign_tables.py -k unrecognised_table",
    ),
    Guard(
        "A failure of the store is reported with its cause",
        "delta/store_diagnosis.py",
        'shown(": ".join(part for part in parts if part), _TEXT_MAX)',
        "shown(parts[0], _TEXT_MAX)",
        "test_delta.py::test_an_error_is_one_line_with_its_causes_and_without_secrets",
    ),
)
