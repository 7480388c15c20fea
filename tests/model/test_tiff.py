"""TIFF, judged by arrays that tifffile and Pillow wrote, and by files with wrong headers made by hand."""

import io
import struct
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tifffile

from segline.model import tiff
from segline.model.images import ImageError, decode, decode_page, header

RNG = np.random.default_rng(0)
PLANES = RNG.integers(0, 60000, (2, 3, 30, 40), dtype=np.uint16)
GREY = PLANES[0, 0]
DEFLATED = {"compression": "deflate"}
MINISBLACK = {"photometric": "minisblack"}

Array = npt.NDArray[Any]


def written(array: Array, **options: Any) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, array, **options)
    return stream.getvalue()


def made(tags: dict[int, tuple[str, int, bytes]] | list[tuple[int, str, int, bytes]], after: bytes = b"") -> bytes:
    """Build a little-endian TIFF of one directory; a tag is type, number of values, and value or offset."""
    rows = [(code, *rest) for code, rest in tags.items()] if isinstance(tags, dict) else tags
    kinds = {"B": 1, "s": 2, "H": 3, "I": 4}
    entries = b"".join(struct.pack("<HHI", code, kinds[kind], count) + value for code, kind, count, value in rows)
    return b"II*\0" + struct.pack("<IH", 8, len(rows)) + entries + bytes(4) + after


def number(value: int) -> tuple[str, int, bytes]:
    return "I", 1, struct.pack("<I", value)


def lie(width: int, height: int, **changes: int) -> bytes:
    """Build a grey TIFF of 100 bytes whose header declares `width` x `height`; `changes` set further tags."""
    codes = {"compression": 259, "rows": 278, "offset": 273, "bytes": 279, "tile_width": 322, "tile_height": 323}
    said = {256: width, 257: height, 258: 8, 259: 1, 262: 1, 273: 200, 277: 1, 278: height, 279: 100}
    said |= {codes[name]: value for name, value in changes.items()}
    if "tile_width" in changes:
        said |= {324: said.pop(273), 325: said.pop(279)}
        del said[278]
    return made({code: number(value) for code, value in sorted(said.items())}).ljust(200, b"\0") + bytes(100)


@pytest.mark.parametrize("compression", [None, "lzw", "deflate", "packbits", "zstd", "adobe_deflate"])
@pytest.mark.parametrize("layout", [{}, {"rowsperstrip": 7}, {"tile": (16, 32)}])
@pytest.mark.parametrize("form", [{}, {"bigtiff": True}, {"byteorder": ">"}])
def test_every_lossless_compression_is_read(
    compression: str | None, layout: dict[str, Any], form: dict[str, Any]
) -> None:
    data = written(GREY, compression=compression, **layout, **form)
    assert np.array_equal(decode(data)[..., 0], GREY)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", "float16", "float64"])
def test_predictors_are_applied(dtype: str) -> None:
    array = (GREY % 200).astype(dtype)
    assert np.array_equal(decode(written(array, predictor=True, **DEFLATED))[..., 0], array)


@pytest.mark.parametrize("channels", [2, 3, 4, 5])
@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_channels_come_last(channels: int, planar: str, dtype: str) -> None:
    array = RNG.integers(0, 256, (30, 40, channels)).astype(dtype)
    stored = array if planar == "contig" else np.moveaxis(array, -1, 0)
    for layout in ({}, {"tile": (16, 16)}, DEFLATED):
        data = written(stored, photometric="minisblack", planarconfig=planar, **layout)
        assert np.array_equal(decode(data), array)
        assert header(io.BytesIO(data)) == (30, 40, channels, dtype)


@pytest.mark.parametrize("form", [{"ome": True}, {"imagej": True}, MINISBLACK])
def test_pages_that_are_channels_make_one_picture(form: dict[str, Any]) -> None:
    data = written(PLANES[0], metadata={"axes": "CYX"}, **form)
    assert np.array_equal(decode(data), np.moveaxis(PLANES[0], 0, -1))
    assert tiff.count(io.BytesIO(data)) == 1


@pytest.mark.parametrize(
    ("axes", "form"),
    [("ZCYX", {"ome": True}), ("CZYX", {"ome": True}), ("ZCYX", {"imagej": True}), ("TCYX", MINISBLACK)],
)
def test_stacks_are_read_page_by_page_with_all_channels(axes: str, form: dict[str, Any]) -> None:
    array = PLANES if axes.index("C") == 1 else np.moveaxis(PLANES, 0, 1)
    data = written(array, metadata={"axes": axes}, **form)
    assert tiff.count(io.BytesIO(data)) == 2
    for page in (0, 1):
        assert np.array_equal(decode_page(io.BytesIO(data), page), np.moveaxis(PLANES[page], 0, -1))
    with pytest.raises(ImageError, match=r"a stack of 2 pages.*segline import"):
        decode(data)
    for page in (2, -1):
        with pytest.raises(ImageError, match=f"no page {page}; the 2 pages"):
            decode_page(io.BytesIO(data), page)


