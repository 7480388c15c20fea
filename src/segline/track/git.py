"""git as a child process, and the environment of every child that works on a repository of its own."""

import os
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

# Of git's variables, those that say who the user is and how a server is reached. All others name a repository, as git
# does for the hooks that it starts, or change what a command prints.
USERS_GIT = (
    "GIT_ASKPASS",
    "GIT_AUTHOR_",
    "GIT_CEILING_DIRECTORIES",
    "GIT_COMMITTER_",
    "GIT_CONFIG_",
    "GIT_CURL_",
    "GIT_DISCOVERY_ACROSS_FILESYSTEM",
    "GIT_EXEC_PATH",
    "GIT_HTTP_",
    "GIT_PROXY_",
    "GIT_SSH",
    "GIT_SSL_",
    "GIT_TERMINAL_PROMPT",
)
USERS_DVC = ("DVC_GLOBAL_CONFIG_DIR", "DVC_NO_ANALYTICS", "DVC_SITE_CACHE_DIR", "DVC_SYSTEM_CONFIG_DIR")
OTHERS = ("DVC_", "GIT_", "MLFLOW_")
# Settings of a user that would run other programs, write, or refuse to store a file with mixed line ends.
SETTINGS = ("core.fsmonitor=false", "core.safecrlf=false", "log.showSignature=false", "core.quotePath=false")
TEXT = 8000  # bytes among which git looks for a zero to tell binary files from text


def surroundings() -> dict[str, str]:
    """Return the environment without what DVC, MLflow and git were told about a project or repository."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(OTHERS) or name.startswith((*USERS_GIT, *USERS_DVC))
    }


def call(
    folder: Path, *arguments: str, lines: Sequence[str] = (), environment: Mapping[str, str] | None = None
) -> bytes:
    """Return what git prints in `folder`, the repository of which is used whatever GIT_DIR says.

    Parameters
    ----------
    lines : written to git's standard input.
    environment : further variables of the child.

    Raises
    ------
    OSError
        There is no git on PATH.
    subprocess.CalledProcessError
        git refused; its `stderr` says why, in English.
    """
    settings = [part for setting in SETTINGS for part in ("-c", setting)]
    command = ["git", "--no-optional-locks", *settings, *arguments]
    asked = "".join(f"{line}\n" for line in lines).encode(errors="surrogateescape")
    env = {**surroundings(), **_named_repository(folder), "LC_ALL": "C", **(environment or {})}
    return subprocess.run(command, cwd=folder, env=env, input=asked, capture_output=True, check=True).stdout


def contents(folder: Path, names: Iterable[str], environment: Mapping[str, str] | None = None) -> dict[str, bytes]:
    """Return the bytes of objects by git's names of them."""
    wanted = sorted(set(names))
    found: dict[str, bytes] = {}
    answer = call(folder, "cat-file", "--batch", "--buffer", lines=wanted, environment=environment)
    start = 0
    for name in wanted:
        end = answer.index(b"\n", start)
        size = int(answer[start:end].split()[2])
        found[name] = answer[end + 1 : end + 1 + size]
        start = end + size + 2
    return found


def stored(folder: Path, paths: Sequence[str]) -> dict[str, bytes]:
    """Return the content of those files at `paths`, relative to `folder`, that exist, as git would store it.

    Line ends, filters and encodings of .gitattributes and core.autocrlf are undone by git itself. Nothing is written
    to the repository. Outside of one the content is that of the file.
    """
    existing = [path for path in paths if (folder / path).is_file()]
    try:
        with TemporaryDirectory() as objects:
            apart = {"GIT_OBJECT_DIRECTORY": objects}
            answer = call(folder, "hash-object", "-w", "--stdin-paths", lines=existing, environment=apart)
            names = answer.decode().split()
            held = contents(folder, names, apart)
            return {path: held[name] for path, name in zip(existing, names, strict=True)}
    except (OSError, subprocess.CalledProcessError):
        return {path: (folder / path).read_bytes() for path in existing}


def lf(content: bytes) -> bytes:
    """Return a text with LF as its line ends; what git takes for binary stays as it is."""
    return content if b"\0" in content[:TEXT] else content.replace(b"\r\n", b"\n")


def refusal(error: OSError | subprocess.CalledProcessError, folder: Path) -> str:
    """Say why git could not be asked, and the way out."""
    if isinstance(error, OSError):
        return "there is no git on PATH"
    said = error.stderr.decode(errors="replace").strip().splitlines()
    if any("dubious ownership" in line for line in said):
        top = next((parent for parent in (folder, *folder.parents) if (parent / ".git").exists()), folder)
        return (
            f"git does not read {top}, which belongs to another user; if you trust it, run "
            f"`git config --global --add safe.directory '{top}'`"
        )
    return f"{folder} is in no git repository that can be read ({said[0] if said else 'git refused'})"


def _named_repository(folder: Path) -> dict[str, str]:
    """Return the user's GIT_DIR and GIT_WORK_TREE where no other repository is found: a bare one with a work tree."""
    absolute = folder.absolute()
    if any((parent / ".git").exists() for parent in (absolute, *absolute.parents)):
        return {}
    named = {name: os.environ.get(name, "") for name in ("GIT_DIR", "GIT_WORK_TREE")}
    return named if all(Path(path).is_absolute() for path in named.values()) else {}
