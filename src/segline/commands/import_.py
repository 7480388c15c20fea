"""`segline import SOURCE --name NAME`: brings a foreign layout into data/raw/NAME."""

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from segline import names, progress
from segline.data.checks import per_dataset
from segline.data.synthetic import NAME as DRAWN
from segline.importing import bring
from segline.importing.formats import Each, Wishes
from segline.importing.formats.colours import read_table
from segline.params import PARAMS_FILE


class ImportFlagError(ValueError):
    """A flag of import that cannot be used; the message names it and says what to give."""


def run(
    source: Path,
    name: str,
    *,
    classes: Sequence[str] = (),
    colours: Path | None = None,
    licence: str = "",
    origin: str = "",
    replace: bool = False,
    mode: progress.Mode = "auto",
    **wishes: Any,
) -> list[str]:
    """Import `source` and return what to tell: what was made, what was guessed, what to type next.

    Parameters
    ----------
    classes : names as ID=NAME.
    colours : CSV file with the class of each colour.
    licence, origin, replace : see `bring.bring`.
    wishes : the other fields of Wishes.
    """
    if not PARAMS_FILE.exists():
        raise ImportFlagError(f"there is no {PARAMS_FILE} in {Path.cwd()}; run segline in the folder that holds it")
    if name == DRAWN:
        raise ImportFlagError(f"--name {name}: stage sample draws its dataset there; choose another name")
    if (wishes.get("ignore") or 0) < 0:
        raise ImportFlagError(f"--ignore {wishes['ignore']}: mask values are 0 or more")
    table, of_table = read_table(names.on_disk(colours)) if colours else ({}, {})
    try:
        made = bring.bring(
            source,
            name,
            Wishes(colours=table, names=of_table | _names(classes), **wishes),
            licence=licence,
            origin=origin,
            replace=replace,
            each=partial(_each, mode=mode),
        )
    except (KeyboardInterrupt, SystemExit):
        progress.note(f"{name} is not imported; the same command goes on where this one was interrupted")
        raise
    return list(_lines(made))


def _each(what: str, memory: bring.Memory, mode: progress.Mode) -> Each:
    return lambda function, items: progress.each(function, items, what, mode, memory)


def _names(flags: Sequence[str]) -> dict[int, str]:
    """Names of classes by id."""
    named = [_named(flag) for flag in flags]
    twice = [class_id for class_id, count in Counter(class_id for class_id, _ in named).items() if count > 1]
    if twice:
        raise ImportFlagError(f"--class {twice[0]} is given twice; a class has one name")
    return dict(named)


def _named(flag: str) -> tuple[int, str]:
    number, _, name = flag.partition("=")
    if not number.strip().isdecimal() or not name.strip():
        raise ImportFlagError(f"--class {flag!r}: give an id and a name, such as --class 1=nucleus")
    return int(number), names.check(name.strip(), f"--class {number.strip()}:")


def _lines(made: bring.Imported) -> Iterator[str]:
    yield f"{made.folder}"
    yield from made.table
    yield "How that was understood:"
    yield from (f"  {reason}" for reason in made.reasons)
    if made.found:
        yield f"  {made.found} images were there from an import that was interrupted"
    if made.problems:
        yield per_dataset.table(made.problems, most=10)
        if any(problem.level == "error" for problem in made.problems):
            yield "prepare will refuse the dataset until these errors are mended"
    yield f"Look at {made.folder / bring.SHEET}: are the outlines where they should be?"
    yield f"Then: dvc add {made.folder}"
    yield "and in params.yaml:"
    yield "data:"
    yield f"  source: {made.folder.as_posix()}"
