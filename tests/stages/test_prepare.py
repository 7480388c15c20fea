"""Stage prepare: its outputs are compared with numpy and Pillow on the files of the dataset."""

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segline import files
from segline.data import imagefiles
from segline.data.checks.problems import UnfitError
from segline.data.dataset import IGNORE
from segline.data.gaps import separate
from segline.data.prepared import Prepared
from segline.data.splits import SplitError, assign
from segline.stages import prepare, sample, weights


@pytest.fixture
def cells(project: Path) -> Path:
    sample.main()
    return project / "data/raw/cells"


def test_arrays_and_manifest_hold_the_content_of_the_files(cells: Path) -> None:
    prepare.main()
    prepared = Prepared.open()
    manifest = prepared.manifest.set_index("image")
    assert sorted(manifest.index) == [f"cells-{index:03d}" for index in range(6)]
    for name, row in manifest.iterrows():
        image, classes, instances = (
            np.array(Image.open(cells / kind / f"{name}.png")) for kind in ("images", "classes", "instances")
        )
        np.testing.assert_array_equal(prepared.image(name)[..., 0], image)
        np.testing.assert_array_equal(prepared.classes(name), classes)
        np.testing.assert_array_equal(prepared.instances(name), instances)
        np.testing.assert_array_equal(prepared.target(name), separate(classes, instances.astype(np.int32)))
        assert (prepared.target(name).dtype, prepared.instances(name).dtype) == (np.uint8, np.int32)
        assert row["md5"] == hashlib.md5((cells / row["file"]).read_bytes()).hexdigest()
        facts = [row[key] for key in ("height", "width", "channels", "instances", "pixels_0", "pixels_1", "pixels_2")]
        counts = [np.count_nonzero(classes == class_id) for class_id in range(3)]
        assert [int(fact) for fact in facts] == [*image.shape, 1, instances.max(), *counts]
        assert (row["dtype"], row["group"]) == ("uint8", name)
    groups = {name: name for name in manifest.index}
    assert manifest["split"].to_dict() == assign(groups, val_percent=10, test_percent=10)


def test_statistics_are_of_the_training_images(cells: Path) -> None:
    prepare.main()
    prepared = Prepared.open()
    pixels = np.concatenate(
        [np.array(Image.open(cells / f"images/{name}.png")).ravel() for name in prepared.names("train")]
    )
    assert prepared.statistics.mean == pytest.approx((pixels.mean() / 255,), rel=1e-12)
    assert prepared.statistics.std == pytest.approx((pixels.std() / 255,), rel=1e-12)


def test_a_second_run_writes_the_same_bytes_and_leaves_no_old_file(
    cells: Path, project: Path, tree: Callable[[Path], dict[str, str]]
) -> None:
    prepare.main()
    first = tree(project / "data/prepared")
    (project / "data/prepared/images/stale.npy").touch()
    prepare.main()
    assert tree(project / "data/prepared") == first
    assert {path.name for path in (project / "data").iterdir()} == {"raw", "prepared"}
    del cells


def test_ignored_pixels_are_255_in_targets_and_classes(cells: Path) -> None:
    spec = files.read_yaml(cells / "dataset.yaml")
    files.write_yaml(cells / "dataset.yaml", spec | {"ignore": 77})
    classes = np.array(Image.open(cells / "classes/cells-000.png"))
    classes[:10] = 77
    imagefiles.write_png(cells / "classes/cells-000.png", classes)
    prepare.main()
    prepared = Prepared.open()
    assert prepared.dataset.ignore == IGNORE
    for array in (prepared.target("cells-000"), prepared.classes("cells-000")):
        assert (array[:10] == IGNORE).all()
        assert (array[10:] < 3).all()
    assert (prepared.instances("cells-000")[:10] == 0).all()


