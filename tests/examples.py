"""Numbers of examples that property tests try.

A default run tries a third of them, `DATAZONE_TEST_PROFILE=long` (`make test-long`) all.
"""

from __future__ import annotations

import os

LONG = os.environ.get("DATAZONE_TEST_PROFILE") == "long"


def examples(many: int) -> int:
    """Return the number of examples for a test that tries `many` in the long profile."""
    return many if LONG else max(many // 3, 4)
