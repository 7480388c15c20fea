"""Synthetic images, judged by the labelling of scipy and by simple methods that must not solve them."""

import numpy as np
import pytest
from scipy import ndimage
from skimage.filters import threshold_otsu

from segline.data.synthetic import CLASSES, Drawing, draw
from segline.score.counts import confusion, iou


@pytest.fixture(scope="module")
def drawings() -> list[Drawing]:
    return [draw(0, index) for index in range(8)]


def test_a_drawing_depends_on_seed_and_index_alone(drawings: list[Drawing]) -> None:
    again = draw(0, 5)
    for name in ("image", "instances", "classes"):
        np.testing.assert_array_equal(getattr(again, name), getattr(drawings[5], name))
    assert draw(1, 5).image.tobytes() != again.image.tobytes()


def test_images_have_the_expected_sizes_and_types(drawings: list[Drawing]) -> None:
    for drawing in [*drawings, draw(0, 0, 64, 64)]:
        assert drawing.image.shape == drawing.instances.shape == drawing.classes.shape
        assert (drawing.image.dtype, drawing.instances.dtype, drawing.classes.dtype) == (np.uint8, np.int32, np.uint8)
    assert all(256 <= side <= 320 for drawing in drawings for side in drawing.image.shape)
    assert len({drawing.image.shape for drawing in drawings}) > 1
    assert draw(0, 0, 64, 64).image.shape == (64, 64)


def test_each_instance_is_connected_and_of_one_class(drawings: list[Drawing]) -> None:
    for drawing in drawings:
        numbers = np.unique(drawing.instances)
        np.testing.assert_array_equal(numbers, np.arange(len(numbers)))
        np.testing.assert_array_equal(drawing.classes > 0, drawing.instances > 0)
        for number in numbers[1:]:
            mask = drawing.instances == number
            assert ndimage.label(mask)[1] == 1
            assert len(np.unique(drawing.classes[mask])) == 1


def test_both_classes_occur_and_touch(drawings: list[Drawing]) -> None:
    share = np.mean(
        [np.bincount(drawing.classes.ravel(), minlength=3) / drawing.classes.size for drawing in drawings], 0
    )
    assert set(CLASSES) == {0, 1, 2}
    assert (share > 0.15).all()
    touching = 0
    for drawing in drawings:
        left, right = drawing.instances[:, :-1], drawing.instances[:, 1:]
        pairs = np.unique(np.stack([left, right])[:, (left != right) & (left > 0) & (right > 0)], axis=1)
        touching += pairs.shape[1] / drawing.instances.max()
    assert touching / len(drawings) > 0.5


def test_a_threshold_does_not_solve_the_dataset(drawings: list[Drawing]) -> None:
    """A threshold must not separate cells from background, nor a mean grey value the two classes."""
    total = np.zeros((2, 2), np.int64)
    right = cells = 0
    for drawing in drawings:
        smooth = ndimage.gaussian_filter(drawing.image.astype(float), 2)
        total += confusion(
            (drawing.classes > 0).astype(np.uint8), (smooth < threshold_otsu(smooth)).astype(np.uint8), 2
        )
        numbers = np.arange(1, drawing.instances.max() + 1)
        grey = ndimage.mean(drawing.image, drawing.instances, numbers)
        kind = ndimage.maximum(drawing.classes, drawing.instances, numbers)
        right += np.count_nonzero((grey > np.median(grey)) == (kind == 1))
        cells += len(numbers)
    assert iou(total)[1] < 0.7
    assert right / cells < 0.9


def test_few_pixels_are_saturated(drawings: list[Drawing]) -> None:
    for drawing in drawings:
        assert np.isin(drawing.image, [0, 255]).mean() < 0.005
        assert drawing.image.std() > 15
