"""Describe a source with one mask per image as a Layout; if no option explains the mask values, guess their meaning."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from segline.data import imagefiles
from segline.data.dataset import IGNORE, Kind
from segline.data.imagefiles import Labels
from segline.importing.formats import noise
from segline.importing.formats.census import MOST_CLASSES, Census, counts_of
from segline.importing.layout import ImageSource, ImportOptions, Layout, LayoutError, Mapper, MaskSource, first_few

WHOLE = 0.95  # values are object ids only if, over all masks, at least this share of them each form a single component
PLAIN_IDS = 255  # values above this are object ids more often than class ids
FEWEST_IDS = 3  # if there are fewer values above 0 than this, they are taken as class ids, however seldom they recur


@dataclass(frozen=True)
class Meaning:
    """Meaning of the mask values of a source; the class Layout explains the fields."""

    labels: Kind
    names: Mapping[int, str]
    class_of: Mapping[int, int] | None
    reasons: tuple[str, ...]
    label_components: bool = False


def layout(
    images: Mapping[str, ImageSource],
    masks: Mapping[str, MaskSource],
    options: ImportOptions,
    *,
    reasons: Sequence[str] = (),
    groups: Mapping[str, str] | None = None,
    named: Mapping[int, str] | None = None,
    blank: Mapping[str, Path] | None = None,
    mapper: Mapper = map,
) -> Layout:
    """Return a Layout that describes a source with one mask per image.

    The meaning of the mask values is guessed, unless `options` or `named` state the meaning.

    Parameters
    ----------
    named : class names by id, if the mask values are known to be class ids; the ids may include IGNORE.
    blank : images without mask, by stem; these images hold background only.

    Raises
    ------
    LayoutError, FileError
        A mask cannot be read, or its values are ambiguous.
    """
    if options.threshold is not None:
        masks = {stem: MaskSource(mask.file, partial(_above, mask, options.threshold)) for stem, mask in masks.items()}
        reasons = (*reasons, f"mask values above {options.threshold:g} are foreground (--threshold)")
    census = Census.of(mapper(counts_of, [masks[stem] for stem in sorted(masks)]))
    meaning = guess(census, options) if named is None else of_named(census, options, named)
    if blank:
        _refuse_no_background(meaning)
        masks = {**masks, **{stem: MaskSource(file, partial(_background, file)) for stem, file in blank.items()}}
    unmasked = Layout(
        images,
        meaning.labels,
        meaning.names,
        (*reasons, *meaning.reasons),
        class_of=meaning.class_of,
        label_components=meaning.label_components,
        groups=groups,
    )
    return replace(unmasked, instances=masks) if meaning.class_of is None else replace(unmasked, classes=masks)


def _above(mask: MaskSource, threshold: float) -> Labels:
    return (mask.read() > threshold).astype(np.uint8)


def _background(image: Path) -> Labels:
    header = imagefiles.image_size(image)
    return np.zeros((header.height, header.width), np.uint8)


def _refuse_no_background(meaning: Meaning) -> None:
    if meaning.labels == "boundaries":
        raise LayoutError(
            "--missing-as-background: segline reads these masks as boundary masks, in which 0 is the border between "
            "cells, not background; leave the option out, or add --labels classes if 0 is background"
        )
    if meaning.class_of is not None and meaning.class_of.get(0) == IGNORE:
        raise LayoutError(
            "--missing-as-background and --ignore 0 disagree on whether 0 is background or ignored; leave out one of "
            "these options"
        )


def guess(census: Census, options: ImportOptions) -> Meaning:
    """Guess the meaning of mask values that are not known to be class ids.

    Raises
    ------
    LayoutError
        The masks are anti-aliased, noisy, empty or ambiguous, or contradict `options`.
    """
    ignore = options.ignore
    values = sorted(set(census.pixels) - {ignore})
    _refuse_empty(census, values, options)
    noise.refuse_smooth(census, values, options)
    noise.refuse_white_beside_ids(census, values, options)
    kind, reason = _requested(options.labels) if options.labels else guess_kind(census, values)
    if kind == "instances":
        if options.labels:
            noise.refuse_noisy_instances(census, values)
        return _instances(values, reason, options.names, ignore)
    noise.refuse_noisy_classes(census, values, options)
    if kind == "boundaries" and len(values) != 2:
        raise LayoutError(
            "--labels boundaries needs masks with two values, for border and cell, but these masks hold the "
            f"values {first_few(values)}; choose another kind with --labels"
        )
    meaning = _classes(kind, values, reason, options.names, ignore)
    return replace(meaning, reasons=(*meaning.reasons, *_absent(census, meaning, _useless_ignore(census, options))))


def of_named(census: Census, options: ImportOptions, named: Mapping[int, str]) -> Meaning:
    """Return a Meaning that takes the mask values as class ids; `named` holds the class names by id.

    --labels, or else a guess, decides whether the labels of the dataset are classes, instances or boundaries.

    Raises
    ------
    LayoutError
        The masks are empty, or `options` name a class that does not exist.
    """
    ignored = {IGNORE if options.ignore is None else options.ignore, IGNORE} & set(named)
    present = sorted(set(census.pixels) - ignored)
    _refuse_empty(census, present, options)
    ids = range(max(1, *(set(named) - ignored)) + 1)
    _refuse_unknown_classes(options.names, ids)
    if options.labels:
        kind, reason = _requested(options.labels)
    elif len(ids) == 2:
        kind, reason = kind_of_two_values(census, present)
    else:
        kind, reason = (
            "classes",
            "labels: classes, one for each colour; if each component is an object, add --labels instances",
        )
    default = {0: "background"} | {class_id: f"class {class_id}" for class_id in ids[1:]}
    names = {class_id: options.names.get(class_id) or named.get(class_id) or default[class_id] for class_id in ids}
    meaning = Meaning(kind, names, dict(zip(ids, ids, strict=True)) | dict.fromkeys(ignored, IGNORE), (reason,))
    notes = [
        f"{line}; in the table of --colours, give ignored colours the class 'ignore'"
        for line in _useless_ignore(census, options)
    ]
    return replace(meaning, reasons=(reason, *_absent(census, meaning, notes)))


def guess_kind(census: Census, values: Sequence[int]) -> tuple[Kind, str]:
    """Guess whether `values` are classes, instances or boundaries; return the guess, and a line with its reason.

    Raises
    ------
    LayoutError
        The values may be either object ids or class ids.
    """
    if len(values) <= 2:
        return kind_of_two_values(census, values)
    otherwise = "; if this is wrong, add --labels"
    whole = census.few_whole / max(1, census.few_values)
    if len(values) - 1 > MOST_CLASSES:
        if census.few_values and whole < 0.5 and values[-1] <= IGNORE:
            return "classes", f"labels: classes, because most values form several components{otherwise} instances"
        return (
            "instances",
            f"labels: instances, because the masks hold {len(values) - 1} different ids{otherwise} classes",
        )
    if census.numbered and len(census.numbers) > 2 and whole >= WHOLE:
        why = "every mask numbers its objects 1 to n, n differs between masks, and each object is one component"
        return "instances", f"labels: instances, because {why}{otherwise} classes"
    ids = [value for value in values if value]
    if len(ids) >= FEWEST_IDS and whole >= WHOLE and _recur_seldom(census, ids):
        _refuse_ambiguous_ids(census, ids)
        why = f"each of the {len(ids)} ids, such as {first_few(ids, 3)}, forms one component and occurs in few masks"
        return "instances", f"labels: instances, because {why}{otherwise} classes"
    why = f"the masks share the few values {first_few(values)}"
    return "classes", f"labels: classes, because {why}{otherwise} instances"


def kind_of_two_values(census: Census, values: Sequence[int]) -> tuple[Kind, str]:
    """Guess whether masks with one or two different `values` show classes or boundaries.

    Return the guess, and a line with the reason for it.
    """
    if 2 * census.nets > census.masks:
        pieces, share = census.pieces / census.masks, census.share / census.masks
        why = f"0 is a connected net around {pieces:.0f} components per mask, and these cover {share:.0%} of the mask"
        return "boundaries", f"labels: boundaries, because {why}; if 0 is plain background, add --labels classes"
    why = f"the masks hold only the values {first_few(values)}, which mark areas rather than single objects"
    return "classes", f"labels: classes, because {why}; if each component is an object, add --labels instances"


def _recur_seldom(census: Census, ids: Sequence[int]) -> bool:
    """Return True if every id occurs in few masks, as object ids do.

    Few masks means one mask or, if at least four masks hold ids, at most half of these masks. If only one mask holds
    ids, all ids must exceed PLAIN_IDS. Object ids may recur, because two crops of one label image may show parts of
    the same object.
    """
    most = max(census.masks_of[value] for value in ids)
    if most > 1:
        return census.filled >= 4 and 2 * most <= census.filled
    return census.filled > 1 or min(ids) > PLAIN_IDS


def _refuse_ambiguous_ids(census: Census, ids: Sequence[int]) -> None:
    """Refuse masks if no value exceeds PLAIN_IDS: small values could be object ids or ids of rare classes."""
    if max(ids) > PLAIN_IDS:
        return
    raise LayoutError(
        f"the {census.filled} non-empty masks hold the values {first_few(ids)}. Each of these values forms one "
        "connected component and occurs in few masks. So the values may be object ids (if the masks were cropped from "
        "one label image) or rare classes; for object ids, add --labels instances; for classes, add --labels classes"
    )


def _requested(labels: Kind) -> tuple[Kind, str]:
    return labels, f"labels: {labels} (--labels)"


def _refuse_empty(census: Census, values: Sequence[int], options: ImportOptions) -> None:
    if not set(values) - {0}:
        pixels = "a pixel other than 0" if options.threshold is None else f"a pixel above {options.threshold:g}"
        raise LayoutError(f"no mask holds {pixels}; are these the right masks? The first mask is {census.first}")


def _instances(values: Sequence[int], reason: str, names: Mapping[int, str], ignore: int | None) -> Meaning:
    classes = {0: "background", 1: "object"} | dict(names)
    if set(classes) != {0, 1}:
        raise LayoutError(f"--class {max(classes)}: instance masks have only the classes 0 and 1; omit this option")
    if ignore is not None:
        raise LayoutError(
            f"--ignore {ignore}: instance masks cannot hold ignored pixels; leave the option out, and set pixels of "
            f"value {ignore} to 0"
        )
    if len(values) > 2:
        return Meaning("instances", classes, None, (reason,))
    return Meaning(
        "instances", classes, None, (reason, "every connected component is one object"), label_components=True
    )


def _classes(kind: Kind, values: Sequence[int], reason: str, names: Mapping[int, str], ignore: int | None) -> Meaning:
    reasons = [reason]
    if values[-1] <= MOST_CLASSES:
        class_of = {value: value for value in range(max(values[-1], *names, 1) + 1)}
        _refuse_gaps(values, names)
    else:
        values = sorted({0, *values})
        class_of = {value: class_id for class_id, value in enumerate(values)}
        table = first_few([f"{value} -> {class_of[value]}" for value in values], IGNORE)
        reasons.append(f"mask values to classes: {table}")
    if len(class_of) > IGNORE:
        raise LayoutError(
            f"the masks hold {len(class_of)} classes including background, but segline supports at most {IGNORE}; if "
            "the masks hold instances, add --labels instances"
        )
    _refuse_unknown_classes(names, sorted(class_of.values()))
    if ignore is not None:
        class_of[ignore] = IGNORE
        reasons.append(f"pixels of mask value {ignore} are ignored (--ignore)")
    default = {0: "border", 1: "cell"} if kind == "boundaries" else {0: "background"} | _numbered(class_of.values())
    return Meaning(kind, dict(sorted((default | dict(names)).items())), class_of, tuple(reasons))


def _refuse_gaps(values: Sequence[int], names: Mapping[int, str]) -> None:
    """Refuse gaps in the class ids.

    If `names` has an id above the largest mask value, `names` must also have every id between the two.
    """
    gaps = sorted(set(range(max(*values, 1) + 1, max(names, default=0))) - set(names))
    if gaps:
        raise LayoutError(
            f"--class {max(names)}: the masks hold the values {first_few(values)}. Class ids must have no gaps, so "
            f"name the classes {first_few(gaps)} too, or leave out --class {max(names)}"
        )


def _absent(census: Census, meaning: Meaning, notes: Sequence[str]) -> list[str]:
    """Return lines about classes that occur in no mask, followed by the lines in `notes`."""
    present = {class_id for value, class_id in (meaning.class_of or {}).items() if census.pixels[value]}
    absent = [class_id for class_id in meaning.names if class_id and class_id not in present]
    lines = [f"no mask holds class {first_few(absent, IGNORE)}"] if absent else []
    if 0 not in present and meaning.labels == "classes":
        lines.append("no mask holds background, class 0; if one of the values is background, list it with --colours")
    return [*lines, *notes]


def _useless_ignore(census: Census, options: ImportOptions) -> list[str]:
    useless = options.ignore is not None and not census.pixels[options.ignore]
    return [f"--ignore {options.ignore}: no mask holds the value {options.ignore}"] if useless else []


def _refuse_unknown_classes(names: Mapping[int, str], classes: Sequence[int]) -> None:
    unknown = sorted(set(names) - set(classes))
    if unknown:
        raise LayoutError(f"--class {unknown[0]}: there is no such class; the classes are {first_few(classes)}")


def _numbered(ids: Iterable[int]) -> dict[int, str]:
    foreground = [class_id for class_id in ids if 0 < class_id < IGNORE]
    return {1: "object"} if foreground == [1] else {class_id: f"class {class_id}" for class_id in foreground}
