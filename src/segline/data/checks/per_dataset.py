"""Check a whole dataset."""

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

Each = Callable[[Callable[[str], Checked], Sequence[str]], Iterator[Checked]]


def problems(dataset: Dataset, each: Each = map) -> list[Problem]:
    """All that is wrong with `dataset` before anything is split: `judge` of what `inspect` finds."""
    return judge(dataset, inspect(dataset, each))


def inspect(dataset: Dataset, each: Each = map) -> list[Checked]:
    """What is known of each image, in alphabetical order, once all files were read.

    Parameters
    ----------
    each : like `map`; hand over one that uses all cores and shows progress.
    """
    return list(each(lambda stem: examine(dataset, stem), dataset.stems))


def judge(dataset: Dataset, checked: Sequence[Checked]) -> list[Problem]:
    """All that is wrong with the files, and with the set that they make."""
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
    """What is wrong once it is known which split (train, validation, test) each image is in."""
    found = list(duplicates.problems(dataset, checked, splits, "split"))
    for split in sorted(set(splits.values())):
        found += _absent(dataset, [image for image in checked if splits[image.stem] == split], f"{split} split")
    return found


def opened(folder: Path) -> tuple[Dataset | None, list[Problem]]:
    """The dataset in `folder`, and all that is wrong with dataset.yaml, groups.csv and stems; None where it is that.

    Where groups.csv alone is wrong, there is a dataset, whose images are each their own group.

    Raises
    ------
    DatasetError
        There is no such folder, or it holds no dataset.
    """
    if folder.is_dir() and not (folder / SPEC).exists():
        raise DatasetError(f"{folder} holds no {SPEC}: `segline import {folder} --name NAME` makes a dataset of it")
    try:
        return Dataset.open(folder), []
    except (DatasetError, FileError) as error:
        if not folder.is_dir():
            raise
        refusal = str(error)
    found: list[Problem] = []
    spec = _attempt(found, folder, SPEC, read_spec, folder / SPEC)
    images, instances, classes = (
        _attempt(found, folder, kind, by_stem, folder / kind, imagefiles.READABLE) for kind in KINDS
    )
    if found:
        return None, found
    _attempt(found, folder, GROUPS, read_groups, folder / GROUPS, images)
    if found != _lines(folder, GROUPS, refusal):
        return None, [*_lines(folder, "", refusal), *found]
    return Dataset(folder, spec, images, instances, classes, {stem: stem for stem in images}), found


def _attempt(found: list[Problem], folder: Path, name: str, read: Callable[..., Any], *arguments: object) -> Any:
    """What `read` gives; where it raises, None, and the lines of its message in `found`."""
    try:
        return read(*arguments)
    except (DatasetError, FileError) as error:
        found += _lines(folder, name, str(error))
        return None


def _lines(folder: Path, name: str, message: str) -> list[Problem]:
    """A problem for each line of a message that begins with its file, without that; other lines go on with theirs."""
    parts = re.split(rf"^{re.escape(str(folder / name))}[:/ ]+", message, flags=re.MULTILINE)
    return [Problem("error", name or folder.name, " ".join(part.split())) for part in parts if part]


def _unpaired(dataset: Dataset) -> Iterator[Problem]:
    for kind, known in (("instances", dataset.instances), ("classes", dataset.classes)):
        if not known:
            continue
        for stem in sorted(set(dataset.images) - set(known)):
            name = name_of(dataset, dataset.images[stem])
            yield Problem("error", name, f"has no label image {kind}/{stem}.*", kind=f"images without {kind}")
        for stem in sorted(set(known) - set(dataset.images)):
            message = f"has no image images/{stem}.*"
            yield Problem("error", name_of(dataset, known[stem]), message, kind=f"{kind} without image")


def _mixed(dataset: Dataset, checked: Sequence[Checked]) -> Iterator[Problem]:
    """Types and channels that differ: one network takes one form; grey is read as RGB where both are."""
    forms = Counter(image.form for image in checked if image.form is not None)
    if len(forms) < 2:
        return
    merged: Counter[tuple[str, int]] = Counter()
    for form, times in forms.items():
        merged[_as_colour(form)] += times
    ((dtype, channels), times), *_ = merged.most_common()
    grey, colour = forms[dtype, 1], forms[dtype, 3]
    if grey and colour and channels == 3:
        message = f"{grey} grey and {colour} RGB: grey ones are read as RGB with three equal channels"
        yield Problem("warning", "images", message, of_set=True)
    usual = f"{dtype} with {channels}" if not grey or channels != 3 else f"{dtype} with 1{' or 3' * bool(colour)}"
    for image in checked:
        if image.form is not None and _as_colour(image.form) != (dtype, channels):
            message = (
                f"{image.form[0]} with {image.form[1]} channel(s), but {times} images are {usual}; "
                "one network takes one form: convert or remove it"
            )
            name = name_of(dataset, dataset.images[image.stem])
            yield Problem("error", name, message, of_set=True, kind=f"images that are not {usual} channel(s)")


