"""Blocks of large images, judged by reassembling the images."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st

from segline import files
from segline.data import imagefiles
from segline.data.dataset import Dataset
from segline.importing.bring import bring
from segline.importing.cutting import WHOLE, plan, windows
from segline.importing.layout import ImageSource, ImportOptions, Layout, LayoutError


@given(height=st.integers(1, 300), width=st.integers(1, 300), side=st.integers(16, 200))
def test_blocks_cover_each_pixel_once(height: int, width: int, side: int) -> None:
    seen = np.zeros((height, width), int)
    found = windows("a", height, width, side)
    for window in found.values():
        part = seen[window]
        part += 1
        assert max(part.shape) <= side
    assert np.all(seen == 1)
    if len(found) > 1:
        for axis in (0, 1):
            lengths = {window[axis].stop - window[axis].start for window in found.values()}
            assert max(lengths) - min(lengths) <= 1
        assert list(found) == sorted(found)


def test_names_of_blocks() -> None:
    assert windows("a", 40, 20, 40) == {"a": WHOLE}
    found = windows("a", 41, 20, 40)
    assert found == {"a_r0_c0": (slice(0, 20), slice(0, 20)), "a_r1_c0": (slice(20, 41), slice(0, 20))}
    many = list(windows("a", 20, 176, 16))
    assert (many[0], many[-1]) == ("a_r00_c00", "a_r01_c10")


def source_of(folder: Path, names: str, shape: tuple[int, int], dtype: type = np.uint8) -> Path:
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    for index, name in enumerate(names):
        rng = np.random.default_rng(index)
        top = np.iinfo(dtype).max if np.issubdtype(dtype, np.integer) else 1
        pixels = (rng.random((*shape, 3)) * top).astype(dtype)
        tifffile.imwrite(folder / "images" / f"{name}.tif", pixels, photometric="rgb")
        ids = np.kron(np.arange(1, 31).reshape(5, 6), np.ones((shape[0] // 5, shape[1] // 6), int)).astype(np.uint16)
        ids[::7] = 0
        imagefiles.write_png(folder / "masks" / f"{name}.png", ids)
    return folder


def tree(folder: Path) -> dict[str, str]:
    """MD5 of each file below `folder`."""
    return {str(file.relative_to(folder)): files.md5(file) for file in folder.rglob("*") if file.is_file()}


def together(dataset: Dataset, name: str, rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    def stem(row: int, column: int) -> str:
        return f"{name}_r{row}_c{column}"

    image = np.block([[[dataset.image(stem(row, column))] for column in range(columns)] for row in range(rows)])
    found = [[dataset.truth(stem(row, column))[1] for column in range(columns)] for row in range(rows)]
    return image, np.block(found)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_one_image_becomes_a_dataset(tmp_path: Path, dtype: type) -> None:
    source = source_of(tmp_path / "source", "a", (50, 60), dtype)
    made = bring(source, "one", ImportOptions(labels="instances", cut=20), raw=tmp_path / "raw")
    assert made.images == 9
    dataset = Dataset.open(made.folder)
    image, ids = together(dataset, "a", 3, 3)
    np.testing.assert_array_equal(image, imagefiles.read_image(source / "images" / "a.tif"))
    np.testing.assert_array_equal(ids, imagefiles.read_labels(source / "masks" / "a.png"))
    assert len(set(dataset.groups.values())) == 9
    reasons = [reason for reason in made.reasons if reason.startswith("cut:")]
    assert len(reasons) == 1 and "1 of 1 images into 9 blocks of 20 px or less; there are too few images" in reasons[0]


def test_blocks_of_one_image_are_one_group(tmp_path: Path) -> None:
    source = source_of(tmp_path / "source", "abcd", (50, 60))
    made = bring(source, "four", ImportOptions(labels="instances", cut=30), raw=tmp_path / "raw")
    dataset = Dataset.open(made.folder)
    assert len(dataset.stems) == 16
    assert {stem: stem[0] for stem in dataset.stems} == dataset.groups


def test_an_image_that_is_small_enough_is_copied(tmp_path: Path) -> None:
    source = source_of(tmp_path / "source", "abcd", (50, 60))
    made = bring(source, "four", ImportOptions(labels="instances", cut=60), raw=tmp_path / "raw")
    for name in "abcd":
        assert files.md5(made.folder / "images" / f"{name}.tif") == files.md5(source / "images" / f"{name}.tif")
    assert "cut: no image is larger than 60 px" in made.reasons


def test_interrupted_between_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = source_of(tmp_path / "source", "a", (50, 60))
    options = ImportOptions(labels="instances", cut=20)
    undisturbed = bring(source, "one", options, raw=tmp_path / "other").folder
    write, seen = imagefiles.write_png, []

    def until(path: Path, pixels: np.ndarray) -> None:
        seen.append(path)
        if len(seen) == 5:
            raise KeyboardInterrupt
        write(path, pixels)

    with monkeypatch.context() as patched:
        patched.setattr(imagefiles, "write_png", until)
        with pytest.raises(KeyboardInterrupt):
            bring(source, "one", options, raw=tmp_path / "raw")
    made = bring(source, "one", options, raw=tmp_path / "raw").folder
    assert tree(made) == tree(undisturbed)


def test_labels_of_another_size_are_refused(tmp_path: Path) -> None:
    source = source_of(tmp_path / "source", "a", (50, 60))
    imagefiles.write_png(source / "masks" / "a.png", np.ones((40, 60), np.uint8))
    with pytest.raises(LayoutError, match=r"a\.png is 60x40 px, but its image a\.tif is 60x50"):
        bring(source, "one", ImportOptions(labels="instances", cut=20), raw=tmp_path / "raw")
    assert not (tmp_path / "raw" / "one").exists()


def test_refusals(tmp_path: Path) -> None:
    source = source_of(tmp_path / "source", "a", (50, 60))
    layout = Layout({"a": ImageSource(source / "images" / "a.tif")}, "instances", {0: "background", 1: "cell"}, ())
    with pytest.raises(LayoutError, match="--cut 8: the side of a block must be at least 16 px"):
        plan(layout, None, 8)
    imagefiles.write_png(source / "small.png", np.zeros((20, 20), np.uint8))
    twins = Layout(
        {"a": ImageSource(source / "images" / "a.tif"), "a_r0_c1": ImageSource(source / "small.png")},
        "instances",
        {0: "background", 1: "cell"},
        (),
    )
    with pytest.raises(
        LayoutError,
        match="a block would get the name a_r0_c1, but another image already has this name; rename that image",
    ):
        plan(twins, None, 30)


def test_names_that_file_systems_do_not_take_are_refused() -> None:
    for stem, side in (("x" * 251, None), ("细" * 83, None), ("x" * 252, None), ("细" * 84, None)):
        layout = Layout({stem: ImageSource(Path("a.png"))}, "classes", {0: "a", 1: "b"}, ())
        if len(f"{stem}.png".encode()) <= 255:
            assert plan(layout, None, side).blocks == {stem: {stem: WHOLE}}
            continue
        with pytest.raises(
            LayoutError,
            match=r"would have a file name of \d+ bytes.*file systems allow at most 255; shorten the name of the image",
        ):
            plan(layout, None, side)
