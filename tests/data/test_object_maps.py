"""Object maps, judged by a hand-made table, by a brute-force search for the nearest outside pixel, and by laws."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from segline.data import object_maps
from segline.data.object_maps import object_map

INSTANCES = hnp.arrays(np.int32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.integers(0, 3))


def by_brute_force(instances: np.ndarray) -> np.ndarray:
    result = np.zeros(instances.shape)
    for number in np.unique(instances[instances > 0]):
        inside, outside = np.argwhere(instances == number), np.argwhere(instances != number)
        if not len(outside):
            return np.full(instances.shape, 255)
        distances = np.array([np.hypot(*(outside - pixel).T).min() for pixel in inside])
        result[tuple(inside.T)] = np.rint(255 * distances / distances.max())
    return result


@pytest.mark.parametrize(
    ("instances", "expected"),
    [
        ([[0, 0, 0, 0, 0], [0, 4, 4, 4, 0], [0, 4, 4, 4, 0], [0, 4, 4, 4, 0], [0, 0, 0, 0, 0]], [128, 128, 255]),
        ([[0] * 5, [0, 7, 7, 9, 0], [0, 7, 7, 9, 0], [0, 7, 7, 9, 0], [0] * 5], [255, 255, 255]),
    ],
)
def test_hand_made_squares(instances: list[list[int]], expected: list[int]) -> None:
    """A square of three pixels has depths 1 and 2; beside another object it is only two pixels wide."""
    values = object_map(np.array(instances))
    assert [values[1, 1], values[1, 2], values[2, 2]] == expected
    assert (values[np.array(instances) == 0] == 0).all()


@given(INSTANCES)
def test_equals_a_brute_force_search(instances: np.ndarray) -> None:
    np.testing.assert_allclose(object_map(instances), by_brute_force(instances), atol=1)


@given(INSTANCES, st.integers(1, 30))
def test_bands_of_any_height_give_the_same_map(instances: np.ndarray, band: int) -> None:
    whole = object_map(instances)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(object_maps, "BAND", band)
        np.testing.assert_array_equal(object_map(instances), whole)


@given(INSTANCES)
def test_each_object_reaches_the_full_height_whatever_its_number(instances: np.ndarray) -> None:
    values = object_map(instances)
    assert values.dtype == np.uint8
    assert all(values[instances == number].max() == 255 for number in np.unique(instances[instances > 0]))
    np.testing.assert_array_equal(object_map(np.where(instances, 1000 - 7 * instances, 0)), values)


def test_the_border_of_the_image_is_no_border_of_an_object() -> None:
    disc = np.hypot(*(np.indices((41, 41)) - 20)) < 15
    half = object_map(disc[20:].astype(np.int32))
    np.testing.assert_array_equal(half, object_map(disc.astype(np.int32))[20:])
