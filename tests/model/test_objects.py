import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage
from skimage.measure import label

from segline.model.images import decode
from segline.model.objects import (
    STEPS,
    TOP,
    Outputs,
    Separation,
    class_labels,
    components,
    encode,
    find,
    measured,
    parted,
    selected,
    suffix,
)

SHAPES = hnp.array_shapes(min_dims=2, max_dims=2, max_side=12)
LABELS = hnp.arrays(np.uint8, SHAPES, elements=st.integers(0, 2))


def sure(labels: np.ndarray, classes: int = 3) -> np.ndarray:
    """Make probabilities of 0 and 1 only."""
    return (np.arange(classes)[:, None, None] == labels).astype(np.float32)


def same_parts(first: np.ndarray, second: np.ndarray) -> bool:
    pairs = set(zip(first.ravel().tolist(), second.ravel().tolist(), strict=True))
    return len({a for a, _ in pairs}) == len({b for _, b in pairs}) == len(pairs)


def discs(*centres: int, radius: int = 10, shape: tuple[int, int] = (40, 80)) -> np.ndarray:
    y, x = np.indices(shape)
    return np.any([(y - 20) ** 2 + (x - centre) ** 2 <= radius**2 for centre in centres], axis=0).astype(np.uint8)


def without_core(labels: np.ndarray, core: np.ndarray) -> int:
    """Count the components of the foreground that have no pixel of the core."""
    parts = label(labels > 0, connectivity=1)
    return len(set(np.unique(parts[labels > 0])) - set(np.unique(parts[core > 0])))


def peaks_above(heights: np.ndarray, step: int) -> int:
    """Count the peaks that rise more than `step` above the saddle to a higher peak, adding pixels by height."""
    order = sorted(zip(*np.nonzero(heights > 0), strict=True), key=lambda at: -heights[at])
    group: dict[tuple[int, int], int] = {}
    top: dict[int, int] = {}
    for number, (y, x) in enumerate(order):
        around = {group[at] for at in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)) if at in group}
        top[number] = int(heights[y, x])
        group[y, x] = number
        for neighbour in around:
            if min(top[neighbour], top[number]) - int(heights[y, x]) > step:
                # Two objects meet: joined for the flood, counted apart.
                top[-1] = top.get(-1, 0) + 1
            top[number] = max(top[number], top.pop(neighbour))
            group = {at: number if which == neighbour else which for at, which in group.items()}
    return len(set(group.values())) + top.get(-1, 0)


@given(LABELS)
def test_components_agree_with_scikit_image(labels: np.ndarray) -> None:
    ours = components(labels)
    assert ours.dtype == np.int32
    assert same_parts(ours, label(labels, connectivity=1))
    assert ours.max() == len(np.unique(ours[ours > 0]))


def test_overlapping_discs_are_separated_at_the_neck() -> None:
    labels = discs(30, 45)
    assert components(labels).max() == 1
    objects = parted(Outputs(sure(labels, 2)), labels, Separation(1))
    assert objects.max() == 2
    assert np.array_equal(objects > 0, labels > 0)
    assert objects[20, 30] != objects[20, 45]
    left, right = (np.flatnonzero(objects[20] == objects[20, at]) for at in (30, 45))
    assert abs(left.size - right.size) <= 1
    assert parted(Outputs(sure(labels, 2)), labels, Separation(9)).max() == 1


def test_a_faint_line_separates_objects_without_a_neck() -> None:
    labels = np.zeros((30, 60), np.uint8)
    labels[5:25, 5:55] = 1
    foreground = labels * np.float32(0.95)
    foreground[:, 30] *= 0.6
    assert parted(Outputs(np.stack([1 - foreground, foreground])), labels, Separation(2)).max() == 2
    assert parted(Outputs(sure(labels, 2)), labels, Separation(2)).max() == 1


