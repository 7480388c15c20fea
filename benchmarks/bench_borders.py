"""Time and exactness of the weight map beside its rivals: PYTHONPATH=src python benchmarks/bench_borders.py [--naive]

One core. The rivals compute the same map for cells that are separated already:
boxes   a distance transform of each cell's bounding box, grown by the reach of the border term
naive   a distance transform of the whole image for each cell, in float64
"""

import argparse
import json
import math
import platform
import time
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from scipy.ndimage import distance_transform_edt, find_objects

from segline.data.borders import weight_map
from segline.data.gaps import separate
from segline.data.labels import renumber

SETTINGS: dict[str, Any] = {"background": 0.1, "background_sigma": 10, "class_weights": [0.6, 1.4]}
PAPER = SETTINGS | {"kind": "paper", "w0": 10, "sigma": 5}
FALK = SETTINGS | {"kind": "falk2019", "w0": 50, "sigma": 6}
Map = npt.NDArray[Any]


def discs(size: int, count: int, radius: int) -> Map:
    """Discs that may touch, drawn over each other."""
    instances = np.zeros((size, size), np.int32)
    for number, (y, x) in enumerate(np.random.default_rng(0).integers(0, size, (count, 2)).tolist(), 1):
        cv2.circle(instances, (x, y), radius, number, -1)
    return instances


def grid(size: int, count: int, filled: float) -> Map:
    """Exactly `count` cells in a grid; `filled`: share of a grid cell's side."""
    side = math.ceil(math.sqrt(count))
    place = (np.arange(size) * side) // size
    within = (np.arange(size) * side / size) % 1 < filled
    instances = place[:, None] * side + place + 1
    return np.where(within[:, None] & within & (instances <= count), instances, 0)


def scattered(size: int, count: int) -> Map:
    """Make cells of single pixels scattered over the image, the worst case for bounding boxes."""
    rng = np.random.default_rng(0)
    return np.where(rng.random((size, size)) < 0.1, rng.integers(1, count + 1, (size, size)), 0)


SCENES: dict[str, Callable[[], Map]] = {
    "512x512, 0 cells": lambda: np.zeros((512, 512), np.int32),
    "512x512, 2 cells": lambda: discs(512, 2, 60),
    "512x512, 136 cells filling it": lambda: grid(512, 136, 1),
    "512x512, 600 cells apart": lambda: grid(512, 600, 0.7),
    "512x512, 600 cells, all touch": lambda: grid(512, 600, 1),
    "512x512, 600 discs, many touch": lambda: discs(512, 600, 9),
    "512x512, 600 cells in pieces": lambda: scattered(512, 600),
    "512x512, 10000 cells, all touch": lambda: grid(512, 10_000, 1),
    "2048x2048, 10000 cells apart": lambda: grid(2048, 10_000, 0.7),
}


def boxes(instances: Map, w0: float, sigma: float) -> Map:
    """(H, W) border term of the paper."""
    reach = math.ceil(sigma * math.sqrt(2 * math.log(w0 / 1.5e-7)))
    nearest = np.full(instances.shape, 1e9, np.float32)
    second = nearest.copy()
    numbers, _ = renumber(instances)
    for number, box in enumerate(find_objects(numbers), 1):
        grown = tuple(slice(max(0, side.start - reach), side.stop + reach) for side in box)
        outside = (numbers[grown] != number).view(np.uint8)
        distance = cv2.distanceTransform(outside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        np.minimum(second[grown], np.maximum(nearest[grown], distance), out=second[grown])
        np.minimum(nearest[grown], distance, out=nearest[grown])
    return np.asarray(w0 * np.exp(-np.square(nearest + second, dtype=np.float64) / (2 * sigma**2)))


def naive(instances: Map, w0: float, sigma: float) -> Map:
    """(H, W) border term of the paper."""
    two = np.full((2, *instances.shape), np.inf)
    for number in np.unique(instances[instances > 0]):
        distance = distance_transform_edt(instances != number)
        two = np.sort([*two, distance], axis=0)[:2]
    return np.asarray(w0 * np.exp(-((two[0] + two[1]) ** 2) / (2 * sigma**2)))


def milliseconds(work: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Return smallest and median CPU time of the repeats, after a warm-up; other work may share the core."""
    times = []
    for _ in range(repeats + 1):
        start = time.process_time()
        work()
        times.append(1000 * (time.process_time() - start))
    times = times[min(1, repeats - 1) :]
    return min(times), float(np.median(times))


def measure(name: str, instances: Map, repeats: int, with_naive: bool) -> dict[str, Any]:
    """One row: times in ms, and the largest difference to the naive map relative to its largest weight."""
    classes = (instances > 0).astype(np.uint8)
    apart = np.where(separate(classes, instances) > 0, instances, 0)
    row: dict[str, Any] = {"scene": name}
    row["paper"], row["paper_median"] = milliseconds(lambda: weight_map(classes, instances, **PAPER), repeats)
    row["falk2019"], _ = milliseconds(lambda: weight_map(classes, instances, **FALK), repeats)
    row["gap"], _ = milliseconds(lambda: separate(classes, instances), repeats)
    row["boxes"], _ = milliseconds(
        lambda: boxes(apart, PAPER["w0"], PAPER["sigma"]), 1 if "pieces" in name else repeats
    )
    if with_naive and instances.shape == (512, 512) and instances.max() <= 600:
        start = time.process_time()
        border = naive(apart, PAPER["w0"], PAPER["sigma"])
        row["naive"] = 1000 * (time.process_time() - start)
        expected = np.asarray(PAPER["class_weights"])[separate(classes, instances)] + border
        row["difference"] = float(np.abs(weight_map(classes, instances, **PAPER) - expected).max() / expected.max())
    return row


def main() -> None:
    """Print a table and one JSON line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--naive", action="store_true", help="also the naive map, about a minute")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    columns = ["paper", "paper_median", "falk2019", "gap", "boxes", "naive", "difference"]
    print(f"{'ms, one core':34}" + "".join(f"{column:>14}" for column in columns))
    rows = []
    for name, draw in SCENES.items():
        row = measure(name, draw(), arguments.repeats, arguments.naive)
        rows.append(row)
        cells = [f"{row[c]:>14.2g}" if c == "difference" else f"{row[c]:>14.1f}" for c in columns if c in row]
        print(f"{name:34}" + "".join(cells), flush=True)
    print(json.dumps({"benchmark": "borders", "machine": platform.processor() or platform.machine(), "rows": rows}))


if __name__ == "__main__":
    main()
