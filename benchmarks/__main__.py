"""All benchmarks: `python -m benchmarks [share]`, which `make bench` runs in under ten minutes.

`share` scales every workload down: 0.1 shows whether the benchmarks work, not a result.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from benchmarks import apply, batch_plot, decode, drain, end_to_end, scale, snapshot, ticks
from benchmarks.measure import PAGES, RESULTS

TICKS = 1500
"""The run of ten thousand ticks takes a quarter of an hour and is started separately."""


def main(share: float) -> None:
    started = time.monotonic()
    for piece in (drain, apply, end_to_end, decode, snapshot):
        piece.main(RESULTS, PAGES, int(piece.DEFAULT_RECORDS * share))
    ticks.main(RESULTS, int(TICKS * share))
    scale.main(RESULTS, int(scale.SHARDS * share))
    batch_plot.main(Path("docs"))
    print(f"All benchmarks: {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 1.0)
