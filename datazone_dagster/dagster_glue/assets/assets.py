"""Assets: one op per transform, one asset per dataset, and external assets for change logs."""

# No postponed annotations here: Dagster reads the real one of `context`.

import logging
from collections.abc import Iterable, Iterator, Mapping

from dagster import (
    AssetCheckResult,
    AssetCheckSpec,
    AssetExecutionContext,
    AssetKey,
    AssetOut,
    AssetsDefinition,
    AssetSpec,
    Output,
    multi_asset,
)

from datazone_dagster.api import Dataset, DynamoDBSource, Transform
from datazone_dagster.api.function_version import function_version
from datazone_dagster.dagster_glue.applier import Applier
from datazone_dagster.dagster_glue.asset_keys import AssetKeys
from datazone_dagster.dagster_glue.assets.apply_in_run import apply_of_run
from datazone_dagster.dagster_glue.assets.code_references import code_references
from datazone_dagster.dagster_glue.assets.lakehouse_check import check_lakehouse
from datazone_dagster.dagster_glue.assets.lazy_apply import DatasetWrite, LazyApply
from datazone_dagster.dagster_glue.assets.repeated_checks import (
    RepeatedChecks,
    events_so_far,
    last_events,
)
from datazone_dagster.dagster_glue.assets.source_run import appliers_in, handed_over, lead
from datazone_dagster.dagster_glue.checks.bucket_checks import across_buckets
from datazone_dagster.dagster_glue.checks.expectation_checks import (
    expectation_text,
    results_of_failure,
)
from datazone_dagster.dagster_glue.checks.key_checks import (
    checked_keys,
    keys_result,
    last_keys_results,
)
from datazone_dagster.dagster_glue.checks.rendering import (
    Event,
    as_results,
    check_results,
    state_check_results,
)
from datazone_dagster.dagster_glue.names import (
    COMPLETE_CHECK,
    DATASET_METADATA,
    DYNAMODB_KEY,
    FAILURE_TAG,
    FUNCTION_CHECK,
    IO_MANAGER_KEY,
    LAG_CHECK,
    LAKEHOUSE_KEY,
    QUARANTINE_CHECK,
    SCHEMA_CHECK,
    SHARED_TAG,
    SMALL_FILES_CHECK,
    UNIQUE_KEYS_CHECK,
    expectation_check_name,
    pool_name,
    sensor_name,
)
from datazone_dagster.dagster_glue.options import RunOptions
from datazone_dagster.dagster_glue.resources import Lakehouse
from datazone_dagster.dagster_glue.runs.bucket_runs import partitions_of_buckets
from datazone_dagster.dagster_glue.runs.finished_runs import refuse_finished_run
from datazone_dagster.dagster_glue.runs.pools import limit_pools
from datazone_dagster.dagster_glue.runs.run_place import name_lakehouse
from datazone_dagster.dagster_glue.runs.staying_runs import stays, told_to_end
from datazone_dagster.dagster_glue.shared import Companions
from datazone_dagster.dagster_glue.translator import (
    DatazoneAssetData,
    ExecutingTranslator,
    translated,
)
from datazone_dagster.errors import (
    DatazoneError,
    ExpectationError,
    LakehouseMismatchError,
    StoreUnavailableError,
)
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.protocols import Clock
from datazone_dagster.text import shown

_WITHOUT_CHECKS = (LakehouseMismatchError, StoreUnavailableError)
"""Errors after which the checks would be those of other tables, or would wait for the store."""

EventOfRun = Output[DatasetWrite] | AssetCheckResult | Event


def change_log_spec(source: DynamoDBSource, options: RunOptions) -> AssetSpec:
    """Return the change log of a source: an external asset that the drain sensor materializes."""
    region = f" in {source.region}" if source.region else ""
    spec = AssetSpec(
        options.keys.change_log(source),
        description=source.description
        or f"Every change of the DynamoDB table `{source.table_name}`{region}, as it arrived. The "
        f"sensor `{sensor_name(source)}` appends to it; runs apply it to the datasets.",
        kinds={"dynamodb", "deltalake"},
        tags=dict(map(_tag, source.tags)),
        owners=list(source.owners),
        group_name=source.group_name or source.name,
        metadata={
            "dagster/storage_kind": "deltalake",
            "table_name": source.table_name,
            "start": source.start,
            **({"masked": [path for path, _ in source.masked]} if source.mask else {}),
        },
    )
    return translated(options.translator, DatazoneAssetData(source, spec))


