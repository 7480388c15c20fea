"""Recognise the layout of the files to import, such as COCO; each layout has its own module."""

from collections.abc import Callable
from pathlib import Path

from segline.data.dataset import SPEC
from segline.importing.formats import coco, ctc, folders, labelme, mask_per_object, stacks, unsupported
from segline.importing.layout import ImportOptions, Layout, LayoutError, Mapper, first_few

# The functions that recognise a layout; the most specific layout comes first.
LAYOUTS: tuple[Callable[[Path, ImportOptions, Mapper], Layout | None], ...] = (
    ctc.recognise,
    mask_per_object.recognise,
    coco.recognise,
    labelme.recognise,
    stacks.recognise,
    folders.recognise,
)
SUPPORTED = """\
  images/ and masks/ (or raw/, labels/, gt/, ...), with one mask per image; mask names may end in _mask, -seg, ...
  images and masks in one folder, as STEM.png and STEM_mask.png
  one mask file per object, as STEM/images/ and STEM/masks/
  01/ and 01_GT/SEG/, as in the Cell Tracking Challenge
  COCO or LabelMe JSON with its images
  a multi-page TIFF file with the images, and one with their labels"""


def recognise(source: Path, options: ImportOptions, mapper: Mapper = map) -> Layout:
    """Recognise the layout of `source`, a folder or a single file.

    If `options` hold file patterns, only the folder layout is tried.

    Parameters
    ----------
    mapper : a function that works like `map`, but may use all cores and show progress.

    Raises
    ------
    LayoutError, DatasetError, FileError
        No layout fits, or a layout fits but its content is contradictory.
    """
    if not source.exists():
        raise LayoutError(f"{source} does not exist; give an existing folder or file")
    if (source / SPEC).exists():
        raise LayoutError(
            f"{source} is already a dataset folder; copy it to data/raw, and set data.source in params.yaml to the copy"
        )
    for recogniser in (folders.recognise,) if options.images or options.masks else LAYOUTS:
        layout = recogniser(source, options, mapper)
        if layout is not None:
            return layout
    raise LayoutError(
        f"the source {source} {_content(source)}; the source fits none of these layouts:\n{SUPPORTED}\nIf your files "
        f"or folders have other names, {folders.PATTERNS}. At the start of a pattern, `*/` matches any folder, and "
        "`**/` matches nested folders of any depth"
        f"{unsupported.hints(source)}"
    )


def _content(source: Path) -> str:
    if not source.is_dir():
        return "is a single file, but neither a multi-page TIFF nor COCO JSON"
    names = [path.name + "/" * path.is_dir() for path in sorted(source.iterdir())]
    return f"holds {first_few(names)}" if names else "is an empty folder"
