"""Find the commit of a version in repositories with a known history."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from segline.track import commits

PIPELINE = """
stages:
  prepare: {cmd: a, deps: [data/raw, src/a.py, requirements.txt]}
  register: {cmd: b, deps: [src/a.py, src/b.py]}
  later: {cmd: c, deps: [src/later.py]}
"""
START = {
    "dvc.yaml": PIPELINE,
    "params.yaml": "train: {epochs: 3}\nruntime: {threads: 1}\n",
    "requirements.txt": "torch==2\n",
    "src/a.py": "a = 1\n",
    "src/b.py": "b = 1\n",
    "src/later.py": "c = 1\n",
}
MODEL, DATA = "a" * 32, "b" * 32
Git = Callable[..., str]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a project without commits in a subfolder of its repository."""
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name, raising=False)
    root = tmp_path / "repository" / "the project"
    root.mkdir(parents=True)
    write(root, START)
    return root


@pytest.fixture
def git(root: Path) -> Git:
    """Return a function that calls git in the project."""
    identity = {f"GIT_{role}_{what}": "x" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}

    def call(*arguments: str) -> str:
        done = subprocess.run(
            ["git", *arguments], cwd=root, env=os.environ | identity, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    subprocess.run(["git", "init", "-q"], cwd=root.parent, check=True)
    return call


@pytest.fixture
def commit(git: Git, root: Path) -> Callable[..., str]:
    """Return a function that writes files, commits everything and returns the commit."""

    def call(changes: dict[str, str] | None = None) -> str:
        write(root, changes or {})
        git("add", "-A")
        git("commit", "-q", "--allow-empty", "-m", "x")
        return git("rev-parse", "HEAD")

    return call


def write(root: Path, content: dict[str, str]) -> None:
    for name, text in content.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(text)


def tags(root: Path) -> dict[str, str]:
    return {**commits.here(root), "model.md5": MODEL, "data.md5": f"{DATA}.dir"}


def test_missing_git_is_reported(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    version_tags = tags(root)
    assert "git repository" in commits.find(version_tags, root).why
    monkeypatch.setenv("PATH", "")
    assert commits.find(version_tags, root).why == "there is no git on PATH"


def test_a_repository_without_commits_is_reported(root: Path, git: Git) -> None:
    assert git("status", "--short")
    assert commits.find(tags(root), root).why == "there is no commit yet"


def test_a_commit_made_after_the_run_is_found(root: Path, commit: Callable[..., str]) -> None:
    commit()
    for change, what in (
        ({"src/b.py": "b = 2\n"}, "src/b.py"),
        ({"params.yaml": "train: {epochs: 4}\n"}, "params.yaml"),
        ({"dvc.yaml": PIPELINE.replace("cmd: b", "cmd: bb")}, "dvc.yaml"),
        ({"requirements.txt": "torch==3\n"}, "requirements.txt"),
    ):
        write(root, change)
        version_tags = tags(root)
        missing = commits.find(version_tags, root)
        assert missing.commit is None
        assert missing.why == f"no commit holds these files as the version used them: {what}"
        made = commit()
        assert commits.find(version_tags, root).commit == made


@pytest.mark.parametrize(
    "change",
    [
        {"params.yaml": "# another comment\nruntime: {threads: 8}\ntrain:\n  epochs: 3  # passes\n"},
        {"dvc.yaml": "# the stages\n" + PIPELINE},
        {"src/later.py": "c = 2\n"},
        {"README.md": "read me\n"},
    ],
)
def test_comments_and_later_stages_may_differ(root: Path, commit: Callable[..., str], change: dict[str, str]) -> None:
    version_tags = tags(root)
    commit()
    made = commit(change)
    assert commits.find(version_tags, root).commit == made


def test_later_commits_with_other_content_are_skipped(root: Path, commit: Callable[..., str]) -> None:
    version_tags = tags(root)
    commit()
    second = commit({"README.md": "x\n"})
    commit({"src/a.py": "a = 3\n"})
    assert commits.find(version_tags, root).commit == second
    # Each file is in some commit, but no commit holds all of them.
    write(root, {**START, "src/a.py": "a = 3\n", "params.yaml": "train: {epochs: 9}\n"})
    commit()
    write(root, {"src/a.py": "a = 1\n"})
    assert commits.find(tags(root), root).commit is None


def test_a_commit_with_the_dvc_lock_takes_precedence(root: Path, commit: Callable[..., str]) -> None:
    version_tags = tags(root)
    commit()
    made = commit({"dvc.lock": "old\n"})
    assert commits.find(version_tags, root) == commits.Origin(made, locked=False)
    locked = commit({"dvc.lock": f"data: {DATA}.dir\nmodel: {MODEL}\n"})
    commit({"dvc.lock": f"data: {DATA}.dir\nmodel: another\n"})
    assert commits.find(version_tags, root) == commits.Origin(locked, locked=True)


def test_only_commits_that_a_clone_gets_are_searched(root: Path, commit: Callable[..., str], git: Git) -> None:
    first = commit()
    write(root, {"src/a.py": "a = 4\n"})
    version_tags = tags(root)
    git("stash")
    assert commits.find(version_tags, root).commit is None
    git("checkout", "-q", "-b", "elsewhere")
    made = commit({"src/a.py": "a = 4\n"})
    git("checkout", "-q", first)
    assert commits.find(version_tags, root).commit == made
    git("branch", "-q", "-D", "elsewhere")
    assert commits.find(version_tags, root).commit is None
    git("tag", "kept", made)
    assert commits.find(version_tags, root).commit == made


def test_a_version_without_tags_needs_another_registration(root: Path) -> None:
    assert "dvc repro -f -s register" in commits.find({"model.md5": MODEL}, root).why


def test_an_unreadable_file_of_a_commit_is_skipped(root: Path, commit: Callable[..., str]) -> None:
    version_tags = tags(root)
    made = commit()
    (root / "params.yaml").write_bytes(b"\xff: [")
    commit()
    assert commits.find(version_tags, root).commit == made
