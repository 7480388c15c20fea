"""Cut large images into blocks that become separate images, so that one large image is enough for all three splits."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil

from segline.data import imagefiles
from segline.data.splits import FEWEST_IMAGES
from segline.importing.layout import Layout, LayoutError

Window = tuple[slice, slice]  # rows, columns
Windows = Mapping[str, Window]  # windows by the stem of the block

WHOLE: Window = (slice(None), slice(None))
SMALLEST = 16  # smallest side of a block, in px
LONGEST_NAME = 255  # longest file name on common file systems, in bytes


@dataclass(frozen=True)
class CutPlan:
    """Plan of a cut: how to cut each image into blocks, and which group each block belongs to.

    The keys of `blocks` are stems of images. The keys of `groups` are stems of blocks; None means that each block is
    its own group. `reasons` are lines for the user.
    """

    blocks: Mapping[str, Windows]
    groups: dict[str, str] | None
    reasons: tuple[str, ...]


def plan(layout: Layout, groups: dict[str, str] | None, side: int | None) -> CutPlan:
    """Plan how to cut images that are larger than `side` px into blocks of at most `side` px.

    If `side` is None, no image is cut. Blocks stay in the group of their image, because neighbouring blocks share
    objects. If there are fewer groups than the splits need, each block is its own group.

    Raises
    ------
    LayoutError, FileError
        `side` is too small, an image cannot be read, or a block has the name of another image.
    """
    if side is None:
        _refuse_long_names({stem: {} for stem in layout.images})
        return CutPlan({stem: {stem: WHOLE} for stem in layout.images}, groups, ())
    if side < SMALLEST:
        raise LayoutError(f"--cut {side}: the side of a block must be at least {SMALLEST} px; give a larger number")
    sizes = {stem: imagefiles.image_size(image.file)[:2] for stem, image in layout.images.items()}
    blocks = {stem: windows(stem, *size, side) for stem, size in sizes.items()}
    _refuse_equal_names(blocks)
    _refuse_long_names(blocks)
    cut = {stem: len(windows_of) for stem, windows_of in blocks.items() if len(windows_of) > 1}
    if not cut:
        return CutPlan(blocks, groups, (f"cut: no image is larger than {side} px",))
    summary = f"cut: {len(cut)} of {len(blocks)} images into {sum(cut.values())} blocks of {side} px or less"
    of_image = groups or {stem: stem for stem in blocks}
    if len(set(of_image.values())) >= FEWEST_IMAGES:
        kept = {block: of_image[stem] for stem, windows_of in blocks.items() for block in windows_of}
        return CutPlan(blocks, kept, (f"{summary}; the blocks of an image are one group",))
    return CutPlan(
        blocks,
        None,
        (
            (
                f"{summary}; there are too few images to keep each image in one split, so neighbouring blocks may be "
                "in different splits"
            ),
        ),
    )


def windows(stem: str, height: int, width: int, side: int) -> dict[str, Window]:
    """Divide an image into blocks of at most `side` px; return the rows and columns of each block, by block name.

    The blocks are named STEM_rROW_cCOLUMN. Their sizes differ by at most 1 px. An undivided image keeps its stem.
    """
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
    """Divide `length` px into nearly equal slices of at most `side` px."""
    count = ceil(length / side)
    return [slice(index * length // count, (index + 1) * length // count) for index in range(count)]


def _refuse_long_names(blocks: Mapping[str, Windows]) -> None:
    """Raise LayoutError if the name of an image or of a block is too long for a file system."""
    for stem, windows_of in blocks.items():
        longest = max((len(name.encode(errors="surrogateescape")) for name in (stem, *windows_of)), default=0)
        if longest + len(".png") > LONGEST_NAME:
            raise LayoutError(
                f"image {stem[:40]}...: the imported image, or a block of it, would have a file name of "
                f"{longest + len('.png')} bytes, but file systems allow at most {LONGEST_NAME}; shorten the name of "
                "the image"
            )


def _refuse_equal_names(blocks: Mapping[str, Windows]) -> None:
    names = Counter(name for windows_of in blocks.values() for name in windows_of)
    repeated = [name for name, count in names.items() if count > 1]
    if repeated:
        raise LayoutError(
            f"--cut: a block would get the name {repeated[0]}, but another image already has this name; rename that "
            "image"
        )
