"""Cost of `segline check`: the search for similar images against a dense product of bits, and one image of any size.

python benchmarks/bench_check.py [--images 1000 10000 100000] [--sides 512 2048 8192]
"""

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from segline import files
from segline.data import imagefiles
from segline.data.checks.duplicates import MOST_BITS, Codes, partners
from segline.data.checks.per_image import examine
from segline.data.dataset import Dataset

BLOCK = 512


def product(codes: Codes) -> int:
    """Count the similar pairs by products of bits as +1 and -1."""
    signs = np.where(np.unpackbits(codes.view(np.uint8), axis=1), np.float32(1), np.float32(-1))
    bits = signs.shape[1]
    pairs = 0
    for row in range(0, len(signs), BLOCK):
        differing = (bits - signs[row : row + BLOCK] @ signs[row:].T) / 2
        pairs += np.count_nonzero(np.triu(differing <= MOST_BITS, 1))
    return pairs


def seconds(run: Callable[[], Any]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def random_codes(images: int) -> tuple[Codes, npt.NDArray[np.intp]]:
    return np.random.default_rng(0).integers(0, 2**63, (images, 4), dtype=np.uint64), np.arange(images)


def drawn(folder: Path, side: int) -> Dataset:
    """One RGB image with instances of 28 x 28 px, 40 px apart, in two classes."""
    rng = np.random.default_rng(0)
    image = cv2.resize(rng.integers(0, 255, (side // 8, side // 8, 3), np.uint8), (side, side))
    cells = side // 40
    numbers = np.arange(1, cells * cells + 1).reshape(cells, cells) % 60000 + 1
    square = np.pad(np.ones((28, 28), np.uint16), 6)
    instances = np.zeros((side, side), np.uint16)
    instances[: cells * 40, : cells * 40] = np.kron(numbers.astype(np.uint16), square)
    imagefiles.write_png(folder / "images" / "a.png", np.asarray(image))
    imagefiles.write_png(folder / "instances" / "a.png", instances)
    imagefiles.write_png(folder / "classes" / "a.png", (instances > 0) * (1 + instances % 2).astype(np.uint8))
    spec = {"name": "drawn", "classes": {0: "background", 1: "one", 2: "two"}, "labels": "instances"}
    files.write_yaml(folder / "dataset.yaml", spec)
    return Dataset.open(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, nargs="+", default=[1000, 10000, 100000])
    parser.add_argument("--sides", type=int, nargs="+", default=[512, 2048, 8192])
    arguments = parser.parse_args()
    results = []
    print(f"{'what':>28} {'size':>8} {'seconds':>9}")
    for images in arguments.images:
        codes, labels = random_codes(images)
        ways: dict[str, Callable[[], Any]] = {
            "alike images, popcount": lambda c=codes, of=labels: partners(c, of),
            "the same, all alike": lambda c=codes, of=labels: partners(np.zeros_like(c), of),
            "alike images, product": lambda c=codes: product(c),
        }
        for what, run in ways.items():
            results.append({"what": what, "size": images, "seconds": round(seconds(run), 4)})
            print(f"{what:>28} {images:8} {results[-1]['seconds']:9.4f}")
    for side in arguments.sides:
        with tempfile.TemporaryDirectory() as folder:
            dataset = drawn(Path(folder), side)
            ways = {
                "read image and labels": lambda d=dataset: (d.image("a"), d.truth("a")),
                "examine image and labels": lambda d=dataset: examine(d, "a"),
            }
            for what, run in ways.items():
                results.append({"what": what, "size": side, "seconds": round(seconds(run), 4)})
                print(f"{what:>28} {side:8} {results[-1]['seconds']:9.4f}")
    print(json.dumps({"bench": "check", "machine": platform.processor() or platform.machine(), "results": results}))


if __name__ == "__main__":
    main()
