"""Compare windows of OME-Zarr images with the arrays that zarr wrote."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import zarr

from segline.data import omezarr
from segline.data.sources import open_image
from segline.files import FileError

HEIGHT, WIDTH = 75, 101
RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (HEIGHT, WIDTH), np.uint8)
RGB = RNG.integers(0, 256, (3, HEIGHT, WIDTH), np.uint8)
FORMS: dict[str, tuple[str, npt.NDArray[Any], dict[str, Any]]] = {
    "plain": ("yx", GREY, {"chunks": (16, 32)}),
    "channels, each its own chunks": ("cyx", RGB, {"chunks": (1, 16, 32)}),
    "channels, two to a chunk": ("cyx", RGB, {"chunks": (2, 40, 32)}),
    "all axes": ("tczyx", RGB[np.newaxis, :, np.newaxis], {"chunks": (1, 1, 1, 64, 64)}),
    "z before c": ("zcyx", RGB[np.newaxis], {"chunks": (1, 3, 64, 64)}),
    "one chunk": ("yx", GREY, {"chunks": (HEIGHT, WIDTH)}),
    "not compressed": ("yx", GREY.astype("uint16") * 200, {"chunks": (16, 16), "compressors": None}),
    "big endian": ("yx", (GREY.astype(np.uint16) * 200).astype(">u2"), {"chunks": (16, 16)}),
    "float64": ("yx", GREY / 3, {"chunks": (16, 16)}),
    "bits": ("yx", GREY > 100, {"chunks": (16, 16)}),
    "signed": ("yx", GREY.astype(np.int16) - 100, {"chunks": (16, 16)}),
}


def make(path: Path, form: int, axes: str, pixels: npt.NDArray[Any], options: dict[str, Any]) -> Path:
    group = zarr.create_group(path, zarr_format=form)
    if form == 2:
        options = options | {"chunk_key_encoding": {"name": "v2", "separator": "/"}}
    group.create_array("0", shape=pixels.shape, dtype=pixels.dtype, fill_value=0, **options)[:] = pixels
    metadata = {"axes": [{"name": name} for name in axes], "datasets": [{"path": "0"}]}
    group.attrs.update(
        {"multiscales": [metadata]} if form == 2 else {"ome": {"version": "0.5", "multiscales": [metadata]}}
    )
    return path


def boxes() -> list[tuple[slice, slice]]:
    corners = [(0, HEIGHT, 0, WIDTH), (0, 1, 0, 1), (HEIGHT - 1, HEIGHT, WIDTH - 1, WIDTH), (6, 8, 31, 33)]
    for _ in range(6):
        (a, b), (c, d) = np.sort(RNG.choice(HEIGHT + 1, 2, False)), np.sort(RNG.choice(WIDTH + 1, 2, False))
        corners.append((int(a), int(b), int(c), int(d)))
    return [(slice(a, b), slice(c, d)) for a, b, c, d in corners]


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("form", [2, 3])
@pytest.mark.parametrize("kept", [0, omezarr.KEPT])
def test_windows_are_parts_of_the_image(
    name: str, form: int, kept: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(omezarr, "KEPT", kept)
    axes, pixels, options = FORMS[name]
    path = make(tmp_path / "a.zarr", form, axes, pixels, options)
    whole = np.moveaxis(pixels.reshape(-1, HEIGHT, WIDTH), 0, -1)
    dtype = {"b": "uint8", "u": pixels.dtype.name}.get(pixels.dtype.kind, "float32")
    whole = whole.astype(dtype) * np.array(255 if pixels.dtype.kind == "b" else 1, dtype)
    with open_image(path) as image:
        assert (image.height, image.width) == (HEIGHT, WIDTH)
        for rows, columns in boxes():
            part = image.read(rows, columns)
            assert part.dtype == dtype
            assert np.array_equal(part, whole[rows, columns])


def test_shards_are_read(tmp_path: Path) -> None:
    path = make(tmp_path / "a.zarr", 3, "yx", GREY, {"chunks": (16, 16), "shards": (64, 64)})
    with open_image(path) as image:
        assert np.array_equal(image.read(slice(5, 70), slice(9, 90))[..., 0], GREY[5:70, 9:90])


@pytest.mark.parametrize("form", [2, 3])
def test_a_missing_chunk_has_the_fill_value(form: int, tmp_path: Path) -> None:
    path = make(tmp_path / "a.zarr", form, "yx", GREY, {"chunks": (16, 32)})
    (path / "0" / ("1/2" if form == 2 else "c/1/2")).unlink()
    expected = GREY.copy()
    expected[16:32, 64:96] = 0
    with open_image(path) as image:
        assert np.array_equal(image.read(slice(0, HEIGHT), slice(0, WIDTH))[..., 0], expected)


@pytest.mark.parametrize("form", [2, 3])
def test_a_damaged_chunk_is_named(form: int, tmp_path: Path) -> None:
    path = make(tmp_path / "a.zarr", form, "yx", GREY, {"chunks": (16, 32)})
    (path / "0" / ("1/2" if form == 2 else "c/1/2")).write_bytes(b"no chunk")
    with open_image(path) as image:
        image.read(slice(0, 16), slice(0, WIDTH))
        with pytest.raises(FileError, match=r"a\.zarr: chunk \(0, 1, 2\) .*not a readable OME-Zarr"):
            image.read(slice(0, HEIGHT), slice(0, WIDTH))


REFUSED: dict[str, tuple[str, npt.NDArray[Any]]] = {
    "axis z has a length of 3, but only 1 is supported; save": ("zyx", RGB),
    "axis t has a length of 3, but only 1 is supported; save": ("tyx", RGB),
    r"the metadata declare 3 axes \(c, y, x\), but the array has 2 axes; convert": ("cyx", GREY),
    "pixels of type complex64": ("yx", GREY.astype(np.complex64)),
    "axis c is empty": ("cyx", RGB[:0]),
    "2000 channels": ("cyx", np.zeros((2000, 2, 2), np.uint8)),
}


@pytest.mark.parametrize("message", REFUSED)
def test_unsupported_arrays_are_refused(message: str, tmp_path: Path) -> None:
    axes, pixels = REFUSED[message]
    path = make(tmp_path / "a.zarr", 3, axes, pixels, {"chunks": tuple(max(1, n) for n in pixels.shape)})
    with pytest.raises(FileError, match=rf"a\.zarr: .*{message}"):
        open_image(path).__enter__()


def test_damaged_arrays_are_refused(tmp_path: Path) -> None:
    path = make(tmp_path / "a.zarr", 2, "yx", GREY, {"chunks": (16, 32)})
    metadata = json.loads((path / "0" / ".zarray").read_text())
    (path / "0" / ".zarray").write_text(json.dumps(metadata | {"shape": [10**6, 10**6], "chunks": [10**6, 10**6]}))
    with pytest.raises(FileError, match=r"a chunk has 931.3 GiB; write smaller chunks"):
        open_image(path).__enter__()
    (path / "0" / ".zarray").write_text("{")
    with pytest.raises(FileError, match=r"a\.zarr: not a readable OME-Zarr"):
        open_image(path).__enter__()
    (path / "0").rename(path / "1")
    with pytest.raises(FileError, match=r"a\.zarr: the array '0' \(level 0\) is missing"):
        open_image(path).__enter__()
