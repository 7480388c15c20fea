"""Read the files that the DVC stages `prepare` and `weights` write."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, overload

import numpy as np
import numpy.typing as npt

from segline import files
from segline.data.dataset import SPEC, Spec, read_spec
from segline.data.density import Density
from segline.model.images import Raw
from segline.model.normalisation import Statistics, blocks, own_statistics
from segline.text import shown

if TYPE_CHECKING:
    import pandas as pd

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
OBJECT_MAPS = "object_maps"  # folder in WEIGHTS
DENSITY = "density"  # folder in WEIGHTS with the sums of each image; the class densities are in a .json of this name


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

    def input_statistics(self, split: str, input_norm: str) -> list[Statistics]:
        """Return the statistics that normalise each image of a split: of the training images, or of the image itself.

        `input_norm` is the setting model.input_norm.
        """
        names = self.names(split)
        if input_norm == "dataset":
            return [self.statistics] * len(names)
        images = map(self.image, names)
        return [
            own_statistics((image[block] for block in blocks(*image.shape[:2])), self.statistics) for image in images
        ]

    def tile_sources(self, split: str) -> tuple[Arrays, Arrays, Arrays]:
        """Return the images, targets and weight maps of a split, in the form that the tile samplers need."""
        names = self.names(split)
        return Arrays(names, self.image), Arrays(names, self.target), Arrays(names, self.weights)

    def object_maps(self, split: str) -> Arrays:
        """Return the object maps (H, W) uint8 of the images of a split.

        Raises
        ------
        FileError
            The labels are not instances, so the stage `weights` wrote no object maps.
        """
        if self.dataset.labels != "instances":
            raise files.FileError(
                f"params.yaml: model.object_map = true, but {self.dataset.name} has no instances: its labels are "
                f"{self.dataset.labels}; set model.object_map to false"
            )
        return Arrays(self.names(split), lambda name: _array(WEIGHTS / OBJECT_MAPS / f"{name}.npy", np.uint8, 2))

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
