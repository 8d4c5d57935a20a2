"""The decorator that ties a function to one stream and to its datasets."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Generic, Literal, ParamSpec, TypeVar

from datazone_dagster.api import checked, signature
from datazone_dagster.api.dataset import Dataset
from datazone_dagster.api.mapping import Input, Output, Stream
from datazone_dagster.api.source import DynamoDBSource
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
    """A function with its inputs and outputs; calling it calls the plain function.

    Built by `transform`, valid from then on. Two transforms are equal only if they are the
    same object.

    Args:
        name: Names the op and the job `apply_<name>`.
        function: The user's function.
        input_mapping: Parameter name to input.
        output_mapping: Output name to output, in the order of a returned tuple.
        stream_parameter: The parameter that gets the changes.
        source: Whose changes these are.
        lookups: The other parameters, and the dataset that each gets whole.
        outputs: Output name to dataset.
        description: Shown in Dagster: given, or the function's docstring.
        owners: Of all its datasets that don't name their own.
        group_name: Of all its datasets that don't name their own.
        on_error: What happens to rows that the function fails on.
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

    def __post_init__(self) -> None:
        """Look like the function: name, module, docstring and signature."""
        for attribute in functools.WRAPPER_ASSIGNMENTS:
            if hasattr(self.function, attribute):
                object.__setattr__(self, attribute, getattr(self.function, attribute))
        object.__setattr__(self, "__wrapped__", self.function)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Call the plain function, as in a unit test."""
        return self.function(*args, **kwargs)

    @property
    def job_name(self) -> str:
        """The Dagster job that applies it."""
        return f"apply_{self.name}"

    def __repr__(self) -> str:
        datasets = ", ".join(dataset.id for dataset in self.outputs.values())
        return f"<Transform {self.name}: {self.source.table_name} -> {datasets}>"


def transform(
    *,
    input_mapping: Mapping[str, Input],
    output_mapping: Mapping[str, Output],
    name: str | None = None,
    description: str | None = None,
    owners: str | Sequence[str] = (),
    group_name: str | None = None,
    on_error: Literal["fail", "quarantine"] = "fail",
) -> Callable[[Callable[Params, Result]], Transform[Params, Result]]:
    """Turn a function into a transform from one stream to one or more datasets.

    The function is called once per chunk of changes. It returns the rows of its output, or,
    with several outputs, a mapping by output name or a tuple in their order.

    Args:
        input_mapping: For each parameter of the function, its input; exactly one is a `Stream`.
        output_mapping: Output names and where they go; at least one.
        name: Names the op and the job; the default is the function's name.
        description: The default is the function's docstring.
        owners: E-mail addresses or `team:<name>`.
        group_name: The group of its assets.
        on_error: What a function that raises means. `"fail"`: the run fails, nothing is lost,
            the next run tries again. `"quarantine"`: the changes that it fails on are found by
            calling it on parts of the chunk, and wait in the quarantine for a redrive; the
            others are applied.

    Returns:
        A decorator; what it returns is still callable as the plain function.

    Raises:
        DefinitionError: An argument can't be used; the text names it and what it takes.

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
        own_name = name if name is not None else getattr(function, "__name__", None)
        where = f"transform {own_name!r}"
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
        checked.optional_text(where, "description", description)
        return Transform(
            name=checked.dagster_name(where, "name", own_name),
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
        )

    return decorate


def _checked_mapping(
    where: str, argument: str, mapping: object, kind: type[checked.T]
) -> dict[str, checked.T]:
    example = f'{argument}={{"name": {kind.__name__}(...)}}'
    if not isinstance(mapping, Mapping) or not mapping:
        raise DefinitionError(
            f"{where}: {argument} is {'empty' if mapping == {} else repr(mapping)}.",
            hint=f"Write {example}.",
        )
    for key in mapping:
        if not isinstance(key, str) or not key.isidentifier():
            raise DefinitionError(
                f"{where}: {argument} has the key {key!r}.", hint="Keys are Python names."
            )
    return {
        key: checked.instance(where, f"{argument}[{key!r}]", value, kind, example)
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
            "the others; to join two streams, let one transform write a dataset that the "
            "other looks up.",
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
