"""Test that a foreign predictions.jsonl can remove only files that segline itself could have written."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zarr

from segline import files
from segline.commands import scratch as scratch_module
from segline.commands.prediction_records import LOCK, RECORDS, Line, PredictOptions, Records, RecordsError, Request
from segline.data import writers
from segline.files import FileError

WANTED = Request("a", "0" * 32, "1" * 32, 0, ("labels",), "models:/a/1")


def line(**changes: Any) -> bytes:
    """Make a line of predictions.jsonl for another version."""
    content = {"stem": "a", "image_md5": "2" * 32, "version_md5": "3" * 32, "views": 0, "files": {"labels": "a.png"}}
    return json.dumps(content | changes).encode()


HOSTILE: dict[str, bytes] = {
    **{
        f"name {name!r}": line(files={"labels": name})
        for name in ("..", ".", "", "b.png", "../a.png", "/a.png", "a", "a.txt")
    },
    **{
        f"files {value!r}": line(files=value)
        for value in ([1], "x", 7, None, {"labels": ["a.png"]}, {"thesis": "a.png"})
    },
    **{f"stem {value!r}": line(stem=value) for value in ("", "../a", "a/b", "a\0", 7, None, ["a"])},
    **{f"views {value!r}": line(views=value) for value in (-1, True, "0", 0.0, None)},
    **{f"md5 {value!r}": line(image_md5=value) for value in ("x", 7, "Z" * 32, ["0" * 32])},
    "kind of another": line(files={"overlays": "a.png"}),
    "NaN": b'{"stem": "a", "files": {}, "views": NaN}',
    "deep": b"[" * 100_000,
    "no object": b"[1]",
    "half": line()[:-9],
    "no UTF-8": b"\xff\xfe",
}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Make a folder of results beside foreign files."""
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "text").write_text("years")
    folder = tmp_path / "out"
    folder.mkdir()
    for name in ("a.png", "a.txt", "b.png", "notes"):
        (folder / name).write_text(name)
    return folder