def transform_asset(
    applier: Applier, companions: Companions, options: RunOptions
) -> AssetsDefinition:
    """Return the datasets of a transform as assets of one op.

    A run applies everything between the datasets' own positions and the head of the change log,
    no matter what requested the run, so a run started by hand is always safe. One that the drain
    sensor requested goes on while the stream has traffic, and reports what it applies at most
    every 30 seconds. Where the source has no stream, a run scans the table and replaces the
    datasets. Datasets that are not selected stay where they are; a check that is selected without
    its dataset is evaluated, and nothing is applied. The op's pool prevents two runs at a time, or,
    where the datasets have buckets, more runs than buckets; each run has one bucket then.
    In a run of all transforms of the source, the first op applies for all: see `lead`.
    """
    transform, keys = applier.transform, applier.keys
    source = transform.source
    datasets = tuple(transform.outputs.values())
    outputs = {_output_name(index): one for index, one in enumerate(datasets)}

    @multi_asset(
        name=transform.name,
        outs={name: _asset_out(transform, dataset, options) for name, dataset in outputs.items()},
        deps=[
            keys.change_log(source),
            *dict.fromkeys(keys.dataset(dataset.id) for dataset in transform.lookups.values()),
        ],
        check_specs=[
            spec for dataset in outputs.values() for spec in _check_specs(transform, dataset, keys)
        ],
        description=transform.description,
        required_resource_keys={
            LAKEHOUSE_KEY,
            *(() if source.stream_enabled else (DYNAMODB_KEY,)),
        },
        pool=pool_name(transform, keys.prefix),
        can_subset=True,
        partitions_def=partitions_of_buckets(transform),
        op_tags={"datazone/transform": transform.name, **options.op_tags},
        retry_policy=options.retry_policy,
    )
    def apply(context: AssetExecutionContext) -> Iterator[EventOfRun]:
        chosen = {
            name: dataset
            for name, dataset in outputs.items()
            if keys.dataset(dataset.id) in context.selected_asset_keys
        }
        refuse_finished_run(context.instance, context.run.run_id)
        lakehouse: Lakehouse = getattr(context.resources, LAKEHOUSE_KEY)
        events = _applied(context, applier, companions, lakehouse.layout, chosen)
        events = across_buckets(events, context, transform, keys)
        if isinstance(options.translator, ExecutingTranslator):
            events = options.translator.execute(context, transform, events)
        for event in events:
            # A result of a check that is not selected would be an error.
            if not isinstance(event, AssetCheckResult) or _is_selected(context, event):
                yield event

    return apply


def _applied(
    context: AssetExecutionContext,
    applier: Applier,
    companions: Companions,
    layout: Layout,
    chosen: Mapping[str, Dataset],
) -> Iterator[EventOfRun]:
    """Apply to the chosen datasets, by output; yield all that the run reports of them."""
    transform, keys, clock = applier.transform, applier.keys, applier.clock
    lazy_apply = apply_of_run(applier, context, [one.id for one in chosen.values()])
    seat = None
    # Broad on purpose: whatever ended the application, the run reports the rest and fails.
    try:
        limit_pools(context.instance, [lazy_apply.pool], transform.buckets)
        change_log = keys.change_log(transform.source)
        check_lakehouse(context.instance, context.run.tags, transform.source, layout, change_log)
        name_lakehouse(context.instance, context.run, layout)
        seat = handed_over(context, transform)
        if seat is None and (appliers := appliers_in(context, transform, companions)):
            seat = yield from lead(context, appliers, lazy_apply, layout)
        if seat is None:
            yield from _alone(context, lazy_apply, layout, clock)
        else:
            lazy_apply = seat.lazy_apply
            if not seat.is_done():
                yield from as_results(last_events(lazy_apply, context.instance))
                return
        found = {
            one.id: lazy_apply.to_dataset(one.id, layout, context.log) for one in chosen.values()
        }
        for dataset in transform.outputs.values():
            if dataset.id not in found and _is_checked(context, keys.dataset(dataset.id)):
                found[dataset.id] = lazy_apply.looked(dataset.id, layout)
    except Exception as error:
        what = error.what if isinstance(error, DatazoneError) else str(error)
        reason = shown(f"{type(error).__name__}: {what}")
        if seat is None:  # the run of all transforms has its tags since it happened
            context.instance.add_run_tags(context.run.run_id, {FAILURE_TAG: reason})
        if not isinstance(error, _WITHOUT_CHECKS):
            yield from _checks_after_failure(lazy_apply, layout, context.log)
            yield from _key_results(context, keys, chosen.values(), (), layout, clock)
        if isinstance(error, ExpectationError):
            yield from results_of_failure(chosen.values(), error, keys)
        raise
    for name, dataset in chosen.items():
        yield Output(DatasetWrite(lazy_apply, dataset.id), output_name=name)
    for dataset_id, applied in found.items():
        yield from check_results(keys.dataset(dataset_id), applied)
    alone = [
        one for one in transform.outputs.values() if one.id in found and one not in chosen.values()
    ]
    yield from _key_results(context, keys, chosen.values(), alone, layout, clock)


def _alone(
    context: AssetExecutionContext, lazy_apply: LazyApply, layout: Layout, clock: Clock
) -> Iterator[Event]:
    """Apply one transform; yield what is reported while the run stays."""
    transform, told = lazy_apply.transform, None
    is_of_all = SHARED_TAG in context.run.tags  # a part of it, repeated
    if transform.source.stream_enabled and stays(context.run) and not is_of_all:
        pools = [lazy_apply.pool]
        told = told_to_end(context.instance, context.run.run_id, pools, clock)
    checks = RepeatedChecks()
    for so_far in lazy_apply.progress(layout, context.log, told):
        yield from events_so_far(so_far, lazy_apply, checks, context.instance)


