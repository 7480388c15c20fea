"""The weight map w(x): class balance plus a border term that is high where two cells come close."""

from collections.abc import Sequence
from itertools import combinations, islice
from math import comb
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from segline.data.labels import Labels, foreground, renumber, separate

Distances = npt.NDArray[np.float32]  # (H, W), px


def class_weights(pixels_per_class: Sequence[int], balance: float) -> npt.NDArray[np.float64]:
    """Return w_c, proportional to frequency ** -balance, with mean 1 over the pixels.

    Parameters
    ----------
    pixels_per_class : (K,) pixels of each class over the training images.
    balance : 0 gives every class 1, 1 gives every class the same share of the loss.

    Returns
    -------
    (K,) float64; 0 for a class without pixels.

    Raises
    ------
    ValueError
        No class has pixels, or a count is negative.
    """
    pixels = np.asarray(pixels_per_class, np.float64)
    if pixels.sum() <= 0 or pixels.min() < 0:
        raise ValueError(f"pixels per class are {list(pixels_per_class)}; give counts of which one at least is above 0")
    frequency = pixels / pixels.sum()
    weights: npt.NDArray[np.float64] = np.zeros_like(frequency)
    np.power(frequency, -balance, where=frequency > 0, out=weights)
    weights /= np.sum(weights * frequency)
    return weights


def weight_map(
    classes: Labels,
    instances: Labels,
    *,
    kind: Literal["paper", "falk2019", "none"],
    w0: float,
    sigma: float,
    background: float,
    background_sigma: float,
    class_weights: Sequence[float] | npt.NDArray[np.float64],
    ignore: int | None = None,
) -> npt.NDArray[np.float32]:
    """Return the weight of each pixel in the loss.

    With d1 and d2 the distances in px from a pixel to the nearest and the second nearest cell (0 inside a cell,
    infinite where there are fewer cells), e = w0 exp(-(d1 + d2)^2 / (2 sigma^2)) and w_c the weight of the class:

    paper     w = w_c + e at every pixel (Ronneberger 2015, eq. 2): in a cell d1 = 0, so the rim along another cell
              counts as well
    falk2019  w = w_c on foreground; w = w_c b + e on background, b = v + (1 - v) exp(-d1^2 / (2 s1^2)), with v =
              `background` and s1 = `background_sigma` (the plugin of Falk 2019, whose w_c is 1: it balances classes
              when it draws tiles)
    none      w = w_c

    Touching instances of one class are separated first, and the gap is background. A cell is all pixels of one
    instance that are neither background nor ignored. Nothing is cut off or approximated, at any distance.

    Parameters
    ----------
    classes : (H, W) class ids, 0 = background; before or after `labels.separate`, the map is the same.
    instances : (H, W) instance ids, 0 = background, in any numbering.
    w0, sigma : height and width (px) of the border term.
    background, background_sigma : falk2019 only.
    class_weights : (K,) w_c of class 0..K-1.
    ignore : class id that weighs 0.

    Raises
    ------
    ValueError
        A class has no weight, an argument is out of range, or the arrays do not fit each other.
    """
    _check_widths(kind, sigma, background_sigma)
    target = separate(classes, instances, ignore)
    ignored = np.zeros(target.shape, bool) if ignore is None else target == ignore
    weights = _table(target, class_weights, ignored)[target]
    if kind != "none":
        nearest, second = two_nearest(np.where(foreground(target, ignore), instances, 0))
        border = w0 * _falloff(nearest + second, sigma)
        if kind == "falk2019":
            outside = target == 0
            weights *= np.where(outside, background + (1 - background) * _falloff(nearest, background_sigma), 1)
            border *= outside
        weights += border
    weights[ignored] = 0
    return weights.astype(np.float32)


def two_nearest(instances: Labels) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the distances to the nearest and the second nearest instance.

    Every instance gets a codeword of t bits, h = t // 2 of them set, no two alike (t is about log2 n: 12 for 600). For
    each bit, one distance transform measures to all instances that have it set. Of these t distances exactly h belong
    to the nearest instance, and one at least of the others to the second nearest, so that, in ascending order, number 0
    is d1 and number h is d2. The cost does not depend on the shape of the instances, and little on how many there are.

    Parameters
    ----------
    instances : (H, W) ids, 0 = background, in any numbering.

    Returns
    -------
    Two (H, W) float64 in px, 0 inside an instance, infinite where there is no (second) instance.
    """
    numbers, count = renumber(instances)
    if count < 2:
        nothing = np.full(numbers.shape, np.inf)
        return (_exact(_distance(numbers == 0)) if count else nothing), nothing
    bits = next(t for t in range(2, 64) if comb(t, t // 2) >= count)
    words = [sum(1 << bit for bit in word) for word in islice(combinations(range(bits), bits // 2), count)]
    codes = np.array([0, *words], np.int64)[numbers]

    smallest: list[Distances] = []  # ascending, of the distances so far
    spare = np.empty(numbers.shape, np.float32)
    for bit in range(bits):
        distance = _distance((codes & (1 << bit)) == 0)
        for place, known in enumerate(smallest):
            np.minimum(known, distance, out=spare)
            np.maximum(known, distance, out=distance)
            smallest[place], spare = spare, known
        if len(smallest) <= bits // 2:
            smallest.append(distance)
    return _exact(smallest[0]), _exact(smallest[-1])


def _distance(outside: npt.NDArray[np.bool_]) -> Distances:
    """Euclidean distance of each pixel to the nearest that is not outside."""
    return np.asarray(
        cv2.distanceTransform(outside.view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE), dtype=np.float32
    )


def _exact(distances: Distances) -> npt.NDArray[np.float64]:
    """The distances without the rounding of float32 (up to 2,000 px): their squares are whole numbers."""
    squares = np.square(distances, dtype=np.float64)
    return np.sqrt(np.rint(squares, out=squares), out=squares)


def _falloff(distances: npt.NDArray[np.float64], sigma: float) -> npt.NDArray[np.float64]:
    return np.exp(-np.square(distances) / (2 * sigma**2))


def _table(
    target: npt.NDArray[np.uint8], weights: Sequence[float] | npt.NDArray[np.float64], ignored: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float64]:
    """(256,) float64: the weight of each class id."""
    highest = int(target.max(initial=0, where=~ignored))
    if highest >= len(weights):
        raise ValueError(
            f"classes hold id {highest}, but class_weights ends at id {len(weights) - 1}; "
            "give a weight for every class, or name the id as ignore"
        )
    table = np.zeros(256)
    table[: len(weights)] = weights
    return table


def _check_widths(kind: str, sigma: float, background_sigma: float) -> None:
    if kind not in ("paper", "falk2019", "none"):
        raise ValueError(f"kind = {kind!r}; use paper, falk2019 or none")
    for name, value, used in (
        ("sigma", sigma, kind != "none"),
        ("background_sigma", background_sigma, kind == "falk2019"),
    ):
        if used and not value > 0:
            raise ValueError(f"{name} = {value!r}; a width is above 0 px")
