"""Judges: sums and likelihoods counted pixel by pixel, chi squared, and the law that balance 1 evens classes out."""

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
    """Classes with a rare one in single pixels and some ignored, and a border that varies."""
    rng = np.random.default_rng(seed)
    classes = rng.choice(np.array([0, 1, 2, IGNORE], np.uint8), (height, width), p=[0.8, 0.15, 0.02, 0.03])
    return classes, rng.random((height, width)).astype(np.float32)


def naive(classes, border, of_class):
    """(H, W) float64 likelihoods and the cells' totals, by loops."""
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
    """How often each pixel of each image was drawn."""
    counts = [np.zeros(shape) for shape in shapes]
    for number in range(draws):
        image, place = density.draw(np.random.default_rng((seed, number)))
        counts[image][place] += 1
    return counts


def assert_drawn_by(counts, expected):
    """Chi squared of `counts` against likelihoods, those below five expected draws taken together."""
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
def test_sums_are_those_counted_pixel_by_pixel(height, width, seed, extra):
    classes, border = scene(height, width, seed)
    of_class = [0.25, 0.0, 7.0]  # class 1 is never drawn
    sums, added = cells(classes, extra * border, of_class)
    _, totals = naive(classes, extra * border, of_class)
    np.testing.assert_allclose(sums, np.cumsum(totals).reshape(totals.shape), rtol=1e-6)
    assert sums.dtype == added.dtype == np.float64
    assert (added[totals == 0] == 0).all()


@pytest.mark.parametrize("extra", [0.0, 5.0])
def test_pixels_are_drawn_as_likely_as_the_naive_density_says(extra):
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
def test_balance_decides_between_pixels_alike_and_classes_as_often(balance, shares):
    scenes = [scene(60, 50, seed)[0] for seed in range(3)]
    pixels = np.bincount(np.concatenate(scenes, axis=None), minlength=256)[:3]
    of_class = class_weights(pixels, balance)
    density = Density(of_class, scenes, [cells(classes, 0.0, of_class) for classes in scenes])
    counts = drawn(density, [classes.shape for classes in scenes])
    classes = [
        sum(count[image == class_id].sum() for count, image in zip(counts, scenes, strict=True))
        for class_id in range(3)
    ]
    assert sum(classes) == DRAWS  # nothing that is ignored
    # Four standard deviations of a count out of 20,000.
    np.testing.assert_allclose(np.array(classes) / DRAWS, shares or pixels / pixels.sum(), atol=4 * 0.5 / DRAWS**0.5)


def test_an_image_of_ignored_pixels_alone_is_never_drawn():
    scenes = [np.full((20, 20), IGNORE, np.uint8), np.zeros((20, 20), np.uint8), np.full((9, 9), IGNORE, np.uint8)]
    scenes[1][:, 4:] = IGNORE  # the cells at the right edge hold nothing
    density = Density([1.0], scenes, [cells(classes, 1.0, [1.0]) for classes in scenes])
    counts = drawn(density, [classes.shape for classes in scenes], draws=500)
    assert [count.sum() for count in counts] == [0, 500, 0]
    assert counts[1][:, 4:].sum() == 0


def test_the_draw_is_the_generators_alone_and_survives_the_way_to_a_worker():
    classes, border = scene(50, 60)
    density = Density([1.0, 2.0, 3.0], [classes], [cells(classes, border, [1.0, 2.0, 3.0])])
    places = [density.draw(np.random.default_rng((0, number))) for number in range(50)]
    sent = pickle.loads(pickle.dumps(density))
    assert [sent.draw(np.random.default_rng((0, number))) for number in range(50)] == places
    assert len(set(places)) > 40


def test_of_a_huge_image_one_cell_is_read():
    side = 20_000
    classes = np.broadcast_to(np.zeros((), np.uint8), (side, side))  # no memory of its own
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
    with pytest.raises(ValueError, match="1 images, but densities of 2; run stage weights again"):
        Density([1.0, 1.0, 1.0], [classes], [cells(classes, border, [1.0])] * 2)
