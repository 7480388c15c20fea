"""The command check, judged by its output and by the exit code of the real program."""

from pathlib import Path

import numpy as np
import pytest

from segline import cli, files
from segline.commands.check import GroupsFileError, main
from segline.data import imagefiles
from segline.data.checks.problems import UnfitError
from segline.data.dataset import DatasetError
from segline.params import ParamsError

PARAMS = """\
data: {source: data/raw/small}
model: {depth: 4, padding: valid}
"""


@pytest.fixture
def dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write twelve images of 96 x 96 px to data/raw/small, next to params.yaml."""
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(PARAMS)
    folder = Path("data/raw/small")
    for index in range(12):
        picture = np.random.default_rng(index).integers(0, 255, (96, 96), np.uint8)
        imagefiles.write_png(folder / "images" / f"{index:02}.png", picture)
        imagefiles.write_png(
            folder / "classes" / f"{index:02}.png", np.repeat(np.eye(2, dtype=np.uint8), 48, 0).repeat(48, 1)
        )
    spec = {"name": "small", "classes": {0: "background", 1: "cell"}, "labels": "classes"}
    files.write_yaml(folder / "dataset.yaml", spec)
    return folder


def told(folder: Path | None = None, groups: Path | None = None, every: bool = False) -> list[str]:
    lines: list[str] = []
    main(folder, groups, every, "off", lines.append)
    return "\n".join(lines).splitlines()


def test_a_sound_dataset_has_no_errors(dataset: Path) -> None:
    assert told() == told(dataset) == ["data/raw/small: 12 images: no errors, no warning(s)"]


def test_without_params_a_dataset_must_be_named(dataset: Path) -> None:
    Path("params.yaml").unlink()
    assert told(dataset) == ["data/raw/small: 12 images: no errors, no warning(s)"]
    with pytest.raises(ParamsError, match=r"params\.yaml is missing"):
        told()


def test_errors_are_refused_with_the_table(dataset: Path) -> None:
    (dataset / "classes" / "03.png").write_bytes(b"")
    (dataset / "classes" / "04.png").unlink()
    with pytest.raises(UnfitError, match=r"(?s)images/04\.png.*classes/03\.png.*2 error\(s\)"):
        told()


def test_splits_are_checked_by_params(dataset: Path) -> None:
    with Path("params.yaml").open("a") as file:
        file.write("prepare: {test: ['07'], validation: ['01', '99']}\n")
    with pytest.raises(
        UnfitError, match=r"error +params\.yaml +prepare\.validation: '99' is neither an image nor a group"
    ):
        told()
    other = dataset.rename(dataset.with_name("other"))
    assert told(other)[-1].endswith("no errors, no warning(s)"), "names of another dataset"


def test_similar_images_in_two_splits_are_reported(dataset: Path) -> None:
    with Path("params.yaml").open("a") as file:
        file.write("prepare: {test: ['07'], validation: ['01', '02']}\n")
    (dataset / "images" / "03.png").write_bytes((dataset / "images" / "07.png").read_bytes())
    with pytest.raises(
        UnfitError, match=r"error +images/03\.png +in split train: same pixels as images/07\.png in split test"
    ):
        told()


def test_groups_are_written_despite_errors(dataset: Path) -> None:
    (dataset / "images" / "03.png").write_bytes((dataset / "images" / "07.png").read_bytes())
    (dataset / "images" / "05.png").write_bytes(b"")
    groups = Path("groups.csv")
    with pytest.raises(UnfitError, match=r"images/05\.png"):
        told(groups=groups)
    table = files.read_table(groups).set_index("image")["group"].to_dict()
    assert table == {f"{index:02}": "03" if index == 7 else f"{index:02}" for index in range(12)}
    with pytest.raises(GroupsFileError, match=r"--groups groups\.csv: the file exists already"):
        told(groups=groups)


def test_images_smaller_than_the_margin_are_warnings(dataset: Path) -> None:
    small = np.random.default_rng(9).integers(0, 255, (92, 200), np.uint8)
    imagefiles.write_png(dataset / "images" / "03.png", small)
    imagefiles.write_png(dataset / "classes" / "03.png", small // 128)
    lines = [line for line in told() if "images/03.png" in line]
    assert len(lines) == 1 and lines[0].startswith("warning  images/03.png")
    assert (
        "the shorter side of the image has 92 px, but the network needs 92 px more; the image is mirrored repeatedly"
        in lines[0]
    )
    Path("params.yaml").write_text(PARAMS.replace("valid", "same"))
    assert not any("images/03.png" in line for line in told())


def test_the_option_all_names_every_file(dataset: Path) -> None:
    for index in range(8):
        imagefiles.write_png(dataset / "images" / f"{index:02}.png", np.full((96, 96), index, np.uint8))
    assert [line.split()[1] for line in told()[:4]] == ["images/00.png", "images/01.png", "images/02.png", "5"]
    assert len(told(every=True)) == 9


def test_a_folder_without_dataset_is_refused(dataset: Path) -> None:
    with pytest.raises(DatasetError, match=r"data/raw holds no dataset\.yaml; `segline import data/raw --name NAME`"):
        told(dataset.parent)


@pytest.mark.parametrize("fault", [False, True])
def test_exit_code_tells_whether_there_are_errors(
    dataset: Path, fault: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if fault:
        (dataset / "images" / "03.png").write_bytes(b"")
    monkeypatch.setattr("sys.argv", ["segline", "check", str(dataset)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    captured = capsys.readouterr()
    assert ended.value.code == int(fault)
    assert ("no errors" in captured.out) != fault
    assert ("images/03.png" in captured.err) == fault
