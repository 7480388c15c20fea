"""Read a dataset folder: dataset.yaml, groups.csv, image files and label files."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, field_validator, model_validator

from segline import files, names
from segline.data import imagefiles, labels
from segline.model.images import Raw
from segline.text import MESSAGE, cut, shown

IGNORE = 255  # class id of ignored pixels in memory, whatever id the dataset uses
SPEC, GROUPS = "dataset.yaml", "groups.csv"
MOST = 20  # a message names at most this number of wrong fields
READING, LABELS = 4, 16  # bytes of memory needed per byte of an image, and per pixel of its labels
NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"

Kind = Literal["instances", "classes", "boundaries"]
Truth = tuple[npt.NDArray[np.uint8], npt.NDArray[np.int32]]  # classes (H, W), instances (H, W)


class DatasetError(ValueError):
    """Raised when a dataset folder cannot be used; the message names the file, field and value, and says what to do."""


class Spec(BaseModel):
    """Content of dataset.yaml: the description of a dataset."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, StringConstraints(pattern=NAME, max_length=names.LONGEST)] = Field(
        description="name of the dataset and of the registered model"
    )
    classes: dict[int, str] = Field(
        description="name of each id; ids start at 0, the background or the border between cells"
    )
    ignore: Annotated[int, Field(ge=1, le=255)] | None = Field(None, description="id of pixels that are ignored")
    labels: Kind = Field(
        description="instances: objects to count; classes: areas; boundaries: class 0 is the line between cells"
    )
    licence: str = Field("", description="licence under which the images may be used")
    source: str = Field("", description="where the images come from")

    @field_validator("classes")
    @classmethod
    def _fit_for_classes(cls, classes: dict[int, str]) -> dict[int, str]:
        return {class_id: names.check(name, f"class {class_id}:") for class_id, name in classes.items()}

    @model_validator(mode="after")
    def _classes_in_order(self) -> Self:
        if list(self.classes) != list(range(len(self.classes))) or not 2 <= len(self.classes) <= IGNORE:
            raise ValueError(
                f"class ids {list(self.classes)} must be consecutive numbers from 0; at least two classes are needed"
            )
        if len(set(self.classes.values())) < len(self.classes):
            raise ValueError(f"names {list(self.classes.values())}: two classes have the same name; rename one of them")
        if self.ignore in self.classes:
            raise ValueError(f"`ignore: {self.ignore}` is the id of a class; use another id, such as {IGNORE}")
        if self.labels == "boundaries" and len(self.classes) != 2:
            raise ValueError(
                f"`labels: boundaries` needs exactly two classes, border and cell, not {len(self.classes)}"
            )
        return self


