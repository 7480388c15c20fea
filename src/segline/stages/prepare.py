"""Stage prepare: check the dataset, split it, write arrays that can be memory-mapped."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from segline import params, progress
from segline.data import check, files, labels, splits
from segline.data.dataset import IGNORE, SPEC, Dataset, write_spec
from segline.data.prepared import MANIFEST, PREPARED, STATISTICS
from segline.data.statistics import Moments, moments, statistics

KINDS = ("images", "targets", "classes", "instances")


def main() -> None:
    """Write data/prepared from the dataset that params.yaml names in data.source."""
    settings, runtime = params.read(params.Prepare), params.read(params.Runtime)
    dataset = Dataset.open(Path(params.read(params.Data).source))
    found = check.problems(dataset, lambda look, stems: progress.each(look, stems, "check", runtime.progress))
    check.refuse_errors(found)
    if found:
        progress.note(check.table(found))
    split = splits.assign(dataset.groups, **settings.model_dump())
    with files.whole_folder(PREPARED) as folder:
        for kind in KINDS:
            files.make_folder(folder / kind)
        done = list(
            progress.each(lambda stem: _write(dataset, stem, folder), dataset.stems, "prepare", runtime.progress)
        )
        rows = [{**row, "split": split[stem]} for stem, (row, _) in zip(dataset.stems, done, strict=True)]
        files.write_table(folder / MANIFEST, pd.DataFrame(rows, columns=_columns(dataset)))
        train = [part for stem, (_, part) in zip(dataset.stems, done, strict=True) if split[stem] == "train"]
        files.write_json(folder / STATISTICS, asdict(statistics(train)))
        ignore = None if dataset.spec.ignore is None else IGNORE
        write_spec(folder / SPEC, dataset.spec.model_copy(update={"ignore": ignore}))
    progress.note(_summary(split))


def _write(dataset: Dataset, stem: str, folder: Path) -> tuple[dict[str, str | int], Moments]:
    """Write the arrays of one image; return its row of the manifest, but for the split, and its moments."""
    image = dataset.image(stem)
    classes, instances = dataset.truth(stem)
    targets = labels.separate(classes, instances, IGNORE)
    arrays: tuple[npt.NDArray[Any], ...] = (image, targets, classes, instances)
    for kind, array in zip(KINDS, arrays, strict=True):
        files.save_array(folder / kind / f"{stem}.npy", array)
    pixels = np.bincount(classes.ravel(), minlength=IGNORE + 1)
    row = {
        "image": stem,
        "file": dataset.images[stem].relative_to(dataset.folder).as_posix(),
        "md5": files.md5(dataset.images[stem]),
        "group": dataset.groups[stem],
        "height": image.shape[0],
        "width": image.shape[1],
        "channels": image.shape[2],
        "dtype": image.dtype.name,
        "instances": np.setdiff1d(instances, 0).size,
        **{f"pixels_{class_id}": int(pixels[class_id]) for class_id in dataset.spec.classes},
    }
    return row, moments(image)


def _columns(dataset: Dataset) -> list[str]:
    facts = ["group", "height", "width", "channels", "dtype", "instances"]
    return ["image", "file", "md5", "split", *facts, *(f"pixels_{class_id}" for class_id in dataset.spec.classes)]


def _summary(split: dict[str, splits.Split]) -> str:
    images = list(split.values())
    return ", ".join(f"{images.count(name)} {name}" for name in ("train", "validation", "test")) + " images"
