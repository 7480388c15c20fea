"""Import, judged by the bytes of source and target before and after."""

import hashlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import ndimage

from segline import files
from segline.data import imagefiles
from segline.data.checks.problems import UnfitError
from segline.data.dataset import Dataset, DatasetError
from segline.importing.bring import bring
from segline.importing.layout import ImportOptions, LayoutError, Mapper
from segline.importing.staging import BusyError


def tree(folder: Path) -> dict[str, str]:
    """MD5 of each file below `folder`."""
    found = (file for file in sorted(folder.rglob("*")) if file.is_file())
    return {str(file.relative_to(folder)): hashlib.md5(file.read_bytes()).hexdigest() for file in found}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Five images 20 x 16 with instance masks of 1 to 30 objects."""
    folder = tmp_path / "source"
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    for index, name in enumerate("abcde"):
        rng = np.random.default_rng(index)
        imagefiles.write_png(folder / "images" / f"{name}.png", rng.integers(0, 256, (20, 16), np.uint8))
        mask = np.zeros((20, 16), np.uint16)
        ids = np.arange(42).reshape(7, 6)
        mask[::3, ::3] = np.where(ids < 6 * index + 7, ids, 0)
        imagefiles.write_png(folder / "masks" / f"{name}.png", mask)
    return folder


def test_all_of_it(tmp_path: Path, source: Path) -> None:
    (source / "groups.csv").write_text("image,defect,group\na.png,x,1\nb,x,1\nc,y,2\nd,y,2\ne,z,03\n")
    before = tree(source)
    made = bring(
        source,
        "small",
        ImportOptions(names={1: "cell"}),
        raw=tmp_path / "raw",
        licence="CC0-1.0",
        origin="a microscope",
    )
    assert tree(source) == before
    after = tree(made.folder)
    assert all(after[f"images/{name}.png"] == before[f"images/{name}.png"] for name in "abcde")
    dataset = Dataset.open(tmp_path / "raw" / "small")
    assert dataset.spec == made.spec
    assert made.spec.model_dump() == {
        "name": "small",
        "classes": {0: "background", 1: "cell"},
        "ignore": None,
        "labels": "instances",
        "licence": "CC0-1.0",
        "source": "a microscope",
    }
    assert dataset.groups == {"a": "1", "b": "1", "c": "2", "d": "2", "e": "03"}
    masks = {name: imagefiles.read_labels(source / "masks" / f"{name}.png") for name in "abcde"}
    for name, mask in masks.items():
        np.testing.assert_array_equal(dataset.truth(name)[1], mask)
    assert made.instances == sum(len(np.unique(mask)) - 1 for mask in masks.values())
    share = np.mean([mask > 0 for mask in masks.values()])
    assert made.table[-1] == f"  class 1   cell        {share:8.3%} of the pixels, in 5 images"
    assert (made.images, made.resumed) == (5, 0)
    assert not [problem for problem in made.problems if problem.level == "error"]
    assert "groups: from groups.csv" in made.reasons
    assert sorted(file.name for file in made.folder.iterdir()) == [
        "contact_sheet.png",
        "dataset.yaml",
        "groups.csv",
        "images",
        "instances",
    ]


def test_components_of_a_binary_mask_as_instances(tmp_path: Path, source: Path) -> None:
    for file in (source / "masks").iterdir():
        imagefiles.write_png(file, (np.random.default_rng(0).random((20, 16)) > 0.6).astype(np.uint8) * 255)
    made = bring(source, "small", ImportOptions(labels="instances"), raw=tmp_path / "raw")
    found = Dataset.open(made.folder).truth("a")[1]
    assert found.max() == ndimage.label(imagefiles.read_labels(source / "masks" / "a.png"))[1]
    assert "every connected component is one object" in made.reasons


def test_ignored_pixels(tmp_path: Path, source: Path) -> None:
    for file in (source / "masks").iterdir():
        mask = np.tile(np.array([0, 1, 2, 255], np.uint8), (20, 4))
        imagefiles.write_png(file, mask)
    made = bring(source, "small", ImportOptions(ignore=255), raw=tmp_path / "raw")
    assert made.spec.ignore == 255
    assert [line.count("33.333% of the pixels, in 5 images") for line in made.table[-3:]] == [1, 1, 1]
    np.testing.assert_array_equal(Dataset.open(made.folder).truth("a")[0], mask)


def _other_size(source: Path) -> None:
    imagefiles.write_png(source / "masks" / "c.png", np.arange(30, dtype=np.uint8).reshape(5, 6))


def _unlisted(source: Path) -> None:
    files.write_table(source / "groups.csv", pd.DataFrame({"image": ["a"], "group": ["1"]}))


def _noisy(source: Path) -> None:
    mask = np.zeros((20, 16), np.uint8)
    mask[2:9, 2:9], mask[12, 2], mask[15, 9] = 255, 1, 254
    for file in (source / "masks").iterdir():
        imagefiles.write_png(file, mask)


def _in_two_compositions(source: Path) -> None:
    for name in ("\xe9.png", "e\u0301.png"):
        imagefiles.write_png(source / "images" / name, np.zeros((20, 16), np.uint8))


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (_other_size, UnfitError, r"instances/c\.png +has 6x5 px, but its image images/c\.png has 16x20 px"),
        (lambda source: (source / "images" / "c.png").write_bytes(b"x"), UnfitError, r"images/c\.png +not a readable"),
        (lambda source: (source / "masks" / "c.png").unlink(), LayoutError, r"have no mask: c\.png"),
        (_unlisted, DatasetError, "does not list these images: b, c, d, e"),
        (_noisy, LayoutError, "the masks hold the values 0, 1, 254, 255, but"),
        (_in_two_compositions, LayoutError, "the same name in two normalization forms"),
    ],
)
def test_nothing_of_it(tmp_path: Path, source: Path, spoil: object, error: type, message: str) -> None:
    bring(source, "small", raw=tmp_path / "raw")
    before = tree(tmp_path / "raw")
    spoil(source)  # type: ignore[operator]
    with pytest.raises(error, match=message):
        bring(source, "small", raw=tmp_path / "raw", replace=True)
    assert tree(tmp_path / "raw") == before
    with pytest.raises(error, match=message):
        bring(source, "new", raw=tmp_path / "raw")
    assert [folder.name for folder in (tmp_path / "raw").iterdir()] == ["small"]


def test_an_existing_folder_is_replaced_only_with_replace(tmp_path: Path, source: Path) -> None:
    bring(source, "small", raw=tmp_path / "raw")
    with pytest.raises(DatasetError, match="small already exists; add --replace"):
        bring(source, "small", raw=tmp_path / "raw")
    for kind in ("images", "masks"):
        (source / kind / "e.png").unlink()
    bring(source, "small", raw=tmp_path / "raw", replace=True)
    assert Dataset.open(tmp_path / "raw" / "small").stems == ["a", "b", "c", "d"]


def test_of_two_imports_with_one_name_the_second_is_refused(tmp_path: Path, source: Path) -> None:
    raw = tmp_path / "raw"

    def other(what: str, memory: object) -> Mapper:
        """Starts another import of the name when this one has begun to write; and one that was quicker still."""
        del memory
        if what == "check":
            with pytest.raises(BusyError, match="another import of small is running"):
                bring(source, "small", raw=raw)
        return map

    made = bring(source, "small", raw=raw, mapper_for=other)
    before = tree(made.folder)

    def late(what: str, memory: object) -> Mapper:
        del memory
        if what == "read masks":
            bring(source, "late", raw=raw)
        return map

    with pytest.raises(DatasetError, match="late already exists"):
        bring(source, "late", ImportOptions(names={1: "cell"}), raw=raw, mapper_for=late)
    assert tree(made.folder) == before == {**tree(raw / "late"), "dataset.yaml": before["dataset.yaml"]}
    assert sorted(path.name for path in raw.iterdir()) == ["late", "small"]


def test_errors_list_the_reasons_of_guesses(tmp_path: Path, source: Path) -> None:
    for kind in ("masks_fov", "masks"):
        for name in "abcde":
            imagefiles.write_png(source / kind / f"{name}.png", np.full((20, 16), 255, np.uint8))
    with pytest.raises(UnfitError, match=r"needs two classes to learn(.|\n)*the source:\n  .*--masks 'masks_fov/\*'"):
        bring(source, "small", raw=tmp_path / "raw")


def test_images_without_mask_as_background(tmp_path: Path, source: Path) -> None:
    (source / "masks" / "c.png").unlink()
    with pytest.raises(LayoutError, match=r"have no mask: c\.png.* --missing-as-background"):
        bring(source, "small", raw=tmp_path / "raw")
    made = bring(source, "small", ImportOptions(missing_as_background=True), raw=tmp_path / "raw")
    assert made.images == 5
    assert not Dataset.open(made.folder).truth("c")[1].any()
    assert "1 of 5 images have no mask: c.png; they hold background only (--missing-as-background)" in made.reasons[0]


@pytest.mark.parametrize("name", ["", "../up", ".hidden", "a b", "ä"])
def test_invalid_names_are_refused(tmp_path: Path, source: Path, name: str) -> None:
    with pytest.raises(DatasetError, match="--name"):
        bring(source, name, raw=tmp_path / "raw")


def test_source_and_target_stay_apart(tmp_path: Path, source: Path) -> None:
    before = tree(tmp_path)
    for raw, name in ((tmp_path, "source"), (source, "images"), (tmp_path.parent, tmp_path.name)):
        with pytest.raises(DatasetError, match="are the same, or one is inside the other"):
            bring(source, name, raw=raw, replace=True)
    assert tree(tmp_path) == before


def test_mixed_images_are_imported_with_problems(tmp_path: Path, source: Path) -> None:
    imagefiles.write_png(source / "images" / "c.png", np.arange(320, dtype=np.uint16).reshape(20, 16))
    made = bring(source, "small", raw=tmp_path / "raw")
    errors = [problem for problem in made.problems if problem.level == "error"]
    assert [(problem.file, problem.of_set) for problem in errors] == [("images/c.png", True)]


def test_groups_by_name(tmp_path: Path, source: Path) -> None:
    (source / "groups.csv").write_text("image,group\na,1\nb,1\nc,2\nd,2\ne,2\n")
    made = bring(source, "small", ImportOptions(group_by="^([a-c]|d|e)"), raw=tmp_path / "raw")
    assert Dataset.open(made.folder).groups == {name: name for name in "abcde"}
    assert made.reasons[-1] == "groups: the part of each image name that ^([a-c]|d|e) matches (--group-by)"
    with pytest.raises(LayoutError, match=r"--group-by '\^\[a-c\]' does not match the image names d, e"):
        bring(source, "other", ImportOptions(group_by="^[a-c]"), raw=tmp_path / "raw")
    with pytest.raises(LayoutError, match=r"--group-by '\(' is not a regular expression: missing \)"):
        bring(source, "other", ImportOptions(group_by="("), raw=tmp_path / "raw")
    assert [folder.name for folder in (tmp_path / "raw").iterdir()] == ["small"]


class Killed(BaseException):
    """Ends everything, as a signal does, but only this test."""


def _until(count: int) -> Callable[[str, object], Mapper]:
    """Is killed when so many images are written."""

    def each(what: str, memory: object) -> Mapper:
        del memory

        def work(function: Callable[[object], object], items: Sequence[object]) -> Iterator[object]:
            for index, item in enumerate(items):
                if what == "write" and index == count:
                    raise Killed
                yield function(item)

        return work

    return each


def test_an_interrupted_import_resumes(tmp_path: Path, source: Path) -> None:
    whole = tree(bring(source, "whole", raw=tmp_path / "whole", licence="x").folder)
    raw = tmp_path / "raw"
    with pytest.raises(Killed):
        bring(source, "small", raw=raw, licence="x", mapper_for=_until(3))
    assert [path.name for path in raw.iterdir()] == [".small.partial"]
    began = {file: file.stat().st_ino for file in raw.rglob("*.png")}
    assert len(began) == 6
    made = bring(source, "small", raw=raw, licence="x")
    assert made.resumed == 3
    after = {file.name: file.stat().st_ino for file in (made.folder / "images").iterdir()}
    assert {name: after[name] for name in ("a.png", "b.png", "c.png")} == {
        file.name: inode for file, inode in began.items() if file.parent.name == "images"
    }
    assert {**tree(made.folder), "dataset.yaml": ""} == {**whole, "dataset.yaml": ""}
    assert [path.name for path in raw.iterdir()] == ["small"]
    assert made.instances == sum(
        len(np.unique(imagefiles.read_labels(file))) - 1 for file in (source / "masks").iterdir()
    )


@pytest.mark.parametrize("change", ["file", "flag"])
def test_another_import_starts_with_an_empty_folder(tmp_path: Path, source: Path, change: str) -> None:
    raw = tmp_path / "raw"
    with pytest.raises(Killed):
        bring(source, "small", raw=raw, mapper_for=_until(3))
    if change == "file":
        imagefiles.write_png(source / "images" / "a.png", np.zeros((20, 16), np.uint8) + 7)
    made = bring(source, "small", ImportOptions(names={1: "cell"} if change == "flag" else {}), raw=raw)
    assert made.resumed == 0
    assert tree(made.folder / "images") == tree(source / "images")


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_process_that_is_killed(tmp_path: Path, how: signal.Signals) -> None:
    """The command itself, killed while it writes, and then given once more."""
    rng = np.random.default_rng(0)
    count = 300  # so many that whoever looks now and then sees it under way
    for index in range(count):
        for kind, highest in (("images", 256), ("masks", 3)):
            file = tmp_path / "source" / kind / f"{index:03}.png"
            imagefiles.write_png(file, rng.integers(0, highest, (192, 192)).astype(np.uint8))
    (tmp_path / "params.yaml").touch()
    before = tree(tmp_path / "source")
    command = [sys.executable, "-m", "segline", "import", "source", "--name", "small"]
    images = tmp_path / "data" / "raw" / ".small.partial" / "small" / "images"
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        while process.poll() is None and len(list(images.glob("*.png"))) < 5:
            time.sleep(0.002)
        process.send_signal(how)
        _, said = process.communicate(timeout=60)
    assert process.returncode not in (0, None)
    assert [path.name for path in (tmp_path / "data" / "raw").iterdir()] == [".small.partial"]
    assert how == signal.SIGKILL or b"run the same command again to resume the import" in said
    there = len(list(images.glob("*.png")))
    assert 5 <= there < count
    made = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "images were kept from an interrupted import" in made.stdout
    folder = tmp_path / "data" / "raw" / "small"
    assert tree(folder / "images") == tree(tmp_path / "source" / "images")
    assert [path.name for path in folder.parent.iterdir()] == ["small"]
    assert not [file for file in folder.rglob("*") if "partial" in file.name]
    assert tree(tmp_path / "source") == before
    reference = bring(tmp_path / "source", "small", raw=tmp_path / "other")
    assert tree(folder) == tree(reference.folder)
