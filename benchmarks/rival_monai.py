"""What a MONAI user gets from a dataset in a given CPU time: train MONAI's BasicUNet and predict the test split.

bench_datasets.py runs this script; it needs torch, monai, numpy, scipy and scikit-image, and nothing of segline:

python rival_monai.py PREPARED OUT --labels KIND --classes K --seconds S --seed N

PREPARED is the folder data/prepared of a segline project, OUT a new folder. The recipe is that of MONAI's tutorials:
BasicUNet with instance norm, Dice + cross entropy, Adam with a rate of 1e-3 and polynomial decay, batches of four
random crops of 256 px, flips and quarter turns, each image normalised by its own mean and deviation, one thread, fp32.
Checks on validation choose the weights. The time is the CPU time of this process from its start to the end of training,
checks included.

Objects are found by a common way: each foreground class is trained as interior, and one more class is the rim of all
objects; the interiors are the markers of a watershed in the foreground.
"""

import argparse
import csv
import json
import time
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from monai.inferers import sliding_window_inference
from monai.losses import DiceCELoss
from monai.networks.nets import BasicUNet
from scipy.ndimage import maximum_filter, minimum_filter
from skimage.measure import label
from skimage.segmentation import watershed

FEATURES = (32, 32, 64, 128, 256, 32)
STEP = 16  # four poolings: sides of the network's input are multiples, px
SIDE = 256  # of a crop, px
BATCH = 4
RATE = 1e-3
POWER = 0.9
CHECKS = 5
CHECK_CROPS = 16  # so that a check takes about 1 % of ten minutes
LARGE = 512  # px; an image with a longer side is predicted in windows
RIM = 2  # px
MIN_AREA = 20  # px
IGNORE = 255

Image = npt.NDArray[np.float32]  # (C, H, W)
Target = npt.NDArray[np.int64]  # (H, W)
Sample = tuple[Image, Target]


class Folder:
    """The arrays of a prepared dataset."""

    def __init__(self, path: Path, kind: str, classes: int) -> None:
        self.path, self.kind, self.classes = path, kind, classes
        with (path / "manifest.csv").open(newline="") as stream:
            self.rows = list(csv.DictReader(stream))

    @property
    def outputs(self) -> int:
        """Number of classes of the network."""
        return self.classes + (self.kind == "instances")

    def names(self, split: str) -> list[str]:
        """Return the names of the images of a split."""
        return [row["image"] for row in self.rows if row["split"] == split]

    def image(self, name: str) -> Image:
        """Return an image with mean 0 and deviation 1."""
        image = np.load(self.path / "images" / f"{name}.npy").astype(np.float32)
        return np.ascontiguousarray(((image - image.mean()) / (image.std() or 1)).transpose(2, 0, 1))

    def target(self, name: str) -> Target:
        """Return the class of each pixel for the network."""
        classes = np.load(self.path / "classes" / f"{name}.npy").astype(np.int64)
        if (classes == IGNORE).any():
            raise SystemExit(f"{name} has ignored pixels, which MONAI's DiceCELoss does not know")
        if self.kind != "instances":
            return classes
        ids, size = np.load(self.path / "instances" / f"{name}.npy"), 2 * RIM + 1
        inside = minimum_filter(ids, size) == maximum_filter(ids, size)
        return np.where((ids > 0) & ~inside, self.classes, np.where(ids > 0, classes, 0))


def padded(array: npt.NDArray[Any], height: int, width: int) -> npt.NDArray[Any]:
    """Mirror the last two axes at the lower and right border, up to at least this size."""
    more = [(0, 0)] * (array.ndim - 2) + [(0, max(0, height - array.shape[-2])), (0, max(0, width - array.shape[-1]))]
    return np.pad(array, more, mode="symmetric")


def crop(sample: Sample, side: int, generator: np.random.Generator) -> Sample:
    """Cut out a random square."""
    image, target = (padded(array, side, side) for array in sample)
    top, left = (generator.integers(0, length - side + 1) for length in target.shape)
    return image[:, top : top + side, left : left + side], target[top : top + side, left : left + side]


def turned(sample: Sample, generator: np.random.Generator) -> Sample:
    """Turn by a random number of quarters, and mirror half of the samples."""
    turns, mirror = generator.integers(0, 4), generator.random() < 0.5
    image, target = (np.rot90(array, turns, axes=(-2, -1)) for array in sample)
    return (image[..., ::-1], target[..., ::-1]) if mirror else (image, target)


