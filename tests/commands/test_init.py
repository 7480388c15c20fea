"""`segline init`: judged by the files, by git and by DVC; nothing of the user's is lost."""

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from dvc.repo import Repo
from ruamel.yaml import YAML

from segline import files, params
from segline.commands import init
from segline.data import imagefiles
from segline.params import Params
from segline.track import git, installed

MADE = [
    ".dvc/.gitignore",
    ".dvc/config",
    ".dvcignore",
    ".gitattributes",
    ".gitignore",
    "README.md",
    "data/.gitkeep",
    "data/encoders/.gitkeep",
    "dvc.yaml",
    "mlruns/.gitkeep",
    "params.yaml",
    "segline.yaml",
]


def made(folder: Path, source: Path | None = None, name: str = "") -> list[str]:
    lines: list[str] = []
    init.main(folder, source, name, lines.append)
    return lines


def held(folder: Path) -> dict[str, bytes]:
    """Return the content of all files outside of .git."""
    inside = {file.relative_to(folder).as_posix(): file for file in folder.rglob("*") if file.is_file()}
    return {path: file.read_bytes() for path, file in inside.items() if not path.startswith(".git/")}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder with four images and masks."""
    folder = tmp_path / "My cells"
    rng = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    for name in "abcd":
        imagefiles.write_png(folder / "images" / f"{name}.png", rng.integers(0, 256, (40, 60), np.uint8))
        imagefiles.write_png(folder / "masks" / f"{name}.png", np.tile(np.arange(3, dtype=np.uint8), (40, 20)))
    return folder


@pytest.mark.parametrize("name", ["project", "Zellen für Müller", "new/inner"])
def test_a_new_folder_becomes_a_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    folder = tmp_path / name
    lines = made(folder)
    assert sorted(held(folder)) == MADE
    assert lines == [
        f"{folder}: new project for segline {installed.version()}",
        "Next:",
        f"  cd {init.quoted(folder)}",
        '  git commit -am "New project"',
        "  dvc repro",
        "  segline models list",
    ]
    assert git.call(folder, "diff", "--cached", "--name-only").decode().split() == MADE
    monkeypatch.chdir(folder)
    assert params.load(Params, params.PARAMS_FILE) == Params()
    assert params.automatic(files.read_yaml(params.PARAMS_FILE)) == [*params.PLANNED]
    assert installed.named() == installed.here()
    assert (folder / "README.md").read_text().startswith(f"# {folder.name}\n")
    assert "{" not in (folder / "README.md").read_text()
    with Repo() as repo:
        assert [stage.name for stage in repo.index.stages] == [*installed.ROOMS]


def test_an_existing_folder_keeps_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = {"README.md": b"# Mine\n", ".gitignore": b"*.tmp\n.venv/", "data/scan.png": b"scan", "notes.txt": b"notes"}
    for name, content in own.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    monkeypatch.chdir(tmp_path)
    lines = made(Path())
    after = held(tmp_path)
    assert sorted(after) == sorted({*MADE, *own})
    assert {name: after[name] for name in own if name != ".gitignore"} == {
        name: content for name, content in own.items() if name != ".gitignore"
    }
    ignored = after[".gitignore"].decode().splitlines()
    assert ignored[:2] == ["*.tmp", ".venv/"] and "/mlruns/*" in ignored and ignored.count("/data/?*") == 1
    assert not any(line.strip().startswith("cd ") for line in lines)


def test_a_project_in_a_repository_uses_that_repository(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    folder = tmp_path / "inner" / "project"
    made(folder)
    assert not (folder / ".git").exists()
    staged = git.call(tmp_path, "diff", "--cached", "--name-only").decode().split()
    assert staged == [f"inner/project/{path}" for path in MADE]
    (folder / "data/raw/cells").mkdir(parents=True)
    (folder / "data/raw/cells/image.png").write_bytes(b"")
    assert git.call(folder, "status", "--porcelain", "--untracked-files=all", "--", "data").decode().split() == [
        "A",
        "inner/project/data/.gitkeep",
        "A",
        "inner/project/data/encoders/.gitkeep",
    ]


@pytest.mark.parametrize(
    ("existing", "complaint"),
    [
        ("dvc.yaml", "holds a project already: dvc.yaml; choose another folder"),
        ("params.yaml", "holds a project already: params.yaml; choose another folder"),
        ("segline.yaml", "holds a project already: segline.yaml; choose another folder"),
        (".dvc/config", "is already a DVC repository; make the project in a new folder"),
        ("data/prepared/mine.npy", "holds data/prepared, which the stages of a project replace"),
        ("data/raw/cells/mine.tif", "holds data/raw/cells, which the stages of a project replace"),
        ("data", "data is a file, but a project has a folder there; rename the file"),
        (".gitignore/inner", ".gitignore is a folder, but a project has a file there; rename the folder"),
    ],
)
def test_nothing_of_the_user_is_overwritten_at_once_or_by_a_stage(
    tmp_path: Path, existing: str, complaint: str
) -> None:
    (tmp_path / existing).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / existing).write_text("mine")
    (tmp_path / "README.md").write_text("# Mine")
    with pytest.raises(init.InitError, match=re.escape(complaint)):
        made(tmp_path)
    assert held(tmp_path) == {existing: b"mine", "README.md": b"# Mine"}
    assert not (tmp_path / ".git").exists()


def test_the_outputs_of_all_stages_are_known(repository: Path) -> None:
    stages = YAML(typ="safe").load((repository / "src/segline/template/stages.yaml").read_text())["stages"]
    outs = [out for stage in stages.values() for kind in ("outs", "metrics", "plots") for out in stage.get(kind, ())]
    paths = [out if isinstance(out, str) else next(iter(out)) for out in outs]
    assert [path for path in paths if not any(Path(path).is_relative_to(known) for known in init.OUTPUTS)] == []


def test_links_are_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "data").symlink_to("elsewhere")
    with pytest.raises(init.InitError, match="data is a link, and git does not follow links"):
        made(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "elsewhere"]


def test_kept_files_stay_links_with_their_mode_and_their_changes(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    (tmp_path / "real.md").write_text("# Mine\n")
    (tmp_path / "README.md").symlink_to("real.md")
    (tmp_path / ".gitignore").write_text("*.tmp\n")
    (tmp_path / ".gitignore").chmod(0o600)
    made(tmp_path)
    assert (tmp_path / "README.md").readlink() == Path("real.md")
    assert (tmp_path / ".gitignore").stat().st_mode & 0o777 == 0o600
    assert "README.md" not in git.call(tmp_path, "diff", "--cached", "--name-only").decode().split()


@pytest.mark.parametrize(
    ("file", "rule"), [(".gitignore", "inner/"), (".gitignore", "*.lock"), (".git/info/exclude", "dvc.*")]
)
def test_a_project_that_git_ignores_is_refused_with_the_rule(tmp_path: Path, file: str, rule: str) -> None:
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    (tmp_path / file).write_text(f"{rule}\n")
    message = rf"git would ignore files that must be under version control.*: \S*{file}:1:{re.escape(rule)}"
    with pytest.raises(init.InitError, match=message):
        made(tmp_path / "inner")
    assert not (tmp_path / "inner").exists()


def test_lines_are_appended_in_their_order(tmp_path: Path) -> None:
    (tmp_path / ".gitignore").write_text("!/data/raw/\n!/data/raw/*.dvc\n")
    made(tmp_path)
    (tmp_path / "data/raw").mkdir()
    (tmp_path / "data/raw/mine.dvc").touch()
    status = git.call(tmp_path, "status", "--porcelain", "--untracked-files=all", "--", "data/raw").decode()
    assert status.split() == ["??", "data/raw/mine.dvc"]


def test_a_repository_that_git_does_not_read_is_not_taken_for_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(_: Path, *arguments: str) -> bytes:
        raise subprocess.CalledProcessError(128, arguments, stderr=b"fatal: detected dubious ownership in repository")

    monkeypatch.setattr(git, "call", refused)
    with pytest.raises(init.InitError, match=r"belongs to another user.*safe\.directory"):
        made(tmp_path / "project")
    assert list(tmp_path.iterdir()) == []


def test_a_bare_repository_is_refused(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", "--bare", tmp_path / "bare"], check=True)
    with pytest.raises(init.InitError, match="inside a git repository, but not in its working tree"):
        made(tmp_path / "bare" / "project")
    assert not (tmp_path / "bare" / "project").exists()


def test_the_source_must_not_hold_the_project(source: Path) -> None:
    with pytest.raises(
        init.InitError, match=r"would lie inside .*, the folder given with --import; make the project elsewhere"
    ):
        made(source / "project", source, "mine")
    with pytest.raises(init.InitError, match="--name mine names an imported dataset; give its images and labels"):
        made(source.parent / "project", None, "mine")
    assert sorted(path.name for path in source.iterdir()) == ["images", "masks"]


def test_a_file_is_not_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(init.InitError, match="is a file; choose the path of a new folder"):
        made(tmp_path / "file")


@pytest.mark.parametrize("at", ["params.yaml", "mlruns/.gitkeep"])
def test_a_failure_leaves_the_folder_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str) -> None:
    own = {".gitignore": b"*.tmp\n", "notes.txt": b"notes"}
    for name, content in own.items():
        (tmp_path / name).write_bytes(content)
    write = files.write_bytes

    def full(path: Path, data: bytes, *, settle: bool = False) -> None:
        if path == tmp_path / at:
            raise OSError(28, "No space left on device", str(path))
        write(path, data, settle=settle)

    monkeypatch.setattr(files, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        made(tmp_path)
    assert held(tmp_path) == own
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(own)


def test_a_machine_without_git_is_named_and_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    with pytest.raises(init.InitError, match="a project needs git, and there is no git on PATH"):
        made(tmp_path / "project")
    assert list(tmp_path.iterdir()) == []


def test_a_source_is_imported_added_and_named(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tmp_path = source.parent
    monkeypatch.chdir(tmp_path)
    lines = made(Path("project"), Path("My cells"), "cells-1")
    assert "data/raw/cells-1" in "\n".join(lines) and "How `segline import` understood the source:" in "\n".join(lines)
    monkeypatch.chdir(tmp_path / "project")
    assert params.load(Params, params.PARAMS_FILE).data.source == "data/raw/cells-1"
    assert params.automatic(files.read_yaml(params.PARAMS_FILE)) == [*params.PLANNED]
    assert lines[-4:] == ["  cd project", '  git commit -am "New project"', "  dvc repro", "  segline models list"]
    assert "# dataset folder, written by `segline import`" in Path("params.yaml").read_text()
    assert sorted(held(Path("data/raw/cells-1/images"))) == ["a.png", "b.png", "c.png", "d.png"]
    staged = git.call(Path(), "diff", "--cached", "--name-only").decode().split()
    assert sorted(staged) == sorted([*MADE, "data/raw/cells-1.dvc"])
    assert git.call(Path(), "diff", "--name-only") == b""
    with Repo() as repo:
        assert repo.status(targets=["data/raw/cells-1.dvc"]) == {}


@pytest.mark.parametrize(
    ("path", "name", "complaint"),
    [
        ("missing", "", r"--import missing does not exist"),
        ("My cells", "", r"'My cells' cannot be the name of a dataset; use --name to give another name"),
        ("My cells", "a/b", r"'a/b' cannot be the name of a dataset"),
        ("My cells", "a" * 201, r"cannot be the name of a dataset.*not longer than 200 characters"),
        ("My cells", "cells", r"the DVC stage `sample` writes its dataset cells to data/raw/cells; use --name"),
    ],
)
def test_a_wrong_source_or_name_leaves_nothing(
    source: Path, monkeypatch: pytest.MonkeyPatch, path: str, name: str, complaint: str
) -> None:
    tmp_path = source.parent
    monkeypatch.chdir(tmp_path)
    with pytest.raises(init.InitError, match=complaint):
        made(Path("project"), Path(path), name)
    assert list(tmp_path.iterdir()) == [source]


def test_after_a_failed_import_the_project_is_complete(tmp_path: Path, source: Path) -> None:
    shutil.rmtree(source / "masks")
    lines: list[str] = []
    with pytest.raises(ValueError, match="My cells"):
        init.main(tmp_path / "project", source, "mine", lines.append)
    folder = tmp_path / "project"
    assert lines[1:] == [
        f"The project is complete, but has no dataset of its own yet. The commands to import it:\n  cd {folder}",
        f"  segline import '{source}' --name mine",
    ]
    assert sorted(held(tmp_path / "project")) == MADE