@dataclass(frozen=True)
class Dataset:
    """Dataset folder; `images`, `instances` and `classes` map the stem of each image to a file."""

    folder: Path
    spec: Spec
    images: dict[str, Path]
    instances: dict[str, Path]
    classes: dict[str, Path]
    groups: dict[str, str]  # image -> group; an image without a group is its own group

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Open the dataset in `folder`. The image files are not checked; `data.checks` checks them.

        Raises
        ------
        DatasetError, FileError
            dataset.yaml is missing or wrong, a required folder is missing, or groups.csv does not match the images.
        """
        folder = names.on_disk(folder)
        if not folder.is_dir():
            raise DatasetError(
                f"{folder} is not a folder; `segline import FOLDER --name {folder.name}` makes this folder from the "
                "images and labels in FOLDER"
            )
        spec = read_spec(folder / SPEC)
        kinds = (folder / "images", folder / "instances", folder / "classes")
        images, instances, classes = (by_stem(kind, imagefiles.READABLE) for kind in kinds)
        if not images:
            raise DatasetError(
                f"{kinds[0]} holds no files of type {', '.join(imagefiles.READABLE)}; put the images there"
            )
        if not classes and (not instances or spec.labels != "instances"):
            wanted = "instances or classes" if spec.labels == "instances" else "classes"
            raise DatasetError(
                f"{folder} has no label images in {wanted}, which `labels: {spec.labels}` in {SPEC} requires"
            )
        if not classes and len(spec.classes) > 2:
            raise DatasetError(
                f"{folder} has {len(spec.classes)} classes, but it has no folder `classes` with label images of class "
                "ids"
            )
        return cls(folder, spec, images, instances, classes, read_groups(folder / GROUPS, images))

    @property
    def stems(self) -> list[str]:
        """Stems of the images, in alphabetical order."""
        return sorted(self.images)

    def image(self, stem: str) -> Raw:
        """Read the raw pixels (H, W, C) of an image."""
        return imagefiles.read_image(self.images[stem])

    def memory(self, stem: str) -> int:
        """Estimate how many bytes of memory it takes to read an image and its labels and to separate the instances."""
        try:
            height, width, channels, dtype = imagefiles.image_size(self.images[stem])
        except files.FileError:
            return 0  # the reader of the file reports the error
        return height * width * max(READING * channels * np.dtype(dtype).itemsize, LABELS)

    def truth(self, stem: str) -> Truth:
        """Return two arrays (H, W): class ids (IGNORE at ignored pixels) and instance ids (0 at background pixels).

        Without a folder `classes`, every instance is of class 1. Without a folder `instances`, the connected components
        of each class are the instances. For areas (`labels: classes`), components are 8-connected, so that a crack one
        pixel wide stays one component. Otherwise they are 4-connected, as a boundary separates diagonal neighbours.
        """
        if not self.classes:
            instances = imagefiles.read_labels(self.instances[stem]).astype(np.int32)
            return (instances > 0).astype(np.uint8), instances
        classes = imagefiles.read_labels(self.classes[stem])
        if self.spec.ignore is not None:
            classes = np.where(classes == self.spec.ignore, IGNORE, classes)
        classes = classes.astype(np.uint8)
        if not self.instances:
            return classes, labels.components(classes, IGNORE, 8 if self.spec.labels == "classes" else 4)
        instances = imagefiles.read_labels(self.instances[stem]).astype(np.int32)
        instances *= labels.foreground(classes, IGNORE)
        return classes, instances


def read_spec(file: Path) -> Spec:
    """Read and check the dataset.yaml at `file`; raise DatasetError if a field is wrong."""
    content = files.read_yaml(file)
    if not isinstance(content, dict):
        raise DatasetError(
            f"{file} holds a value of type {type(content).__name__} instead of the fields "
            f"{', '.join(Spec.model_fields)}"
        )
    return spec_of(content, str(file))


def spec_of(content: Mapping[str, object], file: str) -> Spec:
    """Convert `content`, read from `file`, to a Spec; raise a DatasetError if a field is wrong."""
    try:
        return Spec.model_validate(content)
    except ValidationError as error:
        raise DatasetError("\n".join(f"{file}: {line}" for line in _explained(error))) from None


def _explained(error: ValidationError) -> Iterator[str]:
    problems = error.errors(include_url=False)
    for problem in problems[:MOST]:
        name = cut(".".join(str(part) for part in problem["loc"]), MESSAGE)
        if problem["type"] == "extra_forbidden":
            yield f"{name} is not a field; the fields are {', '.join(Spec.model_fields)}"
        elif problem["type"] == "missing":
            yield f"{name} is missing ({Spec.model_fields[name].description})"
        else:
            value = f"{name} = {shown(problem['input'])}: " if name else ""
            yield value + cut(problem["msg"].removeprefix("Value error, "), MESSAGE)
    if len(problems) > MOST:
        yield f"and {len(problems) - MOST} more wrong fields"


def write_spec(file: Path, spec: Spec) -> None:
    """Write `spec` to `file`. Reading the file with `read_spec` gives an equal Spec."""
    files.write_yaml(file, spec.model_dump())


def by_stem(folder: Path, suffixes: Sequence[str] = ()) -> dict[str, Path]:
    """Map the stem (in NFC) of each file in `folder` to the path of the file, in alphabetical order.

    If `folder` is missing, the map is empty.

    Hidden files, folders and pipes are skipped. If `suffixes` are given, files with any other suffix are skipped, too.

    Raises
    ------
    DatasetError
        Two files have the same stem, or the folder cannot be listed.
    """
    file_of: dict[str, Path] = {}
    try:
        listed = sorted(folder.iterdir()) if folder.is_dir() else []
    except OSError as error:
        raise DatasetError(f"{folder} cannot be listed: {error.strerror}") from error
    for file in listed:
        # Skip pipes, because reading a pipe would block forever.
        # Keep broken links, because the code that reads them reports the error.
        wanted = not suffixes or file.suffix.lower() in suffixes
        if file.name.startswith(".") or not wanted or (file.exists() and not file.is_file()):
            continue
        stem = names.composed(file.stem)
        if stem in file_of:
            if file_of[stem].stem != file.stem:
                raise DatasetError(names.differ([file_of[stem], file]))
            raise DatasetError(
                f"{file} and {file_of[stem].name} have the same stem, but each image needs its own stem; rename one"
            )
        file_of[stem] = file
    return file_of


def read_groups(file: Path, images: Mapping[str, object], others: bool = False) -> dict[str, str]:
    """Read the group of each image from groups.csv. If the file is missing, each image is its own group.

    The columns are image and group.

    Parameters
    ----------
    others : whether the file may list further images.

    Raises
    ------
    DatasetError
        A column is missing, or an image is missing, unknown, listed twice or without a group.
    """
    if not file.exists():
        return {stem: stem for stem in images}
    table = files.read_table(file)
    for column in ("image", "group"):
        if column not in table:
            raise DatasetError(f"{file} has no column {column}; its columns are {', '.join(table.columns)}")
    known = [names.composed(name) for name in table["image"]]
    stems = [name if name in images else Path(name).stem for name in known]
    groups = dict(zip(stems, map(names.composed, table["group"]), strict=True))
    for what, which in (
        ("lists images that do not exist:", set() if others else set(stems) - set(images)),
        ("does not list these images:", set(images) - set(stems)),
        ("lists these images more than once:", {stem for stem, times in Counter(stems).items() if times > 1}),
        ("gives no group to these images:", {stem for stem, group in groups.items() if not group}),
    ):
        if which:
            raise DatasetError(f"{file} {what} {', '.join(sorted(which)[:5])} ({len(which)} in all)")
    return {stem: groups[stem] for stem in images}
