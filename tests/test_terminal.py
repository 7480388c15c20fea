"""Output: control characters are escaped; encodings, closed readers and full disks do not crash a command."""

import errno
import io
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from rich.table import Table

from segline import cli, failure, progress, terminal

EVIL = "a\x1b]0;pwned\x07\x1b[2J[red]b\u202e\x9b\udcff"


def test_control_characters_are_escaped_in_all_output(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def app() -> None:
        terminal.say(EVIL)
        typer.echo(EVIL)
        print(EVIL)  # noqa: T201
        print(EVIL, file=sys.stderr)  # noqa: T201
        progress.note(EVIL)
        list(progress.track([1], EVIL, "lines"))
        with progress.meter(EVIL, "bar", 1) as meter:
            meter.update(1, lambda: EVIL)
        table = Table("name", title=EVIL)
        table.add_row(EVIL)
        console = terminal.console()
        console.print(table)
        console.print(EVIL)
        raise typer.BadParameter(EVIL)

    application = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False)
    application.command()(app)
    monkeypatch.setattr(cli, "app", lambda: application([]))
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit):
        cli.main()
    output = "".join(capfd.readouterr())
    assert not {*output} & {*"\x1b\x07\u202e\x9b\udcff"}
    # Printed ten times, once on two lines, as the title of a narrow table. Rich and click remove some codes.
    assert output.count("a\\x1b]0;pwned") == output.count("pwned") == 10
    assert output.count("[red]b\\u202e\\x9b\\xff") == 9
    assert "a\\x1b]0;pwned\\x07\\x1b[2J[red]b\\u202e\\x9b\\xff\n" in output


def test_rich_keeps_its_own_colours_in_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    screen = io.StringIO()
    console = terminal.console()
    console.file = screen
    console.print("x", style="red")
    assert "\x1b[" in screen.getvalue()


def _run(command: str, folder: Path, repository: Path, **environment: str) -> "subprocess.CompletedProcess[bytes]":
    variables = os.environ | {"PYTHONPATH": f"{repository / 'src'}", **environment}
    return subprocess.run(
        ["bash", "-c", command.replace("segline", f"{sys.executable} -m segline")],
        cwd=folder,
        env=variables,
        capture_output=True,
        check=False,
    )


def test_a_character_outside_the_encoding_is_escaped(tmp_path: Path, repository: Path) -> None:
    done = _run("segline check 細胞", tmp_path, repository, PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert done.returncode == 1
    assert b"\\u7d30\\u80de is not a folder" in done.stderr


def test_a_closed_pipe_is_not_an_error(tmp_path: Path, repository: Path) -> None:
    done = _run("segline preset | true", tmp_path, repository)
    assert done.stderr == b""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_output_to_a_full_disk_is_reported(tmp_path: Path, repository: Path) -> None:
    done = _run("segline preset > /dev/full", tmp_path, repository)
    assert done.returncode == 1
    assert done.stderr.decode() == (
        "standard output or error cannot be written: No space left on device; free space on the disk, then repeat the "
        "command\n"
    )


def test_an_error_is_red_in_a_terminal_only(tmp_path: Path, repository: Path) -> None:
    main, side = pty.openpty()
    variables = os.environ | {"PYTHONPATH": f"{repository / 'src'}"}
    subprocess.run(
        [sys.executable, "-m", "segline", "check", "x\x1b[2J"], cwd=tmp_path, env=variables, stderr=side, check=False
    )
    os.close(side)
    output = os.read(main, 10_000).decode()
    os.close(main)
    assert output.startswith("\x1b[31mx\\x1b[2J is not a folder")
    assert output.count("\x1b") == 2


def full() -> OSError:
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "data/x")


def caused(outer: Exception, inner: BaseException) -> Exception:
    outer.__cause__ = inner
    return outer


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (full, "data/x cannot be written: No space left on device; free space"),
        (
            lambda: OSError(errno.EDQUOT, "Disk quota exceeded", "x"),
            "x cannot be written: Disk quota exceeded; free space",
        ),
        (lambda: OSError(errno.EFBIG, "File too large", b"x\xff"), "x\udcff cannot be written: File too large"),
        (lambda: OSError(errno.ENOSPC, "No space left on device"), "a file cannot be written: No space"),
        (lambda: caused(RuntimeError("x"), full()), "data/x cannot be written: No space left on device; free space"),
        (lambda: RuntimeError("(sqlite3.OperationalError) database or disk is full"), "the disk is full ((sqlite3"),
        (lambda: OSError("100 requested and 0 written"), "a file cannot be written: No space left on device"),
        (
            lambda: OSError(errno.EROFS, "Read-only file system", "x"),
            "x is on a read-only file system; only commands that read can run here",
        ),
        (lambda: OSError(errno.EIO, "Input/output error", "x"), "x: Input/output error; the disk or its connection"),
        (lambda: PermissionError(errno.EACCES, "Permission denied", "x"), "x: Permission denied; check the owner"),
        (
            lambda: FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']"),
            "no temporary folder",
        ),
        (lambda: IsADirectoryError(errno.EISDIR, "Is a directory", "x"), "x: Is a directory"),
        (lambda: OSError(errno.ENAMETOOLONG, "File name too long", "x"), "x: File name too long"),
        (lambda: OSError(errno.EBADF, "Bad file descriptor"), None),
        (
            lambda: UnicodeEncodeError("utf-8", "a\udcff", 1, 2, ""),
            "the file name 'a\\udcff' is not valid Unicode and cannot be",
        ),
        (lambda: KeyError("x"), None),
        (MemoryError, "the memory is too small (MemoryError); to train, lower train.batch_size, train.tile"),
        (lambda: np.zeros(2**50), "the memory is too small (Unable to allocate 8.00 PiB"),
        (lambda: torch.zeros(2**50), "the memory is too small ([enforce fail at alloc_cpu.cpp"),
        (lambda: torch.OutOfMemoryError("CUDA out of memory. Tried"), "the memory is too small (CUDA out of memory."),
    ],
)
def test_failures_of_the_machine_are_explained(error: Callable[[], object], says: str | None) -> None:
    try:
        made = error()
    except (MemoryError, RuntimeError) as raised:
        made = raised
    assert isinstance(made, Exception)
    message = failure.explain(made)
    assert (message is None) == (says is None)
    assert says is None or (message or "").startswith(says)


def test_a_full_disk_stops_a_command_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise full()

    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(SystemExit) as exit_info:
        cli.main()
    assert exit_info.value.code == 1
    assert capsys.readouterr().err.startswith("data/x cannot be written: No space left on device; free space")