def _key_results(
    context: AssetExecutionContext,
    keys: AssetKeys,
    chosen: Iterable[Dataset],
    alone: Iterable[Dataset],
    layout: Layout,
    clock: Clock,
) -> Iterator[AssetCheckResult]:
    """Repeat the last `unique_keys` of the chosen datasets; make that of those checked alone."""
    for dataset in chosen:
        key = keys.dataset_check(dataset.id, UNIQUE_KEYS_CHECK)
        yield from last_keys_results(dataset, key, context.instance)
    for dataset in alone:
        key = keys.dataset_check(dataset.id, UNIQUE_KEYS_CHECK)
        if key in context.selected_asset_check_keys:
            yield keys_result(key, checked_keys(dataset, layout, clock()))


def _is_checked(context: AssetExecutionContext, key: AssetKey) -> bool:
    """Return whether a check of a dataset is selected."""
    return any(one.asset_key == key for one in context.selected_asset_check_keys)


def _is_selected(context: AssetExecutionContext, result: AssetCheckResult) -> bool:
    selected = context.selected_asset_check_keys
    return (result.asset_key, result.check_name) in {(one.asset_key, one.name) for one in selected}


def _checks_after_failure(
    lazy_apply: LazyApply, layout: Layout, logger: logging.Logger
) -> Iterator[AssetCheckResult]:
    """Yield the results of the checks that do not need the function; none if they fail, too."""
    try:
        states = lazy_apply.states(layout)
    except DatazoneError as error:
        logger.warning("The checks of this run can't be evaluated: %s", error)
        return
    for dataset_id, state in states.items():
        yield from state_check_results(lazy_apply.keys.dataset(dataset_id), state)


def _output_name(index: int) -> str:
    # Outputs are numbered: dataset ids may contain '-', and Dagster reserves some names.
    return f"dataset_{index + 1}"


def _asset_out(transform: Transform, dataset: Dataset, options: RunOptions) -> AssetOut:
    source = transform.source
    spec = AssetSpec(
        options.keys.dataset(dataset.id),
        description=dataset.description or transform.description or _description(transform),
        tags=dict(_tag(text) for text in dataset.tags),
        owners=list(dict.fromkeys(dataset.owners or transform.owners)),
        kinds=set(dataset.kinds),
        group_name=dataset.group_name or transform.group_name or source.group_name or source.name,
        code_version=function_version(transform),
        automation_condition=options.automation_condition,
        metadata={
            "dagster/storage_kind": "deltalake",
            "mode": dataset.mode,
            "deletes": dataset.deletes,
            **(
                {"max_lag_seconds": dataset.max_lag.total_seconds()}
                if source.stream_enabled
                else {}
            ),
            **code_references(transform.function, transform.name),
            **({"partition_by": list(dataset.partition_by)} if dataset.partition_by else {}),
        },
    )
    spec = translated(options.translator, DatazoneAssetData(source, spec, transform, dataset))
    if options.keys.prefix or transform.buckets > 1:
        spec = spec.merge_attributes(metadata={DATASET_METADATA: dataset.id})
    return AssetOut.from_spec(
        spec,
        is_required=False,  # as Dagster wants it for assets that can be selected alone
        io_manager_key=IO_MANAGER_KEY,
    )


def _description(transform: Transform) -> str:
    of = "changes" if transform.source.stream_enabled else "items"
    return (
        f"Rows that `{transform.name}` makes from the {of} of the DynamoDB table "
        f"`{transform.source.table_name}`."
    )


def _tag(text: str) -> tuple[str, str]:
    key, _, value = text.partition("=")
    return key, value


def _check_specs(
    transform: Transform, dataset: Dataset, keys: AssetKeys
) -> Iterator[AssetCheckSpec]:
    descriptions = {
        LAG_CHECK: "Every change of the table is in the dataset within "
        f"{dataset.max_lag.total_seconds():g} s. Warns from a lag of one minute.",
        SCHEMA_CHECK: "The columns are those of the last materialization (a difference warns), "
        "and no column was left out of a frozen table.",
        QUARANTINE_CHECK: "No record waits in the quarantine. More than "
        f"{dataset.quarantine_threshold:,} are an error, fewer a warning.",
        COMPLETE_CHECK: "No change of the source was lost before it was read, or the loss was "
        "accepted."
        if transform.source.stream_enabled
        else "The rows are from a complete scan of the table, which began at `consistent_since`.",
        FUNCTION_CHECK: "All rows were made by the present version of the function, and it returns "
        "every column of the table; or a change of it was accepted.",
        SMALL_FILES_CHECK: "The table has at most 200 files, or files of 4 MiB or more.",
        UNIQUE_KEYS_CHECK: "The rows that show an item are those of one change. Read at night, or "
        "by a run of this check alone; other runs repeat the last result.",
    }
    descriptions |= {
        expectation_check_name(rule): expectation_text(one) for rule, one in dataset.expect
    }
    for key in keys.checks_of(transform, dataset):
        yield AssetCheckSpec(key.name, asset=key.asset_key, description=descriptions[key.name])
