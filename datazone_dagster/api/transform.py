"""The decorator that ties a function to one stream and to its datasets."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Generic, Literal, ParamSpec, TypeVar

from datazone_dagster.api import checked, signature
from datazone_dagster.api.calls import explained
from datazone_dagster.api.dataset import Dataset
from datazone_dagster.api.mapping import Input, Output, Stream
from datazone_dagster.api.source import DynamoDBSource
from datazone_dagster.api.spark_engine import SparkEngine
from datazone_dagster.errors import DefinitionError

if TYPE_CHECKING:
    import typing_extensions

    # The defaults let others write plain `Transform` for a transform of any function.
    P = typing_extensions.ParamSpec("P", default=...)
    R_co = typing_extensions.TypeVar("R_co", covariant=True, default=object)
else:
    P = ParamSpec("P")
    R_co = TypeVar("R_co", covariant=True)

Params = ParamSpec("Params")
Result = TypeVar("Result")


@dataclass(frozen=True, eq=False)
class Transform(Generic[P, R_co]):
    """A function with its inputs and outputs; calling the transform calls the plain function.

    Built and validated by `transform`. Two transforms are equal only if they are the same
    object.

    Args:
        name: Name of the op; the job is `apply_<name>`.
        function: The user's function.
        input_mapping: Inputs by parameter name.
        output_mapping: Outputs by output name, in the order of a returned tuple.
        stream_parameter: Parameter that receives the changes.
        source: Source of the changes.
        lookups: Datasets by the parameter that receives the full table.
        outputs: Datasets by output name.
        description: Text shown in Dagster; None if there is neither one nor a docstring.
        owners: Owners of the datasets that have none of their own.
        group_name: Asset group of the datasets that have none of their own.
        on_error: `"fail"` or `"quarantine"`: handling of changes that the function fails on.
        on_mismatch: `"null"`, `"quarantine"` or `"fail"`: handling of values of another type than
            a path reads.
        version: Version of the function, if the user gave one.
        row_wise: Whether the function computes the rows of a change from that change alone.
        run_tags: Tags of its runs, beside those of `build_definitions`.
    """

    name: str
    function: Callable[P, R_co]
    input_mapping: Mapping[str, Input]
    output_mapping: Mapping[str, Output]
    stream_parameter: str
    source: DynamoDBSource
    lookups: Mapping[str, Dataset]
    outputs: Mapping[str, Dataset]
    description: str | None = None
    owners: tuple[str, ...] = ()
    group_name: str | None = None
    on_error: str = "fail"
    on_mismatch: str = "null"
    version: str | None = None
    row_wise: bool = False
    run_tags: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Copy the function's name, module, docstring and signature."""
        for attribute in functools.WRAPPER_ASSIGNMENTS:
            if hasattr(self.function, attribute):
                object.__setattr__(self, attribute, getattr(self.function, attribute))
        object.__setattr__(self, "__wrapped__", self.function)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Call the plain function, as in a unit test."""
        return self.function(*args, **kwargs)

    @property
    def buckets(self) -> int:
        """Number of buckets of each output."""
        return next(iter(self.outputs.values())).buckets

    @property
    def engine(self) -> SparkEngine | None:
        """Engine of each output; None: the library's own."""
        return next(iter(self.outputs.values())).engine

    @property
    def job_name(self) -> str:
        """Name of the Dagster job that applies the transform."""
        return f"apply_{self.name}"

    def __repr__(self) -> str:
        datasets = ", ".join(dataset.id for dataset in self.outputs.values())
        return f"<Transform {self.name}: {self.source.table_name} -> {datasets}>"


