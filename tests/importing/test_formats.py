"""Recognition of layouts, judged by sources of one layout each."""

from pathlib import Path

import numpy as np
import pytest
import tifffile

from segline import files
from segline.data import imagefiles
from segline.importing.formats import LAYOUTS, recognise
from segline.importing.layout import ImportOptions, LayoutError

MASK = np.kron(np.eye(3, dtype=np.uint8), np.ones((4, 4), np.uint8))


def write(folder: Path, *names: str) -> None:
    for index, name in enumerate(names):
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.suffix == ".tif":
            tifffile.imwrite(file, np.stack([MASK] * 5), photometric="minisblack")
        elif file.suffix == ".json":
            files.write_json(file, LABELME if index else COCO)
        else:
            imagefiles.write_png(file, MASK)


COCO = {
    "images": [{"id": 1, "file_name": "a.png", "height": 12, "width": 12}],
    "categories": [{"id": 1, "name": "cell"}],
    "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "iscrowd": 0, "segmentation": [[1, 1, 9, 1, 9, 9]]}],
}
LABELME = {
    "imagePath": "a.png",
    "imageHeight": 12,
    "imageWidth": 12,
    "shapes": [{"label": "cell", "shape_type": "polygon", "points": [[1, 1], [9, 1], [9, 9]]}],
}


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (("images/a.png", "masks/a.png"), "images from images/, masks from masks/, paired by stem"),
        (("a.png", "a_mask.png"), "images from the folder itself, masks beside the images"),
        (("a/images/a.png", "a/masks/1.png", "b/images/b.png", "b/masks/1.png"), "one mask file per object"),
        (("images/a.png", "masks/a/1.png"), "one mask file per object"),
        (("labels.json", "images/a.png"), "COCO annotations of labels.json"),
        (("a.png", "a.json"), "LabelMe"),
        (("train-volume.tif", "train-labels.tif"), "stack train-volume.tif with labels train-labels.tif"),
    ],
)
def test_each_layout_is_recognised(tmp_path: Path, names: tuple[str, ...], reason: str) -> None:
    write(tmp_path, *names)
    assert recognise(tmp_path, ImportOptions()).reasons[0].startswith(reason)
    taken = [ask.__module__.rpartition(".")[2] for ask in LAYOUTS if _fits(ask, tmp_path)]
    assert len(taken) == 1, "a source of one layout is no other layout"


def _fits(ask, source: Path) -> bool:  # type: ignore[no-untyped-def]
    try:
        return ask(source, ImportOptions(), map) is not None
    except LayoutError:
        return False


def test_patterns_select_the_files(tmp_path: Path) -> None:
    write(tmp_path, "labels.json", "images/a.png", "masks/a.png")
    assert recognise(tmp_path, ImportOptions()).reasons[0].startswith("COCO")
    assert recognise(tmp_path, ImportOptions(masks="masks/*")).reasons[0].startswith("images images/*, masks masks/*")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            (),
            (
                r"is an empty folder; the source fits none of these layouts:\n.*images/ and masks/"
                r"(.|\n)*--images 'raw/\*_img\.tif'"
            ),
        ),
        (("things/deep/a.png", "b.png"), "holds b.png, things/; the source fits none of these layouts"),
        (("images/a.png", "masks/a.png", "dataset.yaml"), "is already a dataset folder"),
    ],
)
def test_nothing_fits(tmp_path: Path, names: tuple[str, ...], message: str) -> None:
    write(tmp_path, *names)
    with pytest.raises(LayoutError, match=message):
        recognise(tmp_path, ImportOptions())


def test_single_files(tmp_path: Path) -> None:
    write(tmp_path, "a-volume.tif", "a-labels.tif", "b.png")
    assert len(recognise(tmp_path / "a-volume.tif", ImportOptions()).images) == 5
    with pytest.raises(LayoutError, match=r"b\.png is a single file, but neither a multi-page TIFF nor COCO JSON"):
        recognise(tmp_path / "b.png", ImportOptions())
    with pytest.raises(LayoutError, match="gone does not exist"):
        recognise(tmp_path / "gone", ImportOptions())
