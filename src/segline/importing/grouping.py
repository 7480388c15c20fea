"""Group similar images; all images of a group are put into the same split.

Images are similar if they belong to one series, if a pattern finds the same group in their names, or if their pixels
are equal.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from segline import files, names
from segline.data.checks import duplicates
from segline.data.checks.problems import Checked
from segline.data.dataset import GROUPS, Dataset
from segline.importing.layout import ImportOptions, Layout, LayoutError, first_few

FEWEST_SERIES = 3  # if there are at least this many series, one for each split, each series stays whole
RUNS = 10  # if there are fewer series, they are cut into about this many runs of consecutive images in total


def series_groups(series: Mapping[str, Sequence[str]], kind: str) -> tuple[dict[str, str], str]:
    """Group consecutive images, such as slices or time points.

    Return two values: the group of each stem, and a line with the reason for these groups.

    If there are at least three series, each series is a group. Fewer series cannot fill three splits, and a random
    split would separate neighbours, which look alike. So each series is cut into runs of consecutive images.

    Parameters
    ----------
    series : stems in order, by the name of the series; each stem begins with this name and `_`.
    kind : the word that the reason uses for a series, such as stack.
    """
    if len(series) >= FEWEST_SERIES:
        whole = {stem: name for name, stems in series.items() for stem in stems}
        return whole, f"groups: each {kind} is a group, because images of one {kind} look alike"
    total = sum(map(len, series.values()))
    length = max(min(2, total // FEWEST_SERIES), -(-total // RUNS))
    if length < 2:
        single = {stem: stem for stems in series.values() for stem in stems}
        return single, (
            f"warning: {total} images are too few to group, so neighbours, which look alike, may be in different splits"
        )
    groups = {
        stem: _run_name(name, run.tolist())
        for name, stems in series.items()
        for run in np.array_split(np.array(stems), max(1, round(len(stems) / length)))
        for stem in run.tolist()
    }
    return groups, (
        f"groups: runs of about {length} consecutive images, because neighbours look alike and {len(series)} {kind}(s) "
        f"are too few to make each {kind} one group. Where two runs meet, neighbours may still be in different splits. "
        "For a stricter test, list consecutive groups from groups.csv in prepare.test and prepare.validation"
    )


def _run_name(series: str, run: Sequence[str]) -> str:
    return run[0] if len(run) == 1 else f"{run[0]}-{run[-1].removeprefix(f'{series}_')}"


def pattern_groups(layout: Layout, options: ImportOptions) -> tuple[dict[str, str] | None, list[str]]:
    """Return two values: the groups that --group-by defines, and lines that tell the user where the groups come from.

    Without --group-by, return the groups of the layout and no lines.

    Raises
    ------
    LayoutError
        --group-by is not a regular expression, or does not match all stems.
    """
    if options.group_by is None:
        return None if layout.groups is None else dict(layout.groups), []
    try:
        pattern = re.compile(names.composed(options.group_by))
    except re.error as error:
        raise LayoutError(f"--group-by {options.group_by!r} is not a regular expression: {error}") from error
    matches = {stem: pattern.search(stem) for stem in layout.images}
    unmatched = [stem for stem, match in matches.items() if not match]
    if unmatched:
        raise LayoutError(
            f"--group-by {options.group_by!r} does not match the image names {first_few(unmatched, 5)}; give a regular "
            r"expression whose first parentheses enclose the group, such as '^(patient\d+)_'"
        )
    groups = {stem: match[1] if match.groups() else match[0] for stem, match in matches.items() if match}
    return groups, [f"groups: the part of each image name that {options.group_by} matches (--group-by)"]


def with_twins_joined(folder: Path, dataset: Dataset, checked: Sequence[Checked]) -> tuple[Dataset, list[str]]:
    """Unite two groups if an image of one group has the same pixels as an image of the other.

    Return two values: the dataset with the new groups, and lines for the user.

    `segline prepare` refuses equal images in different splits.
    """
    groups = duplicates.groups(dataset, checked, exactly=True)
    joined = sorted(stem for stem, group in groups.items() if group != dataset.groups[stem])
    if not joined:
        return dataset, []
    write(folder / GROUPS, groups)
    return replace(dataset, groups=groups), [
        f"groups: images {first_few(joined, 5)} joined the group of an image with the same pixels"
    ]


def write(file: Path, groups: Mapping[str, str]) -> None:
    """Write groups.csv with the columns image and group."""
    import pandas as pd

    files.write_table(file, pd.DataFrame(sorted(groups.items()), columns=["image", "group"]))
