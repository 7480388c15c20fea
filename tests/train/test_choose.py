"""Judges: images for which one choice is clearly best, and a loop that tries all choices."""

from collections.abc import Iterator
from itertools import product

import cv2
import numpy as np
import pytest
from sklearn.metrics import jaccard_score

from segline.data.dataset import IGNORE
from segline.model.inference import Inference, to_labels
from segline.model.objects import Outputs, Separation, find
from segline.score import instances
from segline.train import choose

Image = tuple[Outputs, np.ndarray, np.ndarray]
ALL = [
    Separation(*choice) for choice in product(choose.DEPTHS, choose.MIN_AREAS, choose.MIN_PROBABILITIES, ["distance"])
]


def cells(rng: np.random.Generator, line: float, specks: int = 0) -> Image:
    """Draw six squares in two rows, with lines of probability `line` within a row, and specks of four pixels."""
    truth = np.zeros((60, 90), np.int32)
    foreground = np.full(truth.shape, 0.02, np.float32)
    for number in range(6):
        top, left = 5 + number // 3 * 25, 10 + number % 3 * 21
        truth[top : top + 20, left : left + 20] = number + 1
        foreground[top : top + 20, left : left + 20] = 0.95
    foreground[5:50, [30, 51]] = np.where(truth[5:50, [29, 50]] > 0, line, 0.02)
    for x in rng.choice(40, specks, replace=False):
        foreground[54:56, 2 * x : 2 * x + 2] = 0.95
    return Outputs(np.stack([1 - foreground, foreground])), (truth > 0).astype(np.uint8), truth


def test_separation_splits_at_faint_lines_and_drops_specks() -> None:
    images = [cells(np.random.default_rng(seed), line=0.7, specks=4) for seed in range(2)]
    best = choose.separation(iter(images), Inference(), ALL)
    assert best.depth is not None
    assert best.min_area == 10
    for p, _, truth in images:
        assert find(p, to_labels(p.probabilities, Inference()), best).max() == truth.max()


def test_separation_drops_improbable_objects_that_are_wrong() -> None:
    p, classes, truth = cells(np.random.default_rng(0), line=0.1)
    p.probabilities[1, 52:58, 60:80] = 0.72
    p.probabilities[0] = 1 - p.probabilities[1]
    choices = [Separation(None, 0, probability) for probability in choose.MIN_PROBABILITIES]
    assert choose.separation([(p, classes, truth)], Inference(), choices) == Separation(None, 0, 0.75)


def test_separation_stays_mild_if_all_objects_are_apart() -> None:
    images = [cells(np.random.default_rng(0), line=0.1)]
    assert choose.separation(iter(images), Inference(), ALL) == Separation(None, 0)


def test_separation_is_the_best_of_all_choices() -> None:
    rng = np.random.default_rng(5)
    images = []
    for _ in range(2):
        p = cv2.GaussianBlur(rng.random((70, 80), dtype=np.float32), (0, 0), 3)
        p = np.clip((p - p.mean()) / p.std() / 4 + 0.5, 0, 1)
        truth = cv2.connectedComponents((p > 0.6).astype(np.uint8), connectivity=4)[1].astype(np.int32)
        classes = (truth > 0).astype(np.uint8)
        classes[:, :9] = IGNORE
        images.append((Outputs(np.stack([1 - p, p])), classes, truth))

    def precision(choice: Separation) -> float:
        total = np.zeros(3)
        for p, classes, truth in images:
            found = find(p, to_labels(p.probabilities, Inference(0.55)), choice)
            counted = classes != IGNORE
            total += instances.matches(np.where(counted, truth, 0), np.where(counted, found, 0), 0.5)
        return float(total[0] / total.sum())

    some = ((None, 4.0, 1.5, 0.75), (0, 20, 60), (0.0, 0.65, 0.8))
    choices = [Separation(*choice) for choice in product(*some)]
    best = choose.separation(iter(images), Inference(0.55), choices)
    assert precision(best) == max(map(precision, choices)) > precision(choices[0])


