"""Measurements of images and labels, judged by drawings whose sizes are known, and by scikit-image."""

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from skimage.measure import regionprops_table

from segline.data.dataset import IGNORE
from segline.planning import fingerprint
from segline.planning.fingerprint import Measurement, mean_width, measure_image, shapes, structure, summarise, touching


def drawn(*ellipses: tuple[tuple[int, int], tuple[int, int], float], side: int = 200) -> npt.NDArray[np.int32]:
    """Draw filled ellipses (centre, half axes, angle) with the ids 1, 2, ..."""
    picture = np.zeros((side, side), np.int32)
    for number, (centre, axes, angle) in enumerate(ellipses, 1):
        cv2.ellipse(picture, centre, axes, angle, 0, 360, number, cv2.FILLED)
    return picture


CELLS = drawn(((50, 50), (30, 10), 20), ((140, 60), (20, 20), 0), ((100, 150), (40, 12), 130))


def test_diameters_and_elongations_equal_those_of_scikit_image() -> None:
    diameters, elongations = shapes(CELLS, 3)
    names = ["equivalent_diameter_area", "axis_major_length", "axis_minor_length"]
    judge = regionprops_table(CELLS, properties=names)
    np.testing.assert_allclose(diameters, judge["equivalent_diameter_area"], rtol=1e-9)
    np.testing.assert_allclose(elongations, judge["axis_major_length"] / judge["axis_minor_length"], rtol=0.01)
    assert elongations == pytest.approx([3, 1, 40 / 12], rel=0.05)


def test_a_single_pixel_and_a_line_are_measured_too() -> None:
    tiny = np.zeros((9, 9), np.int32)
    tiny[1, 1], tiny[4, 2:8] = 1, 2
    diameters, elongations = shapes(tiny, 2)
    assert diameters == pytest.approx([2 / np.sqrt(np.pi), np.sqrt(24 / np.pi)])
    assert elongations == pytest.approx([1, 6])  # a line of one by six pixels
    empty = shapes(np.zeros((5, 5), np.int32), 0)
    assert [values.size for values in empty] == [0, 0]


@pytest.mark.parametrize("width", [1, 2, 3, 5, 9, 20])
def test_the_mean_width_of_a_strip_is_its_width(width: int) -> None:
    strip = np.zeros((300, 60), bool)
    strip[:, 20 : 20 + width] = True
    assert mean_width(strip) == pytest.approx(width, abs=0.01 + 1 / width)
    assert np.isnan(mean_width(np.zeros((4, 4), bool)))


def test_objects_touch_if_at_most_one_pixel_lies_between_them() -> None:
    row = np.zeros((9, 60), np.int32)
    for number, (first, last) in enumerate([(2, 8), (8, 14), (15, 20), (22, 30), (40, 50)], 1):
        row[2:7, first:last] = number  # gaps of 0, 1, 2 and 10 px
    assert touching(row) == 3
    assert touching(np.where(row == 3, 3, 0)) == 0
    assert touching(np.zeros_like(row)) == 0


def test_the_structure_tensor_tells_the_direction_of_edges() -> None:
    ramp = np.tile(np.arange(64, dtype=np.uint8), (64, 1))[..., None]
    for image, direction in ((ramp, (1, 0)), (ramp.swapaxes(0, 1), (-1, 0))):
        xx, yy, xy = structure(image)
        assert ((xx - yy) / (xx + yy), 2 * xy / (xx + yy)) == pytest.approx(direction)
    diagonal = (np.add.outer(np.arange(64), np.arange(64))).astype(np.uint16)[..., None]
    xx, yy, xy = structure(diagonal)
    assert 2 * xy / (xx + yy) == pytest.approx(1, abs=0.05)


def seen(image: npt.NDArray[np.uint8], instances: npt.NDArray[np.int32]) -> Measurement:
    return measure_image(image[..., None], ((instances > 0).astype(np.uint8), instances), 2)


def test_a_summary_of_two_images_has_the_values_of_a_hand_made_table() -> None:
    dark, bright = np.zeros((200, 200), np.uint8), np.full((200, 200), 51, np.uint8)
    dark[:, ::2] = 51  # mean 25.5, deviation 25.5
    bright[:, ::2] = 102  # mean 76.5, deviation 25.5
    measured = summarise("instances", 7, [seen(dark, CELLS), seen(bright, np.zeros_like(CELLS))])
    assert (measured.images, measured.looked_at, measured.classes, measured.channels) == (7, 2, 2, 1)
    assert (measured.side, measured.smallest, measured.largest, measured.dtype) == (200, 200, 200, "uint8")
    assert measured.contrast == pytest.approx(0.1)
    assert measured.variety == pytest.approx(1)  # means 0.1 and 0.3: a deviation of 0.1
    assert measured.frequencies[1] == pytest.approx((CELLS > 0).mean() / 2)
    assert (measured.empty, measured.objects, measured.contact) == (0.5, 1.5, 0)
    assert measured.diameters == pytest.approx(np.percentile(shapes(CELLS, 3)[0], (10, 50, 90)))
    assert measured.direction == pytest.approx(0, abs=1)


def test_parallel_stripes_share_a_direction_and_crossing_ones_do_not() -> None:
    stripes = np.zeros((64, 64), np.uint8)
    stripes[:, ::8] = 200
    empty = np.zeros((64, 64), np.int32)
    alike = summarise("instances", 2, [seen(stripes, empty)] * 2)
    crossing = summarise("instances", 2, [seen(stripes, empty), seen(stripes.T, empty)])
    flat = summarise("instances", 1, [seen(np.zeros((64, 64), np.uint8), empty)])
    assert alike.direction == pytest.approx(1, abs=0.01)
    assert crossing.direction == pytest.approx(0, abs=0.01)
    assert (flat.direction, flat.variety, flat.contrast, flat.diameters) == (0, 0, 1, ())


def test_ignored_pixels_belong_to_no_class() -> None:
    classes = np.zeros((8, 8), np.uint8)
    classes[:2], classes[2:4] = 1, IGNORE
    measured = measure_image(np.zeros((8, 8, 3), np.uint16), (classes, (classes == 1).astype(np.int32)), 3)
    assert measured.pixels.tolist() == [32, 16, 0]
    assert np.isnan(measured.widths).tolist() == [False, True]
    assert fingerprint.summarise("classes", 1, [measured]).width == measured.widths[0]
