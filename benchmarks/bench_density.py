"""Time to draw the middle of a tile, uniformly and by a density: PYTHONPATH=src python benchmarks/bench_density.py

One core, CPU time. Images, classes and sums are files, mapped into memory when asked for, as in a training. "draw" is
the place alone, "tile" the whole training tile (192 px, default augmentation), "cells" what stage weights adds.
"""

import json
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from segline import files
from segline.data.borders import class_weights
from segline.data.density import Density, cells
from segline.data.prepared import Arrays
from segline.data.tile_sampler import TrainingTiles
from segline.model.normalisation import Statistics
from segline.params import Augment

DRAWS, TILES = 2000, 50


def scene(side: int, share: float, seed: int) -> Any:
    """Classes (side, side) with one square of class 1 that covers `share` of the image."""
    classes = np.zeros((side, side), np.uint8)
    length = max(1, round(side * share**0.5))
    row, column = np.random.default_rng(seed).integers(0, side - length + 1, 2)
    classes[row : row + length, column : column + length] = 1
    return classes


def microseconds(work: Callable[[int], object], times: int) -> float:
    """Return the mean CPU time of `work`, called with 0 ... times - 1; other work may share the core."""
    work(0)
    began = time.process_time()
    for number in range(times):
        work(number)
    return (time.process_time() - began) / times * 1e6


def measured(folder: Path, count: int, side: int) -> dict[str, Any]:
    """Microseconds of each draw among `count` images of `side` px; times of the draw include its generator."""
    names = [str(number) for number in range(count)]
    of_class = class_weights([99, 1], 1)
    seconds = 0.0
    for number, name in enumerate(names):
        classes = scene(side, 0.01, number)
        began = time.process_time()
        sums = cells(classes, 0.0, of_class)
        seconds += time.process_time() - began
        arrays = {"image": classes[..., None], "weights": classes.astype(np.float32), "classes": classes, "sums": sums}
        for kind, array in arrays.items():
            files.save_array(folder / f"{name}.{kind}.npy", array)

    def mapped(kind: str) -> Arrays:
        return Arrays(names, lambda name: files.load_array(folder / f"{name}.{kind}.npy"))

    began = time.process_time()
    density = Density(of_class, mapped("classes"), mapped("sums"))
    opened = time.process_time() - began
    tiles = {
        name: TrainingTiles(
            mapped("image"),
            mapped("classes"),
            mapped("weights"),
            statistics=[Statistics("uint8", 1, (0.5,), (0.25,))] * len(names),
            settings=Augment(),
            tile=192,
            output=192,
            tiles_per_epoch=TILES,
            seed=0,
            density=chosen,
        )
        for name, chosen in (("uniform", None), ("density", density))
    }
    result: dict[str, Any] = {"images": count, "side": side}
    for name, made in tiles.items():
        result[f"{name}_draw_us"] = round(
            microseconds(lambda number, made=made: made._draw_place(np.random.default_rng((0, number))), DRAWS), 1
        )
        result[f"{name}_tile_us"] = round(microseconds(made.__getitem__, TILES))
    cells_ms = seconds / count * 1e3
    result |= {"open_ms": round(opened * 1e3, 1), "cells_ms_an_image": round(cells_ms, 2)}
    result["sums_kb_an_image"] = round((folder / "0.sums.npy").stat().st_size / 1024, 1)
    return result


def main() -> None:
    """Measure and print."""
    cv2.setNumThreads(1)
    results = []
    for count, side in ((20, 512), (1000, 256), (1, 10_000)):
        with tempfile.TemporaryDirectory() as folder:
            results.append(measured(Path(folder), count, side))
    for name in results[0]:
        print(f"{name:<20}" + "".join(f"{result[name]:>12}" for result in results))
    print(json.dumps({"machine": platform.processor() or platform.machine(), "results": results}))


if __name__ == "__main__":
    main()
