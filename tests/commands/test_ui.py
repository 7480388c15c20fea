"""`segline ui`: its server uses the project's store, refuses a port in use, and stops with the command."""

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import psutil
import pytest

from segline.commands import ui
from segline.track.location import Place

SERVE = """
import sys
from segline.commands import ui
ui.main(int(sys.argv[1]), lambda line: print(line, flush=True))
print("ended", flush=True)
"""


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind((ui.HOST, 0))
        number: int = probe.getsockname()[1]
    return number


def test_the_command_line_has_no_address_of_a_store(tmp_path: Path) -> None:
    command = ui.command(Place(tmp_path, "postgresql://me:tiger-73@db/runs"), 5000)
    options = dict(zip(command[4::2], command[5::2], strict=True))
    assert command[:4] == [sys.executable, "-m", "mlflow", "server"]
    assert not any("tiger-73" in part for part in command)  # every user of the machine can read it
    assert options["--host"] == "127.0.0.1"
    assert options["--workers"] == "1"


def test_a_port_in_use_is_refused(tmp_path: Path) -> None:
    with socket.socket() as occupant:
        occupant.bind((ui.HOST, 0))
        occupant.listen()
        with pytest.raises(ui.PageError, match="--port"), ui.server(Place(tmp_path, "x"), occupant.getsockname()[1]):
            pass


def test_a_server_that_does_not_start_is_reported(tmp_path: Path, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ui, "command", lambda *_: [sys.executable, "-c", "raise SystemExit(3)"])
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(ui.PageError, match="exit code 3"), ui.server(Place(tmp_path, "x"), port):
        pass
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_tracking_server_is_named_instead_of_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Elsewhere:
        place = Place(tmp_path, "https://team:5000")

    monkeypatch.setattr(ui, "open_store", Elsewhere)
    messages: list[str] = []
    ui.main(5000, messages.append)
    assert "https://team:5000" in messages[0]


def test_the_page_shows_the_project_s_store_and_stops_with_the_command(
    tmp_path: Path, port: int, repository: Path
) -> None:
    (tmp_path / "dvc.yaml").touch()
    environment = {**os.environ, "PYTHONPATH": str(repository / "src"), "MLFLOW_TRACKING_URI": ""}
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE, str(port)],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509
    )
    assert process.stdout is not None
    process.stdout.readline()
    address = process.stdout.readline().split()[0]
    assert address == f"http://127.0.0.1:{port}/#/experiments/1/runs"
    children = psutil.Process(process.pid).children(recursive=True)
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/api/2.0/mlflow/experiments/get?experiment_id=1",
    )
    with urllib.request.urlopen(request) as response:
        experiment = json.load(response)["experiment"]
    assert experiment["name"] == tmp_path.name
    assert experiment["artifact_location"] == str(tmp_path / "mlruns" / "artifacts")
    process.send_signal(signal.SIGINT)
    assert process.communicate()[0].endswith("ended\n")
    assert process.returncode == 0
    assert len(children) == 2
    assert not any(child.is_running() for child in children)
    assert {path.name for path in tmp_path.iterdir()} == {"dvc.yaml", "mlruns"}
