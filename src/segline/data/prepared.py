"""Read the files that the DVC stages `prepare` and `weights` write; compute the statistics of the training images."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, overload

import numpy as np
import numpy.typing as npt

from segline import files
from segline.data.dataset import SPEC, Spec, read_spec
from segline.data.density import Density
from segline.model.images import RANGES, Raw, Statistics
from segline.text import shown

if TYPE_CHECKING:
    import pandas as pd

Number = int | float | Fraction

PREPARED = Path("data/prepared")
WEIGHTS = Path("data/weights")
SPLITS = ("train", "validation", "test")
MANIFEST, STATISTICS = "manifest.csv", "statistics.json"
AGAIN = "remove the file, then run `dvc repro` to write it again"
KINDS: dict[str, tuple[npt.DTypeLike, int]] = {
    "targets": (np.uint8, 2),
    "classes": (np.uint8, 2),
    "instances": (np.int32, 2),
}
DENSITY = "density"  # folder in WEIGHTS with the sums of each image; the class densities are in a .json of this name
BLOCK = 1 << 20  # number of pixels summed at once, to limit the memory


class Arrays(Sequence[npt.NDArray[Any]]):
    """Sequence of arrays, each in its own file. A file is opened only when its array is accessed."""

    def __init__(self, names: Sequence[str], load: Callable[[str], npt.NDArray[Any]]) -> None:
        self.names = names
        self.load = load

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, index: int) -> npt.NDArray[Any]: ...

    @overload
    def __getitem__(self, index: slice) -> "Arrays": ...

    def __getitem__(self, index: int | slice) -> "npt.NDArray[Any] | Arrays":
        if isinstance(index, slice):
            return Arrays(self.names[index], self.load)
        return self.load(self.names[index])


@dataclass(frozen=True)
class Prepared:
    """Prepared dataset.

    Each method with a parameter `name` memory-maps an array of one image; `name` is the file stem of this image.
    """

    folder: Path
    manifest: "pd.DataFrame"
    dataset: Spec
    statistics: Statistics

    @classmethod
    def open(cls, folder: Path = PREPARED) -> Self:
        """Open the prepared dataset in `folder`.

        Raises
        ------
        FileError, DatasetError
            A file is missing or damaged.
        """
        manifest = files.read_table(folder / MANIFEST)
        _doubt_manifest(manifest, folder / MANIFEST)
        content = files.read_json(folder / STATISTICS)
        try:
            statistics = Statistics.of(content)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise files.FileError(f"{folder / STATISTICS}: {error}; {AGAIN}") from error
        return cls(folder, manifest, read_spec(folder / SPEC), statistics)

    def names(self, split: str) -> list[str]:
        """Return the stems of the images in a split, which is "train", "validation" or "test"."""
        return self.manifest.loc[self.manifest["split"] == split, "image"].tolist()

    def image(self, name: str) -> Raw:
        """Return the raw pixels (H, W, C) of an image."""
        return self._array("images", name)

    def target(self, name: str) -> npt.NDArray[np.uint8]:
        """Return the network's target (H, W): class ids with gaps between touching instances.

        Ignored pixels are IGNORE.
        """
        return self._array("targets", name)

    def classes(self, name: str) -> npt.NDArray[np.uint8]:
        """Return the true class ids (H, W); ignored pixels are IGNORE."""
        return self._array("classes", name)

    def instances(self, name: str) -> npt.NDArray[np.int32]:
        """Return the true instance ids (H, W), 0 for background."""
        return self._array("instances", name)

    def weights(self, name: str) -> npt.NDArray[np.float32]:
        """Return the border weight map (H, W) of a training or validation image."""
        return _array(WEIGHTS / f"{name}.npy", np.float32, 2)

    def tile_sources(self, split: str) -> tuple[Arrays, Arrays, Arrays]:
        """Return the images, targets and weight maps of a split, in the form that the tile samplers need."""
        names = self.names(split)
        return Arrays(names, self.image), Arrays(names, self.target), Arrays(names, self.weights)

    def density(self) -> Density | None:
        """Return the density of tile centres in the training images; None if all pixels are equally likely centres."""
        common = (WEIGHTS / DENSITY).with_suffix(".json")
        if not common.exists():
            return None
        names = self.names("train")
        of_class = files.read_record(common, dict[Literal["of_class"], list[float]], AGAIN)["of_class"]
        return Density(of_class, Arrays(names, self.classes), Arrays(names, self._density_sums))

    def _density_sums(self, name: str) -> npt.NDArray[np.float64]:
        return files.load_array(WEIGHTS / DENSITY / f"{name}.npy")

    def _array(self, kind: str, name: str) -> npt.NDArray[Any]:
        dtype, dimensions = KINDS.get(kind, (self.statistics.dtype, 3))
        return _array(self.folder / kind / f"{name}.npy", dtype, dimensions)


def _array(file: Path, dtype: npt.DTypeLike, dimensions: int) -> npt.NDArray[Any]:
    array = files.load_array(file)
    if array.dtype != dtype or array.ndim != dimensions:
        raise files.FileError(
            f"{file}: the array has type {array.dtype} and {array.ndim} dimensions; type "
            f"{np.dtype(dtype)} and {dimensions} dimensions are needed; {AGAIN}"
        )
    return array


def _doubt_manifest(manifest: "pd.DataFrame", file: Path) -> None:
    """Refuse a manifest that lacks a column, repeats an image, or has an unknown split or an unsafe image name.

    A name is unsafe if it leads out of the folder.
    """
    for column in ("image", "split"):
        if column not in manifest:
            raise files.FileError(f"{file}: the table has no column {column}; {AGAIN}")
    names = manifest["image"].tolist()
    wrong = [name for name in names if not name or "/" in name or "\0" in name or name in (".", "..")]
    wrong += [split for split in manifest["split"].tolist() if split not in SPLITS]
    if wrong or len(set(names)) < len(names):
        problem = f"{shown(wrong[0])} is not a valid image name or split" if wrong else "it lists an image twice"
        raise files.FileError(f"{file}: {problem}; {AGAIN}")


@dataclass(frozen=True)
class Moments:
    """Pixel type and number of pixels of some images; for each channel, sum of values and sum of squared values.

    The sums are whole numbers if the pixel type is an integer type.
    """

    dtype: str
    pixels: int
    sums: tuple[Number, ...]
    squares: tuple[Number, ...]

    def __add__(self, other: Self) -> Self:
        """Return the exact moments of the union of two sets of images. Both sets have the same type and channels."""
        assert self.dtype == other.dtype and len(self.sums) == len(other.sums)
        sums, squares = (
            tuple(Fraction(a) + Fraction(b) for a, b in zip(*pair, strict=True))
            for pair in ((self.sums, other.sums), (self.squares, other.squares))
        )
        return type(self)(self.dtype, self.pixels + other.pixels, sums, squares)


def moments(image: Raw) -> Moments:
    """Return the moments of an image (H, W, C): for each channel, the sum of values and the sum of squared values.

    In a dataset of grey and RGB images, `images.as_channels` must first convert grey images to three channels.
    """
    flat = image.reshape(-1, image.shape[2])
    blocks = [_sums(flat[start : start + BLOCK]) for start in range(0, len(flat), BLOCK)]
    total = sum if image.dtype.kind == "u" else math.fsum
    sums, squares = (tuple(total(channel) for channel in zip(*part, strict=True)) for part in zip(*blocks, strict=True))
    return Moments(image.dtype.name, len(flat), sums, squares)


def _sums(pixels: Raw) -> tuple[list[int | float], list[int | float]]:
    """Return two lists with one number per channel of pixels (N, C): sums, and sums of squares; exact for integers."""
    wide = pixels.astype(np.int64 if pixels.dtype.kind == "u" else np.float64)
    return wide.sum(axis=0).tolist(), (wide * wide).sum(axis=0).tolist()


def statistics(parts: Iterable[Moments]) -> Statistics:
    """Compute the mean and standard deviation of each channel over all images, from the moments of the images.

    The images have the same type and number of channels.
    A constant channel gets a standard deviation of 1, so that dividing by it leaves zeros.
    """
    # Exact fractions avoid rounding until the last step, so the result does not depend on the order of the images.
    total = reduce(Moments.__add__, parts)
    mean, std = [], []
    for first, second in zip(total.sums, total.squares, strict=True):
        average, square = Fraction(first) / total.pixels, Fraction(second) / total.pixels
        mean.append(float(average) / RANGES[total.dtype])
        std.append(math.sqrt(max(float(square - average * average), 0.0)) / RANGES[total.dtype] or 1.0)
    return Statistics(total.dtype, len(mean), tuple(mean), tuple(std))
