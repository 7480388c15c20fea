"""What the values of masks mean: guessed from all of them, with the reason, or as flags say."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from segline.data.dataset import IGNORE, Kind
from segline.importing.formats import LayoutError, Wishes, kinds, noise, some
from segline.importing.formats.census import MOST_CLASSES, Census


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
        The masks are anti-aliased or noisy, hold nothing, can be meant in two ways, or are not what `wishes` say.
    """
    ignore = wishes.ignore
    values = sorted(set(census.pixels) - {ignore})
    _refuse_empty(census, values, wishes)
    noise.refuse_smooth(census, values, wishes)
    noise.refuse_white_beside_ids(census, values, wishes)
    kind, reason = _told(wishes.labels) if wishes.labels else kinds.guess(census, values)
    if kind == "instances":
        if wishes.labels:
            noise.refuse_noisy_instances(census, values)
        return _instances(values, reason, wishes.names, ignore)
    noise.refuse_noisy_classes(census, values, wishes)
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
        kind, reason = kinds.of_two_values(census, present)
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


def _instances(values: Sequence[int], reason: str, names: Mapping[int, str], ignore: int | None) -> Meaning:
    classes = {0: "background", 1: "object"} | dict(names)
    if set(classes) != {0, 1}:
        raise LayoutError(f"--class {max(classes)}: instance masks know class 0 and 1 only; leave it out")
    if ignore is not None:
        raise LayoutError(
            f"--ignore {ignore}: instance masks cannot say that pixels of value {ignore} do not count; leave it out, "
            "and, where masks hold it, make these pixels 0"
        )
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
