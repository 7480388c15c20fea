"""Layout: Cell Tracking Challenge, sequences 01, 02, ... with their truth in 01_GT/SEG, or 01_ST/SEG."""

import re
from functools import partial
from pathlib import Path

import numpy as np

from segline.data import imagefiles
from segline.importing.formats import Each, Layout, LayoutError, Mask, Picture, Wishes, finding, flags, series, survey

FRAME, SEGMENTED, SLICE = r"t(\d{3,})\.tiff?", r"man_seg(\d{3,})\.tiff?", r"man_seg_\d+_\d+\.tiff?"
GOLD, SILVER = "GT", "ST"

Frames = dict[str, dict[int, Path]]  # file by number of the frame, by sequence


def recognise(source: Path, wishes: Wishes, each: Each = map) -> Layout | None:
    """What `source` holds, when there are sequences of frames named as the challenge does; None otherwise.

    Frames with gold truth (GT) are taken; silver truth (ST), which programs made, only where no sequence has gold. The
    markers in TRA are no segmentation.

    Raises
    ------
    LayoutError
        There is no SEG, it is of 3D images, or a frame is missing.
    """
    frames = _frames(source)
    if not frames:
        return None
    flags.refuse(wishes, "the masks of the Cell Tracking Challenge")
    if wishes.labels not in (None, "instances"):
        raise LayoutError(f"--labels {wishes.labels}: SEG tells cells apart; leave it out")
    kind, truth = _truth(source, frames)
    _refuse_volumes(frames, truth)
    alone = [
        f"{file} has no frame of its number (t*.tif) in {source / sequence}; add it"
        for sequence, found in truth.items()
        for number, file in found.items()
        if number not in frames[sequence]
    ]
    skipped = finding.refuse_or_skip(alone, wishes, "segmentation(s) without frame")
    taken = {
        f"{sequence}_{frames[sequence][number].stem}": (frames[sequence][number], file)
        for sequence, found in truth.items()
        for number, file in sorted(found.items())
        if number in frames[sequence]
    }
    stems = {sequence: [stem for stem in taken if stem.startswith(f"{sequence}_")] for sequence in truth}
    groups, why = series.groups(stems, "sequence")
    left = sum(map(len, frames.values())) - len(taken)
    return Layout(
        {stem: Picture(frame) for stem, (frame, _) in taken.items()},
        "instances",
        survey.renamed({0: "background", 1: "cell"}, wishes),
        (
            *_kind(kind, truth),
            *([f"{left} frame(s) have no segmentation and were left out"] if left else []),
            *skipped,
            *_unoutlined(source, truth, each),
            "labels: instances, for SEG tells cells apart",
            why,
        ),
        instances={stem: Mask(file, partial(imagefiles.read_labels, file)) for stem, (_, file) in taken.items()},
        groups=groups,
    )


def _kind(kind: str, truth: Frames) -> list[str]:
    lines = [f"Cell Tracking Challenge, {'gold' if kind == GOLD else 'silver'} truth of {', '.join(truth)}"]
    if kind == SILVER:
        lines.append("no sequence has gold truth (GT/SEG); silver truth (ST/SEG) was made by programs")
    return lines


def _frames(source: Path) -> Frames:
    """The frames of each sequence."""
    folders = sorted(source.iterdir()) if source.is_dir() else []
    found = {folder.name: _numbered(folder, FRAME) for folder in folders if re.fullmatch(r"\d\d", folder.name)}
    return {name: frames for name, frames in found.items() if frames}


def _numbered(folder: Path, pattern: str) -> dict[int, Path]:
    names = sorted(folder.iterdir()) if folder.is_dir() else []
    return {int(found[1]): file for file in names if (found := re.fullmatch(pattern, file.name))}


def _truth(source: Path, frames: Frames) -> tuple[str, Frames]:
    """Gold truth where any sequence has it, or else silver, and its files."""
    for kind in (GOLD, SILVER):
        folders = {sequence: source / f"{sequence}_{kind}" / "SEG" for sequence in frames}
        for folder in folders.values():
            slices = [file for file in folder.glob("man_seg_*") if re.fullmatch(SLICE, file.name)]
            if slices:
                raise LayoutError(f"{slices[0]} is one slice of a 3D image; segline segments 2D images: give a 2D set")
        found = {sequence: _numbered(folder, SEGMENTED) for sequence, folder in folders.items()}
        if any(found.values()):
            return kind, {sequence: files_ for sequence, files_ in found.items() if files_}
    there = [folder for sequence in frames if (folder := source / f"{sequence}_{GOLD}" / "TRA").is_dir()]
    if there:
        raise LayoutError(
            f"{there[0]} holds markers, which tell where each cell is but not its outline, and there is no SEG folder "
            f"with man_seg*.tif; put it in {next(iter(frames))}_{GOLD}/SEG, or silver truth in _{SILVER}/SEG"
        )
    raise LayoutError(
        f"{source} has sequences ({', '.join(frames)}), but no {next(iter(frames))}_{GOLD}/SEG with man_seg*.tif; the "
        "challenge's test sets have no truth: take a training set"
    )


def _refuse_volumes(frames: Frames, truth: Frames) -> None:
    for sequence in truth:
        first = next(iter(frames[sequence].values()))
        pages = imagefiles.pages(first)
        if pages > 1:
            raise LayoutError(f"{first} has {pages} slices; segline segments 2D images: give a 2D set")


def _unoutlined(source: Path, truth: Frames, each: Each) -> list[str]:
    """A word on cells that TRA marks and SEG does not outline: they would be learned as background."""
    pairs = [
        (file, marker)
        for sequence, found in truth.items()
        for number, file in found.items()
        if (marker := source / f"{sequence}_{GOLD}" / "TRA" / f"man_track{_digits(file)}{file.suffix}").exists()
    ]
    counts = list(each(_marked, pairs))
    missing, marked = sum(count for count, _ in counts), sum(count for _, count in counts)
    word = (
        f"mind: {missing} of {marked} cells that TRA marks in these frames have no outline in SEG and count as "
        "background; leave out the frames that lack many"
    )
    return [word] if missing else []


def _digits(file: Path) -> str:
    return file.stem.removeprefix("man_seg")


def _marked(pair: tuple[Path, Path]) -> tuple[int, int]:
    """How many of the cells marked in one frame have no outline, and how many there are."""
    outlined, markers = (imagefiles.read_labels(file) for file in pair)
    if outlined.shape != markers.shape:
        return 0, 0
    marked = np.setdiff1d(markers, 0)
    return int(np.setdiff1d(marked, markers[outlined > 0]).size), int(marked.size)
