"""Cell Tracking Challenge layout: sequences 01, 02, ... with their ground truth in 01_GT/SEG or 01_ST/SEG."""

import re
from functools import partial
from pathlib import Path

import numpy as np

from segline.data import imagefiles
from segline.importing.formats.object_lists import renamed
from segline.importing.grouping import series_groups
from segline.importing.layout import (
    ImageSource,
    ImportOptions,
    Layout,
    LayoutError,
    Mapper,
    MaskSource,
    refuse_options,
    refuse_or_skip,
)

FRAME, SEGMENTED, SLICE = r"t(\d{3,})\.tiff?", r"man_seg(\d{3,})\.tiff?", r"man_seg_\d+_\d+\.tiff?"
GOLD, SILVER = "GT", "ST"

Frames = dict[str, dict[int, Path]]  # file of each frame, by sequence and frame number


def recognise(source: Path, options: ImportOptions, mapper: Mapper = map) -> Layout | None:
    """Return the Layout of `source` if its folders and frames are named as in the Cell Tracking Challenge; else None.

    Frames with gold truth (GT) are imported. If no sequence has gold truth, frames with silver truth (ST) are
    imported instead; programs made the silver truth. The markers in TRA are not imported as masks.

    Raises
    ------
    LayoutError
        SEG is missing or holds 3D images, or a frame is missing.
    """
    frames = _frames(source)
    if not frames:
        return None
    refuse_options(options, "the masks of the Cell Tracking Challenge")
    if options.labels not in (None, "instances"):
        raise LayoutError(
            f"--labels {options.labels}: the SEG folder holds separate cells, which are instances; omit this option"
        )
    kind, truth = _truth(source, frames)
    _refuse_volumes(frames, truth)
    errors = [
        f"{file} has no frame (t*.tif) with the same number in {source / sequence}; add the frame"
        for sequence, masks in truth.items()
        for number, file in masks.items()
        if number not in frames[sequence]
    ]
    skipped = refuse_or_skip(errors, options, "segmentation(s) without frame")
    pairs = {
        f"{sequence}_{frames[sequence][number].stem}": (frames[sequence][number], file)
        for sequence, masks in truth.items()
        for number, file in sorted(masks.items())
        if number in frames[sequence]
    }
    stems = {sequence: [stem for stem in pairs if stem.startswith(f"{sequence}_")] for sequence in truth}
    groups, group_reason = series_groups(stems, "sequence")
    unsegmented = sum(map(len, frames.values())) - len(pairs)
    return Layout(
        {stem: ImageSource(frame) for stem, (frame, _) in pairs.items()},
        "instances",
        renamed({0: "background", 1: "cell"}, options),
        (
            *_truth_reasons(kind, truth),
            *([f"{unsegmented} frame(s) have no segmentation and were left out"] if unsegmented else []),
            *skipped,
            *_unsegmented_cells(source, truth, mapper),
            "labels: instances, because SEG holds separate cells",
            group_reason,
        ),
        instances={stem: MaskSource(file, partial(imagefiles.read_labels, file)) for stem, (_, file) in pairs.items()},
        groups=groups,
    )


def _truth_reasons(kind: str, truth: Frames) -> list[str]:
    lines = [f"Cell Tracking Challenge, {'gold' if kind == GOLD else 'silver'} truth of {', '.join(truth)}"]
    if kind == SILVER:
        lines.append(
            "no sequence has gold truth (GT/SEG), so import uses the silver truth (ST/SEG), which programs made"
        )
    return lines


def _frames(source: Path) -> Frames:
    """Return the file of each frame, by sequence and frame number; leave out sequences without frames."""
    folders = sorted(source.iterdir()) if source.is_dir() else []
    numbered = {folder.name: _numbered(folder, FRAME) for folder in folders if re.fullmatch(r"\d\d", folder.name)}
    return {name: frames for name, frames in numbered.items() if frames}


def _numbered(folder: Path, pattern: str) -> dict[int, Path]:
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    return {int(match[1]): file for file in files if (match := re.fullmatch(pattern, file.name))}


def _truth(source: Path, frames: Frames) -> tuple[str, Frames]:
    """Find the masks of the gold truth, or those of the silver truth if no sequence has gold truth.

    Return two values: GOLD or SILVER, and the mask files by sequence and frame number.
    """
    for kind in (GOLD, SILVER):
        folders = {sequence: source / f"{sequence}_{kind}" / "SEG" for sequence in frames}
        for folder in folders.values():
            slices = [file for file in folder.glob("man_seg_*") if re.fullmatch(SLICE, file.name)]
            if slices:
                raise LayoutError(
                    f"{slices[0]} is a slice of a 3D image, but segline segments 2D images; use a 2D dataset"
                )
        masks = {sequence: _numbered(folder, SEGMENTED) for sequence, folder in folders.items()}
        if any(masks.values()):
            return kind, {sequence: numbered for sequence, numbered in masks.items() if numbered}
    first = next(iter(frames))
    markers = [folder for sequence in frames if (folder := source / f"{sequence}_{GOLD}" / "TRA").is_dir()]
    if markers:
        raise LayoutError(
            f"{source} has no SEG folder with man_seg*.tif. The markers in {markers[0]} give the position of each "
            f"cell, but not its outline. Add the gold truth as {first}_{GOLD}/SEG, or the silver truth as "
            f"{first}_{SILVER}/SEG"
        )
    raise LayoutError(
        f"{source} has sequences ({', '.join(frames)}), but no folder {first}_{GOLD}/SEG with man_seg*.tif. The test "
        "sets of the challenge have no ground truth; use a training set"
    )


def _refuse_volumes(frames: Frames, truth: Frames) -> None:
    for sequence in truth:
        first = next(iter(frames[sequence].values()))
        pages = imagefiles.pages(first)
        if pages > 1:
            raise LayoutError(f"the frame {first} has {pages} slices, but segline segments 2D images; use a 2D dataset")


def _unsegmented_cells(source: Path, truth: Frames, mapper: Mapper) -> list[str]:
    """Return a list with a warning if cells have a marker in TRA, but no outline in SEG; otherwise an empty list.

    Such cells become background.
    """
    pairs = [
        (file, marker)
        for sequence, masks in truth.items()
        for number, file in masks.items()
        if (marker := source / f"{sequence}_{GOLD}" / "TRA" / f"man_track{_digits(file)}{file.suffix}").exists()
    ]
    counts = list(mapper(_count_unsegmented, pairs))
    missing, marked = sum(count for count, _ in counts), sum(count for _, count in counts)
    warning = (
        f"warning: {missing} of the {marked} cells that TRA marks in these frames have no outline in SEG, so "
        "training treats them as background; leave out frames that lack many outlines"
    )
    return [warning] if missing else []


def _digits(file: Path) -> str:
    return file.stem.removeprefix("man_seg")


def _count_unsegmented(pair: tuple[Path, Path]) -> tuple[int, int]:
    """Return two numbers for one frame: how many marked cells have no outline, and how many cells are marked."""
    outlined, markers = (imagefiles.read_labels(file) for file in pair)
    if outlined.shape != markers.shape:
        return 0, 0
    marked = np.setdiff1d(markers, 0)
    return int(np.setdiff1d(marked, markers[outlined > 0]).size), int(marked.size)
