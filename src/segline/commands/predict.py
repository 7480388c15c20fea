"""`segline predict`: label images with a registered model, by the code that it carries."""

from collections.abc import Iterator
from pathlib import Path

from segline import progress
from segline.data import files
from segline.model.images import ImageError, decode
from segline.score.overlay import overlay
from segline.track.registry import RegistryError, load_model
from segline.track.store import open_store


class PredictError(ValueError):
    """Some images could not be labelled; the message says which and why."""


def main(images: list[Path], model: str, out: Path, overlays: bool, mode: progress.Mode) -> None:
    """Write OUT/STEM.png, a label image, for each of `images`, and OUT/STEM_overlay.png where asked for.

    Parameters
    ----------
    images:
        Files, or folders whose files are taken.
    model:
        Address in the registry, such as ``models:/cells@champion`` or ``models:/cells/3``.

    Raises
    ------
    PredictError
        Two images have one stem, or a file is no image; the others are labelled all the same.
    """
    found = list(_files(images))
    stems = [file.stem for file in found]
    twice = sorted({stem for stem in stems if stems.count(stem) > 1})
    if twice:
        raise PredictError(f"{twice[0]} is the stem of two images, which would be written to one file")
    answer = load_model(open_store(), model)
    out.mkdir(parents=True, exist_ok=True)
    failed = []
    for file in progress.track(found, "predict", mode):
        try:
            data = files.read_bytes(file)
            labels = answer(data)
            files.write_bytes(out / f"{file.stem}.png", labels)
            if overlays:
                files.write_png(out / f"{file.stem}_overlay.png", overlay(decode(data), decode(labels)[..., 0]))
        except (files.FileError, ImageError, RegistryError) as error:
            failed.append(f"{file}: {error}")
    if failed:
        raise PredictError("\n".join(failed))


def _files(paths: list[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            yield from sorted(file for file in path.iterdir() if file.is_file() and not file.name.startswith("."))
        else:
            yield path
