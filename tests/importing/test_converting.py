"""Written images and masks, judged by reading them back and by the bytes of the source."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
from scipy import ndimage

from segline.data import imagefiles
from segline.importing.converting import write_classes, write_image, write_instances
from segline.importing.cutting import WHOLE
from segline.importing.layout import ImageSource, Layout, LayoutError, MaskSource


def layout(mask: np.ndarray, kind: str, **fields: object) -> Layout:
    masks = {"a": MaskSource(Path("a.png"), lambda: mask)}
    return Layout({}, "classes", {0: "background", 1: "cell"}, (), **{kind: masks}, **fields)  # type: ignore[arg-type]


def geotiff(file: Path) -> bytes:
    """A float TIFF of two channels with a place on earth."""
    tags = [(33550, "d", 3, (0.5, 0.5, 0.0), True), (33922, "d", 6, (0, 0, 0, 1000.0, 2000.0, 0), True)]
    pixels = np.random.default_rng(0).random((2, 6, 5), np.float32)
    tifffile.imwrite(file, pixels, planarconfig="separate", photometric="minisblack", extratags=tags)
    return file.read_bytes()


def test_a_file_is_copied_byte_for_byte(tmp_path: Path) -> None:
    source = tmp_path / "a.tif"
    before = geotiff(source)
    (tmp_path / "images").mkdir()
    assert not write_image(ImageSource(source), tmp_path / "images", {"other": WHOLE})
    assert (tmp_path / "images" / "other.tif").read_bytes() == before == source.read_bytes()
    source.write_bytes(b"changed")
    assert write_image(ImageSource(source), tmp_path / "images", {"other": WHOLE})
    assert (tmp_path / "images" / "other.tif").read_bytes() == before


@pytest.mark.parametrize(
    ("dtype", "channels", "suffix"),
    [
        (np.uint8, 1, ".png"),
        (np.uint16, 1, ".png"),
        (np.uint8, 3, ".png"),
        (np.float32, 1, ".tif"),
        (np.uint8, 5, ".tif"),
    ],
)
def test_a_page_becomes_a_separate_file(tmp_path: Path, dtype: type, channels: int, suffix: str) -> None:
    shape = (3, 7, 6) if channels == 1 else (3, channels, 7, 6) if channels > 3 else (3, 7, 6, 3)
    stack = (np.random.default_rng(0).random(shape) * 200).astype(dtype)
    axes = {3: "ZYX", 4: "ZCYX" if channels > 3 else "ZYXS"}[stack.ndim]
    tifffile.imwrite(
        tmp_path / "s.tif",
        stack,
        photometric="rgb" if channels == 3 else "minisblack",
        metadata={"axes": axes},
        ome=True,
    )
    assert not write_image(ImageSource(tmp_path / "s.tif", 1), tmp_path, {"s_1": WHOLE})
    found = imagefiles.read_image(tmp_path / f"s_1{suffix}")
    wanted = stack[1] if channels == 3 else np.atleast_3d(stack[1]) if channels == 1 else np.moveaxis(stack[1], 0, -1)
    np.testing.assert_array_equal(found, wanted)
    assert found.dtype == dtype
    first = (tmp_path / f"s_1{suffix}").read_bytes()
    assert write_image(ImageSource(tmp_path / "s.tif", 2), tmp_path, {"s_1": WHOLE})
    (tmp_path / f"s_1{suffix}").unlink()
    write_image(ImageSource(tmp_path / "s.tif", 1), tmp_path, {"s_1": WHOLE})
    assert (tmp_path / f"s_1{suffix}").read_bytes() == first


def test_classes_by_table(tmp_path: Path) -> None:
    found = layout(np.array([[0, 200], [255, 9]]), "classes", class_of={0: 0, 200: 1, 255: 255, 9: 1})
    write_classes(found, tmp_path, "a", {"a": WHOLE})
    np.testing.assert_array_equal(imagefiles.read_labels(tmp_path / "a.png"), [[0, 1], [255, 1]])


@pytest.mark.parametrize("table", [{0: 0, 1: 1}, None])
def test_a_value_without_class_is_named(tmp_path: Path, table: dict[int, int] | None) -> None:
    found = layout(np.array([[0, 1, 7], [7, -3, 0]]), "classes", class_of=table)
    with pytest.raises(
        LayoutError, match=r"a\.png: 3 pixels have values without a class: -3, 7; the values with a class are 0, 1"
    ):
        write_classes(found, tmp_path, "a", {"a": WHOLE})
    assert list(tmp_path.iterdir()) == []


def test_instances(tmp_path: Path) -> None:
    ids = np.array([[0, 5, 5], [9, 0, 65535]])
    assert write_instances(layout(ids, "instances"), tmp_path, "a", {"a": WHOLE}) == 3
    found = imagefiles.read_labels(tmp_path / "a.png")
    np.testing.assert_array_equal(found, ids)
    assert found.dtype == np.uint16
    other = layout(ids * 0, "instances")
    assert write_instances(other, tmp_path, "a", {"a": WHOLE}) == 3  # it is there already, and is counted


def test_pieces_as_instances(tmp_path: Path) -> None:
    binary = (np.random.default_rng(0).random((20, 16)) > 0.6).astype(np.uint8) * 255
    assert (
        write_instances(layout(binary, "instances", label_components=True), tmp_path, "a", {"a": WHOLE})
        == ndimage.label(binary)[1]
    )


def test_large_ids_are_renumbered(tmp_path: Path) -> None:
    mask = np.zeros((20, 16), np.int32)
    mask[2, 3], mask[4, 5:7] = 70000, 2_000_000_000
    assert write_instances(layout(mask, "instances"), tmp_path, "a", {"a": WHOLE}) == 2
    found = imagefiles.read_labels(tmp_path / "a.png")
    assert (found[2, 3], found[4, 5], found[4, 6], found.max()) == (1, 2, 2, 2)


def test_too_many_instances(tmp_path: Path) -> None:
    mask = np.arange(1, 65_538, dtype=np.int32).reshape(1, -1)
    with pytest.raises(LayoutError, match="65537 instances, but an image may have 65535 at most"):
        write_instances(layout(mask, "instances"), tmp_path, "a", {"a": WHOLE})
