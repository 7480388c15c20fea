"""`segline predict`: predict images with a registered model, using the code in the model's package."""

import glob
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from segline import failure, files, progress
from segline.commands.prediction_records import RECORDS, SUFFIXES, PredictOptions, Records, Request
from segline.commands.scratch import scratch_folder
from segline.data import omezarr, writers
from segline.data.checks import filenotes
from segline.data.sources import OpenImage, open_image
from segline.data.writers import AnswerByRows
from segline.model.images import ImageError
from segline.model.metadata import Note
from segline.process import keep_freed_memory
from segline.track import answers, rows
from segline.track.answers import Loaded
from segline.track.history import RegistryError
from segline.track.rows import Show

STEPS = 1000  # progress steps per image


class PredictError(ValueError):
    """Some images could not be predicted; the message gives the reason for each of these images."""


def main(
    images: list[str],
    model: str,
    out: Path,
    mode: progress.Mode,
    options: PredictOptions | None = None,
    *,
    trust: bool = False,
) -> None:
    """Load a model, and predict images with it.

    Parameters
    ----------
    images : files, folders that contain images, or patterns such as ``scans/**/*.tif``.
    model : address in the registry, such as ``models:/cells@champion`` or ``models:/cells/3``, or a model folder.
    trust : use a version without a line in registry.jsonl, on the user's responsibility.
    out, mode, options : as in `predict_images`.

    Raises
    ------
    PredictError
        As in `check_targets` and `predict_images`.
    """
    options = options or PredictOptions()
    paths = _paths(images)
    check_targets(paths, images, out, options)  # before loading, which takes seconds
    keep_freed_memory()
    predict_images(answers.load(model, trust=trust), paths, model, out, mode, options=options)


def predict_images(
    version: Loaded, paths: list[Path], model: str, out: Path, mode: progress.Mode, *, options: PredictOptions
) -> dict[Path, dict[str, str]]:
    """Write the label image OUT/STEM.png of each image, and the further files that `options` select.

    The caller has called `check_targets`.

    - OUT/STEM_instances.png: instance ids in 16 bit; for more than 65,535 instances, a .tif file with 32 bit.
    - OUT/STEM_probabilities.tif: float32, a plane for each class.
    - OUT/STEM_overlay.png: a picture.

    The results of a GeoTIFF are GeoTIFFs at the same place on Earth. The results of an out-of-core image are tiled
    TIFFs. The results of an OME-Zarr image are OME-Zarr images of the same NGFF version, OUT/STEM.ome.zarr. Files that
    an earlier call has written are not written again, and an interrupted call is resumed.

    Parameters
    ----------
    paths : image files and OME-Zarr images.
    model : address of the version, for the records in `out`.

    Returns
    -------
    The names of the result files in `out` by kind, for each image.

    Raises
    ------
    PredictError
        Some files are not images. The other images are predicted all the same.
    """
    results, failed = dict[Path, dict[str, str]](), []
    noted: list[tuple[Path, tuple[Note, ...]]] = []
    with Records(out) as records, progress.meter("predict", mode, STEPS * len(paths)) as meter:
        for number, path in enumerate(paths):

            def show(step: str, done: int, total: int, number: int = number, path: Path = path) -> None:
                words = f"{number + 1}/{len(paths)} {path.name}: {step} {done}/{total}"
                share = done * STEPS // total if step == "windows" else STEPS - 1  # the steps after windows are quick
                meter.update(number * STEPS + share, lambda: words)

            try:
                results[path], is_new = _predict(path, version, model, records, options, show=show)
                if is_new:
                    noted.append((path, () if omezarr.is_zarr(path) else filenotes.notes(path)))
                show("windows", 1, 1)
            except (files.FileError, ImageError, RegistryError, OSError) as error:
                if failure.is_full(error):
                    raise
                failed.append(f"{error}" if str(path) in str(error) else f"{path}: {error}")
        meter.note(
            STEPS * len(paths), f"predict: {len(paths) - len(failed)} of {len(paths)} images have results in {out}"
        )
    for line in filenotes.lines("image", noted):
        progress.note(line)
    if failed:
        raise PredictError("\n".join(failed))
    return results


def _predict(
    path: Path, version: Loaded, model: str, records: Records, options: PredictOptions, *, show: Show
) -> tuple[dict[str, str], bool]:
    """Predict one image and write the result files, unless an earlier call has written them.

    Return two values: the names of the files by kind, and whether this call has written them.
    """
    with open_image(path) as image:
        kinds = tuple(options.endings)
        request = Request(omezarr.stem(path), image.md5(), version.md5, options.views, kinds, model)
        if written := records.written(request):
            return written, False
        with _answered(image, version, request, records.out, show) as answer:
            if options.instances and not answer.has_instances:
                raise RegistryError(rows.NO_INSTANCES)
            _ = image.georeference  # refuse a damaged georeference before removing files of an earlier version
            stem = records.make_room(request) / request.stem
            written = {
                kind: writers.write(stem.with_name(stem.name + ending), kind, answer, image).name
                for kind, ending in options.endings.items()
            }
        records.add(request, written)
    return written, True


