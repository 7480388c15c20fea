"""Images and masks paired by name, judged by lists of pairs made by hand."""

from pathlib import Path

import pytest

from segline.importing.formats.pairs import by_pattern, in_one_folder, in_two_folders
from segline.importing.layout import ImportOptions, LayoutError


def paths(folder: str, names: str) -> list[Path]:
    return [Path(folder) / name for name in sorted(names.split())]


def names(found: dict[str, Path]) -> dict[str, str]:
    return {stem: file.name for stem, file in found.items()}


@pytest.mark.parametrize(
    ("images", "masks", "how"),
    [
        ("a.jpg b.png", "a.png b.png", "paired by stem"),
        ("a.ome.tif b.ome.tif", "a.png b.tif", "paired by stem"),
        ("gt_1.png gt_2.png", "gt_1.png gt_2.png", "paired by stem"),
        ("a.jpg b.jpg", "a_mask.png b_mask.png", "mask, label, seg or gt"),
        ("a.jpg b.jpg", "a-seg.png b.GT.png", "mask, label, seg or gt"),
        ("1.tif 2.tif", "label_1.png mask-2.png", "mask, label, seg or gt"),
        ("000_img.png 001_img.png", "000_masks.png 001_masks.png", "without words such as image, raw, mask"),
        ("a_raw.tif im_b.tif", "a_labels.tif seg_b.tif", "without words such as image, raw, mask"),
        ("000_img.png 001_img.png", "000_img_cp_masks.png 001_img_cp_masks.png", "mask, label, seg or gt"),
        ("21_training.tif 22_training.tif", "21_manual1.png 22_manual1.png", "the part in which the stems differ"),
        ("p-01_x.tif p-02_x.tif", "q_01-y.png q_02-y.png", "the part in which the stems differ"),
    ],
)
def test_two_folders(images: str, masks: str, how: str) -> None:
    found = in_two_folders(paths("i", images), paths("m", masks), ImportOptions())
    assert how in found.rule
    assert list(names(dict(found.images)).values()) == sorted(images.split())
    assert list(names(dict(found.masks)).values()) == masks.split()
    assert list(found.images) == list(found.masks) == [Path(name).stem for name in sorted(images.split())]


@pytest.mark.parametrize(
    ("images", "masks", "message"),
    [
        ("a.png b.png c.png", "a.png c.png", r"paired by stem; 1 of 3 images have no mask: b\.png\. .*--skip-unpaired"),
        ("a.png", "a.png z.png", r"1 of 2 masks have no image: z\.png"),
        ("a.png b.png", "a_mask.png c_mask.png", r"1 of 2 images have no mask: b\.png; 1 of 2 masks.*: c_mask\.png"),
        ("001.png 002.png", "101.png 102.png", "2 of 2 images have no mask"),
        ("a.png a.jpg", "a.png", r"a\.png and a\.jpg have the same name, a"),
        ("a.png", "a.png a.tif", r"a\.tif and a\.png have the same name, a"),
    ],
)
def test_two_folders_that_do_not_pair(images: str, masks: str, message: str) -> None:
    with pytest.raises(LayoutError, match=message):
        in_two_folders(paths("i", images), paths("m", masks), ImportOptions())


def test_skip_unpaired_leaves_out_single_files() -> None:
    found = in_two_folders(
        paths("i", "a.png b.png c.png"), paths("m", "a_gt.png d_gt.png"), ImportOptions(skip_unpaired=True)
    )
    assert (names(dict(found.images)), names(dict(found.masks))) == ({"a": "a.png"}, {"a": "a_gt.png"})
    assert found.rule.endswith(
        "2 of 3 images have no mask: b.png, c.png; 1 of 2 masks have no image: d_gt.png; files without a "
        "partner are left out"
    )
    with pytest.raises(LayoutError, match="1 of 1 images have no mask"):
        in_two_folders(paths("i", "a.png"), paths("m", "b.png"), ImportOptions(skip_unpaired=True))