def test_grey_images_are_written_as_rgb_if_some_are_rgb(cells: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Compare with numpy on the files: three equal channels, and statistics of the written arrays."""
    grey = np.array(Image.open(cells / "images/cells-002.png"))
    colour = np.stack([grey, 255 - grey, grey // 2], axis=2)
    imagefiles.write_png(cells / "images/cells-002.png", colour)
    prepare.main()
    prepared = Prepared.open()
    channels = prepared.manifest.set_index("image")["channels"]
    assert channels.to_dict() == {name: "3" if name == "cells-002" else "1" for name in channels.index}
    for name in channels.index:
        image = np.array(Image.open(cells / f"images/{name}.png"))
        expected = image if image.ndim == 3 else np.stack([image] * 3, axis=2)
        np.testing.assert_array_equal(prepared.image(name), expected)
    train = np.concatenate([prepared.image(name).reshape(-1, 3) for name in prepared.names("train")])
    assert prepared.statistics.channels == 3
    assert prepared.statistics.mean == pytest.approx(train.mean(axis=0) / 255, rel=1e-12)
    assert prepared.statistics.std == pytest.approx(train.std(axis=0) / 255, rel=1e-12)
    assert "5 images are grey and 1 RGB; grey images are read as RGB" in capsys.readouterr().err


def test_real_grey_and_rgb_images_are_prepared_together(project: Path, shared_data: Callable[[str], Path]) -> None:
    """Take a few nuclei in fluorescence and a few in stained tissue."""
    source = shared_data("dsb2018")
    folder = project / "data/raw/nuclei"
    for kind in ("images", "instances"):
        (folder / kind).mkdir(parents=True)
    wanted = {"L": 4, "RGB": 2}
    for file in sorted((source / "images").iterdir()):
        with Image.open(file) as image:
            mode = image.mode
        if wanted.get(mode):
            wanted[mode] -= 1
            shutil.copy(file, folder / "images")
            shutil.copy(source / "masks" / file.name, folder / "instances")
    assert not any(wanted.values())
    spec = {"name": "nuclei", "classes": {0: "background", 1: "nucleus"}, "labels": "instances"}
    files.write_yaml(folder / "dataset.yaml", spec)
    (project / "params.yaml").write_text('data: {source: data/raw/nuclei}\nruntime: {progress: "off"}\n')
    prepare.main()
    weights.main()
    prepared = Prepared.open()
    assert sorted(prepared.manifest["channels"]) == ["1"] * 4 + ["3"] * 2
    assert {prepared.image(name).shape[2] for name in prepared.manifest["image"]} == {3}


def test_an_error_in_the_dataset_keeps_the_former_output(
    cells: Path, project: Path, tree: Callable[[Path], dict[str, str]]
) -> None:
    prepare.main()
    before = tree(project / "data/prepared")
    imagefiles.write_png(cells / "classes/cells-001.png", np.zeros((5, 5), np.uint8))
    with pytest.raises(UnfitError, match=r"classes/cells-001\.png +has 5x5 px"):
        prepare.main()
    assert tree(project / "data/prepared") == before


def test_an_unknown_name_in_a_split_is_refused(cells: Path, project: Path) -> None:
    with (project / "params.yaml").open("a") as file:
        file.write("prepare: {test: [cells-07]}\n")
    with pytest.raises(
        SplitError, match=r"prepare\.test: 'cells-07' is neither an image nor a group; similar names: cells-00"
    ):
        prepare.main()
    assert not (project / "data/prepared").exists()
    del cells


def test_progress_is_shown_on_standard_error(cells: Path, project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = project / "params.yaml"
    file.write_text(file.read_text().replace('"off"', "lines"))
    prepare.main()
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "prepare 6/6" in captured.err
    assert "3 train, 2 validation, 1 test images" in captured.err
    del cells


@pytest.mark.parametrize("stage", ["sample", "prepare", "weights"])
def test_light_stages_do_not_import_torch(stage: str, repository: Path) -> None:
    heavy = "[name for name in ('torch', 'mlflow', 'scipy', 'skimage', 'albumentations') if name in sys.modules]"
    code = f"import sys; import segline.stages.{stage}; print({heavy})"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(repository / "src")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"
