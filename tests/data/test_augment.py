"""Augmentation, judged by numpy's reflect padding and rot90, scipy's interpolation in float64, and laws."""

import math
import tracemalloc
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import map_coordinates
from scipy.stats import kstest

from segline.data.augment import Parameters, apply, coordinates, draw, grey, grid, warp, window
from segline.params import Augment

OFF = Augment(elastic_sigma=0, rotation=0, mirror=False, min_scale=1, max_scale=1, brightness=0, contrast=0, noise=0)
STILL = Parameters(
    tile=16,
    centre=(8, 8),
    rotation=0,
    mirror=False,
    scale=1,
    displacements=np.zeros((2, 3, 3), np.float32),
    contrast=1,
    brightness=0,
    noise=0,
    noise_seed=0,
)


def padded_crop(array, centre, tile):
    """Cut the tile from the whole image after numpy's reflect padding."""
    width = [(tile, tile), (tile, tile)] + [(0, 0)] * (array.ndim - 2)
    top, left = (middle - tile // 2 + tile for middle in centre)
    return np.pad(array, width, mode="reflect")[top : top + tile, left : left + tile]


def cubic(distance):
    """Evaluate Keys' kernel with a = -0.75, which OpenCV uses."""
    x = abs(distance)
    if x <= 1:
        return 1.25 * x**3 - 2.25 * x**2 + 1
    return -0.75 * x**3 + 3.75 * x**2 - 6 * x + 3 if x < 2 else 0.0


def cubic_matrix(control, side):
    """Return the weights (side, control) of the control points in the middles of their cells, edge repeated."""
    matrix = np.zeros((side, control))
    for pixel in range(side):
        place = (pixel + 0.5) * control / side - 0.5
        for tap in range(math.floor(place) - 1, math.floor(place) + 3):
            matrix[pixel, min(max(tap, 0), control - 1)] += cubic(place - tap)
    return matrix


def naive_coordinates(parameters):
    """Compute absolute rows and columns, float64, from the definitions."""
    side, turn = parameters.tile, math.radians(parameters.rotation)
    row, column = np.mgrid[:side, :side] - (side - 1) / 2
    if parameters.mirror:
        column = -column
    matrix = cubic_matrix(parameters.displacements.shape[1], side)
    moved = [matrix @ control.astype(float) @ matrix.T for control in parameters.displacements]
    top, left = (middle - side // 2 + (side - 1) / 2 for middle in parameters.centre)
    rows = top + (math.cos(turn) * row + math.sin(turn) * column) / parameters.scale + moved[0]
    columns = left + (math.cos(turn) * column - math.sin(turn) * row) / parameters.scale + moved[1]
    return rows, columns


def random_image(shape, dtype, seed=0):
    values = np.random.default_rng(seed).random(shape)
    return (values * (1 if np.dtype(dtype).kind == "f" else np.iinfo(dtype).max)).astype(dtype)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("shape", [(40, 33), (40, 33, 1), (40, 33, 2), (40, 33, 3), (40, 33, 4), (40, 33, 7)])
@pytest.mark.parametrize("interpolation", ["linear", "nearest"])
def test_an_unchanged_tile_is_an_exact_crop_of_the_mirrored_image(dtype, shape, interpolation):
    array = random_image(shape, dtype)
    for centre, tile in product([(0, 0), (20, 16), (39, 32)], [15, 16, 90]):
        parameters = draw(np.random.default_rng(0), OFF, tile, centre)
        tiled = apply(parameters, array, interpolation)
        np.testing.assert_array_equal(tiled, padded_crop(array, centre, tile), strict=True)


@given(
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    st.tuples(st.integers(-40, 40), st.integers(-40, 40)),
    st.integers(1, 30),
)
@settings(max_examples=300)
def test_a_window_equals_reflect_padding_of_numpy(shape, centre, tile):
    array = np.arange(shape[0] * shape[1], dtype=np.int32).reshape(shape)
    top, left = (80 + middle - tile // 2 for middle in centre)
    expected = np.pad(array, 80, mode="reflect")[top : top + tile, left : left + tile]
    np.testing.assert_array_equal(warp(window(centre, tile, *shape), array, "nearest"), expected)
    values = array.astype(np.float32)
    np.testing.assert_array_equal(warp(window(centre, tile, *shape), values, "linear"), expected)


@given(st.integers(0, 10**6), st.integers(1, 60), st.integers(1, 60), st.integers(1, 40), st.sampled_from([0, 4, 15]))
@settings(max_examples=300)
def test_images_of_any_size_are_mirrored_under_any_parameters(seed, height, width, tile, sigma):
    rng = np.random.default_rng(seed)
    values = rng.random((height, width), dtype=np.float32)
    centre = int(rng.integers(height)), int(rng.integers(width))
    parameters = draw(rng, Augment(elastic_sigma=sigma, min_scale=0.3), tile, centre)
    places = [
        middle - tile // 2 + place.astype(float) for middle, place in zip(centre, coordinates(parameters), strict=True)
    ]
    expected = map_coordinates(values.astype(float), places, order=1, mode="mirror")
    np.testing.assert_allclose(apply(parameters, values, "linear"), expected, atol=1e-4)
    side = 2 - tile % 2
    middle = slice((tile - side) // 2, (tile + side) // 2)
    inner = warp(grid(parameters, height, width).inner(side), values, "linear")
    np.testing.assert_allclose(inner, expected[middle, middle], atol=1e-4)


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("seed", range(4))
def test_warp_equals_scipy_at_float64_coordinates(channels, seed):
    image = random_image((90, 70, channels), np.float32, seed)
    classes = random_image((90, 70), np.uint8, seed)
    parameters = draw(np.random.default_rng(seed), Augment(elastic_grid=2 + seed, min_scale=0.5), 64, (seed * 20, 60))
    rows, columns = naive_coordinates(parameters)
    expected = np.stack(
        [
            map_coordinates(image[..., c].astype(float), [rows, columns], order=1, mode="mirror")
            for c in range(channels)
        ],
        axis=-1,
    )
    np.testing.assert_allclose(apply(parameters, image, "linear"), expected, atol=1e-4)
    # If a coordinate is within 1e-3 of the middle between two pixels, both pixels are correct.
    clear = (abs(rows - np.floor(rows) - 0.5) > 1e-3) & (abs(columns - np.floor(columns) - 0.5) > 1e-3)
    assert clear.mean() > 0.98
    nearest = map_coordinates(classes, [rows, columns], order=0, mode="mirror")
    np.testing.assert_array_equal(apply(parameters, classes, "nearest")[clear], nearest[clear])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_whole_numbers_are_interpolated_exactly_and_then_rounded(dtype):
    image = random_image((90, 70, 2), dtype)
    parameters = draw(np.random.default_rng(0), Augment(), 64, (40, 30))
    coordinates = naive_coordinates(parameters)
    for channel in range(2):
        expected = map_coordinates(image[..., channel].astype(float), coordinates, order=1, mode="mirror")
        difference = np.abs(apply(parameters, image, "linear")[..., channel] - expected).max()
        assert difference <= 0.5 + 1e-4 * np.iinfo(dtype).max


@pytest.mark.parametrize("tile", [15, 16])
@pytest.mark.parametrize("quarters", [1, 2, 3, -1])
@pytest.mark.parametrize("mirror", [False, True])
def test_quarter_turns_and_mirror_equal_those_of_numpy(tile, quarters, mirror):
    image = random_image((40, 40, 3), np.uint8)
    parameters = replace(STILL, tile=tile, centre=(5, 30), rotation=90 * quarters, mirror=mirror)
    expected = np.rot90(padded_crop(image, (5, 30), tile), quarters)
    np.testing.assert_array_equal(apply(parameters, image, "nearest"), expected[:, ::-1] if mirror else expected)


def test_scale_two_shows_objects_twice_as_large():
    image = np.zeros((64, 64), np.uint8)
    image[24:40, 28:36] = 1
    larger = apply(replace(STILL, tile=64, centre=(32, 32), scale=2), image, "nearest")
    assert larger.any(axis=1).sum() == 32
    assert larger.any(axis=0).sum() == 16


@given(st.integers(0, 10**6), st.integers(2, 6), st.floats(0, 20), st.floats(0.4, 1), st.floats(1, 2))
@settings(max_examples=60)
def test_image_labels_and_weights_stay_aligned(seed, control, sigma, smallest, largest):
    # The arrays contain their own coordinates; the image is so large that nothing is mirrored.
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:1200, :1200]
    augment = Augment(elastic_grid=control, elastic_sigma=sigma, min_scale=smallest, max_scale=largest)
    place = grid(draw(rng, augment, 48, (600, 601)), 1200, 1200)
    inner = place.inner(20)
    image = warp(place, np.dstack([rows, columns]).astype(np.float32), "linear")[14:34, 14:34]
    weights = warp(inner, columns.astype(np.float32), "linear")
    np.testing.assert_allclose(weights, image[..., 1], atol=1e-3)
    labels = warp(inner, rows.astype(np.uint16), "nearest")
    assert np.abs(labels - image[..., 0]).max() <= 0.5 + 1e-3
    np.testing.assert_array_equal(warp(place, rows.astype(np.uint16), "nearest")[14:34, 14:34], labels)


@pytest.mark.parametrize("control", [2, 3, 5])
def test_displacements_have_the_standard_deviation_of_the_setting(control):
    tile, sigma, draws = 15 * control, 10, 4000
    rng = np.random.default_rng(0)
    still = np.arange(tile)
    augment = OFF.model_copy(update={"elastic_grid": control, "elastic_sigma": sigma})
    rows = np.stack([coordinates(draw(rng, augment, tile, (0, 0)))[0] - still[:, None] for _ in range(draws)])
    at_control_points = rows[:, 7::15, 7::15]
    assert at_control_points.std() == pytest.approx(sigma, rel=0.03)
    # Between control points, the bicubic mean of independent displacements is smaller by a known factor.
    spread = (cubic_matrix(control, tile) ** 2).sum(axis=1) ** 0.5
    expected = sigma * math.sqrt(2 / math.pi) * np.outer(spread, spread)
    assert np.abs(rows).mean() == pytest.approx(expected.mean(), rel=0.03)
    assert np.abs(np.abs(rows).mean(axis=0) - expected).max() < 0.1 * sigma
    assert expected.mean() > 6


def test_only_the_pixels_of_the_tile_are_read(tmp_path: Path):
    side = 20_000
    array = np.memmap(tmp_path / "large.dat", np.uint8, "w+", shape=(side, side, 1))
    array[-3:, -3:] = 200
    parameters = draw(np.random.default_rng(0), Augment(rotation=10, elastic_sigma=0), 128, (side - 1, side - 1))
    tracemalloc.start()
    tile = apply(parameters, array, "linear")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_000_000
    assert tile[64, 64] == 200
    assert tile[0, 0] == 0
    assert type(tile) is np.ndarray


@pytest.mark.parametrize("row", [0, 10_000, 29_999])
def test_interpolation_stays_exact_far_from_the_corner(row):
    values = random_image((30_000, 80), np.float32)
    parameters = draw(np.random.default_rng(0), Augment(), 64, (row, 40))
    expected = map_coordinates(values.astype(float), naive_coordinates(parameters), order=1, mode="mirror")
    np.testing.assert_allclose(apply(parameters, values, "linear"), expected, atol=1e-4)


def test_each_setting_has_its_own_draws():
    def drawn(**changes):
        return draw(np.random.default_rng(5), Augment(**changes), 16, (0, 0))

    usual = drawn()
    grey_free = drawn(brightness=0, contrast=0, noise=0)
    assert (grey_free.rotation, grey_free.mirror, grey_free.scale) == (usual.rotation, usual.mirror, usual.scale)
    np.testing.assert_array_equal(grey_free.displacements, usual.displacements)
    still = drawn(rotation=0, mirror=False, min_scale=1, max_scale=1, elastic_sigma=0)
    names = ("contrast", "brightness", "noise", "noise_seed")
    assert [getattr(still, name) for name in names] == [getattr(usual, name) for name in names]


def test_draws_fill_the_ranges_of_the_settings():
    rng = np.random.default_rng(0)
    augment = Augment(rotation=30, min_scale=0.5, max_scale=2, brightness=0.1, contrast=0.2, noise=0.05)
    many = [draw(rng, augment, 8, (0, 0)) for _ in range(4000)]
    for name, low, high in [
        ("rotation", -30, 30),
        ("brightness", -0.1, 0.1),
        ("contrast", 0.8, 1.2),
        ("noise", 0, 0.05),
    ]:
        values = [getattr(one, name) for one in many]
        assert kstest(values, "uniform", (low, high - low)).pvalue > 0.01, name
    assert kstest(np.log2([one.scale for one in many]), "uniform", (-1, 2)).pvalue > 0.01
    assert np.mean([one.mirror for one in many]) == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("channels", [1, 2, 3, 6])
def test_grey_equals_its_formula(channels):
    scaled = random_image((20, 30, channels), np.float32)
    pivot = tuple(0.1 * (channel + 1) for channel in range(channels))
    before = scaled.copy()
    changed = grey(replace(STILL, contrast=1.2, brightness=-0.05), scaled, pivot)
    np.testing.assert_allclose(changed, (before.astype(float) - pivot) * 1.2 + pivot - 0.05, atol=1e-6)
    np.testing.assert_array_equal(scaled, before)
    np.testing.assert_array_equal(grey(STILL, scaled, pivot), scaled)
    turned = grey(replace(STILL, contrast=1.2, brightness=-0.05), scaled.swapaxes(0, 1), pivot)
    np.testing.assert_array_equal(turned, changed.swapaxes(0, 1))


def test_noise_is_normal_independent_and_a_function_of_its_seed():
    scaled = np.zeros((200, 200, 2), np.float32)
    noisy = replace(STILL, noise=0.02, noise_seed=7)
    noise = grey(noisy, scaled, (0, 0))
    assert noise.dtype == np.float32
    np.testing.assert_array_equal(noise, grey(noisy, scaled, (0, 0)))
    assert not np.array_equal(noise, grey(replace(noisy, noise_seed=8), scaled, (0, 0)))
    assert kstest(noise.ravel(), "norm", (0, 0.02)).pvalue > 0.01
    assert np.abs(np.corrcoef(noise[..., 0].ravel(), noise[..., 1].ravel())[0, 1]) < 0.02
    assert np.abs(np.corrcoef(noise[1:, :, 0].ravel(), noise[:-1, :, 0].ravel())[0, 1]) < 0.02


@pytest.mark.parametrize("dtype", [np.bool_, np.int16, np.int32])
def test_nearest_supports_further_types(dtype):
    labels = (random_image((40, 40), np.uint8) > 100).astype(dtype)
    parameters = draw(np.random.default_rng(0), Augment(), 30, (20, 20))
    tile = apply(parameters, labels, "nearest")
    assert tile.dtype == dtype
    np.testing.assert_array_equal(tile, apply(parameters, labels.astype(np.uint8), "nearest").astype(dtype))


def test_unsupported_types_are_refused():
    with pytest.raises(
        TypeError,
        match=r"int32 does not support linear interpolation; "
        r"convert the array to one of these types: uint8, uint16, float32",
    ):
        apply(STILL, np.zeros((20, 20), np.int32), "linear")
    with pytest.raises(TypeError, match=r"int64 does not support nearest interpolation"):
        apply(STILL, np.zeros((20, 20), np.int64), "nearest")
