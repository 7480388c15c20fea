"""Labels an image too large for memory window by window, and writes what is seen in it row by row."""

import math
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from segline import files
from segline.commands.predicted import Records, Request, Wishes
from segline.data import imagefiles
from segline.data.chunked import SUFFIX, write_chunked
from segline.data.tiled import Rows, write_tiled
from segline.data.windows import Windows
from segline.model.images import ImageError
from segline.score.overlay import RGB, overlay
from segline.text import MESSAGE, cut
from segline.track import answers
from segline.track.answers import Loaded
from segline.track.registry import RegistryError

PICTURE = 2048  # px, longer side of the picture of a large image
KEY = "key.json"
OWN = re.compile(r"key\.json|journal\.json|sum-[0-9]+\.npy|ids\.npy|\..+\.partial")  # files of the scratch folder

Show = Callable[[str, int, int], None]


class Said(Protocol):
    """What a model sees in an image, by rows: class ids and instance ids (h, W), and class probabilities (K, h, W)."""

    def labels(self, rows: slice) -> npt.NDArray[np.uint8]: ...

    def instances(self, rows: slice) -> npt.NDArray[np.int32]: ...

    def probabilities(self, rows: slice) -> npt.NDArray[np.float32]: ...

    @property
    def count(self) -> int: ...


def label_large(
    image: Windows, request: Request, loaded: Loaded, records: Records, *, wishes: Wishes, show: Show
) -> dict[str, str]:
    """Write the labels of an image, and what else is asked for, as `write` does; the names, by what they are.

    A hidden folder beside them keeps what is finished when this ends early, for the same version, views and image.
    """
    scratch = scratch_of(records.out, request.stem)
    _doubt(scratch)
    key = {"version_md5": request.version_md5, "views": request.views, "image_md5": request.image_md5}
    if not _is_of(scratch, key):
        _remove(scratch)
        files.write_json(scratch / KEY, key)
    size = (image.height, image.width)
    try:
        said = answers.answer(loaded, size, image.read, scratch, views=wishes.views, show=show)
        written = write(image, said, request.stem, records.make_room(request), wishes)
    except (files.FileError, ImageError, RegistryError, OSError):
        raise
    except Exception as error:  # whatever the code in the version's package raises on files that are not its own
        raise files.FileError(
            f"{scratch}: cannot be gone on with: {type(error).__name__}: {cut(str(error), MESSAGE)}; remove this folder"
        ) from error
    _remove(scratch)
    return written


def scratch_of(out: Path, stem: str) -> Path:
    """The hidden folder in which a large image is worked on."""
    name = f".{stem}.windows"
    return out / name if len(os.fsencode(name)) <= files.NAME_MAX else files.temporary_name(out / stem, "windows")


def _is_of(scratch: Path, key: dict[str, object]) -> bool:
    """Whether what is in `scratch` was begun with this key, and can be gone on with."""
    try:
        return bool(files.read_json(scratch / KEY) == key)
    except files.FileError:
        return False


def _doubt(scratch: Path) -> None:
    """Refuse a folder that holds anything but what is written there: it is written to, and removed in the end.

    Raises
    ------
    FileError
        It is a link or a file, or it holds a folder, a link or a file of another name.
    """
    if not os.path.lexists(scratch):
        return
    strange = [scratch] if scratch.is_symlink() or not scratch.is_dir() else list(_strange(scratch))
    if strange:
        raise files.FileError(
            f"{strange[0]}: segline did not write this, and would replace or remove it; move it away, or name another "
            "folder as --out"
        )


def _strange(scratch: Path) -> Iterator[Path]:
    for path in scratch.iterdir():
        if path.is_symlink() or not path.is_file() or not OWN.fullmatch(path.name):
            yield path


def _remove(scratch: Path) -> None:
    """Remove the files in `scratch`, each by its name, and the folder."""
    _doubt(scratch)
    if scratch.is_dir():
        for path in scratch.iterdir():
            path.unlink()
        scratch.rmdir()


def write(image: Windows, said: Said, stem: str, out: Path, wishes: Wishes) -> dict[str, str]:
    """Write what is seen in an image by rows, as tiled TIFF, or as OME-Zarr where it is; the names."""
    written = {}
    for kind, ending in wishes.endings.items():
        suffix = ".png" if kind == "overlays" else ".tif" if image.frame is None else SUFFIX
        written[kind] = f"{stem}{ending}{suffix}"
        _write(out / written[kind], kind, said, image)
    return written


def _write(path: Path, kind: str, said: Said, image: Windows) -> None:
    """Write labels, instances, probabilities or a picture."""
    size = (image.height, image.width)
    if kind == "labels":
        _write_array(path, said.labels, size, np.uint8, image)
    elif kind == "instances":
        dtype = np.uint16 if said.count < 2**16 else np.int32
        _write_array(path, lambda rows: said.instances(rows).astype(dtype), size, dtype, image)
    elif kind == "overlays":
        imagefiles.write_png(path, picture(image, said))
    else:
        classes = len(said.probabilities(slice(0, 1)))
        _write_array(path, said.probabilities, (classes, *size), np.float32, image)


def _write_array(path: Path, rows: Rows, shape: tuple[int, ...], dtype: npt.DTypeLike, image: Windows) -> None:
    if image.frame is None:
        write_tiled(path, rows, shape, dtype, image.georeference)
    else:
        write_chunked(path, rows, shape, dtype, image.frame, labels=np.dtype(dtype).kind != "f")


def picture(image: Windows, said: Said) -> RGB:
    """The outlines of all that is seen, over the image made smaller."""
    step = min(math.ceil(max(image.height, image.width) / PICTURE), image.height, image.width)
    rows = [slice(top, top + step) for top in range(0, image.height - step + 1, step)]
    wide = image.width // step
    middle = [slice(row.start + step // 2, row.start + step // 2 + 1) for row in rows]
    columns = slice(step // 2, wide * step, step)
    labels = np.concatenate([said.labels(row)[:, columns] for row in middle])
    objects = np.concatenate([said.instances(row)[:, columns] for row in middle])
    return overlay(np.stack([_shrunk(image, row, wide, step) for row in rows]), labels, objects=objects)


def _shrunk(image: Windows, rows: slice, wide: int, step: int) -> npt.NDArray[np.float32]:
    """Means (wide, C) of squares of `step` px a side."""
    pixels = image.read(rows, slice(0, wide * step)).astype(np.float32)
    means: npt.NDArray[np.float32] = pixels.reshape(step, wide, step, -1).mean(axis=(0, 2))
    return means
