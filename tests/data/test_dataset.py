"""Dataset folders, judged by tables made by hand and by the connected components of skimage."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from skimage.measure import label

from segline import files
from segline.data import imagefiles
from segline.data.dataset import IGNORE, Dataset, DatasetError, Spec, read_spec, write_spec
from segline.files import FileError

SPEC = {"name": "small", "classes": {0: "background", 1: "cell"}, "labels": "classes"}


def test_spec_survives_writing_and_reading(tmp_path: Path) -> None:
    spec = Spec.model_validate(SPEC | {"ignore": 200, "licence": "CC0-1.0"})
    write_spec(tmp_path / "dataset.yaml", spec)
    assert read_spec(tmp_path / "dataset.yaml") == spec
    assert "  0: background\n" in (tmp_path / "dataset.yaml").read_text()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"name": "../up"}, r"name = '\.\./up'"),
        ({"classes": {0: "background", 2: "cell"}}, r"class ids \[0, 2\] must be consecutive numbers from 0"),
        ({"classes": {0: "background"}}, "at least two"),
        ({"classes": {0: "cell", 1: "cell"}}, "two classes have the same name"),
        ({"classes": {"zero": "cell"}}, "classes"),
        ({"ignore": 1}, "`ignore: 1` is the id of a class"),
        ({"ignore": 300}, "ignore = 300"),
        ({"labels": "boxes"}, "labels = 'boxes'"),
        ({"labels": "boundaries", "classes": {0: "a", 1: "b", 2: "c"}}, "needs exactly two classes"),
        ({"license": "CC0"}, "license is not a field; the fields are name, classes, ignore, labels, licence, source"),
    ],
)
def test_wrong_fields_are_named(tmp_path: Path, change: dict[str, object], says: str) -> None:
    files.write_yaml(tmp_path / "dataset.yaml", SPEC | change)
    with pytest.raises(DatasetError, match=says) as refusal:
        read_spec(tmp_path / "dataset.yaml")
    assert "dataset.yaml" in str(refusal.value)


def test_missing_fields_are_named(tmp_path: Path) -> None:
    files.write_yaml(tmp_path / "dataset.yaml", {"name": "small"})
    with pytest.raises(
        DatasetError, match=r"classes is missing \(name of each id(.|\n)*labels is missing \(instances:"
    ):
        read_spec(tmp_path / "dataset.yaml")
    (tmp_path / "dataset.yaml").write_text("small")
    with pytest.raises(DatasetError, match="holds a value of type str instead of the fields name, classes"):
        read_spec(tmp_path / "dataset.yaml")


def test_two_files_with_the_same_stem_are_refused(make_dataset: Callable[..., Path]) -> None:
    folder = make_dataset(images=2)
    (folder / "images" / ".hidden").touch()
    dataset = Dataset.open(folder)
    assert dataset.stems == ["a", "b"]
    assert dataset.groups == {"a": "a", "b": "b"}
    assert dataset.image("a").shape == (12, 10, 1)
    imagefiles.write_png(folder / "images" / "a.tif", np.zeros((2, 2), np.uint8))
    with pytest.raises(DatasetError, match=r"a\.tif and a\.png have the same stem"):
        Dataset.open(folder)


def test_files_that_are_not_images_are_ignored(make_dataset: Callable[..., Path]) -> None:
    folder = make_dataset(images=1)
    for name in ("Thumbs.db", "notes.txt"):
        (folder / "images" / name).touch()
    os.mkfifo(folder / "images" / "pipe.png")
    (folder / "images" / "folder.png").mkdir()
    assert Dataset.open(folder).stems == ["a"]


def test_a_folder_that_cannot_be_listed_is_named(
    make_dataset: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    folder = make_dataset()
    monkeypatch.setattr(Path, "iterdir", denied)
    with pytest.raises(DatasetError, match="images cannot be listed: Permission denied"):
        Dataset.open(folder)


def test_truth_from_instances_and_classes(make_dataset: Callable[..., Path]) -> None:
    folder = make_dataset()
    classes = imagefiles.read_labels(folder / "classes" / "a.png")
    classes[1:3, 1:4] = 9
    imagefiles.write_png(folder / "classes" / "a.png", classes)
    read_classes, instances = Dataset.open(folder).truth("a")
    expected = imagefiles.read_labels(folder / "instances" / "a.png")
    np.testing.assert_array_equal(read_classes, np.where(classes == 9, IGNORE, classes))
    np.testing.assert_array_equal(instances, np.where(classes == 9, 0, expected))
    assert (read_classes.dtype, instances.dtype) == (np.uint8, np.int32)


def test_truth_from_instances_alone(make_dataset: Callable[..., Path]) -> None:
    folder = make_dataset(kinds=("instances",), classes={0: "background", 1: "cell"})
    classes, instances = Dataset.open(folder).truth("a")
    expected = imagefiles.read_labels(folder / "instances" / "a.png")
    np.testing.assert_array_equal(instances, expected)
    np.testing.assert_array_equal(classes, expected > 0)


@pytest.mark.parametrize(("kind", "neighbours"), [("classes", 2), ("boundaries", 1)])
def test_truth_from_classes_alone(make_dataset: Callable[..., Path], kind: str, neighbours: int) -> None:
    folder = make_dataset(kinds=("classes",), classes={0: "line", 1: "cell"}, ignore=None, labels=kind)
    classes = np.random.default_rng(0).integers(0, 2, (40, 30), np.uint8)
    imagefiles.write_png(folder / "classes" / "a.png", classes)
    _, instances = Dataset.open(folder).truth("a")
    pieces = label(classes, connectivity=neighbours)
    pairs = np.unique(np.stack([instances.ravel(), pieces.ravel()]), axis=1)
    assert pairs.shape[1] == pieces.max() + 1 == instances.max() + 1


def test_touching_areas_of_two_classes_are_two_instances(make_dataset: Callable[..., Path]) -> None:
    folder = make_dataset(kinds=("classes",), labels="classes")
    imagefiles.write_png(folder / "classes" / "a.png", np.array([[1, 2, 9], [0, 0, 1]], np.uint8))
    classes, instances = Dataset.open(folder).truth("a")
    np.testing.assert_array_equal(classes, [[1, 2, IGNORE], [0, 0, 1]])
    np.testing.assert_array_equal(instances, [[1, 3, 0], [0, 0, 2]])


@pytest.mark.parametrize(
    ("remove", "spec", "says"),
    [
        ("images", {}, "images holds no files"),
        ("dataset.yaml", {}, r"dataset\.yaml: cannot be read"),
        (None, {"kinds": (), "labels": "classes"}, "no label images in classes"),
        (None, {"kinds": ("instances",), "labels": "classes"}, "no label images in classes"),
        (None, {"kinds": ()}, "no label images in instances or classes"),
        (
            None,
            {"kinds": ("instances",)},
            "has 3 classes, but no folder `classes`; add this folder, with a label image of class ids for each image",
        ),
    ],
)
def test_open_refuses_an_incomplete_dataset(
    make_dataset: Callable[..., Path], remove: str | None, spec: dict[str, object], says: str
) -> None:
    folder = make_dataset(**spec)
    if remove:
        (folder / remove).rename(folder / "elsewhere")
    with pytest.raises((DatasetError, FileError), match=says):
        Dataset.open(folder)


def test_open_refuses_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(
        DatasetError,
        match="is not a folder; `segline import FOLDER --name gone` makes this folder "
        "from the images and labels in FOLDER",
    ):
        Dataset.open(tmp_path / "gone")


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ("image,group\na,1\nb.png,1\nc,007\nd,2\ne,2\n", None),
        ("image,other\na,1\n", "no column group; its columns are image, other"),
        ("image,group\na,1\n", r"does not list these images: b, c, d, e \(4 in all\)"),
        ("image,group\na,1\nb,1\nc,1\nd,1\ne,1\nz,1\n", "that do not exist: z"),
        ("image,group\na,1\nb,1\nc,1\nd,1\ne,1\na.png,2\n", "lists these images more than once: a"),
        ("image,group\na,1\nb,1\nc,\nd,1\ne,1\n", "gives no group to these images: c"),
    ],
)
def test_groups_are_read_or_refused(make_dataset: Callable[..., Path], rows: str, says: str | None) -> None:
    folder = make_dataset()
    (folder / "groups.csv").write_text(rows)
    if says is None:
        assert Dataset.open(folder).groups == {"a": "1", "b": "1", "c": "007", "d": "2", "e": "2"}
        return
    with pytest.raises(DatasetError, match=says):
        Dataset.open(folder)


def test_estimated_memory_covers_image_and_labels(make_dataset: Callable[..., Path]) -> None:
    dataset = Dataset.open(make_dataset())
    image, (classes, instances) = dataset.image("a"), dataset.truth("a")
    assert dataset.memory("a") >= max(4 * image.nbytes, classes.nbytes + instances.nbytes + 8 * classes.size)
    dataset.images["a"].write_bytes(b"no image")
    assert dataset.memory("a") == 0
