from pathlib import Path

import numpy as np
import pytest
import tifffile

from segline.data import writers
from segline.data.georeference import Tag
from segline.data.imagefiles import read_image


@pytest.mark.parametrize("shape", [(700, 1100), (2, 513, 40), (3, 20, 30)])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32", "float32"])
@pytest.mark.parametrize("big", [False, True])
def test_tifffile_reads_written_pixels_and_tags(
    shape: tuple[int, ...], dtype: str, big: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writers, "CLASSIC", 0 if big else 2**31)
    pixels = np.random.default_rng(0).integers(0, 250, shape).astype(dtype)
    scale = (0.5, 0.5, 0.0)
    georeference = [Tag(33550, 12, 3, scale)]
    layer = writers.Layer(lambda rows: pixels[..., rows, :], shape, dtype)
    writers.write_tiled(tmp_path / "a.tif", layer, georeference)
    assert [file.name for file in tmp_path.iterdir()] == ["a.tif"]
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        assert (len(file.pages), file.is_bigtiff) == (1, big)
        page = file.pages.first
        assert (page.tilelength, page.tilewidth, page.compression) == (512, 512, tifffile.COMPRESSION.ADOBE_DEFLATE)
        assert page.tags[33550].value == scale
        assert page.dtype == dtype
        assert np.array_equal(page.asarray(), pixels)
    channels_last = np.moveaxis(pixels, 0, -1) if len(shape) == 3 else pixels[..., np.newaxis]
    assert np.array_equal(read_image(tmp_path / "a.tif"), channels_last)


def test_a_stopped_write_leaves_nothing(tmp_path: Path) -> None:
    def rows(part: slice) -> np.ndarray:
        if part.start > 0:
            raise KeyboardInterrupt
        return np.zeros((512, 600), np.uint8)

    with pytest.raises(KeyboardInterrupt):
        writers.write_tiled(tmp_path / "a.tif", writers.Layer(rows, (1200, 600), "uint8"), [])
    assert list(tmp_path.iterdir()) == []
