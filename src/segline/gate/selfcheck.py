"""Self-check of a packed model: stored example, batches, images of odd height and width, speed and package size."""

import time
from collections.abc import Callable, Iterator, Sequence
from statistics import median

from segline.model.images import decode
from segline.params import Gate
from segline.track import packaging
from segline.track.answers import Loaded
from segline.track.verdict import Check, Verdict, at_least, at_most

TIMES = 3  # number of timed predictions; earlier predictions have warmed the model up


def check(model: Loaded, images: Sequence[bytes], gate: Gate) -> Verdict:
    """Check a packed model: stored example, batches, images of odd height and width, speed and package size.

    Parameters
    ----------
    images
        A few small encoded images that the model accepts.

    Raises
    ------
    RegistryError
        The model's package holds no example.
    """
    example = model.example
    measures: dict[str, Callable[[], Iterator[Check]]] = {
        "example": lambda: _example(model, gate),
        "batch": lambda: _batch(model, [example.image, *images]),
        "odd size": lambda: _odd_size(model, example.image),
    }
    checks: list[Check] = []
    for name, measure in measures.items():
        try:
            checks += measure()
        except Exception as error:  # the code in the package may raise any error
            checks.append(Check(name, None, 0, passed=False, detail=f"{type(error).__name__}: {error}"))
    if gate.max_megabytes:
        size = model.size / 1e6
        checks.append(
            at_most("megabytes", size, gate.max_megabytes, "all files of the package", setting="gate.max_megabytes")
        )
    return Verdict(tuple(checks))


def _example(model: Loaded, gate: Gate) -> Iterator[Check]:
    """Predict the stored example image, compare the result with the stored prediction, and measure the speed."""
    image, expected = model.example
    answer = model(image)
    share = packaging.other_pixels(answer.labels, expected.labels)
    yield at_most(
        "example: pixels that differ",
        share,
        packaging.TOLERANCE,
        f"{share:.2%} of the pixels differ from the stored prediction",
    )
    if answer.instances and expected.instances:
        objects = packaging.matched_objects(answer.instances, expected.instances)
        limit, wrong = packaging.most_other(objects), objects.fp + objects.fn
        yield at_most(
            "example: objects that differ", wrong, limit, f"{wrong} objects differ from the stored prediction"
        )
    if gate.max_seconds:
        seconds = median(_timed(model, image) for _ in range(TIMES))
        name, detail = "seconds to answer the example", f"median of {TIMES} predictions"
        yield at_most(name, seconds, gate.max_seconds, detail, setting="gate.max_seconds")


def _batch(model: Loaded, images: Sequence[bytes]) -> Iterator[Check]:
    """Check that predicting images together in one batch gives the same results as predicting each image alone."""
    together = model.each(images)
    wrong = sum(answer != model(image) for answer, image in zip(together, images, strict=True))
    detail = f"{wrong} of {len(images)} predictions in a batch differ from the predictions of single images"
    yield at_most("batch: answers that differ", wrong, 0, detail)


def _odd_size(model: Loaded, image: bytes) -> Iterator[Check]:
    """Check that an image whose height and width are odd numbers gets a prediction of the same size."""
    raw = decode(image)
    height, width = (max(1, side - 1 - side % 2) for side in raw.shape[:2])
    full = decode(model(packaging.encode(raw[:height, :width])).labels).shape[:2] == (height, width)
    yield at_least("odd size: answers at full size", int(full), 1, f"{height} x {width} px")


def _timed(model: Loaded, image: bytes) -> float:
    start = time.perf_counter()
    model(image)
    return time.perf_counter() - start
