"""What the values of masks mean: guessed from all of them, with the reason, or as flags say."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from segline.data import files
from segline.data.dataset import IGNORE, Kind
from segline.data.files import Labels
from segline.data.formats import LayoutError

MOST_CLASSES = 20  # more values than this are taken for instance ids
# A net of borders: it is nearly all in one piece, and parts most of the image into many pieces.
NET_SHARE, NET_PIECES, NET_FOREGROUND = 0.9, 10, 0.5


@dataclass(frozen=True)
class Facts:
    """What the guess needs to know of one mask."""

    file: Path
    bits: int
    pixels: Mapping[int, int]  # by value
    whole: int | None  # values above 0 that are one 4-connected piece each; None where there are too many values
    pieces: int  # 4-connected pieces of what is not 0
    net: float  # share of the zeros that lies in their largest 8-connected piece


@dataclass(frozen=True)
class Meaning:
    """How masks are to be read; the fields are those of Layout."""

    labels: Kind
    classes: Mapping[int, str]
    class_of: Mapping[int, int] | None
    reasons: tuple[str, ...]
    joined: bool = False


def facts_of(file: Path) -> Facts:
    """Facts of one mask file."""
    mask = files.read_labels(file)
    values, counts = np.unique(mask, return_counts=True)
    above = values[values > 0]
    whole = sum(_pieces(mask == value, 4) == 1 for value in above) if len(above) <= MOST_CLASSES else None
    return Facts(
        file,
        mask.dtype.itemsize * 8,
        dict(zip(values.tolist(), counts.tolist(), strict=True)),
        whole,
        _pieces(mask != 0, 4),
        _largest_share(mask == 0),
    )


def _pieces(region: Labels, connectivity: int) -> int:
    return int(cv2.connectedComponents(region.astype(np.uint8), connectivity=connectivity)[0]) - 1


def _largest_share(region: Labels) -> float:
    stats = cv2.connectedComponentsWithStats(region.astype(np.uint8), connectivity=8)[2]
    areas = stats[1:, cv2.CC_STAT_AREA]
    return float(areas.max() / areas.sum()) if len(areas) else 0.0


def guess(
    masks: Sequence[Facts],
    labels: Kind | None = None,
    names: Mapping[int, str] | None = None,
    ignore: int | None = None,
) -> Meaning:
    """What the masks mean; `labels`, `names` and `ignore` as in `folders.recognise`.

    Raises
    ------
    LayoutError
        The masks are anti-aliased, hold nothing, or are not what `labels` says.
    """
    pixels: Counter[int] = Counter()
    for mask in masks:
        pixels.update(mask.pixels)
    values = sorted(set(pixels) - {ignore})
    if not set(values) - {0}:
        raise LayoutError(f"no mask holds anything but 0, {masks[0].file} for one; are these the right masks?")
    _refuse_anti_aliased(masks, pixels)
    if ignore is None and pixels[IGNORE] and 2 < len(values) <= MOST_CLASSES + 2 and values[-2] <= MOST_CLASSES:
        values, ignore = values[:-1], IGNORE
    kind, reason = (labels, f"labels: {labels}, as told") if labels else _kind(masks, values)
    if kind == "instances":
        return _instances(values, reason, names or {}, ignore)
    if kind == "boundaries" and len(values) != 2:
        raise LayoutError(f"labels boundaries need masks of two values, border and cell; these hold {_some(values)}")
    return _classes(kind, values, reason, names or {}, ignore)


def _refuse_anti_aliased(masks: Sequence[Facts], pixels: Mapping[int, int]) -> None:
    """Greys between 0 and 255 that are fewer than either are the soft edges of a black and white drawing."""
    greys = {value: count for value, count in pixels.items() if 0 < value < IGNORE}
    soft = max(greys, default=0) > IGNORE // 2 and sum(greys.values()) < pixels.get(IGNORE, 0)
    if soft and max(pixels) == IGNORE and len(greys) > 2:
        worst = max(masks, key=lambda mask: sum(mask.pixels.get(value, 0) for value in greys))
        count = sum(worst.pixels.get(value, 0) for value in greys)
        raise LayoutError(
            f"{worst.file}: {count} pixels are grey, neither 0 nor 255 (anti-aliased or compressed with losses), so "
            "they may be either; save the masks without smoothing, or threshold them"
        )


def _kind(masks: Sequence[Facts], values: Sequence[int]) -> tuple[Kind, str]:
    """The guess, and why."""
    if len(values) <= 2:
        return _binary_kind(masks, values)
    flags = "; if not, say --labels"
    if len(values) - 1 > MOST_CLASSES:
        return "instances", f"labels: instances, for the masks hold {len(values) - 1} ids{flags} classes"
    objects = [(mask.whole, len(set(mask.pixels) - {0}), max(mask.pixels)) for mask in masks if mask.whole is not None]
    numbered = all(count == highest for _, count, highest in objects)
    whole = sum(whole for whole, _, _ in objects) / max(1, sum(count for _, count, _ in objects))
    if numbered and len({count for _, count, _ in objects}) > 2 and whole >= 0.95:
        why = "every mask numbers its objects 1 to n, n differs and each is in one piece"
        return "instances", f"labels: instances, for {why}{flags} classes"
    return "classes", f"labels: classes, for the masks share the few values {_some(values)}{flags} instances"


def _binary_kind(masks: Sequence[Facts], values: Sequence[int]) -> tuple[Kind, str]:
    shares = [1 - mask.pixels.get(0, 0) / sum(mask.pixels.values()) for mask in masks]
    nets = [
        share >= NET_FOREGROUND and mask.pieces >= NET_PIECES and mask.net >= NET_SHARE
        for share, mask in zip(shares, masks, strict=True)
    ]
    if 2 * sum(nets) > len(masks):
        pieces, share = sum(mask.pieces for mask in masks) / len(masks), sum(shares) / len(shares)
        why = f"0 is a connected net around {pieces:.0f} pieces a mask that cover {share:.0%} of it"
        return "boundaries", f"labels: boundaries, for {why}; if 0 is plain background, say --labels classes"
    why = f"the masks hold {_some(values)} only, which tells areas, not objects"
    return "classes", f"labels: classes, for {why}; for objects, each piece one, say --labels instances"


def _instances(values: Sequence[int], reason: str, names: Mapping[int, str], ignore: int | None) -> Meaning:
    classes = {0: "background", 1: "object"} | dict(names)
    if set(classes) != {0, 1}:
        raise LayoutError(f"--class {max(classes)}: instance masks know class 0 and 1 only; leave it out")
    if ignore is not None:
        raise LayoutError(f"--ignore {ignore}: instance masks cannot say what does not count; leave it out")
    if len(values) > 2:
        return Meaning("instances", classes, None, (reason,))
    return Meaning("instances", classes, None, (reason, "every connected piece is one object"), joined=True)


def _classes(kind: Kind, values: Sequence[int], reason: str, names: Mapping[int, str], ignore: int | None) -> Meaning:
    reasons = [reason]
    if values[-1] <= MOST_CLASSES:
        class_of = {value: value for value in range(max(values[-1], *names, 1) + 1)}
    else:
        values = sorted({0, *values})
        class_of = {value: class_id for class_id, value in enumerate(values)}
        reasons.append("mask values to classes: " + _some([f"{value} -> {class_of[value]}" for value in values]))
    if len(class_of) > IGNORE:
        raise LayoutError(f"{len(class_of)} classes are too many; if the masks hold instances, say --labels instances")
    strange = sorted(set(names) - set(class_of.values()))
    if strange:
        raise LayoutError(f"--class {strange[0]}: there is no such class; there are {_some(sorted(class_of.values()))}")
    if ignore is not None:
        class_of[ignore] = IGNORE
        reasons.append(f"pixels of mask value {ignore} do not count")
    usual = {0: "border", 1: "cell"} if kind == "boundaries" else {0: "background"} | _numbered(class_of.values())
    return Meaning(kind, dict(sorted((usual | dict(names)).items())), class_of, tuple(reasons))


def _numbered(ids: Iterable[int]) -> dict[int, str]:
    foreground = [class_id for class_id in ids if 0 < class_id < IGNORE]
    return {1: "object"} if foreground == [1] else {class_id: f"class {class_id}" for class_id in foreground}


def _some(values: Sequence[object]) -> str:
    shown = ", ".join(str(value) for value in values[:8])
    return shown if len(values) <= 8 else f"{shown}, ... ({len(values)} in all)"
