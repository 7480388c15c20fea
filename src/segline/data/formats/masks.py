"""What the values of masks mean: guessed from all of them, with the reason, or as flags say."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from segline.data.dataset import IGNORE, Kind
from segline.data.formats import LayoutError, Wishes
from segline.data.formats.census import MOST_CLASSES, SOFT, Census


@dataclass(frozen=True)
class Meaning:
    """How masks are to be read; the fields are those of Layout."""

    labels: Kind
    names: Mapping[int, str]
    class_of: Mapping[int, int] | None
    reasons: tuple[str, ...]
    joined: bool = False


def guess(census: Census, wishes: Wishes) -> Meaning:
    """What the masks mean.

    Raises
    ------
    LayoutError
        The masks are anti-aliased, hold nothing, or are not what `wishes` say.
    """
    ignore = wishes.ignore
    values = sorted(set(census.pixels) - {ignore})
    _refuse_empty(census, values, wishes)
    _refuse_anti_aliased(census)
    if ignore is None and census.pixels[IGNORE] and 2 < len(values) <= MOST_CLASSES + 2 and values[-2] <= MOST_CLASSES:
        _refuse_two_whites(census, values)
        values, ignore = values[:-1], IGNORE
    kind, reason = _told(wishes.labels) if wishes.labels else _kind(census, values)
    if kind == "instances":
        return _instances(values, reason, wishes.names, ignore)
    if kind == "boundaries" and len(values) != 2:
        raise LayoutError(f"labels boundaries need masks of two values, border and cell; these hold {some(values)}")
    meaning = _classes(kind, values, reason, wishes.names, ignore)
    return replace(meaning, reasons=(*meaning.reasons, *_absent(census, meaning, _idle(census, wishes))))


def as_named(census: Census, wishes: Wishes, named: Mapping[int, str]) -> Meaning:
    """The meaning of masks that hold classes `named`; only whether these are objects or areas is open.

    Raises
    ------
    LayoutError
        The masks hold nothing, or `wishes` name a class that is none.
    """
    ignored = {IGNORE if wishes.ignore is None else wishes.ignore, IGNORE} & set(named)
    present = sorted(set(census.pixels) - ignored)
    _refuse_empty(census, present, wishes)
    ids = range(max(1, *(set(named) - ignored)) + 1)
    _refuse_strange(wishes.names, ids)
    if wishes.labels:
        kind, reason = _told(wishes.labels)
    elif len(ids) == 2:
        kind, reason = _binary_kind(census, present)
    else:
        kind, reason = (
            "classes",
            "labels: classes, by their colours; for objects, each piece one, say --labels instances",
        )
    usual = {0: "background"} | {class_id: f"class {class_id}" for class_id in ids[1:]}
    names = {class_id: wishes.names.get(class_id) or named.get(class_id) or usual[class_id] for class_id in ids}
    meaning = Meaning(kind, names, dict(zip(ids, ids, strict=True)) | dict.fromkeys(ignored, IGNORE), (reason,))
    lines = [f"{line}; colours that do not count have class ignore in --colours" for line in _idle(census, wishes)]
    return replace(meaning, reasons=(reason, *_absent(census, meaning, lines)))


def _told(labels: Kind) -> tuple[Kind, str]:
    return labels, f"labels: {labels}, as told"


def _refuse_empty(census: Census, values: Sequence[int], wishes: Wishes) -> None:
    if not set(values) - {0}:
        above = "" if wishes.threshold is None else f" above {wishes.threshold:g}"
        what = f"anything{above}" if above else "anything but 0"
        raise LayoutError(f"no mask holds {what}, {census.first} for one; are these the right masks?")


def _refuse_anti_aliased(census: Census) -> None:
    """Greys between 0 and 255 that are fewer than 255, or that lie in no area, are soft edges of black and white."""
    greys = sorted(value for value in census.pixels if 0 < value < IGNORE)
    if max(census.pixels) > IGNORE or len(greys) <= 2 or greys[-1] <= IGNORE // 2:
        return
    between = sum(census.pixels[value] for value in SOFT)
    white = sum(census.pixels[value] for value in range(SOFT.stop, IGNORE + 1))
    blurred = 2 * census.blurred > sum(census.pixels[value] for value in greys)
    if blurred or (census.pixels[IGNORE] and between < white):
        count, worst = census.softest
        raise LayoutError(
            f"{worst}: {count} pixels are grey, neither 0 nor 255 (anti-aliased, blurred or compressed with losses), "
            "so they may be either; say --threshold 127 to take what is above 127 as foreground, or save the masks "
            "without smoothing; if each grey is a class, say so with --colours"
        )


def _refuse_two_whites(census: Census, values: Sequence[int]) -> None:
    if not census.beside_ignore:
        raise LayoutError(
            f"the masks hold {some(values)}, but none of them {IGNORE} beside another class: do some say {IGNORE} "
            f"where others say {values[1]}? make them alike, or say --ignore {IGNORE} if such pixels do not count"
        )


def _kind(census: Census, values: Sequence[int]) -> tuple[Kind, str]:
    """The guess, and why."""
    if len(values) <= 2:
        return _binary_kind(census, values)
    flags = "; if not, say --labels"
    whole = census.few_whole / max(1, census.few_values)
    if len(values) - 1 > MOST_CLASSES:
        if census.few_values and whole < 0.5 and values[-1] <= IGNORE:
            return "classes", f"labels: classes, for most values come in several pieces in a mask{flags} instances"
        return "instances", f"labels: instances, for the masks hold {len(values) - 1} ids{flags} classes"
    if census.numbered and len(census.numbers) > 2 and whole >= 0.95:
        why = "every mask numbers its objects 1 to n, n differs and each is in one piece"
        return "instances", f"labels: instances, for {why}{flags} classes"
    return "classes", f"labels: classes, for the masks share the few values {some(values)}{flags} instances"


def _binary_kind(census: Census, values: Sequence[int]) -> tuple[Kind, str]:
    if 2 * census.nets > census.masks:
        pieces, share = census.pieces / census.masks, census.share / census.masks
        why = f"0 is a connected net around {pieces:.0f} pieces a mask that cover {share:.0%} of it"
        return "boundaries", f"labels: boundaries, for {why}; if 0 is plain background, say --labels classes"
    why = f"the masks hold {some(values)} only, which tells areas, not objects"
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
        _refuse_holes(values, names)
    else:
        values = sorted({0, *values})
        class_of = {value: class_id for class_id, value in enumerate(values)}
        reasons.append("mask values to classes: " + some([f"{value} -> {class_of[value]}" for value in values], IGNORE))
    if len(class_of) > IGNORE:
        raise LayoutError(f"{len(class_of)} classes are too many; if the masks hold instances, say --labels instances")
    _refuse_strange(names, sorted(class_of.values()))
    if ignore is not None:
        class_of[ignore] = IGNORE
        reasons.append(f"pixels of mask value {ignore} do not count")
    usual = {0: "border", 1: "cell"} if kind == "boundaries" else {0: "background"} | _numbered(class_of.values())
    return Meaning(kind, dict(sorted((usual | dict(names)).items())), class_of, tuple(reasons))


def _refuse_holes(values: Sequence[int], names: Mapping[int, str]) -> None:
    """A class beyond all values of the masks may be rare, but those between would be made up."""
    holes = sorted(set(range(max(*values, 1) + 1, max(names, default=0))) - set(names))
    if holes:
        raise LayoutError(
            f"--class {max(names)}: the masks hold {some(values)}, and classes are numbered without a hole; name "
            f"{some(holes)} too, or leave it out"
        )


def _absent(census: Census, meaning: Meaning, idle: Sequence[str]) -> list[str]:
    """What is said to be, but is in no mask."""
    seen = {class_id for value, class_id in (meaning.class_of or {}).items() if census.pixels[value]}
    absent = [class_id for class_id in meaning.names if class_id and class_id not in seen]
    lines = [f"no mask holds class {some(absent, IGNORE)}"] if absent else []
    if 0 not in seen and meaning.labels == "classes":
        lines.append("no mask holds background, class 0; if one of the values is that, say so with --colours")
    return [*lines, *idle]


def _idle(census: Census, wishes: Wishes) -> list[str]:
    unseen = wishes.ignore is not None and not census.pixels[wishes.ignore]
    return [f"--ignore {wishes.ignore}: no mask holds {wishes.ignore}"] if unseen else []


def _refuse_strange(names: Mapping[int, str], classes: Sequence[int]) -> None:
    strange = sorted(set(names) - set(classes))
    if strange:
        raise LayoutError(f"--class {strange[0]}: there is no such class; there are {some(classes)}")


def _numbered(ids: Iterable[int]) -> dict[int, str]:
    foreground = [class_id for class_id in ids if 0 < class_id < IGNORE]
    return {1: "object"} if foreground == [1] else {class_id: f"class {class_id}" for class_id in foreground}


def some(values: Sequence[object], most: int = 8) -> str:
    """Values one after the other, `most` at most."""
    shown = ", ".join(str(value) for value in values[:most])
    return shown if len(values) <= most else f"{shown}, ... ({len(values)} in all)"
