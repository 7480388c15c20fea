"""Make albumentations transforms from their names and arguments, as listed in the setting `augment.extra`.

albumentations is imported only when a list has transforms, because the import takes seconds.
"""

import random
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from segline.text import MESSAGE, cut, shown

if TYPE_CHECKING:
    from albumentations import BasicTransform, Compose

Entry = Mapping[str, Mapping[str, Any]]  # one transform: its name -> its arguments
Pixels = npt.NDArray[Any]
SEEDS = 3  # number of times that `probe` applies a transform to an image
EIGHT_BITS = 256  # an image with at most this many values may come from an 8-bit image


class TransformError(ValueError):
    """Raised if a transform does not exist, has invalid arguments or cannot be used for the images of a dataset."""


def checked(entries: object) -> tuple[Entry, ...]:
    """Return a list of transforms as read from YAML. A transform without arguments may be written as `NAME:`.

    Raises
    ------
    TransformError
        An entry is not written as NAME: {ARGUMENT: VALUE}, or `compose` refuses it.
    """
    if not isinstance(entries, list | tuple):
        raise TransformError("write a list of transforms, each as NAME: {ARGUMENT: VALUE}")
    complete: list[Entry] = []
    for entry in entries:
        arguments = next(iter(entry.values())) if isinstance(entry, Mapping) and len(entry) == 1 else ()
        if not isinstance(arguments, Mapping | None):
            raise TransformError(f"{shown(entry)}: write each transform as NAME: {{ARGUMENT: VALUE}}")
        complete.append({str(name): arguments or {} for name in entry})
    compose(complete)
    return tuple(complete)


def compose(entries: Sequence[Entry]) -> "Compose":
    """Return the transforms of `entries` as one albumentations transform, which applies them in this order.

    Raises
    ------
    TransformError
        A name or an argument is invalid, or a transform does not change pixel values only.
    """
    import albumentations

    return albumentations.Compose(
        [_transform(name, arguments) for entry in entries for name, arguments in entry.items()]
    )


def _transform(name: str, arguments: Mapping[str, Any]) -> "BasicTransform":
    import albumentations
    from albumentations.augmentations.dropout.transforms import BaseDropout
    from albumentations.core.transforms_interface import ImageOnlyTransform

    kind = getattr(albumentations, name, None)
    bases = (ImageOnlyTransform, BaseDropout, albumentations.PixelDropout)
    if not (isinstance(kind, type) and issubclass(kind, albumentations.BasicTransform)) or kind in bases[:2]:
        raise TransformError(f"{shown(name)} is not a transform of albumentations {albumentations.__version__}")
    if not issubclass(kind, bases):
        raise TransformError(
            f"{name} may move pixels, so that labels would not fit the image; remove it. The other settings of augment "
            "mirror, rotate, zoom and deform"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # albumentations only warns of an unknown argument, and uses its default
        try:
            transform = kind(**arguments)
        except (ValueError, TypeError, Warning) as error:
            raise TransformError(f"{name}: {_problem(error)}") from error
    if needed := ", ".join(transform.targets_as_params):
        raise TransformError(f"{name} needs {needed}, which segline cannot supply; remove {name} from augment.extra")
    return transform


def _problem(error: Exception) -> str:
    """Return the message of an albumentations error as a single line."""
    if isinstance(error.__cause__, ValidationError):
        faults = {".".join(map(str, fault["loc"][:1])): fault["msg"] for fault in reversed(error.__cause__.errors())}
        lines = [f"{argument}: {message}" if argument else message for argument, message in faults.items()]
        return "; ".join(lines).replace("Value error, ", "")
    return cut(" ".join(str(error).split()), MESSAGE)


def applied(transform: "Compose", image: Pixels, seed: int) -> Pixels:
    """Return `image` (H, W, C), changed by a transform. `seed` determines all random choices.

    `Compose.set_random_seed` would give every transform the same random numbers, so that transforms of equal
    probability would always be applied together. Here all transforms share one generator.

    Raises
    ------
    TransformError
        A transform fails for this image.
    """
    transform.set_random_state(np.random.default_rng(seed), random.Random(seed))
    try:
        changed: Pixels = transform(image=image)["image"]
    except Exception as error:  # albumentations raises errors of many classes
        raise TransformError(
            f"augment.extra: a transform failed for a tile; remove this transform: {_problem(error)}"
        ) from error
    return changed


def probe(entries: Sequence[Entry], dtype: str, channels: int, side: int) -> None:
    """Apply each transform to some images with sides of `side` px, as it will be applied to tiles.

    Raises
    ------
    TransformError
        A transform fails, has no effect, changes the type or the shape, gives values outside the range of the type,
        reduces 16 bits to 8 bits, or gives different results for equal seeds.
    """
    import albumentations

    if dtype == "float32":
        raise TransformError(
            "augment.extra cannot be used for float32 images, because albumentations clips their values to 0 ... 1; "
            "set augment.extra to []"
        )
    for entry in entries:
        ((name, arguments),) = entry.items()
        transform = _transform(name, arguments)
        transform.p = 1.0
        start = f"augment.extra: {name} cannot be used for {dtype} images with {channels} channel(s)"
        pipeline = albumentations.Compose([transform])
        images = list(_examples(dtype, channels, side))
        # Try every image: a transform may change one image and fail on another.
        changes = [_changes(pipeline, image, seed, start) for image in images for seed in range(SEEDS)]
        if not any(changes):
            raise TransformError(f"{start}, because it has no effect; remove it")


def _changes(pipeline: "Compose", image: Pixels, seed: int, start: str) -> bool:
    """Return whether `pipeline` changes `image`; raise TransformError if the result cannot be used.

    `start` is the beginning of the error message.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            first, second = (applied(pipeline, image.copy(), seed) for _ in range(2))
        except TransformError as error:
            why = _problem(error.__cause__ or error)  # type: ignore[arg-type]  # caught as an Exception
            raise TransformError(f"{start}; remove it. albumentations says: {why}") from error
    if fault := _fault(image, first, second):
        raise TransformError(f"{start}, because {fault}; remove it")
    return not np.array_equal(first, image)


def _examples(dtype: str, channels: int, side: int) -> Iterator[Pixels]:
    """Yield images of random values, of one value, and with a ramp of dark values, in the type that transforms get."""
    rng = np.random.default_rng(0)
    shape = (side, side, channels)
    ramp = np.broadcast_to(np.linspace(0, 1 / 16, side * side, dtype=np.float32).reshape(side, side, 1), shape)
    for image in (rng.random(shape, np.float32), *(np.full(shape, value, np.float32) for value in (0, 0.5, 1)), ramp):
        yield (image * 255).astype(np.uint8) if dtype == "uint8" else np.ascontiguousarray(image)


def _fault(image: Pixels, first: Pixels, second: Pixels) -> str:
    """Check two results for `image` and the same seed; return a description of the first fault, or an empty string."""
    if first.shape != image.shape or first.dtype != image.dtype:
        return "it changes the type or the shape"
    if not np.array_equal(first, second):
        return "equal seeds give different results"
    if image.dtype == np.uint8:
        return ""
    if not (np.isfinite(first).all() and first.min() >= -1e-3 and first.max() <= 1 + 1e-3):
        return "its results are outside the range of the images"
    if np.unique(first).size <= EIGHT_BITS < np.unique(image).size:
        return "it reduces 16 bits to 8 bits"
    return ""
