"""Measure a dataset: what its images and its labels look like. The plan follows from these numbers."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from segline.data import labels
from segline.data.dataset import IGNORE, Kind, Truth
from segline.model.images import Raw
from segline.model.normalisation import moments, statistics

CONTACT = 5  # side of the neighbourhood in which two objects are in contact, px
QUANTILES = (10, 50, 90)  # percentiles of the object diameters


@dataclass(frozen=True)
class Measurement:
    """Measurements of one image and its labels.

    ``size`` : height and width, px.
    ``mean``, ``std`` : mean and standard deviation of each channel, as fractions of the largest value of the type.
    ``pixels`` : number of pixels of each class.
    ``widths`` : mean width of the area of each class but the background, px; nan if the class is absent.
    ``diameters`` : diameter of each object, px: that of a disc of equal area.
    ``elongations`` : length of each object divided by its width.
    ``touching`` : number of objects that touch or nearly touch another.
    ``gradient`` : sums of the structure tensor (xx, yy, xy) of the image's brightness.
    """

    size: tuple[int, int]
    dtype: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    pixels: npt.NDArray[np.int64]
    widths: npt.NDArray[np.float64]
    diameters: npt.NDArray[np.float64]
    elongations: npt.NDArray[np.float64]
    touching: int
    gradient: tuple[float, float, float]


def measure_image(image: Raw, truth: Truth, classes: int) -> Measurement:
    """Measure `image` (H, W, C) and its labels: class ids and instance ids, both (H, W); `classes` is their number."""
    of_image = statistics([moments(image)])
    class_ids, instances = truth
    numbered, count = labels.renumber(instances)
    diameters, elongations = shapes(numbered, count)
    return Measurement(
        size=image.shape[:2],
        dtype=of_image.dtype,
        mean=of_image.mean,
        std=of_image.std,
        pixels=labels.areas(class_ids, IGNORE + 1)[:classes],
        widths=np.array([mean_width(class_ids == class_id) for class_id in range(1, classes)]),
        diameters=diameters,
        elongations=elongations,
        touching=touching(numbered),
        gradient=structure(image),
    )


def mean_width(mask: npt.NDArray[np.bool_]) -> float:
    """Return the mean width of an area (H, W), px; nan if it is empty.

    In a long strip the distance to the border has a mean of a quarter of the width.
    """
    if not mask.any():
        return float("nan")
    # Outside of the image counts as part of the area, so that an area that the image cuts does not look thin.
    distances = cv2.distanceTransform(mask.view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5)
    return float(4 * (distances[mask].mean() - 0.5))  # the border is half a pixel before the nearest pixel outside


def shapes(instances: npt.NDArray[np.int32], count: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return two arrays (`count`,) of instances 1 ... `count` in (H, W): diameters, px, and length divided by width.

    Length and width are those of an ellipse with the same second moments.
    """
    rows, columns = np.nonzero(instances)
    of = instances[rows, columns] - 1
    area = np.bincount(of, minlength=count).astype(np.float64)

    def mean(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.bincount(of, values, minlength=count) / area

    down = rows - mean(rows.astype(np.float64))[of]
    right = columns - mean(columns.astype(np.float64))[of]
    # A pixel is a square, not a point, so it adds 1/12 to each variance.
    xx, yy, xy = mean(right * right) + 1 / 12, mean(down * down) + 1 / 12, mean(right * down)
    spread = np.sqrt((xx - yy) ** 2 / 4 + xy**2)
    middle = (xx + yy) / 2
    elongation = np.sqrt((middle + spread) / (middle - spread))
    return np.sqrt(4 * area / np.pi), elongation


def touching(instances: npt.NDArray[np.int32]) -> int:
    """Count the objects that have a pixel of another object within two pixels."""
    if not instances.any():
        return 0
    square = np.ones((CONTACT, CONTACT), np.uint8)
    ids = instances.astype(np.float32)  # exact below 2**24
    highest = cv2.dilate(ids, square)
    lowest = cv2.erode(np.where(ids > 0, ids, np.float32(2**25)), square)
    near = (instances > 0) & ((highest != ids) | (lowest != ids))
    return labels.ids(np.where(near, instances, 0)).size


def structure(image: Raw) -> tuple[float, float, float]:
    """Return the sums of the structure tensor (xx, yy, xy) of the mean of the channels of `image` (H, W, C)."""
    grey = image.astype(np.float32).mean(axis=2)
    right, down = cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1)
    xx, yy, xy = (float(np.sum(a * b, dtype=np.float64)) for a, b in ((right, right), (down, down), (right, down)))
    return xx, yy, xy


