"""Metrics of a project on its test split beside those of trivial baselines: a table and one JSON line.

Run in the project, after `dvc repro`: python benchmarks/bench_datasets.py

most frequent class  of the training pixels, everywhere
Otsu                 one threshold an image; which side is foreground (the brighter, the darker or the smaller one) is
                     chosen by foreground IoU on the training split; objects are connected components
Otsu, three levels   two thresholds an image, where there are three classes; which level is which class is chosen by
                     mean IoU on the training split
mean, spread         detectors of "any foreground at all": mean and standard deviation of the image's grey values, the
                     sign chosen by AUC on the training split
"""

import json
from collections.abc import Callable, Iterable
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from skimage.filters import threshold_multiotsu

from segline.data import labels
from segline.data.dataset import IGNORE
from segline.data.prepared import Prepared
from segline.model.images import Raw
from segline.model.objects import segments, thin
from segline.score import counts, judge

Labels = npt.NDArray[np.uint8]
Predict = Callable[[Raw], Labels]
TEST = Path("data/reports/test.json")
COLUMNS = ("foreground_iou", *judge.METRICS)


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
        truth = prepared.classes(name)
        if number == 2:
            truth = np.where(truth == IGNORE, truth, np.minimum(truth, 1))
        tables.append(counts.confusion(truth, predict(prepared.image(name)), number, IGNORE))
    return np.sum(tables, axis=0, dtype=np.int64)


def foreground_iou(table: npt.NDArray[np.int64]) -> float:
    """Return the IoU of all foreground classes merged."""
    both = table[1:, 1:].sum()
    return float(both / (table.sum() - table[0, 0]))


def judged(prepared: Prepared, predict: Predict) -> dict[str, Any]:
    """Return the metrics of `predict` on the test split, counted as in stage evaluate."""
    kind, number, scores = prepared.dataset.labels, len(prepared.dataset.classes), []
    for name in prepared.names("test"):
        truth, predicted = prepared.classes(name), predict(prepared.image(name))
        objects = cells = None
        if kind == "instances":
            objects = (prepared.instances(name), labels.components(predicted))
        if kind == "boundaries":
            cells = (segments((truth > 0) & (truth != IGNORE)), thin(predicted, 0))
        scores.append(judge.score(truth, predicted, number, IGNORE, objects=objects, segments=cells))
    result = judge.total(scores, prepared.dataset.classes)
    return {"foreground_iou": foreground_iou(np.array(result["confusion"]))} | result


def baselines(prepared: Prepared) -> Iterable[tuple[str, dict[str, Any]]]:
    """Yield name and metrics of each baseline for pixels."""
    names = list(prepared.dataset.classes.values())
    pixels = [prepared.manifest.loc[prepared.manifest["split"] == "train", f"pixels_{k}"] for k in range(len(names))]
    commonest = int(np.argmax([column.astype(int).sum() for column in pixels]))
    yield f"most frequent class ({names[commonest]})", judged(prepared, everywhere(commonest))
    side = max((brighter, darker, smaller), key=lambda side: foreground_iou(confusion(prepared, "train", side, 2)))
    if len(names) == 2:
        yield f"Otsu ({side.__name__})", judged(prepared, side)
    else:
        yield f"Otsu ({side.__name__})", {"foreground_iou": foreground_iou(confusion(prepared, "test", side, 2))}
    if len(names) == 3:
        order = max(
            permutations(range(3)),
            key=lambda order: counts.mean_iou(confusion(prepared, "train", by_level(order), 3)),
        )
        yield f"Otsu, three levels ({', '.join(names[k] for k in order)})", judged(prepared, by_level(order))


def detectors(prepared: Prepared) -> Iterable[tuple[str, dict[str, Any]]]:
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


def shown_as(figure: float | None) -> str:
    return "-" if figure is None else f"{figure:.4f}"


def main() -> None:
    """Print a table and one JSON line."""
    prepared, result = Prepared.open(), json.loads(TEST.read_text())
    segline = {"foreground_iou": foreground_iou(np.array(result["confusion"]))} | result
    rows = [("segline", segline), *baselines(prepared), *detectors(prepared)]
    shown = [column for column in COLUMNS if any(figures.get(column) is not None for _, figures in rows)]
    print(f"{prepared.dataset.name}: {result['images']} test images")
    print(f"{'':56}" + "".join(f"{column:>16}" for column in shown))
    for name, figures in rows:
        cells = (figures.get(column) for column in shown)
        print(f"{name:56}" + "".join(f"{shown_as(cell):>16}" for cell in cells))
    print(
        "segline, IoU of each class: " + ", ".join(f"{name} {shown_as(value)}" for name, value in result["iou"].items())
    )
    table = [{"name": name} | {column: figures.get(column) for column in shown} for name, figures in rows]
    print(json.dumps({"benchmark": "datasets", "dataset": prepared.dataset.name, "iou": result["iou"], "rows": table}))


if __name__ == "__main__":
    main()
