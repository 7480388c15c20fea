"""Metadata of image files, judged by Pillow, by arrays turned by hand, and by a table of refused files."""

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from PIL import Image, ImageOps

from segline.model import metadata
from segline.model.headers import ImageError
from segline.model.images import decode, describe, header

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (10, 14, 3), dtype=np.uint8)
GREY = RGB[..., 0]
SMOOTH = np.dstack([np.add.outer(np.arange(24), np.arange(40)) * 4] * 3).astype(np.uint8)
XMP = '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="{}"/></x:xmpmeta>'
ORIENTATIONS = range(1, 9)

Array = npt.NDArray[Any]


def saved(array: Array, form: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, form, **options)
    return stream.getvalue()


def tiff(array: Array, **options: Any) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, array, **options)
    return stream.getvalue()


def noted(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[274] = orientation
    return exif


def judged(data: bytes) -> Array:
    """Return the upright pixels by Pillow."""
    with Image.open(io.BytesIO(data)) as image:
        return np.array(ImageOps.exif_transpose(image))


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def with_chunk(png: bytes, added: bytes, last: bool = False) -> bytes:
    """Insert a chunk after the header of `png`, or before its end."""
    at = len(png) - 12 if last else 33
    return png[:at] + added + png[at:]


def exif_bytes(orientation: int, order: str = "<", kind: int = 3) -> bytes:
    """Make EXIF data with one tag, without the prefix `Exif`, in either byte order, as short or long."""
    value = struct.pack(f"{order}HH", orientation, 0) if kind == 3 else struct.pack(f"{order}I", orientation)
    start = struct.pack(f"{order}2sHI", b"II" if order == "<" else b"MM", 42, 8)
    return start + struct.pack(f"{order}HHHI", 1, 274, kind, 1) + value + bytes(4)


def agree(data: bytes) -> None:
    pixels, expected = decode(data), judged(data)
    assert np.array_equal(pixels, expected.reshape(pixels.shape))
    assert header(io.BytesIO(data)) == (*pixels.shape, pixels.dtype.name)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_images_are_upright_like_those_of_pillow(orientation: int) -> None:
    agree(saved(RGB, "PNG", exif=noted(orientation)))
    agree(saved(GREY, "PNG", exif=noted(orientation)))
    for options in ({}, {"compression": "tiff_lzw"}):
        agree(saved(RGB, "TIFF", exif=noted(orientation), **options))
    data = saved(SMOOTH, "JPEG", exif=noted(orientation), quality=95)
    assert np.abs(decode(data).astype(int) - judged(data)).max() <= 1
    assert header(io.BytesIO(data)).height == judged(data).shape[0]


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", [3, 4])
def test_exif_in_png_is_read_in_both_byte_orders_and_places(orientation: int, order: str, kind: int) -> None:
    for last in (False, True):
        data = with_chunk(saved(RGB, "PNG"), chunk(b"eXIf", exif_bytes(orientation, order, kind)), last)
        if kind == 3:
            agree(data)
        turned = metadata.upright(RGB, orientation)
        assert np.array_equal(decode(data), turned)


@pytest.mark.parametrize("orientation", [3, 6])
def test_xmp_is_used_without_exif(orientation: int) -> None:
    text = b"XML:com.adobe.xmp\0\0\0\0\0" + XMP.format(orientation).encode()
    packed = b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(XMP.format(orientation).encode())
    plain = saved(RGB, "PNG")
    turned = metadata.upright(RGB, orientation)
    agree(with_chunk(plain, chunk(b"iTXt", text)))
    assert np.array_equal(decode(with_chunk(plain, chunk(b"iTXt", packed))), turned)
    both = with_chunk(with_chunk(plain, chunk(b"iTXt", text)), chunk(b"eXIf", exif_bytes(1)))
    assert np.array_equal(decode(both), RGB)
    jpeg = saved(SMOOTH, "JPEG", xmp=XMP.format(orientation).encode())
    assert header(io.BytesIO(jpeg))[:2] == judged(jpeg).shape[:2]
    data = tiff(RGB, extratags=[(700, "B", len(XMP) - 1, XMP.format(orientation).encode(), True)])
    assert np.array_equal(decode(data), turned)


@pytest.mark.parametrize("kind", [b"tEXt", b"zTXt"])
def test_exif_of_imagemagick_in_png_is_read(kind: bytes) -> None:
    content = b"Exif\0\0" + exif_bytes(6)
    text = f"\nexif\n{len(content):8}\n{content.hex()}\n".encode()
    body = b"Raw profile type exif\0" + (b"\0" + zlib.compress(text) if kind == b"zTXt" else text)
    agree(with_chunk(saved(RGB, "PNG"), chunk(kind, body)))
    assert decode(with_chunk(saved(RGB, "PNG"), chunk(kind, body))).shape == (14, 10, 3)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize(
    "options",
    [
        {"photometric": "rgb", "tile": (16, 16)},
        {"photometric": "rgb", "rowsperstrip": 3, "compression": "deflate"},
        {"photometric": "rgb", "byteorder": ">"},
        {"photometric": "rgb", "bigtiff": True},
    ],
)
def test_tiff_of_every_layout_is_upright(orientation: int, options: dict[str, Any]) -> None:
    data = tiff(RGB, extratags=[(274, "H", 1, orientation, True)], metadata=None, **options)
    assert np.array_equal(decode(data), metadata.upright(RGB, orientation))
    if "bigtiff" not in options:
        agree(data)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_a_window_of_the_upright_image_comes_from_its_stored_window(orientation: int) -> None:
    upright = metadata.upright(RGB, orientation)
    for _ in range(20):
        rows, columns = (slice(*sorted(RNG.choice(side + 1, 2, False).tolist())) for side in upright.shape[:2])
        stored = RGB[metadata.stored_window(rows, columns, *RGB.shape[:2], orientation)]
        assert np.array_equal(metadata.upright(stored, orientation), upright[rows, columns])


@pytest.mark.parametrize("orientation", [1, 6])
def test_an_orientation_in_jpeg_2000_is_refused(orientation: int) -> None:
    box = b"uuidJpgTiffExif->JP2" + exif_bytes(orientation)
    data = saved(RGB, "JPEG2000") + struct.pack(">I", 4 + len(box)) + box
    if orientation == 1:
        assert np.array_equal(decode(data), RGB)
        return
    for read in (decode, lambda data: header(io.BytesIO(data))):
        with pytest.raises(ImageError, match="orientation is 6"):
            read(data)


@pytest.mark.parametrize("value", [0, 9, 255, 65535])
def test_an_invalid_orientation_is_a_warning(value: int) -> None:
    for data in (
        with_chunk(saved(RGB, "PNG"), chunk(b"eXIf", exif_bytes(value))),
        tiff(RGB, photometric="rgb", extratags=[(274, "H", 1, value, True)]),
    ):
        assert np.array_equal(decode(data), RGB)
        (note,) = describe(io.BytesIO(data)).notes
        assert note.kind == "orientation"
        assert str(value) in note.message


@pytest.mark.parametrize(
    "damaged",
    [b"", b"II*\0", b"II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\x08\xff\xff", exif_bytes(6)[:20], bytes(2**17)],
)
def test_damaged_exif_is_ignored(damaged: bytes) -> None:
    assert np.array_equal(decode(with_chunk(saved(RGB, "PNG"), chunk(b"eXIf", damaged))), RGB)


def test_huge_metadata_are_not_read_completely() -> None:
    bomb = b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(bytes(2**26))
    for added in (chunk(b"iTXt", bomb), chunk(b"eXIf", exif_bytes(1) + bytes(2**24))):
        assert np.array_equal(decode(with_chunk(saved(RGB, "PNG"), added)), RGB)


@pytest.mark.parametrize("bits", [1, 8])
def test_white_is_zero_is_inverted_as_by_pillow(bits: int) -> None:
    array = GREY > 99 if bits == 1 else GREY
    data = tiff(array, photometric="miniswhite")
    expected = judged(data)
    assert np.array_equal(decode(data)[..., 0], expected.astype(np.uint8) * (255 if bits == 1 else 1))
    assert describe(io.BytesIO(data)).notes[0].kind == "WhiteIsZero"


@pytest.mark.parametrize(
    ("dtype", "bits", "most"), [("uint8", 4, 15), ("uint8", 2, 3), ("uint16", 16, 65535), ("uint16", 12, 4095)]
)
def test_white_is_zero_is_inverted_by_the_largest_number_of_its_bits(dtype: str, bits: int, most: int) -> None:
    array = (GREY.astype(int) * 371) % (most + 1)
    data = tiff(array.astype(dtype), photometric="miniswhite", bitspersample=bits)
    assert np.array_equal(decode(data)[..., 0], most - array)


def test_a_tiff_without_photometric_has_black_as_0() -> None:
    data = bytearray(tiff(GREY, metadata=None))
    at = data.index(struct.pack("<HHI", 262, 3, 1))
    data[at : at + 2] = struct.pack("<H", 65000)
    assert np.array_equal(decode(bytes(data))[..., 0], GREY)


def test_alpha_is_not_inverted_with_white_is_zero() -> None:
    array = np.dstack([GREY, np.full_like(GREY, 255)])
    data = tiff(array, photometric="miniswhite", extrasamples=["unassalpha"], planarconfig="contig")
    assert np.array_equal(decode(data), 255 - array[..., :1])


@pytest.mark.parametrize("dtype", ["int8", "int16", "float32", "float64"])
def test_white_is_zero_without_a_largest_number_is_refused(dtype: str) -> None:
    with pytest.raises(ImageError, match="WhiteIsZero"):
        decode(tiff(np.zeros((4, 5), dtype), photometric="miniswhite"))


def test_white_is_zero_of_several_channels_is_refused() -> None:
    with pytest.raises(ImageError, match="WhiteIsZero"):
        decode(tiff(np.zeros((4, 5, 3), np.uint8), photometric="miniswhite", planarconfig="contig"))


SCALE, TIEPOINT = (33550, "d", 3, (1.0, 1.0, 0.0), True), (33922, "d", 6, (0.0, 0, 0, 5e5, 46e5, 0), True)


def test_an_orientation_beside_a_georeference_is_refused() -> None:
    data = tiff(RGB, photometric="rgb", extratags=[SCALE, TIEPOINT, (274, "H", 1, 3, True)])
    for read in (decode, lambda data: header(io.BytesIO(data))):
        with pytest.raises(ImageError, match=r"orientation is 3.*georeference"):
            read(data)
    assert np.array_equal(decode(tiff(RGB, photometric="rgb", extratags=[SCALE, TIEPOINT])), RGB)


GDAL = '<GDALMetadata><Item name="SCALE" sample="0" role="scale">{}</Item></GDALMetadata>'
OME = '<OME><Pixels DimensionOrder="XYCZT" SizeC="1" SizeZ="1" SizeT="1" PhysicalSizeX="{}" PhysicalSizeY="{}"/></OME>'


@pytest.mark.parametrize(
    ("data", "kinds"),
    [
        (saved(RGB, "PNG"), []),
        (saved(RGB, "PNG", dpi=(300, 300)), []),
        (saved(RGB, "PNG", dpi=(300, 150)), ["square"]),
        (saved(SMOOTH, "JPEG", dpi=(204, 98)), ["square"]),
        (saved(SMOOTH, "JPEG", dpi=(72, 72)), []),
        (saved(RGB, "BMP", dpi=(100, 50)), ["square"]),
        (saved(RGB, "TIFF", dpi=(204, 98)), ["square"]),
        (tiff(GREY, resolution=(100, 100)), []),
        (tiff(GREY, resolution=(0, 100)), []),
        (tiff(GREY, extratags=[(33550, "d", 3, (10.0, 20.0, 0.0), True)]), ["square"]),
        (tiff(GREY, description=OME.format("0.5", "0.5"), metadata=None), []),
        (tiff(GREY, description=OME.format("0.5", "0.25"), metadata=None), ["square"]),
        (tiff(GREY, description=OME.format("x", "0.25"), metadata=None), []),
        (tiff(GREY, extratags=[(42112, "s", 0, GDAL.format("0.0001"), True)]), ["scale and offset"]),
        (tiff(GREY, extratags=[(42112, "s", 0, GDAL.format("1.0"), True)]), []),
        (tiff(GREY, extratags=[(42113, "s", 0, "0", True)]), ["nodata"]),
        (tiff(GREY, extratags=[(42113, "s", 0, " 255 ", True)]), ["nodata"]),
        (tiff(GREY, extratags=[(42113, "s", 0, "-9999", True)]), []),
        (tiff(GREY, extratags=[(42113, "s", 0, "nan", True)]), []),
        (tiff(GREY, extratags=[(42113, "s", 0, "none", True)]), []),
        (tiff(np.zeros((3, 3), np.float32), extratags=[(42113, "s", 0, "nan", True)]), ["nodata"]),
        (tiff(np.zeros((3, 3), np.int16), extratags=[(42113, "s", 0, "-9999", True)]), ["nodata"]),
        (saved(SMOOTH, "MPO", save_all=True, append_images=[Image.fromarray(SMOOTH)]), ["further pictures"]),
    ],
)
def test_metadata_give_the_expected_notes(data: bytes, kinds: list[str]) -> None:
    notes = describe(io.BytesIO(data)).notes
    assert [note.kind.split()[-1] if "square" in note.kind else note.kind for note in notes] == kinds


def test_a_validity_mask_is_reported_and_smaller_copies_are_not() -> None:
    for kind, count in ((1, 0), (4, 1), (5, 1)):
        stream = io.BytesIO()
        with tifffile.TiffWriter(stream) as writer:
            writer.write(GREY, metadata=None)
            writer.write(GREY[::2, ::2] > 9, subfiletype=kind, metadata=None)
        assert len(describe(io.BytesIO(stream.getvalue())).notes) == count


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("tag", "kind", "value"), [(254, "I", 1), (254, "H", 1), (255, "H", 2)])
def test_smaller_copies_are_not_pages(order: str, tag: int, kind: str, value: int) -> None:
    stream = io.BytesIO()
    with tifffile.TiffWriter(stream, byteorder=order) as writer:
        writer.write(GREY, metadata=None)
        writer.write(GREY[::2, ::2], metadata=None, extratags=[(65000, kind, 1, value, True)])
    data = bytearray(stream.getvalue())
    at = data.rindex(struct.pack(f"{order}HHI", 65000, 3 if kind == "H" else 4, 1))
    data[at : at + 2] = struct.pack(f"{order}H", tag)
    assert np.array_equal(decode(bytes(data))[..., 0], GREY)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (saved(GREY, "PNG", transparency=0), False),
        (saved(GREY, "PNG", transparency=7), True),
        (saved(RGB, "PNG", transparency=(0, 0, 1)), True),
    ],
)
def test_transparent_colours_are_reported(data: bytes, told: bool) -> None:
    assert [note.kind for note in describe(io.BytesIO(data)).notes] == ["transparency"] * told


