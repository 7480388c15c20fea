"""Duplicates across groups and splits, planted by copying and changing images."""

import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from segline.data import imagefiles
from segline.data.checks import duplicates, per_dataset
from segline.data.dataset import Dataset
from segline.importing.bring import bring


@pytest.fixture
def folder(make_dataset: Callable[..., Path]) -> Path:
    """Write six images of 96 x 96 px: b and d have the same pixels, e is a brighter c, a and f are unique."""
    folder = make_dataset(images=6, kinds=("classes",), labels="classes")
    for index, stem in enumerate("abcdef"):
        picture = np.random.default_rng(index).integers(0, 200, (8, 8), np.uint8)
        imagefiles.write_png(
            folder / "images" / f"{stem}.png", cv2.resize(picture, (96, 96), interpolation=cv2.INTER_CUBIC)
        )
        imagefiles.write_png(folder / "classes" / f"{stem}.png", cv2.resize(picture // 100, (96, 96)))
    shutil.copy(folder / "images" / "b.png", folder / "images" / "d.png")
    brighter = cv2.add(imagefiles.read_image(folder / "images" / "c.png")[..., 0], 9)
    imagefiles.write_png(folder / "images" / "e.png", np.asarray(brighter))
    return folder


def problems_of(folder: Path, part_of: dict[str, str] | None = None) -> list[tuple[str, str, str]]:
    dataset = Dataset.open(folder)
    checked = per_dataset.inspect(dataset)
    if part_of:
        problems = duplicates.problems(dataset, checked, part_of, "split")
    else:
        problems = duplicates.problems(dataset, checked, dataset.groups, "group")
    return [(problem.level, problem.file, problem.message.partition(";")[0]) for problem in problems]


def test_duplicates_in_two_groups_are_warnings(folder: Path) -> None:
    assert problems_of(folder) == [
        ("warning", "images/b.png", "in group b: same pixels as images/d.png in group d"),
        ("warning", "images/c.png", "in group c: looks like images/e.png in group e"),
    ]


def test_duplicates_in_one_group_are_allowed(folder: Path) -> None:
    groups = {"a": "1", "b": "2", "c": "3", "d": "2", "e": "3", "f": "1"}
    lines = "".join(f"{stem},{group}\n" for stem, group in groups.items())
    (folder / "groups.csv").write_text(f"image,group\n{lines}")
    assert problems_of(folder) == []


def test_the_same_pixels_in_two_splits_are_an_error(folder: Path) -> None:
    splits = dict.fromkeys("ab", "train") | dict.fromkeys("cd", "test") | dict.fromkeys("ef", "validation")
    assert problems_of(folder, splits) == [
        ("error", "images/b.png", "in split train: same pixels as images/d.png in split test"),
        ("warning", "images/c.png", "in split test: looks like images/e.png in split validation"),
    ]
    assert problems_of(folder, dict.fromkeys("abcdef", "train")) == []


def test_images_of_one_value_are_not_duplicates(folder: Path) -> None:
    for stem in "af":
        imagefiles.write_png(folder / "images" / f"{stem}.png", np.full((96, 96), 3, np.uint8))
    assert len(problems_of(folder)) == 2


def test_the_same_image_with_different_labels_is_a_warning(folder: Path) -> None:
    dataset = Dataset.open(folder)
    (problem,) = duplicates.contradictions(dataset, per_dataset.inspect(dataset))
    assert (problem.level, problem.file) == ("warning", "images/b.png")
    assert problem.message == "same pixels as images/d.png, but different labels; correct the labels of one of them"
    shutil.copy(folder / "classes" / "b.png", folder / "classes" / "d.png")
    assert list(duplicates.contradictions(dataset, per_dataset.inspect(dataset))) == []
    (folder / "classes" / "d.png").write_bytes(b"")
    assert list(duplicates.contradictions(dataset, per_dataset.inspect(dataset))) == []


@pytest.mark.parametrize(
    ("exactly", "groups"),
    [
        (False, {"a": "1", "b": "1", "c": "3", "d": "1", "e": "3", "f": "6"}),
        (True, {"a": "1", "b": "1", "c": "3", "d": "1", "e": "5", "f": "6"}),
    ],
)
def test_groups_unite_similar_images(folder: Path, exactly: bool, groups: dict[str, str]) -> None:
    (folder / "groups.csv").write_text("image,group\na,1\nb,1\nc,3\nd,4\ne,5\nf,6\n")
    dataset = Dataset.open(folder)
    assert duplicates.groups(dataset, per_dataset.inspect(dataset), exactly=exactly) == groups


def test_uniting_an_image_unites_its_whole_group(folder: Path) -> None:
    (folder / "groups.csv").write_text("image,group\na,4\nb,1\nc,3\nd,4\ne,5\nf,4\n")
    imagefiles.write_png(folder / "images" / "f.png", np.full((96, 96), 3, np.uint8))  # it has no perceptual hash
    dataset = Dataset.open(folder)
    groups = duplicates.groups(dataset, per_dataset.inspect(dataset))
    assert groups == {"a": "1", "b": "1", "c": "3", "d": "1", "e": "3", "f": "1"}


def test_import_groups_images_with_the_same_pixels(folder: Path, tmp_path: Path) -> None:
    for kind, name in (("images", "images"), ("classes", "masks")):
        shutil.copytree(folder / kind, tmp_path / "source" / name)
    made = bring(tmp_path / "source", "twice", raw=tmp_path / "raw")
    assert Dataset.open(made.folder).groups == {stem: "b" if stem == "d" else stem for stem in "abcdef"}
    assert "groups: images d joined the group of an image with the same pixels" in made.reasons
    assert [problem.file for problem in made.problems] == ["images/b.png", "images/c.png"]
