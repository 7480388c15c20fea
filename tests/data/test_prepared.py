"""Prepared arrays, memory-mapped one at a time, and damaged files of a prepared dataset."""

import resource
from pathlib import Path

import numpy as np
import pytest

from segline import files
from segline.data.prepared import Arrays, Prepared
from segline.files import FileError


def test_arrays_open_one_file_at_a_time(tmp_path: Path) -> None:
    """There are more arrays than a process may open files; each file is opened when indexed."""
    names = [f"{number}" for number in range(300)]
    for name in names:
        files.save_array(tmp_path / name, np.full((2, 3), int(name), np.int32))
    arrays = Arrays(names, lambda name: files.load_array(tmp_path / name))
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, before[1]))
    try:
        held = [array.shape for array in arrays]
        assert [int(arrays[index][0, 0]) for index in range(len(arrays))] == list(range(300))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert held == [(2, 3)] * 300
    assert [int(array[0, 0]) for array in arrays[5:8]] == [5, 6, 7]
    with pytest.raises(IndexError):
        arrays[300]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Write a prepared dataset of one image."""
    (tmp_path / "manifest.csv").write_text("image,split\na,train\n")
    (tmp_path / "dataset.yaml").write_text("name: x\nlabels: classes\nclasses: {0: a, 1: b}\n")
    files.write_json(tmp_path / "statistics.json", {"dtype": "uint8", "channels": 1, "mean": [0.5], "std": [0.1]})
    for kind in ("images", "targets"):
        (tmp_path / kind).mkdir()
    files.save_array(tmp_path / "images" / "a.npy", np.zeros((2, 3, 1), np.uint8))
    files.save_array(tmp_path / "targets" / "a.npy", np.zeros((2, 3), np.uint8))
    return tmp_path


def test_a_sound_prepared_dataset_opens(folder: Path) -> None:
    prepared = Prepared.open(folder)
    assert prepared.names("train") == ["a"]
    assert (prepared.image("a").shape, prepared.target("a").shape) == ((2, 3, 1), (2, 3))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("manifest.csv", ""),
        ("manifest.csv", "image\na\n"),
        ("manifest.csv", "image,split\n../a,train\n"),
        ("manifest.csv", "image,split\n,train\n"),
        ("manifest.csv", "image,split\na,x\n"),
        ("manifest.csv", "image,split\na,train\na,test\n"),
        ("statistics.json", "[1]"),
        ("statistics.json", '{"dtype": "uint8", "channels": 1, "mean": [0.5]}'),
        ("statistics.json", '{"dtype": "uint8", "channels": 2, "mean": [0.5], "std": [0.1]}'),
        ("statistics.json", '{"dtype": ["uint8"], "channels": 1, "mean": [0.5], "std": [0.1]}'),
        ("statistics.json", '{"dtype": "uint8", "channels": 1, "mean": 7, "std": [0.1]}'),
    ],
)
def test_a_damaged_file_is_named(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(text)
    with pytest.raises(FileError, match=rf"{name}: ") as refused:
        Prepared.open(folder)
    assert "dvc repro" in str(refused.value) or text == ""


def test_images_are_normalised_by_all_training_images_or_each_by_itself(folder: Path) -> None:
    picture = np.arange(24, dtype=np.uint8).reshape(4, 6, 1)
    files.save_array(folder / "images" / "a.npy", picture)
    prepared = Prepared.open(folder)
    assert prepared.input_statistics("train", "dataset") == [prepared.statistics]
    (own,) = prepared.input_statistics("train", "image")
    np.testing.assert_allclose((*own.mean, *own.std), (picture.mean() / 255, picture.std() / 255), rtol=1e-12)
    assert prepared.input_statistics("test", "image") == []


def test_object_maps_need_instances(folder: Path) -> None:
    message = (
        r"model\.object_map = true, but x has no instances: its labels are classes; set model\.object_map to false"
    )
    with pytest.raises(files.FileError, match=message):
        Prepared.open(folder).object_maps("train")


def test_an_array_of_wrong_type_or_shape_is_named(folder: Path) -> None:
    files.save_array(folder / "targets" / "a.npy", np.zeros((2, 3), np.float64))
    files.save_array(folder / "images" / "a.npy", np.zeros((2, 3), np.uint8))
    prepared = Prepared.open(folder)
    needed = "type uint8 and 2 dimensions are needed"
    with pytest.raises(FileError, match=rf"a\.npy: the array has type float64 and 2 dimensions; {needed}"):
        prepared.target("a")
    needed = "type uint8 and 3 dimensions are needed"
    with pytest.raises(FileError, match=rf"a\.npy: the array has type uint8 and 2 dimensions; {needed}"):
        prepared.image("a")
