"""`segline check [DATASET]`: show a table of all problems of a dataset before training."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from segline import files, params, progress
from segline.data import splits
from segline.data.checks import duplicates, per_dataset
from segline.data.dataset import Dataset
from segline.model import geometry


class GroupsFileError(ValueError):
    """The groups file cannot be written; the message says what to do."""


def main(
    folder: Path | None, groups: Path | None, every: bool, mode: progress.Mode, say: Callable[[str], None]
) -> None:
    """Check a dataset; if `groups` is given, also write a groups file for the dataset.

    Parameters
    ----------
    folder : dataset folder; if None, check the folder that data.source in params.yaml names.
    groups : file to write in the format of groups.csv; its groups keep similar images together.
    every : name every file, not only some examples of each kind of problem.
    say : function that prints text. Warnings and a summary are printed only if there are no errors.

    Raises
    ------
    UnfitError
        There are errors; the message is the table.
    DatasetError, GroupsFileError, ParamsError
        There is no dataset, the groups file exists already, or params.yaml is wrong.
    """
    # Without params.yaml, a folder given by the user is still checked, except for its splits and image sizes.
    settings = params.load(params.Params, params.PARAMS_FILE) if not folder or params.PARAMS_FILE.exists() else None
    folder = folder or Path((settings or params.Params()).data.source)
    if groups is not None and groups.exists():
        raise GroupsFileError(
            f"--groups {groups}: the file exists already; give another file name, check the new file, and then "
            f"rename it to {groups.name}"
        )
    dataset, problems = per_dataset.opened(folder)
    if dataset is not None:
        checked = per_dataset.inspect(
            dataset, lambda look, stems: progress.each(look, stems, "check", mode, dataset.memory)
        )
        problems += per_dataset.judge(dataset, checked)
        if settings is not None:
            problems += _of_settings(dataset, checked, settings)
        if groups is not None:
            say(_write_groups(groups, duplicates.groups(dataset, checked)))
    shown = {"most": len(problems), "examples": len(problems)} if every else {}
    per_dataset.refuse_errors(problems, **shown)
    if problems:
        say(per_dataset.table(problems, **shown))
    images = "" if dataset is None else f"{len(dataset.images)} images: "
    say(f"{folder}: {images}no errors, {len(problems) or 'no'} warning(s)")


def _of_settings(
    dataset: Dataset, checked: Sequence[per_dataset.Checked], settings: params.Params
) -> Iterator[per_dataset.Problem]:
    """Yield the problems that would occur if the dataset were used with the splits and the network of params.yaml."""
    prepare = settings.prepare
    if dataset.folder.resolve() != Path(settings.data.source).resolve():
        # params.yaml describes another dataset, so its lists of validation and test images do not apply here.
        prepare = prepare.model_copy(update={"validation": (), "test": ()})
    if len(dataset.images) >= splits.FEWEST_IMAGES:
        try:
            yield from per_dataset.of_splits(dataset, checked, splits.assign(dataset.groups, **prepare.model_dump()))
        except splits.SplitError as error:
            yield per_dataset.Problem("error", str(params.PARAMS_FILE), str(error))
    yield from _too_small(dataset, checked, settings.model)


def _too_small(
    dataset: Dataset, checked: Sequence[per_dataset.Checked], model: params.Model
) -> Iterator[per_dataset.Problem]:
    """Yield a warning for each image that is so small that segline must mirror it repeatedly for the network."""
    sizes = geometry.of(**model.network)
    for image in checked:
        side = min(image.size or (sizes.smallest,))
        missing = sizes.margin or sizes.at_least(side) - side
        if missing >= side:
            yield per_dataset.Problem(
                "warning",
                per_dataset.name_of(dataset, dataset.images[image.stem]),
                f"the shorter side of the image has {side} px, but the network needs {missing} px more; the image is "
                "mirrored repeatedly",
                kind="images smaller than the network's margin",
            )


def _write_groups(file: Path, groups: dict[str, str]) -> str:
    import pandas as pd

    files.write_table(file, pd.DataFrame(sorted(groups.items()), columns=["image", "group"]))
    return f"{file}: {len(groups)} images in {len(set(groups.values()))} groups that keep similar images together"
