"""Images of a dataset that are alike although they are kept apart, and groups that keep them together."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import numpy as np

from segline.data.checks import duplicates
from segline.data.checks.examine import Checked, name_of
from segline.data.checks.problems import Problem
from segline.data.dataset import GROUPS, Dataset

WAY_OUT = f"give both one group in {GROUPS}"


def problems(
    dataset: Dataset, checked: Sequence[Checked], part_of: Mapping[str, str], what: Literal["group", "split"]
) -> Iterator[Problem]:
    """Images that are alike and in two parts: one would be learned from, and the other judge what was learned.

    Images of one value, of which many can be alike, are left out.

    Parameters
    ----------
    part_of : group or split of each image.
    what : which of both. The same pixels in two splits are an error, all else is a warning.
    """
    images = [image for image in checked if image.code is not None]
    names = [name_of(dataset, dataset.images[image.stem]) for image in images]
    parts = [part_of[image.stem] for image in images]
    same = duplicates.twins([image.digest for image in images], parts)
    level: Literal["error", "warning"] = "error" if what == "split" else "warning"
    for index, other in _once(same):
        message = (
            f"in {what} {parts[index]}: same pixels as {names[other]} in {parts[other]}; remove one, or {WAY_OUT}: "
            "segline check --groups FILE writes it"
        )
        yield Problem(level, names[index], message, kind=f"same pixels in two {what}s")
    near = duplicates.partners(_codes(images), _numbers(parts))
    for index, other in _once({int(one): int(near[one]) for one in np.flatnonzero(near >= 0)}):
        if index not in same:
            message = f"in {what} {parts[index]}: looks like {names[other]} in {parts[other]}; if it is, {WAY_OUT}"
            yield Problem("warning", names[index], message, kind=f"images that look alike in two {what}s")


def contradictions(dataset: Dataset, checked: Sequence[Checked]) -> Iterator[Problem]:
    """Images of the same pixels with other labels."""
    images = [image for image in checked if image.code is not None and image.truth]
    found = duplicates.twins([image.digest for image in images], [image.truth for image in images])
    for index, other in _once(found):
        name, twin = (name_of(dataset, dataset.images[images[one].stem]) for one in (index, other))
        message = f"same pixels as {twin}, but other labels; one of both is wrong"
        yield Problem("warning", name, message, kind="images labelled twice, not in the same way")


def groups(dataset: Dataset, checked: Sequence[Checked], *, exactly: bool = False) -> dict[str, str]:
    """Group by image: those of the dataset, made one where images of two are alike, or `exactly` the same."""
    images = [image for image in checked if image.code is not None]
    names, labels = np.unique([dataset.groups[image.stem] for image in images], return_inverse=True)
    if exactly:
        pairs = duplicates.twins([image.digest for image in images], labels.tolist())
        united = duplicates.joined(labels, pairs.items())
    else:
        united = duplicates.united(_codes(images), labels)
    renamed = {str(names[old]): str(names[new]) for old, new in zip(labels, united, strict=True)}
    return {stem: renamed.get(group, group) for stem, group in dataset.groups.items()}


def _codes(images: Sequence[Checked]) -> duplicates.Codes:
    return np.array([image.code for image in images], np.uint64).reshape(-1, 4)


def _numbers(parts: Sequence[str]) -> duplicates.Indices:
    return np.unique(parts, return_inverse=True)[1]


def _once(pairs: Mapping[int, int]) -> Iterator[tuple[int, int]]:
    """Each index with its partner, but not the same pair the other way round."""
    return ((one, other) for one, other in sorted(pairs.items()) if one < other or pairs.get(other) != one)
