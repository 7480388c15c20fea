"""MLflow's JSON: the images in a request, in each of its four forms, and the answer to them."""

from collections.abc import Iterable
from typing import Any, NamedTuple

from segline.model.images import ImageError
from segline.model.served import to_bytes
from segline.model.tiling import VIEWS
from segline.serve import texts
from segline.serve.refused import RefusedError
from segline.track.registry import Answer

FORMS = ("dataframe_split", "dataframe_records", "instances", "inputs")
IMAGES = 1000  # in one request


class Asked(NamedTuple):
    """What is asked of each image beside its labels, and by how many views, 0 for the version's own number."""

    instances: bool = False
    probabilities: bool = False
    views: int = 0


class Invocation(NamedTuple):
    """What a request asks for."""

    images: list[bytes]
    asked: Asked


def parse(body: bytes | bytearray) -> Invocation:
    """What the JSON `body` asks for.

    Raises
    ------
    RefusedError
        It is not as MLflow defines it, or an image in it is no base64 text.
    """
    document = texts.Document(body)
    content = document.content
    if not isinstance(content, dict):
        raise RefusedError(
            400, f"a JSON object with one of {', '.join(FORMS)} is needed, not a {type(content).__name__}"
        )
    forms = sorted(set(content) & set(FORMS))
    if len(forms) != 1 or set(content) - {*forms, "params"}:
        raise RefusedError(400, f"an object with exactly one of {', '.join(FORMS)} is needed, and params where wanted")
    rows = _rows(forms[0], content[forms[0]])
    if len(rows) > IMAGES:
        raise RefusedError(413, f"{len(rows)} images, and one request may bring {IMAGES}")
    return Invocation([_image(number, row, document) for number, row in enumerate(rows)], _asked(content.get("params")))


def answer(answers: Iterable[Answer], asked: Asked) -> bytes:
    """What MLflow's own server would say: a record an image, its label image as base64 text, and what else is asked.

    It is written piece by piece, as json.dumps holds Python's lock for as long as a large text takes.
    """
    records = []
    for each in answers:
        images = {"labels": each.labels}
        if asked.instances:
            images["instances"] = instance_image(each)
        if each.probabilities is not None:
            images["probabilities"] = each.probabilities
        entries = [b"".join([b'"', name.encode(), b'": "', *texts.encode(data), b'"']) for name, data in images.items()]
        records.append(b"{" + b", ".join(entries) + b"}")
    return b'{"predictions": [' + b", ".join(records) + b"]}"


def instance_image(answer: Answer) -> bytes:
    """The image of instance ids; RefusedError where the model has none to give."""
    if answer.instances is None:
        raise RefusedError(400, "this model was registered by a segline that knew no instances; ask for labels")
    return answer.instances


def _rows(form: str, content: Any) -> list[Any]:
    """The images as they were sent, one a row."""
    match form, content:
        case "dataframe_split", {"data": list(rows)}:
            return [_only(row, list) for row in rows]
        case "dataframe_records", list(rows):
            return [_only(row, dict) for row in rows]
        case (("instances" | "inputs"), list(rows)):
            return [_only(row, list, dict, str) for row in rows]
        case "inputs", str(text):
            return [text]
        case "inputs", dict(columns) if len(columns) == 1:
            (column,) = columns.values()
            return [_only(row, list, str) for row in column] if isinstance(column, list) else [column]
    raise RefusedError(400, f"{form} is not as MLflow defines it; docs/serve.md shows each form")


def _only(row: Any, *kinds: type[list[Any] | dict[str, Any] | str]) -> Any:
    """The one entry of a row."""
    if isinstance(row, kinds):
        if isinstance(row, str):
            return row
        entries: list[Any] = list(row.values() if isinstance(row, dict) else row)
        if len(entries) == 1:
            return entries[0]
    raise RefusedError(
        400, "each row is one image: one base64 text, in a list or object of its own where the form wants it"
    )


def _image(number: int, entry: Any, document: texts.Document) -> bytes:
    try:
        long_text = document.decode(entry) if isinstance(entry, str) else None
        return to_bytes(entry) if long_text is None else long_text
    except ImageError as error:
        raise RefusedError(400, f"image {number}: {error}") from error
    except ValueError:
        raise RefusedError(400, f"image {number}: text that is no base64 of the bytes of an image file") from None


def _asked(params: Any) -> Asked:
    """What `params` ask for, None for nothing."""
    if params is None:
        return Asked()
    if not isinstance(params, dict) or set(params) - set(Asked._fields):
        raise RefusedError(400, f"params is an object, and knows nothing but {', '.join(Asked._fields)}")
    asked = Asked(**params)
    for name, flag in (("instances", asked.instances), ("probabilities", asked.probabilities)):
        if not isinstance(flag, bool):
            raise RefusedError(400, f"params.{name} is true or false")
    return asked._replace(views=known_views(asked.views))


def known_views(views: Any) -> int:
    """A number of views that there is; RefusedError for any other."""
    if type(views) is not int or views not in (0, *VIEWS):
        raise RefusedError(
            400, f"views is one of {', '.join(map(str, VIEWS))}, or 0 for what the model was judged with"
        )
    return views