@pytest.mark.parametrize("form", [{"ome": True}, {"imagej": True}, MINISBLACK])
def test_stacks_of_one_channel_and_of_rgb_are_read(form: dict[str, Any]) -> None:
    data = written(PLANES[0], **form, metadata={"axes": "ZYX"})
    assert tiff.count(io.BytesIO(data)) == 3
    assert np.array_equal(decode_page(io.BytesIO(data), 2)[..., 0], PLANES[0, 2])
    colours = RNG.integers(0, 256, (2, 30, 40, 3), dtype=np.uint8)
    data = written(colours, **(form | {"photometric": "rgb"}), metadata={"axes": "ZYXS"})
    assert np.array_equal(decode_page(io.BytesIO(data), 1), colours[1])


def test_smaller_copies_and_masks_are_not_pages() -> None:
    stream = io.BytesIO()
    with tifffile.TiffWriter(stream) as writer:
        writer.write(GREY, metadata=None)
        writer.write(GREY[::2, ::2], subfiletype=1, metadata=None)
        writer.write(GREY > 0, subfiletype=4, metadata=None)
    assert np.array_equal(decode(stream.getvalue())[..., 0], GREY)


@pytest.mark.parametrize("scale", [257, 1])
def test_palettes_of_16_and_of_8_bits_are_read(scale: int) -> None:
    colours = RNG.integers(0, 256, (3, 256), dtype=np.uint16)
    indices = (GREY % 256).astype(np.uint8)
    data = written(indices, colormap=colours * np.uint16(scale))
    assert np.array_equal(decode(data), colours.T[indices])
    assert header(io.BytesIO(data)) == (30, 40, 3, "uint8")


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_packed_numbers_are_read(bits: int) -> None:
    array = (GREY % 2**bits).astype(np.uint8)
    numbers = tiff.read(io.BytesIO(written(array, bitspersample=bits))).numbers
    assert np.array_equal(numbers[..., 0], array)


def test_jpeg_compression_is_read_approximately() -> None:
    ramp = np.add.outer(np.arange(64), np.arange(80)).astype(np.uint8)
    for array in (ramp, np.dstack([ramp, ramp[::-1], ramp])):
        for layout in ({"tile": (32, 32)}, {"rowsperstrip": 16}):
            decoded = decode(written(array, compression="jpeg", **layout)).reshape(array.shape)
            assert np.abs(decoded.astype(int) - array).mean() < 6


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (lie(20000, 20000), "its bytes cannot hold"),
        (lie(20000, 20000, compression=8), "its bytes cannot hold"),
        (lie(20000, 20000, compression=50000), "its bytes cannot hold"),
        (lie(2**31 - 1, 2**31 - 1), "its bytes cannot hold"),
        (lie(64, 64, tile_width=2**20, tile_height=2**20, compression=8), "its bytes cannot hold"),
        (lie(10, 10, rows=3), "lists 1 of 4 strips"),
        (lie(0, 10), "0 x 10"),
        (lie(10, 10, offset=250), "truncated: strips or tiles lie beyond"),
        (lie(10, 10, offset=2**31), "truncated: strips or tiles lie beyond"),
        (lie(10, 10, bytes=0), "1 of 1 strips or tiles are missing"),
        (lie(10, 10, offset=0), "1 of 1 strips or tiles are missing"),
        (lie(10, 10, bytes=99), "its bytes cannot hold"),
        (lie(10, 10, compression=34712), "JPEG2000.*is not supported; save the file with deflate or LZW"),
        (lie(10, 10, compression=8), "damaged"),
        (
            written(np.zeros((8, 8, 4), np.uint8), photometric="separated"),
            "SEPARATED; convert the image to grey or RGB",
        ),
        (written(np.zeros((4, 8, 8), np.uint8), volumetric=True, tile=(4, 16, 16), **MINISBLACK), "8 x 8 x 4 px"),
        (written(GREY)[:8], "truncated"),
    ],
)
def test_wrong_headers_are_refused(data: bytes, words: str) -> None:
    with pytest.raises(ImageError, match=f"not a readable TIFF: .*{words}"):
        decode(data)


def test_the_file_with_a_correct_header_is_read() -> None:
    assert decode(lie(10, 10)).shape == (10, 10, 1)