@explained(
    '@transform(input_mapping={"orders": Input(Stream(source=DynamoDBSource("orders")))}, '
    'output_mapping={"orders": Output(Dataset("orders"))}) above a function of orders',
    {
        **dict.fromkeys(("input", "inputs"), "Perhaps input_mapping= is meant."),
        **dict.fromkeys(("output", "outputs"), "Perhaps output_mapping= is meant."),
    },
)
def transform(
    *,
    input_mapping: Mapping[str, Input],
    output_mapping: Mapping[str, Output],
    name: str | None = None,
    description: str | None = None,
    owners: str | Sequence[str] = (),
    group_name: str | None = None,
    on_error: Literal["fail", "quarantine"] = "fail",
    on_mismatch: Literal["null", "quarantine", "fail"] = "null",
    version: str | None = None,
    row_wise: bool = False,
    run_tags: Mapping[str, str] | None = None,
) -> Callable[[Callable[Params, Result]], Transform[Params, Result]]:
    """Turn a function into a transform from one stream to one or more datasets.

    The function is called once per chunk of changes, with its inputs as keyword arguments. It
    returns the rows of its output. With several outputs, it returns a mapping by output name or
    a tuple in their order.

    Args:
        input_mapping: Input of each parameter of the function, by parameter name. Exactly one
            input is a `Stream`; the others are datasets to look up.
        output_mapping: Outputs by name; at least one, each with its own dataset.
        name: Name of the op, and of the job `apply_<name>`: letters, digits and `_`. Defaults to
            the function's name.
        description: Text shown in Dagster; defaults to the function's docstring.
        owners: E-mail addresses or `team:<name>`, for datasets without owners of their own.
        group_name: Asset group, for datasets without one of their own.
        on_error: Handling of an exception in the function. `"fail"`: the run fails, nothing is
            lost, and the next run tries again. `"quarantine"`: smaller and smaller pieces of the
            chunk are tried to find the changes that the function fails on; these wait in the
            quarantine for a redrive, and the others are applied.
        on_mismatch: Handling of a value that is there, but of another type than a path of the
            function reads (`dynamodb.NewImage.total.N` where the record has `total` as S).
            `"null"`: the path gives null; the values are counted in the metadata and the `schema`
            check warns. `"quarantine"`: the change waits in the quarantine. `"fail"`: the run
            fails. A key attribute is never null: with `"null"` its change is quarantined. A
            function that reads both types (`coalesce(total.N, total.S)`) has no such value.
        version: Version of the function, any non-empty text. The `function` check warns while a
            dataset has rows of another version. Defaults to a fingerprint of the code, which
            changes with every change of the code that is more than a comment or formatting.
        row_wise: Says that the function computes the rows of a change from that change alone, for
            functions that read their rows: Python code over `arrow()`, `pl()` or `df()`. The
            function then gets the latest change of each key of a chunk, some thousand at a time.
            Each run checks it on up to 500 changes before it writes: called on each half of them,
            the function must give the same rows as for all, in any order. Where a change can't be
            applied, the function still gets every change of the chunk. Frames of `select`,
            `filter`, `with_columns` and `items()` show it by themselves and need no statement.
            Refused with datasets that every change counts for: `mode="append"` or `"history"`,
            `deletes="soft"`, `ttl_deletes="ignore"`.
        run_tags: Tags of the runs of this transform, for launchers and run queues, such as
            `{"ecs/cpu": "2048"}`: those of each of its buckets, too. They come before the
            `run_tags` of `build_definitions`. Runs that transforms share have only the latter.

    Returns:
        A decorator that returns a `Transform`, which is still callable as the plain function.

    Raises:
        DefinitionError: An argument or the function is invalid; the message names it and the
            allowed values.

    Example:
        ```python
        @transform(
            input_mapping={"orders": Input(Stream(source=DynamoDBSource("orders")))},
            output_mapping={"open_orders": Output(Dataset("open_orders"))},
        )
        def open_orders(orders):
            return orders.items().filter("status = 'open'")
        ```
    """

    def decorate(function: Callable[Params, Result]) -> Transform[Params, Result]:
        signature.check_function(function)
        transform_name = name if name is not None else getattr(function, "__name__", None)
        where = f"transform {transform_name!r}"
        inputs = _checked_mapping(where, "input_mapping", input_mapping, Input)
        outputs = _checked_mapping(where, "output_mapping", output_mapping, Output)
        signature.check_parameters(where, function, tuple(inputs))
        stream_parameter, stream = _the_stream(where, inputs)
        lookups = {
            parameter: given.origin
            for parameter, given in inputs.items()
            if isinstance(given.origin, Dataset)
        }
        datasets = {output: given.dataset for output, given in outputs.items()}
        _check_datasets(where, lookups, datasets)
        _check_buckets(where, datasets, has_stream=stream.source.stream_enabled)
        _check_engines(
            where,
            datasets,
            source=stream.source,
            has_lookups=bool(lookups),
            row_wise=row_wise,
        )
        if not stream.source.stream_enabled:
            _check_replaced(where, datasets)
        if checked.flag(where, "row_wise", row_wise):
            _check_row_wise(where, datasets)
        checked.optional_text(where, "description", description)
        return Transform(
            name=checked.dagster_name(where, "name", transform_name),
            function=function,
            input_mapping=MappingProxyType(inputs),
            output_mapping=MappingProxyType(outputs),
            stream_parameter=stream_parameter,
            source=stream.source,
            lookups=MappingProxyType(lookups),
            outputs=MappingProxyType(datasets),
            description=description or signature.docstring(function),
            owners=checked.owners(where, owners),
            group_name=checked.group_name(where, group_name),
            on_error=checked.choice(where, "on_error", on_error),
            on_mismatch=checked.choice(where, "on_mismatch", on_mismatch),
            version=checked.optional_text(where, "version", version),
            row_wise=row_wise,
            run_tags=MappingProxyType(checked.run_tags(where, run_tags)),
        )

    return decorate


