"""Compute the weight map w(x): class balance, plus a border term that is high where two cells come close."""

import math
from collections.abc import Sequence
from itertools import combinations, islice
from math import comb
from typing import Literal, TypedDict, Unpack

import cv2
import numpy as np
import numpy.typing as npt

from segline.data.gaps import separate
from segline.data.labels import Labels, foreground, grown, parts, renumber

Distances = npt.NDArray[np.float32]  # (H, W), px

SIDE = 512  # px, side of a block; small blocks need more margin in all, large blocks exceed the processor's cache


def class_weights(pixels_per_class: Sequence[int], balance: float) -> npt.NDArray[np.float64]:
    """Return class weights w_c, proportional to (class frequency) ** -balance, with mean 1 over all pixels.

    Parameters
    ----------
    pixels_per_class : (K,) number of pixels of each class in the training images.
    balance : with 0, every class has weight 1; with 1, every class has the same share of the loss.

    Returns
    -------
    (K,) float64; 0 for a class without pixels.

    Raises
    ------
    ValueError
        No class has pixels, or a number of pixels is negative.
    """
    pixels = np.asarray(pixels_per_class, np.float64)
    if pixels.sum() <= 0 or pixels.min() < 0:
        raise ValueError(
            f"the pixels per class are {list(pixels_per_class)}; no number may be negative, and at least one "
            "must be above 0"
        )
    frequency = pixels / pixels.sum()
    weights: npt.NDArray[np.float64] = np.zeros_like(frequency)
    np.power(frequency, -balance, where=frequency > 0, out=weights)
    weights /= np.sum(weights * frequency)
    return weights


class Terms(TypedDict):
    """The formula for the weight of a pixel (`kind`), and the constants of this formula.

    d1 and d2 are the distances, px, from a pixel to the nearest and the second nearest cell. A distance is 0 inside the
    cell, and infinite if there is no such cell. The border term is e = w0 exp(-(d1 + d2)^2 / (2 sigma^2)). w_c is the
    weight of the class.

    paper     w = w_c + e at every pixel (Ronneberger 2015, eq. 2): in a cell d1 = 0, so the rim along another cell
              has a border term, too
    falk2019  w = w_c on foreground; w = w_c b + e on background, b = v + (1 - v) exp(-d1^2 / (2 s1^2)), with v =
              `background` and s1 = `background_sigma` (the plugin of Falk 2019, which sets w_c to 1 and balances
              classes by the density of its tiles)
    none      w = w_c
    """

    kind: Literal["paper", "falk2019", "none"]
    w0: float  # height of the border term
    sigma: float  # width of the border term, px
    background: float  # falk2019 only
    background_sigma: float  # falk2019 only
    class_weights: Sequence[float] | npt.NDArray[np.float64]  # (K,) w_c of class 0..K-1


def weight_map(
    classes: Labels, instances: Labels, *, ignore: int | None = None, **terms: Unpack[Terms]
) -> npt.NDArray[np.float32]:
    """Return the weight of each pixel in the loss.

    Touching instances of one class are separated first, and the gap is background. A cell consists of the pixels of one
    instance that are neither background nor ignored. The map is computed in blocks, but no distance is cut off or
    approximated. The margin of a block is so wide that cells beyond the margin have terms that are lost in rounding.

    Parameters
    ----------
    classes : (H, W) class ids, 0 = background; the map is the same before and after `gaps.separate`.
    instances : (H, W) instance ids, 0 = background, in any numbering.
    ignore : class id with weight 0.
    terms : see `Terms`.

    Raises
    ------
    ValueError
        A class has no weight, an argument is out of range, or the arrays do not match.
    """
    target = separate(classes, instances, ignore)
    return np.concatenate(
        [weight_band(target, instances, rows, ignore=ignore, **terms) for rows in bands(target.shape[0])]
    )


def bands(height: int) -> list[slice]:
    """Divide an image into bands of rows for `weight_band`. Each band starts at a row number divisible by 16."""
    return parts(height, SIDE, 16)


def weight_band(
    target: Labels, instances: Labels, rows: slice, *, ignore: int | None = None, **terms: Unpack[Terms]
) -> npt.NDArray[np.float32]:
    """Return the rows `rows` of the weight map. In `target`, touching instances must already be separated.

    The rows are identical to those of `weight_map`. Only these rows and a margin are read from the arrays, which may be
    memory-mapped.
    """
    _check_widths(terms["kind"], terms["sigma"], terms["background_sigma"])
    height, width = target.shape
    margin = _reach(terms)
    high, inner_rows = grown(rows, margin, height)
    weights = np.empty((rows.stop - rows.start, width), np.float32)
    for columns in parts(width, SIDE):
        wide, inner_columns = grown(columns, margin, width)
        inner = inner_rows, inner_columns
        weights[:, columns] = _weigh(target[high, wide], instances[high, wide], inner, ignore, terms)
    return weights