def test_overlapping_strips_are_refused() -> None:
    """A thousand strips that share bytes could expand without limit."""
    data = bytearray(written(np.zeros((1000, 1000), np.uint8), rowsperstrip=1, **DEFLATED))
    with tifffile.TiffFile(io.BytesIO(bytes(data))) as file:
        page = file.pages.first
        counts, lengths = page.tags[279], len(data) // 2
    packed = struct.pack("<H" if counts.dtype == 3 else "<I", lengths)
    data[counts.valueoffset : counts.valueoffset + 1000 * len(packed)] = packed * 1000
    with pytest.raises(ImageError, match="truncated: strips or tiles lie beyond"):
        decode(bytes(data))


def test_short_strips_are_not_filled_with_zeros() -> None:
    for compression in ("deflate", "lzw", "zstd", "packbits"):
        short = io.BytesIO(written(GREY[:15], rowsperstrip=15, compression=compression, metadata=None))
        with tifffile.TiffFile(short) as file:
            tags = file.pages.first.tags
            rows = [tags[code].valueoffset for code in (257, 278)]
        data = bytearray(short.getvalue())
        for at in rows:
            data[at : at + 2] = struct.pack("<H", 30)
        with pytest.raises(ImageError, match="damaged"):
            decode(bytes(data))


def test_a_jpeg_strip_larger_than_its_page_is_refused() -> None:
    data = written(np.zeros((16, 16), np.uint8), compression="jpeg")
    at = data.index(b"\xff\xc0")
    with pytest.raises(ImageError, match="60000 x 60000 px"):
        decode(data[: at + 5] + struct.pack(">HH", 60000, 60000) + data[at + 9 :])
    with pytest.raises(ImageError, match="a JPEG strip or tile has 16 x 24 px, but the file declares 16 x 16 px"):
        decode(data[: at + 5] + struct.pack(">HH", 24, 16) + data[at + 9 :])


def test_directories_in_a_cycle_are_refused() -> None:
    """tifffile detects only cycles of up to 100 directories."""
    directory = struct.pack("<H", 0)
    starts = [8 + 6 * place for place in range(300)]
    chain = b"".join(directory + struct.pack("<I", start) for start in [*starts[1:], starts[0]])
    with pytest.raises(ImageError, match="form a cycle"):
        decode(b"II*\0" + struct.pack("<I", 8) + chain)


def test_tags_that_all_refer_to_the_whole_file_are_refused() -> None:
    """tifffile would load 4,000 x 1 MB as Python integers."""
    data = made([(273, "B", 2**20, struct.pack("<I", 0))] * 4000, bytes(2**20))
    with pytest.raises(ImageError, match="a TIFF directory lists more bytes than the file"):
        decode(data)


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ('<OME><Pixels DimensionOrder="XYCZT" SizeC="1" SizeZ="1000000000" SizeT="1"/>', "1 x 1000000000 x 1 planes"),
        (
            '<OME><Pixels DimensionOrder="XYCZT" SizeC="9" SizeZ="1" SizeT="1"/>',
            r"1 x 1 x 9 planes \(TZC\), but the file has 2 planes",
        ),
        ("<OME></OME>", "no Pixels element"),
        (
            '<OME><Pixels DimensionOrder="XYCZT" SizeC="2" SizeZ="1" SizeT="1"><TiffData IFD="0" FirstC="1"/>',
            "the order of the planes contradicts the OME metadata of the file",
        ),
        ("ImageJ=1.53\nimages=900000000\nslices=900000000\n", "900000000 x 1 planes"),
        ('{"shape": [5, 30, 40], "axes": "CYX"}', r"5 planes \(C\), but the file has 2 planes"),
    ],
)
def test_metadata_that_contradict_the_file_are_refused(metadata: str, words: str) -> None:
    stream = io.BytesIO()
    with tifffile.TiffWriter(stream) as writer:
        writer.write(GREY, description=metadata, metadata=None)
        writer.write(GREY, metadata=None)
    with pytest.raises(ImageError, match=words):
        decode(stream.getvalue())


def test_one_file_of_an_ome_set_is_an_image() -> None:
    metadata = '<OME><Pixels DimensionOrder="XYCZT" SizeC="3" SizeZ="1" SizeT="90"/>'
    data = written(GREY, description=metadata, metadata=None)
    assert np.array_equal(decode(data)[..., 0], GREY)


def test_an_imagej_stack_without_directories_is_refused() -> None:
    """ImageJ writes files beyond 4 GB without directories for the pages after the first."""
    data = written(GREY, description="ImageJ=1.53\nimages=2\nslices=2\n", metadata=None)
    with pytest.raises(ImageError, match="2 x 1 planes"):
        decode(data)


def test_channels_of_different_size_are_refused() -> None:
    stream = io.BytesIO()
    with tifffile.TiffWriter(stream) as writer:
        writer.write(GREY, description='{"shape": [2, 30, 40], "axes": "CYX"}', metadata=None)
        writer.write(GREY[:10], metadata=None)
    with pytest.raises(ImageError, match="differ in size"):
        decode(stream.getvalue())
