"""Identity of code: what changes it, what does not, and the versions that are known by it."""

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from segline.gate import champion
from segline.gate.rules import floors
from segline.params import Gate
from segline.track import identity, intact, trust
from segline.track.audit import verify
from segline.track.packaging import Parts
from segline.track.recording import StartedRun
from segline.track.registry import Md5s, Registered, Registry, RegistryError, load_model

GOOD = floors({"mean_iou": 0.9, "pixel_error": 0.05}, Gate())
SOURCE = '''\
"""A module."""

RATE = 0.1  # px


class Box:
    """A box."""

    side: int = 2
    """Its side in px."""


def area(box, scale=1, *, unit="px"):
    """Return its area."""
    return {**vars(box), "area": box.side**2 * scale, "unit": f"{unit}^2"}
'''


def changed(old: str, new: str) -> str:
    assert SOURCE.count(old) == 1
    return identity.of_source(SOURCE.replace(old, new).encode())


def test_identity_is_the_same_on_every_machine_and_python() -> None:
    # Recorded with Python 3.11; a Python with another answer would make a new version of every model.
    assert identity.of_source(SOURCE.encode()) == "519c7bb04f29dd005a5eca3d22d71b8e"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"""A module."""', '"""Another\n\nmodule."""'),
        ('"""A module."""', ""),
        ('    """Return its area."""\n', ""),
        ("  # px", ""),
        ("# px", "# pixels: 'side'"),
        ('    """Its side in px."""\n', ""),
        ('"px"', "'px'"),
        ("0.1", "0.10"),
        ("return {", "return   {"),
        ("scale=1, *, ", "\n    scale=1,\n    *,\n    "),
        ("box.side**2 * scale", "(box.side**2) * scale"),
        ("\n\n\nclass", "\nclass"),
    ],
)
def test_prose_and_layout_do_not_change_the_identity(old: str, new: str) -> None:
    assert changed(old, new) == identity.of_source(SOURCE.encode())


def test_line_ends_and_a_byte_order_mark_do_not_change_the_identity() -> None:
    same = identity.of_source(SOURCE.encode())
    assert identity.of_source(SOURCE.replace("\n", "\r\n").encode()) == same
    assert identity.of_source(b"\xef\xbb\xbf" + SOURCE.encode()) == same


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("0.1", "0.2"),
        ("0.1", "'0.1'"),
        ("scale=1", "scale=2"),
        ("scale=1", "scale=True"),
        ("scale=1", "scale=None"),
        ("scale=1", "scale"),
        ("*, unit", "unit"),
        ('unit="px"', 'unit=b"px"'),
        ("side: int", "side: float"),
        ("side: int = 2", "side: int"),
        ("**2", "**3"),
        ("**2 *", "**2 //"),
        ("**vars(box)", "'x': vars(box)"),
        ("{unit}^2", "{unit!r}^2"),
        ("{unit}^2", "{unit}^3"),
        ("    return", "    return None\n    return"),
        ("def area", "@cache\ndef area"),
        ("def area", "async def area"),
        ("RATE", "SPEED"),
        ('"""Return its area."""', 'f"{print()}"'),
        ("class Box:", "import os\n\n\nclass Box:"),
    ],
)
def test_any_other_change_makes_another_identity(old: str, new: str) -> None:
    assert changed(old, new) != identity.of_source(SOURCE.encode())


def test_the_order_of_statements_counts() -> None:
    assert identity.of_source(b"a()\nb()\n") != identity.of_source(b"b()\na()\n")
    assert identity.of_source(b"if a:\n    b()\nc()\n") != identity.of_source(b"if a:\n    b()\n    c()\n")


