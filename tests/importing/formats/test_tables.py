"""Values by a table, judged by a dict."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from segline.importing.formats.tables import translated


@pytest.mark.parametrize("offset", [0, 2**24])
def test_translated(offset: int) -> None:
    values = np.array([[3, 0], [7, 9]]) + offset
    table = {3 + offset: 1, 0 + offset: 0, 9 + offset: 255}
    found, known = translated(values, table)
    np.testing.assert_array_equal(found, np.array([[1, 0], [0, 255]], np.uint8))
    np.testing.assert_array_equal(known, [[True, True], [False, True]])
    assert found.dtype == np.uint8


@given(
    arrays(np.int64, (3, 4), elements=st.integers(-2, 300)),
    st.dictionaries(st.integers(0, 300), st.integers(0, 255), min_size=1),
)
def test_as_a_dict_says(values: np.ndarray, table: dict[int, int]) -> None:
    found, known = translated(values, table)
    assert known.ravel().tolist() == [value in table for value in values.ravel().tolist()]
    assert found.ravel().tolist() == [table.get(value, 0) for value in values.ravel().tolist()]
