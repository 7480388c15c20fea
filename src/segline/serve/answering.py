"""Images to answers, one at a time: what is larger than allowed is refused before it is decoded."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, NamedTuple

from segline.model.headers import ImageError
from segline.model.images import decode, encode_png, header
from segline.score.overlay import overlay
from segline.serve import invocation
from segline.serve.following import Serving
from segline.serve.invocation import Invocation, Options
from segline.serve.refusals import RefusedError
from segline.track.registry import Answer, RegistryError

Output = Literal["labels", "instances", "probabilities", "overlay"]


class Content(NamedTuple):
    """The body of an answer."""

    data: bytes
    media_type: str


def picture(serving: Serving, image: bytes, output: Output, views: int, most_pixels: int) -> Content:
    """The answer to one image by that many views, as an image.

    Raises
    ------
    RefusedError
        The bytes are no image, or one that is too large or does not suit the model.
    """
    asked = Options(probabilities=output == "probabilities", views=invocation.check_views(views))
    with _refused():
        _room_after(image, most_pixels, most_pixels)
        said = _answer(serving, image, asked)
    if output == "overlay":
        return Content(_overlay(image, said), "image/png")
    data = said.probabilities or (said.labels if output == "labels" else invocation.instance_image(said))
    return Content(data, "image/png" if data.startswith(b"\x89PNG") else "image/tiff")


def _overlay(image: bytes, said: Answer) -> bytes:
    """A PNG of the outlines of what is seen in `image`; RefusedError where both are not of one size."""
    pixels, labels = decode(image), decode(said.labels)[..., 0]
    if pixels.shape[:2] != labels.shape:
        raise RefusedError(
            400, "the version does not turn images upright, as their orientation notes say; ask for labels"
        )
    objects = None if said.instances is None else decode(said.instances)[..., 0]
    return encode_png(overlay(pixels, labels, objects=objects))


def predictions(serving: Serving, asked_for: Invocation, most_pixels: int) -> Content:
    """The answer to MLflow's JSON, as JSON; RefusedError as in `picture`, with the number of the image."""
    images, asked = asked_for
    room, answers = most_pixels, []
    for number, image in enumerate(images):
        with _refused(number):
            room = _room_after(image, room, most_pixels)
    for number, image in enumerate(images):
        with _refused(number):
            answers.append(_answer(serving, image, asked))
    return Content(invocation.answer(answers, asked), "application/json")


def _room_after(image: bytes, room: int, most_pixels: int) -> int:
    """Of `room` pixels, those that an image leaves; RefusedError where it has more."""
    said = header(io.BytesIO(image))
    if said.height * said.width > room:
        raise RefusedError(
            413,
            f"an image of {said.width} x {said.height} px; all images of a request may have {most_pixels / 1e6:g} "
            "megapixels together, as --max-megapixels of the server says; `segline predict` takes larger ones",
        )
    return room - said.height * said.width


def _answer(serving: Serving, image: bytes, asked: Options) -> Answer:
    return serving.answer(image, views=asked.views, probabilities=asked.probabilities)


@contextmanager
def _refused(number: int | None = None) -> Iterator[None]:
    """Refuse what is wrong with an image; where there may be several, its number is named."""
    name = "" if number is None else f"image {number}: "
    try:
        yield
    except RefusedError as error:
        raise RefusedError(error.status, f"{name}{error}") from error
    except (ImageError, RegistryError) as error:
        raise RefusedError(400, name + str(error).removeprefix("image 0: ")) from error
    except MemoryError:
        raise RefusedError(413, f"{name}an image that needs more memory than there is; cut it") from None
