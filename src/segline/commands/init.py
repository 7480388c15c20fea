"""`segline init FOLDER`: make a project that uses the installed segline; import the user's dataset if one is given."""

import os
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager, suppress
from importlib.resources import files as resources
from pathlib import Path

from segline import files, names
from segline.commands import import_, preset
from segline.data.synthetic import NAME as DRAWN
from segline.importing.bring import RAW, is_name
from segline.text import shown
from segline.track import git, installed
from segline.track.clone import CloneError, run_dvc

# Map the name of each template file in segline.template to the path of its copy in a project.
FILES = {
    "params.yaml": "params.yaml",
    "stages.yaml": "dvc.yaml",  # DVC would run a dvc.yaml in any folder of segline's own repository
    "README.md": "README.md",
    "gitignore": ".gitignore",
    "gitattributes": ".gitattributes",
    "dvcignore": ".dvcignore",
    "dvc_config": ".dvc/config",
    "dvc_gitignore": ".dvc/.gitignore",
}
EMPTY = ("data/.gitkeep", "data/encoders/.gitkeep", "mlruns/.gitkeep")  # git keeps no empty folders
# Paths that the stages write. DVC deletes everything at such a path before the stage runs, even the user's files.
OUTPUTS = ("data/raw/cells", "data/prepared", "data/plan", "data/weights", "data/tune", "data/model", "data/reports")
# Files that git must keep: DVC refuses to run if git ignores one of them.
TRACKED = (
    "dvc.yaml",
    "dvc.lock",
    "params.yaml",
    "segline.yaml",
    "registry.jsonl",
    "data/raw/x.dvc",
    "data/model/metrics.json",
    "data/reports/test.json",
)
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
    if name and source is None:
        raise InitError(f"--name {name} names an imported dataset; give its images and labels with --import, too")
    name = _dataset_name(source, name) if source is not None else ""
    source = source.resolve() if source is not None else None
    if source is not None and (folder.resolve() / RAW / name).is_relative_to(source):
        raise InitError(
            f"the project would lie inside {source}, the folder given with --import; make the project elsewhere"
        )
    content = _content(folder, IMPORTED if name else EXAMPLE)
    _refuse_existing(folder, content, name)
    content = dict(_unwritten(folder, content))
    with _removed_on_error(folder, content):
        for path, text in content.items():
            mode = (folder / path).stat().st_mode if (folder / path).exists() else None
            files.write_bytes(folder / path, text, settle=True)
            if mode is not None:
                (folder / path).chmod(mode)
        _start_git(folder, list(content))
    say(f"{folder}: new project for segline {installed.version()}")
    if source is not None:
        with chdir(folder):
            _import(source, name, folder, say)
    say("Next:")
    for command in (
        *([_cd(folder)] if folder.resolve() != Path.cwd().resolve() else []),
        'git commit -am "New project"',
        "dvc repro",
        "segline models list",
    ):
        say(f"  {command}")


def quoted(folder: Path) -> str:
    """Quote a path for use in a shell command."""
    return shlex.quote(str(folder))


def _cd(folder: Path) -> str:
    return f"cd {'-- ' * str(folder).startswith('-')}{quoted(folder)}"


def _dataset_name(source: Path, name: str) -> str:
    if not source.exists():
        raise InitError(f"--import {source} does not exist; give the path of a folder or file with images and labels")
    name = name or (source.resolve().name if source.is_dir() else source.stem)
    if not is_name(name):
        raise InitError(
            f"{shown(name)} cannot be the name of a dataset; use --name to give another name, made up only of letters, "
            f"digits, '.', '_' and '-', and not longer than {names.LONGEST} characters"
        )
    if name == DRAWN:
        raise InitError(
            f"the DVC stage `sample` writes its dataset {name} to {RAW / name}; use --name to give another name"
        )
    return name


def _content(folder: Path, dataset: str) -> dict[str, bytes]:
    """Return a dict of the contents of all project files, with their paths as keys."""
    template = resources("segline.template")
    content = {path: (template / stored).read_bytes() for stored, path in FILES.items()}
    title = folder.resolve().name
    readme = content["README.md"].decode().replace("{dataset}", dataset)
    readme = readme.replace("{name}", title if names.fault(title) is None else "Segmentation")
    return {
        **content,
        "README.md": readme.encode(),
        installed.FILE.name: installed.here().text().encode(),
        **dict.fromkeys(EMPTY, b""),
    }


