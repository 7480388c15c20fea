"""Measurements of images and labels, judged by drawings whose sizes are known, and by scikit-image."""

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from skimage.measure import regionprops_table

from segline.data.dataset import IGNORE, DatasetError
from segline.planning import fingerprint
from segline.planning.fingerprint import Measurement, direction, mean_width, measure_image, summarise, touching


def drawn(*ellipses: tuple[tuple[int, int], tuple[int, int], float], side: int = 200) -> npt.NDArray[np.int32]:
    """Draw filled ellipses (centre, half axes, angle) with the ids 1, 2, ..."""
    picture = np.zeros((side, side), np.int32)
    for number, (centre, axes, angle) in enumerate(ellipses, 1):
        cv2.ellipse(picture, centre, axes, angle, 0, 360, number, cv2.FILLED)
    return picture


CELLS = drawn(((50, 50), (30, 10), 20), ((140, 60), (20, 20), 0), ((100, 150), (40, 12), 130))


def seen(image: npt.NDArray[np.uint8], instances: npt.NDArray[np.int32] = CELLS) -> Measurement:
    pixels = image if image.ndim == 3 else image[..., None]
    return measure_image(pixels, ((instances > 0).astype(np.uint8), instances), 2)


def test_diameters_equal_those_of_scikit_image() -> None:
    judge = regionprops_table(CELLS, properties=["equivalent_diameter_area"])["equivalent_diameter_area"]
    np.testing.assert_allclose(seen(np.zeros((200, 200), np.uint8)).diameters, judge, rtol=1e-9)
    assert judge[1] == pytest.approx(40, rel=0.05)


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


def test_the_direction_of_edges_is_a_vector_of_twice_their_angle() -> None:
    ramp = np.tile(np.arange(64, dtype=np.uint8), (64, 1))[..., None]
    assert direction(ramp) == pytest.approx((1, 0), abs=1e-6)
    assert direction(ramp.swapaxes(0, 1)) == pytest.approx((-1, 0), abs=1e-6)
    diagonal = np.add.outer(np.arange(64), np.arange(64)).astype(np.uint16)[..., None]
    assert direction(diagonal) == pytest.approx((0, 1), abs=0.05)
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8)
    assert np.hypot(*direction(noise)) < 0.1
    assert direction(np.full((9, 9, 1), 7, np.uint8)) == (0, 0)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("scale", [1e-40, 1.0, 1e30, 3e38])
def test_the_direction_does_not_depend_on_the_scale_of_float_images(scale: float) -> None:
    ramp = np.tile(np.arange(64, dtype=np.float32) / 64, (64, 1))[..., None]
    image = (ramp * np.float32(scale)).repeat(5, axis=2)
    assert direction(image) == pytest.approx((1, 0), abs=1e-5)


def test_a_summary_of_two_images_has_the_values_of_a_hand_made_table() -> None:
    dark, bright = np.zeros((200, 200), np.uint8), np.full((200, 200), 51, np.uint8)
    dark[:, ::2] = 51  # mean 25.5, deviation 25.5
    bright[:, ::2] = 102  # mean 76.5, deviation 25.5
    measured = summarise("instances", [seen(dark), seen(bright, np.zeros_like(CELLS))])
    assert (measured.images, measured.classes, measured.channels, measured.dtype) == (2, 2, 1, "uint8")
    assert measured.side == 200
    assert measured.contrast == pytest.approx(0.1)
    assert measured.variety == pytest.approx(1)  # means 0.1 and 0.3: a deviation of 0.1
    assert measured.frequencies[1] == pytest.approx((CELLS > 0).mean() / 2)
    assert (measured.empty, measured.objects, measured.contact) == (0.5, 1.5, 0)
    areas = [np.count_nonzero(number == CELLS) for number in (1, 2, 3)]
    assert measured.diameters == pytest.approx(np.percentile(np.sqrt(np.array(areas) * 4 / np.pi), (10, 50, 90)))


def test_a_constant_channel_says_nothing_of_the_contrast() -> None:
    stain = np.zeros((200, 200, 3), np.uint8)
    stain[::2, :, 2] = 51
    measured = summarise("instances", [seen(stain), seen(stain * 2), seen(np.full((200, 200), 9, np.uint8))])
    assert measured.contrast == pytest.approx(0.15)  # deviations of 0.1 and 0.2; the third image is constant
    assert measured.variety == pytest.approx(0.05 / 0.15)
    constant = summarise("instances", [seen(np.full((200, 200), 9, np.uint8))])
    assert (constant.contrast, constant.variety) == (0, 0)


def test_parallel_stripes_share_a_direction_and_crossing_ones_do_not() -> None:
    stripes = np.zeros((64, 64), np.uint8)
    stripes[:, ::16] = 200
    empty = np.zeros((64, 64), np.int32)
    alike = summarise("instances", [seen(stripes, empty)] * 2)
    crossing = summarise("instances", [seen(stripes, empty), seen(stripes.T.copy(), empty)])
    assert alike.direction == pytest.approx(1, abs=0.01)
    assert crossing.direction == pytest.approx(0, abs=0.01)
    assert (alike.diameters, alike.width, alike.empty) == ((), 0, 1)


def test_ignored_pixels_belong_to_no_class() -> None:
    classes = np.zeros((8, 8), np.uint8)
    classes[:2], classes[2:4] = 1, IGNORE
    measured = measure_image(np.zeros((8, 8, 3), np.uint16), (classes, (classes == 1).astype(np.int32)), 3)
    assert measured.pixels.tolist() == [32, 16, 0]
    assert np.isnan(measured.widths).tolist() == [False, True]
    assert summarise("classes", [measured]).width == measured.widths[0]
    ignored = np.full((8, 8), IGNORE, np.uint8)
    nothing = measure_image(np.zeros((8, 8, 1), np.float32), (ignored, np.zeros((8, 8), np.int32)), 3)
    assert summarise("classes", [measured, nothing]).empty == 0
    with pytest.raises(DatasetError, match="all pixels of the measured images are ignored"):
        summarise("classes", [nothing])


def test_only_the_middle_of_a_large_image_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fingerprint, "CROP", 40)
    image = np.zeros((200, 100, 1), np.uint8)
    image[80:120, 30:70] = 9
    measured = measure_image(image, ((image[..., 0] > 0).astype(np.uint8), (image[..., 0] > 0).astype(np.int32)), 2)
    assert measured.size == (200, 100)
    assert measured.pixels.tolist() == [0, 1600]
    assert measured.std.tolist() == [0]
