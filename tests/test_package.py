"""The wheel holds all of the package, and works where the sources are not."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

BUILT_FROM = ("pyproject.toml", "README.md", "LICENSE", "Makefile", "requirements.txt", "requirements-dev.txt")


@pytest.fixture(scope="module")
def wheel(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built by `make wheel` from a copy of the sources."""
    folder = tmp_path_factory.mktemp("sources")
    shutil.copytree(
        repository / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info", ".*_cache")
    )
    for name in BUILT_FROM:
        shutil.copy(repository / name, folder)
    # The prerequisite of the target is the installation, which is this test's own environment.
    subprocess.run(["make", "wheel", f"BIN={Path(sys.executable).parent}", "PINS="], cwd=folder, check=True)
    (file,) = (folder / "dist").glob("segline-*.whl")
    return file


def test_the_wheel_holds_every_file_of_the_package(wheel: Path, repository: Path) -> None:
    source = repository / "src" / "segline"
    files = [file for file in source.rglob("*") if file.is_file() and "__pycache__" not in file.parts]
    expected = {f"segline/{file.relative_to(source).as_posix()}" for file in files}
    held = set(zipfile.ZipFile(wheel).namelist())
    assert expected - held == set()
    assert {name.split("/")[0] for name in held - expected} == {
        f"{wheel.name.removesuffix('-py3-none-any.whl')}.dist-info"
    }


def test_the_wheel_has_the_licence_and_the_extras(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = (archive.read(name).decode() for name in archive.namelist() if name.endswith("METADATA"))
        (licence,) = (archive.read(name).decode() for name in archive.namelist() if name.endswith("LICENSE"))
    assert "License-Expression: Apache-2.0" in metadata and "Apache License" in licence
    assert {"Provides-Extra: postgres", "Provides-Extra: s3"} <= set(metadata.splitlines())


def test_an_installed_wheel_gives_command_and_module(wheel: Path, tmp_path: Path) -> None:
    target = tmp_path / "installed"
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--quiet", "--target", str(target)]
    subprocess.run([*command, str(wheel)], check=True)
    environment = {**os.environ, "PYTHONPATH": str(target)}
    code = "import segline; print(segline.__file__); segline.load"
    for words in (["-c", code], [str(target / "bin" / "segline"), "--help"]):
        done = subprocess.run(
            [sys.executable, *words], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
        )
        assert (str(target) in done.stdout) if words[0] == "-c" else ("predict" in done.stdout)
