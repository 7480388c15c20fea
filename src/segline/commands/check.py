"""`segline check [DATASET]`: a table of all that is wrong with a dataset, before anything is trained on it."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from segline import files, params, progress
from segline.data import splits
from segline.data.checks import duplicates, per_dataset
from segline.data.dataset import Dataset
from segline.model.geometry import Geometry


class GroupsFileError(ValueError):
    """A file that groups are not written to; the message says what to do."""


def main(
    folder: Path | None, groups: Path | None, every: bool, mode: progress.Mode, say: Callable[[str], None]
) -> None:
    """Tell what is wrong with a dataset, and write groups for it where asked to.

    Parameters
    ----------
    folder : of the dataset; None takes data.source of params.yaml.
    groups : file to write, as groups.csv, with groups that keep alike images together.
    every : name every file, not some of each kind of problem.
    say : is told the table, unless it has errors.

    Raises
    ------
    UnfitError
        There are errors; the message is the table.
    DatasetError, GroupsFileError, ParamsError
        There is no dataset, the file for the groups is there already, or params.yaml is wrong.
    """
    # Without params.yaml a dataset can still be checked, its splits cannot.
    settings = params.load(params.Params, params.PARAMS_FILE) if not folder or params.PARAMS_FILE.exists() else None
    folder = folder or Path((settings or params.Params()).data.source)
    if groups is not None and groups.exists():
        raise GroupsFileError(f"--groups {groups}: it is there already; name another file, then replace this one by it")
    dataset, found = per_dataset.opened(folder)
    if dataset is not None:
        checked = per_dataset.inspect(
            dataset, lambda look, stems: progress.each(look, stems, "check", mode, dataset.memory)
        )
        found += per_dataset.judge(dataset, checked)
        if settings is not None:
            found += _of_settings(dataset, checked, settings)
        if groups is not None:
            say(_write_groups(groups, duplicates.groups(dataset, checked)))
    shown = {"most": len(found), "examples": len(found)} if every else {}
    per_dataset.refuse_errors(found, **shown)
    if found:
        say(per_dataset.table(found, **shown))
    images = "" if dataset is None else f"{len(dataset.images)} images: "
    say(f"{folder}: {images}no errors, {len(found) or 'no'} warning(s)")


def _of_settings(
    dataset: Dataset, checked: Sequence[per_dataset.Checked], settings: params.Params
) -> Iterator[per_dataset.Problem]:
    """What is wrong with the dataset for the splits and the network that params.yaml asks for."""
    prepare = settings.prepare
    if dataset.folder.resolve() != Path(settings.data.source).resolve():
        # Its names are those of another dataset.
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
    """Images with a side so short that mirroring it once does not give the network its context."""
    geometry = Geometry(model.depth, model.padding, model.upsampling, model.reduction)
    for image in checked:
        side = min(image.size or (geometry.smallest,))
        missing = geometry.margin or geometry.at_least(side) - side
        if missing >= side:
            yield per_dataset.Problem(
                "warning",
                per_dataset.name_of(dataset, dataset.images[image.stem]),
                f"{side} px at its shorter side, of which the network needs {missing} more: mirrored more than once",
                kind="images smaller than the network's margin",
            )


def _write_groups(file: Path, groups: dict[str, str]) -> str:
    import pandas as pd

    files.write_table(file, pd.DataFrame(sorted(groups.items()), columns=["image", "group"]))
    return f"{file}: {len(groups)} images in {len(set(groups.values()))} groups that keep alike images together"
