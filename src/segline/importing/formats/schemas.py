"""Pydantic models of COCO and LabelMe JSON, with error messages about missing and invalid fields."""

import re
from collections.abc import Iterator
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, Discriminator, Field, FiniteFloat, PlainValidator, Tag, ValidationError

from segline.importing.layout import LayoutError
from segline.text import shown

LONGEST = 60  # largest number of characters that a message shows of a value
LARGEST_SIDE = 2**31  # px
WHOLE_NUMBER = re.compile(r"-?(0|[1-9]\d{0,17})(\.0+)?")

Model = TypeVar("Model", bound=BaseModel)


def _whole_number(value: object) -> int:
    """Convert a whole number, written as 1, 1.0 or "1", to int."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str) and WHOLE_NUMBER.fullmatch(value):
        return int(value.partition(".")[0])
    raise ValueError("not a whole number")


def _identifier(value: object) -> int | float | str:
    """Convert an id: whole numbers become int, so that 1 and "1" are the same id."""
    try:
        return _whole_number(value)
    except ValueError:
        if isinstance(value, str | float):
            return value
        raise


def _side(value: object) -> int:
    if not 0 < (side := _whole_number(value)) < LARGEST_SIDE:
        raise ValueError("not the side of an image")
    return side


def _text(value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("not a text")
    return value


def _crowd(value: object) -> bool:
    if value not in (0, 1):
        raise ValueError("neither 0 nor 1")
    return bool(value)


def _scalar(value: object) -> object:
    if isinstance(value, dict | list):
        raise ValueError("not a number")
    return value


def _segmentation_kind(value: object) -> str:
    return "runs" if isinstance(value, dict) else "polygons"


WholeNumber = Annotated[int, PlainValidator(_whole_number)]
Identifier = Annotated[int | float | str, PlainValidator(_identifier)]
Side = Annotated[int, PlainValidator(_side)]
Text = Annotated[str, PlainValidator(_text)]


class RunLengths(BaseModel):
    """Run lengths of a COCO mask, as a list or a compressed string, and the size of the mask (height, width)."""

    size: tuple[WholeNumber, WholeNumber]
    counts: list[WholeNumber] | str


Polygons = list[list[FiniteFloat]]
Segmentation = Annotated[
    Annotated[Polygons, Tag("polygons")] | Annotated[RunLengths, Tag("runs")], Discriminator(_segmentation_kind)
]


class CocoCategory(BaseModel):
    """Entry in the list `categories` of a COCO file."""

    id: WholeNumber = Field(description="a whole number")
    name: Text = Field(description="a text")
    supercategory: Any = None


class CocoImage(BaseModel):
    """Entry in the list `images` of a COCO file."""

    id: Identifier = Field(description="a number or a text")
    file_name: Text = Field(description="a text")
    height: Side = Field(description="a positive whole number")
    width: Side = Field(description="a positive whole number")


class CocoAnnotation(BaseModel):
    """Entry in the list `annotations` of a COCO file."""

    image_id: Identifier = Field(description="a number or a text")
    category_id: WholeNumber = Field(description="a whole number")
    id: Any = "(without id)"
    iscrowd: Annotated[bool, PlainValidator(_crowd)] = Field(False, description="0 for one object or 1 for a crowd")
    segmentation: Segmentation = Field(
        description="polygons [[x, y, x, y, ...], ...] or run lengths {size: [height, width], counts: ...}, because a "
        "box alone does not say which pixels belong to the object"
    )


class LabelMeShape(BaseModel):
    """Entry in the list `shapes` of a LabelMe file."""

    label: Text = Field(description="the name of the class")
    group_id: Annotated[Any, PlainValidator(_scalar)] = Field(None, description="a number")
    shape_type: Any = None
    points: list[tuple[FiniteFloat, FiniteFloat]] = Field(description="a list of [x, y]")
    mask: Any = None


def validated(model: type[Model], content: object, where: str) -> Model:
    """Validate `content` and return it as an instance of `model`.

    Raises
    ------
    LayoutError
        A field is missing or invalid; the message begins with `where`, names the field and its value, and says what
        the field must be.
    """
    try:
        return model.model_validate(content)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        path, value = fault["loc"], shown(fault["input"], LONGEST)
    if not path:
        required = ", ".join(name for name, field in model.model_fields.items() if field.is_required())
        raise LayoutError(f"{where} is {value}, not a JSON object with the fields {required}; correct or remove it")
    state = "is missing" if fault["type"] == "missing" else f"is {value}"
    description = model.model_fields[str(path[0])].description
    raise LayoutError(
        f"{where}: {_joined(path)} {state}; {path[0]} must be {description}; correct or remove this entry"
    )


def valid_items(
    model: type[Model], items: list[Any], where: str, errors: list[str], invalid_ids: set[object]
) -> Iterator[Model]:
    """Yield the valid items; for each invalid item, add a message to `errors` and the id of the item to `invalid_ids`.

    If the id itself is missing or invalid, None is added to `invalid_ids`.
    """
    for number, item in enumerate(items):
        place = f"{where}[{number}]"
        if isinstance(item, dict):
            place += f" (id {shown(item.get('id'), LONGEST)})"
        try:
            yield validated(model, item, place)
        except LayoutError as error:
            errors.append(str(error))
            if isinstance(item, dict):
                invalid_ids.add(_identifier_or_none(item.get("id")))


def _identifier_or_none(value: object) -> int | float | str | None:
    try:
        return _identifier(value)
    except ValueError:
        return None


def _joined(path: tuple[int | str, ...]) -> str:
    """Return the path of a field as text, such as segmentation[0][3], without the tags of pydantic unions."""
    parts = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in path if part not in ("polygons", "runs")]
    return "".join(parts).removeprefix(".")
