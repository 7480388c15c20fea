"""One mask file per object, judged by the label images that the files were cut from."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from segline import files
from segline.data import imagefiles, labels
from segline.importing.formats.mask_per_object import recognise
from segline.importing.layout import ImportOptions, LayoutError

CELLS = np.array(
    [
        [1, 1, 0, 0, 2, 2],
        [1, 1, 0, 0, 2, 2],
        [0, 0, 0, 3, 0, 0],
        [3, 0, 0, 3, 0, 0],
    ],
    np.uint8,
)


def write(source: Path, stem: str, cells: np.ndarray, flat: bool = False) -> None:
    """`cells` as published: a picture, and a file for each of them."""
    image = source / "images" / f"{stem}.png" if flat else source / stem / "images" / f"{stem}.png"
    masks = source / "masks" / stem if flat else source / stem / "masks"
    imagefiles.write_png(image, np.arange(cells.size, dtype=np.uint8).reshape(cells.shape))
    masks.mkdir(parents=True)
    for number in np.setdiff1d(cells, 0):
        imagefiles.write_png(masks / f"{number:04}.png", np.where(cells == number, 255, 0).astype(np.uint8))


@pytest.mark.parametrize("flat", [False, True])
def test_files_become_one_label_image(tmp_path: Path, flat: bool) -> None:
    write(tmp_path, "a", CELLS, flat)
    write(tmp_path, "b", CELLS[::-1] * (CELLS[::-1] > 1), flat)
    write(tmp_path, "none", np.zeros_like(CELLS), flat)
    layout = recognise(tmp_path, ImportOptions())
    assert layout is not None
    assert (layout.labels, dict(layout.names)) == ("instances", {0: "background", 1: "object"})
    assert {stem: picture.file.name for stem, picture in layout.images.items()} == {
        "a": "a.png",
        "b": "b.png",
        "none": "none.png",
    }
    np.testing.assert_array_equal(layout.instances["a"].read(), CELLS)
    np.testing.assert_array_equal(layout.instances["b"].read(), labels.renumber(CELLS[::-1] * (CELLS[::-1] > 1))[0])
    np.testing.assert_array_equal(layout.instances["none"].read(), 0)
    assert layout.classes == {}
    assert "5 objects in 3 images; 1 image(s) have no object" in layout.reasons
    assert not any("overlap" in reason for reason in layout.reasons)


def test_overlaps_are_settled_and_counted(tmp_path: Path) -> None:
    write(tmp_path, "a", CELLS)
    wide = np.zeros_like(CELLS)
    wide[:2, :5] = 255
    imagefiles.write_png(tmp_path / "a" / "masks" / "0000.png", wide)
    layout = recognise(tmp_path, ImportOptions())
    assert layout is not None
    assert layout.instances["a"].read()[:2].tolist() == [[2, 2, 1, 1, 3, 3]] * 2
    assert (
        "objects overlap: 6 pixels went to the smaller object, or to the later of two equally large objects"
        in layout.reasons
    )


def test_options_are_applied(tmp_path: Path) -> None:
    write(tmp_path, "a", CELLS)
    soft = np.zeros_like(CELLS)
    soft[3, 1:3] = 100, 200
    imagefiles.write_png(tmp_path / "a" / "masks" / "0009.png", soft)
    layout = recognise(tmp_path, ImportOptions(threshold=127, names={1: "nucleus"}, labels="classes"))
    assert layout is not None
    assert (layout.labels, dict(layout.names), layout.instances) == ("classes", {0: "background", 1: "nucleus"}, {})
    expected = CELLS > 0
    expected[3, 2] = True
    np.testing.assert_array_equal(layout.classes["a"].read(), expected)


def test_skip_unpaired_leaves_out_unpaired_files(tmp_path: Path) -> None:
    write(tmp_path, "a", CELLS, flat=True)
    (tmp_path / "masks" / "b").mkdir()
    layout = recognise(tmp_path, ImportOptions(skip_unpaired=True))
    assert layout is not None
    assert list(layout.images) == ["a"]
    assert any(
        "1 image(s) or folder(s) of masks left out because of --skip-unpaired" in reason for reason in layout.reasons
    )


def test_other_layouts_are_left_to_others(tmp_path: Path) -> None:
    assert recognise(tmp_path, ImportOptions()) is None
    assert recognise(tmp_path / "gone", ImportOptions()) is None
    for stem in ("a", "b"):
        for kind in ("images", "masks"):
            imagefiles.write_png(tmp_path / kind / f"{stem}.png", CELLS)
    assert recognise(tmp_path, ImportOptions()) is None
    for part in ("train", "test"):
        for kind in ("images", "masks"):
            for stem in ("a", "b"):
                imagefiles.write_png(tmp_path / "parts" / part / kind / f"{stem}.png", CELLS)
    assert recognise(tmp_path / "parts", ImportOptions()) is None


def spoil(folder: Path, what: str) -> None:
    masks = folder / "a" / "masks"
    match what:
        case "no masks":
            files.make_empty_folder(folder / "b" / "images")
            imagefiles.write_png(folder / "b" / "images" / "b.png", CELLS)
        case "two images":
            imagefiles.write_png(folder / "a" / "images" / "second.png", CELLS)
            write(folder, "b", CELLS)
            write(folder, "c", CELLS)
        case "empty":
            imagefiles.write_png(masks / "0009.png", np.zeros_like(CELLS))
        case "grey":
            imagefiles.write_png(masks / "0009.png", CELLS * 30)
        case "size of one":
            imagefiles.write_png(masks / "0009.png", CELLS.T)
        case "size of all":
            imagefiles.write_png(folder / "a" / "images" / "a.png", CELLS.T)
        case "damaged":
            (masks / "0009.png").write_bytes(b"\x89PNG\r\n\x1a\n")
        case "nothing":
            for file in masks.iterdir():
                file.unlink()


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("no masks", r"b\.png has no folder of masks; .* --missing-as-background"),
        ("two images", "a has 2 image.s. and a folder masks/; put one image into"),
        ("empty", "masks has masks that cover no pixel: 0009.png; correct or remove them"),
        ("grey", r"0009\.png: 8 pixels are neither 0 nor 90, .* add --threshold"),
        (
            "size of one",
            (
                r"0009\.png is 4x6 px, but the mask 0001\.png of the same image is 6x4 px; masks of one image "
                "must have the same size"
            ),
        ),
        ("size of all", r"masks gives the size 6x4 px .* for the image .*a\.png, but this image is 4x6 px"),
        ("damaged", r"0009\.png: "),
        ("nothing", "none of the 1 images has an object"),
    ],
)
def test_faulty_sources_are_refused(tmp_path: Path, what: str, message: str) -> None:
    write(tmp_path, "a", CELLS)
    spoil(tmp_path, what)
    with pytest.raises(LayoutError, match=message):
        recognise(tmp_path, ImportOptions())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (ImportOptions(ignore=3), "--ignore is not supported for mask files with one object each"),
        (ImportOptions(colours={(255, 0, 0): 1}), "--colour"),
        (ImportOptions(labels="boundaries"), "--labels boundaries: this source lists objects one by one"),
        (
            ImportOptions(names={2: "nucleus"}),
            "--class 2: there is no such class; the classes are 0 background, 1 object",
        ),
    ],
)
def test_unsupported_options_are_refused(tmp_path: Path, options: ImportOptions, message: str) -> None:
    write(tmp_path, "a", CELLS)
    with pytest.raises(LayoutError, match=message):
        recognise(tmp_path, options)


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ("image", r"b\.png has no folder of masks; if the image holds no object, add an empty folder"),
        ("masks", "has no image with the same name"),
    ],
)
def test_flat_files_without_partner(tmp_path: Path, extra: str, message: str) -> None:
    write(tmp_path, "a", CELLS, flat=True)
    if extra == "image":
        imagefiles.write_png(tmp_path / "images" / "b.png", CELLS)
    else:
        (tmp_path / "masks" / "b").mkdir()
    with pytest.raises(LayoutError, match=message):
        recognise(tmp_path, ImportOptions())


@pytest.mark.parametrize("flat", [True, False])
def test_images_without_masks_as_background(tmp_path: Path, flat: bool) -> None:
    write(tmp_path, "a", CELLS, flat=flat)
    imagefiles.write_png(tmp_path / ("images/b.png" if flat else "b/images/b.png"), CELLS)
    layout = recognise(tmp_path, ImportOptions(missing_as_background=True))
    assert layout is not None and set(layout.images) == {"a", "b"}
    assert layout.instances["a"].read().any() and not layout.instances["b"].read().any()
    assert "1 image(s) without labels are background only (--missing-as-background)" in layout.reasons


def test_only_the_first_errors_are_listed(tmp_path: Path) -> None:
    for stem in "abcdefg":
        write(tmp_path, stem, CELLS)
        spoil_one = tmp_path / stem / "masks" / "0009.png"
        imagefiles.write_png(spoil_one, np.zeros_like(CELLS))
    with pytest.raises(LayoutError) as caught:
        recognise(tmp_path, ImportOptions())
    assert str(caught.value).splitlines()[5:] == ["... and 2 more errors like these"]


def test_real_nuclei_are_imported_exactly(tmp_path: Path, shared_data: Callable[[str], Path]) -> None:
    whole = {}
    for mask in sorted((shared_data("dsb2018") / "masks").iterdir())[:6]:
        whole[mask.stem] = labels.renumber(imagefiles.read_labels(mask))[0]
        write(tmp_path, mask.stem, whole[mask.stem])
    layout = recognise(tmp_path, ImportOptions())
    assert layout is not None
    for stem, expected in whole.items():
        np.testing.assert_array_equal(layout.instances[stem].read(), expected)
