"""Check a whole dataset: its tables, file names, links, image types, classes and splits."""

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from segline.data import imagefiles
from segline.data.checks import duplicates
from segline.data.checks.per_image import examine
from segline.data.checks.problems import Checked, Problem, UnfitError, name_of, refuse_errors, table
from segline.data.dataset import GROUPS, SPEC, Dataset, DatasetError, by_stem, read_groups, read_spec
from segline.data.splits import FEWEST_IMAGES
from segline.files import FileError

__all__ = ["Checked", "Each", "Problem", "UnfitError", "name_of", "refuse_errors", "table"]

KINDS = ("images", "instances", "classes")
WINDOWS_FORBIDS = re.compile(r'[<>:"|?*\\]|[. ]$')
# Matches the end of a path in DVC's cache. DVC makes links to such paths if cache.type is symlink.
# The start of the path varies: DVC 3 adds files/md5, and the setting cache.dir can move the cache anywhere.
DVC_CACHE = re.compile(r"/[0-9a-f]{2}/[0-9a-f]{30}$")

Each = Callable[[Callable[[str], Checked], Sequence[str]], Iterator[Checked]]


def problems(dataset: Dataset, each: Each = map) -> list[Problem]:
    """Inspect the files of `dataset`; return all problems except problems of splits."""
    return judge(dataset, inspect(dataset, each))


def inspect(dataset: Dataset, each: Each = map) -> list[Checked]:
    """Read and check the files of all images; return one result per image, in the alphabetical order of the images.

    Parameters
    ----------
    each : function that is called like `map`; it may use all cores and show progress.
    """
    return list(each(lambda stem: examine(dataset, stem), dataset.stems))


def judge(dataset: Dataset, checked: Sequence[Checked]) -> list[Problem]:
    """Return all problems of the files, and of the dataset as a whole."""
    return [
        *portability(dataset),
        *_unpaired(dataset),
        *(problem for image in checked for problem in image.problems),
        *_mixed(dataset, checked),
        *_absent(dataset, checked, "dataset"),
        *_too_few(dataset),
        *duplicates.contradictions(dataset, checked),
        *duplicates.problems(dataset, checked, dataset.groups, "group"),
    ]


def of_splits(dataset: Dataset, checked: Sequence[Checked], splits: Mapping[str, str]) -> list[Problem]:
    """Return problems of the splits: images that occur in several splits, and classes that are missing in a split."""
    problems_of_splits = list(duplicates.problems(dataset, checked, splits, "split"))
    for split in sorted(set(splits.values())):
        problems_of_splits += _absent(
            dataset, [image for image in checked if splits[image.stem] == split], f"{split} split"
        )
    return problems_of_splits


def opened(folder: Path) -> tuple[Dataset | None, list[Problem]]:
    """Open the dataset in `folder`; return the dataset, and all problems of dataset.yaml, groups.csv and file stems.

    The dataset is None if it cannot be used. If only groups.csv is wrong, each image of the dataset is its own group.

    Raises
    ------
    DatasetError
        The folder is missing, or holds no dataset.
    """
    if folder.is_dir() and not (folder / SPEC).exists():
        raise DatasetError(
            f"{folder} holds no {SPEC}; `segline import {folder} --name NAME` makes a dataset from the files in this "
            "folder"
        )
    try:
        return Dataset.open(folder), []
    except (DatasetError, FileError) as error:
        if not folder.is_dir():
            raise
        refusal = str(error)
    problems: list[Problem] = []
    spec = _attempt(problems, folder, SPEC, read_spec, folder / SPEC)
    images, instances, classes = (
        _attempt(problems, folder, kind, by_stem, folder / kind, imagefiles.READABLE) for kind in KINDS
    )
    if problems:
        return None, problems
    _attempt(problems, folder, GROUPS, read_groups, folder / GROUPS, images)
    if problems != _lines(folder, GROUPS, refusal):
        return None, [*_lines(folder, "", refusal), *problems]
    return Dataset(folder, spec, images, instances, classes, {stem: stem for stem in images}), problems


def _attempt(problems: list[Problem], folder: Path, name: str, read: Callable[..., Any], *arguments: object) -> Any:
    """Call `read` and return the result. On an error, add the error message to `problems` and return None."""
    try:
        return read(*arguments)
    except (DatasetError, FileError) as error:
        problems += _lines(folder, name, str(error))
        return None


def _lines(folder: Path, name: str, message: str) -> list[Problem]:
    """Split `message` into problems. Each line that begins with a file path starts a problem; the path is removed.

    Lines without a path continue the problem before them.
    """
    parts = re.split(rf"^{re.escape(str(folder / name))}[:/ ]+", message, flags=re.MULTILINE)
    return [Problem("error", name or folder.name, " ".join(part.split())) for part in parts if part]


def _unpaired(dataset: Dataset) -> Iterator[Problem]:
    """Yield a problem for each image that has no label image, and for each label image that has no image."""
    for kind, label_files in (("instances", dataset.instances), ("classes", dataset.classes)):
        if not label_files:
            continue
        for stem in sorted(set(dataset.images) - set(label_files)):
            name = name_of(dataset, dataset.images[stem])
            yield Problem("error", name, f"has no label image {kind}/{stem}.*", kind=f"images without {kind}")
        for stem in sorted(set(label_files) - set(dataset.images)):
            message = f"has no image images/{stem}.*"
            yield Problem("error", name_of(dataset, label_files[stem]), message, kind=f"{kind} without image")


