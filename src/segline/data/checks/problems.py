"""Problems of a dataset, the table that shows them, and the error that stops the pipeline."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from segline.data.dataset import Dataset
from segline.text import visible

LINES = 50  # largest number of lines in a table
EXAMPLES = 3  # largest number of files named for each kind of problem


class UnfitError(ValueError):
    """Raised when a dataset has errors; the message is the table of its problems."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Problem of one file. An error stops the pipeline; a warning does not.

    `kind` names the problem in a few words, so that one line can sum up many files. `count` is the number of
    affected pixels or instances.
    """

    level: Literal["error", "warning"]
    file: str
    message: str
    of_set: bool = False  # whether the problem concerns the whole dataset, such as mixed types or too few images
    kind: str = ""
    count: int = 0


def refuse_errors(problems: Sequence[Problem], most: int = LINES, examples: int = EXAMPLES) -> None:
    """Raise UnfitError with a table of `problems` if any problem is an error.

    `most` and `examples` are passed to `table`.
    """
    errors = sum(problem.level == "error" for problem in problems)
    if errors:
        lines = table(problems, most, examples)
        raise UnfitError(f"{lines}\n{errors} error(s): fix or remove these files; nothing was written")


def table(problems: Sequence[Problem], most: int = LINES, examples: int = EXAMPLES) -> str:
    """Return a text table of problems, errors first, in at most `most` lines. A line has level, file and message.

    If more than `examples` files share a kind of problem, the table names `examples` files and counts the others.
    """
    rows = list(_summary(problems, examples))
    width = max((len(row.file) for row in rows[:most]), default=0)
    lines = [_line(f"{row.level:<8} {row.file:<{width}}  {row.message}") for row in rows[:most]]
    return "\n".join([*lines, *([f"... and {len(rows) - most} more line(s)"] if len(rows) > most else [])])


def _line(text: str) -> str:
    """Escape line breaks and control characters, which file names may contain."""
    return visible(text).replace("\n", "\\n").replace("\t", "\\t")


def _summary(problems: Sequence[Problem], examples: int) -> Iterator[Problem]:
    """Yield the table's lines, errors first, grouped by kind of problem.

    If files of a kind are omitted, one line gives their number.
    """
    kinds: dict[tuple[str, str], list[Problem]] = {}
    for problem in problems:
        kinds.setdefault((problem.level, problem.kind or problem.message), []).append(problem)
    for (_, kind), same in sorted(kinds.items(), key=lambda item: item[0][0]):
        # If only one problem would be omitted, show it: the line that counts omitted problems takes the same space.
        shown = same if len(same) <= examples + 1 else same[:examples]
        yield from shown
        if len(shown) < len(same):
            counted = f", {sum(problem.count for problem in same)} in all" if same[0].count else ""
            yield Problem(same[0].level, f"{len(same) - len(shown)} more files", f"{kind}{counted}")


@dataclass(frozen=True, slots=True)
class Checked:
    """What the checks found in the files of one image; a field stays empty if its file could not be read.

    Attributes
    ----------
    form : type and number of channels.
    size : height and width, px.
    digest : digest of the pixels.
    truth : digest of the labels.
    code : perceptual hash; None if all pixels of the image have one value.
    pixels : pairs of class id and number of pixels.
    """

    stem: str
    form: tuple[str, int] | None = None
    size: tuple[int, int] | None = None
    digest: bytes = b""
    code: npt.NDArray[np.uint64] | None = None
    truth: bytes = b""
    pixels: tuple[tuple[int, int], ...] = ()
    problems: tuple[Problem, ...] = ()


def name_of(dataset: Dataset, file: Path) -> str:
    """Return the path of a file relative to the dataset folder."""
    return file.relative_to(dataset.folder).as_posix()
