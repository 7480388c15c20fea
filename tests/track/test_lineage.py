"""Where results come from, judged by git and DVC themselves."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from segline.track import lineage


def git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder as the working directory, with no git above it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    return tmp_path


@pytest.fixture
def checkout(folder: Path) -> Path:
    """A git checkout with one commit."""
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
def test_without_git() -> None:
    assert lineage.git() == {"git.commit": "no git", "git.dirty": "unknown"}


def test_before_the_first_commit(folder: Path) -> None:
    git("init", "-q")
    (folder / "code.py").touch()
    assert lineage.git() == {"git.commit": "no commit yet", "git.dirty": "true"}


def test_without_the_git_program(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
def test_checkout(checkout: Path, file: str | None, dirty: str) -> None:
    if file:
        (checkout / file).parent.mkdir(exist_ok=True)
        (checkout / file).write_text("changed")
    assert lineage.git() == {"git.commit": git("rev-parse", "HEAD"), "git.dirty": dirty}


@pytest.mark.usefixtures("checkout")
def test_who_is_at_work() -> None:
    assert lineage.who() == "Ada"


@pytest.mark.usefixtures("folder")
def test_who_without_git(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "grace")
    assert lineage.who() == "grace"


def test_md5_is_the_one_in_dvc_lock(folder: Path) -> None:
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


def test_lock_is_believed_only_while_it_can_be_true(folder: Path) -> None:
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


def test_md5_of_what_is_not_there(folder: Path) -> None:
    with pytest.raises(FileNotFoundError):
        lineage.digest(folder / "data")


def test_combined_md5_knows_names_but_no_order() -> None:
    one = lineage.combined_md5({"weights": "1", "code": "2"})
    assert one == lineage.combined_md5({"code": "2", "weights": "1"})
    assert (
        len({one, *(lineage.combined_md5(parts) for parts in ({"weights": "2", "code": "1"}, {"weights": "1"}))}) == 3
    )


def test_tags_of_a_stage(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
