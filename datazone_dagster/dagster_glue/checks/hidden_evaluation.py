"""Evaluations of checks that Dagster hides.

It shows the newest row of a check. A run has one row, from when it was requested, which its reports
overwrite. A row without a run, such as the sensor's, is shown only until the next materialization.
"""

from __future__ import annotations

from dagster import AssetCheckKey, DagsterInstance


def is_hidden(instance: DagsterInstance, key: AssetCheckKey) -> bool:
    """Return whether Dagster shows a check as not evaluated, although somebody reported it.

    A run that stays has one row, from when it was requested: what the sensor reports meanwhile
    hides all that the run reports after it.
    """
    newest = instance.event_log_storage.get_asset_check_execution_history(key, limit=1)
    if not newest or newest[0].run_id:
        return False
    materialized = instance.get_latest_materialization_event(key.asset_key)
    if materialized is None or not materialized.run_id:
        return False
    return materialized.timestamp > newest[0].create_timestamp
