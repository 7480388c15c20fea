"""Densities, judged by sums and probabilities computed pixel by pixel, by chi squared, and by laws."""

import pickle
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segline.data.borders import class_weights
from segline.data.dataset import IGNORE
from segline.data.density import CELL, Density, cells

DRAWS = 20_000


def scene(height, width, seed=0):
    """Make classes with a rare class in single pixels and ignored pixels, and a varying border term."""
    rng = np.random.default_rng(seed)
    classes = rng.choice(np.array([0, 1, 2, IGNORE], np.uint8), (height, width), p=[0.8, 0.15, 0.02, 0.03])
    return classes, rng.random((height, width)).astype(np.float32)


def naive(classes, border, of_class):
    """Compute probabilities (H, W) float64 and the sums of the cells by loops."""
    height, width = classes.shape
    pixels = np.zeros((height, width))
    totals = np.zeros((-(-height // CELL), -(-width // CELL)))
    for row, column in np.ndindex(totals.shape):
        inside = [
            (y, x)
            for y in range(row * CELL, min((row + 1) * CELL, height))
            for x in range(column * CELL, min((column + 1) * CELL, width))
            if classes[y, x] != IGNORE and of_class[classes[y, x]] > 0
        ]
        for y, x in inside:
            pixels[y, x] = of_class[classes[y, x]] + sum(float(border[place]) for place in inside) / len(inside)
            totals[row, column] += pixels[y, x]
    return pixels, totals


def drawn(density, shapes, seed=0, draws=DRAWS):
    """Count how often each pixel of each image is drawn."""
    counts = [np.zeros(shape) for shape in shapes]
    for number in range(draws):
        image, place = density.draw(np.random.default_rng((seed, number)))
        counts[image][place] += 1
    return counts


def assert_drawn_by(counts, expected):
    """Assert by chi squared that `counts` fit `expected`; entries below five expected draws are merged."""
    observed, likely = (np.concatenate([part.ravel() for part in parts]) for parts in (counts, expected))
    likely = likely / likely.sum() * observed.sum()
    assert not observed[likely == 0].any()
    rare = likely < 5
    observed = np.append(observed[~rare], observed[rare].sum())
    likely = np.append(likely[~rare], likely[rare].sum())
    observed, likely = observed[likely > 0], likely[likely > 0]
    freedom = observed.size - 1
    assert ((observed - likely) ** 2 / likely).sum() < freedom + 4 * np.sqrt(2 * freedom)


@settings(max_examples=40)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 9), st.sampled_from([0.0, 3.0]))
def test_sums_equal_those_computed_pixel_by_pixel(height, width, seed, extra):
    classes, border = scene(height, width, seed)
    of_class = [0.25, 0.0, 7.0]  # class 1 is never drawn
    sums, added = cells(classes, extra * border, of_class)
    _, totals = naive(classes, extra * border, of_class)
    np.testing.assert_allclose(sums, np.cumsum(totals).reshape(totals.shape), rtol=1e-6)
    assert sums.dtype == added.dtype == np.float64
    assert (added[totals == 0] == 0).all()


@pytest.mark.parametrize("extra", [0.0, 5.0])
def test_pixels_are_drawn_with_the_probability_of_the_naive_density(extra):
    parts = [scene(*shape, seed) for seed, shape in enumerate([(20, 33), (7, 5), (40, 18)])]
    of_class = [0.5, 2.0, 30.0]
    expected = [naive(classes, extra * border, of_class)[0] for classes, border in parts]
    density = Density(
        of_class,
        [classes for classes, _ in parts],
        [cells(classes, extra * border, of_class) for classes, border in parts],
    )
    assert_drawn_by(drawn(density, [classes.shape for classes, _ in parts]), expected)


@pytest.mark.parametrize(("balance", "shares"), [(0, None), (1, [1 / 3, 1 / 3, 1 / 3])])
def test_balance_shifts_from_equal_pixels_to_equal_classes(balance, shares):
    scenes = [scene(60, 50, seed)[0] for seed in range(3)]
    pixels = np.bincount(np.concatenate(scenes, axis=None), minlength=256)[:3]
    of_class = class_weights(pixels, balance)
    density = Density(of_class, scenes, [cells(classes, 0.0, of_class) for classes in scenes])
    counts = drawn(density, [classes.shape for classes in scenes])
    classes = [
        sum(count[image == class_id].sum() for count, image in zip(counts, scenes, strict=True))
        for class_id in range(3)
    ]
    assert sum(classes) == DRAWS  # no ignored pixel
    # The tolerance is four standard deviations of a count out of 20,000.
    np.testing.assert_allclose(np.array(classes) / DRAWS, shares or pixels / pixels.sum(), atol=4 * 0.5 / DRAWS**0.5)


def test_an_image_with_only_ignored_pixels_is_never_drawn():
    scenes = [np.full((20, 20), IGNORE, np.uint8), np.zeros((20, 20), np.uint8), np.full((9, 9), IGNORE, np.uint8)]
    scenes[1][:, 4:] = IGNORE  # the cells at the right edge have density 0
    density = Density([1.0], scenes, [cells(classes, 1.0, [1.0]) for classes in scenes])
    counts = drawn(density, [classes.shape for classes in scenes], draws=500)
    assert [count.sum() for count in counts] == [0, 500, 0]
    assert counts[1][:, 4:].sum() == 0


def test_a_draw_depends_on_the_generator_alone_and_survives_pickling():
    classes, border = scene(50, 60)
    density = Density([1.0, 2.0, 3.0], [classes], [cells(classes, border, [1.0, 2.0, 3.0])])
    places = [density.draw(np.random.default_rng((0, number))) for number in range(50)]
    sent = pickle.loads(pickle.dumps(density))
    assert [sent.draw(np.random.default_rng((0, number))) for number in range(50)] == places
    assert len(set(places)) > 40


def test_a_draw_reads_one_cell_of_a_huge_image():
    side = 20_000
    classes = np.broadcast_to(np.zeros((), np.uint8), (side, side))  # needs no memory
    grid = side // CELL
    sums = np.stack([np.arange(1.0, grid**2 + 1).reshape(grid, grid), np.zeros((grid, grid))])
    density = Density([1.0], [classes], [sums])
    density.draw(np.random.default_rng(0))
    tracemalloc.start()
    places = np.array([density.draw(np.random.default_rng((0, number)))[1] for number in range(200)])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20
    assert 0 <= places.min() < side / 10 < 9 * side / 10 < places.max() < side


def test_sums_of_other_images_are_refused():
    classes, border = scene(20, 20)
    with pytest.raises(
        ValueError,
        match="there are 1 images, but the tile density in data/weights covers 2 images; "
        "run the DVC stage `weights` again",
    ):
        Density([1.0, 1.0, 1.0], [classes], [cells(classes, border, [1.0])] * 2)
