"""Problems of a dataset as a whole, planted in a sound dataset."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from segline.data import imagefiles
from segline.data.checks import per_dataset
from segline.data.checks.per_dataset import opened, problems
from segline.data.checks.problems import Problem, refuse_errors
from segline.data.dataset import Dataset, DatasetError


def as_tuples(reported: list[Problem]) -> list[tuple[str, str, str]]:
    return [(problem.level, problem.file, problem.message) for problem in reported]


def test_a_sound_dataset_has_no_problems(make_dataset: Callable[..., Path]) -> None:
    folder = make_dataset()
    for junk in ("Thumbs.db", "notes.txt", ".hidden.png"):
        (folder / "images" / junk).write_text("no image")
    (folder / "images" / "more").mkdir()
    dataset, reported = opened(folder)
    assert dataset is not None
    assert (reported, problems(dataset)) == ([], [])
    refuse_errors([])


def test_problems_come_in_the_order_of_the_images(make_dataset: Callable[..., Path]) -> None:
    folder = make_dataset()
    for stem in "ebd":
        imagefiles.write_png(folder / "images" / f"{stem}.png", np.full((12, 10), 7, np.uint8))
    assert [problem.file for problem in problems(Dataset.open(folder))] == [
        "images/b.png",
        "images/d.png",
        "images/e.png",
    ]


def test_images_and_labels_without_partner_are_errors(make_dataset: Callable[..., Path]) -> None:
    folder = make_dataset()
    (folder / "classes" / "b.png").unlink()
    (folder / "images" / "c.png").unlink()
    assert as_tuples(problems(Dataset.open(folder))) == [
        ("error", "instances/c.png", "has no image images/c.*"),
        ("error", "images/b.png", "has no label image classes/b.*"),
        ("error", "classes/c.png", "has no image images/c.*"),
    ]


def _image(folder: Path, dtype: type, channels: int, stem: str = "b") -> None:
    pixels = np.arange(120 * channels).astype(dtype).reshape(12, 10, channels)
    imagefiles.write_png(folder / "images" / f"{stem}.png", pixels[..., 0] if channels == 1 else pixels)


def test_grey_among_colour_is_a_warning_with_the_rule(make_dataset: Callable[..., Path]) -> None:
    folder = make_dataset()
    _image(folder, np.uint8, 3)
    assert as_tuples(problems(Dataset.open(folder))) == [
        ("warning", "images", "4 images are grey and 1 RGB; grey images are read as RGB with three equal channels")
    ]


def test_other_mixtures_of_types_are_errors(make_dataset: Callable[..., Path]) -> None:
    folder = make_dataset()
    _image(folder, np.uint16, 1)
    _image(folder, np.uint8, 3, "c")
    grey, wide = problems(Dataset.open(folder))
    assert (grey.level, grey.message[:27]) == ("warning", "3 images are grey and 1 RGB")
    assert wide.of_set
    assert as_tuples([wide]) == [
        (
            "error",
            "images/b.png",
            (
                "is uint16 with 1 channel(s), but 4 images are uint8 with 1 or 3 channel(s); "
                "a network takes images of one type and number of channels; convert or remove this image"
            ),
        )
    ]


def _relabel(folder: Path, value: int, to: int) -> None:
    for file in (folder / "classes").iterdir():
        classes = imagefiles.read_labels(file)
        imagefiles.write_png(file, np.where(classes == value, to, classes).astype(np.uint8))


def test_a_class_without_pixels_is_a_warning(make_dataset: Callable[..., Path]) -> None:
    folder = make_dataset()
    _relabel(folder, 2, 1)
    assert as_tuples(problems(Dataset.open(folder))) == [("warning", "dataset", "no pixel has class 2 (nucleus)")]


def test_labels_of_one_class_are_an_error(make_dataset: Callable[..., Path]) -> None:
    folder = make_dataset(kinds=("classes",), labels="classes")
    _relabel(folder, 2, 0)
    _relabel(folder, 1, 0)
    errors = [problem for problem in problems(Dataset.open(folder)) if problem.level == "error"]
    assert as_tuples(errors) == [
        ("error", "dataset", "the labels contain only background; a network needs two classes to learn")
    ]


def test_a_class_absent_from_a_split_is_a_warning(make_dataset: Callable[..., Path]) -> None:
    folder = make_dataset()
    for stem in "abc":
        for kind in ("classes", "instances"):
            labels = imagefiles.read_labels(folder / kind / f"{stem}.png")
            labels[6:] = 0
            imagefiles.write_png(folder / kind / f"{stem}.png", labels)
    dataset = Dataset.open(folder)
    checked = per_dataset.inspect(dataset)
    splits = {"a": "train", "b": "test", "c": "validation", "d": "validation", "e": "validation"}
    assert per_dataset.judge(dataset, checked) == []
    assert as_tuples(per_dataset.of_splits(dataset, checked, splits)) == [
        ("warning", "test split", "no pixel has class 2 (nucleus)"),
        ("warning", "train split", "no pixel has class 2 (nucleus)"),
    ]


def test_a_training_split_of_one_class_is_an_error(make_dataset: Callable[..., Path]) -> None:
    folder = make_dataset()
    for kind, dtype in (("classes", np.uint8), ("instances", np.uint16)):
        imagefiles.write_png(folder / kind / "a.png", np.zeros((12, 10), dtype))
    dataset = Dataset.open(folder)
    splits = {stem: "train" if stem == "a" else "test" for stem in "abcde"}
    reported = per_dataset.of_splits(dataset, per_dataset.inspect(dataset), splits)
    assert as_tuples(reported) == [
        ("error", "train split", "the labels contain only background; a network needs two classes to learn")
    ]


def test_too_few_images_are_an_error(make_dataset: Callable[..., Path]) -> None:
    (problem,) = problems(Dataset.open(make_dataset(images=3)))
    assert problem.of_set
    assert "there are 3 image(s), but at least 4 are needed" in problem.message


@pytest.mark.parametrize("missing", [True, False])
def test_a_folder_without_dataset_is_refused(tmp_path: Path, missing: bool) -> None:
    if not missing:
        (tmp_path / "photos").mkdir()
    says = (
        "is not a folder; `segline import FOLDER --name photos` makes this folder from the images and labels in FOLDER"
        if missing
        else r"holds no dataset\.yaml; `segline import .*photos --name NAME`"
    )
    with pytest.raises(DatasetError, match=says):
        opened(tmp_path / "photos")


def test_all_problems_of_the_tables_are_reported_together(make_dataset: Callable[..., Path]) -> None:
    folder = make_dataset()
    (folder / "dataset.yaml").write_text("name: a b\nlicense: none\nclasses: {0: a, 1: b}\nlabels: classes\n")
    imagefiles.write_png(folder / "images" / "a.tif", np.zeros((2, 2), np.uint8))
    dataset, reported = opened(folder)
    assert dataset is None
    assert [(problem.level, problem.file) for problem in reported] == [
        ("error", "dataset.yaml"),
        ("error", "dataset.yaml"),
        ("error", "images"),
    ]
    assert reported[0].message.startswith("name = 'a b'")
    assert reported[1].message.startswith("license is not a field")
    assert reported[2].message.startswith("a.tif and a.png have the same stem")


def test_a_message_of_several_lines_is_one_problem(
    make_dataset: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_dataset()
    (folder / "dataset.yaml").write_text("name: [")
    _, (problem,) = opened(folder)
    assert problem.message.startswith("not valid YAML: while parsing")
    monkeypatch.chdir(folder)
    assert opened(Path())[1] == [problem]


def test_a_wrong_groups_csv_does_not_hide_the_images(make_dataset: Callable[..., Path]) -> None:
    folder = make_dataset()
    (folder / "groups.csv").write_text("image,group\na,1\n")
    dataset, reported = opened(folder)
    assert as_tuples(reported) == [("error", "groups.csv", "does not list these images: b, c, d, e (4 in all)")]
    assert dataset is not None and dataset.groups == {stem: stem for stem in "abcde"}


@pytest.mark.parametrize("groups", ["", "image,group\nz,1\n"])
def test_a_dataset_without_labels_is_an_error(make_dataset: Callable[..., Path], groups: str) -> None:
    folder = make_dataset(kinds=())
    if groups:
        (folder / "groups.csv").write_text(groups)
    dataset, reported = opened(folder)
    assert dataset is None
    assert as_tuples(reported)[0] == (
        "error",
        "small",
        (
            "has no label images in instances or classes, but `labels: instances` in dataset.yaml requires them; "
            "add label images, or correct `labels`"
        ),
    )
    assert len(reported) == 1 + bool(groups)


def test_a_dataset_without_images_is_an_error(make_dataset: Callable[..., Path]) -> None:
    folder = make_dataset(images=0)
    (folder / "images" / "a.czi").touch()
    _, (problem,) = opened(folder)
    assert problem.message.startswith("images holds no files of type .png, .jpg")
