"""Memory and results of the stages prepare and weights for an image of 20,000 px side, and for 10,000 images."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from segline.data.borders import weight_map
from segline.data.gaps import separate

pytestmark = pytest.mark.soak

SPEC = "name: discs\nclasses:\n  0: background\n  1: disc\nlabels: instances\n"
PARAMS = "data: {source: data/raw/discs}\nruntime: {progress: 'off'}\n"
# One core, so that one image is processed at a time. getrusage would include the memory of the test process.
RUN = """
import os
os.sched_setaffinity(0, {0})
from segline.stages import STAGE
STAGE.main()
print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def discs(side: int, seed: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint16]]:
    rng = np.random.default_rng(seed)
    instances = np.zeros((side, side), np.uint16)
    for number, (y, x) in enumerate(rng.integers(0, side, (max(2, side * side // 6500), 2)).tolist(), 1):
        cv2.circle(instances, (x, y), 24, number, -1)
    return rng.integers(0, 60, (side, side), np.uint8) + np.uint8(120) * (instances > 0), instances


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for kind in ("images", "instances"):
        (tmp_path / "data/raw/discs" / kind).mkdir(parents=True)
    (tmp_path / "data/raw/discs/dataset.yaml").write_text(SPEC)
    return tmp_path


def add(project: Path, name: str, image: npt.NDArray[np.uint8], instances: npt.NDArray[np.uint16]) -> None:
    for kind, pixels in (("images", image), ("instances", instances)):
        cv2.imwrite(str(project / f"data/raw/discs/{kind}/{name}.png"), pixels, [cv2.IMWRITE_PNG_COMPRESSION, 1])


@pytest.fixture
def peak(project: Path) -> Callable[[str], int]:
    """Return a function that runs a stage and returns its peak memory in bytes."""

    def measure(stage: str) -> int:
        command = [sys.executable, "-c", RUN.replace("STAGE", stage)]
        done = subprocess.run(command, cwd=project, stdout=subprocess.PIPE, text=True, check=True)
        return int(done.stdout.split()[1]) * 1024

    return measure


def test_an_image_of_20000_px_needs_bounded_memory(project: Path, peak: Callable[[str], int]) -> None:
    side, fold = 20_000, 10
    image, instances = discs(side // fold, 0)
    whole = np.tile(instances, (fold, fold))
    step = int(instances.max())  # every tile has its own instance ids, which just fit into 16 bits
    assert step * fold**2 < 1 << 16
    for place in range(fold**2):
        rows, columns = (slice(k * side // fold, (k + 1) * side // fold) for k in divmod(place, fold))
        whole[rows, columns] += (np.uint16(place * step) * (instances > 0)).astype(np.uint16)
    add(project, "large", np.tile(image, (fold, fold)), whole)
    for seed in (1, 2, 3):
        add(project, f"small-{seed}", *discs(64, seed))
    (project / "params.yaml").write_text(PARAMS + "prepare: {validation: [small-1, small-2], test: [small-3]}\n")

    one_image = side**2 * (1 + 4)  # bytes of its pixels, and of its instances as int32
    assert peak("prepare") < 3 * one_image
    assert peak("weights") < 0.3 * one_image

    windows = [(slice(4800, 5300), slice(9800, 10_300)), (slice(19_600, 20_000), slice(0, 500))]
    target = np.load(project / "data/prepared/targets/large.npy", mmap_mode="r")
    result = np.load(project / "data/weights/large.npy", mmap_mode="r")
    of_class = _class_weights(project)
    for rows, columns in windows:
        around = tuple(slice(max(0, axis.start - 300), axis.stop + 300) for axis in (rows, columns))
        inner = (slice(rows.start - around[0].start, None), slice(columns.start - around[1].start, None))
        size = (rows.stop - rows.start, columns.stop - columns.start)
        classes = (whole[around] > 0).astype(np.uint8)
        expected = separate(classes, whole[around].astype(np.int32))[inner][: size[0], : size[1]]
        # The gaps depend on neighbouring objects; objects that `around` cuts off are too far away to matter.
        assert (target[rows, columns] == expected).all()
        alone = weight_map(
            target[around],
            whole[around].astype(np.int32),
            kind="paper",
            w0=10,
            sigma=5,
            background=0,
            background_sigma=1,
            class_weights=of_class,
        )
        assert (result[rows, columns] == alone[inner][: size[0], : size[1]]).all()


def _class_weights(project: Path) -> npt.NDArray[np.float64]:
    """Compute the class weights by hand: frequency ** -0.5 in the only training image, with mean 1."""
    classes = np.load(project / "data/prepared/classes/large.npy", mmap_mode="r")
    share = np.count_nonzero(classes) / classes.size
    weights = np.array([1 - share, share]) ** -0.5
    return weights / (weights @ [1 - share, share])


def test_memory_per_image_is_small(project: Path, peak: Callable[[str], int]) -> None:
    few, many = 200, 10_000
    peaks = {}
    (project / "params.yaml").write_text(PARAMS)
    first = 0
    for number in (few, many):
        for seed in range(first, number):
            add(project, f"image-{seed:05d}", *discs(64, seed))
        first = number
        peaks[number] = {stage: peak(stage) for stage in ("prepare", "weights")}
    for stage in ("prepare", "weights"):
        # Only the names, the row of the manifest and the hash of an image stay in memory.
        assert (peaks[many][stage] - peaks[few][stage]) / (many - few) < 4000
