"""Labels that list an image's objects one by one, as readers of such files hand them over."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import numpy as np

from segline.data import imagefiles
from segline.importing.formats import LayoutError
from segline.importing.formats.regions import Painted, Points, Region, Shape, paint

SLACK = 1.0  # px that a point may lie outside its image: tools write the border itself, or round
SHOWN = 5  # of many alike
NONE: Mapping[str, int] = {}


@dataclass(frozen=True)
class Object:
    """One object: what its file calls it, its class, its pixels."""

    name: str
    label: str
    region: Region


@dataclass(frozen=True)
class Drawing:
    """What is said of one image of `shape`: its objects, and regions that do not count where no object is.

    `slivers` objects more were outlined, but so thinly that they cover the centre of no pixel.
    `skipped` shapes, by their kind, were left out as told.
    """

    file: Path
    shape: Shape
    objects: Sequence[Object]
    ignored: Sequence[Region] = ()
    slivers: int = 0
    skipped: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def outlined(
        cls,
        file: Path,
        shape: Shape,
        objects: Sequence[Object],
        ignored: Sequence[Region],
        skipped: Mapping[str, int] = NONE,
    ) -> Self:
        """A drawing of those of `objects` that are no slivers."""
        seen = [thing for thing in objects if thing.region.area]
        return cls(file, shape, seen, ignored, len(objects) - len(seen), skipped)

    def painted(self) -> Painted:
        """All objects in one label image, numbered from 1 in their order."""
        return paint([thing.region for thing in self.objects], self.shape)


@dataclass(frozen=True)
class Sheet:
    """Where the objects of one image are listed: `read` opens `file` when called."""

    file: Path
    read: Callable[[], Drawing]

    @classmethod
    def blank(cls, image: Path) -> Self:
        """An image of which nothing is said, for there is nothing but background."""
        return cls(image, lambda: Drawing(image, image_shape(image), ()))


def refuse(errors: Sequence[str]) -> None:
    """Raise LayoutError with the first of `errors`, where there are any, and how many more there are."""
    if errors:
        more = [f"... and {len(errors) - SHOWN} more such"] if len(errors) > SHOWN else []
        raise LayoutError("\n".join([*errors[:SHOWN], *more]))


def refuse_other_size(image: Path, file: Path, shape: Shape) -> None:
    """Raise LayoutError where `file` says `shape` of an image that has another; ask before anything is drawn."""
    found = image_shape(image)
    if found != shape:
        raise LayoutError(
            f"{file}: says {size(shape)} px (width x height) of {image}, which is {size(found)}; it is another image, "
            f"or was resized or turned since: give the one that was labelled{imagefiles.turned(image)}"
        )


def outline(points: object, shape: Shape, where: str) -> Points:
    """`points`, a list of [x, y], as an array (N, 2).

    Raises
    ------
    LayoutError
        They are no such list, or lie outside an image of `shape` by more than a pixel; `where` says which.
    """
    try:
        found = np.array(points, np.float64)
    except (TypeError, ValueError, OverflowError):
        found = np.empty(0)
    if found.ndim != 2 or found.shape[1] != 2 or not np.isfinite(found).all():
        raise LayoutError(f"{where}: points {str(points)[:80]} are no list of [x, y]; mend or remove it")
    outside = (found < -SLACK) | (found > np.array(shape[::-1]) + SLACK)
    if outside.any():
        x, y = found[outside.any(axis=1)][0]
        raise LayoutError(
            f"{where}: point x {x:g}, y {y:g} is outside the image of {size(shape)} px; "
            "coordinates are pixels, and of this image: mend or remove it"
        )
    return found


def image_shape(file: Path) -> Shape:
    """Height and width of an image file."""
    header = imagefiles.image_size(file)
    return header.height, header.width


def size(shape: Sequence[int]) -> str:
    """Width x height, as people say it."""
    return f"{shape[1]}x{shape[0]}"