def _refuse_existing(folder: Path, content: dict[str, bytes], name: str) -> None:
    """Refuse a folder if the new project, or its first `dvc repro`, would replace files there."""
    if folder.exists() and not folder.is_dir():
        raise InitError(f"{folder} is a file; choose the path of a new folder")
    own = [path for path in content if path not in (*KEPT, *APPENDED, *EMPTY)]
    existing = [path for path in own if os.path.lexists(folder / path)]
    if existing and all(path.startswith(".dvc/") for path in existing):
        raise InitError(
            f"{folder} is already a DVC repository; make the project in a new folder (it may lie in this one)"
        )
    if existing:
        raise InitError(
            f"{folder} holds a project already: {', '.join(existing)}; choose another folder. To use the installed "
            "segline in an existing project, run `segline upgrade` there"
        )
    outputs = [*OUTPUTS, *([f"{RAW}/{name}"] if name else [])]
    if existing := [path for path in outputs if os.path.lexists(folder / path)]:
        raise InitError(
            f"{folder} holds {', '.join(existing)}, which the stages of a project replace; move your files elsewhere, "
            "or choose another folder"
        )
    for path in (path for path in content if path not in KEPT):
        file = folder / path
        parents = [parent for parent in file.parents if parent != folder and parent.is_relative_to(folder)]
        for taken in (file, *parents):
            if taken.is_symlink():
                raise InitError(f"{taken} is a link, and git does not follow links; replace the link by its target")
            if taken.exists() and taken.is_dir() is (taken == file):
                kinds = ("folder", "file") if taken == file else ("file", "folder")
                raise InitError(f"{taken} is a {kinds[0]}, but a project has a {kinds[1]} there; rename the {kinds[0]}")


def _unwritten(folder: Path, content: dict[str, bytes]) -> Iterator[tuple[str, bytes]]:
    """Yield the path and new content of each missing project file, and of each existing file that is in APPENDED."""
    for path, text in content.items():
        if not os.path.lexists(folder / path):
            yield path, text
        elif path in APPENDED:
            yield path, _appended((folder / path).read_bytes(), text)


def _appended(existing: bytes, text: bytes) -> bytes:
    """If a line of `text` is missing in `existing`, append all lines of `text`, because their order matters."""
    lines = [line for line in text.splitlines() if line and not line.startswith(b"#")]
    if {*lines} <= {*existing.splitlines()}:
        return existing
    return existing + b"\n" * (not existing.endswith(b"\n") and existing != b"") + b"\n".join([*lines, b""])


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
            with suppress(OSError):
                if path not in former:
                    (folder / path).unlink()
                elif (folder / path).read_bytes() != former[path]:
                    files.write_bytes(folder / path, former[path], settle=True)
        if not had_git:
            shutil.rmtree(folder / ".git", ignore_errors=True)
        for new_folder in new_folders:
            with suppress(OSError):  # not empty, or not made
                new_folder.rmdir()
        raise


def _start_git(folder: Path, paths: list[str]) -> None:
    """Run `git init`, unless `folder` is already inside a git repository; then run `git add` on the project's files."""
    try:
        if not _is_in_work_tree(folder):
            git.call(folder, "init", "--quiet")
        if ignored := _ignored(folder):
            raise InitError(
                "the project was not made, because git would ignore files that must be under version control; change "
                f"these patterns (FILE:LINE:PATTERN), or choose another folder: {ignored}"
            )
        git.call(folder, "add", "--force", "--", *paths)
    except OSError:
        raise InitError("a project needs git, and there is no git on PATH; install git and try again") from None
    except subprocess.CalledProcessError as error:
        lines = error.stderr.decode(errors="replace").strip().splitlines()
        raise InitError(f"the project was not made, because git failed: {lines[0] if lines else error}") from None


def _is_in_work_tree(folder: Path) -> bool:
    """Return whether `folder` is in the working tree of a git repository; refuse a repository that git cannot read."""
    try:
        answer = git.call(folder, "rev-parse", "--is-inside-work-tree").strip()
    except subprocess.CalledProcessError as error:
        if b"not a git repository" in error.stderr:
            return False
        raise InitError(f"the project was not made, because {git.refusal(error, folder)}") from None
    if answer != b"true":
        raise InitError(f"{folder} is inside a git repository, but not in its working tree; choose another folder")
    return True


def _ignored(folder: Path) -> str:
    """Return the ignore patterns that hide project files from git, each as FILE:LINE:PATTERN."""
    try:
        answer = git.call(folder, "check-ignore", "--verbose", "--no-index", "--", *TRACKED)
    except subprocess.CalledProcessError as error:
        if error.returncode == 1:  # no file is ignored
            return ""
        raise
    rules = {line.partition("\t")[0] for line in answer.decode(errors="replace").splitlines()}
    return ", ".join(sorted(rule for rule in rules if not rule.split(":", 2)[2].startswith("!")))


def _import(source: Path, name: str, folder: Path, say: Callable[[str], None]) -> None:
    """Import `source` into the project (the working directory), enter the dataset in params.yaml, and add it to DVC."""
    try:
        lines = import_.run(source, name)
    except BaseException:
        say(f"The project is complete, but has no dataset of its own yet. The commands to import it:\n  {_cd(folder)}")
        say(f"  segline import {quoted(source)} --name {name}")
        raise
    say("\n".join(lines))
    dataset = RAW / name
    preset.change({"data": {"source": dataset.as_posix()}}, "segline init")
    try:
        run_dvc(["add", str(dataset)], Path())
    except CloneError as error:
        raise InitError(
            f"{dataset} was imported, but `dvc add {dataset}` failed; solve the problem, and run this command again "
            f"in {folder}: {error}"
        ) from None
    git.call(Path(), "add", "--", "params.yaml")