def test_animations_are_refused() -> None:
    frames = [Image.fromarray(np.roll(RGB, n, 0)) for n in range(3)]
    for form in ("PNG", "GIF"):
        stream = io.BytesIO()
        frames[0].save(stream, form, save_all=True, append_images=frames[1:])
        for read in (decode, lambda data: header(io.BytesIO(data))):
            with pytest.raises(ImageError, match="3 frames"):
                read(stream.getvalue())


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (saved(np.zeros((8, 8, 4), np.uint8), "TIFF"), "transparent"),
        (tiff(np.zeros((8, 8, 4), np.uint8), photometric="separated"), "SEPARATED"),
        (tiff(np.zeros((8, 8, 3), np.uint8), photometric="cielab"), "CIELAB"),
        (tiff(np.zeros((8, 8, 3), np.uint8), photometric="ycbcr"), "YCbCr without JPEG"),
        (tiff(np.zeros((8, 8), np.complex64)), "COMPLEX"),
    ],
)
def test_unsupported_colours_are_refused(data: bytes, words: str) -> None:
    with pytest.raises(ImageError, match=words):
        decode(data)


@pytest.mark.parametrize("mode", ["CMYK", "RGB", "YCbCr"])
def test_colours_of_a_jpeg_equal_those_of_pillow(mode: str) -> None:
    image = Image.fromarray(SMOOTH[..., ::-1]).convert(mode)
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=95, keep_rgb=mode == "RGB")
    if mode == "CMYK":
        with pytest.raises(ImageError, match="CMYK"):
            decode(stream.getvalue())
    else:
        assert np.abs(decode(stream.getvalue()).astype(int) - judged(stream.getvalue())).max() <= 1


