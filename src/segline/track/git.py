"""Run git as a child process, without the environment variables that a parent git, DVC or MLflow process has set."""

import os
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

# These git variables identify the user or configure access to servers, so a child process keeps them.
# All other git variables are dropped: some select a repository (git hooks set these), others change git's output.
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
# Override user settings that make git run other programs, change its output, or reject files with mixed line endings.
SETTINGS = ("core.fsmonitor=false", "core.safecrlf=false", "log.showSignature=false", "core.quotePath=false")
TEXT = 8000  # git treats a file as binary if one of its first 8000 bytes is zero


def surroundings() -> dict[str, str]:
    """Return the environment variables, except those that select a project or repository for DVC, MLflow or git."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(OTHERS) or name.startswith((*USERS_GIT, *USERS_DVC))
    }


def call(
    folder: Path, *arguments: str, lines: Sequence[str] = (), environment: Mapping[str, str] | None = None
) -> bytes:
    """Run git in `folder` and return its output.

    If `folder` is inside a repository, this repository is used, even if GIT_DIR names another one.

    Parameters
    ----------
    lines : lines for the standard input of git.
    environment : additional environment variables for git.

    Raises
    ------
    OSError
        There is no git on PATH.
    subprocess.CalledProcessError
        git failed; `stderr` of the error holds the reason in English.
    """
    settings = [part for setting in SETTINGS for part in ("-c", setting)]
    command = ["git", "--no-optional-locks", *settings, *arguments]
    stdin = "".join(f"{line}\n" for line in lines).encode(errors="surrogateescape")
    env = {**surroundings(), **_named_repository(folder), "LC_ALL": "C", **(environment or {})}
    return subprocess.run(command, cwd=folder, env=env, input=stdin, capture_output=True, check=True).stdout


def contents(folder: Path, names: Iterable[str], environment: Mapping[str, str] | None = None) -> dict[str, bytes]:
    """Return the contents of git objects, as a dict by object name."""
    wanted = sorted(set(names))
    objects: dict[str, bytes] = {}
    answer = call(folder, "cat-file", "--batch", "--buffer", lines=wanted, environment=environment)
    start = 0
    for name in wanted:
        end = answer.index(b"\n", start)
        size = int(answer[start:end].split()[2])
        objects[name] = answer[end + 1 : end + 1 + size]
        start = end + size + 2
    return objects


def stored(folder: Path, paths: Sequence[str]) -> dict[str, bytes]:
    """Return the contents that git would store for the files at `paths` in `folder`; skip missing files.

    git converts each file as for a commit, because .gitattributes and core.autocrlf may require other line endings or
    encodings. Nothing is written to the repository. Outside of a repository, contents are returned unchanged.
    """
    existing = [path for path in paths if (folder / path).is_file()]
    try:
        with TemporaryDirectory() as temporary:
            apart = {"GIT_OBJECT_DIRECTORY": temporary}
            answer = call(folder, "hash-object", "-w", "--stdin-paths", lines=existing, environment=apart)
            names = answer.decode().split()
            held = contents(folder, names, apart)
            return {path: held[name] for path, name in zip(existing, names, strict=True)}
    except (OSError, subprocess.CalledProcessError):
        return {path: (folder / path).read_bytes() for path in existing}


def lf(content: bytes) -> bytes:
    """Replace CRLF line endings with LF; content that git treats as binary is not changed."""
    return content if b"\0" in content[:TEXT] else content.replace(b"\r\n", b"\n")


def refusal(error: OSError | subprocess.CalledProcessError, folder: Path) -> str:
    """Return a message that explains why git failed and what to do."""
    if isinstance(error, OSError):
        return "there is no git on PATH"
    messages = error.stderr.decode(errors="replace").strip().splitlines()
    if any("dubious ownership" in line for line in messages):
        top = next((parent for parent in (folder, *folder.parents) if (parent / ".git").exists()), folder)
        return (
            f"git does not read {top}, which belongs to another user; if you trust that user, run "
            f"`git config --global --add safe.directory '{top}'`"
        )
    return f"{folder} is in no git repository that can be read ({messages[0] if messages else 'git failed'})"


def _named_repository(folder: Path) -> dict[str, str]:
    """Return GIT_DIR and GIT_WORK_TREE if both are absolute paths and `folder` is in no repository; else return {}."""
    absolute = folder.absolute()
    if any((parent / ".git").exists() for parent in (absolute, *absolute.parents)):
        return {}
    named = {name: os.environ.get(name, "") for name in ("GIT_DIR", "GIT_WORK_TREE")}
    return named if all(Path(path).is_absolute() for path in named.values()) else {}
