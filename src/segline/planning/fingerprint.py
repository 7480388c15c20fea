"""Measure a dataset: its images and its labels. The plan follows from these numbers."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import hypot

import cv2
import numpy as np
import numpy.typing as npt

from segline.data import labels
from segline.data.dataset import IGNORE, DatasetError, Kind, Truth
from segline.model.images import RANGES, Raw

CROP = 2048  # largest side of the measured part of an image, px; limits the memory
CONTACT = 5  # side of the neighbourhood in which two objects are in contact, px
QUANTILES = (10, 50, 90)  # percentiles of the object diameters
SMOOTH = 2  # standard deviation of the smoothing before edges are measured, px; hides noise and JPEG blocks


@dataclass(frozen=True)
class Measurement:
    """Measurements of one image and its labels; all except ``size`` are taken from its central part.

    ``size`` : height and width, px.
    ``mean``, ``std`` : mean and standard deviation of each channel, as fractions of the largest value of the type.
    ``pixels`` : number of pixels of each class.
    ``widths`` : mean width of the area of each class but the background, px; nan if the class is absent.
    ``diameters`` : diameter of each object, px: that of a disc of equal area.
    ``touching`` : number of objects that touch or nearly touch another.
    ``direction`` : direction of the edges as a vector of length 0 (no common direction) to 1 (all are parallel). Its
        angle is twice that of the edges.
    """

    size: tuple[int, int]
    dtype: str
    mean: npt.NDArray[np.float64]
    std: npt.NDArray[np.float64]
    pixels: npt.NDArray[np.int64]
    widths: npt.NDArray[np.float64]
    diameters: npt.NDArray[np.float64]
    touching: int
    direction: tuple[float, float]


def measure_image(image: Raw, truth: Truth, classes: int) -> Measurement:
    """Measure `image` (H, W, C) and its labels: class ids and instance ids (H, W). `classes`: number of classes."""
    middle = tuple(_middle(length) for length in image.shape[:2])
    pixels, class_ids, instances = (array[middle] for array in (image, *truth))
    numbered, count = labels.renumber(instances)
    values = pixels.reshape(-1, pixels.shape[2]).astype(np.float64) / RANGES[pixels.dtype.name]
    areas = labels.areas(numbered, count + 1)[1:]
    return Measurement(
        size=image.shape[:2],
        dtype=image.dtype.name,
        mean=values.mean(axis=0),
        std=_deviation(values),
        pixels=labels.areas(class_ids, IGNORE + 1)[:classes],
        widths=np.array([mean_width(class_ids == class_id) for class_id in range(1, classes)]),
        diameters=np.sqrt(4 * areas / np.pi),
        touching=touching(numbered),
        direction=direction(pixels),
    )


def _deviation(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the standard deviation of each column; 0 instead of a rounding error if all values are equal."""
    return np.where(values.min(axis=0) < values.max(axis=0), values.std(axis=0), 0)


def _middle(length: int) -> slice:
    start = max(0, (length - CROP) // 2)
    return slice(start, start + min(length, CROP))


def mean_width(mask: npt.NDArray[np.bool_]) -> float:
    """Return the mean width of an area (H, W), px; nan if it is empty, the shorter side if it is the whole image.

    It is four times the mean distance to the border, which is exact for a long strip.
    """
    if not mask.any():
        return float("nan")
    if mask.all():
        return float(min(mask.shape))
    # The outside of the image counts as part of the area: an area cut off by the image border must not look thin.
    distances = cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5)
    return float(4 * (distances[mask].mean() - 0.5))  # the border is half a pixel closer than the outside pixel


def touching(instances: npt.NDArray[np.int32]) -> int:
    """Count the objects that have a pixel of another object within two pixels."""
    if not instances.any():
        return 0
    square = np.ones((CONTACT, CONTACT), np.uint8)
    ids = instances.astype(np.float32)  # ids below 2**24 stay exact, and a crop has fewer pixels
    highest = cv2.dilate(ids, square)
    lowest = cv2.erode(np.where(ids > 0, ids, np.float32(2**25)), square)
    near = (instances > 0) & ((highest != ids) | (lowest != ids))
    return labels.ids(np.where(near, instances, 0)).size