_EXAMPLES: Mapping[type, str] = {
    Input: "Input(Stream(source=DynamoDBSource(...)))",
    Output: "Output(Dataset(...))",
}


def _checked_mapping(
    where: str, argument: str, mapping: object, kind: type[checked.T]
) -> dict[str, checked.T]:
    example = f'{argument}={{"orders": {_EXAMPLES[kind]}}}'
    if not isinstance(mapping, Mapping) or not mapping:
        found = "empty" if mapping == {} else f"{checked.described(mapping)}, not a mapping"
        raise DefinitionError(f"{where}: {argument} is {found}.", hint=f"Write {example}.")
    for key in mapping:
        if not isinstance(key, str) or not key.isidentifier():
            raise DefinitionError(
                f"{where}: {argument} has the key {key!r}.",
                hint=f"Keys are valid Python identifiers: {example}.",
            )
    return {
        key: checked.instance(
            where, f"{argument}[{key!r}]", value, kind, example.replace("orders", key, 1)
        )
        for key, value in mapping.items()
    }


def _the_stream(where: str, inputs: Mapping[str, Input]) -> tuple[str, Stream]:
    streams = [
        (parameter, given.origin)
        for parameter, given in inputs.items()
        if isinstance(given.origin, Stream)
    ]
    if len(streams) != 1:
        found = checked.quoted(parameter for parameter, _ in streams) if streams else "none"
        raise DefinitionError(
            f"{where}: input_mapping has {len(streams)} streams ({found}); a transform has "
            "exactly one.",
            hint="Write Input(Stream(source=...)) for one parameter and Input(Dataset(...)) for "
            "the others. To join two streams, let one transform write a dataset that the other "
            "one looks up.",
        )
    return streams[0]