def _reach(terms: Terms) -> int:
    """Return the distance, px, beyond which a cell does not change the weight of a pixel.

    Beyond this distance, each term is lost in rounding. If the term is added to a value above 0, float64 rounds the
    sum to this value. If the term is added to 0, float32 rounds the term to 0.
    """
    if terms["kind"] == "none":
        return 0
    lightest = max(0.0, np.asarray(terms["class_weights"], np.float64).min(initial=np.inf))
    falloffs = [(terms["w0"], terms["sigma"], lightest)]
    if terms["kind"] == "falk2019":
        v = terms["background"]
        falloffs = [(terms["w0"], terms["sigma"], lightest * v), (1 - v, terms["background_sigma"], v)]
    reach = 0
    for height, sigma, least in falloffs:
        lost = max(least * 2**-54, 2**-150)
        if height > lost:
            reach = max(reach, math.ceil(sigma * math.sqrt(2 * math.log(height / lost))))
    return reach


def _weigh(
    target: npt.NDArray[np.uint8],
    instances: Labels,
    inner: tuple[slice, slice],
    ignore: int | None,
    terms: Terms,
) -> npt.NDArray[np.float64]:
    """Return the weights of the pixels in one block (rectangular part) of an image.

    The arrays hold the block and its margin; `inner` is the position of the block in the arrays.
    """
    inside = target[inner]
    ignored = np.zeros(inside.shape, bool) if ignore is None else inside == ignore
    weights = _table(inside, terms["class_weights"], ignored)[inside]
    if terms["kind"] != "none":
        cells = np.where(foreground(target, ignore), instances, 0)
        nearest, second = (distances[inner] for distances in two_nearest(cells))
        border = terms["w0"] * _falloff(nearest + second, terms["sigma"])
        if terms["kind"] == "falk2019":
            v, outside = terms["background"], inside == 0
            weights *= np.where(outside, v + (1 - v) * _falloff(nearest, terms["background_sigma"]), 1)
            border *= outside
        weights += border
    weights[ignored] = 0
    return weights


def _falloff(distances: npt.NDArray[np.float64], sigma: float) -> npt.NDArray[np.float64]:
    return np.exp(-np.square(distances) / (2 * sigma**2))


def _table(
    target: npt.NDArray[np.uint8], weights: Sequence[float] | npt.NDArray[np.float64], ignored: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float64]:
    """Return a table (256,) float64 with the weight of each class id."""
    highest = int(target.max(initial=0, where=~ignored))
    if highest >= len(weights):
        raise ValueError(
            f"the labels contain class id {highest}, but class_weights ends at id {len(weights) - 1}; "
            f"pass a weight for every class, or ignore={highest} to leave this id out"
        )
    table = np.zeros(256)
    table[: len(weights)] = weights
    return table


def _check_widths(kind: str, sigma: float, background_sigma: float) -> None:
    if kind not in ("paper", "falk2019", "none"):
        raise ValueError(f"kind = {kind!r} is not a known weight formula; use paper, falk2019 or none")
    for name, value, used in (
        ("sigma", sigma, kind != "none"),
        ("background_sigma", background_sigma, kind == "falk2019"),
    ):
        if used and not value > 0:
            raise ValueError(f"{name} = {value!r}; it must be above 0 px")


def two_nearest(instances: Labels) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return two distances for each pixel: to the nearest and to the second nearest instance.

    Every instance gets a different codeword of t bits with h = t // 2 bits set (t is about log2 n: 12 for 600). For
    each bit, one distance transform measures the distance to the nearest of all instances with this bit set. So each
    pixel has t distances. Exactly h of these are distances to the nearest instance. At least one of the others is the
    distance to the second nearest instance. So, in ascending order, distance 0 is d1 and distance h is d2. The cost
    depends little on the number of instances, and not at all on their shape.

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
    codes: Labels = np.array([0, *words], np.int32 if bits < 32 else np.int64)[numbers]

    smallest: list[Distances] = []  # the smallest distances found so far, in ascending order
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
    """Return the Euclidean distance of each pixel to the nearest pixel where `outside` is False."""
    return np.asarray(
        cv2.distanceTransform(outside.view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE), dtype=np.float32
    )


def _exact(distances: Distances) -> npt.NDArray[np.float64]:
    """Remove float32 rounding errors from distances up to 2,000 px: round the square of each distance to an integer.

    The squares of exact distances between pixels are integers.
    """
    squares = np.square(distances, dtype=np.float64)
    return np.sqrt(np.rint(squares, out=squares), out=squares)
