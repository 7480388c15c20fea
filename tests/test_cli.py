"""The command line: fast help, one-line user errors, and a command for each stage."""

import os
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from segline import cli, params

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run(repository: Path, tmp_path: Path) -> Run:
    """Return a function that runs `python -m segline` in an empty folder."""

    def call(*arguments: str, python: str = "") -> "subprocess.CompletedProcess[str]":
        environment = os.environ | {"PYTHONPATH": f"{python}{repository / 'src'}"}
        command = [sys.executable, "-m", "segline", *arguments]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    return call


def test_help_lists_every_command_and_every_stage_of_dvc_yaml(run: Run, repository: Path) -> None:
    stages = YAML(typ="safe").load((repository / "dvc.yaml").read_text())["stages"]
    output = run("--help").stdout
    assert [
        name
        for name in (*stages, "check", "import", "models", "preset", "predict", "runs", "serve", "summary", "ui")
        if f"\n  {name} " not in output
    ] == []


def test_help_imports_nothing_heavy(run: Run) -> None:
    # Imports at the top of cli.py make --help slow; checking them needs no clock.
    program = (
        "import sys, segline.cli; print(*{'numpy', 'torch', 'pandas', 'mlflow', 'pydantic', 'rich'} & set(sys.modules))"
    )
    command = [sys.executable, "-c", program]
    environment = os.environ | {"PYTHONPATH": str(Path(cli.__file__).parents[1])}
    assert subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip() == ""
    assert run("--help").returncode == 0


def test_an_unknown_setting_is_reported_without_a_traceback(run: Run, tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("train: {learnin_rate: 1}\n")
    result = run("tune")
    assert result.returncode == 1
    assert result.stderr.startswith("params.yaml: train.learnin_rate is not a setting")
    assert "Traceback" not in result.stderr


def test_a_bug_is_reported_with_its_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "app", lambda: {}["x\x1b[2J"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    error_output = capsys.readouterr().err
    assert ended.value.code == 1
    assert error_output.startswith("Traceback")
    assert "KeyError: 'x\\x1b[2J'" in error_output
    assert "\x1b" not in error_output


def test_an_exception_of_segline_is_reported_as_its_message(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise params.ParamsError("train.epochs = 0: too small")

    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    assert capsys.readouterr().err == "train.epochs = 0: too small\n"


def test_an_exception_class_may_set_the_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(params.ParamsError, "exit_code", 2, raising=False)

    def fail() -> None:
        raise params.ParamsError("cannot be decided")

    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2


def test_a_missing_package_is_reported_with_how_to_activate_the_environment(run: Run, tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "typer.py").write_text(
        "raise ModuleNotFoundError(\"No module named 'typer'\", name='typer')"
    )
    result = run("--help", python=f"{tmp_path / 'broken'}{os.pathsep}")
    assert result.returncode == 1
    assert "activate" in result.stderr
    assert "Traceback" not in result.stderr


def test_telemetry_is_off_unless_the_user_set_the_variable() -> None:
    program = "import os, segline; print(os.environ['MLFLOW_DISABLE_TELEMETRY'], os.environ['DVC_NO_ANALYTICS'])"
    environment = {"PYTHONPATH": str(Path(cli.__file__).parents[1]), "DVC_NO_ANALYTICS": "asked"}
    command = [sys.executable, "-c", program]
    assert subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout == "true asked\n"


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, "1000 1"),
        ({"GOMP_SPINCOUNT": "0"}, "0 1"),
        ({"OMP_WAIT_POLICY": "active"}, "None None"),
    ],
)
def test_threads_spin_briefly_unless_the_user_set_another_policy(environment: dict[str, str], expected: str) -> None:
    program = "import os, segline; print(os.environ.get('GOMP_SPINCOUNT'), os.environ.get('KMP_BLOCKTIME'))"
    environment["PYTHONPATH"] = str(Path(cli.__file__).parents[1])
    command = [sys.executable, "-c", program]
    assert (
        subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip() == expected
    )


@pytest.mark.parametrize(
    ("arguments", "expected", "code"),
    [
        (("predict", "a.png", "--model", "models:/a/1", "--out", ""), "--out", 2),
        (("predict", "", "--model", "models:/a/1", "--out", "out"), "the name of an image is empty", 1),
        (("ui", "--port", "99999"), "less than or equal to 65535", 2),
        (("ui", "--port", "0"), "greater than or equal to 1", 2),
    ],
)
def test_an_invalid_value_is_refused(
    run: Run, tmp_path: Path, arguments: tuple[str, ...], expected: str, code: int
) -> None:
    result = run(*arguments)
    assert result.returncode == code
    assert expected in result.stderr
    assert not any(tmp_path.iterdir())


def test_the_version_is_that_of_the_package(run: Run) -> None:
    assert run("--version").stdout == f"segline {version('segline')}\n"


def test_the_matplotlib_backend_of_a_notebook_is_not_used(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPLBACKEND", "module://missing.backend")
    refused = run("summary")
    assert "missing.backend" not in refused.stderr
    monkeypatch.setattr(cli, "app", lambda: None)
    cli.main()
    assert "MPLBACKEND" not in os.environ


@pytest.mark.parametrize("arguments", [("init", ""), ("init", "x", "--import", "")])
def test_an_empty_folder_name_is_refused(run: Run, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    assert "the name is empty; give a folder" in run(*arguments).stderr
    assert list(tmp_path.iterdir()) == []
