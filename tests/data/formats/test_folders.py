"""Folders of images and masks, judged by what was put into them."""

from pathlib import Path

import numpy as np
import pytest

from segline.data import files
from segline.data.formats import LayoutError
from segline.data.formats.folders import recognise


def fill(folder: Path, *names: str) -> None:
    mask = np.array([[0, 1], [2, 1]], np.uint8)
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if not name.endswith("/"):
            files.write_png(folder / name, mask)


@pytest.mark.parametrize(("images", "masks"), [("images", "masks"), ("imgs", "labels")])
def test_pairs_by_stem(tmp_path: Path, images: str, masks: str) -> None:
    fill(tmp_path, f"{images}/b.png", f"{images}/a.jpg", f"{masks}/a.png", f"{masks}/b.tif", "other/c.png")
    (tmp_path / images / "readme.txt").touch()
    (tmp_path / "groups.csv").touch()
    files.copy(tmp_path / masks / "a.png", tmp_path / masks / "b.png")
    (tmp_path / masks / "b.tif").unlink()
    layout = recognise(tmp_path)
    assert {stem: file.name for stem, file in layout.images.items()} == {"a": "a.jpg", "b": "b.png"}
    assert {stem: file.name for stem, file in layout.masks.items()} == {"a": "a.png", "b": "b.png"}
    assert layout.groups == tmp_path / "groups.csv"
    assert layout.reasons[0] == f"images from {images}/, masks from {masks}/, paired by stem"


@pytest.mark.parametrize(
    ("names", "says"),
    [
        ((), "is an empty folder"),
        (("pictures/a.png",), "has no folder images or image or imgs or img, but pictures"),
        (("images/a.png",), "has no folder masks or mask or labels or label, but images"),
        (("images/a.png", "masks/a.png", "images/b.png"), "1 of 2 files in .*images have no partner.*masks: b.png"),
        (("images/a.png", "masks/a.png", "masks/c.png"), "1 of 2 files in .*masks have no partner.*images: c.png"),
        (("images/a.dat", "masks/a.png"), "images holds no image"),
        (("images/a.png", "masks/a.png", "dataset.yaml"), "is a dataset already"),
    ],
)
def test_refusals(tmp_path: Path, names: tuple[str, ...], says: str) -> None:
    fill(tmp_path, *names)
    with pytest.raises(LayoutError, match=says):
        recognise(tmp_path)


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match="is no folder"):
        recognise(tmp_path / "gone")
