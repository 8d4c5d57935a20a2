"""Commands as a user runs them: a real process in a project's folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PROGRAM = Path(sys.executable).with_name("datazone-dagster")


def run_command(
    *arguments: str, cwd: Path, timeout_seconds: float = 120, **environment: str
) -> subprocess.CompletedProcess[str]:
    """`datazone-dagster <arguments>`, run to its end."""
    return subprocess.run(
        [str(PROGRAM), *arguments],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=timeout_seconds,
        check=False,
    )