def test_missing_as_background_keeps_images_without_mask() -> None:
    images, masks = paths("i", "a.png b.png c.png"), paths("m", "a_gt.png d_gt.png")
    background = ImportOptions(missing_as_background=True)
    found = in_two_folders(images, masks[:1], background)
    assert (list(found.images), names(dict(found.masks))) == (["a", "b", "c"], {"a": "a_gt.png"})
    assert found.rule.endswith(
        "2 of 3 images have no mask: b.png, c.png; they hold background only (--missing-as-background)"
    )
    with pytest.raises(LayoutError, match="1 of 2 masks have no image"):
        in_two_folders(images, masks, background)
    found = in_two_folders(images, masks, ImportOptions(missing_as_background=True, skip_unpaired=True))
    assert list(found.images) == ["a", "b", "c"] and list(found.masks) == ["a"]
    with pytest.raises(LayoutError, match="3 of 3 images have no mask"):
        in_two_folders(images, masks[1:], background)
    beside = in_one_folder(paths("i", "a.jpg a.png b.jpg"), background)
    assert beside is not None and (list(beside.images), list(beside.masks)) == (["a", "b"], ["a"])
    with pytest.raises(LayoutError, match=r"1 of 2 images have no mask: b\.jpg.*add --missing-as-background"):
        in_one_folder(paths("i", "a.jpg a.png b.jpg"), ImportOptions())


@pytest.mark.parametrize(
    ("files", "pairs"),
    [
        ("a.png a_mask.png b.png mask_b.png", {"a": "a_mask.png", "b": "mask_b.png"}),
        ("0_img.tif 0_masks.png 1_img.tif 1_masks.png", {"0_img": "0_masks.png", "1_img": "1_masks.png"}),
        ("gt_4_img.tif gt_4_masks.png", {"gt_4_img": "gt_4_masks.png"}),
        ("gt_1.png gt_1_label.png 2.png 2-seg.png", {"2": "2-seg.png", "gt_1": "gt_1_label.png"}),
        ("a.jpg a.png b.JPG b.tif", {"a": "a.png", "b": "b.tif"}),
    ],
)
def test_one_folder(files: str, pairs: dict[str, str]) -> None:
    found = in_one_folder(paths("i", files), ImportOptions())
    assert found is not None
    assert names(dict(found.masks)) == pairs
    assert list(found.images) == list(pairs)


def test_a_folder_without_masks() -> None:
    assert in_one_folder(paths("i", "a.png b.png c_mask.png"), ImportOptions()) is None
    assert in_one_folder(paths("i", "a.jpg b.jpg"), ImportOptions()) is None
    assert in_one_folder([], ImportOptions()) is None


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ("a.png a_mask.png b.png", r"1 of 2 images have no mask: b\.png"),
        ("a.png a_mask.png a_label.png", r"a_mask\.png and a_label\.png have the same name, a.*--masks '\*_mask\.png'"),
    ],
)
def test_one_folder_that_does_not_pair(files: str, message: str) -> None:
    with pytest.raises(LayoutError, match=message):
        in_one_folder(paths("i", files), ImportOptions())


TREE = paths(
    "s",
    "raw/a_img.tif raw/b_img.tif raw/note.png gt/a_seg.png gt/b_seg.png "
    "train/images/1.png train/masks/1.png test/images/1.png test/masks/1.png "
    "deep/a/images/x/y/2.png deep/a/images/3.png deep/a/masks/x/y/2.bmp deep/a/masks/3.bmp "
    "flat/p.tif flat/p_mask.tif flat/q.tif flat/q_mask.tif one.tif two.tif",
)


