"""The layout of images with one mask each."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from segline.data import imagefiles
from segline.data.dataset import IGNORE
from segline.data.imagefiles import Labels
from segline.importing.formats import Each, Layout, LayoutError, Mask, Picture, Wishes
from segline.importing.formats.census import Census, facts_of
from segline.importing.formats.masks import Meaning, as_named, guess


def layout(
    images: Mapping[str, Picture],
    masks: Mapping[str, Mask],
    wishes: Wishes,
    *,
    reasons: Sequence[str] = (),
    groups: Mapping[str, str] | None = None,
    named: Mapping[int, str] | None = None,
    blank: Mapping[str, Path] | None = None,
    each: Each = map,
) -> Layout:
    """The layout of `images` with one mask each, whose meaning is guessed from all masks or taken from `wishes`.

    Parameters
    ----------
    named : names by class id, where the masks are known to hold classes; IGNORE may be among them.
    blank : image files that have no mask, for they hold background only.

    Raises
    ------
    LayoutError, FileError
        A mask cannot be read, or cannot be meant.
    """
    if wishes.threshold is not None:
        masks = {stem: Mask(mask.file, partial(_above, mask, wishes.threshold)) for stem, mask in masks.items()}
        reasons = (*reasons, f"mask values above {wishes.threshold:g} are foreground, as told")
    census = Census.of(each(facts_of, [masks[stem] for stem in sorted(masks)]))
    meaning = guess(census, wishes) if named is None else as_named(census, wishes, named)
    if blank:
        _refuse_no_background(meaning)
        masks = {**masks, **{stem: Mask(file, partial(_background, file)) for stem, file in blank.items()}}
    found = Layout(
        images,
        meaning.labels,
        meaning.names,
        (*reasons, *meaning.reasons),
        class_of=meaning.class_of,
        joined=meaning.joined,
        groups=groups,
    )
    return replace(found, instances=masks) if meaning.class_of is None else replace(found, classes=masks)


def _above(mask: Mask, threshold: float) -> Labels:
    return (mask.read() > threshold).astype(np.uint8)


def _background(image: Path) -> Labels:
    head = imagefiles.image_size(image)
    return np.zeros((head.height, head.width), np.uint8)


def _refuse_no_background(meaning: Meaning) -> None:
    if meaning.labels == "boundaries":
        raise LayoutError(
            "--missing-as-background: class 0 is the border between cells here, no background; leave it out, or, if 0 "
            "is plain background, say --labels classes"
        )
    if meaning.class_of is not None and meaning.class_of.get(0) == IGNORE:
        raise LayoutError("--missing-as-background and --ignore 0: 0 is either background or does not count")
