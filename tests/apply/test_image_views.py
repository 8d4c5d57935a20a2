"""Views of images equal the images."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from datazone_dagster.apply.image_views import views_at

TEXTS = st.lists(st.none() | st.text(max_size=40), max_size=30)


@given(chunks=st.lists(TEXTS, max_size=4), data=st.data())
def test_views_are_the_texts_at_their_positions(
    chunks: list[list[str | None]], data: st.DataObject
) -> None:
    arrays = [pa.array(["before", *texts], pa.string()).slice(1) for texts in chunks]
    column = pa.chunked_array(arrays, pa.string())
    positions = sorted(
        data.draw(st.sets(st.integers(0, max(len(column) - 1, 0)))) if len(column) else []
    )
    found = views_at(column, np.array(positions, np.int64))
    found.validate(full=True)
    assert found.type == pa.string_view()
    assert found.to_pylist() == [column[position].as_py() for position in positions]
