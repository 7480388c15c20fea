"""Find images that are alike although they are kept apart, and unite their groups."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from segline.data.checks.problems import Checked, Problem, name_of
from segline.data.dataset import GROUPS, Dataset
from segline.model.images import Raw

Codes = npt.NDArray[np.uint64]  # (N, 4)
Indices = npt.NDArray[np.intp]  # (N,)

SIDE, WAVES = 64, 16  # px of the reduced image, and how many of its lowest frequencies along each axis count
COARSE = 512  # px; reduced to this in the image's own type first, so that no copy of a large image is made as floats
# Of 255 bits. Recompressed (quality 30), brightened by a tenth, halved or moved by 1 % of its side, nine in ten images
# and more stay below it; two images of one kind that show different things were seen to differ by 58 at least.
MOST_BITS = 40
ROWS, COLUMNS = 16, 2048  # pairs compared at once: they fit the cache


def digest(image: Raw) -> bytes:
    """MD5 of type, shape and pixels."""
    md5 = hashlib.md5(f"{image.dtype} {image.shape}".encode(), usedforsecurity=False)
    md5.update(np.ascontiguousarray(image).data)
    return md5.digest()


def code(image: Raw) -> Codes:
    """Perceptual hash of an image (H, W, C): (4,) uint64; alike images differ in few bits.

    The signs of the 255 lowest frequencies of the reduced grey image about their median (pHash: Zauner 2010, there
    with 63, which are too few to tell one cell on a plain ground from another).
    """
    reduced = _reduced(image)
    if not np.isfinite(reduced).all():
        return np.zeros(4, np.uint64)
    waves = cv2.dct(reduced)[:WAVES, :WAVES].ravel()[1:]
    return np.packbits(np.append(waves > np.median(waves), False)).view(np.uint64)


def _reduced(image: Raw) -> npt.NDArray[np.float64]:
    """Mean of the channels, (SIDE, SIDE)."""
    height, width, channels = image.shape
    size = min(width, COARSE), min(height, COARSE)
    # OpenCV reduces four channels at once and no more.
    parts = [image] if channels <= 4 else [image[..., channel] for channel in range(channels)]
    total = np.zeros((SIDE, SIDE))
    for part in parts:
        coarse = cv2.resize(part, size, interpolation=cv2.INTER_AREA).astype(np.float64)
        fine = cv2.resize(coarse, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        total += fine.reshape(SIDE, SIDE, -1).sum(axis=2)
    return total


def twins(digests: Sequence[bytes], labels: Sequence[object]) -> dict[int, int]:
    """For each index another with the same digest and another label, where there is one."""
    by_digest: dict[bytes, list[int]] = {}
    for index, key in enumerate(digests):
        by_digest.setdefault(key, []).append(index)
    found: dict[int, int] = {}
    for same in by_digest.values():
        strange = next((index for index in same if labels[index] != labels[same[0]]), None)
        if strange is not None:
            found |= {index: same[0] if labels[index] != labels[same[0]] else strange for index in same}
    return found


def partners(codes: Codes, labels: Indices) -> Indices:
    """For each code the index of one that is alike and has another label, or -1.

    Every pair is compared, so nothing is missed; 100,000 codes take about 15 s of one core (benchmarks/bench_check.py).

    Parameters
    ----------
    codes : (N, 4) as `code` gives them.
    labels : (N,), group or split of each.
    """
    found = np.full(len(codes), -1, np.intp)
    words = np.ascontiguousarray(codes.T)
    for row in range(0, len(codes), ROWS):
        rows = slice(row, row + ROWS)
        for column in range(row, len(codes), COLUMNS):
            columns = slice(column, column + COLUMNS)
            near = _near(words[:, rows], words[:, columns])
            if near is None:
                continue
            near &= labels[rows, None] != labels[columns]
            for ours, theirs, hits in ((rows, columns, near), (columns, rows, near.T)):
                alike = hits.any(axis=1)
                found[ours][alike] = hits[alike].argmax(axis=1) + theirs.start
    return found


def _near(ours: Codes, theirs: Codes) -> npt.NDArray[np.bool_] | None:
    """(R, C) whether the words (4, R) and (4, C) differ in few bits; None where no pair does."""
    bits = np.zeros((ours.shape[1], theirs.shape[1]), np.uint8)
    for mine, yours in zip(ours, theirs, strict=True):
        bits += np.bitwise_count(mine[:, None] ^ yours)
        if bits.min() > MOST_BITS:
            return None
    return bits <= MOST_BITS


def united(codes: Codes, labels: Indices) -> Indices:
    """`labels` (N,) with those made one that alike codes have, until no two alike codes differ (Boruvka 1926)."""
    while True:
        found = partners(codes, labels)
        alike = np.flatnonzero(found >= 0)
        if not alike.size:
            return labels
        labels = joined(labels, zip(alike.tolist(), found[alike].tolist(), strict=True))


def joined(labels: Indices, pairs: Iterable[tuple[int, int]]) -> Indices:
    """`labels` (N,) with the labels of each pair of indices made one, the smaller."""
    labels = labels.copy()
    for index, other in pairs:
        one, another = sorted((labels[index], labels[other]))
        if one != another:
            labels[labels == another] = one
    return labels


WAY_OUT = f"give both one group in {GROUPS}"


def problems(
    dataset: Dataset, checked: Sequence[Checked], part_of: Mapping[str, str], what: Literal["group", "split"]
) -> Iterator[Problem]:
    """Images that are alike and in two parts: one would be learned from, and the other judge what was learned.

    Images of one value, of which many can be alike, are left out.

    Parameters
    ----------
    part_of : group or split of each image.
    what : which of both. The same pixels in two splits are an error, all else is a warning.
    """
    images = [image for image in checked if image.code is not None]
    names = [name_of(dataset, dataset.images[image.stem]) for image in images]
    parts = [part_of[image.stem] for image in images]
    same = twins([image.digest for image in images], parts)
    level: Literal["error", "warning"] = "error" if what == "split" else "warning"
    for index, other in _once(same):
        message = (
            f"in {what} {parts[index]}: same pixels as {names[other]} in {parts[other]}; remove one, or {WAY_OUT}: "
            "segline check --groups FILE writes it"
        )
        yield Problem(level, names[index], message, kind=f"same pixels in two {what}s")
    near = partners(_codes(images), _numbers(parts))
    for index, other in _once({int(one): int(near[one]) for one in np.flatnonzero(near >= 0)}):
        if index not in same:
            message = f"in {what} {parts[index]}: looks like {names[other]} in {parts[other]}; if it is, {WAY_OUT}"
            yield Problem("warning", names[index], message, kind=f"images that look alike in two {what}s")


def contradictions(dataset: Dataset, checked: Sequence[Checked]) -> Iterator[Problem]:
    """Images of the same pixels with other labels."""
    images = [image for image in checked if image.code is not None and image.truth]
    found = twins([image.digest for image in images], [image.truth for image in images])
    for index, other in _once(found):
        name, twin = (name_of(dataset, dataset.images[images[one].stem]) for one in (index, other))
        message = f"same pixels as {twin}, but other labels; one of both is wrong"
        yield Problem("warning", name, message, kind="images labelled twice, not in the same way")


def groups(dataset: Dataset, checked: Sequence[Checked], *, exactly: bool = False) -> dict[str, str]:
    """Group by image: those of the dataset, made one where images of two are alike, or `exactly` the same."""
    images = [image for image in checked if image.code is not None]
    names, labels = np.unique([dataset.groups[image.stem] for image in images], return_inverse=True)
    if exactly:
        pairs = twins([image.digest for image in images], labels.tolist())
        united = joined(labels, pairs.items())
    else:
        united = united(_codes(images), labels)
    renamed = {str(names[old]): str(names[new]) for old, new in zip(labels, united, strict=True)}
    return {stem: renamed.get(group, group) for stem, group in dataset.groups.items()}


def _codes(images: Sequence[Checked]) -> Codes:
    return np.array([image.code for image in images], np.uint64).reshape(-1, 4)


def _numbers(parts: Sequence[str]) -> Indices:
    return np.unique(parts, return_inverse=True)[1]


def _once(pairs: Mapping[int, int]) -> Iterator[tuple[int, int]]:
    """Each index with its partner, but not the same pair the other way round."""
    return ((one, other) for one, other in sorted(pairs.items()) if one < other or pairs.get(other) != one)
