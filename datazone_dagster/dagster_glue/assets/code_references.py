"""Code references of assets: they lead to the user's function, not to the op of this library."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping
from types import CodeType
from typing import Any

from dagster import BetaWarning, CodeReferencesMetadataValue, LocalFileCodeReference

CODE_REFERENCES = "dagster/code_references"


def code_references(function: Callable[..., Any], label: str) -> Mapping[str, Any]:
    """Return the metadata that links an asset to a function; empty if its source is not in a file.

    Dagster's `link_code_references_to_git` turns the link into one to a repository.
    """
    code = getattr(inspect.unwrap(function), "__code__", None)
    file = inspect.getsourcefile(code) if isinstance(code, CodeType) else None
    if code is None or file is None:  # made in a shell, by exec, or not in Python
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BetaWarning)  # nothing that the user could do about it
        reference = LocalFileCodeReference(
            file_path=file, line_number=code.co_firstlineno, label=label
        )
        return {CODE_REFERENCES: CodeReferencesMetadataValue(code_references=[reference])}