@pytest.mark.parametrize(
    ("text", "dtype", "value"),
    [
        ("-9999", "float32", -9999),
        (" -9999 ", "float32", -9999),
        ("-9.999e3", "int16", -9999),
        ("-3.4e38", "float32", np.float32(-3.4e38)),
        ("-3.4028234663852886e+38", "float32", np.finfo(np.float32).min),
        ("0", "uint8", 0),
        ("255.0", "uint8", 255),
        ("nan", "float32", np.nan),
    ],
)
def test_missing_values_are_found(text: str, dtype: str, value: float) -> None:
    array = np.full((4, 5), 7, dtype)
    array[1, 2:] = value
    nodata = describe(io.BytesIO(tiff(array, extratags=[(42113, "s", 0, text, True)]))).nodata
    assert nodata is not None
    assert metadata.missing(decode(tiff(array)), nodata).sum() == 3


def test_the_documentation_has_the_same_table() -> None:
    assert metadata.__doc__ is not None
    rows = [line for line in metadata.__doc__.splitlines() if line.startswith("|")]
    assert "\n".join(rows) in (Path(__file__).parents[2] / "docs" / "import.md").read_text()


def test_a_bmp_stored_top_down_is_read() -> None:
    data = bytearray(saved(RGB, "BMP"))
    data[22:26] = struct.pack("<i", -10)
    agree(bytes(data))
    assert np.array_equal(decode(bytes(data)), RGB[::-1])


