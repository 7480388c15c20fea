"""What `segline predict` was asked for and has written: predictions.jsonl in the folder of its results."""

import getpass
import hashlib
import json
import os
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from filelock import FileLock, Timeout

from segline.data import files, ngff

RECORDS = "predictions.jsonl"


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
        self._out, self._file = out, out / RECORDS
        # Not in the folder, where it would stay.
        name = hashlib.md5(os.fsencode(out.resolve())).hexdigest()
        self._lock = FileLock(Path(tempfile.gettempdir()) / f"segline-{getpass.getuser()}-{name}.lock")
        self._lines: dict[str, dict[str, Any]] = {}

    def __enter__(self) -> Self:
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise RecordsError(f"{self._out}: another `segline predict` writes there; wait, or name another") from None
        for line in self._file.read_text().splitlines() if self._file.exists() else ():
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
        if line is None or any(line.get(key) != asdict(request)[key] for key in ("image_md5", "version_md5", "views")):
            return False
        written = line.get("files", {})
        return all(kind in written and (self._out / written[kind]).exists() for kind in request.kinds)

    def add(self, request: Request, written: dict[str, str]) -> None:
        """Note the names of the files of an image, by what they are."""
        line = {key: value for key, value in asdict(request).items() if key != "kinds"} | {"files": written}
        torn = self._file.exists() and self._file.read_bytes()[-1:] not in (b"", b"\n")
        with self._file.open("a") as stream:
            stream.write(("\n" if torn else "") + json.dumps(line, ensure_ascii=False) + "\n")
        self._lines[request.stem] = line
