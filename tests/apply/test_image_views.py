"""Images without a copy are the images."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from datazone_dagster.apply.image_views import viewed

TEXTS = st.lists(st.none() | st.text(max_size=40), max_size=30)


@given(chunks=st.lists(TEXTS, max_size=4), data=st.data())
def test_views_are_the_texts_at_their_places(
    chunks: list[list[str | None]], data: st.DataObject
) -> None:
    arrays = [pa.array(["before", *texts], pa.string()).slice(1) for texts in chunks]
    column = pa.chunked_array(arrays, pa.string())
    places = sorted(
        data.draw(st.sets(st.integers(0, max(len(column) - 1, 0)))) if len(column) else []
    )
    found = viewed(column, np.array(places, np.int64))
    found.validate(full=True)
    assert found.type == pa.string_view()
    assert found.to_pylist() == [column[place].as_py() for place in places]
