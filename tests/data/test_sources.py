"""Compare windows of image files with the whole image of `read_image` and tifffile."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tifffile

from segline.data import sources
from segline.data.imagefiles import read_image, write_png
from segline.data.sources import open_image
from segline.files import FileError

HEIGHT, WIDTH = 75, 101
RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (HEIGHT, WIDTH), np.uint8)
RGB = RNG.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
FORMS: dict[str, tuple[npt.NDArray[Any], dict[str, Any]]] = {
    "one strip": (GREY, {}),
    "one strip, 16 bits, big endian": (GREY.astype(np.uint16) * 200, {"byteorder": ">"}),
    "one strip, rgb": (RGB, {}),
    "one strip, planes": (np.moveaxis(RGB, 2, 0), {"planarconfig": "separate", "photometric": "rgb"}),
    "strips": (GREY, {"rowsperstrip": 7, "compression": "zlib"}),
    "strips, not compressed": (GREY, {"rowsperstrip": 7}),
    "strips, predictor": (RGB, {"rowsperstrip": 7, "compression": "lzw", "predictor": True}),
    "tiles": (GREY, {"tile": (16, 32)}),
    "tiles, deflate": (RGB, {"tile": (32, 16), "compression": "zlib"}),
    "tiles, planes": (np.moveaxis(RGB, 2, 0), {"tile": (16, 16), "planarconfig": "separate", "photometric": "rgb"}),
    "tiles, jpeg": (RGB, {"tile": (32, 32), "compression": "jpeg"}),
    "tiles, float": (GREY / np.float32(7), {"tile": (16, 16), "compression": "zlib", "predictor": True}),
    "bits": (GREY > 100, {"rowsperstrip": 9}),
    "float64": (GREY / 3, {}),
    "palette": (GREY, {"photometric": "palette", "colormap": RNG.integers(0, 2**16, (3, 256), np.uint16)}),
    "pages that are channels": (np.moveaxis(RGB, 2, 0), {"metadata": {"axes": "CYX"}, "photometric": "minisblack"}),
    "alpha": (np.dstack([RGB, np.full_like(GREY, 255)]), {"extrasamples": ["unassalpha"], "tile": (16, 16)}),
}


def boxes() -> list[tuple[slice, slice]]:
    corners = [(0, HEIGHT, 0, WIDTH), (0, 1, 0, 1), (HEIGHT - 1, HEIGHT, WIDTH - 1, WIDTH), (6, 8, 31, 33)]
    for _ in range(10):
        (a, b), (c, d) = np.sort(RNG.choice(HEIGHT + 1, 2, False)), np.sort(RNG.choice(WIDTH + 1, 2, False))
        corners.append((int(a), int(b), int(c), int(d)))
    return [(slice(a, b), slice(c, d)) for a, b, c, d in corners]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kept", [0, sources.KEPT])
def test_windows_are_parts_of_the_image(form: str, kept: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "KEPT", kept)
    pixels, options = FORMS[form]
    tifffile.imwrite(tmp_path / "a.tif", pixels, **options)
    whole = read_image(tmp_path / "a.tif")
    monkeypatch.setattr(sources.TiffImage, "_decode", lambda _: pytest.fail("the whole image was read"))
    with open_image(tmp_path / "a.tif") as image:
        assert (image.height, image.width) == whole.shape[:2]
        for rows, columns in boxes():
            part = image.read(rows, columns)
            assert part.dtype == whole.dtype
            assert np.array_equal(part, whole[rows, columns])


def test_png_and_large_strips_are_decoded_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_png(tmp_path / "a.png", RGB)
    tifffile.imwrite(tmp_path / "a.tif", GREY, compression="zlib", rowsperstrip=HEIGHT)
    monkeypatch.setattr(sources, "SEGMENT", 1000)
    for name, whole in (("a.png", RGB), ("a.tif", GREY[..., np.newaxis])):
        with open_image(tmp_path / name) as image:
            for rows, columns in boxes():
                assert np.array_equal(image.read(rows, columns), whole[rows, columns])


def test_a_tiff_larger_than_the_limit_is_read_by_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segline.model.headers.LARGEST", GREY.size - 1)
    tifffile.imwrite(tmp_path / "a.tif", GREY, tile=(16, 16))
    with pytest.raises(FileError, match="cut the image"):
        read_image(tmp_path / "a.tif")
    with open_image(tmp_path / "a.tif") as image:
        assert np.array_equal(image.read(slice(3, 40), slice(5, 9))[..., 0], GREY[3:40, 5:9])


def test_missing_and_damaged_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"no\.tif: cannot be read"), open_image(tmp_path / "no.tif"):
        pass
    (tmp_path / "a.tif").write_text("hello")
    with pytest.raises(FileError, match=r"a\.tif: not a readable"), open_image(tmp_path / "a.tif"):
        pass
    tifffile.imwrite(tmp_path / "b.tif", GREY, tile=(16, 16), compression="zlib")
    data = bytearray((tmp_path / "b.tif").read_bytes())
    with tifffile.TiffFile(tmp_path / "b.tif") as file:
        data[file.pages.first.dataoffsets[3] + 4] ^= 0xFF
    (tmp_path / "b.tif").write_bytes(data)
    with pytest.raises(FileError, match=r"b\.tif: not a readable TIFF"), open_image(tmp_path / "b.tif") as image:
        image.read(slice(0, HEIGHT), slice(0, WIDTH))


def test_an_error_of_the_caller_is_passed_on(tmp_path: Path) -> None:
    """A full disk while results are written is not a problem of the image."""
    write_png(tmp_path / "a.png", GREY)
    with pytest.raises(OSError, match="No space left"), open_image(tmp_path / "a.png"):
        raise OSError(28, "No space left on device")
