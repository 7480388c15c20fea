"""Call git in clones with other line ends, in hooks, and in repositories that it refuses."""

import hashlib
import json
import os
import subprocess
from pathlib import Path

import pytest

from segline.track import commits, git, lineage, packaging

PIPELINE = "stages:\n  register: {cmd: a, deps: [src/a.py, src/b.py]}\n"
FILES = {
    "dvc.yaml": PIPELINE,
    "params.yaml": "train: {epochs: 3}\n",
    "src/a.py": "a = 1\n",
    "src/b.py": "b = 1\nc = 2\n",
}
HOOK = {
    "GIT_DIR": "/nowhere/.git",
    "GIT_INDEX_FILE": "/nowhere/index",
    "GIT_WORK_TREE": "/nowhere",
    "GIT_PREFIX": "src/",
    "GIT_COMMON_DIR": "/nowhere",
    "GIT_OBJECT_DIRECTORY": "/nowhere",
    "GIT_NAMESPACE": "other",
    "GIT_LITERAL_PATHSPECS": "1",
    "GIT_EXTERNAL_DIFF": "false",
}


def run(folder: Path, *arguments: str) -> str:
    command = ["git", "-c", "user.name=Ada", "-c", "user.email=ada@example.org", *arguments]
    done = subprocess.run(command, cwd=folder, env=git.surroundings(), capture_output=True, text=True, check=True)
    return done.stdout.strip()


def write(folder: Path, content: dict[str, str]) -> None:
    for name, text in content.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(text.encode())


@pytest.fixture
def origin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a committed project; the settings of the user are ignored."""
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    folder = tmp_path / "überall" / "origin"
    folder.mkdir(parents=True)
    write(folder, FILES)
    run(folder, "init", "-q")
    run(folder, "add", "-A")
    run(folder, "commit", "-qm", "one")
    return folder


def clone(origin: Path, *arguments: str) -> Path:
    folder = origin.with_name("clone")
    run(origin.parent, "clone", "-q", *arguments, f"file://{origin}", str(folder))
    return folder


def test_a_checkout_with_crlf_equals_its_commit(origin: Path) -> None:
    windows = clone(origin, "-c", "core.autocrlf=true")
    assert b"\r\n" in (windows / "src" / "b.py").read_bytes()
    assert commits.here(windows) == commits.here(origin)
    assert commits.find(commits.here(windows), windows).commit == run(origin, "rev-parse", "HEAD")
    assert packaging.read_sources(windows / "src") == packaging.read_sources(origin / "src")
    write(windows, {"src/a.py": "a = 2\r\n"})
    assert commits.find(commits.here(windows), windows).commit is None


def test_a_version_recorded_with_crlf_is_found(origin: Path) -> None:
    tags = commits.here(origin)
    texts = {path: (origin / path).read_bytes().replace(b"\n", b"\r\n") for path in ("src/a.py", "src/b.py")}
    md5s = {path: hashlib.md5(text, usedforsecurity=False).hexdigest() for path, text in texts.items()}
    recorded = {**tags, commits.CODE_FILES: json.dumps(md5s)}
    assert commits.find(recorded, origin).commit == run(origin, "rev-parse", "HEAD")


def test_filters_and_encodings_are_undone_as_git_does(origin: Path) -> None:
    write(origin, {".gitattributes": "src/a.py ident\nsrc/b.py working-tree-encoding=UTF-16LE\n"})
    (origin / "src/b.py").write_bytes("b = 'ü'\n".encode("utf-16-le"))
    write(origin, {"src/a.py": "# $Id$\n"})
    run(origin, "add", "-A")
    run(origin, "commit", "-qm", "attributes")
    copy = clone(origin)
    assert b"$Id:" in (copy / "src/a.py").read_bytes()
    assert git.stored(copy, ["src/a.py", "src/b.py"]) == {"src/a.py": b"# $Id$\n", "src/b.py": "b = 'ü'\n".encode()}
    assert commits.find(commits.here(copy), copy).commit == run(origin, "rev-parse", "HEAD")


def test_stored_writes_no_object_to_the_repository(origin: Path) -> None:
    write(origin, {"src/a.py": "a = 'new'\n"})
    before = sorted((origin / ".git" / "objects").rglob("*"))
    assert git.stored(origin, ["src/a.py", "gone"]) == {"src/a.py": b"a = 'new'\n"}
    assert sorted((origin / ".git" / "objects").rglob("*")) == before


def test_a_byte_order_mark_does_not_change_the_md5(origin: Path) -> None:
    tags = commits.here(origin)
    (origin / "params.yaml").write_bytes(b"\xef\xbb\xbftrain: {epochs: 3}\r\n")
    assert commits.here(origin) == tags


@pytest.mark.parametrize("where", ["repository", "worktree", "submodule"])
def test_answers_are_the_same_in_a_hook(origin: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    project = origin
    if where == "worktree":
        run(origin, "worktree", "add", "-q", "../linked", "HEAD")
        project = origin.with_name("linked")
    elif where == "submodule":
        outer = origin.with_name("outer")
        outer.mkdir()
        run(outer, "init", "-q")
        run(outer, "-c", "protocol.file.allow=always", "submodule", "add", "-q", str(origin), "inner")
        project = outer / "inner"
    monkeypatch.chdir(project)
    answers = lambda: (commits.find(commits.here(), project), lineage.git())  # noqa: E731
    outside = answers()
    assert outside[0].commit == outside[1]["git.commit"]
    for name, value in HOOK.items():
        monkeypatch.setenv(name, value)
    assert answers() == outside


def test_identity_and_access_settings_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GIT_AUTHOR_NAME", "GIT_SSH_COMMAND", "GIT_CONFIG_COUNT", "DVC_NO_ANALYTICS"):
        monkeypatch.setenv(name, "x")
    for name in (*HOOK, "DVC_ROOT", "MLFLOW_TRACKING_URI"):
        monkeypatch.setenv(name, "x")
    kept = git.surroundings()
    assert {"GIT_AUTHOR_NAME", "GIT_SSH_COMMAND", "GIT_CONFIG_COUNT", "DVC_NO_ANALYTICS"} <= kept.keys()
    assert not {*HOOK, "DVC_ROOT", "MLFLOW_TRACKING_URI"} & kept.keys()


def test_a_bare_repository_with_a_work_tree_is_used(
    origin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (origin / ".git").rename(tmp_path / "bare.git")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "bare.git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(origin))
    assert commits.find(commits.here(origin), origin).commit


def test_a_shallow_clone_is_reported(origin: Path) -> None:
    tags = commits.here(origin)
    write(origin, {"src/a.py": "a = 9\n"})
    run(origin, "commit", "-qam", "two")
    assert "git fetch --unshallow" in commits.find(tags, clone(origin, "--depth=1")).why


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to somebody else")
def test_a_repository_of_another_user_is_reported_with_a_fix(origin: Path) -> None:
    os.chown(origin, 12345, 12345)
    os.chown(origin / ".git", 12345, 12345)
    assert f"safe.directory '{origin}'" in commits.find(commits.here(origin), origin).why


@pytest.mark.parametrize(
    "setting", ["core.fsmonitor=false-program", "diff.external=false", "status.branch=true", "core.quotePath=true"]
)
def test_user_settings_do_not_change_answers(origin: Path, monkeypatch: pytest.MonkeyPatch, setting: str) -> None:
    monkeypatch.chdir(origin)
    before = lineage.git()
    run(origin, "config", *setting.split("="))
    assert lineage.git() == before
    assert commits.find(commits.here(origin), origin).commit == before["git.commit"]
