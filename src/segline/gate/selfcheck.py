"""What a packed model is relied on for: it repeats its example, alone and among others, at any size, in time."""

import time
from collections.abc import Callable, Iterator, Sequence
from statistics import median

from segline.model.images import decode
from segline.params import Gate
from segline.track import packaging
from segline.track.answers import Loaded
from segline.track.verdict import Check, Verdict, at_least, at_most

TIMES = 3  # answers that are timed, after those that warm it up


def check(model: Loaded, images: Sequence[bytes], gate: Gate) -> Verdict:
    """Judge a model by itself.

    Parameters
    ----------
    images
        Encoded images of the kind it knows; a few small ones do.

    Raises
    ------
    RegistryError
        Its package holds no example.
    """
    example = model.example
    asked: dict[str, Callable[[], Iterator[Check]]] = {
        "example": lambda: _example(model, gate),
        "batch": lambda: _batch(model, [example.image, *images]),
        "odd size": lambda: _odd_size(model, example.image),
    }
    checks: list[Check] = []
    for name, measure in asked.items():
        try:
            checks += measure()
        except Exception as error:  # whatever the code in its package raises
            checks.append(Check(name, None, 0, passed=False, detail=f"{type(error).__name__}: {error}"))
    if gate.max_megabytes:
        checks.append(at_most("megabytes", model.size / 1e6, gate.max_megabytes, "all files of the package"))
    return Verdict(tuple(checks))


def _example(model: Loaded, gate: Gate) -> Iterator[Check]:
    """Its example, whether answered as stored, and how fast."""
    image, expected = model.example
    found = model(image)
    share = packaging.other_pixels(found.labels, expected.labels)
    yield at_most("example: share of pixels unlike the stored answer", share, packaging.TOLERANCE)
    if found.instances and expected.instances:
        objects = packaging.matched_objects(found.instances, expected.instances)
        most = packaging.most_other(objects)
        yield at_most("example: objects unlike the stored answer", objects.fp + objects.fn, most)
    if gate.max_seconds:
        seconds = median(_timed(model, image) for _ in range(TIMES))
        yield at_most("seconds to answer the example", seconds, gate.max_seconds, f"median of {TIMES}")


def _batch(model: Loaded, images: Sequence[bytes]) -> Iterator[Check]:
    """Images asked for together, whether answered as one by one."""
    together = model.each(images)
    other = sum(one != model(image) for one, image in zip(together, images, strict=True))
    yield at_most("batch: answers unlike those one by one", other, 0, f"{len(images)} images in one call")


def _odd_size(model: Loaded, image: bytes) -> Iterator[Check]:
    """A part of the image with odd sides, whether answered in full."""
    raw = decode(image)
    height, width = (max(1, side - 1 - side % 2) for side in raw.shape[:2])
    answered = decode(model(packaging.encode(raw[:height, :width])).labels).shape[:2] == (height, width)
    yield at_least("odd size: images answered in their size", int(answered), 1, f"{height} x {width} px")


def _timed(model: Loaded, image: bytes) -> float:
    began = time.perf_counter()
    model(image)
    return time.perf_counter() - began