def _check_datasets(
    where: str, lookups: Mapping[str, Dataset], outputs: Mapping[str, Dataset]
) -> None:
    output_of: dict[str, str] = {}
    for output, dataset in outputs.items():
        if dataset.id in output_of:
            raise DefinitionError(
                f"{where}: output_mapping: {output_of[dataset.id]!r} and {output!r} both write "
                f"the dataset {dataset.id!r}.",
                hint="Give each output its own dataset id.",
            )
        output_of[dataset.id] = output
    for parameter, dataset in lookups.items():
        if dataset.id in output_of:
            raise DefinitionError(
                f"{where}: the dataset {dataset.id!r} is both the input {parameter!r} and the "
                f"output {output_of[dataset.id]!r}.",
                hint="A transform can't look up what it writes: the result would depend on "
                "where chunks begin and end.",
            )


def _check_buckets(where: str, datasets: Mapping[str, Dataset], *, has_stream: bool) -> None:
    """Refuse outputs with different buckets: a run has one bucket, and each chunk all outputs."""
    counts = {dataset.id: dataset.buckets for dataset in datasets.values()}
    if len(set(counts.values())) > 1:
        raise DefinitionError(
            f"{where}: the outputs have different numbers of buckets: {counts}.",
            hint="Give all outputs of a transform the same number, or write two transforms.",
        )
    if max(counts.values()) > 1 and not has_stream:
        raise DefinitionError(
            f"{where}: buckets={max(counts.values())}, but the source has stream_enabled=False.",
            hint="A scan replaces all rows at once: leave buckets out.",
        )


def _check_engines(
    where: str,
    datasets: Mapping[str, Dataset],
    *,
    source: DynamoDBSource,
    has_lookups: bool,
    row_wise: bool,
) -> None:
    """Refuse outputs with different engines, and what Spark does not do."""
    engines = {dataset.engine for dataset in datasets.values()}
    if engines == {None}:
        return
    if len(engines) > 1:
        raise DefinitionError(
            f"{where}: the outputs have different engines.",
            hint="Give all outputs of a transform the same engine, or write two transforms.",
        )
    for is_so, what, hint in (
        (not source.stream_enabled, "a source with stream_enabled=False", "Leave engine out."),
        (source.drain == "runs", 'a source with drain="runs"', "Leave engine or drain out."),
        (has_lookups, "inputs to look up", "Join them downstream of the dataset."),
        (row_wise, "row_wise=True", "Return select(), filter(), with_columns() or sql()."),
    ):
        if is_so:
            raise DefinitionError(f"{where}: a SparkEngine does not support {what}.", hint=hint)


def _check_replaced(where: str, datasets: Mapping[str, Dataset]) -> None:
    """Refuse settings that need changes, where each run replaces all rows by a scan."""
    for output, dataset in datasets.items():
        mode, deletes = dataset.mode, dataset.deletes
        if mode == "merge" and deletes == "hard":
            continue
        setting = f"deletes={deletes!r}" if mode == "merge" else f"mode={mode!r}"
        raise DefinitionError(
            f"{where}: output {output!r}: dataset {dataset.id!r} has {setting}, but its source has "
            "stream_enabled=False.",
            hint="A scan shows the items that a table has now: no single changes, no deletes, no "
            'past. Write mode="merge" with deletes="hard", or enable the stream of the table and '
            "set stream_enabled=True.",
        )


def _check_row_wise(where: str, datasets: Mapping[str, Dataset]) -> None:
    """Refuse `row_wise` where superseded changes leave a trace: it would have no effect."""
    for dataset in datasets.values():
        if dataset.mode != "merge":
            setting = f"mode={dataset.mode!r}"
        elif dataset.deletes != "hard":
            setting = f"deletes={dataset.deletes!r}"
        elif dataset.ttl_deletes != "apply":
            setting = f"ttl_deletes={dataset.ttl_deletes!r}"
        else:
            continue
        raise DefinitionError(
            f"{where}: row_wise=True, but dataset {dataset.id!r} has {setting}, where every "
            "change of a key counts, not only the latest.",
            hint="Leave out row_wise=True: the function gets every change there anyway.",
        )
