"""Check the files of one image: pixels, metadata, sizes and labels."""

from dataclasses import replace

import numpy as np

from segline.data import georeference, imagefiles
from segline.data.checks import annotations, duplicates, filenotes
from segline.data.checks.problems import Checked, Problem, name_of
from segline.data.dataset import Dataset
from segline.data.imagefiles import Labels
from segline.files import FileError
from segline.model.images import Raw


def examine(dataset: Dataset, stem: str) -> Checked:
    """Read and check the image `stem` and its label images, one file at a time."""
    checked = _image(dataset, stem)
    labels: dict[str, Labels] = {}
    problems: list[Problem] = []
    for kind, label_files in (("instances", dataset.instances), ("classes", dataset.classes)):
        if stem not in label_files:
            continue
        name = name_of(dataset, label_files[stem])
        try:
            labels[kind] = imagefiles.read_labels(label_files[stem])
        except FileError as error:
            problems.append(_unreadable(name, error))
            continue
        if checked.size is not None and labels[kind].shape != checked.size:
            hint = imagefiles.turned(dataset.images[stem])
            image = f"{name_of(dataset, dataset.images[stem])} has {_size(checked.size)} px"
            message = f"has {_size(labels[kind].shape)} px, but its image {image}{hint}"
            problems.append(Problem("error", name, message, kind="labels of another size than their image"))
        elif checked.size is not None and (message := georeference.apart(dataset.images[stem], label_files[stem])):
            problems.append(Problem("error", name, message, kind="labels at another place than their image"))
        problems += filenotes.problems(name, label_files[stem])
    if not any(problem.level == "error" for problem in problems):
        checked = _with_labels(dataset, checked, labels)
    return replace(checked, problems=(*checked.problems, *problems))


def _unreadable(name: str, error: FileError) -> Problem:
    # The table already names the file, so the message omits the name.
    return Problem("error", name, str(error).partition(": ")[2] or str(error), kind="files that cannot be read")


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[1]}x{shape[0]}"


def _image(dataset: Dataset, stem: str) -> Checked:
    """Read and check the image file, without its labels. The pixels are freed when this function returns."""
    name = name_of(dataset, dataset.images[stem])
    try:
        image = dataset.image(stem)
    except FileError as error:
        return Checked(stem, problems=(_unreadable(name, error),))
    problem = _pixels(name, image)
    noted = filenotes.problems(name, dataset.images[stem], image)
    return Checked(
        stem,
        form=(image.dtype.name, image.shape[2]),
        size=(image.shape[0], image.shape[1]),
        digest=duplicates.digest(image),
        code=None if problem else duplicates.code(image),
        problems=(*([problem] if problem else []), *noted),
    )


def _pixels(name: str, image: Raw) -> Problem | None:
    if image.dtype.kind == "f":
        not_finite = image.size - sum(int(np.count_nonzero(np.isfinite(row))) for row in image)
        if not_finite:
            message = f"{not_finite} values are NaN or infinite; replace them by finite values"
            return Problem("error", name, message, kind="NaN or infinite values", count=not_finite)
    if image.min() == image.max():
        message = f"every pixel has the value {image.flat[0]}; the network cannot learn from an empty image"
        return Problem("warning", name, message, kind="images of one value")
    return None


def _with_labels(dataset: Dataset, checked: Checked, labels: dict[str, Labels]) -> Checked:
    """Check that the labels are readable and fit the image; return a copy of `checked` with the results added."""
    spec, stem = dataset.spec, checked.stem
    problems_of_labels: list[Problem] = []
    values: dict[int, int] = {}
    classes, instances = labels.get("classes"), labels.get("instances")
    if instances is not None:
        name = name_of(dataset, dataset.instances[stem])
        inside = int(np.count_nonzero(instances))
        values = {0: instances.size - inside, 1: inside}
        problems_of_labels += annotations.of_instances(name, instances)
    if classes is not None:
        name = name_of(dataset, dataset.classes[stem])
        values = annotations.histogram(classes)
        problems_of_labels += annotations.of_classes(name, classes, values, spec)
    sound = not any(problem.level == "error" for problem in problems_of_labels)
    if sound and classes is not None and instances is not None:
        problems_of_labels += annotations.of_both(name_of(dataset, dataset.instances[stem]), classes, instances, spec)
    elif sound and classes is not None and not dataset.instances:
        problems_of_labels += annotations.of_areas(name, classes, values, spec)
    if labels:
        problems_of_labels += annotations.of_values(
            name, {value: count for value, count in values.items() if count}, spec
        )
    pixels = tuple((class_id, values[class_id]) for class_id in spec.classes if values.get(class_id))
    truth = b"".join(duplicates.digest(label_image) for label_image in labels.values())
    return replace(checked, truth=truth, pixels=pixels, problems=(*checked.problems, *problems_of_labels))
