"""What `segline predict` was asked for and has written: predictions.jsonl in the folder of its results."""

import hashlib
import json
import os
import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from filelock import FileLock, Timeout

from segline.data import files, ngff
from segline.data.chunked import SUFFIX

RECORDS = "predictions.jsonl"
SUFFIXES = (".png", ".tif", SUFFIX)  # of what is written
SAME = ("image_md5", "version_md5", "views")  # requests that agree in them have the same labels


class RecordsError(ValueError):
    """The folder of the results cannot be used; the message says why."""


@dataclass(frozen=True)
class Wishes:
    """What is written for an image beside its labels, and by how many views, 0 for the version's own number."""

    instances: bool = False
    probabilities: bool = False
    overlays: bool = False
    views: int = 0

    @property
    def endings(self) -> dict[str, str]:
        """By what is written, what follows the stem in the file's name."""
        every = {"instances": "_instances", "probabilities": "_probabilities", "overlays": "_overlay"}
        return {"labels": ""} | {kind: ending for kind, ending in every.items() if getattr(self, kind)}


@dataclass(frozen=True)
class Request:
    """An image and what is asked of it; equal ones have equal answers."""

    stem: str
    image_md5: str
    version_md5: str
    views: int
    kinds: tuple[str, ...]
    model: str
    """Where the version was found, for who reads."""


class Records:
    """The last line for each image says what its files are; the folder belongs to one process at a time."""

    def __init__(self, out: Path) -> None:
        self.out, self._file = out, out / RECORDS
        # Not in the folder, where it would stay.
        name = hashlib.md5(os.fsencode(out.resolve())).hexdigest()
        # By number: in a container a user may have no name.
        self._lock = FileLock(Path(tempfile.gettempdir()) / f"segline-{os.getuid()}-{name}.lock")
        self._lines: dict[str, dict[str, Any]] = {}

    def __enter__(self) -> Self:
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise RecordsError(f"{self.out}: another `segline predict` writes there; wait, or name another") from None
        # Not `splitlines`: a name may hold what that takes for the end of a line.
        for line in self._file.read_bytes().split(b"\n") if self._file.exists() else ():
            try:
                said = json.loads(line)
                self._lines[said["stem"]] = said
            except (ValueError, KeyError, TypeError):
                continue  # the line of an end in the middle of writing: its image is labelled again
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._lock.release()

    def request(self, image: Path, model: str, version_md5: str, wishes: Wishes) -> Request:
        """What is asked of an image; FileError where it cannot be read."""
        if ngff.is_zarr(image):
            image_md5 = ngff.md5(image)
        else:
            with files.opened(image):  # or says why not
                image_md5 = files.md5(image)
        return Request(ngff.stem(image), image_md5, version_md5, wishes.views, tuple(wishes.endings), model)

    def has(self, request: Request) -> bool:
        """Whether all that is asked for has been written, and is still there."""
        line = self._lines.get(request.stem)
        if line is None or not _alike(line, request):
            return False
        written = line.get("files", {})
        return all(kind in written and (self.out / written[kind]).exists() for kind in request.kinds)

    def make_room(self, request: Request) -> Path:
        """The folder, when no file is left of what was noted of another image, version or views under this name."""
        self.out.mkdir(parents=True, exist_ok=True)
        self._file.touch()  # from now on what is in the folder counts as written by segline
        line = self._lines.get(request.stem)
        if line and not _alike(line, request):
            for name in line.get("files", {}).values():
                _remove(self.out / Path(name).name)
            # Ended after this, what is written next does not pass for what the line says.
            self._note({"stem": request.stem, "files": {}})
        return self.out

    def add(self, request: Request, written: dict[str, str]) -> None:
        """Note the names of the files of an image, by what they are."""
        line = self._lines.get(request.stem)
        every = (line.get("files", {}) if line and _alike(line, request) else {}) | written
        self._note({key: value for key, value in asdict(request).items() if key != "kinds"} | {"files": every})

    def _note(self, line: dict[str, Any]) -> None:
        with self._file.open("a+b") as stream:
            if stream.tell():
                stream.seek(-1, os.SEEK_END)
                if stream.read(1) != b"\n":  # the process ended while it was written
                    stream.write(b"\n")
            stream.write(json.dumps(line).encode() + b"\n")  # in ASCII: a name need not be UTF-8
        self._lines[line["stem"]] = line


def _alike(line: dict[str, Any], request: Request) -> bool:
    """Whether a line is of this image, version and number of views."""
    return all(line.get(key) == getattr(request, key) for key in SAME)


def _remove(path: Path) -> None:
    """Remove a file, or the folder of an OME-Zarr image."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
