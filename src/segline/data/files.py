"""The only place that opens files: images, labels, arrays, JSON, YAML and tables; written whole or not at all."""

import hashlib
import io
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from segline.model.images import TIFF_MAGIC, ImageError, Raw, decode, encode_png

if TYPE_CHECKING:
    import pandas as pd

Labels = npt.NDArray[Any]  # (H, W), any integer type

LARGEST_ID = np.iinfo(np.int32).max
LARGEST_IMAGE = 2**30  # pixels; OpenCV stops there as well
LOSSY = (".jpg", ".jpeg")
# Modes of Pillow whose pixels are one number each; P keeps the palette's indices, which are the labels.
ONE_NUMBER = {"1", "L", "P", "I", "I;16", "I;16B", "I;16L"}


class FileError(ValueError):
    """A file that cannot be used; the message names it, says what was found and what to do."""


def read_image(path: Path) -> Raw:
    """Pixels (H, W, C), uint8, uint16 or float32, of a PNG, JPEG, BMP or TIFF file.

    Raises
    ------
    FileError
        The file is missing or is no such image.
    """
    try:
        return decode(read_bytes(path))
    except ImageError as error:
        raise FileError(f"{path}: {error}") from error


def read_labels(path: Path) -> Labels:
    """Labels (H, W), an integer type, of a PNG, BMP or TIFF file; of a palette PNG its indices.

    Raises
    ------
    FileError
        The file is missing, damaged, in colour, compressed with losses, or holds numbers that are no ids.
    """
    if path.suffix.lower() in LOSSY:
        raise FileError(f"{path}: JPEG changes values, so ids cannot be trusted; save the labels as PNG or TIFF")
    data = read_bytes(path)
    labels: Labels = _tiff_labels(data, path) if data[:4] in TIFF_MAGIC else _pillow_labels(data, path)
    if labels.size and (labels.min() < 0 or labels.max() > LARGEST_ID):
        raise FileError(f"{path}: ids from {labels.min()} to {labels.max()}; ids go from 0 to {LARGEST_ID}")
    return labels


def _tiff_labels(data: bytes, path: Path) -> Labels:
    import tifffile

    try:
        labels: Labels = tifffile.imread(io.BytesIO(data))
    except Exception as error:  # a damaged TIFF raises whatever its decoder happens to meet
        raise FileError(f"{path}: not a readable TIFF: {error}") from error
    if labels.ndim > 2 and labels.size == labels.shape[-2] * labels.shape[-1]:
        labels = labels.reshape(labels.shape[-2:])
    if labels.ndim != 2:
        raise FileError(f"{path}: labels of shape {labels.shape}; give one number a pixel, (height, width)")
    if labels.dtype.kind == "f":
        wrong = labels[~np.isfinite(labels) | (labels != np.rint(labels))]
        if wrong.size:
            raise FileError(f"{path}: {wrong.size} pixels hold no whole number, such as {wrong[0]}; labels are ids")
        # An id beyond int64 would wrap; clipped it is still refused as too large.
        return np.clip(labels, -1, LARGEST_ID + 1.0).astype(np.int64)
    return labels.astype(np.uint8) if labels.dtype.kind == "b" else labels


def _pillow_labels(data: bytes, path: Path) -> Labels:
    from PIL import Image

    Image.MAX_IMAGE_PIXELS = LARGEST_IMAGE
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            mode, labels = image.mode, np.array(image)
    except Exception as error:  # Pillow raises OSError, SyntaxError, ValueError, DecompressionBombError and others
        raise FileError(f"{path}: not a readable image: {error}") from error
    if mode not in ONE_NUMBER:
        raise FileError(
            f"{path}: a label image with colours ({mode}); segline needs one number a pixel: "
            "turn each colour into its class id, or save it as grey or with a palette"
        )
    return labels.astype(np.uint8) if labels.dtype.kind == "b" else labels


def write_png(path: Path, pixels: npt.NDArray[Any]) -> None:
    """Write labels (H, W) or a picture (H, W, 3), uint8 or uint16."""
    write_bytes(path, encode_png(pixels))


def read_bytes(path: Path) -> bytes:
    """All of a file; FileError when that cannot be."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise FileError(f"{path}: cannot be read: {error.strerror or error}") from error


def write_bytes(path: Path, data: bytes) -> None:
    """Write under a temporary name, then rename: a reader meets the old file or the new one, never half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.partial")
    temporary.write_bytes(data)
    temporary.replace(path)


def md5(path: Path) -> str:
    """MD5 of a file's bytes, 32 hexadecimal digits, as DVC has it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def copy(source: Path, target: Path) -> None:
    """Copy a file byte for byte; not its times and rights."""
    shutil.copyfile(source, target)


def save_array(path: Path, array: npt.NDArray[Any]) -> None:
    """Write `array` as .npy, which `load_array` can map into memory."""
    temporary = path.with_name(f".{path.name}.partial")
    with temporary.open("wb") as file:
        np.save(file, np.ascontiguousarray(array), allow_pickle=False)
    temporary.replace(path)


def load_array(path: Path) -> npt.NDArray[Any]:
    """The array in an .npy file, mapped into memory and read-only: what is not touched is not read."""
    try:
        array: npt.NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise FileError(f"{path}: not a readable array ({error}); remove it, and `dvc repro` writes it") from error
    return array


def read_json(path: Path) -> Any:
    """What a JSON file says."""
    try:
        return json.loads(read_bytes(path))
    except ValueError as error:
        if isinstance(error, FileError):
            raise
        raise FileError(f"{path}: not valid JSON: {error}") from error


def write_json(path: Path, value: Any) -> None:
    """Write `value`, keys in the order given; NaN is refused, for it is no JSON."""
    write_bytes(path, (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode())


def read_yaml(path: Path) -> Any:
    """What a YAML file says."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        return YAML(typ="safe").load(read_bytes(path))
    except YAMLError as error:
        raise FileError(f"{path}: not valid YAML: {error}") from error


def write_yaml(path: Path, value: Any) -> None:
    """Write `value`, keys in the order given."""
    from ruamel.yaml import YAML

    yaml, text = YAML(), io.BytesIO()
    yaml.width = 1000
    yaml.dump(value, text)
    write_bytes(path, text.getvalue())


def read_table(path: Path) -> "pd.DataFrame":
    """The rows of a CSV file, every value as the text it is: 007 stays 007, NA stays NA."""
    import pandas as pd

    try:
        return pd.read_csv(io.BytesIO(read_bytes(path)), dtype=str, keep_default_na=False)
    except ValueError as error:  # ParserError, EmptyDataError and UnicodeDecodeError among them
        if isinstance(error, FileError):
            raise
        raise FileError(f"{path}: not a readable table: {error}") from error


def write_table(path: Path, table: "pd.DataFrame") -> None:
    """Write `table` as CSV, without its index."""
    write_bytes(path, table.to_csv(index=False, lineterminator="\n").encode())


def make_folder(path: Path) -> None:
    """An empty folder, with its parents; what `path` held before is gone."""
    if path.exists():
        shutil.rmtree(path)
    path.mkdir(parents=True)


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """A folder to fill, that becomes `target`, in place of what was there, when all went well; else nothing changes."""
    partial, former = target.with_name(f".{target.name}.partial"), target.with_name(f".{target.name}.former")
    make_folder(partial)
    try:
        yield partial
    except BaseException:
        shutil.rmtree(partial)
        raise
    if target.exists():
        shutil.rmtree(former, ignore_errors=True)
        target.replace(former)
    partial.replace(target)
    shutil.rmtree(former, ignore_errors=True)
