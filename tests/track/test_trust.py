"""Alter versions in mlruns/ or on MLflow's page; check the refusals, the code that runs, and the output of verify."""

import json
import marshal
import os
import shutil
import socket
from dataclasses import replace
from importlib import _bootstrap_external as external
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file, save_file

from segline.gate import champion
from segline.gate.rules import floors
from segline.params import Gate
from segline.track import answers, entries, intact, modules, packaging, tags, trust
from segline.track.audit import verify
from segline.track.packaging import Parts
from segline.track.registry import Registry, RegistryError, load_model
from segline.track.store import Store, open_store

GOOD = floors({"mean_iou": 0.9, "pixel_error": 0.05}, Gate())
CHAMPION = "models:/cells@champion"


@pytest.fixture(scope="module")
def template(made: Path, parts: Parts, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a project with two versions of a model: the first is champion, the second has other code."""
    root = tmp_path_factory.mktemp("registered") / "project"
    shutil.copytree(made, root)
    room = tmp_path_factory.mktemp("other") / "room"
    shutil.copytree(parts.room, room)
    with (room / "inference.py").open("a") as stream:
        stream.write("OTHER_CODE = 1\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.chdir(root)
        store = open_store()
        with store.start_run("train") as run:
            for version_parts in (parts, replace(parts, room=room)):
                champion.register(
                    Registry(store, "cells"), version_parts, run, GOOD, {}, records={"images.csv": b"image,md5,split\n"}
                )
    return root


@pytest.fixture
def project(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Copy the project, and make the copy the working directory."""
    shutil.copytree(template, tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "project"


@pytest.fixture
def registry(store: Store) -> Registry:
    """Open the model: version 1 is champion, version 2 has other code."""
    return Registry(store, "cells")


@pytest.fixture
def folder(registry: Registry) -> Path:
    """Return the folder of version 1 in the store."""
    return intact.files(registry.store, registry.version("1"))


def wrong(registry: Registry) -> list[str]:
    return [finding.what for finding in verify(registry) if not finding.note]


def tag(registry: Registry, name: str, value: str, number: str = "1") -> None:
    registry.client.set_model_version_tag("cells", number, name, value)


def alter_weights(folder: Path) -> None:
    file = folder / "artifacts" / "model" / "weights.safetensors"
    save_file({name: -values for name, values in load_file(file).items()}, file)


def rewrite_files(registry: Registry, folder: Path) -> None:
    tag(registry, "files.md5", json.dumps(intact.listing(folder)))


def test_the_md5_computed_from_the_folder_is_that_of_the_parts(folder: Path, parts: Parts) -> None:
    content = trust.read(folder)
    assert (content.md5, content.code_md5, content.package) == (parts.md5, parts.code_md5, parts.package)
    assert content.size == sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def test_a_sound_version_is_loaded_and_nothing_is_written_into_the_store(
    registry: Registry, folder: Path, parts: Parts
) -> None:
    before = sorted(folder.rglob("*"))
    model = load_model(registry.store, CHAMPION)
    assert model(parts.example, views=1) == answers.Answer(parts.answer, parts.instances)
    assert model.md5 == parts.md5
    assert sorted(folder.rglob("*")) == before
    copy = model.folder
    assert copy.stat().st_mode & 0o777 == 0o700
    del model
    assert not copy.exists()
    assert wrong(registry) == []


@pytest.mark.parametrize("how", ["keep", "rewrite", "delete", "garbage", "all tags"])
def test_altered_weights_are_refused_whatever_the_tags_say(registry: Registry, folder: Path, how: str) -> None:
    alter_weights(folder)
    if how in ("rewrite", "all tags"):
        rewrite_files(registry, folder)
    if how == "delete":
        registry.client.delete_model_version_tag("cells", "1", "files.md5")
    if how == "garbage":
        tag(registry, "files.md5", "approved")
    if how == "all tags":
        tag(registry, "version.md5", trust.read(folder).md5)
    for trusting in (False, True):
        with pytest.raises(
            RegistryError, match=r"not trusted|differs from its registration|--trust does not override this check"
        ):
            load_model(registry.store, CHAMPION, trust=trusting)
    assert wrong(registry)
    registry.client.delete_registered_model_alias("cells", "champion")
    with pytest.raises(RegistryError, match=r"not trusted|differs from its registration"):
        champion.promote(registry, "1", force=True, reason="x")


def test_a_version_without_a_line_needs_trust(
    registry: Registry, parts: Parts, capsys: pytest.CaptureFixture[str]
) -> None:
    registry.history_file.unlink()
    with pytest.raises(RegistryError, match=f"no line of registry.jsonl has the version's md5 {parts.md5}.*--trust"):
        load_model(registry.store, "models:/cells/1")
    assert any("no line of registry.jsonl" in problem for problem in wrong(registry))
    assert load_model(registry.store, "models:/cells/1", trust=True)(parts.example).labels == parts.answer
    assert parts.md5 in capsys.readouterr().err
    with registry.store.start_run("again") as run:  # like `dvc repro -f -s register`
        assert not champion.register(registry, parts, run, GOOD, {}).created
    assert load_model(registry.store, CHAMPION).md5 == parts.md5


def test_a_line_of_another_model_does_not_make_a_version_trusted(registry: Registry, parts: Parts) -> None:
    text = registry.history_file.read_text()
    registry.history_file.write_text(text.replace('"name": "cells"', '"name": "mice"'))
    with pytest.raises(RegistryError, match=f"no line of registry.jsonl has the version's md5 {parts.md5}"):
        load_model(registry.store, "models:/cells/1")


def test_verify_names_an_edited_md5_tag(registry: Registry, parts: Parts) -> None:
    for value in ("", "approved", "0" * 32, "' OR 1=1", "\x1b]0;pwn\x07", "x" * 4000, None):
        if value is None:
            registry.client.delete_model_version_tag("cells", "1", "version.md5")
        else:
            tag(registry, "version.md5", value)
        message = f"the tag version.md5.*but the files have md5 {parts.md5}, which is in registry"
        with pytest.raises(RegistryError, match=message) as raised:
            load_model(registry.store, CHAMPION, trust=True)
        assert "\x1b" not in str(raised.value) and len(str(raised.value)) < 600
        assert any("tag version.md5" in problem for problem in wrong(registry))


def evil(text: str, where: Path) -> str:
    return f"open({str(where)!r}, 'a').write('ran')\n{text}"


def plant_bytecode(folder: Path, package: Path, ran: Path) -> None:
    code = compile(evil((package / "served.py").read_text(), ran), "served.py", "exec")
    data = external._code_to_hash_pyc(code, b"12345678", False)  # type: ignore[attr-defined]
    (package / "__pycache__").mkdir()
    (package / "__pycache__" / "served.cpython-311.pyc").write_bytes(data)
    (package / "images.pyc").write_bytes(b"0" * 16 + marshal.dumps(code))
    (folder / "code" / "__pycache__").mkdir()


def plant_link_to_package(folder: Path, package: Path, ran: Path) -> None:  # noqa: ARG001
    outside = ran.parent / "evil" / "torch"
    outside.mkdir(parents=True)
    (outside / "__init__.py").write_text(evil("", ran))
    for name in ("torch", "safetensors", "cv2"):
        (folder / "code" / name).symlink_to(outside)


def plant_modules(folder: Path, package: Path, ran: Path) -> None:
    for place in (folder, folder / "code", package):
        (place / "sitecustomize.py").write_text(evil("", ran))
    (folder / "code" / "torch.pth").write_text("import os")


def plant_entry(folder: Path, package: Path, ran: Path) -> None:  # noqa: ARG001
    (folder / "entry.py").write_text(evil((folder / "entry.py").read_text(), ran))


def plant_loader(folder: Path, package: Path, ran: Path) -> None:  # noqa: ARG001
    file = folder / "MLmodel"
    (folder / "code" / "evil_loader.py").write_text(evil("def _load_pyfunc(path): pass\n", ran))
    file.write_text(file.read_text().replace("mlflow.pyfunc.loaders.code_model", "evil_loader"))


def plant_source(folder: Path, package: Path, ran: Path) -> None:  # noqa: ARG001
    (package / "served.py").write_text(evil((package / "served.py").read_text(), ran))


def plant_statements_in_a_comment(folder: Path, package: Path, ran: Path) -> None:
    """Hide statements in a comment that is code under the encoding that the file declares."""
    hidden = f"+AAo-import pathlib; pathlib.Path({str(ran)!r}).touch()+AAo-#"
    source = (package / "served.py").read_bytes()
    (package / "served.py").write_bytes(b"#\r#\r# coding: utf-7 " + hidden.encode() + b"\n" + source)
    sources = packaging.read_sources(package)
    package.rename(folder / "code" / packaging.package_name(sources, by_bytes=False))


def plant_second_package(folder: Path, package: Path, ran: Path) -> None:
    second = folder / "code" / "segline_model_0123456789ab"
    shutil.copytree(package, second)
    (second / "served.py").write_text(evil((package / "served.py").read_text(), ran))


def plant_extension(folder: Path, package: Path, ran: Path) -> None:  # noqa: ARG001
    (package / "served.cpython-311-x86_64-linux-gnu.so").write_bytes(b"\x7fELF")
    (package / "served").mkdir()
    (package / "served" / "__init__.py").write_text(evil("", ran))


def linked_weights(folder: Path, package: Path, ran: Path) -> None:  # noqa: ARG001
    file = folder / "artifacts" / "model" / "weights.safetensors"
    file.rename(ran.parent / "weights")
    file.symlink_to(ran.parent / "weights")


def linked_package(folder: Path, package: Path, ran: Path) -> None:  # noqa: ARG001
    package.rename(ran.parent / "code")
    package.symlink_to(ran.parent / "code")


def fifo(folder: Path, package: Path, ran: Path) -> None:  # noqa: ARG001
    os.mkfifo(folder / "code" / "pipe.py")
    (folder / "artifacts" / "model" / "model.json").unlink()
    os.mkfifo(folder / "artifacts" / "model" / "model.json")


def sockets(folder: Path, package: Path, ran: Path) -> None:  # noqa: ARG001
    here = Path.cwd()
    os.chdir(folder)  # the path of a socket must be short
    with socket.socket(socket.AF_UNIX) as made:
        made.bind("s")
    os.chdir(here)


def empty_folder(folder: Path, package: Path, ran: Path) -> None:  # noqa: ARG001
    (folder / "code" / "pandas").mkdir()


def link_to_nothing(folder: Path, package: Path, ran: Path) -> None:  # noqa: ARG001
    (folder / "code" / "x\x1b]0;pwn\x07").symlink_to("nowhere")


PLANTS = [
    plant_bytecode,
    plant_link_to_package,
    plant_modules,
    plant_entry,
    plant_loader,
    plant_source,
    plant_statements_in_a_comment,
    plant_second_package,
    plant_extension,
    linked_weights,
    linked_package,
    fifo,
    sockets,
    empty_folder,
    link_to_nothing,
]


def test_planted_code_never_runs_and_verify_names_it(
    registry: Registry, folder: Path, parts: Parts, tmp_path: Path
) -> None:
    ran, files_tag = tmp_path / "ran", registry.version("1").tags["files.md5"]
    shutil.copytree(folder, tmp_path / "sound")
    for number, plant in enumerate(PLANTS):
        place = tmp_path / str(number)
        place.mkdir()
        plant(folder, next((folder / "code").glob("segline_model_*")), place / "ran")
        for tags_too in (False, True):
            if tags_too:
                rewrite_files(registry, folder)
            problems = " ".join(wrong(registry))
            assert (problems or tags_too) and "\x1b" not in problems, plant
            answered = answer(registry, parts.example)
            # Earlier versions of segline left caches, which must not lead to a refusal.
            assert answered is None or (answered == parts.answer and (tags_too or plant is plant_bytecode)), plant
            assert not (place / "ran").exists(), plant
        shutil.rmtree(folder)
        shutil.copytree(tmp_path / "sound", folder)
        tag(registry, "files.md5", files_tag)
    assert answer(registry, parts.example) == parts.answer
    assert not ran.exists()


def answer(registry: Registry, image: bytes) -> bytes | None:
    """Return the labels that the champion predicts; None if the champion is refused."""
    try:
        return load_model(registry.store, CHAMPION)(image).labels
    except RegistryError as error:
        refused = str(error)
    assert "\x1b" not in refused
    return None


def test_a_file_replaced_after_the_check_is_not_loaded(
    registry: Registry, folder: Path, parts: Parts, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    decide, package = answers.checked, next((folder / "code").iterdir())

    def slow(*arguments: Any, **named: Any) -> trust.VersionContent:
        content = decide(*arguments, **named)
        alter_weights(folder)
        plant_source(folder, package, tmp_path / "ran")
        return content

    monkeypatch.setattr(answers, "checked", slow)
    assert load_model(registry.store, CHAMPION)(parts.example).labels == parts.answer
    assert not (tmp_path / "ran").exists()


def test_a_version_that_points_to_the_files_of_another_is_refused(registry: Registry, store: Store) -> None:
    sources = [registry.version(number).source for number in "12"]
    version = store.client.get_model_version("cells", "1")
    version._source = sources[1]
    with pytest.raises(RegistryError, match="differs from its registration"):
        trust.checked(store, version)
    tag(registry, "files.md5", "x")
    version = store.client.get_model_version("cells", "1")
    version._source = sources[1]
    with pytest.raises(RegistryError, match="set the tag to this md5"):
        trust.checked(store, version)
    for source in ("/", "file:///etc", "models:/m-0", "https://example.org/x", "runs:/../x", ""):
        version._source = source
        with pytest.raises(RegistryError, match="its files are missing"):
            intact.files(store, version)


def test_an_alias_set_by_hand_leads_to_a_warning(
    registry: Registry, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    md5 = registry.version("2").tags["version.md5"]
    registry.client.set_registered_model_alias("cells", "champion", "2")
    load_model(store, CHAMPION)
    assert f"warning: @champion is on md5 {md5}, but registry.jsonl names md5" in " ".join(
        capsys.readouterr().err.split()
    )


def test_two_versions_with_the_same_tag_are_distinguished_by_their_files(registry: Registry, parts: Parts) -> None:
    tag(registry, "version.md5", parts.md5, "2")
    version = registry.find(parts.md5)
    assert version is not None and str(version.version) == "1"
    assert any(
        "has the same value in other versions (1); somebody edited one of these tags" in problem
        for problem in wrong(registry)
    )


def test_a_full_temporary_folder_is_reported(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("segline.files.stream_md5", full)
    with pytest.raises(RegistryError, match=r"has no room .* set TMPDIR"):
        load_model(registry.store, CHAMPION)


def test_a_forged_marker_promotes_no_version(registry: Registry, project: Path) -> None:
    line = json.loads(registry.history_file.read_text().splitlines()[-1])
    before = registry.history_file.read_bytes()
    mark = project / "mlruns" / "promotion.json"
    for content in (json.dumps({**line, "version_md5": "0" * 32}), "[" * 100_000, "\xff"):
        mark.write_text(content)
        with registry.store.place.lock("registry"):
            registry.settle()
        assert registry.history_file.read_bytes() == before
        assert not mark.exists()
    assert registry.client.get_model_version_by_alias("cells", "champion").version == 1


@pytest.mark.parametrize("name", ["gate", "classes", "closure.files", "files.md5", "channels", "dtype", "code.md5"])
@pytest.mark.parametrize(
    "value", ["approved", "[" * 2000, "9" * 3000, '{"a": {}}', "null", '{"checks": [{"name": 1}]}', "\x1b]0;pwn\x07"]
)
def test_an_edited_tag_is_invalid(name: str, value: str) -> None:
    edited = {name: value}
    assert tags.verdict(edited) is None
    assert tags.table(edited, name) == {} or name not in tags.TABLES
    assert tags.classes(edited) == {} and tags.image_form(edited) is None
    assert tags.unreadable(edited)


def test_valid_tags_are_read() -> None:
    ours = {
        "gate": json.dumps(GOOD.as_dict()),
        "classes": '{"0": "background", "1": "cell"}',
        "files.md5": json.dumps({"a": "0" * 32}),
        "channels": "3",
        "dtype": "uint16",
        "version.md5": "0" * 32,
    }
    assert tags.verdict(ours) == GOOD
    assert tags.classes(ours) == {0: "background", 1: "cell"}
    assert tags.image_form(ours) == (3, "uint16")
    assert tags.unreadable(ours) == []


def test_visit_reads_regular_files_only(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a")
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "b").write_bytes(b"b")
    (tmp_path / "hard").hardlink_to(tmp_path / "a")
    (tmp_path / "round").symlink_to(tmp_path)
    (tmp_path / "link").symlink_to("a")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "x.py").write_bytes(b"")
    seen: dict[str, bytes] = {}
    (tmp_path / Path(*"0123456789" * 4)).mkdir(parents=True)
    others = entries.visit(tmp_path, lambda path, stream: seen.update({path: stream.read()}))
    assert seen == {"a": b"a", "hard": b"a", "inner/b": b"b"}
    deep = Path(*"0123456789" * 4).parts[: entries.DEEPEST + 1]
    assert others.pop("/".join(deep)) == "a folder nested too deeply"
    assert others == {"round": "a link", "link": "a link", "pipe": "a FIFO", "__pycache__": entries.CACHE}


def test_a_package_in_memory_supports_late_imports() -> None:
    sources = {
        "__init__.py": b"",
        "served.py": b"from . import inner\ndef late():\n    from .inner.deep import X\n    return X, inner.Y\n",
        "inner/__init__.py": b"Y = 2\n",
        "inner/deep.py": "X = 'ü'\n".encode(),
    }
    assert modules.load("segline_model_test", sources, "served").late() == ("ü", 2)
    assert modules.load("segline_model_test", sources, "served").late() == ("ü", 2)
    with pytest.raises(ImportError, match="another package"):
        modules.load("segline_model_test", {**sources, "served.py": b""}, "served")
    with pytest.raises(ModuleNotFoundError):
        modules.load("segline_model_test", sources, "other")


def test_old_versions_accept_fewer_parameters() -> None:
    served = (packaging.ROOM / "served.py").read_bytes()
    assert all(f'"{name}"'.encode() in served for name in answers.PARAMS)
