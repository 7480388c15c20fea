"""The contact sheet of a dataset: images from all over it, with their labels outlined in the colours of the classes."""

from collections.abc import Sequence

import cv2
import numpy as np

from segline.data import gaps
from segline.data.checks.examine import Checked
from segline.data.dataset import IGNORE, Dataset
from segline.data.files import Labels
from segline.model.images import Raw
from segline.score import overlay
from segline.score.overlay import RGB

PANELS = 12
SIDE = 320  # px; larger images are shrunk before anything is drawn, so that outlines stay one pixel wide


def contact_sheet(dataset: Dataset, checked: Sequence[Checked]) -> RGB:
    """Picture (H, W, 3) of `chosen` images, the same for the same dataset."""
    panels = [(stem, _panel(dataset, stem)) for stem in chosen(checked)]
    return overlay.gallery(panels, legend=overlay.legend(dataset.spec.classes, errors=False))


def chosen(checked: Sequence[Checked], most: int = PANELS) -> list[str]:
    """Stems from all over the set: of each of `most` equal parts the image with the most classes not shown yet.

    Where several have that, it is the first of those that have the most classes.
    """
    stems: list[str] = []
    shown: set[int] = set()
    for part in np.array_split(np.arange(len(checked)), min(most, len(checked))):
        classes = {checked[index].stem: {class_id for class_id, _ in checked[index].pixels} for index in part.tolist()}
        worth = {stem: (len(found - shown), len(found)) for stem, found in classes.items()}
        stems.append(max(worth, key=worth.__getitem__))
        shown |= classes[stems[-1]]
    return stems


def _panel(dataset: Dataset, stem: str) -> RGB:
    classes, instances = dataset.truth(stem)
    image = _fitted(dataset.image(stem))
    classes, instances = _nearest(classes, image.shape), _nearest(instances, image.shape)
    ignored = classes == IGNORE
    shown = np.where(ignored, 0, classes)
    if dataset.spec.labels == "instances":
        shown = gaps.separate(shown, instances)
    picture = overlay.overlay(image, shown)
    picture[ignored] //= 3
    return picture


def _fitted(image: Raw) -> Raw:
    """The channels that are shown, shrunk to fit."""
    shown = np.ascontiguousarray(image[..., :3] if image.shape[2] >= 3 else image[..., :1])
    scale = SIDE / max(shown.shape)
    if scale >= 1:
        return shown
    height, width = (max(1, round(side * scale)) for side in shown.shape[:2])
    shrunk: Raw = cv2.resize(shown, (width, height), interpolation=cv2.INTER_AREA)
    return shrunk.reshape(height, width, -1)


def _nearest(values: Labels, shape: Sequence[int]) -> Labels:
    """`values` (H, W) at the pixels of an image of `shape`."""
    rows, columns = (np.arange(new) * old // new for new, old in zip(shape[:2], values.shape, strict=True))
    nearest: Labels = values[rows[:, None], columns]
    return nearest
