"""`segline init FOLDER`: make a project that uses the installed segline, with or without a dataset of one's own."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager
from importlib.resources import files as resources
from pathlib import Path

from segline import files
from segline.commands import import_, preset
from segline.data.dataset import NAME
from segline.data.synthetic import NAME as DRAWN
from segline.importing.bring import RAW
from segline.track import git, installed

# Names in segline.template, and the paths of these files in a project.
FILES = {
    "params.yaml": "params.yaml",
    "dvc.yaml": "dvc.yaml",
    "README.md": "README.md",
    "gitignore": ".gitignore",
    "gitattributes": ".gitattributes",
    "dvcignore": ".dvcignore",
    "dvc_config": ".dvc/config",
    "dvc_gitignore": ".dvc/.gitignore",
}
EMPTY = ("data/.gitkeep", "mlruns/.gitkeep")  # git keeps no empty folders
KEPT = ("README.md",)  # if it exists, it stays unchanged
APPENDED = (".gitignore", ".gitattributes", ".dvcignore")  # if they exist, missing lines are appended
EXAMPLE = "At first it is a drawn example; `segline import FOLDER --name NAME` adds your own images."
IMPORTED = "`segline import FOLDER --name NAME --replace` imports it again."


class InitError(RuntimeError):
    """The project was not made; the message says why and what to do."""


def main(folder: Path, source: Path | None, name: str, say: Callable[[str], None]) -> None:
    """Make a project in `folder`; import `source` if one is given.

    Parameters
    ----------
    folder : new folder, or a folder without a project, also inside a git repository.
    source : folder or file with images and labels; None: the project starts with the drawn default dataset.
    name : name of the dataset; empty: the name of `source`.

    Raises
    ------
    InitError
        The folder holds a project already, the source is missing or has no usable name, or git is missing. Nothing is
        left behind.
    DatasetError, LayoutError, FileError, UnfitError
        The import failed; the project is complete, but has no dataset of its own.
    """
    name = _dataset_name(source, name) if source is not None else ""
    source = source.resolve() if source is not None else None
    content = _content(folder, IMPORTED if name else EXAMPLE)
    _refuse_existing(folder, content)
    with _removed_on_error(folder, content):
        for path, text in content.items():
            files.write_bytes(folder / path, _merged(folder / path, path, text), settle=True)
        _start_git(folder, list(content))
    say(f"{folder}: new project for segline {installed.version()}")
    if source is not None:
        with chdir(folder):
            _import(source, name, folder, say)
    say("Next:")
    for command in (
        *([f"cd {quoted(folder)}"] if folder.resolve() != Path.cwd().resolve() else []),
        'git commit -m "New project"',
        "dvc repro",
        "segline models list",
    ):
        say(f"  {command}")


def quoted(folder: Path) -> str:
    """Return a path as a word of a shell command."""
    return shlex.quote(str(folder))


def _dataset_name(source: Path, name: str) -> str:
    if not source.exists():
        raise InitError(f"--import {source} does not exist; give the path of a folder or file with images and labels")
    name = name or source.resolve().stem
    if not re.fullmatch(NAME, name):
        raise InitError(
            f"{name!r} cannot be the name of a dataset; use --name to give another name, made up only of letters, "
            "digits, '.', '_' and '-'"
        )
    if name == DRAWN:
        raise InitError(f"--name {name}: stage sample writes its dataset to {RAW / name}; choose another name")
    return name


def _content(folder: Path, dataset: str) -> dict[str, bytes]:
    """Return the content of every file of the project, as a dict by path."""
    template = resources("segline.template")
    content = {path: (template / stored).read_bytes() for stored, path in FILES.items()}
    title = folder.resolve().name or "Segmentation"
    readme = content["README.md"].decode().replace("{name}", title).replace("{dataset}", dataset)
    return {
        **content,
        "README.md": readme.encode(),
        installed.FILE.name: installed.here().text().encode(),
        **dict.fromkeys(EMPTY, b""),
    }


def _refuse_existing(folder: Path, content: dict[str, bytes]) -> None:
    if folder.exists() and not folder.is_dir():
        raise InitError(f"{folder} is a file; choose the path of a new folder")
    own = [path for path in content if path not in (*KEPT, *APPENDED, *EMPTY)]
    if existing := [path for path in own if (folder / path).exists()]:
        raise InitError(
            f"{folder} holds a project already: {', '.join(existing)}; choose another folder. To use another segline "
            "in an existing project, run `segline upgrade` there"
        )


def _merged(file: Path, path: str, text: bytes) -> bytes:
    """Return the content to write at `path`. An existing text is kept; to some files, missing lines are appended."""
    if not file.exists() or path not in (*KEPT, *APPENDED, *EMPTY):
        return text
    existing = file.read_bytes()
    if path not in APPENDED:
        return existing
    lines = set(existing.splitlines())
    missing = [line for line in text.splitlines() if line and not line.startswith(b"#") and line not in lines]
    return b"\n".join([existing.rstrip(b"\n"), *missing, b""]) if missing else existing


@contextmanager
def _removed_on_error(folder: Path, content: dict[str, bytes]) -> Iterator[None]:
    """If the body of the with statement fails, restore `folder` to its former state."""
    had_git = (folder / ".git").exists()
    parents = {parent for path in content for parent in (folder / path).parents}
    new_folders = sorted((p for p in parents if not p.exists()), key=lambda p: len(p.parts), reverse=True)
    former = {path: (folder / path).read_bytes() for path in content if (folder / path).is_file()}
    try:
        yield
    except BaseException:
        for path in content:
            (folder / path).unlink(missing_ok=True)
        for path, text in former.items():
            (folder / path).write_bytes(text)
        if not had_git:
            shutil.rmtree(folder / ".git", ignore_errors=True)
        for new_folder in new_folders:
            if new_folder.is_dir() and not any(new_folder.iterdir()):
                new_folder.rmdir()
        raise


def _start_git(folder: Path, paths: list[str]) -> None:
    """If `folder` is not inside a git repository, make `folder` a repository. Stage the files of the project."""
    try:
        try:
            git.call(folder, "rev-parse", "--is-inside-work-tree")
        except subprocess.CalledProcessError:
            git.call(folder, "init", "--quiet")
        git.call(folder, "add", "--force", "--", *paths)
    except OSError:
        raise InitError("a project needs git, and there is no git on PATH; install git and try again") from None
    except subprocess.CalledProcessError as error:
        raise InitError(f"the project was not made, because {git.refusal(error, folder)}") from None


def _import(source: Path, name: str, folder: Path, say: Callable[[str], None]) -> None:
    """Import the dataset in the working directory, name it in params.yaml, and add it to DVC."""
    try:
        lines = import_.run(source, name)
    except Exception:
        say(f"{folder} has no dataset of its own yet, because the import failed. Run `segline import` there again:")
        raise
    say("\n".join(lines))
    dataset = RAW / name
    preset.change({"data": {"source": dataset.as_posix()}}, "segline init")
    environment = {
        **git.surroundings(),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
    }
    command = [sys.executable, "-m", "dvc", "add", "--quiet", str(dataset)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise InitError(f"{dataset} was imported, but `dvc add {dataset}` failed: {done.stderr.strip()[-1000:]}")
    git.call(Path(), "add", "--", "params.yaml")
