"""predictions.jsonl: a record of the requests to `segline predict` and of the files written for each request."""

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
from segline.data.writers import SUFFIX, check_own_zarr, remove_zarr

RECORDS = "predictions.jsonl"
LOCK = ".segline-predict.lock"
SUFFIXES = (".png", ".tif", SUFFIX)  # suffixes of result files
ENDINGS = {"labels": "", "instances": "_instances", "probabilities": "_probabilities", "overlays": "_overlay"}
SAME = ("image_md5", "version_md5", "views")  # fields; requests with equal values in these fields have equal labels
NAMED = 5  # number of malformed lines that a message lists


class RecordsError(ValueError):
    """The results folder cannot be used; the message says why."""


@dataclass(frozen=True)
class Line:
    """A line of predictions.jsonl: an image, the version that predicted this image, and the result files by kind.

    A line without `image_md5` records that the files were removed.
    """

    stem: str
    files: dict[str, str]
    image_md5: str | None = None
    version_md5: str | None = None
    views: int | None = None
    model: str | None = None

    @classmethod
    def read(cls, text: bytes) -> Self:
        """Parse a line; raise ValueError if segline cannot have written this line.

        Only file names that segline itself gives are accepted, because the listed files may be removed. Pydantic cannot
        check the line: Pydantic accepts only Unicode text, but file names may contain other bytes.
        """
        content = parse.from_json(text, surrogates=True)
        if not isinstance(content, dict) or not isinstance(content.get("files"), dict):
            raise ValueError("no object with files")
        fields = {name: content[name] for name in cls.__dataclass_fields__ if name in content}
        line = cls(**{"stem": "", "files": {}} | fields)
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
        """Whether the line records that the result files of an image were removed."""
        return self.image_md5 is None and not self.files

    def text(self) -> bytes:
        """Return the line as ASCII JSON, because a file name may contain bytes that are not UTF-8."""
        content = {name: value for name, value in asdict(self).items() if value is not None}
        return json.dumps(content).encode() + b"\n"


def _is_md5(value: object) -> bool:
    # Accept an empty md5, because model versions registered by an early release of segline have an empty md5.
    return isinstance(value, str) and re.fullmatch("([0-9a-f]{32})?", value) is not None


@dataclass(frozen=True)
class PredictOptions:
    """Which files to write besides the label images, and how many views (mirror images, rotations) to average.

    If `views` is 0, predict averages as many views as the model's evaluation did.
    """

    instances: bool = False
    probabilities: bool = False
    overlays: bool = False
    views: int = 0

    @property
    def endings(self) -> dict[str, str]:
        """The end of the file name, after the image's stem, for each requested kind of result file."""
        return {kind: ending for kind, ending in ENDINGS.items() if kind == "labels" or getattr(self, kind)}


@dataclass(frozen=True)
class Request:
    """An image, the version that predicts it, and the kinds of files to write; equal requests have equal results."""

    stem: str
    image_md5: str
    version_md5: str
    views: int
    kinds: tuple[str, ...]
    model: str
    """Model address, recorded only for people who read predictions.jsonl."""


