"""Lineage of results, compared with the answers of git and DVC."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from segline.track import installed, lineage


def git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make an empty folder, outside of any repository, the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    return tmp_path


@pytest.fixture
def checkout(folder: Path) -> Path:
    """Make a git checkout with one commit."""
    git("init", "-q")
    git("config", "user.name", "Ada")
    git("config", "user.email", "ada@example.org")
    (folder / "code.py").write_text("x = 1\n")
    (folder / ".gitignore").write_text("mlruns\n")
    git("add", "-A")
    git("commit", "-qm", "first")
    return folder


def write_lock(folder: Path, path: str, **entry: object) -> None:
    content = {"schema": "2.0", "stages": {"prepare": {"outs": [{"path": path, "hash": "md5", **entry}]}}}
    with (folder / "dvc.lock").open("w") as stream:
        YAML().dump(content, stream)
    later = time.time() + 10
    os.utime(folder / "dvc.lock", (later, later))


@pytest.mark.usefixtures("folder")
def test_without_a_repository_there_is_no_commit() -> None:
    assert lineage.git() == {"git.commit": "no git", "git.dirty": "unknown"}


def test_a_repository_without_commits_is_dirty(folder: Path) -> None:
    git("init", "-q")
    (folder / "code.py").touch()
    assert lineage.git() == {"git.commit": "no commit yet", "git.dirty": "true"}


def test_without_the_git_program_there_is_no_commit(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(checkout))
    assert lineage.git() == {"git.commit": "no git", "git.dirty": "unknown"}


@pytest.mark.parametrize(
    ("file", "dirty"),
    [
        (None, "false"),
        ("code.py", "true"),
        ("new.py", "true"),
        ("mlruns/x", "false"),
        ("dvc.lock", "false"),  # every stage of a run rewrites it
        ("registry.jsonl", "false"),
    ],
)
def test_a_changed_or_new_file_makes_the_checkout_dirty_and_a_record_does_not(
    checkout: Path, file: str | None, dirty: str
) -> None:
    if file:
        (checkout / file).parent.mkdir(exist_ok=True)
        (checkout / file).write_text("changed")
    assert lineage.git() == {"git.commit": git("rev-parse", "HEAD"), "git.dirty": dirty}


@pytest.mark.usefixtures("checkout")
def test_the_user_is_named_as_in_git() -> None:
    assert lineage.who() == "Ada"


@pytest.mark.usefixtures("folder")
def test_without_git_the_user_is_named_as_the_login(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "grace")
    assert lineage.who() == "grace"


def test_computed_md5s_equal_those_that_dvc_writes_to_its_lock(folder: Path) -> None:
    for name, content in {"a.npy": "1", "sub/b.npy": "2", "sub/ü.npy": "", "sub.npy": "3"}.items():
        (folder / "prepared" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "prepared" / name).write_text(content)
    stage = {"cmd": "true", "outs": ["prepared", "prepared.txt"]}
    (folder / "prepared.txt").write_text("a file")
    with (folder / "dvc.yaml").open("w") as stream:
        YAML().dump({"stages": {"prepare": stage}}, stream)
    for command in (["init", "--no-scm", "-q"], ["commit", "-f", "-q"]):
        subprocess.run([sys.executable, "-m", "dvc", *command], check=True)
    locked = {out["path"]: out["md5"] for out in YAML().load(folder / "dvc.lock")["stages"]["prepare"]["outs"]}
    assert {path: lineage.content_md5(Path(path)) for path in locked} == locked
    assert {path: lineage.digest(Path(path)) for path in locked} == locked


def test_the_lock_is_used_only_if_newer_and_equal_in_size_and_number_of_files(folder: Path) -> None:
    (folder / "data").mkdir()
    (folder / "data" / "a").write_text("abc")
    true = lineage.content_md5(Path("data"))
    write_lock(folder, "data", md5="believed.dir", size=3, nfiles=1)
    assert lineage.digest(Path("data")) == "believed.dir"
    for wrong in ({"size": 4, "nfiles": 1}, {"size": 3, "nfiles": 2}):
        write_lock(folder, "data", md5="believed.dir", **wrong)
        assert lineage.digest(Path("data")) == true
    write_lock(folder, "data", md5="believed.dir", size=3, nfiles=1)
    past = time.time() - 100
    os.utime(folder / "dvc.lock", (past, past))
    assert lineage.digest(Path("data")) == true
    write_lock(folder, "elsewhere", md5="believed.dir", size=3, nfiles=1)
    assert lineage.digest(Path("data")) == true


def test_the_md5_of_a_missing_folder_raises(folder: Path) -> None:
    with pytest.raises(FileNotFoundError):
        lineage.digest(folder / "data")


def test_the_combined_md5_depends_on_names_and_not_on_order() -> None:
    one = lineage.combined_md5({"weights": "1", "code": "2"})
    assert one == lineage.combined_md5({"code": "2", "weights": "1"})
    assert (
        len({one, *(lineage.combined_md5(parts) for parts in ({"weights": "2", "code": "1"}, {"weights": "1"}))}) == 3
    )


def test_a_stage_tags_its_run_with_code_data_and_machine(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_STAGE", "train")
    monkeypatch.setenv("DVC_EXP_NAME", "bumpy-cat")
    (checkout / "data" / "prepared").mkdir(parents=True)
    (checkout / "data" / "prepared" / "a").write_text("a")
    tags = lineage.tags(threads=2)
    assert tags["dvc.stage"] == "train"
    assert tags["dvc.exp"] == "bumpy-cat"
    assert tags["git.commit"] == git("rev-parse", "HEAD")
    assert tags["data.md5"] == lineage.content_md5(Path("data/prepared"))
    assert "weights.md5" not in tags
    assert tags["env.threads"] == "2"
    assert tags["env.torch"].startswith("2.")
    assert tags["env.cpu"]


def test_the_code_of_a_stage_is_that_of_its_rooms_without_prose(folder: Path) -> None:
    (folder / "dvc.yaml").write_text(
        "stages: {train: {cmd: x, deps: [data/raw, src/room, src/one.py, src/gone.py, requirements.txt]}}\n"
    )
    content = {"src/room/a.py": "a = 1\n", "src/room/inner/b.py": "b = 1\n", "src/room/notes.txt": "", "src/one.py": ""}
    for name, text in {**content, "src/other.py": "", "requirements.txt": "torch==2\n"}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    code = lineage.code("train")
    assert [*code] == ["requirements.txt", "src/one.py", "src/room/a.py", "src/room/inner/b.py"]
    (folder / "src/room/a.py").write_text('"""A room."""\na = 1  # one\n')
    assert lineage.code("train") == code
    (folder / "src/room/a.py").write_text("a = 2\n")
    changed = lineage.code("train")
    assert [path for path in code if code[path] != changed[path]] == ["src/room/a.py"]
    assert lineage.code("tune") == {}


def test_the_code_of_a_stage_without_sources_is_that_of_the_installed_segline(folder: Path) -> None:
    (folder / "dvc.yaml").write_text(
        "stages: {train: {cmd: x, deps: [data/raw], params: [{segline.yaml: [code.train]}, {best.yaml: null}]}}\n"
    )
    (folder / "segline.yaml").write_text("version: '0'\ncode: {train: other}\n")
    assert lineage.code("train") == {"segline.yaml": installed.digest("train")}
