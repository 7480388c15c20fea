"""The commit that a version was made from, in repositories whose course is known."""

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
    """A project that is not committed yet, below the top of its repository."""
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name, raising=False)
    root = tmp_path / "repository" / "the project"
    root.mkdir(parents=True)
    write(root, START)
    return root


@pytest.fixture
def git(root: Path) -> Git:
    """Call git in the project."""
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
    """Write files, commit all there is and return the commit."""

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


def test_there_is_no_git(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = tags(root)
    assert "git repository" in commits.find(known, root).why
    monkeypatch.setenv("PATH", "")
    assert commits.find(known, root).why == "there is no git on PATH"


def test_there_is_no_commit(root: Path, git: Git) -> None:
    assert git("status", "--short")
    assert commits.find(tags(root), root).why == "there is no commit yet"


def test_what_was_run_before_its_commit_is_found_after_it(root: Path, commit: Callable[..., str]) -> None:
    commit()
    for change, what in (
        ({"src/b.py": "b = 2\n"}, "src/b.py"),
        ({"params.yaml": "train: {epochs: 4}\n"}, "params.yaml"),
        ({"dvc.yaml": PIPELINE.replace("cmd: b", "cmd: bb")}, "dvc.yaml"),
        ({"requirements.txt": "torch==3\n"}, "requirements.txt"),
    ):
        write(root, change)
        known = tags(root)
        missing = commits.find(known, root)
        assert missing.commit is None
        assert missing.why == f"no commit holds what it was made from: {what}"
        made = commit()
        assert commits.making(known, root) == made


@pytest.mark.parametrize(
    "change",
    [
        {"params.yaml": "# said anew\nruntime: {threads: 8}\ntrain:\n  epochs: 3  # passes\n"},
        {"dvc.yaml": "# the stages\n" + PIPELINE},
        {"src/later.py": "c = 2\n"},
        {"README.md": "read me\n"},
    ],
)
def test_what_shapes_nothing_need_not_be_equal(root: Path, commit: Callable[..., str], change: dict[str, str]) -> None:
    known = tags(root)
    commit()
    made = commit(change)
    assert commits.making(known, root) == made


def test_a_later_commit_with_other_content_is_passed_over(root: Path, commit: Callable[..., str]) -> None:
    known = tags(root)
    commit()
    second = commit({"README.md": "x\n"})
    commit({"src/a.py": "a = 3\n"})
    assert commits.making(known, root) == second
    # The content of each is in some commit, but of no two in one.
    write(root, {**START, "src/a.py": "a = 3\n", "params.yaml": "train: {epochs: 9}\n"})
    commit()
    write(root, {"src/a.py": "a = 1\n"})
    assert commits.making(tags(root), root) is None


def test_the_lock_decides_between_commits_of_one_code(root: Path, commit: Callable[..., str]) -> None:
    known = tags(root)
    commit()
    made = commit({"dvc.lock": "old\n"})
    assert commits.find(known, root) == commits.Making(made, locked=False)
    locked = commit({"dvc.lock": f"data: {DATA}.dir\nmodel: {MODEL}\n"})
    commit({"dvc.lock": f"data: {DATA}.dir\nmodel: another\n"})
    assert commits.find(known, root) == commits.Making(locked, locked=True)


def test_only_what_a_clone_gets_counts(root: Path, commit: Callable[..., str], git: Git) -> None:
    first = commit()
    write(root, {"src/a.py": "a = 4\n"})
    known = tags(root)
    git("stash")
    assert commits.making(known, root) is None
    git("checkout", "-q", "-b", "elsewhere")
    made = commit({"src/a.py": "a = 4\n"})
    git("checkout", "-q", first)
    assert commits.making(known, root) == made
    git("branch", "-q", "-D", "elsewhere")
    assert commits.making(known, root) is None
    git("tag", "kept", made)
    assert commits.making(known, root) == made


def test_a_version_of_which_nothing_was_recorded(root: Path) -> None:
    assert "dvc repro -f -s register" in commits.find({"model.md5": MODEL}, root).why


def test_a_damaged_file_of_the_past_is_only_another_content(root: Path, commit: Callable[..., str]) -> None:
    known = tags(root)
    made = commit()
    (root / "params.yaml").write_bytes(b"\xff: [")
    commit()
    assert commits.making(known, root) == made
