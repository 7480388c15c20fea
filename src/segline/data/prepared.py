"""What stage prepare wrote, and stage weights beside it, as the later stages read it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, overload

import numpy as np
import numpy.typing as npt

from segline import files
from segline.data.dataset import SPEC, Spec, read_spec
from segline.data.density import Density
from segline.model.images import Raw, Statistics
from segline.text import shown

if TYPE_CHECKING:
    import pandas as pd

PREPARED = Path("data/prepared")
WEIGHTS = Path("data/weights")
SPLITS = ("train", "validation", "test")
MANIFEST, STATISTICS = "manifest.csv", "statistics.json"
AGAIN = "remove it, and `dvc repro` writes it"
KINDS: dict[str, tuple[npt.DTypeLike, int]] = {
    "targets": (np.uint8, 2),
    "classes": (np.uint8, 2),
    "instances": (np.int32, 2),
}
DENSITY = "density"  # in WEIGHTS: a folder with the sums of each training image, and a .json with what is common


class Arrays(Sequence[npt.NDArray[Any]]):
    """Arrays that are opened when asked for: thousands of them need no more than one file open at a time."""

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
    """The prepared dataset; images are named by their stem and read, memory-mapped, when asked for."""

    folder: Path
    manifest: "pd.DataFrame"
    dataset: Spec
    statistics: Statistics

    @classmethod
    def open(cls, folder: Path = PREPARED) -> Self:
        """The prepared dataset in `folder`.

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
        """The images of a split: train, validation or test."""
        return self.manifest.loc[self.manifest["split"] == split, "image"].tolist()

    def image(self, name: str) -> Raw:
        """Raw pixels (H, W, C)."""
        return self._array("images", name)

    def target(self, name: str) -> npt.NDArray[np.uint8]:
        """What the network learns (H, W): classes, with a gap between touching instances, or IGNORE."""
        return self._array("targets", name)

    def classes(self, name: str) -> npt.NDArray[np.uint8]:
        """The true classes (H, W), or IGNORE."""
        return self._array("classes", name)

    def instances(self, name: str) -> npt.NDArray[np.int32]:
        """The true instances (H, W), 0 for background."""
        return self._array("instances", name)

    def weights(self, name: str) -> npt.NDArray[np.float32]:
        """The border weight map (H, W) of a training or validation image."""
        return _array(WEIGHTS / f"{name}.npy", np.float32, 2)

    def tile_sources(self, split: str) -> tuple[Arrays, Arrays, Arrays]:
        """Images, targets and weight maps of a split, as the tile samplers take them."""
        names = self.names(split)
        return Arrays(names, self.image), Arrays(names, self.target), Arrays(names, self.weights)

    def density(self) -> Density | None:
        """Where the tiles of the training split are drawn; None: uniformly."""
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
    found = files.load_array(file)
    if found.dtype != dtype or found.ndim != dimensions:
        raise files.FileError(
            f"{file}: {found.dtype} of {found.ndim} dimensions, not {np.dtype(dtype)} of {dimensions}; {AGAIN}"
        )
    return found


def _doubt_manifest(manifest: "pd.DataFrame", file: Path) -> None:
    """Refuse a manifest without its columns, with unknown splits, or with images that would be files elsewhere."""
    for column in ("image", "split"):
        if column not in manifest:
            raise files.FileError(f"{file}: there is no column {column}; {AGAIN}")
    names = manifest["image"].tolist()
    wrong = [name for name in names if not name or "/" in name or "\0" in name or name in (".", "..")]
    wrong += [split for split in manifest["split"].tolist() if split not in SPLITS]
    if wrong or len(set(names)) < len(names):
        raise files.FileError(f"{file}: {shown(wrong[0]) if wrong else 'an image is listed twice'}; {AGAIN}")
