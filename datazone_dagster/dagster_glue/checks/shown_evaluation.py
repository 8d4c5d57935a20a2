"""The evaluation of a check that Dagster shows.

It shows the newest row of a check. A run has one row, from when it was requested, which its reports
overwrite. A row without a run, such as the sensor's, is shown only until the next materialization.
"""

from __future__ import annotations

from dagster import AssetCheckEvaluation, AssetCheckKey, DagsterInstance

_LOOKED_AT = 20


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


def shown_evaluation(instance: DagsterInstance, key: AssetCheckKey) -> AssetCheckEvaluation | None:
    """Return the evaluation that Dagster shows, once what runs have only planned is reported."""
    skips_runless = is_hidden(instance, key)
    records = instance.event_log_storage.get_asset_check_execution_history(key, limit=_LOOKED_AT)
    for record in records:
        event = record.event.dagster_event if record.event else None
        facts = event.event_specific_data if event is not None else None
        if isinstance(facts, AssetCheckEvaluation) and (record.run_id or not skips_runless):
            return facts
    return None
