"""Images to answers, one at a time: what is larger than allowed is refused before it is decoded."""

import io
import json
from typing import Literal, NamedTuple

from segline.model.headers import ImageError
from segline.model.images import decode, encode_png, header
from segline.score.overlay import overlay
from segline.serve import invocation
from segline.serve.following import Serving
from segline.serve.refused import RefusedError
from segline.track.registry import Answer, RegistryError

Output = Literal["labels", "instances", "overlay"]


class Content(NamedTuple):
    """The body of an answer."""

    data: bytes
    media_type: str


def picture(serving: Serving, image: bytes, output: Output, most_pixels: int) -> Content:
    """The answer to one image, as an image.

    Raises
    ------
    RefusedError
        The bytes are no image, or one that is too large or does not suit the model.
    """
    said = _answer(serving, image, most_pixels)
    if output == "overlay":
        objects = None if said.instances is None else decode(said.instances)[..., 0]
        return Content(encode_png(overlay(decode(image), decode(said.labels)[..., 0], objects=objects)), "image/png")
    data = said.labels if output == "labels" else invocation.instance_image(said)
    return Content(data, "image/png" if data.startswith(b"\x89PNG") else "image/tiff")


def predictions(serving: Serving, body: bytes, most_pixels: int) -> Content:
    """The answer to MLflow's JSON, as JSON; RefusedError as in `picture`, with the number of the image."""
    asked = invocation.parse(body)
    answers = []
    for number, image in enumerate(asked.images):
        try:
            answers.append(_answer(serving, image, most_pixels))
        except RefusedError as error:
            raise RefusedError(error.status, f"image {number}: {error}") from error
    said = invocation.answer(answers, asked.instances)
    return Content(json.dumps(said).encode(), "application/json")


def _answer(serving: Serving, image: bytes, most_pixels: int) -> Answer:
    try:
        said = header(io.BytesIO(image))
        if said.height * said.width > most_pixels:
            raise RefusedError(
                413,
                f"an image of {said.width} x {said.height} px, more than {most_pixels / 1e6:g} megapixels; "
                "--max-megapixels of the server sets that, and `segline predict` takes larger ones",
            )
        return serving.answer(image)
    except ImageError as error:
        raise RefusedError(400, str(error)) from error
    except RegistryError as error:
        raise RefusedError(400, str(error).removeprefix("image 0: ")) from error
    except MemoryError:
        raise RefusedError(413, "an image that needs more memory than there is; cut it") from None
