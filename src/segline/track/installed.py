"""Compare the installed segline code with the code digests in a project's segline.yaml.

A project that `segline init` made holds no code of segline. In its dvc.yaml, each stage depends on its code digest in
segline.yaml. segline's own repository has no segline.yaml; there, each stage depends on files in src.
"""

from collections.abc import Container
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from segline import files
from segline.track import identity

FILE = Path("segline.yaml")
HEADER = """\
# This project's stages run the code of this segline version. `segline upgrade` writes this file.
# DVC runs a stage again when the code digest of the stage changes.
"""
PACKAGE = Path(__file__).parents[1]
# The files (SHARED) and folders (ROOMS) of segline that a stage uses, besides the stage's own file.
# A test checks that dvc.yaml lists these files and folders as dependencies of the stage.
SHARED = ("files.py", "names.py", "params.py", "parse.py", "transforms.py")
ROOMS = {
    "sample": ("data", "model"),
    "prepare": ("data", "model"),
    "plan": ("data", "model", "planning", "score", "train"),
    "weights": ("data", "model", "score"),
    "tune": ("data", "model", "score", "train"),
    "train": ("data", "model", "score", "train"),
    "evaluate": ("data", "model", "score", "train"),
    "register": ("data", "gate", "model", "score", "track"),
}


class InstalledError(RuntimeError):
    """Raised if the installed code does not match the digests in segline.yaml; the message says what to do."""


class Identity(BaseModel):
    """Identity of an installed segline: its version, and the code digest of each stage."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: str
    code: dict[str, str]

    def differing(self, other: "Identity") -> list[str]:
        """Return the stages of `other` whose code digests differ from the code digests in this identity."""
        return [stage for stage, md5 in other.code.items() if self.code.get(stage) != md5]

    def text(self) -> str:
        """Return the text of a segline.yaml file that records this identity."""
        # All values are in quotes, because YAML would read some digests as numbers.
        lines = [f'version: "{self.version}"', "code:", *(f'  {stage}: "{md5}"' for stage, md5 in self.code.items())]
        return HEADER + "\n".join(lines) + "\n"


def version() -> str:
    """Return the version of segline; "unknown" if segline runs from a folder of source files and is not installed."""
    try:
        return version_of("segline")
    except PackageNotFoundError:
        return "unknown"


def digest(stage: str) -> str:
    """Return one digest of all installed code that affects the result of `stage`."""
    paths = [PACKAGE / "stages" / f"{stage}.py", *(PACKAGE / name for name in (*SHARED, *ROOMS[stage]))]
    modules = [file for path in paths for file in (path.rglob("*.py") if path.is_dir() else [path])]
    return identity.of_sources({file.relative_to(PACKAGE).as_posix(): file.read_bytes() for file in modules})


def here() -> Identity:
    """Return the identity of the installed segline."""
    return Identity(version=version(), code={stage: digest(stage) for stage in ROOMS})


def named(project: Path = Path()) -> Identity | None:
    """Read from a project's segline.yaml which segline the project needs; return None if this file is missing.

    Raises
    ------
    FileError
        segline.yaml is damaged.
    """
    file = project / FILE
    if not file.is_file():
        return None
    return files.read_record(file, Identity, "restore the file with `git checkout`, or run `segline upgrade`")


def require(stage: str) -> None:
    """Check that the installed code of `stage` matches the code digest in segline.yaml.

    Raises
    ------
    InstalledError
        The code differs.
    FileError
        segline.yaml is damaged.
    """
    project = named()
    if project is not None and project.code.get(stage) != digest(stage):
        raise InstalledError(
            f"stage {stage} was not run: {_difference(project, here())}. {_install(project.version)}, or run `segline "
            "upgrade`, which makes the project use the installed segline and lists the stages to run again"
        )


def mismatch(project: Path, stages: Container[str] = ROOMS) -> str | None:
    """Return a message if the installed code of `stages` does not match a project's segline.yaml; otherwise None."""
    named_identity = named(project)
    if named_identity is None:
        return None
    installed = here()
    if not any(stage in stages for stage in named_identity.differing(installed)):
        return None
    return f"{_difference(named_identity, installed)}. {_install(named_identity.version)} and try again"


def _difference(project: Identity, installed: Identity) -> str:
    stages = ", ".join(project.differing(installed))
    if project.version == installed.version:
        return f"{FILE} names segline {project.version}; that version is installed, but with other code for {stages}"
    return (
        f"{FILE} names segline {project.version}, but segline {installed.version} is installed, with other code for "
        f"{stages}"
    )


def _install(wanted: str) -> str:
    if wanted == version():
        return "Install the copy of segline that made the project"
    return f"Run `pip install segline=={wanted}`"
