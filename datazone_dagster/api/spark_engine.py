"""Spark as the engine of a dataset: where its server is, and what such a dataset can be."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from datazone_dagster.api.calls import explained_class
from datazone_dagster.errors import DefinitionError

_REMOTE = re.compile(r"sc://[^\s/;:]+(:[0-9]{1,5})?(/(;[^\s]*)?)?")
_ROOT = re.compile(r"[a-z0-9]+://[^\s]+|/[^\s]*", re.ASCII)


@explained_class('SparkEngine(remote="sc://spark.example.com:15002")')
@dataclass(frozen=True, slots=True, init=False, repr=False)
class SparkEngine:
    """A Spark Connect server that applies changes to a dataset, with the same result as ours.

    The server reads the change log, evaluates the function's `select`, `filter`, `with_columns` and
    `sql`, and merges the rows with Delta Lake, in the commit that moves the position. Rows, types
    and the hidden columns are those of the library's own engine, so a dataset can change its engine
    at any time. Install `datazone-dagster[spark]`.

    Args:
        remote: Spark Connect URL: `sc://host:port`, with parameters such as `/;use_ssl=true`. They
            are never shown.
        lakehouse: The lakehouse as the server reaches it, where its URI differs:
            `/mnt/shared/lake` for `/data/lake`. The server has access to the store by its own
            configuration. Not on S3, where commits of Spark can overwrite those of others.

    Raises:
        DefinitionError: An argument is invalid.
    """

    remote: str
    lakehouse: str | None

    def __init__(self, remote: str, *, lakehouse: str | None = None) -> None:
        if not isinstance(remote, str) or _REMOTE.fullmatch(remote) is None:
            raise DefinitionError(
                "SparkEngine: remote is not the URL of a Spark Connect server.",
                hint='Write SparkEngine(remote="sc://spark.example.com:15002").',
            )
        parameters = remote.partition("/;")[2]
        if parameters and any(one.count("=") != 1 for one in parameters.split(";")):
            raise DefinitionError(
                "SparkEngine: a parameter of remote is not name=value. Its text is not shown.",
                hint="Write one = in each, such as /;use_ssl=true;token=..., with %3D for an = of "
                "a value, and no ; at the end.",
            )
        if lakehouse is not None and (
            not isinstance(lakehouse, str) or _ROOT.fullmatch(lakehouse) is None
        ):
            raise DefinitionError(
                f"SparkEngine: lakehouse={lakehouse!r} is not the URI of a folder.",
                hint='Write lakehouse="/mnt/shared/lake", or leave it out.',
            )
        if lakehouse is not None and is_on_s3(lakehouse):
            raise DefinitionError(
                f"SparkEngine: lakehouse={lakehouse!r} is on S3, where commits of Spark's Delta "
                "Lake can overwrite those of other writers.",
                hint="Leave engine out: the library's own engine commits safely on S3.",
            )
        object.__setattr__(self, "remote", remote)
        object.__setattr__(self, "lakehouse", lakehouse)

    @property
    def address(self) -> str:
        """The URL without its parameters, which may be secret."""
        return self.remote.partition("/;")[0].rstrip("/").rpartition("@")[2]

    def __repr__(self) -> str:
        return f"SparkEngine(remote={self.address!r}, lakehouse={self.lakehouse!r})"


def is_on_s3(uri: str) -> bool:
    """Return whether a location is on S3, where Spark's Delta Lake has no put-if-absent."""
    return uri.partition("://")[0].casefold() in {"s3", "s3a", "s3n"}


def checked_engine(where: str, engine: object, values: Mapping[str, object]) -> SparkEngine | None:
    """Check an engine, and that it supports the other settings of its dataset.

    Args:
        where: The dataset, for errors.
        engine: The engine; None: the library's own.
        values: Settings of the dataset, checked.

    Raises:
        DefinitionError: It is no engine, or does not support a setting.
    """
    if engine is None:
        return None
    if not isinstance(engine, SparkEngine):
        raise DefinitionError(
            f"{where}: engine is {type(engine).__name__!r}, not a SparkEngine.",
            hint='Write engine=SparkEngine(remote="sc://host:15002"), or leave engine out.',
        )
    for name, allowed in _ALLOWED.items():
        if values[name] not in allowed:
            raise DefinitionError(
                f"{where}: a SparkEngine does not support {name}={_shown(name, values[name])}.",
                hint=f"{_WAYS_OUT[name]} Or leave engine out: the library's own engine has it.",
            )
    return engine


_ALLOWED: Mapping[str, tuple[object, ...]] = {
    "mode": ("merge", "append"),
    "buckets": (1,),
    "schema": ((),),
    "schema_policy": ((("*", "evolve"),),),
    "expect": ((),),
}
_WAYS_OUT = {
    "mode": 'Write mode="merge" or mode="append".',
    "buckets": "Spark spreads the keys by itself: leave buckets out.",
    "schema": "Cast the columns in the function.",
    "schema_policy": 'Write schema_policy="evolve".',
    "expect": "Leave expect out, and check the table downstream.",
}


def _shown(name: str, value: object) -> str:
    return "..." if name in {"schema", "schema_policy", "expect"} else repr(value)
