"""Find equal or similar images that are in different groups or splits; unite the groups of such images."""

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

SIDE, WAVES = 64, 16  # px, side of the reduced image; number of low frequencies used along each axis
COARSE = 512  # px, side after a first reduction; this step keeps the image's type to avoid a large float copy
BITS = 255  # bits of a perceptual hash that carry information
# Images are similar if at most MOST_BITS bits of their perceptual hashes differ. For hashes of unrelated images, about
# half of the bits differ. Over 90 % of images are still similar to their originals after JPEG compression
# (quality 30), 10 % brightening, 50 % scaling or a 1 % shift.
MOST_BITS = 40
# A stricter limit for datasets whose images are alike anyway; see `limit`. Over 90 % of these copies, except shifted
# ones, differ in fewer bits.
LEAST_BITS = 20
SAMPLE = 512  # number of images from which `limit` estimates how much the images of a dataset differ
FEWEST_PAIRS = 10  # `limit` makes no estimate from fewer pairs
ROWS, COLUMNS = 16, 2048  # rows and columns of a block of pairs, small enough for the CPU cache


def digest(image: Raw) -> bytes:
    """Return an MD5 digest of the type, shape and pixels of an image."""
    md5 = hashlib.md5(f"{image.dtype} {image.shape}".encode(), usedforsecurity=False)
    md5.update(np.ascontiguousarray(image).data)
    return md5.digest()


def code(image: Raw) -> Codes:
    """Return the perceptual hash (4,) uint64 of an image (H, W, C); similar images differ in few bits.

    Each bit tells whether one of the 255 lowest frequencies of the reduced grey image is above their median (pHash:
    Zauner 2010). The 63 frequencies of the original pHash are too few to distinguish single cells on a plain ground.
    """
    reduced = _reduced(image)
    if not np.isfinite(reduced).all():
        return np.zeros(4, np.uint64)
    waves = cv2.dct(reduced)[:WAVES, :WAVES].ravel()[1:]
    return np.packbits(np.append(waves > np.median(waves), False)).view(np.uint64)


