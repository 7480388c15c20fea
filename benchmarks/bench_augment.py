"""Time of one training sample of 572 x 572 px on one core, beside albumentations' ElasticTransform in the same run.

PYTHONPATH=src python benchmarks/bench_augment.py
"""

import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from segline.data.augment import coordinates, draw, grey, grid, warp
from segline.data.tile_sampler import TrainingTiles
from segline.model.normalisation import Statistics, normalise, scale
from segline.params import Augment
from segline.transforms import applied, compose

TILE, VALID = 572, 388
ROUNDS = 60


def main() -> None:
    """Take the CPU time of all candidates in turns, round by round: a busy machine slows all of them alike."""
    one_core()
    with tempfile.TemporaryDirectory() as folder:
        candidates = {**samples(Path(folder)), **parts(), **extras(), **rivals()}
        times: dict[str, list[float]] = {name: [] for name in candidates}
        for number in range(ROUNDS + 3):
            for name, candidate in candidates.items():
                start = time.process_time()
                candidate(number)
                times[name].append(time.process_time() - start)
    medians = {name: 1000 * statistics.median(seconds[3:]) for name, seconds in times.items()}
    ours = medians["sample 572 -> 572, 1 channel uint8"]
    print(f"{'CPU time, median of ' + str(ROUNDS) + ' rounds, one core':58}{'ms':>9}{'ratio':>8}")
    for name, milliseconds in medians.items():
        print(f"{name:58}{milliseconds:9.2f}{milliseconds / ours:8.2f}")
    print(
        f"mean displacement, px: albumentations' defaults {moved_by_default():.3f}, segline's {moved_by_segline():.2f}"
    )
    versions = {"opencv": cv2.__version__, "albumentations": version("albumentations")}
    print(json.dumps({"bench": "augment", "cpu": processor(), **versions, "milliseconds": medians}))


def one_core() -> None:
    """Bind this process and its libraries to a single core."""
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def processor() -> str:
    """Return the name of the CPU."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.exists() else []
    names = [line.split(": ", 1)[1] for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def arrays(folder: Path, side: int, channels: int) -> tuple[list[Any], list[Any], list[Any]]:
    """Return a memory-mapped image with target and weights, as written by the stages prepare and weights."""
    rng = np.random.default_rng(0)
    contents = {
        "image": rng.integers(0, 256, (side, side, channels), dtype=np.uint8),
        "target": rng.integers(0, 3, (side, side), dtype=np.uint8),
        "weights": rng.random((side, side), dtype=np.float32),
    }
    opened = []
    for name, content in contents.items():
        file = folder / f"{name}_{side}_{channels}.npy"
        np.save(file, content)
        opened.append([np.load(file, mmap_mode="r")])
    return opened[0], opened[1], opened[2]


def samples(folder: Path) -> dict[str, Callable[[int], Any]]:
    """Whole samples: image, labels and weights, geometry and grey values, default settings."""
    cases = {
        "sample 572 -> 572, 1 channel uint8": (512, 1, TILE),
        "sample 572 -> 388, 1 channel uint8": (512, 1, VALID),
        "sample 572 -> 572, 1 channel, image of 4096 px": (4096, 1, TILE),
        "sample 572 -> 572, 3 channels uint8": (512, 3, TILE),
    }
    return {
        name: TrainingTiles(
            *arrays(folder, side, channels),
            statistics=[Statistics("uint8", channels, (0.5,) * channels, (0.2,) * channels)],
            settings=Augment(elastic_sigma=10),
            tile=TILE,
            output=output,
            tiles_per_epoch=10**6,
            seed=0,
        ).__getitem__
        for name, (side, channels, output) in cases.items()
    }


def parts() -> dict[str, Callable[[int], Any]]:
    """The steps of one sample, each alone."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (1024, 1024, 1), dtype=np.uint8)
    labels, weights = image[..., 0] % 3, rng.random((1024, 1024), dtype=np.float32)
    parameters = draw(rng, Augment(elastic_sigma=10, noise=0.02), TILE, (512, 512))
    place, tile = grid(parameters, 1024, 1024), scale(image[:TILE, :TILE])
    known = Statistics("uint8", 1, (0.5,), (0.2,))
    return {
        "  grid": lambda _: grid(parameters, 1024, 1024),
        "  warp image, linear": lambda _: warp(place, image, "linear"),
        "  warp labels, nearest": lambda _: warp(place, labels, "nearest"),
        "  warp weights, linear": lambda _: warp(place, weights, "linear"),
        "  grey values": lambda _: grey(parameters, tile, (0.5,)),
        "  scale and normalise": lambda _: normalise(scale(image[:TILE, :TILE]), known),
    }


def extras() -> dict[str, Callable[[int], Any]]:
    """Some transforms for the setting augment.extra, each alone, on an RGB tile."""
    tile = np.random.default_rng(0).integers(0, 256, (TILE, TILE, 3), dtype=np.uint8)
    names = ("RandomGamma", "GaussianBlur", "ImageCompression", "CoarseDropout", "CLAHE", "ColorJitter", "HEStain")
    transforms = {name: compose([{name: {"p": 1}}]) for name in names}
    return {
        f"  extra: {name}, 3 channels uint8": lambda number, of=transform: applied(of, tile, number)
        for name, transform in transforms.items()
    }


def rivals() -> dict[str, Callable[[int], Any]]:
    """albumentations on image, labels and weights of the same size; no rotation, mirror, zoom or grey values."""
    import albumentations

    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (TILE, TILE, 1), dtype=np.uint8)
    weights = rng.random((TILE, TILE), dtype=np.float32)

    def composed(**arguments: Any) -> Callable[[int], Any]:
        transform = albumentations.ElasticTransform(p=1, **arguments)
        compose = albumentations.Compose([transform], additional_targets={"weights": "mask"}, strict=True)
        return lambda _: compose(image=image, mask=image[..., 0], weights=weights)

    return {
        "albumentations ElasticTransform, defaults": composed(),
        "albumentations ElasticTransform, approximate": composed(approximate=True),
    }


def moved_by_default() -> float:
    """Mean absolute displacement of ElasticTransform() along an axis, px, read off an image of coordinates."""
    import albumentations

    columns = np.tile(np.arange(TILE, dtype=np.float32), (TILE, 1))
    transform = albumentations.Compose([albumentations.ElasticTransform(border_mode=cv2.BORDER_REPLICATE, p=1)], seed=0)
    moved = [np.abs(transform(image=columns[..., None])["image"][..., 0] - columns).mean() for _ in range(10)]
    return float(np.mean(moved))


def moved_by_segline() -> float:
    """Mean absolute displacement of segline's deformation, with the paper's sigma of 10 px, along an axis, px."""
    settings = Augment(elastic_sigma=10, rotation=0, mirror=False, min_scale=1, max_scale=1)
    rng = np.random.default_rng(0)
    still = np.arange(TILE)
    drawn = (coordinates(draw(rng, settings, TILE, (0, 0)))[1] for _ in range(50))
    return float(np.mean([np.abs(columns - still).mean() for columns in drawn]))


if __name__ == "__main__":
    main()
