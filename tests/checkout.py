"""A checkout of segline with small settings, in which tests run a user's commands."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Self

import pytest
from ruamel.yaml import YAML

from segline.params import Params, merged

STAGES = ["sample", "prepare", "plan", "weights", "tune", "train", "evaluate", "register"]
COPIED = [
    "data/encoders/.gitkeep",
    "src",
    "dvc.yaml",
    "params.yaml",
    "requirements.txt",
    ".dvcignore",
    ".gitignore",
    ".dvc/config",
    ".dvc/.gitignore",
]
# All settings, none of them `auto`: a plan times the machine, so results would differ from one test run to the next.
LOAD = """
import sys
sys.modules["segline"] = None  # an import of segline fails
import mlflow, pandas as pd
from pathlib import Path
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model(sys.argv[2])
for image in sys.argv[4:]:
    table = pd.DataFrame({"image": [Path(image).read_bytes()]}, dtype=object)
    answer = model.predict(table, params={"instances": True})
    Path(sys.argv[3], Path(image).name).write_bytes(answer["labels"][0])
    Path(sys.argv[3], f"{Path(image).stem}_instances.png").write_bytes(answer["instances"][0])
assert not any(name.split(".")[0] == "segline" for name, module in sys.modules.items() if module)
"""
SMALL: dict[str, dict[str, Any]] = merged(
    Params().model_dump(mode="json"),
    {
        "sample": {"images": 6, "min_size": 64, "max_size": 80},
        "model": {"width": 4, "depth": 2, "padding": "valid", "norm": "none"},
        "train": {"epochs": 2, "tiles_per_epoch": 4, "batch_size": 2, "tile": 76, "validation_tiles": 4},
        "tune": {"trials": 2, "epochs": 1},
        "gate": {"min_mean_iou": 0.0, "max_pixel_error": 1.0},
        "runtime": {"threads": 1, "progress": "lines"},
    },
)


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Make a folder read-only in the with statement: by a mount for root, otherwise by permissions."""
    if os.geteuid() != 0:
        paths = [folder, *folder.rglob("*")]
        for path in paths:
            path.chmod(0o555 if path.is_dir() else 0o444)
        try:
            yield
        finally:
            for path in paths:
                path.chmod(0o755)
        return
    mounted = 0
    try:
        for options in (["--bind"], ["-o", "remount,ro,bind"]):
            if subprocess.run(["mount", *options, folder, folder], capture_output=True, check=False).returncode:
                pytest.skip("root, and no folder can be mounted read-only here")
            mounted += 1
        yield
    finally:
        if mounted:
            subprocess.run(["umount", "-l", folder], check=True)


class Project:
    """A checkout of segline with small settings in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def made(cls, repository: Path, folder: Path, *settings: dict[str, dict[str, Any]]) -> Self:
        """Copy the files that a run needs, and apply `settings`, later ones over earlier ones."""
        for name in COPIED:
            source, target = repository / name, folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
            else:
                shutil.copyfile(source, target)
        project = cls(folder)
        for sections in settings:
            project.set(**sections)
        project.run("git", "init", "-q")
        project.run("git", "config", "user.email", "test@segline.invalid")
        project.run("git", "config", "user.name", "test")
        return project

    def commit(self, message: str) -> None:
        """Commit all changed and new files."""
        self.run("git", "add", "-A")
        self.run("git", "commit", "-qm", message)

    def run(self, *command: str, **environment: str) -> str:
        """Run a command, which must succeed, and return its output."""
        done = self.attempt(*command, **environment)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    def attempt(self, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a command that may fail, and return its result."""
        return subprocess.run(
            command,
            cwd=self.folder,
            env=self._environment(environment),
            capture_output=True,
            check=False,
            text=True,
            timeout=1200,
        )

    def start(self, log: Path, *command: str, **environment: str) -> "subprocess.Popen[bytes]":
        """Start a command in the background; it writes its output to `log`."""
        with log.open("wb") as file:
            return subprocess.Popen(
                command, cwd=self.folder, env=self._environment(environment), stdout=file, stderr=subprocess.STDOUT
            )

    def killed_after(self, seconds: float, *command: str, **environment: str) -> bool:
        """Kill a command and its children after `seconds`; return whether it was still running."""
        process = subprocess.Popen(
            command,
            cwd=self.folder,
            env=self._environment(environment),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        time.sleep(seconds)
        os.killpg(process.pid, signal.SIGKILL)  # the process id stays valid until process.wait()
        return process.wait() == -signal.SIGKILL

    def _environment(self, more: dict[str, str]) -> dict[str, str]:
        """Return the environment of this process without variables of another project, and with `more`."""
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("DVC_", "MLFLOW_", "GIT_"))}
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        return {**inherited, "PATH": path, "OMP_NUM_THREADS": "1", **more}

    def would_run(self) -> list[str]:
        """Return the stages that are changed themselves; the stages after them are unknown before they have run."""
        output = self.run("dvc", "repro", "--dry")
        return [stage for stage in STAGES if f"Running stage '{stage}'" in output]

    def set(self, **sections: dict[str, object]) -> None:
        """Change settings in params.yaml."""
        yaml = YAML()
        document = yaml.load(self.folder / "params.yaml")
        for section, values in sections.items():
            document[section].update(values)
        yaml.dump(document, self.folder / "params.yaml")

    def check_answers(self, model: str, folder: Path) -> None:
        """Load a registered model in a process without segline: it must answer the bytes that evaluate wrote."""
        predictions, instances = (self.folder / "data" / "reports" / kind for kind in ("predictions", "instances"))
        images = [self.folder / "data" / "raw" / "cells" / "images" / file.name for file in predictions.iterdir()]
        out = folder / "out"
        out.mkdir()
        script = folder / "load.py"
        script.write_text(LOAD)
        elsewhere = Project(out)
        elsewhere.run(sys.executable, str(script), self.store, model, str(out), *map(str, images), PYTHONPATH="")
        assert images
        for image in images:
            assert (out / image.name).read_bytes() == (predictions / image.name).read_bytes()
            assert (out / f"{image.stem}_instances.png").read_bytes() == (instances / image.name).read_bytes()

    def json(self, file: str) -> dict[str, object]:
        """Return the content of a JSON file."""
        content: dict[str, object] = json.loads((self.folder / file).read_text())
        return content

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Query the database of the store; much quicker than a process that imports MLflow."""
        with closing(sqlite3.connect(self.folder / "mlruns" / "mlflow.db")) as connection:
            return connection.execute(sql).fetchall()

    def runs(self) -> int:
        """Count the runs in the store."""
        return int(self.query("SELECT count(*) FROM runs WHERE lifecycle_stage = 'active'")[0][0])

    def versions(self) -> dict[str, list[tuple[int, str, list[str]]]]:
        """Return the versions of each model in the store: number, md5 and aliases, sorted."""
        models: dict[str, list[tuple[int, str, list[str]]]] = {}
        tags = "SELECT name, version, value FROM model_version_tags WHERE key = 'version.md5' ORDER BY name, version"
        aliases = self.query("SELECT name, version, alias FROM registered_model_aliases ORDER BY alias")
        for name, number, md5 in self.query(tags):
            held = [alias for model, version, alias in aliases if (model, int(version)) == (name, number)]
            models.setdefault(name, []).append((number, md5, held))
        return models

    @property
    def store(self) -> str:
        """Address of the store."""
        return f"sqlite:///{self.folder / 'mlruns' / 'mlflow.db'}"