def _reduced(image: Raw) -> npt.NDArray[np.float64]:
    """Sum the channels of an image, and shrink the result to SIDE x SIDE pixels."""
    height, width, channels = image.shape
    size = min(width, COARSE), min(height, COARSE)
    # OpenCV can resize at most four channels at once, so an image with more channels is resized channel by channel.
    parts = [image] if channels <= 4 else [image[..., channel] for channel in range(channels)]
    total = np.zeros((SIDE, SIDE))
    for part in parts:
        coarse = cv2.resize(part, size, interpolation=cv2.INTER_AREA).astype(np.float64)
        fine = cv2.resize(coarse, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        total += fine.reshape(SIDE, SIDE, -1).sum(axis=2)
    return total


def twins(digests: Sequence[bytes], labels: Sequence[object]) -> dict[int, int]:
    """Find images with equal digests but different labels; a label can be any value, such as a group or a split.

    Return a dictionary from the index of each such image to the index of a duplicate with a different label.
    """
    by_digest: dict[bytes, list[int]] = {}
    for index, key in enumerate(digests):
        by_digest.setdefault(key, []).append(index)
    twin_of: dict[int, int] = {}
    for same in by_digest.values():
        foreign = next((index for index in same if labels[index] != labels[same[0]]), None)
        if foreign is not None:
            twin_of |= {index: same[0] if labels[index] != labels[same[0]] else foreign for index in same}
    return twin_of


def limit(codes: Codes) -> int:
    """Return a threshold: two images are similar if their hashes, of `codes` (N, 4), differ in at most this many bits.

    Images of one kind, such as photographs of the retina, have many bits in common although none is a copy of another.
    So the limit is MOST_BITS if the median pair of images differs in half of the bits, and proportionally lower if it
    differs in fewer bits, but at least LEAST_BITS.
    """
    chosen = codes[np.unique(np.linspace(0, len(codes) - 1, min(len(codes), SAMPLE)).astype(np.intp))]
    first, second = np.triu_indices(len(chosen), 1)
    if len(first) < FEWEST_PAIRS:
        return MOST_BITS
    median = np.median(np.bitwise_count(chosen[first] ^ chosen[second]).sum(axis=1))
    return int(np.clip(MOST_BITS * median / (BITS / 2), LEAST_BITS, MOST_BITS))


def partners(codes: Codes, labels: Indices, most_bits: int = MOST_BITS) -> Indices:
    """Return, for each image, the index of a similar image in another group or split; -1 if no such image exists.

    Every pair is compared, so no pair is missed. 100,000 images take 15 s on one core (benchmarks/bench_check.py).

    Parameters
    ----------
    codes : (N, 4), perceptual hashes from `code`.
    labels : (N,), group or split of each image.
    most_bits : largest number of differing bits between the hashes of similar images.
    """
    partner_of = np.full(len(codes), -1, np.intp)
    words = np.ascontiguousarray(codes.T)
    for row in range(0, len(codes), ROWS):
        rows = slice(row, row + ROWS)
        for column in range(row, len(codes), COLUMNS):
            columns = slice(column, column + COLUMNS)
            near = _near(words[:, rows], words[:, columns], most_bits)
            if near is None:
                continue
            near &= labels[rows, None] != labels[columns]
            for ours, theirs, hits in ((rows, columns, near), (columns, rows, near.T)):
                alike = hits.any(axis=1)
                partner_of[ours][alike] = hits[alike].argmax(axis=1) + theirs.start
    return partner_of


def _near(ours: Codes, theirs: Codes, most_bits: int) -> npt.NDArray[np.bool_] | None:
    """Compare hashes (4, R) and (4, C) of images; return a mask (R, C) of similar pairs; None if no pair is similar."""
    bits = np.zeros((ours.shape[1], theirs.shape[1]), np.uint8)
    for mine, yours in zip(ours, theirs, strict=True):
        bits += np.bitwise_count(mine[:, None] ^ yours)
        if bits.min() > most_bits:
            return None
    return bits <= most_bits


def united(codes: Codes, labels: Indices, most_bits: int = MOST_BITS) -> Indices:
    """Merge group labels (N,) until similar images always have the same label; return the new labels (Boruvka 1926)."""
    while True:
        partner_of = partners(codes, labels, most_bits)
        with_partner = np.flatnonzero(partner_of >= 0)
        if not with_partner.size:
            return labels
        labels = joined(labels, zip(with_partner.tolist(), partner_of[with_partner].tolist(), strict=True))


def joined(labels: Indices, pairs: Iterable[tuple[int, int]]) -> Indices:
    """For each pair in `pairs`, merge the groups of its two images; return the new group label of each image (N,).

    A merged group keeps the smaller label.
    """
    labels = labels.copy()
    for index, partner in pairs:
        low, high = sorted((labels[index], labels[partner]))
        if low != high:
            labels[labels == high] = low
    return labels


WAY_OUT = f"give both the same group in {GROUPS}"


def problems(
    dataset: Dataset, checked: Sequence[Checked], part_of: Mapping[str, str], what: Literal["group", "split"]
) -> Iterator[Problem]:
    """Yield a problem for each pair of similar images in different groups or splits; such pairs bias test scores.

    Images in which all pixels have one value are skipped, because many such images can be alike.

    Parameters
    ----------
    part_of : group or split of each image.
    what : whether `part_of` holds groups or splits. Equal pixels in two splits are an error; all other problems are
        warnings.
    """
    images = [image for image in checked if image.code is not None]
    names = [name_of(dataset, dataset.images[image.stem]) for image in images]
    parts = [part_of[image.stem] for image in images]
    same = twins([image.digest for image in images], parts)
    level: Literal["error", "warning"] = "error" if what == "split" else "warning"
    for index, partner in _once(same):
        message = (
            f"in {what} {parts[index]}: same pixels as {names[partner]} in {what} {parts[partner]}; remove one of "
            f"them, or {WAY_OUT} (`segline check --groups FILE` writes this file)"
        )
        yield Problem(level, names[index], message, kind=f"same pixels in two {what}s")
    codes, labels = _codes(images), _numbers(parts)
    near = partners(codes, labels, limit(codes))
    for index, partner in _once({int(index): int(near[index]) for index in np.flatnonzero(near >= 0)}):
        if index not in same:
            message = (
                f"in {what} {parts[index]}: looks like {names[partner]} in {what} {parts[partner]}; if one is a copy "
                f"of the other, {WAY_OUT}"
            )
            yield Problem("warning", names[index], message, kind=f"images that look alike in two {what}s")


def contradictions(dataset: Dataset, checked: Sequence[Checked]) -> Iterator[Problem]:
    """Yield a problem for images with the same pixels but different labels."""
    images = [image for image in checked if image.code is not None and image.truth]
    relabelled = twins([image.digest for image in images], [image.truth for image in images])
    for pair in _once(relabelled):
        name, twin = (name_of(dataset, dataset.images[images[index].stem]) for index in pair)
        message = f"same pixels as {twin}, but different labels; correct the labels of one of them"
        yield Problem("warning", name, message, kind="images labelled twice in different ways")


def groups(dataset: Dataset, checked: Sequence[Checked], *, exactly: bool = False) -> dict[str, str]:
    """Unite groups that hold similar images; return the new group of each image.

    Parameters
    ----------
    exactly : unite groups only if they hold images with exactly the same pixels.
    """
    images = [image for image in checked if image.code is not None]
    names, labels = np.unique([dataset.groups[image.stem] for image in images], return_inverse=True)
    if exactly:
        pairs = twins([image.digest for image in images], labels.tolist())
        merged = joined(labels, pairs.items())
    else:
        codes = _codes(images)
        merged = united(codes, labels, limit(codes))
    renamed = {str(names[old]): str(names[new]) for old, new in zip(labels, merged, strict=True)}
    return {stem: renamed.get(group, group) for stem, group in dataset.groups.items()}


def _codes(images: Sequence[Checked]) -> Codes:
    return np.array([image.code for image in images], np.uint64).reshape(-1, 4)


def _numbers(parts: Sequence[str]) -> Indices:
    return np.unique(parts, return_inverse=True)[1]


def _once(pairs: Mapping[int, int]) -> Iterator[tuple[int, int]]:
    """Yield each pair of indices; if both (a, b) and (b, a) occur, yield only one of them."""
    return (
        (index, partner) for index, partner in sorted(pairs.items()) if index < partner or pairs.get(partner) != index
    )
