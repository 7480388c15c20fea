"""Damaged image files must be read or refused, without a crash, a hang, another error, or more memory than documented.

This module runs as a script in a separate process with bounded memory: `test_reader_fuzz.py CASES SEED [NAME]`
reads the files and prints one line of JSON, or crashes.
"""

import faulthandler
import io
import json
import os
import resource
import struct
import subprocess
import sys
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from segline.data import labelfile
from segline.data.georeference import tags
from segline.model.images import ImageError, decode, decode_page, describe, header

ROOT = Path(__file__).parents[2]
MIB = 2**20
HANGS = 60  # seconds for one case
# Documented limits of segline.model.images: bytes of pixels for each byte of the file, by kind of `valid`.
EXPANSION = {
    "png": 1032 * 24,
    "jpg": 1400,
    "bmp": 32,
    "gif": 2560 * 4,
    "jp2": 32768 * 4,
    "j2k": 32768 * 4,
    "tif": 32,
    "packbits": 64 * 32,
    "lzw": 2560 * 32,
    "deflate": 1032 * 32,
    "zstd": 32768 * 32,
    "tifjpg": 1400 * 4,
}
EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
# Stacks are read page by page.
STACKS = ("tif stack", "tif imagej")


def pillow(image: Image.Image, form: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def tiff(array: np.ndarray, **options: object) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, array, **options)
    return stream.getvalue()


def valid() -> dict[str, tuple[str, bytes]]:
    """Make small files of many kinds, by name, with the key of their expansion."""
    rng = np.random.default_rng(0)
    smooth = np.clip(np.add.outer(np.arange(24), np.arange(20)) * 4 + rng.integers(0, 9, (24, 20)), 0, 255)
    grey = Image.fromarray(smooth.astype(np.uint8))
    rgb = Image.fromarray(np.stack([smooth, smooth[::-1], smooth[:, ::-1]], axis=-1).astype(np.uint8))
    rgba = Image.fromarray(np.dstack([np.array(rgb), np.full((24, 20), 255, np.uint8)]))
    exif = Image.Exif()
    exif[274], exif[282], exif[283] = 6, 72.0, 36.0
    xmp = b'<rdf:Description tiff:Orientation="5"/>'
    found = {
        "png grey": pillow(grey, "PNG"),
        "png 16": pillow(Image.fromarray(smooth.astype(np.uint16) * 256), "PNG"),
        "png bit": pillow(grey.convert("1"), "PNG"),
        "png rgb": pillow(rgb, "PNG"),
        "png rgba": pillow(rgba, "PNG"),
        "png la": pillow(rgba.convert("LA"), "PNG"),
        "png palette": pillow(rgb.quantize(9), "PNG"),
        "png 256 colours": pillow(rgb.quantize(256), "PNG", transparency=b"\xff" * 256),
        "jpg grey": pillow(grey, "JPEG"),
        "jpg rgb": pillow(rgb, "JPEG", quality=90),
        "jpg progressive": pillow(rgb, "JPEG", progressive=True, subsampling=0),
        "jpg restart": pillow(rgb, "JPEG", restart_marker_rows=1),
        "bmp grey": pillow(grey, "BMP"),
        "bmp bit": pillow(grey.convert("1"), "BMP"),
        "bmp palette": pillow(rgb.quantize(9), "BMP"),
        "bmp rgb": pillow(rgb, "BMP"),
        "bmp rgba": pillow(rgba, "BMP"),
        "png turned": pillow(rgb, "PNG", exif=exif),
        "jpg turned": pillow(rgb, "JPEG", exif=exif),
        "jpg xmp": pillow(rgb, "JPEG", xmp=xmp),
        "gif grey": pillow(grey, "GIF"),
        "gif colours": pillow(rgb.quantize(9), "GIF", transparency=255),
        "jp2 grey": pillow(grey, "JPEG2000"),
        "jp2 rgb": pillow(rgb, "JPEG2000", irreversible=True, quality_mode="rates", quality_layers=[4]),
        "jp2 rgba": pillow(rgba, "JPEG2000", tile_size=(16, 16)),
        "j2k 16": pillow(Image.fromarray(smooth.astype(np.uint16) * 256), "JPEG2000", no_jp2=True),
    }
    return {name: (name.split()[0], data) for name, data in found.items()} | dict(_tiffs(smooth))


