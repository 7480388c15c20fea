"""The scratch folder: a hidden folder beside the results, with the intermediate files of an out-of-core prediction."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from segline import files
from segline.commands.prediction_records import Request
from segline.model.images import ImageError
from segline.text import MESSAGE, cut
from segline.track.registry import RegistryError

KEY = "key.json"
OWN = re.compile(r"key\.json|journal\.json|sum-[0-9]+\.npy|ids\.npy|\..+\.partial")  # file names that segline writes


@contextmanager
def scratch_folder(out: Path, request: Request) -> Iterator[Path]:
    """Yield the scratch folder of `request`. The folder may hold files of an interrupted prediction.

    The folder is removed at the end if no error occurs.

    Files for another image, version or number of views are removed first.

    Raises
    ------
    FileError
        The folder holds something that segline did not write, or the version's code fails on the files in the folder.
    """
    scratch = scratch_path(out, request.stem)
    check_own(scratch)
    key = {"version_md5": request.version_md5, "views": request.views, "image_md5": request.image_md5}
    if not _is_of(scratch, key):
        remove(scratch)
        files.write_json(scratch / KEY, key)
    try:
        yield scratch
    except (files.FileError, ImageError, RegistryError, OSError):
        raise
    except Exception as error:  # the code in the version's package may raise any error on files that it did not write
        raise files.FileError(
            f"the interrupted prediction in {scratch} cannot be resumed ({type(error).__name__}: "
            f"{cut(str(error), MESSAGE)}); remove this folder"
        ) from error
    remove(scratch)


def scratch_path(out: Path, stem: str) -> Path:
    """Return the path of the scratch folder for the image `stem`."""
    name = f".{stem}.windows"
    return out / name if len(os.fsencode(name)) <= files.NAME_MAX else files.temporary_name(out / stem, "windows")


def _is_of(scratch: Path, key: dict[str, object]) -> bool:
    """Return whether the scratch folder was made for the image, version and number of views in `key`."""
    try:
        return bool(files.read_json(scratch / KEY) == key)
    except files.FileError:
        return False


def check_own(scratch: Path) -> None:
    """Refuse a scratch folder that holds files of the user, because segline removes the folder at the end.

    Raises
    ------
    FileError
        `scratch` is a link or a file, or it holds a folder, a link or a file with a name that segline does not use.
    """
    if not os.path.lexists(scratch):
        return
    foreign = [scratch] if scratch.is_symlink() or not scratch.is_dir() else list(_foreign(scratch))
    if foreign:
        raise files.FileError(
            f"segline did not write {foreign[0]}, but would replace or remove it; move this file or folder away, "
            "or name another folder as --out"
        )


def _foreign(scratch: Path) -> Iterator[Path]:
    for path in scratch.iterdir():
        if path.is_symlink() or not path.is_file() or not OWN.fullmatch(path.name):
            yield path


def remove(scratch: Path) -> None:
    """Remove each file in `scratch`, and then the empty folder."""
    check_own(scratch)
    if scratch.is_dir():
        for path in scratch.iterdir():
            path.unlink()
        scratch.rmdir()
