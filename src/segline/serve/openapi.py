"""OpenAPI description of the requests and responses of `/invocations`, including refusals."""

from typing import Any

import pydantic

from segline.model.tiling import VIEWS

API_VERSION = "1"  # version of the interface that is described here
BASE64 = {"type": "string", "contentEncoding": "base64", "description": "bytes of an image file"}
BINARY = {"type": "string", "format": "binary"}


class Refusal(pydantic.BaseModel):
    """Reason why a request was refused."""

    error_code: str
    message: str


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
    instances={"type": "boolean", "description": "also return instance ids"},
    probabilities={"type": "boolean", "description": "also return class probabilities"},
    views={
        "type": "integer",
        "enum": [0, *VIEWS],
        "description": "number of rotations and mirrorings to average; 0 for the number used in the model's evaluation",
    },
)
_INVOCATIONS = [
    _object({"dataframe_split": _SPLIT}, params=_PARAMS),
    _object({"dataframe_records": _RECORDS}, params=_PARAMS),
    _object({"instances": _COLUMN}, params=_PARAMS),
    _object({"inputs": _COLUMN}, params=_PARAMS),
]
_PREDICTIONS = {"type": "array", "items": _object({"labels": BASE64}, instances=BASE64, probabilities=BASE64)}
_IMAGES = ("image/png", "image/jpeg", "image/bmp", "image/tiff", "image/gif", "image/jp2")

REQUEST: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {"schema": _object({"file": BINARY})},
            "application/json": {"schema": {"oneOf": _INVOCATIONS}},
            **{image_type: {"schema": BINARY} for image_type in _IMAGES},
        },
    }
}
RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "label images; the response to an image or a form is an image, the response to JSON is JSON",
        "headers": {
            "Model-Version": {
                "schema": {"type": "string"},
                "description": "NAME/NUMBER of the version that answered; the name is percent-encoded (UTF-8)",
            }
        },
        "content": {
            "image/png": {"schema": BINARY},
            "image/tiff": {"schema": BINARY},
            "application/json": {"schema": _object({"predictions": _PREDICTIONS})},
        },
    },
    "4XX": {"model": Refusal, "description": "the request was refused; the message gives the reason"},
}
