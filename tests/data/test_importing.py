"""Import, judged by the bytes of source and target, before and after."""

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
from scipy import ndimage

from segline.data import files
from segline.data.check import UnfitError
from segline.data.dataset import Dataset, DatasetError
from segline.data.formats import LayoutError
from segline.data.importing import bring


def tree(folder: Path) -> dict[str, str]:
    """MD5 of each file below `folder`."""
    found = (file for file in sorted(folder.rglob("*")) if file.is_file())
    return {str(file.relative_to(folder)): hashlib.md5(file.read_bytes()).hexdigest() for file in found}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Five images 20 x 16 with instance masks of 1 to 30 objects."""
    folder = tmp_path / "source"
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    for index, name in enumerate("abcde"):
        rng = np.random.default_rng(index)
        files.write_png(folder / "images" / f"{name}.png", rng.integers(0, 256, (20, 16), np.uint8))
        mask = np.zeros((20, 16), np.uint16)
        mask[::3, ::3] = np.arange(42).reshape(7, 6) % (6 * index + 7)
        files.write_png(folder / "masks" / f"{name}.png", mask)
    return folder


def test_all_of_it(tmp_path: Path, source: Path) -> None:
    (source / "groups.csv").write_text("image,defect,group\na.png,x,1\nb,x,1\nc,y,2\nd,y,2\ne,z,03\n")
    before = tree(source)
    made = bring(source, "small", raw=tmp_path / "raw", names={1: "cell"}, licence="CC0-1.0", origin="a microscope")
    assert tree(source) == before
    after = tree(made.folder)
    assert all(after[f"images/{name}.png"] == before[f"images/{name}.png"] for name in "abcde")
    dataset = Dataset.open(tmp_path / "raw" / "small")
    assert dataset.spec == made.spec
    assert made.spec.model_dump() == {
        "name": "small",
        "classes": {0: "background", 1: "cell"},
        "ignore": None,
        "labels": "instances",
        "licence": "CC0-1.0",
        "source": "a microscope",
    }
    assert dataset.groups == {"a": "1", "b": "1", "c": "2", "d": "2", "e": "03"}
    masks = {name: files.read_labels(source / "masks" / f"{name}.png") for name in "abcde"}
    for name, mask in masks.items():
        np.testing.assert_array_equal(dataset.truth(name)[1], mask)
    assert made.instances == sum(len(np.unique(mask)) - 1 for mask in masks.values())
    assert made.pixels == {
        0: sum(int((mask == 0).sum()) for mask in masks.values()),
        1: sum(int((mask > 0).sum()) for mask in masks.values()),
    }
    assert (made.images, made.problems) == (5, ())


def test_pieces_of_a_binary_mask_as_instances(tmp_path: Path, source: Path) -> None:
    for file in (source / "masks").iterdir():
        files.write_png(file, (np.random.default_rng(0).random((20, 16)) > 0.6).astype(np.uint8) * 255)
    made = bring(source, "small", raw=tmp_path / "raw", kind="instances")
    found = Dataset.open(made.folder).truth("a")[1]
    assert found.max() == ndimage.label(files.read_labels(source / "masks" / "a.png"))[1]
    assert "every connected piece is one object" in made.reasons


def test_ignored_pixels(tmp_path: Path, source: Path) -> None:
    for file in (source / "masks").iterdir():
        mask = np.tile(np.array([0, 1, 2, 255], np.uint8), (20, 4))
        files.write_png(file, mask)
    made = bring(source, "small", raw=tmp_path / "raw")
    assert (made.spec.ignore, made.pixels) == (255, {0: 400, 1: 400, 2: 400})
    np.testing.assert_array_equal(Dataset.open(made.folder).truth("a")[0], mask)


def test_large_ids_are_renumbered(tmp_path: Path, source: Path) -> None:
    (source / "masks" / "a.png").unlink()
    mask = np.zeros((20, 16), np.uint32)
    mask[2, 3], mask[4, 5:7] = 70000, 2_000_000_000
    tifffile.imwrite(source / "masks" / "a.tif", mask)
    made = bring(source, "small", raw=tmp_path / "raw")
    found = Dataset.open(made.folder).truth("a")[1]
    assert (found[2, 3], found[4, 5], found[4, 6], found.max()) == (1, 2, 2, 2)


def _other_size(source: Path) -> None:
    files.write_png(source / "masks" / "c.png", np.arange(30, dtype=np.uint8).reshape(5, 6))


def _unlisted(source: Path) -> None:
    files.write_table(source / "groups.csv", pd.DataFrame({"image": ["a"], "group": ["1"]}))


@pytest.mark.parametrize(
    ("spoil", "error", "says"),
    [
        (_other_size, UnfitError, r"instances/c\.png +6x5 px, but its image is 16x20 px"),
        (lambda source: (source / "images" / "c.png").write_bytes(b"x"), UnfitError, r"images/c\.png +not a readable"),
        (lambda source: (source / "masks" / "c.png").unlink(), LayoutError, r"no partner.*c\.png"),
        (_unlisted, DatasetError, "does not list: b, c, d, e"),
    ],
)
def test_nothing_of_it(tmp_path: Path, source: Path, spoil: object, error: type, says: str) -> None:
    bring(source, "small", raw=tmp_path / "raw")
    before = tree(tmp_path / "raw")
    spoil(source)  # type: ignore[operator]
    with pytest.raises(error, match=says):
        bring(source, "small", raw=tmp_path / "raw", replace=True)
    assert tree(tmp_path / "raw") == before
    with pytest.raises(error, match=says):
        bring(source, "new", raw=tmp_path / "raw")
    assert [folder.name for folder in (tmp_path / "raw").iterdir()] == ["small"]


def test_a_folder_that_is_there_is_replaced_on_demand_only(tmp_path: Path, source: Path) -> None:
    bring(source, "small", raw=tmp_path / "raw")
    with pytest.raises(DatasetError, match="small is there already; say --replace"):
        bring(source, "small", raw=tmp_path / "raw")
    for kind in ("images", "masks"):
        (source / kind / "e.png").unlink()
    bring(source, "small", raw=tmp_path / "raw", replace=True)
    assert Dataset.open(tmp_path / "raw" / "small").stems == ["a", "b", "c", "d"]


@pytest.mark.parametrize("name", ["", "../up", ".hidden", "a b", "ä"])
def test_names_that_are_none(tmp_path: Path, source: Path, name: str) -> None:
    with pytest.raises(DatasetError, match="--name"):
        bring(source, name, raw=tmp_path / "raw")


def test_source_and_target_stay_apart(tmp_path: Path, source: Path) -> None:
    before = tree(tmp_path)
    for raw, name in ((tmp_path, "source"), (source, "images"), (tmp_path.parent, tmp_path.name)):
        with pytest.raises(DatasetError, match="lie in one another"):
            bring(source, name, raw=raw, replace=True)
    assert tree(tmp_path) == before


def test_mixed_images_come_in_with_their_problems(tmp_path: Path, source: Path) -> None:
    files.write_png(source / "images" / "c.png", np.arange(960, dtype=np.uint16).astype(np.uint8).reshape(20, 16, 3))
    made = bring(source, "small", raw=tmp_path / "raw")
    assert [(problem.file, problem.of_set) for problem in made.problems] == [("images/c.png", True)]
