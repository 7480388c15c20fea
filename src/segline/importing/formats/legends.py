"""Read a table that gives each mask colour a class; the table is a CSV file (--colours) or labelmap.txt."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from segline import files, names
from segline.data.dataset import IGNORE
from segline.importing.layout import Colour, LayoutError
from segline.text import shown

COLUMNS = ("colour", "class")
CSV = "--colours FILE.csv, a table with the columns colour (#rrggbb), class (id) and name"

LABELMAP = "labelmap.txt"  # CVAT and Datumaro write this file beside Pascal VOC masks
LINE = re.compile(r"(?P<name>.*?):\s*(?P<colour>\d+\s*,\s*\d+\s*,\s*\d+)\s*(:|$)")
BACKGROUND, VOID = "background", ("void", "ignored", "ignore")


@dataclass(frozen=True)
class LabelMap:
    """Content of labelmap.txt: the class id of each colour, and the name of each class id.

    The class id of ignored pixels is IGNORE.
    """

    classes: Mapping[Colour, int]
    names: Mapping[int, str]


def read_labelmap(source: Path) -> LabelMap | None:
    """Read labelmap.txt in `source`; return None if there is no such file.

    Background is class 0. The other classes are numbered in the order of the file.

    Raises
    ------
    LayoutError, FileError
        A line does not have the form NAME:RED,GREEN,BLUE:PARTS:ACTIONS, a name is invalid, or a colour or name occurs
        twice.
    """
    file = source / LABELMAP
    if not file.is_file():
        return None
    classes: dict[Colour, int] = {}
    class_names = {0: BACKGROUND}
    lines = files.read_bytes(file).decode(errors="replace").splitlines()
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        where = f"{file}, line {number}"
        colour, name = _labelmap_line(line, where)
        if colour in classes or (name in class_names.values() and name != BACKGROUND):
            raise LayoutError(
                f"{where}: another line already has the colour {colour} or the name {name!r}; give each class its own "
                "colour and name"
            )
        if name.lower() in VOID:
            classes[colour] = IGNORE
        elif name.lower() == BACKGROUND:
            classes[colour] = 0
        else:
            classes[colour] = len(class_names)
            class_names[len(class_names)] = name
    if len(class_names) < 2 or len(class_names) > IGNORE:
        raise LayoutError(
            f"{file} names {len(class_names) - 1} classes besides background, but segline supports 1 to {IGNORE - 1}; "
            "correct the file"
        )
    if 0 not in classes.values() and (0, 0, 0) not in classes:
        classes[0, 0, 0] = 0
    return LabelMap(classes, class_names)


def _labelmap_line(line: str, where: str) -> tuple[Colour, str]:
    match = LINE.match(line.strip())
    parts = [int(part[:9]) for part in match["colour"].split(",")] if match else []
    if match is None or max(parts) > 255:
        raise LayoutError(
            f"{where}: {line.strip()[:60]!r} does not have the form NAME:RED,GREEN,BLUE:PARTS:ACTIONS; correct or "
            "remove this line"
        )
    try:
        name = names.check(match["name"].strip(), f"{where}: name")
    except names.NamingError as error:
        raise LayoutError(str(error)) from None
    return (parts[0], parts[1], parts[2]), name


def read_csv(file: Path) -> tuple[dict[Colour, int], dict[int, str]]:
    """Read a colour table in CSV.

    Return two values: the class id of each colour, and the name of each class id.

    The columns are colour, class and, optionally, name. A colour is #rrggbb or red,green,blue. Class 255, or `ignore`,
    is for ignored pixels.

    Raises
    ------
    LayoutError, FileError
        A column is missing, or a line is invalid.
    """
    table = files.read_table(file)
    for column in COLUMNS:
        if column not in table:
            raise LayoutError(f"{file} has no column {column}, only the columns {', '.join(table.columns)}; give {CSV}")
    classes: dict[Colour, int] = {}
    class_names: dict[int, str] = {}
    for line, row in enumerate(table.to_dict("records"), 2):
        where = f"{file}, line {line}"
        colour, class_id, name = _csv_row(where, {str(key): str(value) for key, value in row.items()})
        if classes.setdefault(colour, class_id) != class_id:
            raise LayoutError(
                f"{where}: an earlier line already gives colour {row['colour']} the class {classes[colour]}; remove "
                "one of the two lines"
            )
        name = names.check(name, f"{where}: name") if name else name
        if name and class_id != IGNORE and class_names.setdefault(class_id, name) != name:
            raise LayoutError(
                f"{where}: class {class_id} already has the name {class_names[class_id]!r}, not {name!r}; use one name"
            )
    if set(classes.values()) <= {IGNORE}:
        raise LayoutError(
            f"{file} lists {'only ignored colours' if classes else 'no colours'}; "
            "add a line for the colour of each class"
        )
    return classes, class_names


def _csv_row(where: str, row: Mapping[str, str]) -> tuple[Colour, int, str]:
    written, class_id, name = row["colour"].strip(), row["class"].strip().lower(), row.get("name", "").strip()
    digits = written.lstrip("#")
    if len(digits) == 6 and not set(digits.lower()) - set("0123456789abcdef"):
        parts = [int(digits[start : start + 2], 16) for start in (0, 2, 4)]
    else:
        parts = [int(part) for part in written.split(",") if part.strip().isdecimal() and len(part) < 10]
    if len(parts) != 3 or max(parts) > 255 or (written.count(",") not in (0, 2)):
        raise LayoutError(
            f"{where}: the colour is {shown(written)}; write #rrggbb, such as #ff0000, or three numbers in quotes, "
            'such as "255,0,0"'
        )
    if class_id != "ignore" and (not class_id.isdecimal() or len(class_id) > 9 or int(class_id) > IGNORE):
        raise LayoutError(
            f"{where}: the class is {shown(row['class'])}; write a number from 0 to {IGNORE - 1}, or the word ignore"
        )
    return (parts[0], parts[1], parts[2]), IGNORE if class_id == "ignore" else int(class_id), name
