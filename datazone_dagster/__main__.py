"""`python -m datazone_dagster`: the command line, where its script is not on the PATH."""

from __future__ import annotations

from datazone_dagster.cli import main

if __name__ == "__main__":
    main()
