"""Files of annotations, and the image files that they name, wherever these lie."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Self

from segline import files, names, parse
from segline.files import FileError
from segline.importing.formats import READABLE, LayoutError, Wishes, drawings, some
from segline.importing.formats.folders import IMAGES


def jsons(source: Path) -> list[Path]:
    """The JSON files of `source`: itself one, or a folder that holds them, or whose folders do."""
    if source.suffix.lower() == ".json":
        return [source]
    found = [file for pattern in ("*.json", "*/*.json") for file in sorted(source.glob(pattern))]
    return [file for file in found if not file.name.startswith(".")]


def contents(source: Path, signs: Sequence[bytes]) -> Iterator[tuple[Path, Any]]:
    """The JSON files of `source` and what they say.

    Raises
    ------
    FileError
        A file is no JSON, though one of `signs` in it tells that it was meant; without these it is passed over.
    """
    for file in jsons(source):
        try:
            yield file, files.read_json(file, parse.DATA_SIZE, loose=True)
        except FileError:
            if not file.is_file() or file.stat().st_size > parse.DATA_SIZE:
                raise  # a pipe might never end
            if any(sign in files.read_bytes(file) for sign in signs):
                raise


@dataclass(frozen=True)
class Images:
    """The image files below a folder, by file name in NFC."""

    root: Path
    by_name: Mapping[str, Sequence[Path]]

    @classmethod
    def below(cls, source: Path) -> Self:
        """Those that annotations in `source` may mean; of a single file, those beside it or beside its folder."""
        root = source
        if source.is_file():
            root = source.parent.parent if source.parent.name in ("annotations", "labels", "json") else source.parent
        found: dict[str, list[Path]] = {}
        for file in sorted(root.rglob("*")):
            if file.suffix.lower() in READABLE and not file.name.startswith("."):
                found.setdefault(names.composed(file.name), []).append(file)
        return cls(root, found)

    def find(self, said: str, where: Path, field: str) -> Path:
        """The file that annotation file `where` calls `said` in `field`.

        Of several of that name it is the one whose folders are named too, then the one beside `where`, then the one in
        a folder for images.

        Raises
        ------
        LayoutError
            There is none, or it cannot be said which.
        """
        parts = PurePosixPath(names.composed(said).replace("\\", "/")).parts
        candidates = self.by_name.get(parts[-1], ()) if parts else ()
        if not candidates:
            readable = Path(said).suffix.lower() in READABLE
            way = "add it, or take its annotations out" if readable else f"images are {', '.join(READABLE)}: convert it"
            raise LayoutError(f"{where}: {field} {said!r} is no image file below {self.root}; {way}")

        def nearness(file: Path) -> tuple[int, bool, bool]:
            own = PurePosixPath(names.composed(file.as_posix())).parts
            pairs = zip(reversed(own), reversed(parts), strict=False)
            alike = next((count for count, (one, other) in enumerate(pairs) if one != other), len(parts))
            return alike, file.parent == where.parent, file.parent.name in IMAGES

        best = max(map(nearness, candidates))
        nearest = [file for file in candidates if nearness(file) == best]
        if len(nearest) > 1:
            if len({names.composed(str(file)) for file in nearest}) == 1:
                raise LayoutError(f"{where}: {field} {said!r} may be both: {names.differ(nearest)}")
            raise LayoutError(f"{where}: {field} {said!r} may be {some(nearest)}; name its folder there too")
        return nearest[0]

    def left(self, used: Collection[Path]) -> list[Path]:
        """The image files that are not among `used`."""
        return sorted(file for found in self.by_name.values() for file in found if file not in used)


def stems(images: Sequence[Path], root: Path) -> list[str]:
    """A stem for each of `images`: its own, or, where two have one, all of them led by their folders below `root`.

    Raises
    ------
    LayoutError
        Two files of one folder have one stem.
    """
    found = [names.composed(file.stem) for file in images]
    if len(set(found)) < len(found):
        found = [names.composed("_".join(file.relative_to(root).with_suffix("").parts)) for file in images]
    twice = [stem for stem, count in Counter(found).items() if count > 1]
    if twice:
        files_ = some([file for file, stem in zip(images, found, strict=True) if stem == twice[0]])
        raise LayoutError(f"{files_} have one stem; a stem names one image: rename one, there and where it is named")
    return found


def refuse_or_skip(errors: Sequence[str], wishes: Wishes, what: str) -> list[str]:
    """Refuse what has no partner; or, where the person says to leave it out, the words that tell of it."""
    if not wishes.skip_unpaired:
        drawings.refuse(errors)
    return [f"{len(errors)} {what} left out, as told: {errors[0]}"] if errors else []


def blank(count: int) -> list[str]:
    """The words for so many images that hold background only, as the person says."""
    return [f"{count} image(s) without labels are background only, as told"] if count else []
