"""Order in which the segments of a scan are begun. Pure."""

from __future__ import annotations

import math


def nth_segment(segments: int, number: int) -> int:
    """Return the segment that is begun at a place in the order.

    Neighbouring segments are parts of the same partition, which serves a limited rate. So the
    order goes through all segments in strides of about 0.618 of them, which spreads any few.
    """
    stride = max(1, round(segments * 0.618))
    while math.gcd(stride, segments) != 1:
        stride += 1
    return number * stride % segments
