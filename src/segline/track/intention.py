"""What is about to happen to a champion: whoever is next ends what a process that was killed had begun."""

import os
from pathlib import Path

from segline.track import history
from segline.track.history import Promotion

FILE = "promotion.json"


def write(folder: Path, line: Promotion) -> None:
    """Keep `line` in `folder`, whole and on the disk, before anything follows from it."""
    unfinished = folder / f"{FILE}.tmp"
    with unfinished.open("wb") as stream:
        stream.write(history.text(line))
        stream.flush()
        os.fsync(stream.fileno())
    unfinished.replace(folder / FILE)


def read(folder: Path) -> Promotion | None:
    """What was kept last and not done with; None too where the file is damaged, for then nothing has followed."""
    try:
        return history.parse((folder / FILE).read_bytes())
    except (FileNotFoundError, ValueError, TypeError):
        return None


def clear(folder: Path) -> None:
    """Done with."""
    (folder / FILE).unlink(missing_ok=True)
