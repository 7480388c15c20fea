"""What makes a dataset unfit, said with file name and value."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from segline.data import files
from segline.data.dataset import Dataset
from segline.data.files import FileError, Labels
from segline.model.images import Raw

FEWEST_IMAGES = 4  # one to learn from, two for validation, one for the test


class UnfitError(ValueError):
    """A dataset with errors; the message is their table."""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: errors stop the line, warnings do not."""

    level: Literal["error", "warning"]
    file: str
    message: str
    of_set: bool = False  # the file is fit; it does not go with the others, or there are too few


@dataclass(frozen=True)
class Checked:
    """What is known of one image after its files were read; `form` is type and channels, when it can be read."""

    stem: str
    form: tuple[str, int] | None
    problems: tuple[Problem, ...]


Each = Callable[[Callable[[str], Checked], Sequence[str]], Iterator[Checked]]


def problems(dataset: Dataset, each: Each = map) -> list[Problem]:
    """All that is wrong with `dataset`, in the order of its images.

    Parameters
    ----------
    each : like `map`; hand over one that uses all cores and shows progress.
    """
    checked = list(each(lambda stem: check_image(dataset, stem), dataset.stems))
    in_files = [problem for image in checked for problem in image.problems]
    return [*_unpaired(dataset), *in_files, *_mixed(dataset, checked), *_too_few(dataset)]


def refuse_errors(found: Sequence[Problem]) -> None:
    """Raise UnfitError with a table of `found` when there is an error among it."""
    errors = sum(problem.level == "error" for problem in found)
    if errors:
        raise UnfitError(f"{table(found)}\n{errors} error(s): mend or remove these files; nothing was written")


def table(found: Sequence[Problem], most: int = 50) -> str:
    """Problems one a line, errors first, `most` lines at most."""
    ordered = sorted(found, key=lambda problem: problem.level != "error")
    width = max((len(problem.file) for problem in ordered[:most]), default=0)
    lines = [f"{problem.level:<8} {problem.file:<{width}}  {problem.message}" for problem in ordered[:most]]
    return "\n".join([*lines, *([f"... and {len(ordered) - most} more"] if len(ordered) > most else [])])


def check_image(dataset: Dataset, stem: str) -> Checked:
    """What is wrong with the files of one image."""
    found: list[Problem] = []
    image: Raw | None = None
    try:
        image = dataset.image(stem)
        found += _pixels(_name(dataset, "images", stem), image)
    except FileError as error:
        found.append(_unreadable(_name(dataset, "images", stem), error))
    labels: dict[str, Labels] = {}
    for kind, known in (("instances", dataset.instances), ("classes", dataset.classes)):
        if stem not in known:
            continue
        name = _name(dataset, kind, stem)
        try:
            labels[kind] = files.read_labels(known[stem])
        except FileError as error:
            found.append(_unreadable(name, error))
            continue
        if image is not None and labels[kind].shape != image.shape[:2]:
            found.append(Problem("error", name, f"{_size(labels[kind])} px, but its image is {_size(image)} px"))
    if "classes" in labels:
        found += _outside(_name(dataset, "classes", stem), labels["classes"], dataset)
    if len(labels) == 2 and labels["classes"].shape == labels["instances"].shape:
        found += _disagree(_name(dataset, "instances", stem), labels["classes"], labels["instances"], dataset)
    return Checked(stem, None if image is None else (image.dtype.name, image.shape[2]), tuple(found))


def _name(dataset: Dataset, kind: str, stem: str) -> str:
    file = {"images": dataset.images, "instances": dataset.instances, "classes": dataset.classes}[kind][stem]
    return file.relative_to(dataset.folder).as_posix()


def _size(array: npt.NDArray[np.generic]) -> str:
    return f"{array.shape[1]}x{array.shape[0]}"


def _unreadable(name: str, error: FileError) -> Problem:
    return Problem("error", name, str(error).partition(": ")[2])


def _pixels(name: str, image: Raw) -> Iterator[Problem]:
    if image.dtype.kind == "f":
        wrong = int(np.count_nonzero(~np.isfinite(image)))
        if wrong:
            yield Problem("error", name, f"{wrong} pixels are NaN or infinite; give them a value")
            return
    if image.size and image.min() == image.max():
        yield Problem("warning", name, f"every pixel is {image.flat[0]}; an empty image teaches nothing")


def _outside(name: str, classes: Labels, dataset: Dataset) -> Iterator[Problem]:
    """Values that dataset.yaml does not know."""
    allowed = [*dataset.spec.classes, *([] if dataset.spec.ignore is None else [dataset.spec.ignore])]
    values, counts = np.unique(classes, return_counts=True)
    strange = ~np.isin(values, allowed)
    if strange.any():
        found = zip(values[strange], counts[strange], strict=True)
        first = ", ".join(f"{value} ({count} px)" for value, count in found)
        yield Problem(
            "error",
            name,
            f"values outside the class table: {first[:120]}; add them to classes in dataset.yaml, or mend the image",
        )


def _disagree(name: str, classes: Labels, instances: Labels, dataset: Dataset) -> Iterator[Problem]:
    """Pixels that are of a class but of no instance, or the other way round."""
    counted = classes != dataset.spec.ignore if dataset.spec.ignore is not None else np.ones(classes.shape, bool)
    for wrong, what in (
        (counted & (classes > 0) & (instances == 0), "have a class but no instance"),
        (counted & (classes == 0) & (instances > 0), "have an instance but are background in classes"),
    ):
        if wrong.any():
            y, x = np.argwhere(wrong)[0]
            yield Problem("error", name, f"{np.count_nonzero(wrong)} pixels {what}, the first at x {x}, y {y}")


def _unpaired(dataset: Dataset) -> Iterator[Problem]:
    for kind, known in (("instances", dataset.instances), ("classes", dataset.classes)):
        if not known:
            continue
        for stem in sorted(set(dataset.images) - set(known)):
            yield Problem("error", _name(dataset, "images", stem), f"has no label image {kind}/{stem}.*")
        for stem in sorted(set(known) - set(dataset.images)):
            yield Problem("error", _name(dataset, kind, stem), f"has no image images/{stem}.*")


def _mixed(dataset: Dataset, checked: Sequence[Checked]) -> Iterator[Problem]:
    """Types and channels that differ: one network takes one form."""
    forms = Counter(image.form for image in checked if image.form is not None)
    if len(forms) < 2:
        return
    (usual, times), *_ = forms.most_common()
    for image in checked:
        if image.form not in (usual, None):
            assert image.form is not None
            yield Problem(
                "error",
                _name(dataset, "images", image.stem),
                f"{image.form[0]} with {image.form[1]} channel(s), but {times} images are {usual[0]} with {usual[1]}; "
                "one network takes one form: convert or remove it",
                of_set=True,
            )


def _too_few(dataset: Dataset) -> Iterator[Problem]:
    if len(dataset.images) < FEWEST_IMAGES:
        yield Problem(
            "error",
            "images",
            f"{len(dataset.images)} image(s); {FEWEST_IMAGES} at least are needed: one to learn from, two for "
            "validation, one for the test",
            of_set=True,
        )
