"""Pixels of mask files, judged by files that Pillow and tifffile wrote."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from segline.importing.formats.pixels import Look, colours, greys, look, numbers, translated
from segline.importing.layout import LayoutError

COLOURS = np.array([[0, 0, 0], [255, 0, 0], [0, 128, 255]], np.uint8)
PACKED = np.array([0x000000, 0xFF0000, 0x0080FF])
CLASSES = np.array([[0, 1, 2], [2, 2, 0]], np.uint8)


def palette_png(file: Path, indices: np.ndarray, palette: np.ndarray) -> Path:
    image = Image.fromarray(indices).convert("L")
    image.putpalette(palette.ravel().tolist())
    image.save(file)
    return file


def saved(file: Path, array: np.ndarray) -> Path:
    if file.suffix == ".tif":
        tifffile.imwrite(file, array)
    else:
        Image.fromarray(array).save(file)
    return file


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif"])
def test_colours(tmp_path: Path, suffix: str) -> None:
    file = saved(tmp_path / f"a{suffix}", COLOURS[CLASSES])
    np.testing.assert_array_equal(colours(file), PACKED[CLASSES])
    assert look(file) == Look(file, None, {0: 2, 0xFF0000: 1, 0x0080FF: 3})
    assert look(file).coloured
    with pytest.raises(LayoutError, match=r"4 pixels are in colour, such as #ff0000"):
        numbers(file)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif"])
def test_grey_stored_as_colours(tmp_path: Path, suffix: str) -> None:
    grey = np.array([[0, 7, 255]], np.uint8)
    file = saved(tmp_path / f"a{suffix}", np.stack([grey] * 3, axis=-1))
    assert not look(file).coloured
    np.testing.assert_array_equal(numbers(file), grey)
    np.testing.assert_array_equal(greys(file), grey)


def test_palette(tmp_path: Path) -> None:
    file = palette_png(tmp_path / "a.png", CLASSES, COLOURS)
    assert look(file) == Look(file, {0: 0, 1: 0xFF0000, 2: 0x0080FF}, {0: 2, 0xFF0000: 1, 0x0080FF: 3})
    np.testing.assert_array_equal(numbers(file), CLASSES)
    np.testing.assert_array_equal(colours(file), PACKED[CLASSES])
    with pytest.raises(LayoutError, match="in colour"):
        greys(file)
    white_first = palette_png(tmp_path / "b.png", CLASSES, np.array([[255] * 3, [0] * 3, [9] * 3], np.uint8))
    np.testing.assert_array_equal(greys(white_first), np.array([255, 0, 9])[CLASSES])


def test_transparent_is_black(tmp_path: Path) -> None:
    alpha = np.where(CLASSES == 2, 255, 0).astype(np.uint8)
    file = saved(tmp_path / "a.png", np.dstack([np.full((2, 3, 3), 200, np.uint8), alpha]))
    np.testing.assert_array_equal(numbers(file), np.where(CLASSES == 2, 200, 0))


@pytest.mark.parametrize("array", [CLASSES, CLASSES.astype(np.uint16) * 300, CLASSES > 0], ids=["8", "16", "1"])
def test_numbers(tmp_path: Path, array: np.ndarray) -> None:
    file = saved(tmp_path / "a.png", array)
    assert look(file) == Look(file)
    np.testing.assert_array_equal(numbers(file), array)


def test_numbers_among_colours(tmp_path: Path) -> None:
    np.testing.assert_array_equal(colours(saved(tmp_path / "a.png", CLASSES)), CLASSES.astype(int) * 0x010101)
    with pytest.raises(LayoutError, match="numbers up to 600, but other masks hold colours"):
        colours(saved(tmp_path / "b.png", CLASSES.astype(np.uint16) * 300))


def test_fractions_are_greys_only(tmp_path: Path) -> None:
    file = saved(tmp_path / "a.tif", CLASSES.astype(np.float32) / 4)
    np.testing.assert_array_equal(greys(file), CLASSES / 4)


def test_lossy_masks_are_refused(tmp_path: Path) -> None:
    file = saved(tmp_path / "a.jpg", CLASSES)
    with pytest.raises(LayoutError, match=r"a\.jpg: JPEG changes values.*--threshold 127"):
        look(file)
    assert greys(file).shape == (2, 3)


@pytest.mark.parametrize("offset", [0, 2**24])
def test_translated(offset: int) -> None:
    values = np.array([[3, 0], [7, 9]]) + offset
    table = {3 + offset: 1, 0 + offset: 0, 9 + offset: 255}
    found, known = translated(values, table)
    np.testing.assert_array_equal(found, np.array([[1, 0], [0, 255]], np.uint8))
    np.testing.assert_array_equal(known, [[True, True], [False, True]])
    assert found.dtype == np.uint8


@given(
    arrays(np.int64, (3, 4), elements=st.integers(-2, 300)),
    st.dictionaries(st.integers(0, 300), st.integers(0, 255), min_size=1),
)
def test_translation_equals_a_dict(values: np.ndarray, table: dict[int, int]) -> None:
    found, known = translated(values, table)
    assert known.ravel().tolist() == [value in table for value in values.ravel().tolist()]
    assert found.ravel().tolist() == [table.get(value, 0) for value in values.ravel().tolist()]