@pytest.mark.parametrize(
    ("images", "masks", "pairs"),
    [
        ("raw/*_img.tif", "gt/*_seg.png", {"a_img": "gt/a_seg.png", "b_img": "gt/b_seg.png"}),
        ("./raw/*_img.*", "gt/*_seg*", {"a_img": "gt/a_seg.png", "b_img": "gt/b_seg.png"}),
        ("train/images/*", "train/masks/*.*", {"1": "train/masks/1.png"}),
        ("*/images/*.png", "*/masks/*.png", {"test_1": "test/masks/1.png", "train_1": "train/masks/1.png"}),
        ("deep/a/images/**/*", "deep/a/masks/**/*", {"2": "deep/a/masks/x/y/2.bmp", "3": "deep/a/masks/3.bmp"}),
        ("deep/a/images/**", "deep/a/masks/**", {"2": "deep/a/masks/x/y/2.bmp", "3": "deep/a/masks/3.bmp"}),
        ("flat/*.tif", "flat/*_mask.tif", {"p": "flat/p_mask.tif", "q": "flat/q_mask.tif"}),
        ("flat/?.tif", "flat/?_mask.tif", None),
        ("one.tif", "two.tif", None),
    ],
)
def test_patterns(images: str, masks: str, pairs: dict[str, str] | None) -> None:
    if pairs is None:
        with pytest.raises(LayoutError, match="have no mask"):
            by_pattern(Path("s"), TREE, images, masks, ImportOptions())
        return
    found = by_pattern(Path("s"), TREE, images, masks, ImportOptions())
    assert {stem: file.relative_to("s").as_posix() for stem, file in found.masks.items()} == pairs
    assert f"images {images}, masks {masks}" in found.rule


def test_all_files_of_two_folders() -> None:
    found = by_pattern(Path("s"), [file for file in TREE if file.stem != "note"], "raw/*", "gt/*", ImportOptions())
    assert names(dict(found.masks)) == {"a_img": "a_seg.png", "b_img": "b_seg.png"}
    assert found.rule.startswith("images raw/*, masks gt/*, paired by stem, without words such as image, raw")


def test_a_pattern_that_is_a_folder(tmp_path: Path) -> None:
    files = [tmp_path / "raw" / "a.png", tmp_path / "gt" / "a.png"]
    for file in files:
        file.parent.mkdir()
        file.touch()
    assert names(dict(by_pattern(tmp_path, files, "raw", "gt/", ImportOptions()).masks)) == {"a": "a.png"}
    files[1] = files[1].rename(tmp_path / "gt" / "a_seg.png")
    assert names(dict(by_pattern(tmp_path, files, "raw", "gt/", ImportOptions()).masks)) == {"a": "a_seg.png"}


@pytest.mark.parametrize(
    ("images", "masks", "message"),
    [
        ("pictures/*", "gt/*_seg.png", r"--images 'pictures/\*' matches no file below s; files there: .*\(17 in all\)"),
        ("raw/*", "labels/*", r"--masks 'labels/\*' matches no file"),
        ("raw/*", "gt/*", "paired by stem, without words such as image, raw.*; 1 of 3 images have no mask: note.png"),
        ("*/images/1.png", "*/masks/*.png", "2 of 2 images have no mask: 1.png, 1.png; 2 of 2 masks"),
        (
            "raw/?_*.tif",
            "gt/*_seg.png",
            (
                r"'raw/\?_\*\.tif': \* matches the same text in s/raw/a_img\.tif and in s/raw/b_img\.tif, but must "
                r"match different text in each file; let \* cover the part in which these paths differ, or give a "
                r"pattern that matches only one of these files"
            ),
        ),
    ],
)
def test_patterns_that_do_not_pair(images: str, masks: str, message: str) -> None:
    with pytest.raises(LayoutError, match=message):
        by_pattern(Path("s"), TREE, images, masks, ImportOptions())


def test_jpeg_2000_files_are_images_where_nothing_is_jpeg() -> None:
    found = in_one_folder([Path("a.jp2"), Path("a.png"), Path("b.jp2"), Path("b.gif")], ImportOptions())
    assert found is not None
    assert found.images == {"a": Path("a.jp2"), "b": Path("b.jp2")}
    assert found.masks == {"a": Path("a.png"), "b": Path("b.gif")}
