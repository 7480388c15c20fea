"""What `segline predict` was asked for and has written: predictions.jsonl in the folder of its results."""

import errno
import json
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from filelock import FileLock, Timeout

from segline import files, parse, progress
from segline.data import chunked, omezarr
from segline.data.chunked import SUFFIX

RECORDS = "predictions.jsonl"
LOCK = ".segline-predict.lock"
SUFFIXES = (".png", ".tif", SUFFIX)  # of what is written
ENDINGS = {"labels": "", "instances": "_instances", "probabilities": "_probabilities", "overlays": "_overlay"}
SAME = ("image_md5", "version_md5", "views")  # requests that agree in them have the same labels
NAMED = 5  # unfit lines that are named


class RecordsError(ValueError):
    """The folder of the results cannot be used; the message says why."""


@dataclass(frozen=True)
class Line:
    """A line of predictions.jsonl: which files an image has, by what they are, and what they were made of.

    Without `image_md5` it says that there are none any more.
    """

    stem: str
    files: dict[str, str]
    image_md5: str | None = None
    version_md5: str | None = None
    views: int | None = None
    model: str | None = None

    @classmethod
    def read(cls, text: bytes) -> Self:
        """Return the line that `text` is; ValueError where segline cannot have written it.

        Its files have names that segline gives them: nothing else is ever removed on its word. Not by pydantic, whose
        strings are Unicode, while file names need not be.
        """
        said = parse.from_json(text, surrogates=True)
        if not isinstance(said, dict) or not isinstance(said.get("files"), dict):
            raise ValueError("no object with files")
        line = cls(
            **{"stem": "", "files": {}} | {name: said[name] for name in cls.__dataclass_fields__ if name in said}
        )
        if not isinstance(line.stem, str) or not line.stem or "/" in line.stem or "\0" in line.stem:
            raise ValueError("no stem")
        for kind, name in line.files.items():
            if kind not in ENDINGS or name not in [f"{line.stem}{ENDINGS[kind]}{suffix}" for suffix in SUFFIXES]:
                raise ValueError(f"no file of {kind}")
        if not line.is_empty and not (
            _is_md5(line.image_md5) and _is_md5(line.version_md5) and type(line.views) is int and line.views >= 0
        ):
            raise ValueError("no image, version or views")
        return line

    @property
    def is_empty(self) -> bool:
        """Whether it only says that the files are gone."""
        return self.image_md5 is None and not self.files

    def text(self) -> bytes:
        """The line as JSON in ASCII: a name need not be UTF-8."""
        said = {name: value for name, value in asdict(self).items() if value is not None}
        return json.dumps(said).encode() + b"\n"


