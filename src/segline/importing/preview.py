"""Preview an imported dataset: draw some images with outlined labels, and list the content as a table."""

from collections import Counter
from collections.abc import Iterator, Sequence

import cv2
import numpy as np

from segline.data import gaps
from segline.data.checks.problems import Checked
from segline.data.dataset import IGNORE, Dataset
from segline.data.imagefiles import Labels
from segline.model.images import Raw
from segline.score import overlay
from segline.score.overlay import RGB

PANELS = 12
SIDE = 320  # px; larger images are shrunk before drawing, so that outlines stay one pixel wide


def contact_sheet(dataset: Dataset, checked: Sequence[Checked]) -> RGB:
    """Draw a contact sheet (H, W, 3): images that the function `chosen` selects, with outlined labels."""
    panels = [(stem, _panel(dataset, stem)) for stem in chosen(checked)]
    return overlay.gallery(panels, legend=overlay.legend(dataset.spec.classes, errors=False))


def chosen(checked: Sequence[Checked], most: int = PANELS) -> list[str]:
    """Choose up to `most` images that show many different classes; return the stems of these images.

    The dataset is divided into nearly equal parts. The number of parts is `most`, or the number of images if this is
    smaller. In each part, the image with the most new classes is chosen. A class is new if no image chosen before shows
    it. Of images with equally many new classes, the image with the most classes is chosen. If several images are still
    equal, the first of them is chosen.
    """
    stems: list[str] = []
    shown: set[int] = set()
    for part in np.array_split(np.arange(len(checked)), min(most, len(checked))):
        classes = {checked[index].stem: {class_id for class_id, _ in checked[index].pixels} for index in part.tolist()}
        worth = {stem: (len(ids - shown), len(ids)) for stem, ids in classes.items()}
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
    """Reduce `image` to its first 1 or 3 channels, and shrink it to fit a panel."""
    shown = np.ascontiguousarray(image[..., :3] if image.shape[2] >= 3 else image[..., :1])
    scale = SIDE / max(shown.shape)
    if scale >= 1:
        return shown
    height, width = (max(1, round(side * scale)) for side in shown.shape[:2])
    shrunk: Raw = cv2.resize(shown, (width, height), interpolation=cv2.INTER_AREA)
    return shrunk.reshape(height, width, -1)


def _nearest(values: Labels, shape: Sequence[int]) -> Labels:
    """Resample `values` (H, W) to `shape` by nearest-neighbour interpolation."""
    rows, columns = (np.arange(new) * old // new for new, old in zip(shape[:2], values.shape, strict=True))
    nearest: Labels = values[rows[:, None], columns]
    return nearest


CHANNELS = {1: "grey", 3: "RGB"}


def lines(dataset: Dataset, checked: Sequence[Checked], instances: int | None = None) -> Iterator[str]:
    """Yield the lines of a table: images, sizes, pixel types, groups, instances (if counted) and class shares."""
    rows = [("images", _images(checked)), ("pixels", _pixel_types(checked)), ("labels", dataset.spec.labels)]
    groups = len(set(dataset.groups.values()))
    if groups < len(dataset.groups):
        rows.append(("groups", f"{groups}"))
    if instances is not None:
        rows.append(("instances", f"{instances}, {instances / max(1, len(checked)):.1f} an image"))
    yield from (f"  {name:<10}{value}" for name, value in rows)
    yield from _classes(dataset, checked)


def _images(checked: Sequence[Checked]) -> str:
    sizes = Counter(image.size for image in checked if image.size)
    if not sizes:
        return f"{len(checked)}"
    (low, high), (left, right) = ((min(side), max(side)) for side in zip(*sizes, strict=True))
    span = f"{left}x{low} px" if len(sizes) == 1 else f"{left}x{low} to {right}x{high} px ({len(sizes)} sizes)"
    return f"{len(checked)}, {span}"


def _pixel_types(checked: Sequence[Checked]) -> str:
    types = Counter(image.form for image in checked if image.form)
    names = [
        (f"{dtype} {CHANNELS.get(channels, f'with {channels} channels')}", count)
        for (dtype, channels), count in types.most_common()
    ]
    return names[0][0] if len(names) == 1 else ", ".join(f"{name} ({count} images)" for name, count in names)


def _classes(dataset: Dataset, checked: Sequence[Checked]) -> Iterator[str]:
    pixels: Counter[int] = Counter()
    images: Counter[int] = Counter()
    for image in checked:
        pixels.update(dict(image.pixels))
        images.update(class_id for class_id, count in image.pixels if count)
    width = max(map(len, dataset.spec.classes.values()))
    for class_id, name in dataset.spec.classes.items():
        share = pixels[class_id] / max(1, pixels.total())
        yield f"  class {class_id:<4}{name:<{width}}  {share:8.3%} of the pixels, in {images[class_id]} images"
