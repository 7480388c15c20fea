"""The project as it was at a commit, in a folder of its own: the user's working tree is never touched."""

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dvc.config import Config, ConfigError
from ruamel.yaml import YAML

from segline.track.git import surroundings


class ElsewhereError(RuntimeError):
    """What a commit holds cannot be had; the message says what is missing."""


class Elsewhere:
    """A clone of the project's repository that shares its git objects, its DVC cache and its DVC remotes."""

    def __init__(self, root: Path, folder: Path) -> None:
        """Clone the repository that `root`, the project's folder, is in into `folder`, which must be new or empty.

        Raises
        ------
        ElsewhereError
            `root` is in no git repository, or not a DVC project.
        """
        top = Path(_run(["git", "rev-parse", "--show-toplevel"], root))
        _run(["git", "clone", "--quiet", "--shared", "--no-checkout", str(top), str(folder)], top)
        self.project = folder / root.resolve().relative_to(top.resolve())
        """The folder of the project in the clone."""
        try:
            # Addresses that are relative to .dvc are of this project's, not of the clone's: read, they are absolute.
            self._config = Config(str(root / ".dvc"))
        except ConfigError as error:
            raise ElsewhereError(f"{root / '.dvc'}: {error}") from error
        self._cache = self._config["cache"].get("dir") or str(root / ".dvc" / "cache")

    def go_to(self, commit: str) -> None:
        """Have the files of a commit in the clone."""
        _run(["git", "checkout", "--quiet", "--force", "--detach", commit], self._top())
        _run(["git", "clean", "-ffdxq"], self._top())  # data of the commit before, which git does not know
        dvc = self.project / ".dvc"
        if not dvc.is_dir():
            raise ElsewhereError(f"commit {commit[:10]} is no DVC project")
        with Config(str(dvc)).edit("local") as config:  # which git ignores; the commit's own may know no remote yet
            config["cache"]["dir"] = self._cache
            config["remote"] = self._config["remote"]
            if remote := self._config["core"].get("remote"):
                config["core"]["remote"] = remote

    def fetch(self, paths: Iterable[str]) -> None:
        """Have the data at `paths`, outputs in dvc.lock or .dvc files, from the cache or else from the remote.

        Raises
        ------
        ElsewhereError
            It is in neither.
        """
        wanted = [path for path in paths if not (self.project / path).exists()]
        if not wanted:
            return
        try:
            _dvc(["checkout", "--quiet", *wanted], self.project)
        except ElsewhereError:
            try:
                _dvc(["pull", *wanted], self.project)
            except ElsewhereError as error:
                commit = _run(["git", "rev-parse", "--short", "HEAD"], self._top())
                raise ElsewhereError(
                    f"its data is neither in the cache nor in the remote; where it was made, `git checkout {commit} && "
                    f"dvc checkout && dvc push` brings it there ({error})"
                ) from error

    def lock(self) -> dict[str, Any]:
        """The stages in dvc.lock."""
        file = self.project / "dvc.lock"
        if not file.is_file():
            return {}
        stages: dict[str, Any] = (YAML(typ="safe", pure=True).load(file.read_text()) or {}).get("stages", {})
        return stages

    def _top(self) -> Path:
        found = self.project
        while not (found / ".git").exists():
            found = found.parent
        return found


def commits_holding(root: Path, md5: str) -> list[str]:
    """The commits that a clone gets whose dvc.lock names `md5`, the newest first."""
    if not md5:
        return []
    changed = _run(["git", "rev-list", "--branches", "--tags", "--remotes", "HEAD", "--", "dvc.lock"], root).split()
    return [
        commit
        for commit in changed
        if md5 in _run(["git", "cat-file", "blob", f"{commit}:./dvc.lock"], root, check=False)
    ]


def _dvc(arguments: list[str], folder: Path) -> str:
    return _run([sys.executable, "-m", "dvc", *arguments], folder)


def _run(command: list[str], folder: Path, *, check: bool = True) -> str:
    done = subprocess.run(command, cwd=folder, env=surroundings(), capture_output=True, text=True, check=False)
    if check and done.returncode:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()
        name = " ".join(part for part in command if part not in (sys.executable, "-m"))
        raise ElsewhereError(f"{name[:120]}: {' '.join(said[-4:])}")
    return done.stdout.strip()
