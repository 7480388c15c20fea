"""DVC stage `prepare`: check the dataset, assign images to splits, and write arrays that can be memory-mapped."""

from dataclasses import asdict
from pathlib import Path

from segline import files, params, progress
from segline.data import gaps, labels, splits
from segline.data.checks import per_dataset
from segline.data.dataset import IGNORE, SPEC, Dataset, write_spec
from segline.data.prepared import MANIFEST, PREPARED, STATISTICS
from segline.model.images import Raw
from segline.model.normalisation import Moments, as_channels, moments, statistics

Row = dict[str, str | int]  # row of the manifest: column -> value of one image

KINDS = ("images", "targets", "classes", "instances")


def main() -> None:
    """Write data/prepared from the dataset folder that the setting data.source names."""
    settings, runtime = params.read(params.Prepare), params.read(params.Runtime)
    dataset = Dataset.open(Path(params.read(params.Data).source))
    checked = per_dataset.inspect(
        dataset, lambda look, stems: progress.each(look, stems, "check", runtime.progress, dataset.memory)
    )
    split = _split(dataset, checked, settings)
    # If the images are partly grey and partly RGB, write all as RGB. The checks refuse other mixes of channel counts.
    channels = max(image.form[1] for image in checked if image.form)
    with files.whole_folder(PREPARED) as folder:
        train = _write_all(dataset, split, channels, folder, runtime.progress)
        files.write_json(folder / STATISTICS, asdict(statistics([train])))
        ignore = None if dataset.spec.ignore is None else IGNORE
        write_spec(folder / SPEC, dataset.spec.model_copy(update={"ignore": ignore}))
    images = list(split.values())
    counts = ", ".join(f"{images.count(name)} {name}" for name in ("train", "validation", "test"))
    progress.note(f"{counts} images")


def _split(dataset: Dataset, checked: list[per_dataset.Checked], settings: params.Prepare) -> dict[str, splits.Split]:
    """Return the split of each image; raise an error if images or splits are invalid, and print warnings."""
    found = per_dataset.judge(dataset, checked)
    per_dataset.refuse_errors(found)
    split = splits.assign(dataset.groups, **settings.model_dump())
    found += per_dataset.of_splits(dataset, checked, split)
    per_dataset.refuse_errors(found)
    if found:
        progress.note(per_dataset.table(found))
    return split


def _write_all(
    dataset: Dataset, split: dict[str, splits.Split], channels: int, folder: Path, mode: progress.Mode
) -> Moments:
    """Write the arrays and the manifest; return the pixel moments (sums of values and squares) of training images."""
    for kind in KINDS:
        files.make_empty_folder(folder / kind)

    def write(stem: str) -> tuple[Row, Moments]:
        return _write(dataset, stem, channels, folder)

    results = progress.each(write, dataset.stems, "prepare", mode, dataset.memory)
    train: Moments | None = None
    with files.table_writer(folder / MANIFEST, _columns(dataset)) as add:
        # Manifest rows are written one by one, so that a dataset with very many images does not fill the memory.
        for stem, (row, of_image) in zip(dataset.stems, results, strict=True):
            add({**row, "split": split[stem]})
            if split[stem] == "train":
                train = of_image if train is None else train + of_image
    assert train is not None
    return train


def _write(dataset: Dataset, stem: str, channels: int, folder: Path) -> tuple[Row, Moments]:
    """Write the arrays of one image; return two values: its manifest row without the split, and its pixel moments."""
    form, of_image = _write_image(dataset.image(stem), channels, folder / f"images/{stem}.npy")
    row = {
        "image": stem,
        "file": dataset.images[stem].relative_to(dataset.folder).as_posix(),
        "md5": files.md5(dataset.images[stem]),
        "group": dataset.groups[stem],
    }
    return row | form | _write_labels(dataset, stem, folder), of_image


def _write_image(image: Raw, channels: int, file: Path) -> tuple[Row, Moments]:
    """Write an image with `channels` channels; return its size and type for the manifest, and its pixel moments.

    Height, width, number of channels and dtype are those before the conversion.
    """
    written = as_channels(image, channels)
    files.save_array(file, written)
    form: Row = {"height": image.shape[0], "width": image.shape[1], "channels": image.shape[2]}
    return {**form, "dtype": image.dtype.name}, moments(written)


def _write_labels(dataset: Dataset, stem: str, folder: Path) -> Row:
    """Write classes, instances and targets of an image; return its instance count and its pixel count per class."""
    classes, instances = dataset.truth(stem)
    files.save_array(folder / f"classes/{stem}.npy", classes)
    files.save_array(folder / f"instances/{stem}.npy", instances)
    files.save_array(folder / f"targets/{stem}.npy", gaps.separate(classes, instances, IGNORE))
    pixels = labels.areas(classes, IGNORE + 1)
    counts = {f"pixels_{class_id}": int(pixels[class_id]) for class_id in dataset.spec.classes}
    return {"instances": labels.ids(instances).size, **counts}


def _columns(dataset: Dataset) -> list[str]:
    columns = ["image", "file", "md5", "split", "group", "height", "width", "channels", "dtype", "instances"]
    return [*columns, *(f"pixels_{class_id}" for class_id in dataset.spec.classes)]
