"""Statistics of images, judged by numpy on all pixels at once and by exact arithmetic; normalisation of each image."""

import numpy as np
import pytest

from segline.model import normalisation as module
from segline.model.normalisation import as_channels, moments, statistics


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_statistics_equal_those_of_numpy(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SIDE", 8)
    rng = np.random.default_rng(0)
    top = {"uint8": 255, "uint16": 65535, "float32": 1}[dtype]
    images = [(rng.random((height, 17, 3)) * top).astype(dtype) for height in (5, 30, 1)]
    statistics_of_all = statistics(map(moments, images))
    pixels = np.concatenate([image.reshape(-1, 3) for image in images]).astype(np.float64) / top
    np.testing.assert_allclose(statistics_of_all.mean, pixels.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(statistics_of_all.std, pixels.std(axis=0), rtol=1e-9)
    assert (statistics_of_all.dtype, statistics_of_all.channels) == (dtype, 3)


def test_statistics_do_not_depend_on_the_order_of_images() -> None:
    rng = np.random.default_rng(0)
    parts = [moments(rng.random((9, 9, 1), dtype=np.float32)) for _ in range(50)]
    assert statistics(parts) == statistics(parts[::-1])


def test_sums_of_large_values_are_exact() -> None:
    image = np.full((1000, 1000, 1), 65535, np.uint16)
    image[0, 0] = 65534
    total = moments(image)
    assert total.sums == (65535 * 10**6 - 1,)
    assert total.squares == (65535**2 * (10**6 - 1) + 65534**2,)
    # The variance is p(1 - p) with p = 1e-6, which is lost in float64 sums of squares.
    assert statistics([total]).std[0] == pytest.approx(np.sqrt(1e-6 * (1 - 1e-6)) / 65535, rel=1e-12)


def test_a_constant_channel_is_divided_by_one() -> None:
    image = np.stack([np.arange(9), np.full(9, 4)], axis=-1).reshape(3, 3, 2).astype(np.uint8)
    assert statistics([moments(image)]).std[1] == 1


def test_a_grey_image_among_rgb_counts_as_three_equal_channels() -> None:
    grey = np.random.default_rng(0).integers(0, 256, (9, 8, 1), dtype=np.uint8)
    alone, among = moments(grey), moments(as_channels(grey, 3))
    assert (among.sums, among.squares, among.pixels) == (alone.sums * 3, alone.squares * 3, alone.pixels)