@dataclass(frozen=True)
class Fingerprint:
    """Measurements of a dataset.

    ``images`` : number of images; ``looked_at`` : number of measured images.
    ``side`` : median of the shorter sides, px; ``smallest``, ``largest`` : smallest and largest side, px.
    ``contrast`` : median over the images of the deviation of the brightness, as a fraction of the type's range.
    ``variety`` : standard deviation of the mean brightness between images, divided by the contrast.
    ``frequencies`` : fraction of the pixels of each class.
    ``empty`` : fraction of the images without foreground.
    ``objects`` : median number of objects of an image.
    ``diameters`` : 10th, 50th and 90th percentile of the object diameters, px; empty if there are no objects.
    ``elongation`` : median of length divided by width of the objects.
    ``contact`` : fraction of the objects that touch, or nearly touch, another.
    ``width`` : mean width of the areas of the class with the thinnest areas, px.
    ``direction`` : 0 if edges have all directions equally, 1 if all edges are parallel.
    """

    kind: Kind
    classes: int
    channels: int
    dtype: str
    images: int
    looked_at: int
    side: int
    smallest: int
    largest: int
    contrast: float
    variety: float
    frequencies: tuple[float, ...]
    empty: float
    objects: float
    diameters: tuple[float, ...]
    elongation: float
    contact: float
    width: float
    direction: float


def summarise(kind: Kind, images: int, measured: Sequence[Measurement]) -> Fingerprint:
    """Summarise the measurements of at least one image of a dataset with `images` images."""
    mean = np.array([np.mean(one.mean) for one in measured])
    std = np.array([np.mean(one.std) for one in measured])
    contrast = float(np.median(std))
    pixels = np.sum([one.pixels for one in measured], axis=0)
    diameters = np.concatenate([one.diameters for one in measured])
    widths = np.array([one.widths for one in measured])
    sizes = np.array([one.size for one in measured])
    return Fingerprint(
        kind=kind,
        classes=len(pixels),
        channels=max(len(one.mean) for one in measured),
        dtype=measured[0].dtype,
        images=images,
        looked_at=len(measured),
        side=int(np.median(sizes.min(axis=1))),
        smallest=int(sizes.min()),
        largest=int(sizes.max()),
        contrast=contrast,
        variety=float(mean.std() / contrast) if contrast else 0.0,
        frequencies=tuple((pixels / pixels.sum()).tolist()),
        empty=float(np.mean([one.pixels[1:].sum() == 0 for one in measured])),
        objects=float(np.median([one.diameters.size for one in measured])),
        diameters=tuple(np.percentile(diameters, QUANTILES).tolist()) if diameters.size else (),
        elongation=float(np.median(np.concatenate([one.elongations for one in measured]))) if diameters.size else 1.0,
        contact=sum(one.touching for one in measured) / max(1, diameters.size),
        width=_thinnest(widths),
        direction=_direction([one.gradient for one in measured]),
    )


def _thinnest(widths: npt.NDArray[np.float64]) -> float:
    """Return the smallest over the classes of the median over the images, of `widths` (images, classes)."""
    medians = [float(np.median(column[~np.isnan(column)])) for column in widths.T if not np.isnan(column).all()]
    return min(medians, default=0.0)


def _direction(gradients: Iterable[tuple[float, float, float]]) -> float:
    """Return how much the edges of all images share one direction. Each image counts alike."""
    directions = [((xx - yy) / (xx + yy), 2 * xy / (xx + yy)) for xx, yy, xy in gradients if xx + yy > 0]
    return float(np.hypot(*np.mean(directions, axis=0))) if directions else 0.0
