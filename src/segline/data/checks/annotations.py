"""Check the labels of one image: the instances, the classes, and whether instances and classes agree."""

from collections.abc import Iterator, Mapping

import cv2
import numpy as np
import numpy.typing as npt

from segline.data.checks.problems import Problem
from segline.data.dataset import Spec
from segline.data.labels import Labels, foreground, renumber

Counts = npt.NDArray[np.intp]

TINY = 4  # px; smaller objects are mostly accidental mouse clicks
SMOOTH = 3  # only a mask with at least this many in-between values is treated as smoothed
PIXELS = 1 << 22  # number of pixels processed at once, to limit the memory for a large image
WAY_OUT = "save the mask without smoothing as PNG or TIFF, or import it again with --threshold"


def pieces(instances: Labels, count: int) -> Counts:
    """Return the number of 8-connected pieces of each instance 1 to `count`; entry 0 (background) is 0.

    Each row is divided into runs of pixels of one instance, and runs that touch between rows are joined. So one pass
    over the rows is enough, whatever the number and shape of the instances.

    Parameters
    ----------
    instances : (H, W) ids 0..count, 0 = background.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    owners, above, below = (np.concatenate(parts) for parts in zip(*_runs(instances), strict=True))
    links = coo_array((np.ones(above.size, bool), (above, below)), shape=(owners.size, owners.size))
    number, piece_of = connected_components(links, directed=False)
    owner_of_piece = np.zeros(number, np.intp)
    owner_of_piece[piece_of] = owners
    pieces_of_instance = np.bincount(owner_of_piece, minlength=count + 1)
    pieces_of_instance[0] = 0
    return pieces_of_instance


def _runs(instances: Labels) -> Iterator[tuple[Counts, Counts, Counts]]:
    """Divide rows into runs of pixels with the same instance id, and find the pairs of touching runs.

    For each block of rows, yield three arrays: the instance id of each run, and the upper and the lower run of each
    pair. Two runs touch if they belong to the same instance and have neighbouring pixels in consecutive rows.
    """
    height, width = instances.shape
    rows = max(1, PIXELS // max(1, width))
    total = 0
    last: tuple[Labels, npt.NDArray[np.bool_], Counts] | None = None
    for row in range(0, height, rows):
        part = instances[row : row + rows]
        starts = np.ones(part.shape, bool)
        np.not_equal(part[:, 1:], part[:, :-1], out=starts[:, 1:])
        runs = np.cumsum(starts).reshape(part.shape) + (total - 1)
        owners = part[starts]
        total += owners.size
        if last is not None:
            part, starts, runs = (
                np.concatenate([old, new]) for old, new in zip(last, (part, starts, runs), strict=True)
            )
        above, below = _touching(part, starts, runs)
        last = part[-1:], starts[-1:], runs[-1:]
        yield owners.astype(np.intp), above, below


def _touching(part: Labels, starts: npt.NDArray[np.bool_], runs: Counts) -> tuple[Counts, Counts]:
    """Find touching runs of pixels in consecutive rows; return two arrays: the upper and the lower run of each pair.

    `_runs` says what runs are, and when two runs touch. A pair may occur several times.
    """
    upper, lower = part[:-1], part[1:]
    begins = starts[:-1] | starts[1:]
    left, right = np.s_[:, :-1], np.s_[:, 1:]
    all_of = np.s_[:, :]
    pairs = []
    for up, down, where in (
        (all_of, all_of, begins),
        # The next two cases find diagonal neighbours. They check only columns where a run starts in the lower row.
        # At other columns, the first case finds the same pair of runs, because one run is directly below the other.
        (left, right, starts[1:, 1:]),
        (right, left, starts[1:, 1:]),
    ):
        same = (upper[up] == lower[down]) & (lower[down] > 0) & where
        pairs.append((runs[:-1][up][same], runs[1:][down][same]))
    return np.concatenate([above for above, _ in pairs]), np.concatenate([below for _, below in pairs])


def histogram(labels: Labels) -> dict[int, int]:
    """Return a dictionary from each value in `labels` to the number of pixels with this value."""
    if labels.max(initial=0) > np.iinfo(np.uint16).max:
        values, counts = np.unique(labels, return_counts=True)
        return dict(zip(values.tolist(), counts.tolist(), strict=True))
    counts = _counts(labels, int(labels.max(initial=0)))
    return {int(value): int(counts[value]) for value in np.flatnonzero(counts)}


def _counts(labels: Labels, largest: int) -> Counts:
    """Count the pixels of each value 0 to `largest`; return an array of counts, indexed by value."""
    rows = max(1, PIXELS // max(1, labels.shape[1]))
    counts = np.zeros(largest + 1, np.intp)
    for row in range(0, labels.shape[0], rows):
        counts += np.bincount(labels[row : row + rows].ravel(), minlength=largest + 1)
    return counts


def of_values(name: str, values: Mapping[int, int], spec: Spec) -> Iterator[Problem]:
    """Yield a problem if all pixels are ignored, or none is foreground. `values` is the histogram of class ids."""
    if set(values) == {spec.ignore}:
        yield Problem("warning", name, "every pixel is ignored", kind="labels ignored everywhere")
    elif not set(values) - {0, spec.ignore}:
        yield Problem("warning", name, "contains only background", kind="empty labels")


def of_classes(name: str, classes: Labels, values: Mapping[int, int], spec: Spec) -> Iterator[Problem]:
    """Yield a problem if a label image (H, W) looks smoothed, or has class ids that dataset.yaml does not list.

    `values` is the histogram of the class ids.
    """
    unknown = {value: count for value, count in values.items() if value not in spec.classes and value != spec.ignore}
    if not unknown:
        if len(values) > SMOOTH:
            yield from _smoothed(name, classes, _counts(classes, max(values)), "classes")
        return
    pixels = sum(unknown.values())
    listed = ", ".join(f"{value} ({count} px)" for value, count in list(unknown.items())[:6])
    listed += f", ... {len(unknown)} values in all" if len(unknown) > 6 else ""
    if len(unknown) >= SMOOTH and 2 * np.count_nonzero(_between(classes) & np.isin(classes, list(unknown))) >= pixels:
        message = f"{pixels} pixels at edges have values between the classes (anti-aliased): {listed}; {WAY_OUT}"
        yield Problem("error", name, message, kind="anti-aliased masks", count=pixels)
        return
    message = (
        f"values outside the class table: {listed}; add them to classes in dataset.yaml, or correct the label image"
    )
    yield Problem("error", name, message, kind="values outside the class table", count=pixels)


def _smoothed(name: str, labels: Labels, areas: Counts, what: str) -> Iterator[Problem]:
    """Yield a problem if a mask looks smoothed: most of its values occur only between a lower and a higher neighbour.

    `areas` holds the number of pixels of each value 0, 1, ...
    """
    between = _between(labels)
    present = np.flatnonzero(areas[1:]) + 1
    edges = np.bincount(labels[between], minlength=areas.size)[present] == areas[present]
    if np.count_nonzero(edges) >= SMOOTH and 2 * np.count_nonzero(edges) > present.size:
        pixels = int(np.count_nonzero(between))
        message = f"{pixels} pixels at edges have values between two {what} (anti-aliased); {WAY_OUT}"
        yield Problem("error", name, message, kind="anti-aliased masks", count=pixels)


def _between(labels: Labels) -> npt.NDArray[np.bool_]:
    """Return a mask (H, W) of the pixels that have both a lower and a higher value among their eight neighbours.

    Smoothing leaves such values at edges.
    """
    if labels.max(initial=0) > np.iinfo(np.uint16).max:
        return np.zeros(labels.shape, bool)
    narrow: npt.NDArray[np.integer] = labels.astype(np.uint8 if labels.dtype == np.uint8 else np.uint16, copy=False)
    around = np.ones((3, 3), np.uint8)
    between: npt.NDArray[np.bool_] = (narrow > cv2.erode(narrow, around)) & (narrow < cv2.dilate(narrow, around))
    return between


def of_instances(name: str, instances: Labels) -> Iterator[Problem]:
    """Yield problems if a mask (H, W) of instance ids is smoothed, or has tiny instances or instances in pieces."""
    numbered, count = renumber(instances)
    areas = _counts(numbered, count)
    for problem in _smoothed(name, numbered, areas, "ids"):
        yield problem
        return
    yield from _tiny(name, areas[1:], numbered, "instances")
    in_pieces = pieces(numbered, count) > 1
    if in_pieces.any():
        first = _first(numbered == in_pieces.argmax())
        message = f"{np.count_nonzero(in_pieces)} of {count} instances are in several pieces, the first at {first}"
        yield Problem("warning", name, message, kind="instances in several pieces", count=int(in_pieces.sum()))


def of_areas(name: str, classes: Labels, values: Mapping[int, int], spec: Spec) -> Iterator[Problem]:
    """Yield a problem for each class that has tiny areas, in a dataset whose objects are the areas between borders.

    Where classes are painted as areas, without objects, a tiny area is no slip: it may be the end of a vessel or a
    crack. So this check reports nothing for such datasets.
    """
    if spec.labels != "boundaries":
        return
    for class_id in sorted(set(values) - {0, spec.ignore}):
        area = (classes == class_id).astype(np.uint8)
        _, numbered, stats, _ = cv2.connectedComponentsWithStats(area, connectivity=4)
        yield from _tiny(name, stats[1:, cv2.CC_STAT_AREA], numbered, f"areas of class {class_id}")


def _tiny(name: str, areas: npt.NDArray[np.integer], numbered: Labels, what: str) -> Iterator[Problem]:
    """Yield a problem if some objects have fewer than `TINY` pixels.

    `areas` (N,) holds the area of each object 1 to N in the image `numbered`.
    """
    tiny = areas < TINY
    if tiny.any():
        first = _first(numbered == tiny.argmax() + 1)
        message = f"{np.count_nonzero(tiny)} of {areas.size} {what} are smaller than {TINY} px, the first at {first}"
        yield Problem("warning", name, message, kind=f"objects below {TINY} px", count=int(tiny.sum()))


def of_both(name: str, classes: Labels, instances: Labels, spec: Spec) -> Iterator[Problem]:
    """Yield problems for pixels with only a class or an instance, and for instances with pixels of several classes."""
    areas = foreground(classes, spec.ignore)
    cells = instances > 0
    if spec.ignore is not None:
        cells &= classes != spec.ignore
    for mismatch, what in (
        (areas & ~cells, "have a class but no instance"),
        (cells & ~areas, "have an instance but are background in classes"),
    ):
        if mismatch.any():
            pixels = int(np.count_nonzero(mismatch))
            message = f"{pixels} pixels {what}, the first at {_first(mismatch)}"
            yield Problem("error", name, message, kind=f"pixels that {what}", count=pixels)
    numbered, count = renumber(np.where(areas, instances, 0))
    classes_of_instance = np.zeros(count + 1, np.intp)
    for class_id in spec.classes:
        if class_id:
            classes_of_instance += np.bincount(numbered[classes == class_id], minlength=count + 1) > 0
    mixed = classes_of_instance[1:] > 1
    if mixed.any():
        first = _first(numbered == mixed.argmax() + 1)
        message = f"{np.count_nonzero(mixed)} of {count} instances have pixels of two classes, the first at {first}"
        yield Problem("warning", name, message, kind="instances of two classes", count=int(mixed.sum()))


def _first(mask: npt.NDArray[np.bool_]) -> str:
    """Return the position of the first True pixel in `mask`, as text."""
    y, x = divmod(int(mask.argmax()), mask.shape[1])
    return f"x {x}, y {y}"