def test_touching_classes_become_two_objects_of_one_class_each() -> None:
    labels = np.zeros((30, 60), np.uint8)
    labels[5:25, 5:30], labels[5:25, 30:55] = 1, 2
    p = cv2.GaussianBlur(np.moveaxis(sure(labels), 0, -1), (0, 0), 2).transpose(2, 0, 1)
    objects = parted(Outputs(p), labels, Separation(1))
    assert objects.max() == 2
    assert np.array_equal(class_labels(objects, labels) > 0, labels > 0)
    assert [np.unique(class_labels(objects, labels)[objects == number]).tolist() for number in (1, 2)] == [[1], [2]]


@settings(max_examples=50)
@given(hnp.arrays(np.float32, SHAPES, elements=st.floats(0, 1, width=16)), st.floats(0.1, 3))
def test_each_high_enough_peak_is_an_object(p: np.ndarray, depth: float) -> None:
    labels = (p > 0.25).astype(np.uint8)
    objects = parted(Outputs(np.stack([1 - p, p])), labels, Separation(depth))
    core = (1 - p < 0.5).astype(np.uint8)
    assert np.array_equal(objects > 0, labels > 0)
    assert all(label(objects == number, connectivity=1).max() == 1 for number in range(1, objects.max() + 1))
    distance = np.minimum(cv2.distanceTransform(core, cv2.DIST_L2, cv2.DIST_MASK_PRECISE), sum(labels.shape))
    heights = np.where(core > 0, np.rint(distance * p * STEPS).astype(int) + 1, 0)
    assert objects.max() == peaks_above(heights, max(1, round(depth * STEPS))) + without_core(labels, core)


def test_objects_grow_over_the_wide_line_between_them_and_stay_apart() -> None:
    p = np.full((30, 60), 0.05, np.float32)
    p[5:25, 5:27] = p[5:25, 33:55] = 0.9
    p[5:25, 27:33] = [0.4, 0.35, 0.3, 0.3, 0.35, 0.4]
    p[1:3, 1:3] = 0.3  # touches no object, and its probability is too low for one
    labels = (p > 0.2).astype(np.uint8)
    truth = np.zeros(p.shape, np.int32)
    truth[5:25, 5:30], truth[5:25, 30:55] = 1, 2
    for depth in (1.0, 6.0):
        assert np.array_equal(find(Outputs(np.stack([1 - p, p])), labels, Separation(depth, 0, 0.5)), truth)


def test_an_object_map_separates_what_neither_a_neck_nor_a_faint_line_does() -> None:
    """Two long objects lie side by side, a third is as long but has a neck: the object map knows which is which."""
    labels = np.zeros((40, 80), np.uint8)
    labels[4:16, 5:75] = labels[24:36, 5:75] = 1
    labels[24:28, 38:42] = labels[32:36, 38:42] = 0
    ridges = np.zeros(labels.shape, np.float32)
    ridges[4:10] = np.array([0.2, 0.6, 1, 1, 0.6, 0.2])[:, None]
    ridges[10:16] = ridges[4:10]
    ridges[24:36] = 1 - np.abs(np.arange(12) - 5.5)[:, None] / 6
    outputs = Outputs(sure(labels, 2), ridges)
    assert parted(Outputs(sure(labels, 2)), labels, Separation(2)).max() == 3
    objects = parted(outputs, labels, Separation(4, heights="object_map"))
    assert objects.max() == 3
    assert [len(np.unique(objects[rows])) for rows in (slice(4, 10), slice(10, 16), slice(30, 31))] == [2, 2, 2]
    assert np.array_equal(objects > 0, labels > 0)


@settings(max_examples=50)
@given(hnp.arrays(np.float32, SHAPES, elements=st.floats(0, 1, width=16)), st.floats(0.1, 3), st.integers(0, 99))
def test_each_high_enough_peak_of_the_object_map_is_an_object(p: np.ndarray, depth: float, seed: int) -> None:
    labels = (p > 0.25).astype(np.uint8)
    object_map = np.random.default_rng(seed).random(p.shape, np.float32)
    objects = parted(Outputs(np.stack([1 - p, p]), object_map), labels, Separation(depth, heights="object_map"))
    core = 1 - p < 0.5
    assert np.array_equal(objects > 0, labels > 0)
    heights = np.where(core, np.rint(object_map * p * (TOP * STEPS)).astype(int) + 1, 0)
    assert objects.max() == peaks_above(heights, max(1, round(depth * STEPS))) + without_core(labels, core)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (2, 2)])
