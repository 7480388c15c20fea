"""What is refused: each fault is planted in a sound dataset, and must be named with file and value."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile

from segline.data import files
from segline.data.check import Problem, UnfitError, problems, refuse_errors, table
from segline.data.dataset import Dataset


def test_a_sound_dataset_has_no_problems(make_dataset: Callable[..., Path]) -> None:
    folder = make_dataset()
    classes = files.read_labels(folder / "classes" / "a.png")
    classes[0, 0] = 9
    files.write_png(folder / "classes" / "a.png", classes)
    assert problems(Dataset.open(folder)) == []
    refuse_errors([])


def _truncate(folder: Path) -> None:
    file = folder / "images" / "b.png"
    file.write_bytes(file.read_bytes()[:40])


def _not_finite(folder: Path) -> None:
    for stem in "abcde":
        pixels = np.linspace(0, 1, 120, dtype=np.float32).reshape(12, 10)
        pixels[3, :2] = (np.nan, np.inf) if stem == "b" else 0
        (folder / "images" / f"{stem}.png").unlink()
        tifffile.imwrite(folder / "images" / f"{stem}.tif", pixels)


def _value(kind: str, value: int, x: int = 0) -> Callable[[Path], None]:
    def plant(folder: Path) -> None:
        labels = files.read_labels(folder / kind / "b.png")
        labels[0, x : x + 2] = value
        files.write_png(folder / kind / "b.png", labels)

    return plant


FAULTS = {
    "image without labels": (
        lambda folder: (folder / "classes" / "b.png").unlink(),
        ("images/b.png", r"has no label image classes/b\.\*"),
    ),
    "labels without image": (
        lambda folder: (folder / "images" / "b.png").unlink(),
        ("instances/b.png", r"has no image images/b\.\*"),
    ),
    "truncated": (_truncate, ("images/b.png", "not a readable")),
    "colour labels": (
        lambda folder: files.write_png(folder / "classes" / "b.png", np.zeros((12, 10, 3), np.uint8)),
        ("classes/b.png", "a label image with colours"),
    ),
    "size": (
        lambda folder: files.write_png(folder / "instances" / "b.png", np.zeros((10, 12), np.uint16)),
        ("instances/b.png", "12x10 px, but its image is 10x12 px"),
    ),
    "class table": (_value("classes", 3), ("classes/b.png", r"values outside the class table: 3 \(2 px\)")),
    "no instance": (
        _value("classes", 1),
        ("instances/b.png", "2 pixels have a class but no instance, the first at x 0, y 0"),
    ),
    "no class": (
        _value("instances", 5, x=4),
        ("instances/b.png", "2 pixels have an instance but are background in classes, the first at x 4, y 0"),
    ),
    "not finite": (_not_finite, ("images/b.tif", "2 pixels are NaN or infinite")),
    "channels": (
        lambda folder: files.write_png(folder / "images" / "b.png", np.arange(360, dtype=np.uint8).reshape(12, 10, 3)),
        ("images/b.png", r"uint8 with 3 channel\(s\), but 4 images are uint8 with 1"),
    ),
    "type": (
        lambda folder: files.write_png(folder / "images" / "b.png", np.arange(120, dtype=np.uint16).reshape(12, 10)),
        ("images/b.png", r"uint16 with 1 channel\(s\), but 4 images are uint8 with 1"),
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_planted_faults(make_dataset: Callable[..., Path], fault: str) -> None:
    plant, (file, says) = FAULTS[fault]
    folder = make_dataset()
    plant(folder)
    found = [problem for problem in problems(Dataset.open(folder)) if problem.file == file]
    assert [problem.level for problem in found] == ["error"]
    with pytest.raises(UnfitError, match=says) as refusal:
        refuse_errors(found)
    assert file in str(refusal.value)


def test_a_constant_image_is_a_warning(make_dataset: Callable[..., Path]) -> None:
    folder = make_dataset()
    files.write_png(folder / "images" / "b.png", np.full((12, 10), 7, np.uint8))
    found = problems(Dataset.open(folder))
    assert [(problem.level, problem.file) for problem in found] == [("warning", "images/b.png")]
    assert "every pixel is 7" in found[0].message
    refuse_errors(found)


def test_too_few_images(make_dataset: Callable[..., Path]) -> None:
    (problem,) = problems(Dataset.open(make_dataset(images=3)))
    assert problem.of_set
    assert "3 image(s); 4 at least are needed" in problem.message


def test_table_puts_errors_first_and_says_what_it_leaves_out() -> None:
    found = [Problem("warning", "b", "odd"), Problem("error", "long", "bad"), Problem("error", "c", "worse")]
    assert table(found, most=2) == "error    long  bad\nerror    c     worse\n... and 1 more"
