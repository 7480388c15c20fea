"""What labels are: objects, areas or cells with borders, guessed from all masks, with the reason."""

from collections.abc import Sequence

from segline.data.dataset import IGNORE, Kind
from segline.importing.formats import LayoutError, some
from segline.importing.formats.census import MOST_CLASSES, Census

WHOLE = 0.95  # share of values that are in one piece in a mask, from which on they may be objects
PLAIN_IDS = 255  # values above it are ids of objects more often than of classes
FEWEST_IDS = 3  # values, below which nothing can be told from how often they come again


def guess(census: Census, values: Sequence[int]) -> tuple[Kind, str]:
    """The kind of labels whose masks hold `values`, and why.

    Raises
    ------
    LayoutError
        The masks may hold objects as well as classes.
    """
    if len(values) <= 2:
        return of_two_values(census, values)
    flags = "; if not, say --labels"
    whole = census.few_whole / max(1, census.few_values)
    if len(values) - 1 > MOST_CLASSES:
        if census.few_values and whole < 0.5 and values[-1] <= IGNORE:
            return "classes", f"labels: classes, for most values come in several pieces in a mask{flags} instances"
        return "instances", f"labels: instances, for the masks hold {len(values) - 1} ids{flags} classes"
    if census.numbered and len(census.numbers) > 2 and whole >= WHOLE:
        why = "every mask numbers its objects 1 to n, n differs and each is in one piece"
        return "instances", f"labels: instances, for {why}{flags} classes"
    ids = [value for value in values if value]
    if len(ids) >= FEWEST_IDS and whole >= WHOLE and _seldom_again(census, ids):
        _refuse_undecided(census, ids)
        why = f"each of the {len(ids)} ids, such as {some(ids, 3)}, is in one piece and in few masks"
        return "instances", f"labels: instances, for {why}{flags} classes"
    return "classes", f"labels: classes, for the masks share the few values {some(values)}{flags} instances"


def of_two_values(census: Census, values: Sequence[int]) -> tuple[Kind, str]:
    """The kind of labels whose masks hold two `values` at most, and why."""
    if 2 * census.nets > census.masks:
        pieces, share = census.pieces / census.masks, census.share / census.masks
        why = f"0 is a connected net around {pieces:.0f} pieces a mask that cover {share:.0%} of it"
        return "boundaries", f"labels: boundaries, for {why}; if 0 is plain background, say --labels classes"
    why = f"the masks hold {some(values)} only, which tells areas, not objects"
    return "classes", f"labels: classes, for {why}; for objects, each piece one, say --labels instances"


def _seldom_again(census: Census, ids: Sequence[int]) -> bool:
    """Whether no value comes again as a class would: each is in one mask, or in less than half of four or more.

    Neighbouring crops of one label image share the objects that their border cuts.
    """
    most = max(census.masks_of[value] for value in ids)
    if most > 1:
        return census.filled >= 4 and 2 * most <= census.filled
    return census.filled > 1 or min(ids) > PLAIN_IDS


def _refuse_undecided(census: Census, ids: Sequence[int]) -> None:
    """Refuse values that may be ids of objects as well as of classes of which each is in few images."""
    if max(ids) > PLAIN_IDS:
        return
    raise LayoutError(
        f"the {census.filled} masks that are not empty hold {some(ids)}, each in one piece and in few masks: they may "
        "be objects, cropped from one label image, or classes that come in few images; say --labels instances or "
        "--labels classes"
    )