@pytest.mark.parametrize(
    "source",
    [
        b"def",
        b"x = 1\n\0",
        b"\xff",
        b"(" * 3000,
        b"-" * 200_000 + b"1",
        b"x = 0x" + b"f" * 50_000,
        b"x = 1\n" * (identity.LARGEST // 6 + 1),
    ],
)
def test_bytes_that_cannot_be_parsed_are_known_by_their_exact_content(source: bytes) -> None:
    assert identity.of_source(source) == identity.of_source(bytes(source))
    assert identity.of_source(source) != identity.of_source(source + b"#")


def test_identity_does_not_depend_on_the_depth_of_the_call() -> None:
    source = ("x = " + " + ".join(["a"] * 800)).encode()

    def deep(levels: int) -> str:
        return deep(levels - 1) if levels else identity.of_source.__wrapped__(source)

    assert deep(0) == deep(300)
    assert identity.of_source(source + b"  # b") == deep(0)


def test_a_package_is_known_by_the_paths_and_the_identity_of_its_files(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x = 1\n")
    first = identity.of_folder(tmp_path)
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "a.cpython-311.pyc").write_bytes(b"0")
    (tmp_path / "a.py").write_text("x = 1  # one\n")
    assert identity.of_folder(tmp_path) == first == identity.of_sources({"a.py": b"x = 1"})
    (tmp_path / "a.py").rename(tmp_path / "b.py")
    renamed = identity.of_folder(tmp_path)
    (tmp_path / "b.py").write_text("x = 2\n")
    assert len({first, renamed, identity.of_folder(tmp_path)}) == 3


def test_a_text_is_known_by_its_lines_even_if_it_reads_as_python() -> None:
    assert identity.of_file("requirements.txt", b"x==1.1\n") != identity.of_file("requirements.txt", b"x==1.10\n")
    assert identity.of_file("requirements.txt", b"x==1.1\n") == identity.of_file("requirements.txt", b"x==1.1\r\n")
    assert identity.of_file("a.py", b"x==1.1\n") == identity.of_file("b.py", b"x==1.10\n")


# Versions


@pytest.fixture
def registry(store: object) -> Registry:
    return Registry(store, "cells")  # type: ignore[arg-type]


def rooms(parts: Parts, folder: Path, text: str) -> Parts:
    """Return `parts` with `text` at the end of one of the files of its room."""
    shutil.copytree(parts.room, folder)
    with (folder / "inference.py").open("a") as stream:
        stream.write(text)
    return replace(parts, room=folder)


def register(registry: Registry, parts: Parts, run: StartedRun) -> Registered:
    return champion.register(registry, parts, run, GOOD, {}, records={"images.csv": b"image,md5,split\n"})


def problems(registry: Registry) -> list[str]:
    return [finding.what for finding in verify(registry) if not finding.note]


def files_of(registry: Registry, number: str) -> Path:
    return intact.files(registry.store, registry.version(number))


def retag_files(registry: Registry, number: str) -> None:
    """Rewrite the tag of the files' MD5s, as somebody who hides a change would."""
    listing = json.dumps(intact.listing(files_of(registry, number)))
    registry.client.set_model_version_tag("cells", number, "files.md5", listing)


def test_improved_prose_makes_no_new_version_and_a_statement_does(
    registry: Registry, parts: Parts, run: StartedRun, tmp_path: Path
) -> None:
    assert register(registry, parts, run).created
    assert not register(registry, rooms(parts, tmp_path / "prose", "# a comment\n"), run).created
    assert register(registry, rooms(parts, tmp_path / "statement", "OTHER = 1\n"), run).version == "2"


def test_versions_that_differ_in_a_comment_are_loaded_in_one_process(
    registry: Registry, parts: Parts, run: StartedRun, tmp_path: Path
) -> None:
    commented = rooms(parts, tmp_path / "prose", "# a comment\n")
    assert commented.package != parts.package
    weights = tmp_path / "model"
    shutil.copytree(parts.model, weights)
    (weights / "model.json").write_text((weights / "model.json").read_text() + "\n")
    for version in (parts, replace(commented, model=weights)):
        assert register(registry, version, run).created
    for number in "12":
        assert load_model(registry.store, f"models:/cells/{number}")(parts.example).labels == parts.answer


def test_a_docstring_planted_in_a_registered_package_is_found(
    registry: Registry, parts: Parts, run: StartedRun
) -> None:
    register(registry, parts, run)
    package = next((files_of(registry, "1") / "code").iterdir())
    with (package / "tiling.py").open("a") as stream:
        stream.write('"""planted"""\n')
    for hidden in (False, True):
        if hidden:
            retag_files(registry, "1")
        assert any("altered" in problem for problem in problems(registry))
        with pytest.raises(RegistryError, match="altered"):
            load_model(registry.store, "models:/cells/1")


def by_bytes_md5(files: dict[str, bytes]) -> str:
    """Compute the MD5 of code as earlier seglines did, in the words of their time."""
    listing = [{"md5": hashlib.md5(files[path]).hexdigest(), "relpath": path} for path in sorted(files)]
    return hashlib.md5(json.dumps(listing, sort_keys=True).encode()).hexdigest()


def test_a_version_of_an_earlier_segline_is_trusted_and_keeps_its_md5(
    registry: Registry, parts: Parts, run: StartedRun, tmp_path: Path
) -> None:
    earlier = replace(parts, by_bytes=True)
    code = by_bytes_md5({file.name: file.read_bytes() for file in parts.room.glob("*.py")})
    names = {"weights.safetensors": parts.model, "model.json": parts.model, "inference.json": parts.inference.parent}
    md5s = {name: hashlib.md5((folder / name).read_bytes()).hexdigest() for name, folder in names.items()}
    lines = "".join(f"{name} {md5}\n" for name, md5 in sorted({**md5s, "code": code}.items()))
    assert (earlier.code_md5, earlier.package) == (code, f"segline_model_{code[:12]}")
    assert earlier.md5 == hashlib.md5(lines.encode()).hexdigest() != parts.md5
    register(registry, earlier, run)
    assert trust.read(files_of(registry, "1")).md5 == earlier.md5
    assert problems(registry) == []
    assert load_model(registry.store, "models:/cells@champion")(parts.example).labels == parts.answer
    # The same code once more, as after a clone: no version is made twice.
    assert register(registry, parts, run) == Registered(
        "cells", "1", ("challenger", "champion"), False, Md5s.of(earlier)
    )
    assert register(registry, rooms(parts, tmp_path / "prose", "# a comment\n"), run).version == "2"


@pytest.mark.parametrize("by_bytes", [False, True])
def test_a_package_that_is_renamed_to_change_the_rule_of_its_md5_is_refused(
    registry: Registry, parts: Parts, run: StartedRun, by_bytes: bool
) -> None:
    register(registry, replace(parts, by_bytes=by_bytes), run)
    folder = files_of(registry, "1")
    package = next((folder / "code").iterdir())
    package.rename(package.with_name(replace(parts, by_bytes=not by_bytes).package))
    retag_files(registry, "1")
    assert any("they were altered" in problem for problem in problems(registry))
    with pytest.raises(RegistryError, match="they were altered"):
        load_model(registry.store, "models:/cells/1", trust=True)
