"""`segline import FOLDER --name NAME`: brings a foreign layout into data/raw/NAME."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from segline import progress
from segline.data import check, importing
from segline.data.dataset import Kind
from segline.data.drawn import NAME as DRAWN
from segline.params import PARAMS_FILE


class ImportFlagError(ValueError):
    """A flag of import that cannot be used; the message names it and says what to give."""


def run(
    source: Path,
    name: str,
    *,
    labels: Kind | None = None,
    classes: Sequence[str] = (),
    ignore: int | None = None,
    licence: str = "",
    origin: str = "",
    replace: bool = False,
    mode: progress.Mode = "auto",
) -> list[str]:
    """Import `source` and return what to tell: what was made, what was guessed, what to type next.

    Parameters
    ----------
    classes : names as ID=NAME.
    labels, ignore, licence, origin, replace : see `importing.bring`.
    """
    if not PARAMS_FILE.exists():
        raise ImportFlagError(f"there is no {PARAMS_FILE} in {Path.cwd()}; run segline in the folder that holds it")
    if name == DRAWN:
        raise ImportFlagError(f"--name {name}: stage sample draws its dataset there; choose another name")
    steps = iter(("read masks", "write", "check"))
    made = importing.bring(
        source,
        name,
        kind=labels,
        names=dict(map(_named, classes)),
        ignore=ignore,
        licence=licence,
        origin=origin,
        replace=replace,
        each=lambda function, items: progress.each(function, items, next(steps), mode),
    )
    return list(_lines(made))


def _named(flag: str) -> tuple[int, str]:
    number, _, name = flag.partition("=")
    if not number.strip().isdecimal() or not name.strip():
        raise ImportFlagError(f"--class {flag!r}: give an id and a name, such as --class 1=nucleus")
    return int(number), name.strip()


def _lines(made: importing.Imported) -> Iterator[str]:
    counted = "" if made.instances is None else f", {made.instances} instances"
    yield f"{made.folder}: {made.images} images{counted}"
    yield from (f"  {reason}" for reason in made.reasons)
    total = max(1, sum(made.pixels.values()))
    for class_id, class_name in made.spec.classes.items():
        yield f"  class {class_id} {class_name}: {made.pixels[class_id] / total:.2%} of the pixels"
    if made.problems:
        yield check.table(made.problems, most=10)
        if any(problem.level == "error" for problem in made.problems):
            yield "prepare will refuse the dataset until these errors are mended"
    yield f"Next: dvc add {made.folder}"
    yield f"and in params.yaml, section data: source: {made.folder}"
