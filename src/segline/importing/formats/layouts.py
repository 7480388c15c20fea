"""Which layout a source has: each is asked in turn, the most particular first."""

from collections.abc import Callable
from pathlib import Path

from segline.data.dataset import SPEC
from segline.importing.formats import (
    Each,
    Layout,
    LayoutError,
    Wishes,
    coco,
    ctc,
    folders,
    labelme,
    objects,
    some,
    stacks,
)

LAYOUTS: tuple[Callable[[Path, Wishes, Each], Layout | None], ...] = (
    ctc.recognise,
    objects.recognise,
    coco.recognise,
    labelme.recognise,
    stacks.recognise,
    folders.recognise,
)
LOOKED_FOR = """\
  images/ and masks/ (or raw/, labels/, gt/, ...), one mask an image, names alike but for _mask, _label, -seg, ...
  images and masks in one folder, as STEM.png and STEM_mask.png
  one mask a file an object, as STEM/images/ and STEM/masks/
  01/ and 01_GT/SEG/, as the Cell Tracking Challenge has it
  COCO or LabelMe JSON with its images
  multi-page TIFF with the images, and one with their labels"""


def recognise(source: Path, wishes: Wishes, each: Each = map) -> Layout:
    """What `source`, a folder or a single file, holds; where patterns are given, what they say and nothing else.

    Parameters
    ----------
    each : like `map`; hand over one that uses all cores and shows progress.

    Raises
    ------
    LayoutError, DatasetError, FileError
        No layout fits, or one does and cannot be meant.
    """
    if not source.exists():
        raise LayoutError(f"{source} is not there; name a folder that is")
    if (source / SPEC).exists():
        raise LayoutError(f"{source} is a dataset already; copy it to data/raw and set data.source in params.yaml")
    for ask in (folders.recognise,) if wishes.images or wishes.masks else LAYOUTS:
        found = ask(source, wishes, each)
        if found is not None:
            return found
    raise LayoutError(
        f"{source} {_there(source)}, which is none of these:\n{LOOKED_FOR}\n{folders.PATTERNS}; `*/` before "
        f"them means any folder, `**/` any folders within folders{folders.unread(source)}"
    )


def _there(source: Path) -> str:
    if not source.is_dir():
        return "is a single file, but no multi-page TIFF and no COCO JSON"
    names = [path.name + "/" * path.is_dir() for path in sorted(source.iterdir())]
    return f"holds {some(names)}" if names else "is an empty folder"
