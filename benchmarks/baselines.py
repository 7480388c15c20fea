"""Trivial baselines of a prepared dataset, on its test split. They need no training of a network.

most frequent class  of the training pixels, everywhere
Otsu                 one threshold an image; which side is foreground (the brighter, the darker or the smaller one) is
                     chosen by foreground IoU on the training split; objects are connected components
Otsu, three levels   two thresholds an image, where there are three classes; which level is which class is chosen by
                     mean IoU on the training split
mean, spread         detectors of "any foreground at all": mean and standard deviation of the image's grey values, the
                     sign chosen by AUC on the training split
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import permutations
from typing import Any

import numpy as np
import numpy.typing as npt
from skimage.filters import threshold_multiotsu

from segline.data import labels, truth
from segline.data.dataset import IGNORE
from segline.data.prepared import Prepared
from segline.model.images import Raw
from segline.score import counts, judge

Labels = npt.NDArray[np.uint8]
Predict = Callable[[Raw], Labels]
Figures = dict[str, Any]


def totals(scores: Sequence[judge.Score], classes: Mapping[int, str]) -> Figures:
    """Return the metrics of `judge.total`, and the IoU of all foreground classes merged."""
    result = judge.total(scores, classes)
    return {"foreground_iou": foreground_iou(np.array(result["confusion"]))} | result


def foreground_iou(table: npt.NDArray[np.int64]) -> float:
    """Return the IoU of all foreground classes merged; nan if there is no foreground."""
    both, either = table[1:, 1:].sum(), table.sum() - table[0, 0]
    return float(both / either) if either else float("nan")


def grey(image: Raw) -> npt.NDArray[np.float64]:
    """(H, W): mean of the channels."""
    return np.asarray(image.mean(axis=2, dtype=np.float64))


def levels(image: Raw, number: int) -> npt.NDArray[np.intp]:
    """(H, W): 0 to `number` - 1, from dark to bright, by Otsu's thresholds; 0 where there are too few values."""
    values = grey(image)
    if np.unique(values).size < number:
        return np.zeros(values.shape, np.intp)
    return np.digitize(values, threshold_multiotsu(values, number))


def brighter(image: Raw) -> Labels:
    return levels(image, 2).astype(np.uint8)


def darker(image: Raw) -> Labels:
    return 1 - brighter(image)


def smaller(image: Raw) -> Labels:
    side = brighter(image)
    return side if side.mean() <= 0.5 else 1 - side


def by_level(classes: tuple[int, ...]) -> Predict:
    """Level 0, the darkest, becomes the first of `classes`, and so on."""
    table = np.array(classes, np.uint8)
    return lambda image: table[levels(image, len(classes))]


def everywhere(class_id: int) -> Predict:
    return lambda image: np.full(image.shape[:2], class_id, np.uint8)


def confusion(prepared: Prepared, split: str, predict: Predict, number: int) -> npt.NDArray[np.int64]:
    """(number, number), pixels; if `number` is 2, all foreground classes are merged."""
    tables = []
    for name in prepared.names(split):
        classes = prepared.classes(name)
        if number == 2:
            classes = np.where(classes == IGNORE, classes, np.minimum(classes, 1))
        tables.append(counts.confusion(classes, predict(prepared.image(name)), number, IGNORE))
    return np.sum(tables, axis=0, dtype=np.int64)


def judged(prepared: Prepared, predict: Predict) -> Figures:
    """Return the metrics of `predict` on the test split, counted as in stage evaluate, but without detection."""
    scores = []
    for name in prepared.names("test"):
        predicted = predict(prepared.image(name))
        scores.append(truth.score(prepared, name, predicted, labels.components(predicted)))
    return totals(scores, prepared.dataset.classes)


def of(prepared: Prepared) -> dict[str, Figures]:
    """Return the metrics of each baseline, by its name."""
    return dict([*for_pixels(prepared), *detectors(prepared)])


def for_pixels(prepared: Prepared) -> Iterable[tuple[str, Figures]]:
    """Yield name and metrics of each baseline for pixels."""
    names = list(prepared.dataset.classes.values())
    pixels = [prepared.manifest.loc[prepared.manifest["split"] == "train", f"pixels_{k}"] for k in range(len(names))]
    commonest = int(np.argmax([column.astype(int).sum() for column in pixels]))
    yield f"most frequent class ({names[commonest]})", judged(prepared, everywhere(commonest))
    side = max((brighter, darker, smaller), key=lambda side: foreground_iou(confusion(prepared, "train", side, 2)))
    if len(names) == 2:
        yield f"Otsu ({side.__name__})", judged(prepared, side)
    else:
        figures = {"foreground_iou": foreground_iou(confusion(prepared, "test", side, 2))}
        if prepared.dataset.labels == "instances":
            # Objects are matched whatever their class, so one class for all of them is enough.
            figures[judge.BY_IMAGE] = judged(prepared, side)[judge.BY_IMAGE]
        yield f"Otsu ({side.__name__})", figures
    if len(names) == 3:
        order = max(
            permutations(range(3)),
            key=lambda order: counts.mean_iou(confusion(prepared, "train", by_level(order), 3)),
        )
        yield f"Otsu, three levels ({', '.join(names[k] for k in order)})", judged(prepared, by_level(order))


def detectors(prepared: Prepared) -> Iterable[tuple[str, Figures]]:
    """Yield name and AUC of each trivial detector."""
    for name, measure in (("mean", np.mean), ("spread", np.std)):
        aucs = [
            auc(prepared, split, lambda image, measure=measure: measure(grey(image))) for split in ("train", "test")
        ]
        if not np.isnan(aucs).any():
            yield f"{name} of the image", {"detection_auc": aucs[1] if aucs[0] >= 0.5 else 1 - aucs[1]}


def auc(prepared: Prepared, split: str, measure: Callable[[Raw], float]) -> float:
    names = prepared.names(split)
    found = [bool(labels.foreground(prepared.classes(name), IGNORE).any()) for name in names]
    return judge.detection_auc([float(measure(prepared.image(name))) for name in names], found)