def _tiffs(smooth: np.ndarray) -> Iterator[tuple[str, tuple[str, bytes]]]:
    byte, word, real = smooth.astype(np.uint8), smooth.astype(np.uint16) * 200, smooth.astype(np.float32)
    rgb = np.dstack([byte, byte[::-1], byte])
    colours = np.arange(768, dtype=np.uint16).reshape(3, 256) * 85
    yield "tif plain", ("tif", tiff(byte))
    yield "tif big endian", ("tif", tiff(word, byteorder=">", rowsperstrip=5))
    yield "tif bigtiff", ("tif", tiff(word, bigtiff=True))
    yield "tif tiles", ("tif", tiff(word, tile=(16, 16)))
    yield "tif double", ("tif", tiff(real.astype(np.float64)))
    yield "tif half", ("tif", tiff(real.astype(np.float16)))
    yield "tif int", ("tif", tiff((smooth / 2).astype(np.int8)))
    yield "tif bool", ("tif", tiff(byte > 99))
    yield "tif planar", ("tif", tiff(np.moveaxis(rgb, 2, 0), planarconfig="separate", photometric="rgb"))
    yield "tif turned", ("tif", tiff(word, tile=(16, 16), extratags=[(274, "H", 1, 8, True)]))
    yield "tif white", ("tif", tiff(byte, photometric="miniswhite"))
    placed = [(33550, "d", 3, (1.0, 1.0, 0.0), True), (33922, "d", 6, (0.0,) * 6, True), (42113, "s", 0, "0", True)]
    yield "tif placed", ("tif", tiff(byte, extratags=placed))
    yield "tif palette", ("tif", tiff(byte, colormap=colours))
    yield "tif stack", ("tif", tiff(np.stack([word] * 3), photometric="minisblack"))
    yield (
        "tif imagej",
        ("tif", tiff(np.stack([word] * 6).reshape(2, 3, 24, 20), imagej=True, metadata={"axes": "ZCYX"})),
    )
    yield "tif ome", ("tif", tiff(np.stack([byte] * 3), ome=True, metadata={"axes": "CYX"}))
    yield "tif shaped", ("tif", tiff(np.stack([byte] * 2), photometric="minisblack", metadata={"axes": "CYX"}))
    yield "tif lzw", ("lzw", tiff(rgb, compression="lzw", predictor=True, rowsperstrip=7))
    yield "tif deflate", ("deflate", tiff(word, compression="deflate", tile=(16, 32), predictor=True))
    yield "tif floating", ("deflate", tiff(real, compression="deflate", predictor=True))
    yield "tif packbits", ("packbits", tiff(byte, compression="packbits"))
    yield "tif zstd", ("zstd", tiff(rgb, compression="zstd"))
    yield "tif jpeg", ("tifjpg", tiff(rgb, compression="jpeg", rowsperstrip=16))


def damaged(data: bytes, others: list[bytes], rng: np.random.Generator) -> bytes:
    """Cut, flip, overwrite or splice `data`, or several of these."""
    changed = bytearray(data)
    for _ in range(int(rng.integers(1, 4))):
        at, kind = _place(len(changed), rng), rng.integers(0, 7)
        if kind == 0:
            del changed[at:]
        elif kind == 1:
            for _ in range(int(rng.integers(1, 9))):
                changed[_place(len(changed), rng)] ^= 1 << int(rng.integers(0, 8))
        elif kind == 2:
            value = int(rng.choice(EXTREMES)) + int(rng.integers(-1, 2))
            form = str(rng.choice(["<B", "<H", "<I", "<Q", ">H", ">I", ">Q"]))
            size = struct.calcsize(form)
            changed[at : at + size] = struct.pack(form, value % 256**size)
        elif kind == 3:
            start, length = _place(len(changed), rng), int(rng.integers(1, 40))
            changed[at : at + length] = changed[start : start + length]
        elif kind == 4:
            del changed[at : at + int(rng.integers(1, 40))]
        elif kind == 5:
            changed[at:at] = rng.bytes(int(rng.integers(1, 40)))
        else:
            other = others[int(rng.integers(len(others)))]
            start = _place(len(other), rng)
            changed[at : at + 200] = other[start : start + int(rng.integers(1, 200))]
        if not changed:
            return b""
    return bytes(changed)


def _place(length: int, rng: np.random.Generator) -> int:
    """Choose an offset in `length` bytes, half of the time near the beginning, where headers and directories are."""
    return int(rng.integers(0, min(length, 250) if rng.random() < 0.5 else length))


def signed(data: bytes) -> bytes:
    """Correct the checksums of the damaged PNG `data`, as an attacker would."""
    changed, at = bytearray(data), 8
    while at + 12 <= len(changed):
        end = at + 8 + int.from_bytes(changed[at : at + 4], "big")
        if end + 4 > len(changed):
            break
        changed[end : end + 4] = struct.pack(">I", zlib.crc32(changed[at + 4 : end]))
        at = end + 4
    return bytes(changed)


