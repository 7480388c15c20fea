"""`segline predict`: label images with a registered model, by the code that it carries."""

import glob
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from segline import failure, files, progress
from segline.commands.predicted import RECORDS, SUFFIXES, Records, Request, Wishes
from segline.commands.predicting import label_large
from segline.commands.whole import label_whole
from segline.data import imagefiles, omezarr
from segline.data.checks import filenotes
from segline.data.chunked import SUFFIX
from segline.data.georeference import Tag, geotiff, tags
from segline.data.windows import open_windows, size_of
from segline.model.images import ImageError, decode
from segline.model.metadata import Note
from segline.model.objects import suffix
from segline.process import keep_freed_memory
from segline.score.overlay import RGB, overlay
from segline.track import answers
from segline.track.answers import Answer, Loaded
from segline.track.registry import RegistryError, load_model
from segline.track.store import open_store

LARGE = 2**24  # pixels; larger images go window by window
STEPS = 1000  # of progress for an image


class PredictError(ValueError):
    """Some images could not be labelled; the message says which and why."""


def main(
    images: list[str],
    model: str,
    out: Path,
    mode: progress.Mode,
    wishes: Wishes | None = None,
    *,
    trust: bool = False,
) -> None:
    """Write OUT/STEM.png, a label image, for each of `images`, and what else `wishes` ask for.

    OUT/STEM_instances.png, the ids of its objects, 16 bit (.tif, 32 bit, where there are more than 65,535),
    OUT/STEM_probabilities.tif, float32, a plane for each class, and a picture OUT/STEM_overlay.png. What is said of a
    GeoTIFF becomes a GeoTIFF at the same place on Earth, what is said of an image too large for memory a tiled TIFF,
    and what is said of an OME-Zarr image one of the same version, OUT/STEM.ome.zarr. What an earlier call wrote is not
    written again, and what it began is gone on with.

    Parameters
    ----------
    images:
        Files, folders whose files are taken, or patterns such as ``scans/**/*.tif``.
    model:
        Address in the registry, such as ``models:/cells@champion`` or ``models:/cells/3``.
    trust:
        The user vouches for a version of which registry.jsonl has no line.

    Raises
    ------
    PredictError
        There are no images, two would be written to one file, one or another's file would be replaced by labels, or a
        file is no image; the others are labelled all the same.
    """
    wishes = wishes or Wishes()
    found = _found(images)
    _doubt(found, images, out, wishes)
    keep_freed_memory()
    loaded = load_model(open_store(), model, trust=trust)
    failed = []
    noted: list[tuple[Path, tuple[Note, ...]]] = []
    with Records(out) as records, progress.meter("predict", mode, STEPS * len(found)) as meter:
        for number, file in enumerate(found):

            def show(what: str, done: int, total: int, number: int = number, file: Path = file) -> None:
                words = f"{number + 1}/{len(found)} {file.name}: {what} {done}/{total}"
                share = done * STEPS // total if what == "windows" else STEPS - 1  # what follows is quick
                meter.update(number * STEPS + share, lambda: words)

            try:
                request = records.request(file, model, loaded.md5, wishes)
                if not records.has(request):
                    records.add(request, _label(file, request, loaded, records, wishes=wishes, show=show))
                    noted.append((file, () if omezarr.is_zarr(file) else filenotes.notes(file)))
                show("windows", 1, 1)
            except (files.FileError, ImageError, RegistryError, OSError) as error:
                if failure.is_full(error):
                    raise
                failed.append(f"{error}" if str(file) in str(error) else f"{file}: {error}")
        meter.note(STEPS * len(found), f"predict {len(found) - len(failed)} of {len(found)} images are in {out}")
    for line in filenotes.lines("image", noted):
        progress.note(line)
    if failed:
        raise PredictError("\n".join(failed))


def _doubt(found: list[Path], images: list[str], out: Path, wishes: Wishes) -> None:
    """Refuse what cannot be written before anything is."""
    written = [f"{omezarr.stem(file)}{ending}" for file in found for ending in wishes.endings.values()]
    if twice := sorted({stem for stem in written if written.count(stem) > 1}):
        raise PredictError(f"two images would be written to {twice[0]}; rename one, or label them into two folders")
    if not found:
        raise PredictError(f"{', '.join(images)}: there is no file; name images, or folders that hold some")
    if out.exists() and not out.is_dir():
        raise PredictError(f"--out {out} is a file; name a folder")
    for file in found:
        _doubt_length(file, wishes)
    # Which suffix it will be is known only when the image is read.
    targets = {_real(out) / f"{stem}{suffix}" for stem in written for suffix in SUFFIXES}
    for file in found:
        # A link may be what is replaced, or the file that it leads to, or a folder above an image within zarr.
        places = _real(file.parent) / file.name, _real(file)
        if any(targets & {place, *place.parents} for place in places):
            raise PredictError(f"{file}: its labels would take its place in {out}; name another folder as --out")
    if not (out / RECORDS).exists() and (there := sorted(target for target in targets if os.path.lexists(target))):
        raise PredictError(
            f"{out / there[0].name} is there, and was not written by `segline predict`, which keeps {RECORDS} beside "
            "its files; move it away, or name another folder as --out"
        )


