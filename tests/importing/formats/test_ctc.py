"""Folders of the Cell Tracking Challenge, judged by the masks that were written into them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile

from segline.data import imagefiles, labels
from segline.importing.formats.ctc import recognise
from segline.importing.layout import ImportOptions, Layout, LayoutError

CELLS = np.array([[5, 5, 0, 9], [5, 0, 0, 9]], np.uint16)


def frames(source: Path, sequence: str, numbers: range, digits: int = 3) -> None:
    for number in numbers:
        save(source / sequence / f"t{number:0{digits}}.tif", CELLS.astype(np.uint8) * 20)


def truth(source: Path, folder: str, *numbers: int, name: str = "man_seg", digits: int = 3) -> None:
    for number in numbers:
        save(source / folder / f"{name}{number:0{digits}}.tif", np.where(CELLS > 0, CELLS + number, 0))


def save(file: Path, array: np.ndarray) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(file, array.astype(np.uint16 if array.dtype.itemsize > 1 else np.uint8), photometric="minisblack")


def found(source: Path, **options: object) -> Layout:
    layout = recognise(source, ImportOptions(**options))  # type: ignore[arg-type]
    assert layout is not None
    return layout


def test_gold_truth_is_preferred(tmp_path: Path) -> None:
    frames(tmp_path, "01", range(10))
    frames(tmp_path, "02", range(5), digits=4)
    truth(tmp_path, "01_GT/SEG", 2, 7)
    truth(tmp_path, "02_GT/SEG", 0, 4, digits=4)
    truth(tmp_path, "01_ST/SEG", *range(10))
    layout = found(tmp_path)
    assert {stem: image.file.relative_to(tmp_path).as_posix() for stem, image in layout.images.items()} == {
        "01_t002": "01/t002.tif",
        "01_t007": "01/t007.tif",
        "02_t0000": "02/t0000.tif",
        "02_t0004": "02/t0004.tif",
    }
    np.testing.assert_array_equal(layout.instances["01_t007"].read(), np.where(CELLS > 0, CELLS + 7, 0))
    assert (layout.labels, dict(layout.names)) == ("instances", {0: "background", 1: "cell"})
    assert layout.reasons[:2] == (
        "Cell Tracking Challenge, gold truth of 01, 02",
        "11 frame(s) have no segmentation and were left out",
    )
    assert layout.groups is not None
    assert set(layout.groups) == set(layout.images)


def test_silver_truth_only_where_there_is_no_gold(tmp_path: Path) -> None:
    for sequence in ("01", "02", "03"):
        frames(tmp_path, sequence, range(3))
        truth(tmp_path, f"{sequence}_ST/SEG", 0, 1, 2)
        truth(tmp_path, f"{sequence}_GT/TRA", 0, 1, 2, name="man_track")
    layout = found(tmp_path, names={1: "HeLa"})
    assert len(layout.images) == 9
    assert layout.names[1] == "HeLa"
    assert (
        "no sequence has gold truth (GT/SEG), so import uses the silver truth (ST/SEG), which programs made"
        in layout.reasons
    )
    assert layout.groups is not None
    assert layout.groups["02_t001"] == "02"
    truth(tmp_path, "02_GT/SEG", 1)
    assert list(found(tmp_path).images) == ["02_t001"]


def test_cells_without_outline_are_reported(tmp_path: Path) -> None:
    frames(tmp_path, "01", range(3))
    truth(tmp_path, "01_GT/SEG", 0, 1)
    truth(tmp_path, "01_GT/TRA", 0, 1, name="man_track")
    assert not any("TRA marks" in reason for reason in found(tmp_path).reasons)
    save(tmp_path / "01_GT/SEG/man_seg001.tif", np.where(CELLS == 9, 4, 0).astype(np.uint16))
    assert any("warning: 1 of the 4 cells that TRA marks" in reason for reason in found(tmp_path).reasons)


def test_other_layouts_are_left_to_others(tmp_path: Path) -> None:
    assert recognise(tmp_path, ImportOptions()) is None
    assert recognise(tmp_path / "gone", ImportOptions()) is None
    save(tmp_path / "01" / "image.tif", CELLS)
    save(tmp_path / "images" / "t000.tif", CELLS)
    assert recognise(tmp_path, ImportOptions()) is None


def test_faulty_sources_are_refused(tmp_path: Path) -> None:
    frames(tmp_path, "01", range(3))
    with pytest.raises(
        LayoutError,
        match=r"no folder 01_GT/SEG with man_seg.*test sets of the challenge have no ground truth; use a training set",
    ):
        recognise(tmp_path, ImportOptions())
    truth(tmp_path, "01_GT/TRA", 0, 1, 2, name="man_track")
    with pytest.raises(LayoutError, match=r"markers in .*TRA give the position of each cell, but not its outline"):
        recognise(tmp_path, ImportOptions())
    truth(tmp_path, "01_GT/SEG", 1, 8)
    with pytest.raises(LayoutError, match=r"man_seg008\.tif has no frame \(t\*\.tif\) with the same number"):
        recognise(tmp_path, ImportOptions())
    assert list(found(tmp_path, skip_unpaired=True).images) == ["01_t001"]


def test_three_dimensions_are_refused(tmp_path: Path) -> None:
    frames(tmp_path, "01", range(3))
    save(tmp_path / "01" / "t000.tif", np.stack([CELLS] * 3))
    truth(tmp_path, "01_GT/SEG", 0)
    with pytest.raises(LayoutError, match=r"the frame .*t000\.tif has 3 slices, but segline segments 2D images"):
        recognise(tmp_path, ImportOptions())
    save(tmp_path / "01_GT/SEG/man_seg_000_012.tif", CELLS)
    with pytest.raises(LayoutError, match=r"man_seg_000_012\.tif is a slice of a 3D image"):
        recognise(tmp_path, ImportOptions())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (ImportOptions(labels="classes"), "--labels classes: the SEG folder holds separate cells"),
        (ImportOptions(ignore=1), "--ignore"),
        (
            ImportOptions(missing_as_background=True),
            "--missing-as-background is not supported for the masks of the Cell",
        ),
        (ImportOptions(names={2: "b"}), "--class 2"),
    ],
)
def test_unsupported_options_are_refused(tmp_path: Path, options: ImportOptions, message: str) -> None:
    frames(tmp_path, "01", range(3))
    truth(tmp_path, "01_GT/SEG", 0)
    with pytest.raises(LayoutError, match=message):
        recognise(tmp_path, options)


def test_real_nuclei_are_imported_exactly(tmp_path: Path, shared_data: Callable[[str], Path]) -> None:
    whole = {}
    for number, mask in enumerate(sorted((shared_data("dsb2018") / "masks").iterdir())[:4]):
        instances = labels.renumber(imagefiles.read_labels(mask))[0]
        save(tmp_path / "01" / f"t{number:03}.tif", instances.astype(np.uint16))
        save(tmp_path / "01_GT" / "SEG" / f"man_seg{number:03}.tif", instances.astype(np.uint16))
        whole[f"01_t{number:03}"] = instances
    layout = found(tmp_path)
    for stem, expected in whole.items():
        np.testing.assert_array_equal(layout.instances[stem].read(), expected)
