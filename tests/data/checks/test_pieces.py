"""Pieces of instances, judged by skimage on each instance alone."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from skimage.measure import label

from segline.data.checks import pieces

INSTANCES = arrays(np.int32, array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.integers(0, 4))


@given(INSTANCES, st.integers(1, 40))
def test_pieces(instances: np.ndarray, pixels: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pieces, "PIXELS", pixels)  # rows are then joined over the edges of blocks
        found = pieces.pieces(instances, 4)
    assert found.tolist() == [0, *(label(instances == one, connectivity=2).max() for one in range(1, 5))]


def test_a_corner_joins_and_a_crossing_does_not_mix() -> None:
    crossing = np.array([[1, 2], [2, 1]], np.int32)
    assert pieces.pieces(crossing, 2).tolist() == [0, 1, 1]
