"""Faults of label images, planted by hand; counts judged by numpy and skimage."""

from collections.abc import Sequence

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from skimage.measure import label, regionprops

from segline.data.checks import annotations
from segline.data.checks.annotations import histogram, of_areas, of_both, of_classes, of_instances, of_values, pieces
from segline.data.checks.problems import Problem
from segline.data.dataset import Spec

CLASSES = {0: "background", 1: "cell", 2: "nucleus"}
SPEC = Spec(name="small", classes=CLASSES, ignore=9, labels="instances")


def as_tuples(problems: Sequence[Problem]) -> list[tuple[str, str]]:
    assert {problem.file for problem in problems} <= {"f"}
    return [(problem.level, problem.message) for problem in problems]


def discs(values: Sequence[int], dtype: type = np.uint8) -> np.ndarray:
    """Draw discs of these values in a row, 22 px apart."""
    picture = np.zeros((24, 22 * len(values)), np.uint8)
    for index, value in enumerate(values):
        cv2.circle(picture, (22 * index + 11, 12), 9, value, -1)
    return picture.astype(dtype)


def smoothed(values: Sequence[int]) -> np.ndarray:
    return np.asarray(cv2.GaussianBlur(discs(values), (0, 0), 0.8))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int64])
@pytest.mark.parametrize("pixels", [1, 64, 1 << 22])
def test_histogram_equals_numpy(dtype: type, pixels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(annotations, "PIXELS", pixels)
    labels = np.random.default_rng(0).integers(0, 200, (30, 20)).astype(dtype)
    labels[:3] = 70000 if dtype is np.int64 else 7
    values, counts = np.unique(labels, return_counts=True)
    assert histogram(labels) == dict(zip(values.tolist(), counts.tolist(), strict=True))


def test_sound_labels_have_no_problems() -> None:
    classes, instances = discs([1, 2, 9]), discs([5, 700 % 256, 0], np.uint16)
    values = histogram(classes)
    assert [
        *of_values("f", values, SPEC),
        *of_classes("f", classes, values, SPEC),
        *of_areas("f", classes, values, SPEC),
        *of_instances("f", instances),
        *of_both("f", classes, instances, SPEC),
    ] == []


def test_values_outside_the_class_table_are_errors() -> None:
    classes = discs([1, 2])
    classes[0, :3] = 3, 77, 3
    (problem,) = of_classes("f", classes, histogram(classes), SPEC)
    assert (problem.level, problem.count) == ("error", 3)
    assert "values outside the class table: 3 (2 px), 77 (1 px); add them to classes" in problem.message


def test_a_long_list_of_values_is_shortened() -> None:
    classes = np.arange(200, dtype=np.uint8).reshape(1, -1)[:, ::-1].repeat(2, axis=0)
    (problem,) = of_classes("f", classes, histogram(classes), SPEC)
    assert "8 (2 px), ... 196 values in all" in problem.message


@pytest.mark.parametrize("values", [[255], [2, 2], [255, 255]])
def test_anti_aliased_classes_are_counted(values: list[int]) -> None:
    spec = Spec(name="small", classes={0: "background", 1: "cell"}, ignore=255, labels="classes")
    classes = smoothed([255 if value == 255 else 200 for value in values])
    (problem,) = of_classes("f", classes, histogram(classes), spec)
    strange = int(np.isin(classes, [0, 1, 255], invert=True).sum())
    assert (problem.level, problem.count, problem.kind) == ("error", strange, "anti-aliased masks")
    assert f"{strange} pixels at edges have values between the classes (anti-aliased)" in problem.message
    assert "--threshold" in problem.message


def test_anti_aliased_instances_are_errors() -> None:
    (problem,) = of_instances("f", smoothed([255, 255]))
    assert (problem.level, problem.kind) == ("error", "anti-aliased masks")
    assert "--threshold" in problem.message


def test_anti_aliased_greys_as_classes_are_errors() -> None:
    values, classes = np.unique(smoothed([255, 255]), return_inverse=True)
    spec = Spec(name="small", classes={number: f"{value}" for number, value in enumerate(values)}, labels="classes")
    (problem,) = of_classes("f", classes, histogram(classes), spec)
    assert (problem.level, problem.kind) == ("error", "anti-aliased masks")
    areas = np.kron(np.arange(5, dtype=np.uint8), np.ones((9, 2), np.uint8))  # layers are not edges
    assert list(of_classes("f", areas, histogram(areas), spec)) == []


def test_touching_instances_are_not_anti_aliased() -> None:
    instances = np.kron(np.arange(1, 101, dtype=np.uint16).reshape(10, 10), np.ones((3, 2), np.uint16))
    assert list(of_instances("f", instances)) == []


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({0: 5}, [("warning", "contains only background")]),
        ({0: 5, 9: 1}, [("warning", "contains only background")]),
        ({9: 5}, [("warning", "every pixel is ignored")]),
        ({0: 5, 2: 1}, []),
    ],
)
def test_labels_without_content_are_warnings(values: dict[int, int], says: list[tuple[str, str]]) -> None:
    assert as_tuples(list(of_values("f", values, SPEC))) == says


