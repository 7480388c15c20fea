"""What is wrong with a dataset: a problem, the table of many, and the error that stops the line."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from segline.data.dataset import Dataset
from segline.text import visible

LINES = 50  # of a table
EXAMPLES = 3  # files that are named of each kind of problem, where more have it


class UnfitError(ValueError):
    """A dataset with errors; the message is their table."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with one file: errors stop the line, warnings do not.

    `kind` says it of many files in a few words, `count` of how many pixels or instances of this file it is true.
    """

    level: Literal["error", "warning"]
    file: str
    message: str
    of_set: bool = False  # the file is fit; it does not go with the others, or there are too few
    kind: str = ""
    count: int = 0


def refuse_errors(found: Sequence[Problem], most: int = LINES, examples: int = EXAMPLES) -> None:
    """Raise UnfitError with a table of `found` when there is an error among it; see `table`."""
    errors = sum(problem.level == "error" for problem in found)
    if errors:
        lines = table(found, most, examples)
        raise UnfitError(f"{lines}\n{errors} error(s): mend or remove these files; nothing was written")


def table(found: Sequence[Problem], most: int = LINES, examples: int = EXAMPLES) -> str:
    """Level, file and message, one problem a line, errors first, `most` lines at most.

    Of a kind of problem that more than `examples` files have, these are shown, and of the others how many there are.
    """
    rows = list(_summary(found, examples))
    width = max((len(row.file) for row in rows[:most]), default=0)
    lines = [_line(f"{row.level:<8} {row.file:<{width}}  {row.message}") for row in rows[:most]]
    return "\n".join([*lines, *([f"... and {len(rows) - most} more"] if len(rows) > most else [])])


def _line(text: str) -> str:
    return visible(text).replace("\n", "\\n").replace("\t", "\\t")


def _summary(found: Sequence[Problem], examples: int) -> Iterator[Problem]:
    """`found`, errors first, kind by kind, with one line for all of a kind but the examples."""
    kinds: dict[tuple[str, str], list[Problem]] = {}
    for problem in found:
        kinds.setdefault((problem.level, problem.kind or problem.message), []).append(problem)
    for (_, kind), same in sorted(kinds.items(), key=lambda item: item[0][0]):
        # A line in the place of a single problem would say less and save nothing.
        shown = same if len(same) <= examples + 1 else same[:examples]
        yield from shown
        if len(shown) < len(same):
            counted = f", {sum(problem.count for problem in same)} in all" if same[0].count else ""
            yield Problem(same[0].level, f"{len(same) - len(shown)} more files", f"{kind}{counted}")


@dataclass(frozen=True, slots=True)
class Checked:
    """What is known of one image once its files were read; what could not be read leaves its fields empty.

    `form` is type and channels, `size` height and width, `digest` of the pixels and `truth` of the labels, `code` the
    perceptual hash (None for an image of one value), `pixels` their number by class id.
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
    """A file of the dataset as tables call it."""
    return file.relative_to(dataset.folder).as_posix()
