"""Predict images with the served model version, one at a time. Before decoding, refuse images that are too large."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, NamedTuple

from segline.data import writers
from segline.model.headers import ImageError
from segline.model.images import decode, encode_png, header
from segline.model.tiling import Source
from segline.serve import invocation
from segline.serve.following import Serving
from segline.serve.invocation import AnswerOptions, Invocation
from segline.serve.refusals import RefusedError
from segline.track.registry import Answer, RegistryError
from segline.track.rows import InMemory

Output = Literal["labels", "instances", "probabilities", "overlay"]


class DecodedImage(NamedTuple):
    """Body of an HTTP response, with its media type."""

    data: bytes
    media_type: str


def picture(serving: Serving, image: bytes, output: Output, views: int, most_pixels: int) -> DecodedImage:
    """Predict an image and return the requested output image; `views` is the number of views to average.

    Raises
    ------
    RefusedError
        The bytes are not an image, or the image is too large or does not fit the model.
    """
    options = AnswerOptions(probabilities=output == "probabilities", views=invocation.check_views(views))
    with _refused():
        _pixels_left(image, most_pixels, most_pixels)
        answer = _answer(serving, image, options)
        if output == "overlay":
            pixels = decode(image)
            return DecodedImage(encode_png(writers.picture(Source.of(pixels), InMemory(answer))), "image/png")
    data = answer.probabilities or (answer.labels if output == "labels" else invocation.instance_image(answer))
    return DecodedImage(data, "image/png" if data.startswith(b"\x89PNG") else "image/tiff")


def predictions(serving: Serving, request: Invocation, most_pixels: int) -> DecodedImage:
    """Predict the images of a request in MLflow's JSON format, and return the results as JSON.

    Raises
    ------
    RefusedError
        As in `picture`; the message gives the number of the image.
    """
    images, options = request
    left, answers = most_pixels, []
    for number, image in enumerate(images):
        with _refused(number):
            left = _pixels_left(image, left, most_pixels)
    for number, image in enumerate(images):
        with _refused(number):
            answers.append(_answer(serving, image, options))
    return DecodedImage(invocation.answer(answers, options), "application/json")


def _pixels_left(image: bytes, left: int, most_pixels: int) -> int:
    """Refuse an image of more than `left` pixels; return the number of pixels left for the later images.

    Raises
    ------
    RefusedError
        The image has more than `left` pixels.
    """
    size = header(io.BytesIO(image))
    if size.height * size.width > left:
        raise RefusedError(
            413,
            f"the image has {size.width} x {size.height} px; the images of one request may have "
            f"{most_pixels / 1e6:g} megapixels in total (option --max-megapixels of the server); `segline predict` "
            "accepts larger images",
        )
    return left - size.height * size.width


def _answer(serving: Serving, image: bytes, options: AnswerOptions) -> Answer:
    return serving.answer(image, views=options.views, probabilities=options.probabilities)


@contextmanager
def _refused(number: int | None = None) -> Iterator[None]:
    """Turn errors about an image into RefusedError; if `number` is given, the message begins with that image number."""
    name = "" if number is None else f"image {number}: "
    try:
        yield
    except RefusedError as error:
        raise RefusedError(error.status, f"{name}{error}") from error
    except (ImageError, RegistryError) as error:
        raise RefusedError(400, name + str(error).removeprefix("image 0: ")) from error
    except MemoryError:
        raise RefusedError(
            413, f"{name}the image needs more memory than the server has; cut it into smaller images"
        ) from None
