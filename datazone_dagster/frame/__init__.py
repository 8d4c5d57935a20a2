"""Input and output of the user function: lazy frames over one chunk, and the rows returned."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datazone_dagster.frame.frame import Frame
    from datazone_dagster.frame.lookup import Lookup

__all__ = ["Frame", "Lookup"]

if not TYPE_CHECKING:  # a type checker must still find misspelt names

    def __getattr__(name: str) -> object:
        """Load a public name on first use."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{name.lower()}"), name)