def stacked(samples: list[Sample]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return images (N, C, H, W) and targets (N, 1, H, W)."""
    images, targets = zip(*samples, strict=True)
    return torch.from_numpy(np.stack(images)), torch.from_numpy(np.stack(targets))[:, None]


def side_of(targets: list[Target]) -> int:
    """Return the side of a crop: 256 px, or the median of the shorter sides of the images, rounded up to 16."""
    shorter = float(np.median([min(target.shape) for target in targets]))
    return min(SIDE, int(-(-shorter // STEP)) * STEP)


def dice(net: torch.nn.Module, crops: list[Sample], outputs: int) -> float:
    """Return the mean Dice of the foreground classes, counted over all crops together."""
    table = np.zeros((outputs, outputs), np.int64)
    net.eval()
    with torch.no_grad():
        for sample in crops:
            images, targets = stacked([sample])
            pairs = targets.ravel() * outputs + net(images).argmax(dim=1).ravel()
            table += np.bincount(pairs.numpy(), minlength=outputs**2).reshape(outputs, outputs)
    net.train()
    sums = (table.sum(axis=0) + table.sum(axis=1))[1:]
    return float(np.mean(2 * np.diagonal(table)[1:][sums > 0] / sums[sums > 0])) if sums.any() else 0.0


def train(net: torch.nn.Module, folder: Folder, seconds: float, seed: int) -> dict[str, Any]:
    """Train until the process has used `seconds` of CPU time; leave the best weights in `net`."""
    samples = [(folder.image(name), folder.target(name)) for name in folder.names("train")]
    side, generator, fixed = (
        side_of([target for _, target in samples]),
        np.random.default_rng(seed),
        np.random.default_rng(0),
    )
    validation = [(folder.image(name), folder.target(name)) for name in folder.names("validation")]
    places = np.linspace(0, len(validation) - 1, min(CHECK_CROPS, len(validation))).round().astype(int)
    crops = [crop(validation[place], side, fixed) for place in islice(cycle(places), CHECK_CROPS)]
    loss = DiceCELoss(to_onehot_y=True, softmax=True)
    optimizer = torch.optim.Adam(net.parameters(), RATE)

    def batches() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        while True:
            drawn = generator.integers(0, len(samples), BATCH)
            yield stacked([turned(crop(samples[index], side, generator), generator) for index in drawn])

    checks: list[dict[str, float]] = []
    best, steps, slowest, check_seconds = {}, 0, 0.0, 0.0
    for images, targets in batches():
        began = time.process_time()
        for group in optimizer.param_groups:
            group["lr"] = RATE * max(0.0, 1 - began / seconds) ** POWER
        optimizer.zero_grad()
        loss(net(images), targets).backward()
        optimizer.step()
        steps += 1
        used = time.process_time()
        slowest = max(slowest, used - began)
        last = used + slowest + check_seconds > seconds
        if last or used >= seconds * (len(checks) + 1) / CHECKS:
            reached = dice(net, crops, folder.outputs)
            if not checks or reached > max(check["dice"] for check in checks):
                best = {name: value.clone() for name, value in net.state_dict().items()}
            check_seconds = time.process_time() - used
            checks.append({"step": steps, "cpu_seconds": round(time.process_time(), 1), "dice": reached})
            print(checks[-1], flush=True)
        if last:
            break
    net.load_state_dict(best)
    return {"steps": steps, "side": side, "checks": checks, "cpu_seconds": round(time.process_time(), 2)}


def predict(net: torch.nn.Module, image: Image, side: int) -> Image:
    """Return the probability of each class (K, H, W)."""
    height, width = image.shape[1:]
    with torch.no_grad():
        if max(height, width) > LARGE:
            logits = sliding_window_inference(
                torch.from_numpy(image)[None], (side, side), BATCH, net, overlap=0.5, mode="gaussian"
            )
        else:
            whole = padded(image, -(-height // STEP) * STEP, -(-width // STEP) * STEP)
            logits = net(torch.from_numpy(whole)[None])
        return logits[0, :, :height, :width].softmax(dim=0).numpy()


def objects(probabilities: Image, classes: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int32]]:
    """Return the class and the object of each pixel; the last of the probabilities is that of the rim."""
    likeliest, interior = probabilities.argmax(axis=0), probabilities[1:classes]
    foreground = likeliest > 0
    markers = label(np.where(likeliest < classes, likeliest, 0), background=0, connectivity=1)
    ids = watershed(-interior.max(axis=0), markers, mask=foreground)
    rest = label(foreground & (ids == 0), connectivity=1)  # thin objects have no interior
    ids = np.where(rest > 0, rest + ids.max(), ids).astype(np.int32)
    sums = np.stack([np.bincount(ids.ravel(), plane.ravel()) for plane in interior])
    class_of = (sums.argmax(axis=0) + 1) * (np.bincount(ids.ravel()) >= MIN_AREA)
    class_of[0] = 0
    return class_of[ids].astype(np.uint8), np.where(class_of[ids] > 0, ids, 0).astype(np.int32)


def write(net: torch.nn.Module, folder: Folder, out: Path, side: int) -> None:
    """Write labels, objects and foreground probability of the test images, and the latter of the validation images."""
    for kind in ("labels", "objects", "foreground"):
        (out / kind).mkdir(parents=True, exist_ok=True)
    net.eval()
    for name in folder.names("test"):
        probabilities = predict(net, folder.image(name), side)
        labels, ids = probabilities.argmax(axis=0).astype(np.uint8), np.zeros(probabilities.shape[1:], np.int32)
        if folder.kind == "instances":
            labels, ids = objects(probabilities, folder.classes)
        for kind, array in (("labels", labels), ("objects", ids), ("foreground", 1 - probabilities[0])):
            np.save(out / kind / f"{name}.npy", array)
    if folder.kind == "boundaries":
        for name in folder.names("validation"):
            np.save(out / "foreground" / f"{name}.npy", 1 - predict(net, folder.image(name), side)[0])


def main() -> None:
    """Train, predict, and write OUT."""
    parser = argparse.ArgumentParser(description="Train MONAI's BasicUNet on a dataset that segline has prepared.")
    parser.add_argument("prepared", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--labels", required=True, choices=("instances", "classes", "boundaries"))
    parser.add_argument("--classes", required=True, type=int, help="number of classes, background included")
    parser.add_argument("--seconds", required=True, type=float, help="CPU time of the training")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(asked.seed)
    folder = Folder(asked.prepared, asked.labels, asked.classes)
    channels = folder.image(folder.names("train")[0]).shape[0]
    net = BasicUNet(spatial_dims=2, in_channels=channels, out_channels=folder.outputs, features=FEATURES)
    result = train(net, folder, asked.seconds, asked.seed)
    write(net, folder, asked.out, result["side"])
    (asked.out / "result.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main()
