"""Test which format each answer is written in, and overlays of answers in memory and out-of-core."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import tifffile

from segline.data import writers
from segline.data.imagefiles import read_image, read_labels, write_png
from segline.data.sources import open_image
from segline.model.images import ImageError, encode_png
from segline.score.overlay import overlay

PIXELS = np.random.default_rng(0).integers(0, 256, (60, 80), np.uint8)
LABELS = (PIXELS > 100).astype(np.uint8)


class Fixed:
    """An answer of fixed labels, which are its instances as well."""

    has_instances, count = True, 1

    def __init__(self, labels: npt.NDArray[np.uint8], in_memory: bool) -> None:
        self._labels, self._in_memory = labels, in_memory

    def labels(self, rows: slice) -> npt.NDArray[np.uint8]:
        return self._labels[rows]

    def instances(self, rows: slice) -> npt.NDArray[np.int32]:
        return self._labels[rows].astype(np.int32)

    def probabilities(self, rows: slice) -> npt.NDArray[np.float32]:
        return np.stack([1 - self._labels[rows], self._labels[rows]]).astype(np.float32)

    def encoded(self, kind: str) -> bytes | None:
        return encode_png(self._labels) if self._in_memory and kind == "labels" else None


def plain(folder: Path) -> Path:
    write_png(folder / "a.png", PIXELS)
    return folder / "a.png"


def georeferenced(folder: Path) -> Path:
    tifffile.imwrite(folder / "a.tif", PIXELS, metadata=None, extratags=[(33550, "d", 3, (0.5, 0.5, 0.0), True)])
    return folder / "a.tif"


@pytest.mark.parametrize(
    ("make", "in_memory", "suffix", "tiled"),
    [
        (plain, True, ".png", False),
        (plain, False, ".tif", True),
        (georeferenced, True, ".tif", False),
        (georeferenced, False, ".tif", True),
    ],
)
def test_the_format_suits_image_and_answer(
    make: Callable[[Path], Path], in_memory: bool, suffix: str, tiled: bool, tmp_path: Path
) -> None:
    with open_image(make(tmp_path)) as image:
        path = writers.write(tmp_path / "out" / "b.c", "labels", Fixed(LABELS, in_memory), image)
    assert path.name == f"b.c{suffix}"
    assert np.array_equal(read_labels(path), LABELS)
    if suffix == ".png":
        assert path.read_bytes() == encode_png(LABELS)
        return
    with tifffile.TiffFile(path) as file:
        assert file.pages.first.is_tiled == tiled
        assert (33550 in file.pages.first.tags) == (make is georeferenced)


@pytest.mark.parametrize(("in_memory", "shape"), [(True, (60, 80, 3)), (False, (20, 26, 3))])
def test_only_overlays_of_out_of_core_answers_are_reduced(
    in_memory: bool, shape: tuple[int, int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writers, "OVERLAY", 30)
    with open_image(plain(tmp_path)) as image:
        path = writers.write(tmp_path / "b_overlay", "overlays", Fixed(LABELS, in_memory), image)
    assert read_image(path).shape == shape
    if in_memory:
        assert np.array_equal(read_image(path), overlay(PIXELS[..., np.newaxis], LABELS, objects=LABELS))


def test_an_answer_of_another_size_has_no_overlay(tmp_path: Path) -> None:
    with open_image(plain(tmp_path)) as image, pytest.raises(ImageError, match="which ignores orientation tags"):
        writers.picture(image, Fixed(LABELS.T, True))
