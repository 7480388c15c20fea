"""Read and write the files of a project. Each file is written completely or not at all.

Other modules open files for writing only in four cases: to append to registry.jsonl and predictions.jsonl, to hold
locks, to write into private temporary folders, and to keep the maps of an out-of-core image. The last case is in the
room `model`, which is part of each model package.
"""

import csv
import errno
import hashlib
import io
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

import numpy as np
import numpy.typing as npt

from segline import parse
from segline.text import LONGEST, MESSAGE, cut, shown

if TYPE_CHECKING:
    import pandas as pd
T = TypeVar("T")
NAME_MAX = 255  # largest number of bytes in a file name on most file systems
BUFFER = 2**20  # number of bytes read at a time


class FileError(ValueError):
    """Raised when a file cannot be used; the message names the file and the problem, and says what to do."""


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """Open a file for reading; raise FileError if that fails."""
    try:
        with path.open("rb") as stream:
            yield stream
    except OSError as error:
        raise FileError(f"{path}: cannot be read: {error.strerror or error}") from error


def read_bytes(path: Path) -> bytes:
    """Return the bytes of a file; raise FileError if the file cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise FileError(f"{path}: cannot be read: {error.strerror or error}") from error


def write_bytes(path: Path, data: bytes, *, settle: bool = False) -> None:
    """Write a file atomically. Write a temporary file first and rename it, so that no reader finds a partial file.

    Parameters
    ----------
    settle : wait until the bytes are on the disk, so that a power cut does not leave an empty file.
    """
    with partial(path) as temporary, temporary.open("xb") as file:
        file.write(data)
        if settle:
            file.flush()
            os.fsync(file.fileno())


@contextmanager
def partial(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write to. On success, rename the written file to `path`; on failure, remove the file.

    An OSError names `path` instead of the temporary path.
    """
    temporary = temporary_name(path)
    with written(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        # Remove a file that a killed process left here, or a link: writing to a link would change the link's target.
        temporary.unlink(missing_ok=True)
        try:
            yield temporary
            temporary.replace(path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise


@contextmanager
def written(path: Path) -> Iterator[None]:
    """If the with block raises an OSError with no file name or a temporary one, set the name to `path`."""
    try:
        yield
    except OSError as error:
        if error.errno is None and "requested and" in str(error):  # numpy's `tofile` raises this on a full disk
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
        names = {None, str(temporary_name(path)), str(temporary_name(path, "former"))}
        if error.errno is not None and (None if error.filename is None else str(error.filename)) in names:
            error.filename, error.filename2 = str(path), None
        raise


def temporary_name(path: Path, kind: str = "partial") -> Path:
    """Return a hidden path in the folder of `path`. The name, at most 25 bytes, is made from `path.name` and `kind`.

    A file that a killed process left there is removed when `path` is written again.
    """
    digest = bytes_md5(os.fsencode(path.name))
    return path.with_name(f".{digest[:16]}.{kind}")


def md5(path: Path) -> str:
    """Return the MD5 of a file as 32 hexadecimal digits. DVC computes the same MD5."""
    with path.open("rb") as file:
        return stream_md5(file)


def stream_md5(stream: BinaryIO, copy: BinaryIO | None = None) -> str:
    """Return the MD5 of a stream; if `copy` is given, also write the stream to `copy`."""
    md5 = hashlib.md5(usedforsecurity=False)
    while chunk := stream.read(2**20):
        md5.update(chunk)
        if copy is not None:
            copy.write(chunk)
    return md5.hexdigest()


def bytes_md5(content: bytes) -> str:
    """Return the MD5 of bytes."""
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def sync(path: Path) -> None:
    """Make the system write a file, or the list of entries of a folder, to the disk now (fsync)."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def copy(source: Path, target: Path) -> None:
    """Copy the content of a file atomically, without its times and permissions.

    Raises
    ------
    FileError
        `source` cannot be read.
    """
    try:
        stream = source.open("rb")
    except OSError as error:
        raise FileError(f"{source}: cannot be read: {error.strerror or error}") from error
    with stream, partial(target) as temporary, temporary.open("xb") as file:
        shutil.copyfileobj(stream, file, BUFFER)


def save_array(path: Path, array: npt.NDArray[Any]) -> None:
    """Write `array` as .npy, which `load_array` can map into memory."""
    with partial(path) as temporary, temporary.open("xb") as file:
        np.save(file, np.ascontiguousarray(array), allow_pickle=False)


def save_parts(path: Path, shape: tuple[int, ...], dtype: npt.DTypeLike, parts: Iterable[npt.NDArray[Any]]) -> None:
    """Write an array as .npy. `parts` yields groups of consecutive rows; only one group is in memory at a time."""
    descr = np.lib.format.dtype_to_descr(np.dtype(dtype))
    with partial(path) as temporary, temporary.open("xb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": descr, "fortran_order": False, "shape": shape})
        for part in parts:
            np.ascontiguousarray(part, dtype).tofile(file)


def load_array(path: Path) -> npt.NDArray[Any]:
    """Memory-map the array in an .npy file, read-only. Only the data that is used is read from the disk."""
    try:
        array: npt.NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # for a damaged header, numpy can raise any error of Python's parser
        message = cut(f"{error}", MESSAGE)
        raise FileError(
            f"{path}: not a readable array ({message}); remove this file, then run `dvc repro` to write it again"
        ) from error
    return array


def read_json(path: Path, largest: int = parse.RECORD_SIZE, *, loose: bool = False) -> Any:
    """Read a JSON file; raise FileError if `parse` refuses the content, or the file has more bytes than `largest`.

    Parameters
    ----------
    loose : see `parse.from_json`.
    """
    return _parsed(path, lambda data: parse.from_json(data, loose=loose), largest)


def read_record(path: Path, form: type[T], remedy: str) -> T:
    """Read a JSON or YAML file that segline wrote. Pydantic checks the content and converts it to the type `form`.

    Raises
    ------
    FileError
        The file is damaged or does not fit `form`; the message ends with `remedy`.
    """
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(form).validate_python(read_yaml(path) if path.suffix == ".yaml" else read_json(path))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "the content"
        raise FileError(
            f"{path}: {cut(where, LONGEST)} = {shown(first['input'])}: {cut(first['msg'], MESSAGE)}; {remedy}"
        ) from None


def _parsed(path: Path, parser: Callable[[bytes], Any], largest: int) -> Any:
    try:
        return parser(parse.read(path, largest))
    except OSError as error:
        raise FileError(f"{path}: cannot be read: {error.strerror or error}") from error
    except parse.ParseError as error:
        raise FileError(f"{path}: {error}") from error


def write_json(path: Path, value: Any) -> None:
    """Write `value` as JSON with its keys in the given order; raise ValueError for NaN, which JSON does not have."""
    write_bytes(path, _encoded(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"))


def read_yaml(path: Path) -> Any:
    """Read a YAML file; raise FileError if `parse` refuses the content."""
    return _parsed(path, parse.from_yaml, parse.YAML_SIZE)


def write_yaml(path: Path, value: Any) -> None:
    """Write `value` as YAML with its keys in the given order."""
    from ruamel.yaml import YAML

    yaml, text = YAML(), io.BytesIO()
    yaml.width = 1000
    yaml.dump(value, text)
    write_bytes(path, text.getvalue())


def read_table(path: Path) -> "pd.DataFrame":
    """Read a CSV file and keep every value as text: 007 stays 007, NA stays NA."""
    import pandas as pd

    try:
        return pd.read_csv(io.BytesIO(parse.read(path, parse.RECORD_SIZE)), dtype=str, keep_default_na=False)
    except OSError as error:
        raise FileError(f"{path}: cannot be read: {error.strerror or error}") from error
    except parse.ParseError as error:
        raise FileError(f"{path}: {error}") from error
    except (ValueError, OverflowError, MemoryError) as error:  # includes ParserError and UnicodeDecodeError
        raise FileError(f"{path}: not a readable table: {cut(str(error), MESSAGE)}") from error


def write_table(path: Path, table: "pd.DataFrame") -> None:
    """Write `table` as CSV, without its index."""
    write_bytes(path, _encoded(path, table.to_csv(index=False, lineterminator="\n")))


def _encoded(path: Path, text: str) -> bytes:
    """Encode `text` as UTF-8. An error names `path`, the file to which `text` will be written."""
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        around = text[max(0, error.start - 20) : error.end + 20]
        raise FileError(
            f"{path}: the text {shown(around)} is not valid Unicode and cannot be written; rename the file whose name "
            "occurs in this text"
        ) from None


@contextmanager
def table_writer(path: Path, columns: Sequence[str]) -> Iterator[Callable[[Mapping[str, object]], None]]:
    """Write a CSV file: yield a function that writes one row, given as a mapping from column names to values."""
    with partial(path) as temporary, temporary.open("x", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        yield writer.writerow


def make_empty_folder(path: Path) -> None:
    """Make an empty folder and its parents. An existing folder or link is replaced; the target of a link stays."""
    if path.is_symlink():
        path.unlink()
    if path.exists():
        shutil.rmtree(path)
    path.mkdir(parents=True)


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """Yield a temporary folder to fill. On success, rename it to `target`; on failure, leave `target` unchanged."""
    building = temporary_name(target)
    with written(target):
        try:
            make_empty_folder(building)
            yield building
        except BaseException:
            shutil.rmtree(building, ignore_errors=True)
            raise
        put_in_place(building, target)


def put_in_place(folder: Path, target: Path) -> None:
    """Rename `folder` to `target`. An existing `target` is moved aside first, and removed only after the renaming."""
    former = temporary_name(target, "former")
    if former.is_symlink():
        former.unlink()
    if target.exists():
        shutil.rmtree(former, ignore_errors=True)
        target.replace(former)
    folder.replace(target)
    shutil.rmtree(former, ignore_errors=True)
