"""What every room's tests share: where the repository is, and real data where a machine has it."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from segline import signals  # and segline sets the environment that keeps libraries from phoning home

ROOT = Path(__file__).parents[1]
# A process that a test starts runs this checkout's code, whatever is installed.
os.environ["PYTHONPATH"] = str(ROOT / "src")


@pytest.fixture(scope="session")
def repository() -> Path:
    """Root of this checkout; never written to."""
    return ROOT


@pytest.fixture(scope="session")
def shared_data() -> Callable[[str], Path]:
    """Folder of a real dataset below SEGLINE_TEST_DATA, or a skip that says what is missing."""

    def find(name: str) -> Path:
        root = os.environ.get("SEGLINE_TEST_DATA")
        if not root:
            pytest.skip("SEGLINE_TEST_DATA is not set: no real data on this machine")
        folder = Path(root) / name
        if not folder.is_dir():
            pytest.skip(f"SEGLINE_TEST_DATA={root} holds no {name}")
        return folder

    return find


# A PostgreSQL server of the tests' own

PASSWORD = "tiger-7319"
HERE = os.pathsep.join([os.environ["PATH"], *map(str, sorted(Path("/usr/lib/postgresql").glob("*/bin")))])


@pytest.fixture(scope="session")
def server() -> Iterator[Path]:
    """The folder of a server's socket, or a skip that says what is missing; the server ends with this process."""
    found = {name: shutil.which(name, path=HERE) for name in ("initdb", "postgres", "setpriv")}
    if missing := [name for name, path in found.items() if path is None]:
        pytest.skip(f"there is no {' and no '.join(missing)}: no PostgreSQL server here (Debian: postgresql)")
    folder = Path(tempfile.mkdtemp(prefix="segline-postgres-", dir="/tmp"))  # a socket's path has to be short
    secret = folder / "password"
    secret.write_text(PASSWORD)
    before = [str(found["setpriv"]), "--pdeathsig=QUIT"]
    if os.geteuid() == 0:  # which PostgreSQL refuses
        before += ["--reuid=postgres", "--regid=postgres", "--init-groups"]
        for path in (folder, secret):
            shutil.chown(path, "postgres")
    data = ["-D", str(folder / "data")]
    options = ["-k", str(folder), "-c", "listen_addresses=", "-c", "fsync=off"]
    make = ["-U", "segline", "-E", "UTF8", "--no-sync", "--auth=scram-sha-256", f"--pwfile={secret}"]
    try:
        done = subprocess.run(
            [*before, str(found["initdb"]), *data, *make], cwd="/", capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen([*before, str(found["postgres"]), *data, *options], cwd="/", stderr=log)
        with process:
            try:
                _wait_until_ready(process, folder)
                yield folder
            finally:
                process.send_signal(signal.SIGINT)  # end now, whoever is connected
    finally:
        shutil.rmtree(folder)


def _wait_until_ready(process: "subprocess.Popen[bytes]", folder: Path) -> None:
    state, limit = folder / "data" / "postmaster.pid", time.monotonic() + 60
    while not state.exists() or "ready" not in state.read_text().split():
        assert process.poll() is None and time.monotonic() < limit, (folder / "log").read_text()
        time.sleep(0.05)


@pytest.fixture
def database(server: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of an empty database; its password is in the environment, as a user would have it."""
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    with psycopg.connect(host=str(server), user="segline", dbname="postgres", autocommit=True) as connection:
        connection.execute("CREATE DATABASE study")
        yield f"postgresql+psycopg://segline@/study?host={server}"
        connection.execute("DROP DATABASE study WITH (FORCE)")


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Who leaves hears no more signals; this process does not leave."""
    former = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    signals._leaving.clear()
    for number, handler in former.items():
        signal.signal(number, handler)