def _is_md5(value: object) -> bool:
    # A version of an early segline may have none.
    return isinstance(value, str) and re.fullmatch("([0-9a-f]{32})?", value) is not None


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
        return {kind: ending for kind, ending in ENDINGS.items() if kind == "labels" or getattr(self, kind)}


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
        self._lock: FileLock | None = None
        self._made: list[Path] = []  # folders made for the lock, the innermost first
        self._lines: dict[str, Line] = {}

    def __enter__(self) -> Self:
        """Hold the folder, and read what was written there.

        Raises
        ------
        RecordsError
            Another process writes there, or what bears the name of the records or of the lock is no file.
        """
        self._hold()
        try:
            self._lines = dict(self._read())
        except BaseException:
            self._release()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._release()

    def _hold(self) -> None:
        """Take the lock, a file in the folder: there every process finds it, whatever its user and its temp folder."""
        missing = [folder for folder in (self.out, *self.out.parents) if not folder.exists()]
        self.out.mkdir(parents=True, exist_ok=True)
        self._made = missing
        if not os.access(self.out, os.W_OK):
            return  # nobody writes there; what is there already is found all the same
        self._lock = FileLock(self.out / LOCK, timeout=0, mode=0o666)  # for whoever may write to the folder
        try:
            self._lock.acquire()
        except Timeout:
            raise RecordsError(f"{self.out}: another `segline predict` writes there; wait, or name another") from None
        except OSError as error:
            self._remove_made()
            if error.errno in (errno.ELOOP, errno.EISDIR):
                raise RecordsError(f"{self.out / LOCK} is a link or a folder; remove it") from None
            raise

    def _release(self) -> None:
        if self._lock is None:
            return
        # A lock that stays cannot be lost to a race; but a folder in which nothing was written is not left behind.
        if self._made and not self._file.exists() and [path.name for path in self.out.iterdir()] == [LOCK]:
            with suppress(OSError):
                (self.out / LOCK).unlink()
            self._remove_made()
        self._lock.release()

    def _remove_made(self) -> None:
        with suppress(OSError):  # another process has begun to use one
            for folder in self._made:
                folder.rmdir()

    def _read(self) -> Iterator[tuple[str, Line]]:
        """The lines by stem; says which are passed over, because segline has not written them."""
        if self._file.is_symlink():
            raise RecordsError(f"{self._file} is a link; remove it, or name another folder as --out")
        if not self._file.exists():
            return
        try:
            content = parse.read(self._file, parse.DATA_SIZE)
        except (parse.ParseError, OSError) as error:
            raise RecordsError(f"{self._file}: {error}; move it away, or name another folder as --out") from None
        unfit = []
        # Not `splitlines`: a name may hold what that takes for the end of a line.
        for number, text in enumerate(content.split(b"\n"), 1):
            if not text.strip():
                continue
            try:
                line = Line.read(text)
                yield line.stem, line
            except ValueError:  # ParseError among them
                unfit.append(number)
        if unfit:
            some = ", ".join(map(str, unfit[:NAMED])) + (f" and {len(unfit) - NAMED} more" * (len(unfit) > NAMED))
            progress.note(f"{self._file}, line {some}: no record of segline's, or cut off; it is passed over")

    def request(self, image: Path, model: str, version_md5: str, wishes: Wishes) -> Request:
        """What is asked of an image; FileError where it cannot be read."""
        if omezarr.is_zarr(image):
            image_md5 = omezarr.md5(image)
        else:
            with files.opened(image):  # or says why not
                image_md5 = files.md5(image)
        return Request(omezarr.stem(image), image_md5, version_md5, wishes.views, tuple(wishes.endings), model)

    def has(self, request: Request) -> bool:
        """Whether all that is asked for has been written, and is still there."""
        line = self._lines.get(request.stem)
        if line is None or not _alike(line, request):
            return False
        written = line.files
        return all(kind in written and (self.out / written[kind]).exists() for kind in request.kinds)

    def make_room(self, request: Request) -> Path:
        """The folder, when no file is left of what was noted of another image, version or views under this name.

        Raises
        ------
        FileError
            A folder has the name of one of them, and is not an OME-Zarr image that segline wrote.
        """
        self.out.mkdir(parents=True, exist_ok=True)
        for ending in (ENDINGS[kind] for kind in request.kinds):
            for suffix in SUFFIXES:
                chunked.doubt_folder(self.out / f"{request.stem}{ending}{suffix}")
        line = self._lines.get(request.stem)
        stale = [] if line is None or _alike(line, request) else [self.out / name for name in line.files.values()]
        for path in stale:
            chunked.doubt_folder(path)
        self._note(None)  # from now on what is in the folder counts as written by segline
        if stale:
            for path in stale:
                _remove(path)
            # Ended after this, what is written next does not pass for what the line says.
            self._note(Line(stem=request.stem, files={}))
        return self.out

    def add(self, request: Request, written: dict[str, str]) -> None:
        """Note the names of the files of an image, by what they are."""
        line = self._lines.get(request.stem)
        former = line.files if line and _alike(line, request) else {}
        said = {key: value for key, value in asdict(request).items() if key != "kinds"}
        self._note(Line(files=former | written, **said))

    def _note(self, line: Line | None) -> None:
        """Append a line; None makes sure that there is a file."""
        with files.written(self._file):
            flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            with os.fdopen(os.open(self._file, flags, 0o666), "r+b", buffering=0) as stream:
                if line is None:
                    return
                end = stream.seek(0, os.SEEK_END)
                cut_off = False
                if end:
                    stream.seek(end - 1)
                    cut_off = stream.read(1) != b"\n"  # the process ended while it was written
                _append(stream.fileno(), b"\n" * cut_off + line.text(), end)
        self._lines[line.stem] = line


def _append(handle: int, text: bytes, end: int) -> None:
    """Write `text` as a whole; on a full disk the file, `end` bytes long before, stays as it was."""
    try:
        left = memoryview(text)
        while left:
            left = left[os.write(handle, left) :]
    except OSError:
        os.ftruncate(handle, end)
        raise


def _alike(line: Line, request: Request) -> bool:
    """Whether a line is of this image, version and number of views."""
    return not line.is_empty and all(getattr(line, key) == getattr(request, key) for key in SAME)


def _remove(path: Path) -> None:
    """Remove a file or a link, but not what a link leads to, or the folder of an OME-Zarr image of segline's."""
    if path.is_dir() and not path.is_symlink():
        chunked.remove(path)
    else:
        path.unlink(missing_ok=True)
