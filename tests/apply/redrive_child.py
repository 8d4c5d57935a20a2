"""A redrive in a separate process, so that the peak memory is that of the redrive alone.

python -m tests.apply.redrive_child <lake> <way> <memory budget>
"""

from __future__ import annotations

import sys

from datazone_dagster.apply.chunk_size import ApplySettings
from datazone_dagster.model.layout import Layout
from datazone_dagster.pipeline import redrive_dataset
from datazone_dagster.process.memory import peak_bytes
from tests.apply.memory_child import USUAL_MAPPED_BYTES, WAYS, mapped_file_bytes

if __name__ == "__main__":
    lake, way, budget = sys.argv[1:]
    settings = ApplySettings(memory_budget=int(budget))
    report = redrive_dataset(WAYS[way], way, Layout(lake), settings=settings)
    peak = peak_bytes() - max(0, mapped_file_bytes() - USUAL_MAPPED_BYTES)
    sys.stdout.write(f"{report.redriven} {report.waiting} {peak}")