def tree(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.name not in (LOCK, RECORDS)}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_malformed_line_removes_nothing(name: str, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (out / RECORDS).write_bytes(HOSTILE[name] + b"\n" + line(stem="c", files={"labels": "c.png"}) + b"\n")
    before = tree(out.parent)
    with Records(out) as records:
        records.make_room(WANTED)
        assert records._lines.keys() == {"c"}
    assert tree(out.parent) == before
    assert (
        f"{RECORDS}, line 1: ignored, because the text is cut off or segline did not write it"
        in capsys.readouterr().err
    )


def test_many_malformed_lines_make_one_message(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (out / RECORDS).write_bytes(b"x\n" * 3 + b"\n" + line() + b"\n" + b"y\n" * 1000)
    with Records(out) as records:
        assert records._lines.keys() == {"a"}
    said = capsys.readouterr().err.replace("\n", " ")
    assert "line 1, 2, 3, 6, 7 and 998 more: ignored, because the text is cut off or segline did not write it" in said


def test_recorded_files_of_another_version_are_removed(out: Path) -> None:
    every = {"labels": "a.png", "instances": "a_instances.tif", "overlays": "a_overlay.png"}
    (out / RECORDS).write_bytes(line(files=every) + b"\n")
    (out / "a_instances.tif").symlink_to("../thesis/text")
    with Records(out) as records:
        records.make_room(WANTED)
    assert tree(out.parent) == {"thesis", "thesis/text", "out", "out/a.txt", "out/b.png", "out/notes"}


def test_names_that_are_not_utf_8_are_recorded(tmp_path: Path) -> None:
    stem = os.fsdecode(b"a\xff\x1b")
    request = Request(stem, "0" * 32, "", 4, ("labels",), "models:/a/1")
    for _ in range(2):
        with Records(tmp_path) as records:
            (records.make_room(request) / f"{stem}.png").touch()
            assert bool(records.written(request)) == (_ == 1)
            records.add(request, {"labels": f"{stem}.png"})
    assert (tmp_path / RECORDS).read_bytes().isascii()


def test_lines_of_earlier_seglines_are_read() -> None:
    old = b'{"stem": "a", "image_md5": "%s", "version_md5": "", "views": 0, "model": "m", "files": {"labels": "a.png"}}'
    assert Line.read(old % (b"0" * 32)).files == {"labels": "a.png"}
    assert Line.read(b'{"stem": "a", "files": {}}').is_empty


@pytest.mark.parametrize("name", [RECORDS, LOCK])
@pytest.mark.parametrize("make", ["link", "folder"])
def test_a_link_or_a_folder_in_place_of_a_file_is_refused(name: str, make: str, out: Path) -> None:
    victim = out.parent / "thesis" / "text"
    (out / name).symlink_to(victim) if make == "link" else (out / name).mkdir()
    with pytest.raises(RecordsError, match=name), Records(out):
        pass
    assert victim.read_text() == "years"


def test_a_link_that_is_made_later_is_not_followed(out: Path) -> None:
    victim = out.parent / "thesis" / "text"
    with Records(out) as records:
        (out / RECORDS).symlink_to(victim)
        with pytest.raises(OSError, match="symbolic links"):
            records.make_room(WANTED)
    assert victim.read_text() == "years"


def test_the_lock_holds_whatever_the_temporary_folder_is(out: Path, repository: Path) -> None:
    code = f"from segline.commands.prediction_records import *; Records(Path({str(out)!r})).__enter__()"
    environment = os.environ | {"PYTHONPATH": f"{repository / 'src'}", "TMPDIR": str(out.parent)}

    def second_process() -> bytes:
        return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=False).stderr

    with Records(out):
        assert b"another `segline predict` writes to this folder" in second_process()
    assert second_process() == b""


def test_an_empty_new_folder_is_removed(tmp_path: Path) -> None:
    with Records(tmp_path / "x" / "y"):
        assert (tmp_path / "x" / "y" / LOCK).exists()
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_whole_lines(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (out / RECORDS).write_bytes(line() + b"\n")
    before = (out / RECORDS).read_bytes()
    write = os.write

    def half(handle: int, data: bytes) -> int:
        if len(data) < 100:
            raise OSError(28, "No space left on device")
        return write(handle, data[: len(data) - 50])

    with Records(out) as records:
        monkeypatch.setattr(os, "write", half)
        with pytest.raises(OSError, match=r"predictions\.jsonl"):
            records.add(WANTED, {"labels": "a.png"})
    assert (out / RECORDS).read_bytes() == before


def ours(path: Path) -> Path:
    """Write a small OME-Zarr image with the mark of segline."""
    group = zarr.create_group(path, zarr_format=2)
    names = {"name": "v2", "separator": "/"}
    group.create_array("0", shape=(2, 2), chunks=(1, 1), dtype="u1", chunk_key_encoding=names)[:] = 1
    group.attrs.update({writers.MARK: writers.MADE})
    return path


def _file(path: Path) -> None:
    (path / "notes.txt").write_text("mine")


def _link(path: Path) -> None:
    (path / "1").symlink_to(path.parent.parent / "thesis")


def _unmark(path: Path) -> None:
    (path / ".zattrs").write_text("{}")


def _folder(path: Path) -> None:
    (path / "0" / "thesis").mkdir()


@pytest.mark.parametrize("change", [_file, _link, _unmark, _folder])
def test_only_zarr_folders_of_segline_are_removed(out: Path, change: Callable[[Path], None]) -> None:
    (out / RECORDS).write_bytes(line(files={"labels": "a.ome.zarr"}) + b"\n")
    change(ours(out / "a.ome.zarr"))
    before = tree(out.parent)
    with Records(out) as records, pytest.raises(FileError, match=r"a\.ome\.zarr: segline did not write this folder"):
        records.make_room(WANTED)
    assert tree(out.parent) == before


def test_an_ome_zarr_image_of_segline_is_removed(out: Path) -> None:
    (out / RECORDS).write_bytes(line(files={"labels": "a.ome.zarr"}) + b"\n")
    ours(out / "a.ome.zarr")
    with Records(out) as records:
        records.make_room(WANTED)
    assert not (out / "a.ome.zarr").exists()


@pytest.mark.parametrize("name", ["notes.txt", "sum-x.npy", "folder", "link"])
def test_a_scratch_folder_with_foreign_content_is_refused(out: Path, name: str) -> None:
    scratch = scratch_module.scratch_path(out, "a")
    files.write_json(scratch / scratch_module.KEY, {})
    if name == "folder":
        (scratch / "sum-0.npy").mkdir()
    elif name == "link":
        (scratch / "sum-0.npy").symlink_to(out.parent / "thesis" / "text")
    else:
        (scratch / name).touch()
    before = tree(out.parent)
    for act in (scratch_module.check_own, scratch_module.remove):
        with pytest.raises(FileError, match=r"segline did not write .*, but would replace or remove it"):
            act(scratch)
    assert tree(out.parent) == before


def test_a_scratch_folder_that_is_a_link_is_refused(out: Path) -> None:
    scratch_module.scratch_path(out, "a").symlink_to(out.parent / "thesis")
    with pytest.raises(FileError, match=r"segline did not write .*, but would replace or remove it"):
        scratch_module.remove(scratch_module.scratch_path(out, "a"))
    assert (out.parent / "thesis" / "text").read_text() == "years"


def test_a_long_name_has_a_scratch_folder(tmp_path: Path) -> None:
    scratch_module.scratch_path(tmp_path, "細" * 83).mkdir()
    assert scratch_module.scratch_path(tmp_path, "a").name == ".a.windows"
    assert PredictOptions(overlays=True).endings == {"labels": "", "overlays": "_overlay"}