def direction(image: Raw) -> tuple[float, float]:
    """Return the common direction of the edges of `image` (H, W, C), from its structure tensor."""
    values = image.mean(axis=2, dtype=np.float64)
    if values.min() == values.max():
        return 0.0, 0.0
    # The direction does not depend on the scale of the values. Extreme values of float images would overflow below.
    grey = (values / np.abs(values).max()).astype(np.float32)
    grey = cv2.GaussianBlur(grey, (0, 0), SMOOTH)
    right, down = cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1)
    xx, yy, xy = (float(np.sum(a * b, dtype=np.float64)) for a, b in ((right, right), (down, down), (right, down)))
    return ((xx - yy) / (xx + yy), 2 * xy / (xx + yy)) if xx + yy > 0 else (0.0, 0.0)


@dataclass(frozen=True)
class Fingerprint:
    """Measurements of a dataset.

    ``images`` : number of measured images.
    ``side`` : median of the shorter sides, px.
    ``contrast`` : standard deviation of the brightness within an image, as a fraction of the type's range: median over
        the images, mean over the channels; 0 if all images are constant.
    ``variety`` : standard deviation of the mean brightness between images, divided by the contrast.
    ``frequencies`` : fraction of all pixels that belong to each class.
    ``empty`` : fraction of the images without foreground.
    ``objects`` : median number of objects per image.
    ``diameters`` : 10th, 50th and 90th percentile of the object diameters, px; empty if there are no objects.
    ``contact`` : fraction of the objects that touch, or nearly touch, another.
    ``width`` : mean width of the areas of the class with the thinnest areas, px; 0 if there is no foreground.
    ``direction`` : 0 if the images have no common direction of edges, 1 if all edges are parallel.
    """

    kind: Kind
    classes: int
    channels: int
    dtype: str
    images: int
    side: int
    contrast: float
    variety: float
    frequencies: tuple[float, ...]
    empty: float
    objects: float
    diameters: tuple[float, ...]
    contact: float
    width: float
    direction: float

    def sentence(self) -> str:
        """Describe the measured images in one line."""
        objects = "without objects"
        if self.diameters:
            low, middle, high = self.diameters
            objects = f"{self.objects:.0f} objects an image, {low:.0f} to {high:.0f} px wide (median {middle:.0f})"
        channels = f"{self.channels} channel{'s' if self.channels > 1 else ''}"
        return f"{self.images} images measured: {self.dtype}, {channels}, {self.side} px; {self.kind}; {objects}"


def summarise(kind: Kind, measured: Sequence[Measurement]) -> Fingerprint:
    """Summarise the measurements of at least one image.

    Raises
    ------
    DatasetError
        All pixels are ignored.
    """
    pixels = np.sum([image.pixels for image in measured], axis=0)
    if not pixels.sum():
        raise DatasetError("all pixels of the measured images are ignored; label some of them")
    channels = max(image.mean.size for image in measured)
    # A grey image among RGB images counts as three equal channels.
    mean = np.array([np.broadcast_to(image.mean, channels) for image in measured])
    std = np.array([np.broadcast_to(image.std, channels) for image in measured])
    contrast, variety = _brightness(mean, std)
    diameters = np.concatenate([image.diameters for image in measured])
    return Fingerprint(
        kind=kind,
        classes=len(pixels),
        channels=channels,
        dtype=measured[0].dtype,
        images=len(measured),
        side=int(np.median([min(image.size) for image in measured])),
        contrast=contrast,
        variety=variety,
        frequencies=tuple((pixels / pixels.sum()).tolist()),
        empty=float(np.mean([image.pixels[0] > 0 and not image.pixels[1:].any() for image in measured])),
        objects=float(np.median([image.diameters.size for image in measured])),
        diameters=tuple(np.percentile(diameters, QUANTILES).tolist()) if diameters.size else (),
        contact=sum(image.touching for image in measured) / max(1, diameters.size),
        width=_thinnest(np.array([image.widths for image in measured])),
        direction=hypot(*np.mean([image.direction for image in measured], axis=0)),
    )


def _brightness(mean: npt.NDArray[np.float64], std: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Return contrast and variety from the statistics of the images, arrays (images, channels).

    A channel that is constant in an image says nothing about the contrast, so it is left out.
    """
    contrasts, varieties = [], []
    for of_images, deviations in zip(mean.T, std.T, strict=True):
        varied = deviations > 0
        if varied.any():
            contrasts.append(float(np.median(deviations[varied])))
            varieties.append(float(of_images[varied].std()) / contrasts[-1])
    return (float(np.mean(contrasts)), max(varieties)) if contrasts else (0.0, 0.0)


def _thinnest(widths: npt.NDArray[np.float64]) -> float:
    """For each class, take the median of `widths` (images, classes) over the images; return the smallest median."""
    medians = [float(np.median(column[~np.isnan(column)])) for column in widths.T if not np.isnan(column).all()]
    return min(medians, default=0.0)