def test_the_heights_that_tell_the_objects_apart_are_chosen() -> None:
    """Squares side by side without any line: only the object map shows where one ends."""
    p, classes, truth = cells(np.random.default_rng(0), line=0.95)
    middles = np.zeros(truth.shape, np.float32)
    for number in range(1, 7):
        inside = (truth == number).astype(np.uint8)
        middles += cv2.distanceTransform(inside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE) / 10
    outputs = p._replace(object_map=np.minimum(middles, 1))
    heights = ("distance", "object_map")
    choices = [Separation(depth, heights=kind) for depth, kind in product((None, 1.0, 4.0), heights)]
    assert choose.separation([(outputs, classes, truth)], Inference(), choices) == Separation(1.0, heights="object_map")


def test_images_are_read_one_at_a_time() -> None:
    alive: list[int] = []

    def stream() -> Iterator[Image]:
        for number in range(3):
            alive.append(number)
            yield cells(np.random.default_rng(number), 0.5)

    choose.separation(stream(), Inference(), [Separation()])
    assert alive == [0, 1, 2]


def test_separation_stays_mild_without_any_object() -> None:
    nothing = np.stack([np.ones((9, 9), np.float32), np.zeros((9, 9), np.float32)])
    blank = np.zeros((9, 9), np.uint8)
    assert choose.separation([(Outputs(nothing), blank, blank.astype(np.int32))], Inference(), ALL) == Separation()


@pytest.mark.parametrize("kinds", [2, 3])
def test_the_threshold_is_the_best_of_all(kinds: int) -> None:
    rng = np.random.default_rng(kinds)
    truths = [rng.integers(0, kinds, (20, 30)).astype(np.uint8) for _ in range(2)]
    images = []
    for truth in truths:
        p = rng.random((kinds, 20, 30), np.float32) + 0.4 * (truth == np.arange(kinds)[:, None, None])
        p[0] *= 3
        truth[:2] = IGNORE
        images.append(((p / p.sum(axis=0)).astype(np.float32), truth))

    def mean_iou(threshold: float | None) -> float:
        labels = [to_labels(p, Inference(threshold)) for p, _ in images]
        together = [np.concatenate(parts) for parts in (truths, labels)]
        counted = together[0] != IGNORE
        return float(jaccard_score(*(part[counted] for part in together), average=None)[1:].mean())

    best = choose.threshold(iter(images))
    assert best is not None
    assert mean_iou(best) == max(map(mean_iou, (None, *choose.THRESHOLDS))) > mean_iou(None)


def test_there_is_no_threshold_without_a_gain() -> None:
    blank = np.zeros((9, 9), np.uint8)
    assert choose.threshold([(np.stack([np.ones((9, 9), np.float32), np.zeros((9, 9), np.float32)]), blank)]) is None


def test_below_even_chances_no_depth_joins_objects_across_the_fringe() -> None:
    assert choose.depths(None, 2) == choose.depths(0.5, 2) == choose.DEPTHS
    p, _, truth = cells(np.random.default_rng(0), line=0.4)
    apart = find(p, to_labels(p.probabilities, Inference(0.3)), Separation(choose.depths(0.3, 2)[0]))
    assert apart.max() == truth.max()


def test_touching_objects_of_two_classes_stay_apart_with_a_low_threshold() -> None:
    p, truth = np.full((3, 40, 60), 0.02, np.float32), np.zeros((40, 60), np.int32)
    p[1:, 4:36, 4:56] = 0.15
    for number, columns in ((1, slice(5, 30)), (2, slice(30, 55))):
        p[number, 5:35, columns], p[3 - number, 5:35, columns] = 0.93, 0.02
        truth[4:36, columns] = number
    truth[4:36, 4], truth[4:36, 55] = 1, 2
    p[0] = 1 - p[1:].sum(axis=0)
    classes = truth.astype(np.uint8)
    threshold = choose.threshold([(p, classes)])
    assert threshold is not None
    choices = [Separation(depth) for depth in choose.depths(threshold, 3)]
    best = choose.separation([(Outputs(p), classes, truth)], Inference(threshold), choices)
    assert find(Outputs(p), to_labels(p, Inference(threshold)), best).max() == 2


