"""Peak memory of stages prepare and weights: PYTHONPATH=src python benchmarks/bench_memory.py [--machine GIB] ...

Three tables, each on drawn discs in a temporary project below --folder (about 11 bytes of disk a pixel):

counts   many images of --side px, all cores: what an image more costs
sizes    one large image beside small ones, one core: bytes a pixel, and the multiple of one image (raw + int32)
budget   two large images of the last of --sizes on all cores, on a machine that is taken to have --machine GiB

rss is the largest resident set of the process as the kernel counted it (VmHWM; what wait4 says of a child has that of
its parent in it); anon is what of it no file stands behind, the largest of samples every 10 ms.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

SPEC = "name: discs\nclasses:\n  0: background\n  1: disc\nlabels: instances\n"
SCENE = 2000  # px, side of the tiles of large images
STAGE = """
import os
os.sched_setaffinity(0, {cores})
from segline import progress
if {machine}:
    progress.machine_memory = lambda: {machine} << 30
from segline.stages import {stage}
{stage}.main()
print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def scene(side: int, seed: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint16]]:
    """A grey image of discs that touch, and their numbers."""
    rng = np.random.default_rng(seed)
    instances = np.zeros((side, side), np.uint16)
    for number, (y, x) in enumerate(rng.integers(0, side, (max(2, side * side // 6700), 2)).tolist(), 1):
        cv2.circle(instances, (x, y), 24, number, -1)
    noise = rng.integers(0, 60, (side, side), np.uint8)
    return noise + np.uint8(120) * (instances > 0), instances


def large(side: int, seed: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint16]]:
    """Make a large image from tiles."""
    image, instances = scene(min(side, SCENE), seed)
    times = -(-side // len(image))
    numbers = np.arange(times * times).reshape(times, times) * int(instances.max())
    numbers = np.where(numbers + instances.max() < 1 << 16, numbers, 0).astype(np.uint16)
    whole = np.tile(instances, (times, times))
    for row in range(times):
        for column in range(times):
            part = whole[row * len(image) : (row + 1) * len(image), column * len(image) : (column + 1) * len(image)]
            part[part > 0] += numbers[row, column]
    return np.tile(image, (times, times))[:side, :side], whole[:side, :side]


def project(folder: Path, images: dict[str, Callable[[], tuple[npt.NDArray[Any], npt.NDArray[Any]]]]) -> None:
    """Make a project with a dataset of these images; those named small-... are for validation and test."""
    data = folder / "data/raw/discs"
    for kind in ("images", "instances"):
        (data / kind).mkdir(parents=True)
    (data / "dataset.yaml").write_text(SPEC)
    for name, make in images.items():
        for kind, pixels in zip(("images", "instances"), make(), strict=True):
            cv2.imwrite(str(data / kind / f"{name}.png"), pixels, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    held = sorted(name for name in images if name.startswith("small"))
    splits = f"prepare: {{validation: {held[:2]}, test: {held[2:3]}}}\n".replace("'", "")
    (folder / "params.yaml").write_text(
        "data: {source: data/raw/discs}\nruntime: {progress: 'off'}\n" + (splits if held else "")
    )


def run(folder: Path, stage: str, cores: set[int], machine: int = 0) -> dict[str, Any]:
    """Seconds and peak memory in MiB of one stage."""
    code = STAGE.format(stage=stage, machine=machine, cores=cores)
    began = time.perf_counter()
    pipe = subprocess.PIPE
    process = subprocess.Popen([sys.executable, "-c", code], cwd=folder, stdout=pipe, stderr=pipe, text=True)
    anonymous = 0
    while True:
        anonymous = max(anonymous, resident(process.pid))
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            break
        time.sleep(0.01)
    process.returncode = status
    assert process.stdout is not None and process.stderr is not None
    if status:
        raise SystemExit(f"stage {stage} failed:\n{process.stderr.read()}")
    wall = time.perf_counter() - began
    cpu = usage.ru_utime + usage.ru_stime
    return {"wall": wall, "cpu": cpu, "rss": int(process.stdout.read().split()[1]) / 1024, "anon": anonymous / 1024}


def resident(pid: int) -> int:
    """KiB of anonymous memory."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("RssAnon")), 0)


def show(what: str, stage: str, row: dict[str, Any], rest: str = "") -> None:
    """Print one line of a table."""
    figures = f"{row['rss']:>8.0f} {row['anon']:>8.0f} {row['wall']:>8.1f} {row['cpu']:>8.1f}"
    print(f"{what:28} {stage:8} {figures}   {rest}", flush=True)


def counts(folder: Path, numbers: list[int], side: int, rows: list[dict[str, Any]]) -> None:
    """Many small images."""
    for number in numbers:
        place = folder / f"count-{number}"
        project(place, {f"image-{index:06d}": lambda index=index: scene(side, index) for index in range(number)})
        for stage in ("prepare", "weights"):
            row = {"images": number, "side": side, "stage": stage} | run(place, stage, os.sched_getaffinity(0))
            rows.append(row)
            base = next(first for first in rows if first["stage"] == stage)
            more = (row["rss"] - base["rss"]) * 2**20 / max(1, number - base["images"])
            show(f"{number} of {side} px", stage, row, f"{more:6.0f} B an image more")
        shutil.rmtree(place)


def sizes(folder: Path, sides: list[int], rows: list[dict[str, Any]]) -> None:
    """One large image, one core; bytes a pixel above what the smallest run needs."""
    for side in sides:
        place = folder / f"size-{side}"
        few = {f"small-{index}": lambda index=index: scene(64, 100 + index) for index in range(3)}
        project(place, {"large": lambda side=side: large(side, 0), **few})
        for stage in ("prepare", "weights"):
            row = {"images": 1, "side": side, "stage": stage} | run(place, stage, {min(os.sched_getaffinity(0))})
            rows.append(row)
            base = next(first["rss"] for first in rows if first["stage"] == stage and first["images"] == 1)
            extra = (row["rss"] - base) * 2**20 / side**2
            show(f"1 of {side} px", stage, row, f"{extra:5.1f} B/px, {extra / 5:4.2f} of raw + int32")
        shutil.rmtree(place)


def budget(folder: Path, side: int, machine: int, rows: list[dict[str, Any]]) -> None:
    """Two large images, all cores."""
    place = folder / f"two-{side}"
    few = {f"small-{index}": lambda index=index: scene(64, 100 + index) for index in range(3)}
    project(place, {f"large-{index}": lambda index=index: large(side, index) for index in range(2)} | few)
    for stage in ("prepare", "weights"):
        row = {"images": 2, "side": side, "stage": stage, "machine": machine}
        rows.append(row | run(place, stage, os.sched_getaffinity(0), machine))
        show(f"2 of {side} px, {machine} GiB", stage, rows[-1])
    shutil.rmtree(place)


def main() -> None:
    """Print the tables and one JSON line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--counts", type=int, nargs="*", default=[200, 2000])
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--sizes", type=int, nargs="*", default=[64, 4000, 8000, 16000])
    parser.add_argument("--machine", type=int, default=0, help="GiB; 0 leaves the last table out")
    parser.add_argument("--folder", type=Path, default=None, help="where the projects are made and removed")
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    print(f"{'MiB, s':28} {'stage':8} {'rss':>8} {'anon':>8} {'wall':>8} {'cpu':>8}")
    with tempfile.TemporaryDirectory(dir=arguments.folder) as scratch:
        counts(Path(scratch), arguments.counts, arguments.side, rows)
        sizes(Path(scratch), arguments.sizes, rows)
        if arguments.machine:
            budget(Path(scratch), arguments.sizes[-1], arguments.machine, rows)
    print(json.dumps({"benchmark": "memory", "cores": len(os.sched_getaffinity(0)), "rows": rows}))


if __name__ == "__main__":
    main()