def _as_colour(form: tuple[str, int]) -> tuple[str, int]:
    return (form[0], 3) if form[1] == 1 else form


def _absent(dataset: Dataset, checked: Sequence[Checked], where: str) -> Iterator[Problem]:
    """Classes without pixels; not asked while labels are missing or not fit, for these may have them."""
    if not all(image.truth for image in checked):
        return
    present = {class_id for image in checked for class_id, _ in image.pixels}
    if len(present) < 2 and where in {"dataset", "train split"}:
        only = ", ".join(dataset.spec.classes[class_id] for class_id in present) or "ignored pixels"
        yield Problem("error", where, f"the labels hold {only} only; there is nothing to tell apart")
        return
    for class_id in sorted(set(dataset.spec.classes) - present):
        message = f"no pixel of class {class_id} {dataset.spec.classes[class_id]}"
        yield Problem("warning", where, message, of_set=True)


def _too_few(dataset: Dataset) -> Iterator[Problem]:
    if len(dataset.images) < FEWEST_IMAGES:
        message = (
            f"{len(dataset.images)} image(s); {FEWEST_IMAGES} at least are needed: one to learn from, two for "
            "validation, one for the test; add images, or import large ones in blocks: segline import ... --cut SIDE"
        )
        yield Problem("error", "images", message, of_set=True)


WINDOWS_FORBIDS = re.compile(r'[<>:"|?*\\]|[. ]$')
# Where DVC keeps content, and where its links lead when cache.type is symlink: DVC 3 in files/md5 of its cache, DVC 2
# in the cache itself, wherever cache.dir has that be.
DVC_CACHE = re.compile(r"/[0-9a-f]{2}/[0-9a-f]{30}$")


def portability(dataset: Dataset) -> Iterator[Problem]:
    """What is wrong with names and links, without opening a file."""
    yield from _colliding(dataset)
    labels = [*dataset.instances.values(), *dataset.classes.values()]
    for file in (dataset.folder / SPEC, dataset.folder / GROUPS, *dataset.images.values(), *labels):
        name = name_of(dataset, file)
        yield from _name(name, file)
        yield from _link(name, file, dataset.folder)


def _colliding(dataset: Dataset) -> Iterator[Problem]:
    """Images whose stems differ by case or by the composition of their letters only."""
    first: dict[str, str] = {}
    for stem in dataset.stems:
        other = first.setdefault(unicodedata.normalize("NFC", stem).casefold(), stem)
        if other != stem:
            name, twin = (name_of(dataset, dataset.images[one]) for one in (stem, other))
            message = f"differs from {twin} by case only, which Windows and macOS take for one name; rename one"
            yield Problem("error", name, message, kind="names that differ by case only")


def _name(name: str, file: Path) -> Iterator[Problem]:
    kinds = {unicodedata.category(letter) for letter in file.name}
    if kinds & {"Cs", "Cc", "Zl", "Zp"}:
        what = "bytes that are no UTF-8" if "Cs" in kinds else "a control character"
        message = f"the name holds {what}, which tables and other machines cannot hold; rename it"
        yield Problem("error", name, message, kind="names that cannot be written in a table")
    elif WINDOWS_FORBIDS.search(file.stem):
        message = 'Windows allows no name with < > : " | ? * \\, or a dot or space at its end; better rename it'
        yield Problem("warning", name, message, kind="names that Windows does not allow")


def _link(name: str, file: Path, folder: Path) -> Iterator[Problem]:
    """A link to another place, unless it is one into DVC's cache, which DVC itself made."""
    if not (file.is_symlink() or file.parent.is_symlink()):
        return
    # Unlike Path.resolve, this survives links that lead to themselves.
    target = Path(os.path.realpath(file))
    if not target.is_relative_to(os.path.realpath(folder)) and not DVC_CACHE.search(target.as_posix()):
        message = f"a link to {target}, outside the dataset; other machines do not have that: copy the file here"
        yield Problem("error", name, message, kind="links out of the dataset")