READERS: dict[str, Callable[[bytes], object]] = {
    "decode": decode,
    "header": lambda data: header(io.BytesIO(data)),
    "labels": lambda data: labelfile.decode(io.BytesIO(data)),
    "describe": lambda data: describe(io.BytesIO(data), 0),
    "exact": lambda data: labelfile.is_exact(io.BytesIO(data)),
    "place": tags,
    "page": lambda data: decode_page(io.BytesIO(data), 1) if data[:2] in (b"II", b"MM") else None,
}


def read(data: bytes, most: int) -> str:
    """Read `data` by every reader with at most `most` bytes of memory; return read or refused."""
    answers = {}
    for name, reader in READERS.items():
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + most
        resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
        try:
            reader(data)
            answers[name] = "read"
        except ImageError as error:
            answers[name] = str(error)
        finally:
            resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    hungry = [name for name, answer in answers.items() if "more memory than is available" in answer]
    assert not hungry, f"{hungry} need more than {most / MIB:.0f} MiB"
    assert answers["header"] == "read" or answers["decode"] != "read", answers
    return "read" if answers["decode"] == "read" else "refused"


def main(cases: int, seed: int, only: str = "") -> None:
    """Read `cases` damaged files; print how many were read and refused."""
    faulthandler.enable()
    files = {name: entry for name, entry in valid().items() if only in name}
    everything, names = [data for _, data in files.values()], list(files)
    counts: Counter[str] = Counter()
    slowest = 0.0
    for case in range(cases):
        rng = np.random.default_rng((seed, case))
        kind, data = files[names[case % len(names)]]
        data = damaged(data, everything, rng)
        if kind == "png" and rng.random() < 0.7:
            data = signed(data)
        faulthandler.dump_traceback_later(HANGS, exit=True)
        began = time.perf_counter()
        try:
            most = 64 * MIB + 64 * len(data) + 4 * min(2**32, EXPANSION[kind] * len(data))
            counts[read(data, most)] += 1
        except BaseException as error:
            sys.stderr.write(f"case {case} of seed {seed}, {names[case % len(names)]}: {error!r}\n{data.hex()}\n")
            raise
        slowest = max(slowest, time.perf_counter() - began)
    faulthandler.cancel_dump_traceback_later()
    sys.stdout.write(json.dumps({"cases": cases, **counts, "slowest_s": round(slowest, 3)}) + "\n")


def fuzz(cases: int, seed: int, only: str = "") -> dict[str, float]:
    """Run `main` in a separate process, assert that it succeeds without further output, and return its counts."""
    command = [sys.executable, __file__, str(cases), str(seed), only]
    # With one arena and one thread, reserved memory equals used memory.
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "MALLOC_ARENA_MAX": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=HANGS + cases, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr[-3000:]
    counts: dict[str, float] = json.loads(done.stdout)
    assert counts["read"] + counts["refused"] == cases
    return counts


def test_damaged_files_are_read_or_refused_within_bounds() -> None:
    counts = fuzz(600, 0)
    assert counts["read"] > 10
    assert counts["refused"] > 300


def test_the_memory_limit_is_effective() -> None:
    """A reader that trusts headers exceeds the memory limit."""
    believing = "import sys; from segline.model import headers; headers.doubt = lambda *_: None; "
    run = f"sys.path.insert(0, {str(Path(__file__).parent)!r}); import test_reader_fuzz as t; t.main(400, 0, 'bmp')"
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "MALLOC_ARENA_MAX": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", believing + run], env=env, capture_output=True, text=True, check=False)
    assert "need more than" in done.stderr


@pytest.mark.parametrize("name", sorted(set(valid()) - set(STACKS)))
def test_truncated_files_are_refused(name: str) -> None:
    """A TIFF may be read if only metadata after the pixels are missing."""
    _, data = valid()[name]
    whole, read = decode(data), 0
    for cut in {*range(0, len(data), 5), *range(len(data) - 40, len(data))}:
        try:
            pixels = decode(data[:cut])
        except ImageError:
            continue
        np.testing.assert_array_equal(pixels, whole)
        read += 1
    assert read <= 16 and (read == 0 or name.startswith("tif"))


@pytest.mark.parametrize("name", valid())
def test_sound_files_are_read_and_match_their_headers(name: str) -> None:
    _, data = valid()[name]
    if name in STACKS:
        assert decode_page(io.BytesIO(data), 1).shape[:2] == (24, 20)
        return
    pixels = decode(data)
    assert header(io.BytesIO(data)) == (*pixels.shape, pixels.dtype.name)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
