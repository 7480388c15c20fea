"""The contact sheet, judged by which images it has and by the colours in it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from segline.data import imagefiles
from segline.data.checks.problems import Checked
from segline.data.dataset import Dataset
from segline.importing.preview import SIDE, chosen, contact_sheet
from segline.score.overlay import CLASS_COLOURS


def seen(stem: str, *classes: int) -> Checked:
    return Checked(stem, pixels=tuple((class_id, 9) for class_id in classes))


def test_chosen_from_all_over_the_set() -> None:
    many = [seen(f"{index:03}", 0) for index in range(100)]
    assert chosen(many, 4) == ["000", "025", "050", "075"]
    assert chosen(many[:3], 4) == ["000", "001", "002"]


def test_rare_classes_are_chosen() -> None:
    many = [
        seen(f"{index:03}", 0, *([1] if index % 10 == 5 else []), *([2] if index == 77 else [])) for index in range(100)
    ]
    assert chosen(many, 4) == ["005", "025", "055", "077"]


def colours(picture: np.ndarray) -> set[tuple[int, ...]]:
    return {tuple(colour) for colour in np.unique(picture.reshape(-1, 3), axis=0).tolist()}


def test_outlines_have_the_colours_of_their_classes(make_dataset: Callable[..., Path]) -> None:
    dataset = Dataset.open(make_dataset())
    checked = [seen(stem, 0, 1, 2) for stem in dataset.stems]
    picture = contact_sheet(dataset, checked)
    assert {CLASS_COLOURS[0], CLASS_COLOURS[1]} <= colours(picture)
    assert CLASS_COLOURS[2] not in colours(picture)
    np.testing.assert_array_equal(picture, contact_sheet(dataset, checked))


def test_large_images_of_many_channels_and_ignored_pixels(make_dataset: Callable[..., Path]) -> None:
    folder = make_dataset(images=1, kinds=("classes",), labels="classes")
    height, width = 3 * SIDE + 7, SIDE
    import tifffile

    (folder / "images" / "a.png").unlink()
    image = np.random.default_rng(0).random((5, height, width), np.float32)
    tifffile.imwrite(folder / "images" / "a.tif", image, photometric="minisblack", planarconfig="separate")
    classes = np.zeros((height, width), np.uint8)
    classes[100:400, 50:250], classes[500:700] = 1, 9
    imagefiles.write_png(folder / "classes" / "a.png", classes)
    dataset = Dataset.open(folder)
    picture = contact_sheet(dataset, [seen("a", 0, 1)])
    assert picture.shape[0] < 2 * SIDE
    assert CLASS_COLOURS[0] in colours(picture)
    outlined = (picture == CLASS_COLOURS[0]).all(axis=-1)
    legend = 200  # pixels of its square
    assert 0 < outlined.sum() < 300 + legend  # the object only, not what is ignored
