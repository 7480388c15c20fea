"""Folders of images and masks, judged by the files that were written into them."""

import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segline.data import imagefiles
from segline.importing.formats.folders import recognise
from segline.importing.layout import ImportOptions, LayoutError


def fill(folder: Path, *names: str) -> None:
    mask = np.array([[0, 1], [2, 1]], np.uint8)
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if not name.endswith("/"):
            imagefiles.write_png(folder / name, mask)


@pytest.mark.parametrize(
    ("images", "masks"),
    [
        ("images", "masks"),
        ("imgs", "labels"),
        ("JPEGImages", "SegmentationClass"),
        ("RAW", "Ground Truth"),
        ("x", "y"),
        ("train_images", "train_masks"),
        ("Input", "GT"),
    ],
)
def test_usual_folders(tmp_path: Path, images: str, masks: str) -> None:
    fill(tmp_path, f"{images}/b.png", f"{images}/a.jpg", f"{masks}/a.png", f"{masks}/b.png", "other/c.png")
    (tmp_path / images / "readme.txt").touch()
    (tmp_path / images / ".hidden.png").touch()
    layout = recognise(tmp_path, ImportOptions())
    assert layout is not None
    assert {stem: picture.file.name for stem, picture in layout.images.items()} == {"a": "a.jpg", "b": "b.png"}
    assert {stem: mask.file for stem, mask in layout.classes.items()} == {
        "a": tmp_path / masks / "a.png",
        "b": tmp_path / masks / "b.png",
    }
    assert layout.reasons[0] == f"images from {images}/, masks from {masks}/, paired by stem"
    assert layout.groups is None
    np.testing.assert_array_equal(layout.classes["a"].read(), [[0, 1], [2, 1]])


def test_the_exact_name_wins_and_alternatives_are_listed(tmp_path: Path) -> None:
    fill(tmp_path, "images/a.png", "masks/a.png", "masks_raw/a.png", "labels/a.png", "raw/a.png", "gt/")
    layout = recognise(tmp_path, ImportOptions())
    assert layout is not None
    assert layout.reasons[0] == (
        "images from images/ (alternatives: --images 'raw/*'), "
        "masks from masks/ (alternatives: --masks 'labels/*', --masks 'masks_raw/*'), paired by stem"
    )
    other = recognise(tmp_path, ImportOptions(masks="masks_raw/*"))
    assert other is not None
    assert other.classes["a"].file == tmp_path / "masks_raw" / "a.png"


def test_folders_without_images_are_ignored(tmp_path: Path) -> None:
    fill(tmp_path, "images/a.png")
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "a.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    with pytest.raises(
        LayoutError,
        match=r"in images/, but no masks\. It has no folder of mask files named masks, .*The folders are images/",
    ):
        recognise(tmp_path, ImportOptions())
    fill(tmp_path, "annotations/a.png")
    assert recognise(tmp_path, ImportOptions()) is not None


def test_masks_beside_images(tmp_path: Path) -> None:
    fill(tmp_path, "a.png", "a_mask.png", "b.png", "b_mask.png")
    flat = recognise(tmp_path, ImportOptions())
    assert flat is not None and flat.reasons[0].startswith("images from the folder itself, masks beside the images")
    fill(tmp_path / "up", *(f"images/{name}" for name in ("a.png", "a-seg.png")))
    inner = recognise(tmp_path / "up", ImportOptions())
    assert inner is not None and inner.reasons[0].startswith("images from images/, masks beside")
    fill(tmp_path / "top", "a.png", "b.png", "masks/a.png", "masks/b.png")
    top = recognise(tmp_path / "top", ImportOptions())
    assert top is not None and top.reasons[0] == "images from the folder itself, masks from masks/, paired by stem"


def test_groups_of_imported_images_only(tmp_path: Path) -> None:
    fill(tmp_path, "images/a.png", "images/b.png", "images/c.png", "masks/a.png", "masks/b.png")
    (tmp_path / "groups.csv").write_text("image,group\na.png,1\nb,1\nc,2\n")
    layout = recognise(tmp_path, ImportOptions(skip_unpaired=True))
    assert layout is not None and layout.groups == {"a": "1", "b": "1"}


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("masks/a.png",), "has masks in masks/, but no folder of images; give file patterns, such as --images"),
        (("images/a.png", "masks/a.png", "images/b.png"), r"1 of 2 images have no mask: b\.png"),
        (("images/a.png", "masks/a.png", "masks/c.png"), r"1 of 2 masks have no image: c\.png"),
        (
            ("a_images/a.png", "b_images/a.png"),
            "several folders that may hold the images: a_images/, b_images/; give file",
        ),
        (
            ("images/train/a.png", "images/test/b.png", "masks/train/a.png", "masks/test/b.png"),
            (
                r"images holds no image itself, .*such as test; import all subfolders with --images 'images/\*\*/\*' .*"
                r" one subfolder .*test"
            ),
        ),
        (
            ("images/a.png", "annotations/trimaps/a.png"),
            (
                r"all subfolders with --images 'images/\*' --masks 'annotations/\*\*/\*', or one subfolder with "
                r".*'annotations/trimaps/\*'"
            ),
        ),
        (
            ("images/a.png", "masks/a.webp"),
            r"no masks\. .*\nimport does not read 1 \.webp files; convert them to PNG or TIFF",
        ),
        (("images/a.webp", "masks/a.png"), r"no folder of images; .*\nimport does not read 1 \.webp files"),
        (
            ("train/images/a.png", "train/masks/a.png", "val/images/b.png", "val/masks/b.png"),
            (
                r"masks: train, val; import all subsets with --images '\*/images/\*' --masks '\*/masks/\*', "
                r"or one subset with `segline import .*train`"
            ),
        ),
    ],
)
def test_refusals(tmp_path: Path, names: tuple[str, ...], message: str) -> None:
    fill(tmp_path, *names)
    with pytest.raises(LayoutError, match=message):
        recognise(tmp_path, ImportOptions())