@pytest.mark.parametrize(("faint", "expected"), [(0.7, 0.7), (0.2, None)])
def test_the_segment_threshold_closes_a_gap_in_a_border(faint: float, expected: float | None) -> None:
    foreground = np.full((31, 31), 0.98, np.float32)
    foreground[15] = foreground[:, 15] = 0.1
    foreground[15, 5] = faint
    truth = np.ones((31, 31), np.uint8)
    truth[15] = truth[:, 15] = 0
    images = [(np.stack([1 - foreground, foreground]), truth)]
    assert choose.segment_threshold(images, Inference()) == expected


def cell_pairs(gap: int, wide: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Return the probability of foreground and the true classes of two cells whose border has a gap of `gap` px.

    `wide`: the two cells are one; they truly have this neck.
    """
    truth = np.ones((60, 121), np.uint8)
    truth[:, 60] = 0
    middle = slice(30 - gap // 2, 30 - gap // 2 + gap)
    foreground = np.where(truth > 0, np.float32(0.98), np.float32(0.05))
    foreground[middle, 60] = 0.98
    if wide:
        truth[middle, 60] = 1
    return np.stack([1 - foreground, foreground]), truth


def test_cells_are_cut_at_a_gap_that_no_threshold_closes() -> None:
    choices = choose.SEGMENT_THRESHOLDS
    chosen = choose.segmentation([cell_pairs(9)], Inference(), choices, choose.SEGMENT_NECK)
    assert (chosen.segment_threshold, chosen.segment_neck) == (choose.CUT_THRESHOLDS[0], choose.SEGMENT_NECK)
    assert choose.segmentation([cell_pairs(9)], Inference(), choices, None).segment_neck is None


def test_cells_are_cut_though_a_validation_image_happens_to_have_no_gap() -> None:
    chosen = choose.segmentation([cell_pairs(0)], Inference(), choose.SEGMENT_THRESHOLDS, choose.SEGMENT_NECK)
    assert chosen.segment_neck == choose.SEGMENT_NECK


def test_cells_that_have_necks_are_not_cut() -> None:
    images = [cell_pairs(9, wide=True)]
    chosen = choose.segmentation(images, Inference(), choose.SEGMENT_THRESHOLDS, choose.SEGMENT_NECK)
    assert chosen.segment_neck is None


def test_a_neck_suits_small_and_large_objects_alike() -> None:
    """A bay of the large object is deeper than the neck between two small ones, so no depth suits both."""
    truth = np.zeros((150, 220), np.int32)
    for x in (60, 100):
        cv2.circle(truth, (x, 70), 45, 1, -1)
    for number, x in ((2, 180), (3, 191)):
        cv2.circle(truth, (x, 30), 6, number, -1)
    foreground = np.where(truth > 0, 0.98, 0.02).astype(np.float32)
    image = Outputs(np.stack([1 - foreground, foreground])), (truth > 0).astype(np.uint8), truth
    found = {}
    for necks in ((0.0,), choose.NECKS):
        choices = [Separation(depth, neck=neck) for depth, neck in choose.cuts(choose.DEPTHS, necks)]
        best = choose.separation([image], Inference(), choices)
        found[necks] = find(image[0], to_labels(image[0].probabilities, Inference()), best).max(), best.neck > 0
    assert found[(0.0,)][0] != 3
    assert found[choose.NECKS] == (3, True)


@pytest.mark.parametrize(
    ("depths", "necks", "expected"),
    [
        ((None, 4.0, choose.NECK_DEPTH), (0.0, 0.2), [(None, 0.0), (4.0, 0.0), (1.0, 0.0), (1.0, 0.2)]),
        ((2.0,), (0.0, 0.2), [(2.0, 0.0), (2.0, 0.2)]),
        ((None, 4.0), (0.2,), [(None, 0.2), (4.0, 0.2)]),
        ((None,), (0.0, 0.2), [(None, 0.0)]),
    ],
)
def test_of_several_depths_one_is_tried_with_all_necks(
    depths: tuple[float | None, ...], necks: tuple[float, ...], expected: list[tuple[float | None, float]]
) -> None:
    assert choose.cuts(depths, necks) == expected
