"""The contact sheet, judged by the chosen images and their colours; the table of contents, judged by hand."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from segline.data import imagefiles
from segline.data.checks.problems import Checked
from segline.data.dataset import Dataset
from segline.importing import preview
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


def test_lines(make_dataset: Callable[..., Path]) -> None:
    folder = make_dataset(images=3)
    (folder / "groups.csv").write_text("image,group\na,1\nb,1\nc,2\n")
    dataset = Dataset.open(folder)
    checked = [
        Checked("a", ("uint8", 1), (10, 20), pixels=((0, 150), (1, 50))),
        Checked("b", ("uint8", 1), (10, 20), pixels=((0, 200),)),
        Checked("c", ("uint16", 4), (30, 15), pixels=((1, 300), (2, 150))),
    ]
    assert list(preview.lines(dataset, checked, 7)) == [
        "  images    3, 15x10 to 20x30 px (2 sizes)",
        "  pixels    uint8 grey (2 images), uint16 with 4 channels (1 images)",
        "  labels    instances",
        "  groups    2",
        "  instances 7, 2.3 an image",
        "  class 0   background   41.176% of the pixels, in 2 images",
        "  class 1   cell         41.176% of the pixels, in 2 images",
        "  class 2   nucleus      17.647% of the pixels, in 1 images",
    ]


def test_lines_of_one_size_one_type_and_no_groups(make_dataset: Callable[..., Path]) -> None:
    dataset = Dataset.open(make_dataset(images=2))
    checked = [Checked(stem, ("uint8", 3), (10, 20)) for stem in "ab"]
    lines = list(preview.lines(dataset, checked))
    assert lines[:3] == ["  images    2, 20x10 px", "  pixels    uint8 RGB", "  labels    instances"]
    assert lines[3].startswith("  class 0")
