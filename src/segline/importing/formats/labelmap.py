"""labelmap.txt, in which CVAT and Datumaro say which class a colour of their Pascal VOC masks is."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from segline import files, names
from segline.data.dataset import IGNORE
from segline.importing.formats import Colour, LayoutError

FILE = "labelmap.txt"
LINE = re.compile(r"(?P<name>.*?):\s*(?P<colour>\d+\s*,\s*\d+\s*,\s*\d+)\s*(:|$)")
BACKGROUND, VOID = "background", ("void", "ignored", "ignore")


@dataclass(frozen=True)
class LabelMap:
    """Class id by colour, IGNORE for what does not count, and name by class id."""

    classes: Mapping[Colour, int]
    names: Mapping[int, str]


def read(source: Path) -> LabelMap | None:
    """What labelmap.txt in `source` says; None where there is none. Classes are numbered in its order, background 0.

    Raises
    ------
    LayoutError, FileError
        A line is not NAME:RED,GREEN,BLUE:PARTS:ACTIONS, a name cannot be used, or a colour or a name comes twice.
    """
    file = source / FILE
    if not file.is_file():
        return None
    classes: dict[Colour, int] = {}
    named = {0: BACKGROUND}
    lines = files.read_bytes(file).decode(errors="replace").splitlines()
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        where = f"{file}, line {number}"
        colour, name = _line(line, where)
        if colour in classes or (name in named.values() and name != BACKGROUND):
            raise LayoutError(f"{where}: colour {colour} or name {name!r} is there twice; give each class its own")
        if name.lower() in VOID:
            classes[colour] = IGNORE
        elif name.lower() == BACKGROUND:
            classes[colour] = 0
        else:
            classes[colour] = len(named)
            named[len(named)] = name
    if len(named) < 2 or len(named) > IGNORE:
        raise LayoutError(f"{file} names {len(named) - 1} classes beside background; 1 to {IGNORE - 1} are possible")
    if 0 not in classes.values() and (0, 0, 0) not in classes:
        classes[0, 0, 0] = 0
    return LabelMap(classes, named)


def _line(line: str, where: str) -> tuple[Colour, str]:
    found = LINE.match(line.strip())
    parts = [int(part[:9]) for part in found["colour"].split(",")] if found else []
    if found is None or max(parts) > 255:
        raise LayoutError(f"{where}: {line.strip()[:60]!r} is not NAME:RED,GREEN,BLUE:PARTS:ACTIONS; mend or remove it")
    try:
        name = names.check(found["name"].strip(), f"{where}: name")
    except names.NamingError as error:
        raise LayoutError(str(error)) from None
    return (parts[0], parts[1], parts[2]), name
