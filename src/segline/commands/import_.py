"""`segline import SOURCE --name NAME`: import images and labels from SOURCE into data/raw/NAME."""

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from segline import names, progress
from segline.data.checks import per_dataset
from segline.data.synthetic import NAME as DRAWN
from segline.importing import bring
from segline.importing.formats import legends
from segline.importing.layout import ImportOptions, Mapper
from segline.params import PARAMS_FILE


class ImportFlagError(ValueError):
    """An option of `segline import` has an invalid value; the message names the option and a valid value."""


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
    **options: Any,
) -> list[str]:
    """Import `source`; return the lines to print: the result, and what the import guessed about `source`.

    Parameters
    ----------
    classes : class names as ID=NAME.
    colours : CSV file with the class of each colour.
    licence, origin, replace : see `bring.bring`.
    options : the other fields of ImportOptions.
    """
    _refuse_values(name, options.get("ignore"))
    class_of, legend_names = legends.read_csv(names.on_disk(colours)) if colours else ({}, {})
    try:
        imported = bring.bring(
            source,
            name,
            ImportOptions(colours=class_of, names=legend_names | _class_names(classes), **options),
            licence=licence,
            origin=origin,
            replace=replace,
            mapper_for=partial(_mapper, mode=mode),
        )
    except (KeyboardInterrupt, SystemExit):
        progress.note(f"the import of {name} is not complete; `segline import` with the same options resumes it")
        raise
    return list(_lines(imported))


def _refuse_values(name: str, ignore: int | None) -> None:
    if not PARAMS_FILE.exists():
        raise ImportFlagError(f"there is no {PARAMS_FILE} in {Path.cwd()}; run segline in the folder that holds it")
    if name == DRAWN:
        raise ImportFlagError(
            f"--name {name}: the DVC stage `sample` writes its dataset to data/raw/{name}; choose another name"
        )
    if (ignore or 0) < 0:
        raise ImportFlagError(f"--ignore {ignore}: mask values are never negative; give a value of 0 or more")


def _mapper(step: str, memory: bring.Memory, mode: progress.Mode) -> Mapper:
    return lambda function, items: progress.each(function, items, step, mode, memory)


def _class_names(flags: Sequence[str]) -> dict[int, str]:
    """Return the class names by id, parsed from the values of --class."""
    pairs = [_class_name(flag) for flag in flags]
    repeated = [class_id for class_id, count in Counter(class_id for class_id, _ in pairs).items() if count > 1]
    if repeated:
        raise ImportFlagError(f"--class {repeated[0]} is given twice; give each class one name")
    return dict(pairs)


def _class_name(flag: str) -> tuple[int, str]:
    number, _, name = flag.partition("=")
    if not number.strip().isdecimal() or not name.strip():
        raise ImportFlagError(f"--class {flag!r}: give an id and a name, such as --class 1=nucleus")
    return int(number), names.check(name.strip(), f"--class {number.strip()}:")


def _lines(imported: bring.Imported) -> Iterator[str]:
    yield f"{imported.folder}"
    yield from imported.table
    yield "How `segline import` understood the source:"
    yield from (f"  {reason}" for reason in imported.reasons)
    if imported.resumed:
        yield f"  {imported.resumed} images were kept from an interrupted import"
    if imported.problems:
        yield per_dataset.table(imported.problems, most=10)
        if any(problem.level == "error" for problem in imported.problems):
            yield "stage prepare will refuse the dataset until these errors are corrected"
    yield f"Look at {imported.folder / bring.SHEET}: do the outlines match the objects?"


def next_steps(name: str) -> list[str]:
    """Return the lines that tell how to use the imported dataset `name` in the pipeline."""
    folder = bring.RAW / name
    return [
        f"Then: dvc add {folder}",
        "and set in params.yaml:",
        "data:",
        f"  source: {folder.as_posix()}",
        "After that, `dvc repro` plans the settings that are `auto`; `segline preset auto` sets all of them to `auto`.",
    ]
