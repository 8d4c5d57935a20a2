"""What a test and its code location both name; the code location changes its process."""

from __future__ import annotations

BUCKETS = {"runs": 4, "steps": 2}
AT_WORK = "at_work"
"""Folder with a file for each worker, by its session, touched when it calls the function."""
