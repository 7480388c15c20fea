"""Make albumentations transforms from their names and arguments, as listed in the setting `augment.extra`.

albumentations is imported only when a list has transforms, because the import takes seconds.
"""

import random
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from segline.text import MESSAGE, cut, shown

if TYPE_CHECKING:
    from albumentations import Compose

Entry = Mapping[str, Mapping[str, Any]]  # one transform: its name -> its arguments
PROBE = 64  # px, side of the image on which `probe` tries a transform


class TransformError(ValueError):
    """Raised if a transform does not exist, has invalid arguments or cannot change the images of a dataset."""


def compose(entries: Sequence[Entry]) -> "Compose":
    """Return the transforms of `entries` as one albumentations transform, which applies them in this order.

    Raises
    ------
    TransformError
        A name or an argument is invalid, or a transform moves pixels.
    """
    import albumentations

    return albumentations.Compose([_transform(entry) for entry in entries], strict=True)


def _transform(entry: Entry) -> Any:
    import albumentations
    from albumentations.augmentations.dropout.transforms import BaseDropout
    from albumentations.core.transforms_interface import ImageOnlyTransform

    if len(entry) != 1:
        raise TransformError(f"{shown(dict(entry))}: write each transform as NAME: {{ARGUMENT: VALUE}}")
    ((name, arguments),) = entry.items()
    kind = getattr(albumentations, name, None)
    if not (isinstance(kind, type) and issubclass(kind, albumentations.BasicTransform)):
        raise TransformError(f"{shown(name)} is not a transform of albumentations {albumentations.__version__}")
    if not issubclass(kind, (ImageOnlyTransform, BaseDropout)):
        raise TransformError(
            f"{name} moves pixels, so labels would not fit the image; remove it, because the other settings of "
            "augment already mirror, rotate, zoom and deform"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # albumentations only warns of an unknown argument, and uses its default
        try:
            return kind(**arguments)
        except (ValueError, TypeError, Warning) as error:
            raise TransformError(f"{name}: {_problem(error)}") from error


def _problem(error: Exception) -> str:
    """Return the message of an error of albumentations on one line."""
    if isinstance(error.__cause__, ValidationError):
        problems = {str(fault["loc"][0]): fault["msg"] for fault in reversed(error.__cause__.errors())}
        return "; ".join(f"{argument}: {message}" for argument, message in problems.items())
    return cut(" ".join(str(error).split()), MESSAGE)


def applied(transform: "Compose", image: npt.NDArray[Any], seed: int) -> npt.NDArray[Any]:
    """Return `image` (H, W, C), changed by a transform. `seed` determines all random choices.

    `Compose.set_random_seed` would give every transform the same random numbers, so that transforms of equal
    probability would always be applied together. Here all transforms share one generator.
    """
    transform.set_random_state(np.random.default_rng(seed), random.Random(seed))
    changed: npt.NDArray[Any] = transform(image=image)["image"]
    return changed


def probe(entries: Sequence[Entry], dtype: str, channels: int) -> None:
    """Apply each transform to an image of random values, as `segline.data.tile_sampler` applies it to tiles.

    Raises
    ------
    TransformError
        A transform fails or has no effect with this data type or number of channels, changes the type or the shape, or
        gives different results for equal seeds.
    """
    import albumentations

    if dtype == "float32":
        raise TransformError(
            "augment.extra cannot be used for float32 images, because albumentations clips their values to 0 ... 1; "
            "set augment.extra to []"
        )
    image: npt.NDArray[Any] = np.random.default_rng(0).random((PROBE, PROBE, channels), np.float32)
    if dtype == "uint8":
        image = (image * 255).astype(np.uint8)
    for entry in entries:
        (name,) = entry
        start = f"augment.extra: {name} cannot be used for {dtype} images with {channels} channel(s)"
        transform = _transform(entry)
        transform.p = 1.0
        pipeline = albumentations.Compose([transform])
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            try:
                first, second = (applied(pipeline, image.copy(), 0) for _ in range(2))
            except Exception as error:  # albumentations raises errors of many classes
                raise TransformError(f"{start}; remove it. albumentations says: {_problem(error)}") from error
        if first.shape != image.shape or first.dtype != image.dtype:
            raise TransformError(f"{start}, because it changes the type or the shape; remove it")
        if not np.array_equal(first, second):
            raise TransformError(f"{start}, because equal seeds give different results; remove it")
