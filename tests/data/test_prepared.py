"""Prepared arrays and statistics, judged by numpy on all pixels at once and by exact arithmetic."""

import resource
from pathlib import Path

import numpy as np
import pytest

from segline import files
from segline.data import prepared as module
from segline.data.prepared import Arrays, Prepared, moments, statistics
from segline.files import FileError
from segline.model.images import as_channels


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


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_statistics_equal_those_of_numpy(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK", 100)
    rng = np.random.default_rng(0)
    top = {"uint8": 255, "uint16": 65535, "float32": 1}[dtype]
    images = [(rng.random((height, 17, 3)) * top).astype(dtype) for height in (5, 30, 1)]
    statistics_of_all = statistics(map(moments, images))
    pixels = np.concatenate([image.reshape(-1, 3) for image in images]).astype(np.float64) / top
    np.testing.assert_allclose(statistics_of_all.mean, pixels.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(statistics_of_all.std, pixels.std(axis=0), rtol=1e-9)
    assert (statistics_of_all.dtype, statistics_of_all.channels) == (dtype, 3)


def test_statistics_do_not_depend_on_the_order_of_images() -> None:
    rng = np.random.default_rng(0)
    parts = [moments(rng.random((9, 9, 1), dtype=np.float32)) for _ in range(50)]
    assert statistics(parts) == statistics(parts[::-1])


def test_sums_of_large_values_are_exact() -> None:
    image = np.full((1000, 1000, 1), 65535, np.uint16)
    image[0, 0] = 65534
    total = moments(image)
    assert total.sums == (65535 * 10**6 - 1,)
    assert total.squares == (65535**2 * (10**6 - 1) + 65534**2,)
    # The variance is p(1 - p) with p = 1e-6, which is lost in float64 sums of squares.
    assert statistics([total]).std[0] == pytest.approx(np.sqrt(1e-6 * (1 - 1e-6)) / 65535, rel=1e-12)


def test_a_constant_channel_is_divided_by_one() -> None:
    image = np.stack([np.arange(9), np.full(9, 4)], axis=-1).reshape(3, 3, 2).astype(np.uint8)
    assert statistics([moments(image)]).std[1] == 1


def test_a_grey_image_among_rgb_counts_as_three_equal_channels() -> None:
    grey = np.random.default_rng(0).integers(0, 256, (9, 8, 1), dtype=np.uint8)
    alone, among = moments(grey), moments(as_channels(grey, 3))
    assert (among.sums, among.squares, among.pixels) == (alone.sums * 3, alone.squares * 3, alone.pixels)
