"""Assign images to the splits training, validation and test, by name or percentage; never divide a group."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from itertools import product
from math import ceil
from typing import Literal

import numpy as np

from segline.names import composed

Split = Literal["train", "validation", "test"]

FEWEST = {"validation": 2, "test": 1}
FEWEST_IMAGES = 1 + sum(FEWEST.values())  # one more image is needed for training
PERCENT = {"validation": "val_percent", "test": "test_percent"}


class SplitError(ValueError):
    """Raised when the splits cannot be made; the message names the setting and says what to do."""


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

    If `validation` or `test` names images or groups, the split consists of these images or groups. Any other split
    consists of whole groups, chosen at random from the remaining groups. The wanted number of images is the percentage
    of the split, rounded up, but at least the minimum of the split. The order of the images does not matter.

    Parameters
    ----------
    groups : image -> group; all images of a group go into one split.
    val_percent, test_percent : share of all images, approximated if groups are large.
    validation, test : names of images or groups.
    seed : seed of the random choice of groups.

    Raises
    ------
    SplitError
        A name is unknown, is in two splits or would divide a group; or the groups cannot give two validation images,
        one test image and one training image.
    """
    named = {"validation": _members(groups, "validation", validation), "test": _members(groups, "test", test)}
    _refuse_overlap(groups, named["validation"], named["test"])
    members: dict[str, list[str]] = {}
    for image in sorted(groups):
        members.setdefault(groups[image], []).append(image)
    taken = named["validation"] | named["test"]
    free = [group for group in sorted(members) if group not in taken]
    free = [free[index] for index in np.random.default_rng(seed).permutation(len(free))]
    percents = {"test": test_percent, "validation": val_percent}
    wanted = {
        split: max(FEWEST[split], ceil(round(len(groups) * percent / 100, 9)))
        for split, percent in percents.items()
        if not named[split] and percent > 0
    }
    drawn = _draw({group: len(members[group]) for group in free}, wanted)
    splits = {image: _split_of(groups[image], named | drawn) for image in sorted(groups)}
    _refuse_too_few(splits, named, percents, len(members))
    return splits


def _members(groups: Mapping[str, str], split: str, listed_names: Sequence[str]) -> set[str]:
    """Return the groups that `listed_names` selects. Each name is the name of a group or of an image."""
    listed = [composed(name) for name in listed_names]
    known = set(groups.values())
    for name in listed:
        if name not in groups and name not in known:
            near = get_close_matches(name, sorted(known | set(groups))) or sorted(groups)[:3]
            raise SplitError(
                f"prepare.{split}: {name!r} is neither an image nor a group; similar names: {', '.join(near)}"
            )
        if name in known and groups.get(name, name) != name:
            raise SplitError(
                f"prepare.{split}: {name!r} is both a group and an image of group {groups[name]!r}; rename one of them"
            )
    members = {groups.get(name, name) for name in listed}
    for image, group in groups.items():
        if group in members and group not in listed and image not in listed:
            raise SplitError(
                f"prepare.{split} names images of group {group!r}, but not its image {image!r}; "
                f"name the whole group, because a group must not be split"
            )
    return members


def _refuse_overlap(groups: Mapping[str, str], validation: set[str], test: set[str]) -> None:
    both = sorted(validation & test)
    if both:
        images = sorted(image for image, group in groups.items() if group in both)
        raise SplitError(
            f"prepare.validation and prepare.test both name {', '.join(images[:5])} ({len(images)} in all); "
            "an image belongs to one split; remove each image from one of the two settings"
        )


def _draw(sizes: Mapping[str, int], wanted: Mapping[str, int]) -> dict[str, set[str]]:
    """For each split, choose groups with about `wanted[split]` images in total; leave images for training if possible.

    Several choices are compared, because the split that is filled first may take groups that another split needs.
    """
    total = sum(sizes.values())
    aims = [wanted, {split: FEWEST[split] for split in wanted}]
    best, nearest = _draw_in_turn(sizes, wanted), float("inf")
    if sum(wanted.values()) >= total:
        return best
    for aim, order in product(aims, (list(wanted), list(wanted)[::-1])):
        drawn = _draw_in_turn(sizes, {split: aim[split] for split in order})
        counts = {split: sum(sizes[group] for group in drawn[split]) for split in wanted}
        enough = all(counts[split] >= FEWEST[split] for split in wanted) and sum(counts.values()) < total
        distance = sum(abs(counts[split] - wanted[split]) for split in wanted)
        if enough and distance < nearest:
            best, nearest = drawn, distance
    return best


def _draw_in_turn(sizes: Mapping[str, int], wanted: Mapping[str, int]) -> dict[str, set[str]]:
    splits: dict[str, set[str]] = {}
    for split, images in wanted.items():
        free = {group: size for group, size in sizes.items() if not any(group in drawn for drawn in splits.values())}
        splits[split] = _fill(free, images, FEWEST[split])
    return splits


def _fill(sizes: Mapping[str, int], wanted: int, fewest: int) -> set[str]:
    """Choose groups with about `wanted` images in total.

    Take all groups that fit, in order; then the smallest remaining group, if the total comes closer to `wanted`.
    """
    drawn: set[str] = set()
    count = 0
    for group, size in sizes.items():
        if count + size <= wanted:
            drawn.add(group)
            count += size
    rest = {group: size for group, size in sizes.items() if group not in drawn}
    if count < wanted and rest:
        smallest = min(rest, key=lambda group: rest[group])
        # The total is below `wanted`; if the smallest remaining group were added, the total would be above `wanted`.
        # Add the smallest remaining group if this brings the total closer to `wanted`.
        if count + rest[smallest] - wanted < wanted - count:
            drawn.add(smallest)
        elif count < fewest:
            # The chosen groups have fewer than `fewest` images, and the smallest remaining group is too large to add.
            # The smallest remaining group is large enough by itself, so choose only this group.
            drawn = {smallest}
    return drawn


def _split_of(group: str, named: Mapping[str, set[str]]) -> Split:
    if group in named["test"]:
        return "test"
    return "validation" if group in named["validation"] else "train"


def _refuse_too_few(
    splits: Mapping[str, Split], named: Mapping[str, set[str]], percents: Mapping[str, float], groups: int
) -> None:
    counts = {split: list(splits.values()).count(split) for split in ("train", "validation", "test")}
    whole = f"{len(splits)} image(s)" + ("" if groups == len(splits) else f" in {groups} undivided group(s)")
    for split, fewest in FEWEST.items():
        if counts[split] >= fewest:
            continue
        setting = f"prepare.{PERCENT[split]}"
        if named[split]:
            way = f"name more images in prepare.{split}, or name none and set {setting} above 0"
        elif percents[split] > 0:
            way = f"{setting} = {percents[split]:g} selects no further image from {whole}; add images or groups"
        else:
            way = f"set {setting} above 0, or name images or groups in prepare.{split}"
        raise SplitError(f"{counts[split]} {split} image(s), but at least {fewest} are needed; {way}")
    if counts["train"] < 1:
        raise SplitError(
            f"validation ({counts['validation']} images) and test ({counts['test']} images) together take all {whole}, "
            "so no image is left for training; add images or groups, lower prepare.val_percent and "
            "prepare.test_percent, or list fewer images in prepare.validation and prepare.test"
        )
