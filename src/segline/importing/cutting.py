"""Large images cut into blocks, each an image of its own: one image can so be split into train, validation and test."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil

from segline.data import imagefiles
from segline.data.splits import FEWEST_IMAGES
from segline.importing.formats import Layout, LayoutError

Window = tuple[slice, slice]  # rows, columns
Windows = Mapping[str, Window]  # by stem of the block

WHOLE: Window = (slice(None), slice(None))
SMALLEST = 16  # px; the side of a block
LONGEST_NAME = 255  # bytes of a file's name, on all usual file systems


@dataclass(frozen=True)
class Plan:
    """The blocks of each image, by its stem, their groups (None: each is its own), and what to say of it."""

    blocks: Mapping[str, Windows]
    groups: dict[str, str] | None
    reasons: tuple[str, ...]


def plan(layout: Layout, groups: dict[str, str] | None, side: int | None) -> Plan:
    """Cut every image that is larger than `side` px into equal blocks that are not; None leaves all whole.

    Blocks of one image stay in its group, for neighbours share objects; only where there are fewer groups than splits
    need, each block is a group.

    Raises
    ------
    LayoutError, FileError
        `side` is too small, an image cannot be read, or a block has the name of another image.
    """
    if side is None:
        _refuse_long_names({stem: {} for stem in layout.images})
        return Plan({stem: {stem: WHOLE} for stem in layout.images}, groups, ())
    if side < SMALLEST:
        raise LayoutError(f"--cut {side}: the side of a block in px, {SMALLEST} at least")
    sizes = {stem: imagefiles.image_size(picture.file)[:2] for stem, picture in layout.images.items()}
    blocks = {stem: windows(stem, *size, side) for stem, size in sizes.items()}
    _refuse_equal_names(blocks)
    _refuse_long_names(blocks)
    cut = {stem: len(found) for stem, found in blocks.items() if len(found) > 1}
    if not cut:
        return Plan(blocks, groups, (f"cut: no image is larger than {side} px",))
    said = f"cut: {len(cut)} of {len(blocks)} images into {sum(cut.values())} blocks of {side} px or less"
    of_image = groups or {stem: stem for stem in blocks}
    if len(set(of_image.values())) >= FEWEST_IMAGES:
        kept = {block: of_image[stem] for stem, found in blocks.items() for block in found}
        return Plan(blocks, kept, (f"{said}; blocks of one image are one group",))
    return Plan(
        blocks,
        None,
        (f"{said}; too few images to keep each in one split, so test blocks may have a neighbour that was learned",),
    )


def windows(stem: str, height: int, width: int, side: int) -> dict[str, Window]:
    """The blocks of an image, STEM_rROW_cCOLUMN, at most `side` px a side; sizes differ by 1 px at most."""
    rows, columns = _parts(height, side), _parts(width, side)
    if len(rows) == len(columns) == 1:
        return {stem: WHOLE}
    digits = len(str(max(len(rows), len(columns)) - 1))
    return {
        f"{stem}_r{row:0{digits}}_c{column:0{digits}}": (down, along)
        for row, down in enumerate(rows)
        for column, along in enumerate(columns)
    }


def _parts(length: int, side: int) -> list[slice]:
    """`length` px in parts of at most `side`."""
    count = ceil(length / side)
    return [slice(index * length // count, (index + 1) * length // count) for index in range(count)]


def _refuse_long_names(blocks: Mapping[str, Windows]) -> None:
    """Refuse names of images, or of their blocks, that are longer than file systems take."""
    for stem, found in blocks.items():
        longest = max((len(name.encode(errors="surrogateescape")) for name in (stem, *found)), default=0)
        if longest + len(".png") > LONGEST_NAME:
            raise LayoutError(
                f"{stem[:40]}...: the image would have a name of {longest + len('.png')} bytes, with what is added to "
                f"it; file systems take {LONGEST_NAME}: shorten the name"
            )


def _refuse_equal_names(blocks: Mapping[str, Windows]) -> None:
    names = Counter(name for found in blocks.values() for name in found)
    twice = [name for name, count in names.items() if count > 1]
    if twice:
        raise LayoutError(f"--cut: {twice[0]} would be the name of a block and of another image; rename one")
