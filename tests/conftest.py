"""Fixtures for all tests: the repository, real data if present, finished projects, and a PostgreSQL server."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import psycopg
import pytest

import segline  # noqa: F401  switches off the telemetry of libraries
from tests.checkout import SMALL, Project

ROOT = Path(__file__).parents[1]
# Processes that a test starts run the code of this checkout, even if another segline is installed.
os.environ["PYTHONPATH"] = str(ROOT / "src")
# Otherwise each of these processes would compile segline anew, which takes seconds on a busy machine.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# No deadline, because a busy machine is slow. In CI the examples are repeatable; elsewhere they are random.
hypothesis.settings.register_profile("segline", deadline=None, derandomize="CI" in os.environ)
hypothesis.settings.load_profile("segline")


@pytest.fixture(scope="session")
def repository() -> Path:
    """Root of this checkout; no test writes to it."""
    return ROOT


@pytest.fixture(scope="session")
def shared_data() -> Callable[[str], Path]:
    """Return a function that finds a real dataset in SEGLINE_TEST_DATA, or skips the test and names what is missing."""

    def find(name: str) -> Path:
        root = os.environ.get("SEGLINE_TEST_DATA")
        if not root:
            pytest.skip("SEGLINE_TEST_DATA is not set: no real data on this machine")
        folder = Path(root) / name
        if not folder.is_dir():
            pytest.skip(f"SEGLINE_TEST_DATA={root} holds no {name}")
        return folder

    return find


@pytest.fixture(scope="session")
def finished(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project after one run of its pipeline."""
    project = Project.made(repository, tmp_path_factory.mktemp("line") / "project", SMALL)
    project.commit("small settings")
    project.run("dvc", "repro")
    project.commit("first results")
    return project


# A PostgreSQL server for the tests

PASSWORD = "tiger-7319"
HERE = os.pathsep.join([os.environ["PATH"], *map(str, sorted(Path("/usr/lib/postgresql").glob("*/bin")))])


@pytest.fixture(scope="session")
def server() -> Iterator[Path]:
    """Start a PostgreSQL server that stops with this process, or skip; return the folder of its socket."""
    programs = {name: shutil.which(name, path=HERE) for name in ("initdb", "postgres", "setpriv")}
    if missing := [name for name, path in programs.items() if path is None]:
        pytest.skip(f"{' and '.join(missing)} not installed: no PostgreSQL server (Debian: postgresql)")
    folder = Path(tempfile.mkdtemp(prefix="segline-postgres-", dir="/tmp"))  # the path of a socket must be short
    secret = folder / "password"
    secret.write_text(PASSWORD)
    before = [str(programs["setpriv"]), "--pdeathsig=QUIT"]
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root
        before += ["--reuid=postgres", "--regid=postgres", "--init-groups"]
        for path in (folder, secret):
            shutil.chown(path, "postgres")
    data = ["-D", str(folder / "data")]
    options = ["-k", str(folder), "-c", "listen_addresses=", "-c", "fsync=off"]
    make = ["-U", "segline", "-E", "UTF8", "--no-sync", "--auth=scram-sha-256", f"--pwfile={secret}"]
    try:
        done = subprocess.run(
            [*before, str(programs["initdb"]), *data, *make], cwd="/", capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen([*before, str(programs["postgres"]), *data, *options], cwd="/", stderr=log)
        with process:
            try:
                _wait_until_ready(process, folder)
                yield folder
            finally:
                process.send_signal(signal.SIGINT)  # fast shutdown: disconnects all clients
    finally:
        shutil.rmtree(folder)


def _wait_until_ready(process: "subprocess.Popen[bytes]", folder: Path) -> None:
    state, limit = folder / "data" / "postmaster.pid", time.monotonic() + 60
    while not state.exists() or "ready" not in state.read_text().split():
        assert process.poll() is None and time.monotonic() < limit, (folder / "log").read_text()
        time.sleep(0.05)


@pytest.fixture
def database(server: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Create an empty database, and return its address; the password is in the environment."""
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    with psycopg.connect(host=str(server), user="segline", dbname="postgres", autocommit=True) as connection:
        connection.execute("CREATE DATABASE study")
        yield f"postgresql+psycopg://segline@/study?host={server}"
        connection.execute("DROP DATABASE study WITH (FORCE)")


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Restore signal handlers, because a command that stops changes them but the test process continues."""
    former = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in former.items():
        signal.signal(number, handler)


# A registry with three versions of a model; their files are placeholders for a network


@pytest.fixture(scope="session")
def three_versions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A committed project with versions 1, 2 and 3 of cells; version 1 is champion, because it was the first."""
    from segline.gate import champion, rules
    from segline.params import Gate
    from segline.track import commits, intact, versions
    from segline.track.packaging import Parts
    from segline.track.registry import IMAGES, Registry
    from segline.track.store import open_store

    root = tmp_path_factory.mktemp("three") / "project"
    for name, text in COMMITTED.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)

    def upload(store: Any, parts: Any, _: Any, logged: Any, records: Any) -> dict[str, str]:
        folder = tmp_path_factory.mktemp("packed")
        (folder / "artifacts" / "model").mkdir(parents=True)
        for file in (parts.model / "weights.safetensors", parts.model / "model.json", parts.inference):
            shutil.copy(file, folder / "artifacts" / "model")
        shutil.copytree(parts.room, folder / "code" / parts.package, ignore=shutil.ignore_patterns("__pycache__"))
        for name, content in records.items():
            (folder / name).write_bytes(content)
        store.client.log_model_artifacts(logged.model_id, str(folder))
        return intact.listing(folder)

    with pytest.MonkeyPatch.context() as patch:
        for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "DVC_ROOT"):
            patch.delenv(name, raising=False)
        patch.setattr(versions, "_upload", upload)
        patch.chdir(root)
        for command in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "x"]):
            subprocess.run(["git", "-c", "user.name=Ada", "-c", "user.email=x", *command], check=True)
        store = open_store()
        for number in (1, 2, 3):
            model = tmp_path_factory.mktemp("model")
            for name in ("weights.safetensors", "model.json", "inference.json"):
                (model / name).write_text(f"{name} {number}")
            parts = Parts(model, model / "inference.json", b"", b"", b"")
            images = f"image,file,md5,split\na,images/a.png,{number}a,train\nb,images/b.tif,b,test\n".encode()
            tags = {"model.md5": f"{number}" * 32, "data.md5": "d" * 32, "dataset": "cells", **commits.here()}
            with store.start_run("train", {"train.epochs": number}) as run:
                passed = rules.floors({"mean_iou": 0.5 + number / 10, "pixel_error": 0.05}, Gate())
                champion.register(
                    Registry(store, "cells"), parts, run, passed, tags, description="# Card", records={IMAGES: images}
                )
    return root


COMMITTED = {
    ".gitignore": "mlruns/\n",
    "dvc.yaml": "stages: {register: {cmd: x, deps: [src/a.py]}}\n",
    "params.yaml": "train: {epochs: 1}\n",
    "src/a.py": "a = 1\n",
}


@pytest.fixture
def cells(three_versions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of `three_versions` as the working directory; commits there are by Ada."""
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "DVC_ROOT", "GIT_DIR", "GIT_WORK_TREE"):
        monkeypatch.delenv(name, raising=False)
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "Ada")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "ada@example.org")
    shutil.copytree(three_versions, tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "project"
