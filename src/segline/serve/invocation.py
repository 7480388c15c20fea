"""MLflow's JSON format: parse the images and options of a request, and write the response."""

from collections.abc import Iterable
from typing import Any, NamedTuple

from segline.model.images import ImageError
from segline.model.served import to_bytes
from segline.model.tiling import VIEWS
from segline.serve import base64_json
from segline.serve.refusals import RefusedError
from segline.track.registry import Answer

FORMATS = ("dataframe_split", "dataframe_records", "instances", "inputs")
MAX_IMAGES = 1000  # images in one request


class AnswerOptions(NamedTuple):
    """Options of a request: images to return besides the label image, and the number of views to average.

    A `views` of 0 stands for the number that the model was evaluated with.
    """

    instances: bool = False
    probabilities: bool = False
    views: int = 0


class Invocation(NamedTuple):
    """Images of a request, as bytes of image files, and the options of the request."""

    images: list[bytes]
    options: AnswerOptions


def parse(body: bytes | bytearray) -> Invocation:
    """Parse the JSON `body` of a request.

    Raises
    ------
    RefusedError
        The body does not have a format that MLflow defines, or an image in it is not valid base64.
    """
    document = base64_json.Document(body)
    content = document.content
    if not isinstance(content, dict):
        expected = f"a JSON object with one of {', '.join(FORMATS)}"
        raise RefusedError(400, f"the body must be {expected}, not a value of type {type(content).__name__}")
    formats = sorted(set(content) & set(FORMATS))
    if len(formats) != 1 or set(content) - {*formats, "params"}:
        raise RefusedError(
            400,
            f"the JSON object must have exactly one of the fields {', '.join(FORMATS)}, and may have the field params",
        )
    rows = _rows(formats[0], content[formats[0]])
    if len(rows) > MAX_IMAGES:
        raise RefusedError(413, f"the request has {len(rows)} images; send at most {MAX_IMAGES} per request")
    options = _options(content.get("params"))
    return Invocation([_image(number, row, document) for number, row in enumerate(rows)], options)


def answer(answers: Iterable[Answer], options: AnswerOptions) -> bytes:
    """Return the JSON that MLflow's own server would send: one record per image, with image files in base64.

    The JSON is joined from pieces, because json.dumps of a long string holds Python's lock.
    """
    records = []
    for image_answer in answers:
        images = {"labels": image_answer.labels}
        if options.instances:
            images["instances"] = instance_image(image_answer)
        if image_answer.probabilities is not None:
            images["probabilities"] = image_answer.probabilities
        entries = [
            b"".join([b'"', name.encode(), b'": "', *base64_json.encode(data), b'"']) for name, data in images.items()
        ]
        records.append(b"{" + b", ".join(entries) + b"}")
    return b'{"predictions": [' + b", ".join(records) + b"]}"


def instance_image(answer: Answer) -> bytes:
    """Return the image of instance ids; raise RefusedError if the model does not return instances."""
    if answer.instances is None:
        reason = "the model was registered by a version of segline without instances"
        raise RefusedError(400, f"{reason}; request labels instead")
    return answer.instances


def check_views(views: Any) -> int:
    """Return `views` if it is a supported number of views; raise RefusedError otherwise."""
    if type(views) is not int or views not in (0, *VIEWS):
        supported = ", ".join(map(str, VIEWS))
        raise RefusedError(400, f"views must be one of {supported}, or 0 for the number used in the model's evaluation")
    return views


def _rows(name: str, content: Any) -> list[Any]:
    """Return one entry per image from `content`, which has the JSON format `name`, such as dataframe_split."""
    match name, content:
        case "dataframe_split", {"data": list(rows)}:
            return [_only_entry(row, list) for row in rows]
        case "dataframe_records", list(rows):
            return [_only_entry(row, dict) for row in rows]
        case (("instances" | "inputs"), list(rows)):
            return [_only_entry(row, list, dict, str) for row in rows]
        case "inputs", str(image):
            return [image]
        case "inputs", dict(columns) if len(columns) == 1:
            (column,) = columns.values()
            return [_only_entry(row, list, str) for row in column] if isinstance(column, list) else [column]
    raise RefusedError(
        400, f"the field {name} does not have the format that MLflow defines; docs/serve.md shows each format"
    )


def _only_entry(row: Any, *kinds: type[list[Any] | dict[str, Any] | str]) -> Any:
    """Return the only entry of a row, or the row itself if the row is a string."""
    if isinstance(row, kinds):
        if isinstance(row, str):
            return row
        entries: list[Any] = list(row.values() if isinstance(row, dict) else row)
        if len(entries) == 1:
            return entries[0]
    raise RefusedError(400, "each row must hold one image as one base64 string; docs/serve.md shows each format")


def _image(number: int, entry: Any, document: base64_json.Document) -> bytes:
    try:
        long_string = document.decode(entry) if isinstance(entry, str) else None
        return to_bytes(entry) if long_string is None else long_string
    except ImageError as error:
        raise RefusedError(400, f"image {number}: {error}") from error
    except ValueError:
        raise RefusedError(400, f"image {number}: the string is not valid base64 of an image file") from None


def _options(params: Any) -> AnswerOptions:
    """Check `params` and return the options; return the default options if `params` is None."""
    if params is None:
        return AnswerOptions()
    if not isinstance(params, dict) or set(params) - set(AnswerOptions._fields):
        raise RefusedError(400, f"params must be an object; its allowed fields are {', '.join(AnswerOptions._fields)}")
    options = AnswerOptions(**params)
    for name, flag in (("instances", options.instances), ("probabilities", options.probabilities)):
        if not isinstance(flag, bool):
            raise RefusedError(400, f"params.{name} must be true or false")
    return options._replace(views=check_views(options.views))
