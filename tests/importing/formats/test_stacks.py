"""Stacks of images and of labels, judged by the pages that were written into them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile

from segline.data import imagefiles
from segline.data.dataset import IGNORE, Dataset
from segline.importing import bring
from segline.importing.formats.stacks import recognise
from segline.importing.layout import ImportOptions, Layout, LayoutError


def volume(pages: int, side: int = 20) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (pages, side, side), np.uint8)


def areas(pages: int, side: int = 20) -> np.ndarray:
    """Three classes, other on every page."""
    found = np.zeros((pages, side, side), np.uint8)
    for page in range(pages):
        found[page, page % 5 :, 3:9], found[page, 4:8, 4 + page % 5 : 15] = 1, 2
    return found


def save(file: Path, array: np.ndarray, **how: object) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(file, array, photometric="minisblack", **how)  # type: ignore[arg-type]


def found(source: Path, **options: object) -> Layout:
    layout = recognise(source, ImportOptions(**options))  # type: ignore[arg-type]
    assert layout is not None
    return layout


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("train-volume.tif", "train-labels.tif"),
        ("volume.tif", "labels.tiff"),
        ("stack.tif", "gt.tif"),
        ("em.tif", "em_mask.tif"),
        ("EM Image.tif", "EM Ground Truth.tif"),
        ("images/em.tif", "masks/em.tif"),
        ("images/em-volume.tif", "labels/em-labels.tif"),
        ("image/one.tif", "mask/other.tif"),
    ],
)
def test_pages_are_paired_by_number(tmp_path: Path, image: str, label: str) -> None:
    save(tmp_path / image, volume(12))
    save(tmp_path / label, areas(12))
    layout = found(tmp_path)
    stem = Path(image).stem
    assert list(layout.images) == [f"{stem}_{page:02}" for page in range(12)]
    assert [(one.file, one.page) for one in layout.images.values()] == [(tmp_path / image, page) for page in range(12)]
    for page, mask in enumerate(layout.classes.values()):
        np.testing.assert_array_equal(mask.read(), areas(12)[page])
    assert layout.labels == "classes"
    assert f"stack {Path(image).name} with labels {Path(label).name}, paired page by page: 12 pages" in layout.reasons
    assert layout.groups is not None
    assert layout.groups[f"{stem}_03"] == f"{stem}_02-03"
    if Path(image).parent == Path():
        assert list(found(tmp_path / image).images) == list(layout.images)


def test_imported_it_reads_the_same(tmp_path: Path) -> None:
    save(tmp_path / "em" / "volume.tif", volume(6))
    save(tmp_path / "em" / "labels.tif", areas(6))
    dataset = Dataset.open(bring.bring(tmp_path / "em", "em", raw=tmp_path / "raw").folder)
    for page, stem in enumerate(dataset.stems):
        np.testing.assert_array_equal(dataset.image(stem)[..., 0], volume(6)[page])
        np.testing.assert_array_equal(dataset.truth(stem)[0], areas(6)[page])
    assert set(dataset.groups.values()) == {"volume_0-1", "volume_2-3", "volume_4-5"}


def test_several_stacks_are_groups(tmp_path: Path) -> None:
    for name in "abc":
        save(tmp_path / "images" / f"{name}.tif", volume(3))
        save(tmp_path / "masks" / f"{name}.tif", areas(3))
    layout = found(tmp_path)
    assert layout.groups is not None
    assert {stem: layout.groups[stem] for stem in ("a_0", "b_2")} == {"a_0": "a", "b_2": "b"}
    assert any("and 2 more pairs of stacks, paired page by page: 9 pages" in reason for reason in layout.reasons)


def test_a_stack_without_labels_is_left_out(tmp_path: Path) -> None:
    save(tmp_path / "train-volume.tif", volume(4))
    save(tmp_path / "train-labels.tif", areas(4))
    save(tmp_path / "test-volume.tif", volume(6))
    layout = found(tmp_path)
    assert len(layout.images) == 4
    assert "stacks without labels are left out: test-volume.tif" in layout.reasons


def test_labels_without_stack(tmp_path: Path) -> None:
    for name in ("a-volume.tif", "a-labels.tif", "b-labels.tif"):
        save(tmp_path / name, areas(4))
    with pytest.raises(LayoutError, match=r"b-labels\.tif has no stack of images with a matching name"):
        recognise(tmp_path, ImportOptions())
    assert len(found(tmp_path, skip_unpaired=True).images) == 4


def test_two_stacks_of_one_stem(tmp_path: Path) -> None:
    for name in ("images/a.tif", "images/a.tiff", "masks/a.tif"):
        save(tmp_path / name, areas(4))
    with pytest.raises(LayoutError, match=r"a\.tiff and another stack have the same stem"):
        recognise(tmp_path, ImportOptions())


def test_options_are_applied(tmp_path: Path) -> None:
    save(tmp_path / "volume.tif", volume(4))
    save(tmp_path / "labels.tif", areas(4))
    layout = found(tmp_path, ignore=2, names={1: "fibre"})
    assert (layout.class_of or {})[2] == IGNORE
    assert layout.names[1] == "fibre"
    assert found(tmp_path, labels="instances", threshold=1.5).label_components


def test_channels_are_not_pages(tmp_path: Path) -> None:
    save(tmp_path / "volume.tif", np.stack([volume(4)] * 2, axis=1), imagej=True, metadata={"axes": "ZCYX"})
    save(tmp_path / "labels.tif", areas(4))
    layout = found(tmp_path)
    assert len(layout.images) == 4
    assert imagefiles.read_page(tmp_path / "volume.tif", 3).shape == (20, 20, 2)


def test_other_layouts_are_left_to_others(tmp_path: Path) -> None:
    assert recognise(tmp_path, ImportOptions()) is None
    assert recognise(tmp_path / "gone", ImportOptions()) is None
    for name in "ab":
        save(tmp_path / "images" / f"{name}.tif", volume(1)[0])
        save(tmp_path / "masks" / f"{name}.tif", areas(1)[0])
    save(tmp_path / "c.tif", volume(1)[0])
    save(tmp_path / "c_mask.tif", areas(1)[0])
    assert recognise(tmp_path, ImportOptions()) is None
    assert recognise(tmp_path / "c.tif", ImportOptions()) is None


@pytest.mark.parametrize(
    ("image", "label", "message"),
    [
        (
            volume(4),
            areas(3),
            r"volume\.tif has 4 page.s., but its labels .*labels\.tif have 3 page.s.\. Page n",
        ),
        (volume(4, side=24), areas(4), r"pages of 24x24 px, but its labels .* 20x20"),
    ],
)
def test_stacks_that_do_not_fit(tmp_path: Path, image: np.ndarray, label: np.ndarray, message: str) -> None:
    save(tmp_path / "volume.tif", image)
    save(tmp_path / "labels.tif", label)
    with pytest.raises(LayoutError, match=message):
        recognise(tmp_path, ImportOptions())


def test_stacks_that_cannot_be_paired(tmp_path: Path) -> None:
    save(tmp_path / "a.tif", volume(4))
    with pytest.raises(
        LayoutError,
        match=r"has 4 pages, but no file with its labels is in the same folder; put the labels there, for example as "
        r"a-labels\.tif",
    ):
        recognise(tmp_path / "a.tif", ImportOptions())
    save(tmp_path / "b.tif", volume(4))
    save(tmp_path / "c-labels.tif", areas(4))
    with pytest.raises(LayoutError, match="their names do not tell which files belong together"):
        recognise(tmp_path, ImportOptions())


def test_colours_are_refused(tmp_path: Path) -> None:
    save(tmp_path / "volume.tif", volume(4))
    save(tmp_path / "labels.tif", areas(4))
    with pytest.raises(LayoutError, match="--colour"):
        recognise(tmp_path, ImportOptions(colours={(255, 0, 0): 1}))


def test_real_slices_are_imported_exactly(tmp_path: Path, shared_data: Callable[[str], Path]) -> None:
    source = shared_data("isbi2012")
    images, masks = (sorted((source / kind).iterdir())[:9] for kind in ("images", "masks"))
    save(tmp_path / "train-volume.tif", np.stack([imagefiles.read_image(file)[..., 0] for file in images]))
    save(tmp_path / "train-labels.tif", np.stack([imagefiles.read_labels(file) for file in masks]))
    layout = found(tmp_path)
    assert layout.labels == "boundaries"
    for page, (image, mask) in enumerate(zip(images, masks, strict=True)):
        picture = layout.images[f"train-volume_{page}"]
        assert picture.page == page
        np.testing.assert_array_equal(imagefiles.read_page(picture.file, page), imagefiles.read_image(image))
        np.testing.assert_array_equal(layout.classes[f"train-volume_{page}"].read(), imagefiles.read_labels(mask))
