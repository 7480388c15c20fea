"""Touching objects, separated by the watershed of segline and by that of scikit-image.

PYTHONPATH=src python benchmarks/bench_watershed.py [--sides PX ...]

Smooth random probabilities of which most are foreground, all of it connected. Each way gets the same landscape and the
same depth; for scikit-image this is extended maxima and then a flood from them.
"""

import argparse
import json
import platform
import time
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter
from skimage.measure import label
from skimage.morphology import local_maxima, reconstruction
from skimage.segmentation import watershed

from segline.model.objects import distances, heights, parted, reach, steps

DEPTH = 2.0  # px
CROSS = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], bool)

Probabilities = npt.NDArray[np.float32]


def drawn(side: int) -> Probabilities:
    """Probabilities (2, side, side) of objects some 25 px wide that touch, and of gaps here and there."""
    rng = np.random.default_rng(side)
    smooth = gaussian_filter(rng.normal(size=(side, side)), 8).astype(np.float32)
    sure = 1 / (1 + np.exp(-(smooth / smooth.std() + 1) * 2))
    return np.stack([1 - sure, sure]).astype(np.float32)


def flooded(probabilities: Probabilities, labels: npt.NDArray[np.uint8]) -> npt.NDArray[np.int32]:
    """Separate the same objects with scikit-image."""
    ground, step = heights(distances(labels > 0, reach(*labels.shape)), probabilities, labels), steps(DEPTH)
    floor = -step - 1
    ground = np.pad(np.where(ground < 0, floor, ground), 1, constant_values=floor)
    lowered = reconstruction(np.maximum(ground - step, floor), ground, footprint=CROSS).astype(np.int32)
    peaks = label(local_maxima(lowered, connectivity=1)[1:-1, 1:-1], connectivity=1)
    return watershed(-ground[1:-1, 1:-1], peaks, connectivity=1, mask=labels > 0)


def measured(run: Callable[[], npt.NDArray[np.int32]]) -> tuple[int, float]:
    """The number of objects, and the best of three times in seconds."""
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        found = run()
        seconds.append(time.perf_counter() - start)
    return int(found.max()), min(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sides", type=int, nargs="+", default=[512, 1024, 2048])
    results = []
    print(f"{'side':>6} {'objects':>8} {'segline s':>10} {'scikit-image s':>15} {'ratio':>6}")
    for side in parser.parse_args().sides:
        probabilities = drawn(side)
        labels = (probabilities[1] > 0.5).astype(np.uint8)
        objects, ours = measured(lambda p=probabilities, what=labels: parted(p, what, DEPTH))
        same, theirs = measured(lambda p=probabilities, what=labels: flooded(p, what))
        assert objects == same
        print(f"{side:6} {objects:8} {ours:10.3f} {theirs:15.3f} {theirs / ours:6.1f}")
        results.append({"side": side, "objects": objects, "seconds": round(ours, 4), "rival": round(theirs, 4)})
    print(json.dumps({"bench": "watershed", "machine": platform.processor() or platform.machine(), "results": results}))


if __name__ == "__main__":
    main()