@pytest.mark.parametrize("value", [0, 1])
def test_tiny_images(shape: tuple[int, int], value: int) -> None:
    labels = np.full(shape, value, np.uint8)
    for depth in (None, 1.0):
        objects = find(Outputs(sure(labels, 2)), labels, Separation(depth))
        assert objects.tolist() == labels.tolist()


def large(objects: np.ndarray, area: int) -> np.ndarray:
    return selected(objects, np.bincount(objects.ravel()) >= area)


def test_small_objects_are_removed_and_the_rest_numbered_row_by_row() -> None:
    objects = np.array([[4, 4, 0, 2], [3, 3, 3, 0], [0, 7, 7, 7]], np.int32)
    assert large(objects, 2).tolist() == [[1, 1, 0, 0], [2, 2, 2, 0], [0, 3, 3, 3]]
    assert large(objects, 3).tolist() == [[0, 0, 0, 0], [1, 1, 1, 0], [0, 2, 2, 2]]
    assert large(objects, 0).tolist() == [[1, 1, 0, 2], [3, 3, 3, 0], [0, 4, 4, 4]]


@given(hnp.arrays(np.int32, SHAPES, elements=st.integers(0, 6)))
def test_numbers_follow_the_first_pixels(objects: np.ndarray) -> None:
    numbered = large(objects, 0)
    assert same_parts(objects, numbered)
    assert list(dict.fromkeys(numbered[numbered > 0].tolist())) == list(range(1, numbered.max() + 1))


def test_area_and_probability_agree_with_scipy() -> None:
    rng = np.random.default_rng(0)
    objects = rng.integers(0, 6, (30, 40)).astype(np.int32)
    background = rng.random((30, 40), np.float32)
    area, probability = measured(objects, np.stack([background, 1 - background]))
    ids = np.arange(6)
    np.testing.assert_array_equal(area, ndimage.sum_labels(np.ones(objects.shape), objects, ids))
    np.testing.assert_allclose(probability, 1 - ndimage.mean(background.astype(float), objects, ids))


def test_objects_of_low_probability_are_removed() -> None:
    foreground = np.array([[0.9, 0.9, 0.1, 0.6, 0.6], [0.9, 0.8, 0.1, 0.7, 0.6]], np.float32)
    probabilities = np.stack([1 - foreground, foreground])
    labels = (foreground > 0.5).astype(np.uint8)
    assert find(Outputs(probabilities), labels, Separation()).tolist() == [[1, 1, 0, 2, 2]] * 2
    assert find(Outputs(probabilities), labels, Separation(min_probability=0.6)).max() == 2
    assert find(Outputs(probabilities), labels, Separation(min_probability=0.7)).tolist() == [[1, 1, 0, 0, 0]] * 2
    assert find(Outputs(probabilities), labels, Separation(min_probability=0.9)).max() == 0


def test_an_object_has_the_class_of_most_of_its_pixels() -> None:
    objects = np.array([[1, 1, 1, 0], [2, 2, 0, 0]], np.int32)
    labels = np.array([[2, 1, 2, 1], [1, 1, 0, 0]], np.uint8)
    assert class_labels(objects, labels).tolist() == [[2, 2, 2, 0], [1, 1, 0, 0]]
    assert class_labels(np.zeros((2, 2), np.int32), np.zeros((2, 2), np.uint8)).tolist() == [[0, 0], [0, 0]]


@pytest.mark.parametrize(("count", "kind"), [(0, ".png"), (300, ".png"), (65535, ".png"), (65536, ".tif")])
def test_encoded_objects_decode_to_themselves(count: int, kind: str) -> None:
    objects = np.arange(70_000, dtype=np.int32).reshape(250, 280)
    objects[objects > count] = 0
    encoded = encode(objects)
    assert suffix(encoded) == kind
    assert encode(objects) == encoded
    assert np.array_equal(decode(encoded)[..., 0], objects)