def _mixed(dataset: Dataset, checked: Sequence[Checked]) -> Iterator[Problem]:
    """Yield problems if images differ in pixel type or number of channels.

    A network accepts only images of one pixel type and one number of channels. A mixture of grey and RGB images is
    only a warning, because grey images are read as RGB.
    """
    forms = Counter(image.form for image in checked if image.form is not None)
    if len(forms) < 2:
        return
    merged: Counter[tuple[str, int]] = Counter()
    for form, times in forms.items():
        merged[_as_colour(form)] += times
    ((dtype, channels), times), *_ = merged.most_common()
    grey, colour = forms[dtype, 1], forms[dtype, 3]
    if grey and colour and channels == 3:
        message = f"{grey} images are grey and {colour} RGB; grey images are read as RGB with three equal channels"
        yield Problem("warning", "images", message, of_set=True)
    usual = f"{dtype} with {channels}" if not grey or channels != 3 else f"{dtype} with 1{' or 3' * bool(colour)}"
    for image in checked:
        if image.form is not None and _as_colour(image.form) != (dtype, channels):
            message = (
                f"is {image.form[0]} with {image.form[1]} channel(s), but {times} images are {usual} channel(s); "
                "a network takes images of one type and number of channels; convert or remove this image"
            )
            name = name_of(dataset, dataset.images[image.stem])
            yield Problem("error", name, message, of_set=True, kind=f"images that are not {usual} channel(s)")


def _as_colour(form: tuple[str, int]) -> tuple[str, int]:
    return (form[0], 3) if form[1] == 1 else form


def _absent(dataset: Dataset, checked: Sequence[Checked], where: str) -> Iterator[Problem]:
    """Yield a problem for each class without pixels.

    Nothing is reported if labels are missing or unusable, because they may contain these classes.
    """
    if not all(image.truth for image in checked):
        return
    present = {class_id for image in checked for class_id, _ in image.pixels}
    if len(present) < 2 and where in {"dataset", "train split"}:
        only = ", ".join(dataset.spec.classes[class_id] for class_id in present) or "ignored pixels"
        yield Problem("error", where, f"the labels contain only {only}; a network needs two classes to learn")
        return
    for class_id in sorted(set(dataset.spec.classes) - present):
        message = f"no pixel has class {class_id} ({dataset.spec.classes[class_id]})"
        yield Problem("warning", where, message, of_set=True)


def _too_few(dataset: Dataset) -> Iterator[Problem]:
    if len(dataset.images) < FEWEST_IMAGES:
        message = (
            f"there are {len(dataset.images)} image(s), but at least {FEWEST_IMAGES} are needed: one for training, two "
            "for validation, one for the test; add images, or cut large images into blocks with "
            "`segline import ... --cut SIDE`"
        )
        yield Problem("error", "images", message, of_set=True)


def portability(dataset: Dataset) -> Iterator[Problem]:
    """Yield a problem for each file name or link that would not work on another machine. No file is opened."""
    yield from _colliding(dataset)
    labels = [*dataset.instances.values(), *dataset.classes.values()]
    for file in (dataset.folder / SPEC, dataset.folder / GROUPS, *dataset.images.values(), *labels):
        name = name_of(dataset, file)
        yield from _name(name, file)
        yield from _link(name, file, dataset.folder)


def _colliding(dataset: Dataset) -> Iterator[Problem]:
    """Yield a problem for each image whose stem differs from another stem only by case or Unicode composition."""
    first: dict[str, str] = {}
    for stem in dataset.stems:
        earlier = first.setdefault(unicodedata.normalize("NFC", stem).casefold(), stem)
        if earlier != stem:
            name, twin = (name_of(dataset, dataset.images[colliding]) for colliding in (stem, earlier))
            message = f"differs from {twin} by case only; Windows and macOS treat both as one name; rename one of them"
            yield Problem("error", name, message, kind="names that differ by case only")


def _name(name: str, file: Path) -> Iterator[Problem]:
    """Yield a problem for a file name that cannot be stored in a table (CSV), or that Windows forbids."""
    kinds = {unicodedata.category(letter) for letter in file.name}
    if kinds & {"Cs", "Cc", "Zl", "Zp"}:
        what = "bytes that are not UTF-8" if "Cs" in kinds else "a control character"
        message = f"the name contains {what}, which tables and other machines cannot store; rename the file"
        yield Problem("error", name, message, kind="names that cannot be written in a table")
    elif WINDOWS_FORBIDS.search(file.stem):
        message = 'Windows forbids names with < > : " | ? * \\, or with a dot or space at the end; rename the file'
        yield Problem("warning", name, message, kind="names that Windows does not allow")


def _link(name: str, file: Path, folder: Path) -> Iterator[Problem]:
    """Yield a problem if `file` is a link to a target outside the dataset; links into DVC's cache are allowed."""
    if not (file.is_symlink() or file.parent.is_symlink()):
        return
    # Unlike Path.resolve, os.path.realpath does not fail for a link that points to itself.
    target = Path(os.path.realpath(file))
    if not target.is_relative_to(os.path.realpath(folder)) and not DVC_CACHE.search(target.as_posix()):
        message = f"is a link to {target}, outside the dataset; other machines lack that file; copy it into the dataset"
        yield Problem("error", name, message, kind="links out of the dataset")