@contextmanager
def _answered(image: OpenImage, version: Loaded, request: Request, out: Path, show: Show) -> Iterator[AnswerByRows]:
    """Yield the prediction of an image. A large image is predicted out-of-core, with a scratch folder in `out`."""
    if rows.by_windows(version, image.height, image.width):
        with scratch_folder(out, request) as folder:
            size = (image.height, image.width)
            yield rows.out_of_core(version, size, image.read, folder, views=request.views, show=show)
    else:
        probabilities = "probabilities" in request.kinds
        yield rows.InMemory(version(image.encoded(), views=request.views, probabilities=probabilities))


def check_targets(paths: list[Path], images: list[str], out: Path, options: PredictOptions) -> None:
    """Check that all results can be written, and that they will replace only files that segline itself wrote.

    Call this function before any file is written.

    Raises
    ------
    PredictError
        There are no images; two images would have the same result file; or a result would replace an image or a file
        that segline did not write.
    """
    stems = [f"{omezarr.stem(path)}{ending}" for path in paths for ending in options.endings.values()]
    if twice := sorted({stem for stem in stems if stems.count(stem) > 1}):
        raise PredictError(
            f"the results of two images would both be named {twice[0]}; rename one image, or "
            "predict the images separately, each with a folder of its own as --out"
        )
    if not paths:
        raise PredictError(f"{', '.join(images)}: no image found; give image files, or folders that contain images")
    if out.exists() and not out.is_dir():
        raise PredictError(f"--out {out} is a file; name a folder")
    for path in paths:
        _check_length(path, options)
    # Check all suffixes, because the suffix of a result file is not known before the image is read.
    targets = {_real(out) / f"{stem}{suffix}" for stem in stems for suffix in SUFFIXES}
    for path in paths:
        # A result must not replace an input, the file to which an input links, or a Zarr folder around the input.
        places = _real(path.parent) / path.name, _real(path)
        if any(targets & {place, *place.parents} for place in places):
            raise PredictError(f"{path}: its results in {out} would replace this image; name another folder as --out")
    if not (out / RECORDS).exists() and (foreign := sorted(target for target in targets if os.path.lexists(target))):
        raise PredictError(
            f"{out / foreign[0].name} exists, but `segline predict` did not write it (the folder has no {RECORDS}); "
            "move the file away, or name another folder as --out"
        )


def _check_length(path: Path, options: PredictOptions) -> None:
    """Refuse an image if the names of its result files would be too long."""
    suffix = writers.SUFFIX if omezarr.is_zarr(path) else ".png"
    for ending in options.endings.values():
        name = f"{omezarr.stem(path)}{ending}{suffix}"
        if len(os.fsencode(name)) > files.NAME_MAX:
            raise PredictError(
                f"{path}: the name of the result file {name} would be longer than {files.NAME_MAX} bytes; give the "
                "image a shorter name"
            )


def _paths(images: list[str]) -> list[Path]:
    """Expand files, folders and patterns to distinct images. Keep both a link and its target if their stems differ."""
    if "" in images:
        raise PredictError(
            "the name of an image is empty; give files, folders or patterns, such as `.` for the current folder"
        )
    paths = [path for name in images for path in _expanded(name)]
    return list({(_real(path), omezarr.stem(path)): path for path in reversed(paths)}.values())[::-1]


def _real(path: Path) -> Path:
    """Resolve links. Unlike `Path.resolve`, do not fail if links form a cycle."""
    return Path(os.path.realpath(path))


def _expanded(name: str) -> Iterator[Path]:
    """Yield the images that `name` stands for: one file, the images in a folder, or the matches of a pattern."""
    path = Path(name)
    if omezarr.is_zarr(path):
        yield path
    elif not path.exists() and glob.has_magic(name):
        matches = map(Path, glob.glob(name, recursive=True))  # noqa: PTH207  patterns may be absolute
        yield from sorted(match for match in matches if _is_image(match))
    elif path.is_dir():
        yield from sorted(file for file in path.iterdir() if _is_image(file) and not file.name.startswith("."))
    else:
        yield path


def _is_image(path: Path) -> bool:
    """Return whether `path` is a file, a broken link or an OME-Zarr image; False for paths inside an OME-Zarr image."""
    broken = path.is_symlink() and not path.exists()  # accepted, so that a later message names the link
    return (broken or path.is_file() or omezarr.is_zarr(path)) and not any(map(omezarr.is_zarr, path.parents))
