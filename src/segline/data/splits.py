"""Who is train, validation and test: by name or by percentage, and never with a group in two splits."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from math import ceil
from typing import Literal

import numpy as np

Split = Literal["train", "validation", "test"]

FEWEST = {"validation": 2, "test": 1}
PERCENT = {"validation": "val_percent", "test": "test_percent"}


class SplitError(ValueError):
    """Splits that cannot be made; the message names the setting and says what to set."""


def assign(
    groups: Mapping[str, str],
    *,
    val_percent: float,
    test_percent: float,
    validation: Sequence[str] = (),
    test: Sequence[str] = (),
    seed: int = 0,
) -> dict[str, Split]:
    """Return the split of each image, in alphabetical order of the images.

    A split that is named by images or groups is made of them; one that is not is drawn by percentage, rounded up, from
    the groups that no name took. It does not matter in which order the images come.

    Parameters
    ----------
    groups : image -> group; all images of a group go into one split.
    val_percent, test_percent : share of all images; of large groups as many as come close.
    validation, test : names of images or groups.
    seed : another seed, another draw by percentage.

    Raises
    ------
    SplitError
        A name is unknown, in two splits or splits a group; or fewer than two validation images, one test image or one
        training image would come out.
    """
    named = {"validation": _members(groups, "validation", validation), "test": _members(groups, "test", test)}
    _refuse_overlap(groups, named["validation"], named["test"])
    members: dict[str, list[str]] = {}
    for image in sorted(groups):
        members.setdefault(groups[image], []).append(image)
    taken = named["validation"] | named["test"]
    free = [group for group in sorted(members) if group not in taken]
    free = [free[index] for index in np.random.default_rng(seed).permutation(len(free))]
    for split, percent in (("test", test_percent), ("validation", val_percent)):
        if not named[split] and percent > 0:
            wanted = max(FEWEST[split], ceil(round(len(groups) * percent / 100, 9)))
            drawn = _draw({group: len(members[group]) for group in free}, wanted)
            named[split] = drawn
            free = [group for group in free if group not in drawn]
    splits = {image: _split_of(groups[image], named) for image in sorted(groups)}
    _refuse_too_few(splits)
    return splits


def _members(groups: Mapping[str, str], split: str, names: Sequence[str]) -> set[str]:
    """The groups that `names` of images or groups stand for."""
    known = set(groups.values())
    for name in names:
        if name not in groups and name not in known:
            near = get_close_matches(name, sorted(known | set(groups))) or sorted(groups)[:3]
            raise SplitError(f"prepare.{split}: {name!r} is neither image nor group; near to it: {', '.join(near)}")
        if name in known and groups.get(name, name) != name:
            raise SplitError(f"prepare.{split}: {name!r} is a group and an image of group {groups[name]!r}; rename one")
    found = {groups.get(name, name) for name in names}
    for image, group in groups.items():
        if group in found and group not in names and image not in names:
            raise SplitError(
                f"prepare.{split} names images of group {group!r}, but not {image!r}, which is of it too; "
                f"name the group, which must not be split"
            )
    return found


def _refuse_overlap(groups: Mapping[str, str], validation: set[str], test: set[str]) -> None:
    both = sorted(validation & test)
    if both:
        images = sorted(image for image, group in groups.items() if group in both)
        raise SplitError(
            f"prepare.validation and prepare.test both name {', '.join(images[:5])} ({len(images)} in all); "
            "an image is in one split"
        )


def _draw(sizes: Mapping[str, int], wanted: int) -> set[str]:
    """Groups of `wanted` images together, in the order given as far as they fit; then the smallest that fills up."""
    drawn: set[str] = set()
    count = 0
    for group, size in sizes.items():
        if count + size <= wanted:
            drawn.add(group)
            count += size
    rest = {group: size for group, size in sizes.items() if group not in drawn}
    if count < wanted and rest:
        smallest = min(rest, key=lambda group: rest[group])
        # Above by less than it is below without: closer to what is wanted. An empty split is no split at all.
        if not drawn or count + rest[smallest] - wanted < wanted - count:
            drawn.add(smallest)
    return drawn


def _split_of(group: str, named: Mapping[str, set[str]]) -> Split:
    if group in named["test"]:
        return "test"
    return "validation" if group in named["validation"] else "train"


def _refuse_too_few(splits: Mapping[str, Split]) -> None:
    counts = {split: list(splits.values()).count(split) for split in ("train", "validation", "test")}
    for split, fewest in FEWEST.items():
        if counts[split] < fewest:
            raise SplitError(
                f"{counts[split]} {split} image(s), but {fewest} are needed at least; set prepare.{PERCENT[split]} "
                f"above 0, or name images or groups in prepare.{split}"
            )
    if counts["train"] < 1:
        raise SplitError(
            f"no training image is left of {len(splits)} ({counts['validation']} validation, {counts['test']} test); "
            "add images, or set prepare.val_percent and prepare.test_percent lower or name fewer"
        )