def test_tiny_and_divided_instances_are_warnings() -> None:
    instances = discs([7, 3, 900 % 256], np.uint16)
    instances[0, :3] = 41
    instances[23, 5] = 7
    assert as_tuples(list(of_instances("f", instances))) == [
        ("warning", "1 of 4 instances are smaller than 4 px, the first at x 0, y 0"),
        ("warning", "1 of 4 instances are in several pieces, the first at x 11, y 3"),
    ]


def test_tiny_areas_between_borders_are_warnings() -> None:
    classes = np.random.default_rng(0).integers(0, 2, (40, 30), np.uint8)
    spec = Spec(name="small", classes={0: "line", 1: "cell"}, labels="boundaries")
    areas = [region.area for region in regionprops(label(classes, connectivity=1))]
    (problem,) = of_areas("f", classes, histogram(classes), spec)
    tiny = sum(area < 4 for area in areas)
    assert (problem.level, problem.count) == ("warning", tiny)
    assert problem.message.startswith(f"{tiny} of {len(areas)} areas of class 1 are smaller than 4 px, the first at x ")


def test_tiny_areas_of_classes_are_no_warnings() -> None:
    classes = np.random.default_rng(0).integers(0, 2, (40, 30), np.uint8)
    spec = Spec(name="small", classes={0: "background", 1: "vessel"}, labels="classes")
    assert list(of_areas("f", classes, histogram(classes), spec)) == []


def test_pixels_with_only_class_or_instance_are_errors() -> None:
    classes, instances = discs([1, 2, 9]), discs([5, 7, 8], np.uint16)
    classes[1, 30], instances[2, :2] = 1, 5
    assert as_tuples(list(of_both("f", classes, instances, SPEC))) == [
        ("error", "1 pixels have a class but no instance, the first at x 30, y 1"),
        ("error", "2 pixels have an instance but are background in classes, the first at x 0, y 2"),
    ]


def test_an_instance_of_two_classes_is_a_warning() -> None:
    classes, instances = discs([1, 2]), discs([5, 7], np.uint16)
    classes[12, 11] = 2
    classes[12, 30] = 9  # an ignored pixel has no class
    assert as_tuples(list(of_both("f", classes, instances, SPEC))) == [
        ("warning", "1 of 2 instances have pixels of two classes, the first at x 11, y 3")
    ]


INSTANCES = arrays(np.int32, array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.integers(0, 4))


@given(INSTANCES, st.integers(1, 40))
def test_pieces_equal_those_of_skimage(instances: np.ndarray, pixels: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(annotations, "PIXELS", pixels)  # joins rows across the borders of blocks
        counts = pieces(instances, 4)
    assert counts.tolist() == [0, *(label(instances == one, connectivity=2).max() for one in range(1, 5))]


def test_corners_connect_only_pixels_of_the_same_instance() -> None:
    crossing = np.array([[1, 2], [2, 1]], np.int32)
    assert pieces(crossing, 2).tolist() == [0, 1, 1]
