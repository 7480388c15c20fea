"""Clone the project at a commit into a separate folder; the user's working tree stays unchanged."""

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from configobj import ConfigObj
from dvc.config import Config, ConfigError
from ruamel.yaml import YAML

from segline.track.git import surroundings


class CloneError(RuntimeError):
    """Raised if a commit or its data cannot be restored; the message says what is missing."""


class Clone:
    """A clone that shares git objects, DVC cache and DVC remotes with the project's repository."""

    def __init__(self, root: Path, folder: Path) -> None:
        """Clone the repository of the project at `root` into `folder`, which must be new or empty.

        Raises
        ------
        CloneError
            `root` is in no git repository, or is not a DVC project.
        """
        top = Path(_run(["git", "rev-parse", "--show-toplevel"], root))
        _run(["git", "clone", "--quiet", "--shared", "--no-checkout", str(top), str(folder)], top)
        self.project = folder / root.resolve().relative_to(top.resolve())
        """Project folder inside the clone."""
        try:
            # Read the DVC configuration of the project, not the copy in the clone: relative paths in the copy would
            # point into the clone.
            self._config = Config(str(root / ".dvc"))
        except ConfigError as error:
            raise CloneError(f"DVC's configuration in {root / '.dvc'} cannot be read: {error}") from error
        self._cache = self._config["cache"].get("dir") or str(root / ".dvc" / "cache")

    def check_out(self, commit: str) -> None:
        """Check out the files of a commit."""
        _run(["git", "checkout", "--quiet", "--force", "--detach", commit], self._top())
        _run(["git", "clean", "-ffdxq"], self._top())  # git checkout does not delete ignored files, such as data
        dvc = self.project / ".dvc"
        if not dvc.is_dir():
            raise CloneError(f"commit {commit[:10]} contains no folder .dvc, so its data cannot be restored")
        # The clone lacks .dvc/config.local, because git ignores this file. So set the cache and the remotes here.
        # Do not let DVC write the file: DVC reads UTF-8, but cannot write paths with letters beyond ASCII.
        local = ConfigObj(encoding="utf-8")
        local["cache"] = {"dir": self._cache}
        local["core"] = {name: value for name, value in self._config["core"].items() if name == "remote"}
        for name, options in self._config["remote"].items():
            local[f'remote "{name}"'] = options
        with (dvc / "config.local").open("wb") as file:
            local.write(file)

    def fetch(self, paths: Iterable[str]) -> None:
        """Restore the missing data at `paths` from the DVC cache, or else from the DVC remote.

        Each path is an output in dvc.lock or in a .dvc file.

        Raises
        ------
        CloneError
            The data is neither in the cache nor in the remote.
        """
        wanted = [path for path in paths if not (self.project / path).exists()]
        if not wanted:
            return
        try:
            run_dvc(["checkout", "--quiet", *wanted], self.project)
        except CloneError:
            try:
                run_dvc(["pull", *wanted], self.project)
            except CloneError as error:
                commit = _run(["git", "rev-parse", "--short", "HEAD"], self._top())
                raise CloneError(
                    f"the data of commit {commit} is neither in the DVC cache nor in the remote; on the machine that "
                    f"made the data, run `git checkout {commit} && dvc checkout && dvc push` ({error})"
                ) from error

    def lock(self) -> dict[str, Any]:
        """Return the stages in the clone's dvc.lock as a dict by name; the dict is empty if there is no dvc.lock."""
        file = self.project / "dvc.lock"
        if not file.is_file():
            return {}
        stages: dict[str, Any] = (YAML(typ="safe", pure=True).load(file.read_text()) or {}).get("stages", {})
        return stages

    def _top(self) -> Path:
        folder = self.project
        while not (folder / ".git").exists():
            folder = folder.parent
        return folder


def run_dvc(arguments: list[str], folder: Path) -> str:
    """Run DVC in `folder` and return its output; raise CloneError if DVC fails."""
    return _run([sys.executable, "-m", "dvc", *arguments], folder)


def _run(command: list[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, env=surroundings(), capture_output=True, text=True, check=False)
    if done.returncode:
        lines = (done.stderr.strip() or done.stdout.strip()).splitlines()
        name = " ".join(part for part in command if part not in (sys.executable, "-m"))
        raise CloneError(f"the command `{name[:120]}` failed: {' '.join(lines[-4:])}")
    return done.stdout.strip()
