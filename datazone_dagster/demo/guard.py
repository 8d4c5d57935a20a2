"""Runs a command and stops it, with all its children, when standard input closes.

A pipe closes however its other end dies, so the command never outlives the demo. Start it as
`python -m datazone_dagster.demo.guard COMMAND ...`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress

GRACE_SECONDS = 20.0
"""Time for a clean exit after SIGINT; then the process group is killed."""


def main(command: list[str]) -> int:
    """Run the command until it exits or standard input closes; return its exit code."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)

    def end_with_input() -> None:
        # Not sys.stdin.read(): this thread would still own its lock when the interpreter exits.
        while os.read(sys.stdin.fileno(), 4096):
            pass
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGINT)

    threading.Thread(target=end_with_input, daemon=True).start()
    input_closed = False
    while True:
        try:
            code = process.wait(GRACE_SECONDS if input_closed else 0.5)
            break
        except subprocess.TimeoutExpired:
            if input_closed:
                code = -signal.SIGKILL
                break
            input_closed = threading.active_count() == 1
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
