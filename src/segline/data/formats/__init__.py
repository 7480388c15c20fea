"""Foreign layouts that import understands, one module each, and what each says of a folder."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from segline.data.dataset import Kind


class LayoutError(ValueError):
    """A folder that no layout fits, or that cannot be meant; the message says what was found and what to do."""


@dataclass(frozen=True)
class Layout:
    """What a foreign folder holds, and how its masks are to be read.

    `class_of` gives the class of each mask value, IGNORE for pixels that do not count; where it is None the values
    are instance ids, of class 1. `joined` makes every connected piece an instance.
    """

    images: Mapping[str, Path]
    masks: Mapping[str, Path]
    groups: Path | None
    labels: Kind
    classes: Mapping[int, str]
    class_of: Mapping[int, int] | None
    reasons: tuple[str, ...]
    joined: bool = False
