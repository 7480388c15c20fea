"""`segline predict`: label images with a registered model, by the code that it carries."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from segline import progress
from segline.data import files
from segline.data.georeference import Tag, geotiff, tags
from segline.model.images import ImageError, decode
from segline.model.instances import suffix
from segline.score.overlay import RGB, overlay
from segline.track.registry import Answer, RegistryError, load_model
from segline.track.store import open_store


class PredictError(ValueError):
    """Some images could not be labelled; the message says which and why."""


def main(
    images: list[Path], model: str, out: Path, mode: progress.Mode, *, instances: bool = False, overlays: bool = False
) -> None:
    """Write OUT/STEM.png, a label image, for each of `images`.

    Where asked for, the ids of its objects go into OUT/STEM_instances.png, 16 bit (.tif, 32 bit, where there are more
    than 65,535), and a picture into OUT/STEM_overlay.png. What is said of a GeoTIFF becomes a GeoTIFF at the same place
    on Earth, OUT/STEM.tif and OUT/STEM_instances.tif.

    Parameters
    ----------
    images:
        Files, or folders whose files are taken.
    model:
        Address in the registry, such as ``models:/cells@champion`` or ``models:/cells/3``.

    Raises
    ------
    PredictError
        There are no images, two would be written to one file, or a file is no image; the others are labelled all the
        same.
    """
    found = list(_files(images))
    endings = {"": True, "_instances": instances, "_overlay": overlays}
    written = [f"{file.stem}{ending}" for file in found for ending, asked in endings.items() if asked]
    if twice := sorted({stem for stem in written if written.count(stem) > 1}):
        raise PredictError(f"two images would be written to {twice[0]}; rename one, or label them into two folders")
    if not found:
        raise PredictError(f"{', '.join(map(str, images))}: there is no file; name images, or folders that hold some")
    if out.exists() and not out.is_dir():
        raise PredictError(f"--out {out} is a file; name a folder")
    answer = load_model(open_store(), model)
    failed = []
    for file in progress.track(found, "predict", mode):
        try:
            data = files.read_bytes(file)
            said, georeference = answer(data), tags(data)
            _write(out / file.stem, said.labels, georeference)
            if instances:
                _write(out / f"{file.stem}_instances", _ids(said, model), georeference)
            if overlays:
                files.write_png(out / f"{file.stem}_overlay.png", _picture(data, said))
        except (files.FileError, ImageError, RegistryError) as error:
            failed.append(f"{file}: {error}")
    if failed:
        raise PredictError("\n".join(failed))


def _ids(said: Answer, model: str) -> bytes:
    """The image file of instance ids."""
    if said.instances is None:
        raise PredictError(f"{model} was registered by a segline that knew no instances; register it again")
    return said.instances


def _write(stem: Path, encoded: bytes, georeference: list[Tag]) -> None:
    """Write an image of ids to `stem` with the suffix that its bytes ask for, or as a GeoTIFF."""
    if georeference:
        ids = decode(encoded)[..., 0]
        encoded = geotiff(ids.astype(np.int32) if ids.dtype == np.float32 else ids, georeference)
    files.write_bytes(stem.with_name(stem.name + suffix(encoded)), encoded)


def _picture(image: bytes, said: Answer) -> RGB:
    """The outlines of all that is seen in `image`."""
    objects = None if said.instances is None else decode(said.instances)[..., 0]
    return overlay(decode(image), decode(said.labels)[..., 0], objects=objects)


def _files(paths: list[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            yield from sorted(file for file in path.iterdir() if file.is_file() and not file.name.startswith("."))
        else:
            yield path
