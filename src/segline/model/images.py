"""Image bytes to raw pixels, raw pixels to network input, labels to PNG: one preprocessing for every use."""

import io
from dataclasses import dataclass
from typing import Any, Self

import cv2
import numpy as np
import numpy.typing as npt

Raw = npt.NDArray[Any]  # (H, W, C), uint8, uint16 or float32

RANGES = {"uint8": 255.0, "uint16": 65535.0, "float32": 1.0}
TIFF_MAGIC = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")


class ImageError(ValueError):
    """Bytes or pixels that cannot be used; the message says what was found and what is needed."""


@dataclass(frozen=True)
class Statistics:
    """What is known of the training images; mean and standard deviation are in units of the type's range."""

    dtype: str
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, content: dict[str, Any]) -> Self:
        """The statistics in `content`, as read from JSON."""
        return cls(content["dtype"], content["channels"], tuple(content["mean"]), tuple(content["std"]))


def decode(data: bytes) -> Raw:
    """Pixels (H, W, C), uint8, uint16 or float32, of an encoded PNG, JPEG, BMP or TIFF.

    Channels are in the order red, green, blue; an alpha channel that is opaque everywhere is dropped.

    Raises
    ------
    ImageError
        The bytes are no such image, or its type or shape is none of the above.
    """
    pixels = _decode_tiff(data) if data[:4] in TIFF_MAGIC else _decode_opencv(data)
    if pixels.dtype == np.float64:
        pixels = pixels.astype(np.float32)
    if pixels.dtype.name not in RANGES:
        raise ImageError(f"pixels of type {pixels.dtype}; convert them to uint8, uint16 or float32")
    if pixels.shape[2] == 4 and pixels.dtype != np.float32 and (pixels[..., 3] == RANGES[pixels.dtype.name]).all():
        pixels = pixels[..., :3]
    return np.ascontiguousarray(pixels)


def _decode_opencv(data: bytes) -> Raw:
    encoded = np.frombuffer(data, np.uint8)
    try:
        pixels = cv2.imdecode(encoded, cv2.IMREAD_UNCHANGED) if encoded.size else None
    except cv2.error as error:
        raise ImageError(f"not a readable image: {error.err}") from error
    if pixels is None:
        raise ImageError(f"not a readable PNG, JPEG, BMP or TIFF image ({len(data)} bytes, maybe truncated)")
    if pixels.ndim == 2:
        return pixels[..., None]
    order = [2, 1, 0, 3][: pixels.shape[2]] if pixels.shape[2] >= 3 else list(range(pixels.shape[2]))
    return pixels[..., order]


def _decode_tiff(data: bytes) -> Raw:
    import tifffile

    try:
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            series = file.series[0]
            pixels, axes = series.asarray(), series.axes
    except Exception as error:  # a damaged TIFF raises whatever its decoder happens to meet
        raise ImageError(f"not a readable TIFF: {error}") from error
    if axes == "YX":
        return pixels[..., None]
    if axes == "YXS":
        return pixels
    if axes in ("SYX", "CYX"):
        return np.moveaxis(pixels, 0, -1)
    raise ImageError(f"a TIFF with axes {axes} and shape {pixels.shape}; segline takes one page a file")


def encode_png(labels: npt.NDArray[Any]) -> bytes:
    """PNG bytes of a label image (H, W) or a picture (H, W, 3), uint8 or uint16."""
    array = labels[..., ::-1] if labels.ndim == 3 else labels
    done, encoded = cv2.imencode(".png", array)
    assert done
    return encoded.tobytes()


def scale(raw: Raw) -> npt.NDArray[np.float32]:
    """`raw` (H, W, C) divided by the range of its type, float32: the same pixel always gives the same value."""
    return raw.astype(np.float32) / np.float32(RANGES[raw.dtype.name])


def normalise(scaled: npt.NDArray[np.float32], statistics: Statistics) -> npt.NDArray[np.float32]:
    """Network input (C, H, W) of `scaled` (H, W, C): minus the training mean, divided by its standard deviation."""
    # The axis is moved first: with the few channels last, numpy's loops are too short to be fast.
    planes = np.array(np.moveaxis(scaled, -1, 0), order="C")
    planes -= np.asarray(statistics.mean, np.float32)[:, None, None]
    planes /= np.asarray(statistics.std, np.float32)[:, None, None]
    return planes


def to_network(raw: Raw, statistics: Statistics) -> npt.NDArray[np.float32]:
    """Network input (C, H, W) of `raw` (H, W, C).

    Raises
    ------
    ImageError
        Type or channels are not those of the training images.
    """
    if raw.dtype.name != statistics.dtype or raw.shape[2] != statistics.channels:
        raise ImageError(
            f"an image of type {raw.dtype} with {raw.shape[2]} channels, but the model was trained on "
            f"{statistics.dtype} with {statistics.channels}; convert the image"
        )
    return normalise(scale(raw), statistics)