def _doubt_length(file: Path, wishes: Wishes) -> None:
    """Refuse a name that is too long for a file once endings are added to it."""
    suffix = SUFFIX if omezarr.is_zarr(file) else ".png"
    for ending in wishes.endings.values():
        name = f"{omezarr.stem(file)}{ending}{suffix}"
        if len(os.fsencode(name)) > files.NAME_MAX:
            raise PredictError(
                f"{file}: {name} would be longer than {files.NAME_MAX} bytes; give the image a shorter name"
            )


def _label(
    file: Path,
    request: Request,
    loaded: Loaded,
    records: Records,
    *,
    wishes: Wishes,
    show: Callable[[str, int, int], None],
) -> dict[str, str]:
    """Label one image; the names of the files, by what they are."""
    height, width = size_of(file)
    if height * width > LARGE:
        reason, needed = answers.memory(loaded, height, width)
        if not reason:
            with open_windows(file) as image:
                return label_large(image, request, loaded, records, wishes=wishes, show=show)
        if needed > progress.machine_memory() // 2:
            raise RegistryError(
                f"{width} x {height} px need about {needed / 2**30:.0f} GiB of memory at once, and cannot go window by "
                f"window: {reason}; cut the image"
            )
    if omezarr.is_zarr(file):
        with open_windows(file) as image:
            return label_whole(image, request, loaded, records, wishes)
    return _label_small(file, request, loaded, records, wishes)


def _label_small(file: Path, request: Request, loaded: Loaded, records: Records, wishes: Wishes) -> dict[str, str]:
    """Label an image in memory."""
    data = files.read_bytes(file)
    said, georeference = loaded(data, views=wishes.views, probabilities=wishes.probabilities), tags(data)
    if wishes.instances and said.instances is None:
        raise RegistryError("the version was registered by a segline that knew no instances; register it again")
    out = records.make_room(request)
    written = {"labels": _write(out / file.stem, said.labels, georeference)}
    if wishes.instances and said.instances is not None:
        written["instances"] = _write(out / f"{file.stem}_instances", said.instances, georeference)
    if (probabilities := said.probabilities) is not None:
        written["probabilities"] = f"{file.stem}_probabilities.tif"
        if georeference:
            probabilities = geotiff(np.moveaxis(decode(probabilities), -1, 0), georeference)
        files.write_bytes(out / written["probabilities"], probabilities)
    if wishes.overlays:
        written["overlays"] = f"{file.stem}_overlay.png"
        imagefiles.write_png(out / written["overlays"], _picture(data, said))
    return written


def _write(stem: Path, encoded: bytes, georeference: list[Tag]) -> str:
    """Write an image of ids to `stem` with the suffix that its bytes ask for, or as a GeoTIFF; the name."""
    if georeference:
        ids = decode(encoded)[..., 0]
        encoded = geotiff(ids.astype(np.int32) if ids.dtype == np.float32 else ids, georeference)
    file = stem.with_name(stem.name + suffix(encoded))
    files.write_bytes(file, encoded)
    return file.name


def _picture(image: bytes, said: Answer) -> RGB:
    """The outlines of all that is seen in `image`."""
    pixels, labels = decode(image), decode(said.labels)[..., 0]
    if pixels.shape[:2] != labels.shape:
        raise RegistryError(
            "the version was registered by a segline that did not turn images upright, as their orientation notes say; "
            "register it again, or remove the note"
        )
    objects = None if said.instances is None else decode(said.instances)[..., 0]
    return overlay(pixels, labels, objects=objects)


def _found(images: list[str]) -> list[Path]:
    """The images that are named, each once. Links of other names are images of their own."""
    if "" in images:
        raise PredictError("an image's name is empty; name files, folders or patterns, and `.` for this folder")
    every = [file for each in images for file in _files(each)]
    return list({(_real(file), omezarr.stem(file)): file for file in reversed(every)}.values())[::-1]


def _real(path: Path) -> Path:
    """Where it is when links are seen through; `Path.resolve` fails where they lead round in a circle."""
    return Path(os.path.realpath(path))


def _files(name: str) -> Iterator[Path]:
    """The images that a file, folder or pattern names."""
    path = Path(name)
    if omezarr.is_zarr(path):
        yield path
    elif not path.exists() and glob.has_magic(name):
        matching = map(Path, glob.glob(name, recursive=True))  # noqa: PTH207  it may begin anywhere
        yield from sorted(file for file in matching if _is_image(file))
    elif path.is_dir():
        yield from sorted(file for file in path.iterdir() if _is_image(file) and not file.name.startswith("."))
    else:
        yield path


def _is_image(path: Path) -> bool:
    """Whether it is a file, but not one of an OME-Zarr image, or such an image; or a link to nothing, to be named."""
    lost = path.is_symlink() and not path.exists()
    return (lost or path.is_file() or omezarr.is_zarr(path)) and not any(map(omezarr.is_zarr, path.parents))
