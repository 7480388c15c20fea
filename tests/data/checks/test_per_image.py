"""Problems of the files of one image, planted in a sound dataset; each must be named with file and value."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile

from segline.data import imagefiles
from segline.data.checks.duplicates import code, digest
from segline.data.checks.per_image import examine
from segline.data.dataset import Dataset


def test_facts_about_a_sound_image(make_dataset: Callable[..., Path]) -> None:
    folder = make_dataset()
    classes = imagefiles.read_labels(folder / "classes" / "b.png")
    classes[0, 0] = 9
    imagefiles.write_png(folder / "classes" / "b.png", classes)
    checked = examine(Dataset.open(folder), "b")
    image = imagefiles.read_image(folder / "images" / "b.png")
    assert checked.problems == ()
    assert (checked.form, checked.size, checked.digest) == (("uint8", 1), (12, 10), digest(image))
    assert checked.code is not None and checked.code.tolist() == code(image).tolist()
    assert dict(checked.pixels) == {value: np.count_nonzero(classes == value) for value in (0, 1, 2)}


def test_pixels_are_counted_from_instances_alone(make_dataset: Callable[..., Path]) -> None:
    folder = make_dataset(kinds=("instances",), classes={0: "background", 1: "cell"})
    instances = imagefiles.read_labels(folder / "instances" / "b.png")
    pixels = dict(examine(Dataset.open(folder), "b").pixels)
    assert pixels == {0: np.count_nonzero(instances == 0), 1: np.count_nonzero(instances)}


def _truncate(kind: str) -> Callable[[Path], None]:
    def plant(folder: Path) -> None:
        file = folder / kind / "b.png"
        file.write_bytes(file.read_bytes()[:40])

    return plant


def _not_finite(folder: Path) -> None:
    pixels = np.linspace(0, 1, 120, dtype=np.float32).reshape(12, 10)
    pixels[3, :2] = np.nan, np.inf
    (folder / "images" / "b.png").unlink()
    tifffile.imwrite(folder / "images" / "b.tif", pixels)


def _values(kind: str, value: int, x: int, to: int) -> Callable[[Path], None]:
    def plant(folder: Path) -> None:
        labels = imagefiles.read_labels(folder / kind / "b.png")
        labels[0, x:to] = value
        imagefiles.write_png(folder / kind / "b.png", labels)

    return plant


def _empty(folder: Path) -> None:
    for kind, dtype in (("instances", np.uint16), ("classes", np.uint8)):
        imagefiles.write_png(folder / kind / "b.png", np.zeros((12, 10), dtype))


FAULTS = {
    "truncated image": (_truncate("images"), "error", "images/b.png", "not a readable"),
    "truncated labels": (_truncate("classes"), "error", "classes/b.png", "not a readable"),
    "empty file": (lambda folder: (folder / "images/b.png").write_bytes(b""), "error", "images/b.png", ""),
    "colour labels": (
        lambda folder: imagefiles.write_png(folder / "classes" / "b.png", np.zeros((12, 10, 3), np.uint8)),
        "error",
        "classes/b.png",
        "colour",
    ),
    "size": (
        lambda folder: imagefiles.write_png(folder / "instances" / "b.png", np.zeros((10, 12), np.uint16)),
        "error",
        "instances/b.png",
        "has 12x10 px, but its image images/b.png has 10x12 px",
    ),
    "class table": (
        _values("classes", 3, 0, 2),
        "error",
        "classes/b.png",
        "values outside the class table: 3 (2 px); add them to classes in dataset.yaml",
    ),
    "no instance": (
        _values("classes", 1, 0, 2),
        "error",
        "instances/b.png",
        "2 pixels have a class but no instance, the first at x 0, y 0",
    ),
    "no class": (
        _values("instances", 5, 4, 8),
        "error",
        "instances/b.png",
        "4 pixels have an instance but are background in classes, the first at x 4, y 0",
    ),
    "not finite": (_not_finite, "error", "images/b.tif", "2 values are NaN or infinite"),
    "constant": (
        lambda folder: imagefiles.write_png(folder / "images" / "b.png", np.full((12, 10), 7, np.uint8)),
        "warning",
        "images/b.png",
        "every pixel has the value 7",
    ),
    "empty labels": (_empty, "warning", "classes/b.png", "contains only background"),
    "two classes": (
        lambda folder: _values("instances", 1, 0, 2)(folder) or _values("classes", 2, 0, 2)(folder),
        "warning",
        "instances/b.png",
        "1 of 3 instances have pixels of two classes, the first at x 0, y 0",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_problem_is_reported(make_dataset: Callable[..., Path], fault: str) -> None:
    plant, level, file, says = FAULTS[fault]
    folder = make_dataset()
    plant(folder)
    dataset = Dataset.open(folder)
    (problem, *others) = (problem for problem in examine(dataset, "b").problems if problem.level == level)
    assert (problem.file, others) == (file, [])
    assert says in problem.message
    assert file not in problem.message
    assert examine(dataset, "c").problems == ()
