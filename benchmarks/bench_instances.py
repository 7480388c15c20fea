"""AP@0.5 by a sparse table of overlaps against a dense IoU table with the Hungarian method: time and memory.

python benchmarks/bench_instances.py [--objects 100 1600 6400]
"""

import argparse
import json
import platform
import time
import tracemalloc
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

from segline.score.instances import matches

Labels = npt.NDArray[np.int32]


def drawn(rows: int, rng: np.random.Generator, pitch: int = 25) -> Labels:
    """Squares of 16 to 22 px, one at a random place in each cell of a grid."""
    labels = np.zeros((rows * pitch, rows * pitch), np.int32)
    for number in range(rows * rows):
        side = int(rng.integers(16, 23))
        top, left = np.array(divmod(number, rows)) * pitch + rng.integers(0, pitch - side, 2)
        labels[top : top + side, left : left + side] = number + 1
    return labels


def dense(truth: Labels, predicted: Labels, iou: float) -> tuple[int, int, int]:
    rows, columns = int(truth.max()) + 1, int(predicted.max()) + 1
    cells = truth.astype(np.int64).ravel() * columns + predicted.ravel()
    shared = np.bincount(cells, minlength=rows * columns).reshape(rows, columns)
    union = shared.sum(axis=1, keepdims=True) + shared.sum(axis=0) - shared
    good = (shared / union)[1:, 1:] >= iou
    tp = int(good[linear_sum_assignment(good, maximize=True)].sum())
    return tp, columns - 1 - tp, rows - 1 - tp


def measured(run: Callable[[], tuple[int, int, int]]) -> tuple[tuple[int, int, int], float, float]:
    """The result, the best of three times in seconds, and the peak of memory in MiB."""
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        result = run()
        seconds.append(time.perf_counter() - start)
    tracemalloc.start()
    run()
    peak = tracemalloc.get_traced_memory()[1] / 2**20
    tracemalloc.stop()
    return tuple(result), min(seconds), peak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--objects", type=int, nargs="+", default=[100, 1600, 6400])
    results = []
    print(f"{'objects':>8} {'side':>6} {'way':>7} {'seconds':>9} {'MiB':>7}")
    for objects in parser.parse_args().objects:
        rows = round(objects**0.5)
        truth, predicted = (drawn(rows, np.random.default_rng((seed, rows))) for seed in (0, 1))
        counts = {}
        for way, function in (("sparse", matches), ("dense", dense)):
            counts[way], seconds, mib = measured(lambda run=function, t=truth, p=predicted: run(t, p, 0.5))
            print(f"{rows * rows:8} {len(truth):6} {way:>7} {seconds:9.4f} {mib:7.1f}")
            results.append({"objects": rows * rows, "way": way, "seconds": round(seconds, 4), "mib": round(mib, 1)})
        assert counts["sparse"] == counts["dense"]
    print(json.dumps({"bench": "instances", "machine": platform.processor() or platform.machine(), "results": results}))


if __name__ == "__main__":
    main()
