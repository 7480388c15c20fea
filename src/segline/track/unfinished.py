"""Marks a move of @champion that is under way, so that the next command repairs the aliases of one that was killed.

The mark holds nothing: registry.jsonl alone says where the aliases belong, so that whoever writes into mlruns/ can
neither promote a version by the mark nor have one trusted.
"""

import os
from pathlib import Path

from segline.track.history import RegistryError

FILE = "promotion.json"


def mark(folder: Path) -> None:
    """Leave the mark in `folder`, on the disk, before anything is moved."""
    try:
        with (folder / FILE).open("wb") as stream:
            os.fsync(stream.fileno())
    except OSError as error:
        raise _refused(folder, error) from error


def is_marked(folder: Path) -> bool:
    """Tell whether a move was begun and not finished."""
    return os.path.lexists(folder / FILE)


def clear(folder: Path) -> None:
    """Remove the mark."""
    try:
        (folder / FILE).unlink(missing_ok=True)
    except OSError as error:
        raise _refused(folder, error) from error


def _refused(folder: Path, error: OSError) -> RegistryError:
    return RegistryError(f"{folder / FILE}: {error.strerror}; remove what is there, or see whether you may write there")