@pytest.mark.parametrize("names", [(), ("things/deep/a.png",), ("a.png", "b.png")])
def test_other_layouts_are_not_recognised(tmp_path: Path, names: tuple[str, ...]) -> None:
    fill(tmp_path, *names)
    assert recognise(tmp_path, ImportOptions()) is None
    assert recognise(tmp_path / "gone", ImportOptions()) is None


def test_a_pattern_without_its_partner(tmp_path: Path) -> None:
    fill(tmp_path, "raw/a.png", "truth/a_t.png")
    found = recognise(tmp_path, ImportOptions(masks="truth/*_t.png"))
    assert found is not None and list(found.images) == ["a"]
    with pytest.raises(LayoutError, match="--masks is missing, and the source has no folder of masks"):
        recognise(tmp_path, ImportOptions(images="raw/*"))


def test_images_without_mask_as_background(tmp_path: Path) -> None:
    fill(tmp_path, "images/a.png", "images/b.png", "masks/a.png")
    layout = recognise(tmp_path, ImportOptions(missing_as_background=True))
    assert layout is not None and set(layout.images) == set(layout.classes) == {"a", "b"}
    assert not layout.classes["b"].read().any()


def test_real_faultless_tiles_have_no_mask(shared_data: Callable[[str], Path]) -> None:
    source = shared_data("magnetic_tile")
    options = ImportOptions(masks="masks_raw/*", threshold=127, missing_as_background=True)
    layout = recognise(source, options)
    assert layout is not None and len(layout.images) == len(layout.classes) == 500
    bare = [stem for stem, mask in layout.classes.items() if mask.file == layout.images[stem].file]
    assert len(bare) == 108 and not any(layout.classes[stem].read().any() for stem in bare[:5])


def test_real_soft_masks_by_threshold(shared_data: Callable[[str], Path]) -> None:
    source = shared_data("magnetic_tile")
    options = {"masks": "masks_raw/crack*", "images": "images/crack*"}
    with pytest.raises(LayoutError, match=r"crack.*pixels are grey, .*Add --threshold 127"):
        recognise(source, ImportOptions(**options))  # type: ignore[arg-type]
    layout = recognise(source, ImportOptions(**options, threshold=127))  # type: ignore[arg-type]
    assert layout is not None and layout.class_of == {0: 0, 1: 1}
    stem, mask = next(iter(layout.classes.items()))
    np.testing.assert_array_equal(mask.read(), imagefiles.read_labels(source / "masks_raw" / f"{stem}.png") > 127)


def test_masks_of_several_pages_beside_single_images_are_refused(tmp_path: Path) -> None:
    import tifffile

    for name in "ab":
        tifffile.imwrite(_made(tmp_path / "images") / f"{name}.tif", np.zeros((9, 9, 3), np.uint8), photometric="rgb")
        mask = np.zeros((2, 9, 9), np.uint8)
        tifffile.imwrite(_made(tmp_path / "masks") / f"{name}.tif", mask, photometric="minisblack")
    with pytest.raises(LayoutError, match=r"masks/a\.tif has 2 pages, but its image a\.tif has one.*one-hot"):
        recognise(tmp_path, ImportOptions())


def _made(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    return folder


@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC"), ("NFD", "NFD")])
@pytest.mark.parametrize("patterns", [{}, {"images": "images/*é*.png", "masks": "masks/*é*.png"}, {"masks": "masks/*"}])
def test_names_pair_in_any_composition(tmp_path: Path, forms: tuple[Any, Any], patterns: dict[str, str]) -> None:
    for kind, form in zip(("images", "masks"), forms, strict=True):
        for number in range(4):
            name = unicodedata.normalize(form, f"Prüf é {number}.png")
            imagefiles.write_png(tmp_path / kind / name, np.full((9, 9), number > 0, np.uint8))
    groups = "".join(f"{unicodedata.normalize('NFD', f'Prüf é {number}')},g{number}\n" for number in range(4))
    (tmp_path / "groups.csv").write_text("image,group\n" + groups)
    found = recognise(tmp_path, ImportOptions(**patterns))  # type: ignore[arg-type]
    assert found is not None and found.groups is not None
    assert set(found.images) == set(found.groups) == {f"Prüf é {number}" for number in range(4)}


def test_two_files_of_one_name_in_two_compositions_are_both_named(tmp_path: Path) -> None:
    for kind in ("images", "masks"):
        for form in ("NFC", "NFD"):
            name = unicodedata.normalize(form, "é.png")  # type: ignore[arg-type]
            imagefiles.write_png(tmp_path / kind / name, np.zeros((9, 9), np.uint8))
    with pytest.raises(LayoutError, match=r"images contains .*e\\u0301\.png.*NFC and NFD"):
        recognise(tmp_path, ImportOptions())
