"""Find JSON files with annotations, and the image files that these annotations refer to."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Self

from segline import files, names, parse
from segline.files import FileError
from segline.importing.formats.folders import IMAGES
from segline.importing.layout import READABLE, LayoutError, first_few


def json_files(source: Path) -> list[Path]:
    """Return the JSON files in the folder `source` and in its direct subfolders; `source` may also be one JSON file."""
    if source.suffix.lower() == ".json":
        return [source]
    files_ = [file for pattern in ("*.json", "*/*.json") for file in sorted(source.glob(pattern))]
    return [file for file in files_ if not file.name.startswith(".")]


def json_contents(source: Path, keys: Sequence[bytes]) -> Iterator[tuple[Path, Any]]:
    """Yield the path and content of each JSON file in `source`.

    An invalid JSON file is skipped if its text contains none of `keys`.

    Raises
    ------
    FileError
        A file is invalid JSON but contains one of `keys`, so it should hold annotations. Or an invalid file cannot be
        searched for `keys`, because it is too large or is not a regular file.
    """
    for file in json_files(source):
        try:
            yield file, files.read_json(file, parse.DATA_SIZE, loose=True)
        except FileError:
            if not file.is_file() or file.stat().st_size > parse.DATA_SIZE:
                raise  # do not search for keys in a huge file, or in a pipe, which might never end
            if any(key in files.read_bytes(file) for key in keys):
                raise


@dataclass(frozen=True)
class Images:
    """Image files below the folder `root`; `by_name` maps a file name (Unicode form NFC) to all files of this name."""

    root: Path
    by_name: Mapping[str, Sequence[Path]]

    @classmethod
    def below(cls, source: Path) -> Self:
        """Return the image files that annotations in `source` may refer to.

        If `source` is a file, these are the images below the folder of `source`. If this folder has the name
        `annotations`, `labels` or `json`, the images below its parent folder are returned instead.
        """
        root = source
        if source.is_file():
            root = source.parent.parent if source.parent.name in ("annotations", "labels", "json") else source.parent
        by_name: dict[str, list[Path]] = {}
        for file in sorted(root.rglob("*")):
            if file.suffix.lower() in READABLE and not file.name.startswith("."):
                by_name.setdefault(names.composed(file.name), []).append(file)
        return cls(root, by_name)

    def find(self, name: str, annotations: Path, field: str) -> Path:
        """Find the image file for `name`, the value of `field` in the file `annotations`.

        If several images have that name, the image whose folders match `name` best is chosen. Among equally good
        matches, an image in the folder of `annotations` is preferred. The next choice is an image in a folder with a
        usual name for images.

        Raises
        ------
        LayoutError
            No image has that name, or several images match equally well.
        """
        parts = PurePosixPath(names.composed(name).replace("\\", "/")).parts
        candidates = self.by_name.get(parts[-1], ()) if parts else ()
        if not candidates:
            readable = Path(name).suffix.lower() in READABLE
            way_out = (
                "add the image, or remove its annotations"
                if readable
                else f"convert the image to one of {', '.join(READABLE)}"
            )
            raise LayoutError(f"{annotations}: {field} {name!r} is not an image file below {self.root}; {way_out}")

        def closeness(file: Path) -> tuple[int, bool, bool]:
            own_parts = PurePosixPath(names.composed(file.as_posix())).parts
            pairs = zip(reversed(own_parts), reversed(parts), strict=False)
            common = next((count for count, (own, named) in enumerate(pairs) if own != named), len(parts))
            return common, file.parent == annotations.parent, file.parent.name in IMAGES

        best = max(map(closeness, candidates))
        closest = [file for file in candidates if closeness(file) == best]
        if len(closest) > 1:
            if len({names.composed(str(file)) for file in closest}) == 1:
                raise LayoutError(
                    f"{annotations}: {field} {name!r} matches several files with look-alike names: "
                    f"{names.differ(closest)}"
                )
            raise LayoutError(
                f"{annotations}: {field} {name!r} matches several files: {first_few(closest)}; put the folder of the "
                f"intended file before the name in {field}"
            )
        return closest[0]

    def without(self, used: Collection[Path]) -> list[Path]:
        """Return all image files except the files in `used`."""
        return sorted(file for same_name in self.by_name.values() for file in same_name if file not in used)


def stems(images: Sequence[Path], root: Path) -> list[str]:
    """Return a unique stem for each image.

    If two images have the same stem, the new stem of every image begins with the names of its folders below `root`.

    Raises
    ------
    LayoutError
        Two files of one folder have the same stem.
    """
    unique = [names.composed(file.stem) for file in images]
    if len(set(unique)) < len(unique):
        unique = [names.composed("_".join(file.relative_to(root).with_suffix("").parts)) for file in images]
    repeated = [stem for stem, count in Counter(unique).items() if count > 1]
    if repeated:
        same = first_few([file for file, stem in zip(images, unique, strict=True) if stem == repeated[0]])
        raise LayoutError(
            f"{same} have the same stem, but every image needs its own stem; rename one file, and change its name in "
            "the annotations too"
        )
    return unique
