"""Objects or classes, judged by label images that are cut up and by class masks made by hand."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from segline.importing.formats import LayoutError, Mask, Wishes
from segline.importing.formats.census import Census, facts_of
from segline.importing.formats.masks import guess


def census(masks: Sequence[np.ndarray]) -> Census:
    return Census.of(
        facts_of(Mask(Path(f"{index}.png"), lambda array=array: array)) for index, array in enumerate(masks)
    )


def label_image(first: int, step: int, rows: int = 4, columns: int = 6, side: int = 24) -> np.ndarray:
    """One object in each field of a grid, `side` px, shifted so that crops of the grid may cut it."""
    ids = first + step * np.arange(rows * columns).reshape(rows, columns)
    one = np.zeros((side, side), int)
    one[4:18, 6:20] = 1
    return np.kron(ids, np.ones((side, side), int)) * np.tile(one, (rows, columns))


def crops(image: np.ndarray, side: int, shift: int = 0) -> list[np.ndarray]:
    return [
        image[y : y + side, x : x + side]
        for y in range(shift, image.shape[0] - side + 1, side)
        for x in range(shift, image.shape[1] - side + 1, side)
    ]


@pytest.mark.parametrize(("first", "step"), [(1000, 1), (300, 97), (20_000, 3), (70_000, 11), (250, 40)])
@pytest.mark.parametrize("side", [24, 48])
@pytest.mark.parametrize("count", [None, 2, 6])
def test_crops_of_one_label_image_hold_objects(first: int, step: int, side: int, count: int | None) -> None:
    masks = crops(label_image(first, step, 2, 6), side)[:count]
    assert len(np.unique(masks)) <= 21
    if len(np.unique(masks)) < 4:
        return
    meaning = guess(census(masks), Wishes())
    assert meaning.labels == "instances"
    assert "say --labels classes" in meaning.reasons[0]


@pytest.mark.parametrize("first", [1000, 70_000])
def test_crops_that_share_the_objects_on_their_border_hold_objects(first: int) -> None:
    masks = crops(label_image(first, 7, 3, 5), 24, shift=12)
    shared = [value for value in np.unique(masks) if value and sum(value in mask for mask in masks) > 1]
    assert shared and len(np.unique(masks)) <= 21
    assert guess(census(masks), Wishes()).labels == "instances"


@pytest.mark.parametrize(("first", "step"), [(1, 1), (3, 1), (50, 17), (10, 10)])
def test_ids_that_may_be_classes_are_asked_for(first: int, step: int) -> None:
    """Classes that come in one image each look like objects cropped from one label image."""
    masks = crops(label_image(first, step, 2, 4), 48)
    with pytest.raises(LayoutError, match="--labels instances or --labels classes"):
        guess(census(masks), Wishes())
    assert guess(census(masks), Wishes(labels="instances")).labels == "instances"
    assert guess(census(masks), Wishes(labels="classes")).labels == "classes"


@pytest.mark.parametrize("values", [[1, 2, 3], [85, 170, 255], [1000, 2000, 3000]])
def test_classes_that_come_again_are_classes(values: list[int]) -> None:
    image = label_image(1, 1)
    masks = [
        np.asarray([0, *values])[(mask > 0) * (1 + (mask + place) % 3)] for place, mask in enumerate(crops(image, 48))
    ]
    assert guess(census(masks), Wishes()).labels == "classes"


def test_a_class_in_several_pieces_is_a_class() -> None:
    image = label_image(1000, 0, 4, 6)
    masks = [mask + (mask > 0) * place for place, mask in enumerate(crops(image, 48))]
    assert guess(census(masks), Wishes()).labels == "classes"
