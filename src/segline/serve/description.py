"""What the server says of itself: health, version, and why it refuses."""

from typing import Any

import pydantic

from segline.model.tiling import VIEWS
from segline.serve.following import Follower


class Health(pydantic.BaseModel):
    """``status`` is ok, or degraded where the version that answers may not be the one that should."""

    status: str
    model: str
    version: str
    checked: str
    problem: str | None


class Version(pydantic.BaseModel):
    """The version that answers."""

    name: str
    version: str
    aliases: list[str]
    md5: str | None
    address: str


class Refusal(pydantic.BaseModel):
    """Why a request was not answered."""

    error_code: str
    message: str


def health(follower: Follower) -> Health:
    """The health of what `follower` holds."""
    serving, problem = follower.serving, follower.problem
    status = "degraded" if problem else "ok"
    return Health(status=status, model=serving.name, version=serving.number, checked=follower.checked, problem=problem)


def version(follower: Follower) -> Version:
    """The version that `follower` holds."""
    serving = follower.serving
    return Version(
        name=serving.name,
        version=serving.number,
        aliases=list(follower.aliases),
        md5=serving.tags.get("version.md5"),
        address=follower.address,
    )


INTERFACE = "1"  # version of what is described here
BASE64 = {"type": "string", "contentEncoding": "base64", "description": "the bytes of an image file"}
BINARY = {"type": "string", "format": "binary"}


def _object(required: dict[str, Any], **optional: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {**required, **optional},
        "required": list(required),
        "additionalProperties": False,
    }


_ROW = {"type": "array", "items": BASE64, "minItems": 1, "maxItems": 1}
_COLUMN = {"type": "array", "items": BASE64}
_NAMES = {"type": "array", "items": {"type": "string"}}
_SPLIT = _object({"data": {"type": "array", "items": _ROW}}, columns=_NAMES, index={"type": "array"})
_RECORDS = {"type": "array", "items": _object({"image": BASE64})}
_PARAMS = _object(
    {},
    instances={"type": "boolean", "description": "instance ids beside the labels"},
    probabilities={"type": "boolean", "description": "class probabilities beside the labels"},
    views={"type": "integer", "enum": [0, *VIEWS], "description": "to average; 0: as the model was judged"},
)
_ASKED = [
    _object({"dataframe_split": _SPLIT}, params=_PARAMS),
    _object({"dataframe_records": _RECORDS}, params=_PARAMS),
    _object({"instances": _COLUMN}, params=_PARAMS),
    _object({"inputs": _COLUMN}, params=_PARAMS),
]
_PREDICTIONS = {"type": "array", "items": _object({"labels": BASE64}, instances=BASE64, probabilities=BASE64)}
_IMAGES = ("image/png", "image/jpeg", "image/bmp", "image/tiff", "image/gif", "image/jp2")

ASKED: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {"schema": _object({"file": BINARY})},
            "application/json": {"schema": {"oneOf": _ASKED}},
            **{kind: {"schema": BINARY} for kind in _IMAGES},
        },
    }
}
REFUSED: dict[int | str, dict[str, Any]] = {"4XX": {"model": Refusal, "description": "refused, with the reason"}}
ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "label images: of an image as an image, of JSON as JSON",
        "headers": {
            "Model-Version": {
                "schema": {"type": "string"},
                "description": "NAME/NUMBER, the name percent-encoded (UTF-8)",
            }
        },
        "content": {
            "image/png": {"schema": BINARY},
            "image/tiff": {"schema": BINARY},
            "application/json": {"schema": _object({"predictions": _PREDICTIONS})},
        },
    },
    **REFUSED,
}
