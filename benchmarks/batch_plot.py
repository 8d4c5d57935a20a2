"""Plot of the batch size in simulated worlds: docs/batch-size.svg.

python -m benchmarks.batch_plot
"""

from __future__ import annotations

from html import escape
from pathlib import Path

from benchmarks.batch_simulation import MIB, SCENARIOS, Step, simulated

WIDTH, HEIGHT = 760, 120
LEFT, TOP, GAP = 60, 34, 58
SECONDS = 900.0
SIZE_COLOUR, BACKLOG_COLOUR = "#1f6feb", "#d29922"


def drawn() -> str:
    """Return one panel per scenario: batch size and backlog, each scaled to its maximum."""
    panels = []
    for number, (name, world) in enumerate(SCENARIOS.items()):
        steps = list(simulated(world, SECONDS))
        panels.append(_panel(name, steps, TOP + number * (HEIGHT + GAP)))
    height = TOP + len(SCENARIOS) * (HEIGHT + GAP)
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {LEFT + WIDTH + 20} {height}" '
            'font-family="sans-serif" font-size="12">',
            f'<rect width="{LEFT + WIDTH + 20}" height="{height}" fill="white"/>',
            *panels,
            "</svg>",
            "",
        ]
    )


def _panel(name: str, steps: list[Step], top: int) -> str:
    largest = max(step.size_bytes for step in steps)
    waiting = max(step.backlog_bytes for step in steps)
    size = _line([(step.at_seconds, step.size_bytes / largest) for step in steps], top)
    backlog = _line([(step.at_seconds, step.backlog_bytes / waiting) for step in steps], top)
    bottom = top + HEIGHT
    legend = f"batch, up to {largest / MIB:.0f} MiB"
    legend_waiting = f"waiting, up to {waiting / MIB:,.1f} MiB"
    return "\n".join(
        [
            f'<text x="{LEFT}" y="{top - 10}" font-weight="bold">{escape(name)}</text>',
            f'<text x="{LEFT + 330}" y="{top - 10}" fill="{SIZE_COLOUR}">{legend}</text>',
            f'<text x="{LEFT + 500}" y="{top - 10}" fill="{BACKLOG_COLOUR}">{legend_waiting}</text>',
            f'<rect x="{LEFT}" y="{top}" width="{WIDTH}" height="{HEIGHT}" fill="none" stroke="#ccc"/>',
            f'<polyline points="{backlog}" fill="none" stroke="{BACKLOG_COLOUR}" stroke-width="1"/>',
            f'<polyline points="{size}" fill="none" stroke="{SIZE_COLOUR}" stroke-width="1.5"/>',
            *(
                f'<text x="{_x(at):.0f}" y="{bottom + 15}" text-anchor="middle" fill="#666">{at} s</text>'
                for at in range(0, int(SECONDS) + 1, 300)
            ),
        ]
    )


def _line(points: list[tuple[float, float]], top: int) -> str:
    """Return a line through the points, without those inside a horizontal stretch."""
    pixels = [(round(_x(at)), round(top + HEIGHT * (1 - share))) for at, share in points]
    corners = [
        point
        for number, point in enumerate(pixels)
        if number in (0, len(pixels) - 1)
        or point[1] != pixels[number - 1][1]
        or point[1] != pixels[number + 1][1]
    ]
    return " ".join(f"{x},{y}" for x, y in dict.fromkeys(corners))


def _x(at_seconds: float) -> float:
    return LEFT + WIDTH * at_seconds / SECONDS


def main(docs: Path) -> None:
    (docs / "batch-size.svg").write_text(drawn())


if __name__ == "__main__":
    main(Path("docs"))