PASSES = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))  # Adam7


def test_an_interlaced_png_is_read() -> None:
    rows = [row for top, left, down, along in PASSES for row in RGB[top::down, left::along] if row.size]
    head = struct.pack(">IIBBBBB", 14, 10, 8, 2, 0, 0, 1)
    pixels = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    agree(data)
    assert np.array_equal(decode(data), RGB)


@pytest.mark.parametrize("compression", [None, "deflate", "packbits", "lzw"])
def test_bits_in_reverse_order_are_read(compression: str | None) -> None:
    """tifffile does not write FillOrder 2, so another tag is renamed and the bits are reversed by hand."""
    bits = GREY[:, :8] > 99
    options = {"photometric": "minisblack", "compression": compression, "metadata": None}
    data = bytearray(tiff(bits, extratags=[(65000, "H", 1, 2, True)], **options))
    at = data.index(struct.pack("<HHI", 65000, 3, 1))
    data[at : at + 2] = struct.pack("<H", 266)
    with tifffile.TiffFile(io.BytesIO(bytes(data))) as file:
        at, length = file.pages.first.dataoffsets[0], file.pages.first.databytecounts[0]
    data[at : at + length] = bytes(int(f"{byte:08b}"[::-1], 2) for byte in data[at : at + length])
    assert np.array_equal(decode(bytes(data))[..., 0] > 0, bits)
