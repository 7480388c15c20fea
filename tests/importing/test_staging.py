"""A staged folder, judged by the files that remain after success, errors and kills."""

import os
from pathlib import Path

import pytest

from segline.importing import staging
from segline.importing.staging import BusyError, fingerprint, folder


def tree(root: Path) -> dict[str, str]:
    return {str(file.relative_to(root)): file.read_text() for file in sorted(root.rglob("*")) if file.is_file()}


def fill(target: Path, ending: BaseException) -> None:
    with folder(target, "key") as filled:
        (filled / "a").write_text("1")
        raise ending


def test_all_went_well(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "old").write_text("gone")
    with folder(tmp_path / "new", "key") as filled:
        (filled / "a").write_text("1")
        assert (tmp_path / "new" / "old").exists()
    assert tree(tmp_path) == {"new/a": "1"}


def test_an_error_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="wrong"):
        fill(tmp_path / "new", ValueError("wrong"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit])
def test_an_interrupted_filling_resumes(tmp_path: Path, interruption: type[BaseException]) -> None:
    with pytest.raises(interruption):
        fill(tmp_path / "new", interruption())
    assert not (tmp_path / "new").exists()
    with folder(tmp_path / "new", "key") as filled:
        assert tree(filled) == {"a": "1"}
        (filled / "b").write_text("2")
    assert tree(tmp_path) == {"new/a": "1", "new/b": "2"}


def test_another_key_starts_with_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        fill(tmp_path / "new", KeyboardInterrupt())
    with folder(tmp_path / "new", "other key") as filled:
        assert tree(filled) == {}
    assert tree(tmp_path) == {}


def test_files_without_key_are_not_kept(tmp_path: Path) -> None:
    """As when the process was killed before it had written the key."""
    (tmp_path / ".new.partial" / "new").mkdir(parents=True)
    (tmp_path / ".new.partial" / "new" / "a").write_text("half")
    with folder(tmp_path / "new", "key") as filled:
        assert tree(filled) == {}


def test_one_at_a_time(tmp_path: Path) -> None:
    """The lock is of the process that holds it and goes with the folder; the second leaves the first alone."""
    with folder(tmp_path / "new", "key") as filled:
        (filled / "a").write_text("1")
        for key in ("key", "other key"):
            with pytest.raises(BusyError, match="another import of new is running"), folder(tmp_path / "new", key):
                pass
        with folder(tmp_path / "other", "key"):
            pass
        assert tree(filled) == {"a": "1"}
    assert tree(tmp_path) == {"new/a": "1"}


def test_a_fingerprint_changes_with_the_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = tmp_path / "code"
    code.mkdir()
    monkeypatch.setattr(staging, "CODE", (code,))
    before = fingerprint(tmp_path / "source", [])
    (code / "new.py").write_text("pass")
    assert fingerprint(tmp_path / "source", []) != before


def test_a_fingerprint_changes_with_all_that_counts(tmp_path: Path) -> None:
    source, beside = tmp_path / "source", tmp_path / "beside"
    (source / "deep").mkdir(parents=True)
    for file in (source / "a", source / "deep" / "b", beside):
        file.write_text("text")
        os.utime(file, ns=(0, 10**18))

    def now(*said: object) -> str:
        return fingerprint(source, [beside], *said)

    seen = [now("said")]
    assert now("said") == seen[0]
    seen.append(now("said", 2))
    for file in (source / "deep" / "b", beside):
        os.utime(file, ns=(0, 10**18 + 1))
        seen.append(now("said"))
    (source / "a").write_text("other text")
    os.utime(source / "a", ns=(0, 10**18))
    seen.append(now("said"))
    (source / "a").rename(source / "c")
    seen.append(now("said"))
    (source / "deep" / "b").unlink()
    seen.append(now("said"))
    (source / "link").symlink_to("nowhere")
    seen.append(now("said"))
    assert len(set(seen)) == len(seen)
