"""Time and peak memory of `segline predict`: PYTHONPATH=src python benchmarks/bench_predict.py [--sides PX ...]

The network of params.yaml learns for --steps steps on drawn cells, is registered in a temporary project below --folder
(about 13 bytes of disk a pixel, with the image), and labels images laid out of drawn scenes, tiled TIFF, grey, 8 bits.
The cells touch all over the image; what the network sees of them is parted by the watershed of `Separation(1.5, 30)`.

rss is the largest resident set of the process as the kernel counted it (VmHWM).
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile
import torch
from safetensors.torch import save_file

from segline import params
from segline.data import synthetic
from segline.gate import champion
from segline.gate.rules import Verdict
from segline.model.images import encode_png
from segline.model.inference import Description, Inference, Predictor
from segline.model.normalisation import Statistics, to_network
from segline.model.objects import Separation, encode
from segline.track.packaging import Parts
from segline.track.registry import Registry
from segline.track.store import open_store

TILE, SCENE, SCENES = 512, 1024, 4
RUN = """
import sys
from segline import cli
try:
    cli.main()
finally:
    print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def trained(steps: int, model: params.Model) -> tuple[Any, Description]:
    """Train a network for some steps on drawn cells."""
    torch.manual_seed(0)
    scenes = [synthetic.draw(0, index) for index in range(8)]
    values = np.concatenate([scene.image.ravel() for scene in scenes]) / 255
    statistics = Statistics("uint8", 1, (float(values.mean()),), (float(values.std()),))
    description = Description(model.network, synthetic.CLASSES, "instances", statistics)
    network, rng = description.build(), np.random.default_rng(0)
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    for _ in range(steps):
        inputs, targets = [], []
        for scene in (scenes[index] for index in rng.integers(0, len(scenes), 4)):
            top, left = rng.integers(0, 256 - 128, 2)
            box = (slice(top, top + 128), slice(left, left + 128))
            inputs.append(to_network(scene.image[box][..., np.newaxis], statistics))
            targets.append(scene.classes[box])
        loss = torch.nn.functional.cross_entropy(
            network(torch.from_numpy(np.stack(inputs))), torch.from_numpy(np.stack(targets)).long()
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print(f"loss after {steps} steps: {loss:.3f}", file=sys.stderr)
    return network.eval(), description


def register(folder: Path, steps: int) -> None:
    """A project in `folder`, with the network as models:/bench@champion."""
    model = params.read(params.Model)
    (folder / "dvc.yaml").touch()
    os.chdir(folder)
    network, description = trained(steps, model)
    save_file(
        {name: tensor.contiguous() for name, tensor in network.state_dict().items()}, folder / "weights.safetensors"
    )
    description.write(folder / "model.json")
    inference = Inference(separation=Separation(1.5, 30))
    inference.write(folder / "inference.json")
    example = synthetic.draw(1, 0).image
    labels, objects = Predictor(network, description, inference).predict(example[..., np.newaxis])
    parts = Parts(folder, folder / "inference.json", encode_png(example), encode_png(labels), encode(objects))
    store = open_store()
    with store.start_run("bench") as run:
        champion.register(Registry(store, "bench"), parts, run, Verdict(()), {})


def write_image(file: Path, side: int) -> None:
    """A grey image of drawn scenes, one beside the other, in tiles."""
    scenes = [synthetic.draw(2, index, SCENE, SCENE).image for index in range(SCENES)]

    def tiles() -> Iterator[npt.NDArray[np.uint8]]:
        for top in range(0, side, TILE):
            for left in range(0, side, TILE):
                scene = scenes[(top // SCENE + left // SCENE) % SCENES]
                yield scene[top % SCENE :, left % SCENE :][:TILE, :TILE]

    tifffile.imwrite(
        file,
        tiles(),
        shape=(side, side),
        dtype=np.uint8,
        tile=(TILE, TILE),
        compression="zlib",
        photometric="minisblack",
    )


def main() -> None:
    """Print a table and one JSON line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--sides", type=int, nargs="*", default=[5000, 20000])
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--options", nargs="*", default=["--instances"], help="of segline predict, without the dashes")
    parser.add_argument("--folder", type=Path, default=None, help="where the project is made and removed")
    arguments = parser.parse_args()
    options = [option if option.startswith("--") else f"--{option}" for option in arguments.options]
    rows = []
    with tempfile.TemporaryDirectory(dir=arguments.folder) as scratch:
        register(Path(scratch), arguments.steps)
        print(f"{'side':>6} {'rss MiB':>8} {'wall s':>8} {'cpu s':>8} {'objects':>9}")
        for side in arguments.sides:
            write_image(Path("image.tif"), side)
            command = [sys.executable, "-c", RUN, "predict", "image.tif", "--model", "models:/bench@champion"]
            began, cpu = time.perf_counter(), os.times()
            done = subprocess.run(
                [*command, "--out", f"out-{side}", *options], stdout=subprocess.PIPE, text=True, check=True
            )
            wall, after = time.perf_counter() - began, os.times()
            spent = after.children_user + after.children_system - cpu.children_user - cpu.children_system
            found = Path(f"out-{side}/image_instances.tif")
            objects = int(tifffile.imread(found).max()) if found.exists() else 0
            rows.append(
                {
                    "side": side,
                    "rss": int(done.stdout.split()[1]) / 1024,
                    "wall": wall,
                    "cpu": spent,
                    "objects": objects,
                }
            )
            print("{side:>6} {rss:>8.0f} {wall:>8.1f} {cpu:>8.1f} {objects:>9}".format(**rows[-1]), flush=True)
            Path("image.tif").unlink()
    print(json.dumps({"benchmark": "predict", "options": options, "threads": torch.get_num_threads(), "rows": rows}))


if __name__ == "__main__":
    main()