class Records:
    """The locked predictions.jsonl of a results folder. Of several lines about one image, only the last is valid."""

    def __init__(self, out: Path) -> None:
        self.out, self._file = out, out / RECORDS
        self._lock: FileLock | None = None
        self._made: list[Path] = []  # folders that were made for the lock, innermost first
        self._lines: dict[str, Line] = {}

    def __enter__(self) -> Self:
        """Lock the folder and read its records.

        Raises
        ------
        RecordsError
            Another process writes to the folder; or predictions.jsonl or the lock file cannot be used, for example
            because it is a link.
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
        """Acquire the lock. The lock file is in the results folder, so that the processes of all users find it."""
        missing = [folder for folder in (self.out, *self.out.parents) if not folder.exists()]
        self.out.mkdir(parents=True, exist_ok=True)
        self._made = missing
        if not os.access(self.out, os.W_OK):
            return  # a read-only folder: finished images are still recognised
        self._lock = FileLock(self.out / LOCK, timeout=0, mode=0o666)  # any user of the folder may lock it
        try:
            self._lock.acquire()
        except Timeout:
            raise RecordsError(
                f"{self.out}: another `segline predict` writes to this folder; wait until it ends, or "
                "name another folder as --out"
            ) from None
        except OSError as error:
            self._remove_made()
            if error.errno in (errno.ELOOP, errno.EISDIR):
                raise RecordsError(
                    f"{self.out / LOCK} must be a lock file, but is a link or a folder; remove this link or folder"
                ) from None
            raise

    def _release(self) -> None:
        if self._lock is None:
            return
        # The lock file usually stays, because another process may hold the lock.
        # But if this process made the folder, and no other file is in the folder, remove the lock file and the folder.
        if self._made and not self._file.exists() and [path.name for path in self.out.iterdir()] == [LOCK]:
            with suppress(OSError):
                (self.out / LOCK).unlink()
            self._remove_made()
        self._lock.release()

    def _remove_made(self) -> None:
        with suppress(OSError):  # another process uses the folder now
            for folder in self._made:
                folder.rmdir()

    def _read(self) -> Iterator[tuple[str, Line]]:
        """For each valid line, yield the image's stem and the line; print a warning about the other lines."""
        if self._file.is_symlink():
            raise RecordsError(f"{self._file} is a link; remove the link, or name another folder as --out")
        if not self._file.exists():
            return
        try:
            content = parse.read(self._file, parse.DATA_SIZE)
        except (parse.ParseError, OSError) as error:
            raise RecordsError(f"{self._file}: {error}; move this file away, or name another folder as --out") from None
        malformed = []
        # Split only at "\n", because segline ends each line with "\n". `splitlines` would also split at "\r".
        for number, text in enumerate(content.split(b"\n"), 1):
            if not text.strip():
                continue
            try:
                line = Line.read(text)
                yield line.stem, line
            except ValueError:  # includes ParseError
                malformed.append(number)
        if malformed:
            more = f" and {len(malformed) - NAMED} more" * (len(malformed) > NAMED)
            lines = ", ".join(map(str, malformed[:NAMED])) + more
            progress.note(
                f"{self._file}, line {lines}: ignored, because the text is cut off or segline did not write it"
            )

    def written(self, request: Request) -> dict[str, str]:
        """Return the names of the requested files by kind; return {} if one of the files is unrecorded or missing."""
        line = self._lines.get(request.stem)
        if line is None or not _alike(line, request):
            return {}
        complete = all(kind in line.files and (self.out / line.files[kind]).exists() for kind in request.kinds)
        return {kind: line.files[kind] for kind in request.kinds} if complete else {}

    def make_room(self, request: Request) -> Path:
        """If the recorded result files of an image are outdated, remove these files. Return the results folder.

        Files are outdated if their image, version or number of views differs from that of `request`.

        Raises
        ------
        FileError
            A folder has the name of a result file, and is not an OME-Zarr image that segline wrote.
        """
        self.out.mkdir(parents=True, exist_ok=True)
        for ending in (ENDINGS[kind] for kind in request.kinds):
            for suffix in SUFFIXES:
                check_own_zarr(self.out / f"{request.stem}{ending}{suffix}")
        line = self._lines.get(request.stem)
        stale = [] if line is None or _alike(line, request) else [self.out / name for name in line.files.values()]
        for path in stale:
            check_own_zarr(path)
        self._note(None)  # from now on the folder has records, so its files count as segline's
        if stale:
            for path in stale:
                _remove(path)
            # Record the removal.
            # Otherwise, after a crash, segline would mistake new files with these names for its own results.
            self._note(Line(stem=request.stem, files={}))
        return self.out

    def add(self, request: Request, written: dict[str, str]) -> None:
        """Record the result files of an image: `written` maps each kind to a file name."""
        line = self._lines.get(request.stem)
        former = line.files if line and _alike(line, request) else {}
        fields = {key: value for key, value in asdict(request).items() if key != "kinds"}
        self._note(Line(files=former | written, **fields))

    def _note(self, line: Line | None) -> None:
        """Append `line` to the file; if `line` is None, only create the file."""
        with files.written(self._file):
            flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            with os.fdopen(os.open(self._file, flags, 0o666), "r+b", buffering=0) as stream:
                if line is None:
                    return
                end = stream.seek(0, os.SEEK_END)
                cut_off = False
                if end:
                    stream.seek(end - 1)
                    cut_off = stream.read(1) != b"\n"  # a process was killed while it wrote
                _append(stream.fileno(), b"\n" * cut_off + line.text(), end)
        self._lines[line.stem] = line


def _append(handle: int, text: bytes, end: int) -> None:
    """Append `text` to a file; on an error, such as a full disk, cut the file to its former length, `end` bytes."""
    try:
        left = memoryview(text)
        while left:
            left = left[os.write(handle, left) :]
    except OSError:
        os.ftruncate(handle, end)
        raise


def _alike(line: Line, request: Request) -> bool:
    """Return whether `line` records the same image, version and number of views as `request`."""
    return not line.is_empty and all(getattr(line, key) == getattr(request, key) for key in SAME)


def _remove(path: Path) -> None:
    """Remove a result of segline: a file, a link (but not its target), or the folder of an OME-Zarr image."""
    if path.is_dir() and not path.is_symlink():
        remove_zarr(path)
    else:
        path.unlink(missing_ok=True)
