"""Judges: scikit-learn, a table made by hand, scipy's box mean, and laws of ranks."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.ndimage import uniform_filter
from sklearn.metrics import roc_auc_score

from segline.score import detection

# Few values, so that there are ties.
rated = st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=40).filter(
    lambda images: len({found for _, found in images}) == 2
)
maps = hnp.arrays(np.float32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=20), elements=st.floats(0, 1, width=32))


@given(rated)
def test_auc_agrees_with_scikit_learn(images: list[tuple[int, bool]]) -> None:
    scores, found = zip(*images, strict=True)
    assert detection.auc(scores, found) == pytest.approx(roc_auc_score(found, scores), abs=1e-12)


@given(rated)
def test_auc_depends_on_the_order_alone(images: list[tuple[int, bool]]) -> None:
    scores, found = zip(*images, strict=True)
    assert detection.auc([math.exp(score) for score in scores], found) == detection.auc(scores, found)
    assert detection.auc(scores, [not one for one in found]) == pytest.approx(1 - detection.auc(scores, found))


def test_a_table_made_by_hand() -> None:
    """Of four pairs one is in order, two are ties and one is not."""
    assert detection.auc([0.5, 0.9, 0.5, 0.9], [True, True, False, False]) == 0.5
    assert detection.auc([0.9, 0.5, 0.5], [True, True, False]) == 0.75


@pytest.mark.parametrize("found", [[], [True, True], [False]])
def test_there_is_no_auc_without_both_kinds(found: list[bool]) -> None:
    assert math.isnan(detection.auc([0.3] * len(found), found))


@given(maps)
def test_the_score_is_the_largest_box_mean(foreground: np.ndarray) -> None:
    # scipy's mirror is OpenCV's reflect 101.
    means = uniform_filter(foreground.astype(np.float64), detection.BOX, mode="mirror")
    assert detection.score(foreground) == pytest.approx(means.max(), abs=1e-6)


def test_one_noisy_pixel_is_no_object() -> None:
    noise, blob = np.zeros((2, 40, 40), np.float32)
    noise[10, 10] = 1
    blob[10:17, 10:17] = 0.6
    assert detection.score(noise) == pytest.approx(1 / detection.BOX**2)
    assert detection.score(blob) == pytest.approx(0.6)


def test_float16_and_float64_are_taken() -> None:
    foreground = np.full((8, 8), 0.25)
    assert detection.score(foreground) == detection.score(foreground.astype(np.float16)) == 0.25
