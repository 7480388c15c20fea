"""The import closure, judged by hand on a small package."""

from pathlib import Path

import pytest

import dvc_deps


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A package in which every way of importing occurs once."""
    files = {
        "__init__.py": "import os",
        "params.py": "",
        "alone.py": "",
        "a/__init__.py": "",
        "a/one.py": "def late():\n    from segline.b import two",
        "b/__init__.py": "from . import inner",
        "b/inner.py": "from .. import params",
        "b/two.py": "import segline.c.three as t",
        "c/__init__.py": "",
        "c/three.py": "import importlib\nimportlib.import_module('segline.d.four')",
        "d/__init__.py": "",
        "d/four.py": "from segline.params import Params",
        "d/shipped.py": "",
        "stages/__init__.py": "",
        "stages/all.py": "from segline.a.one import late",
        "stages/ship.py": "import segline.d",
        "stages/none.py": "import numpy",
    }
    for name, text in files.items():
        file = tmp_path / "src" / "segline" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return tmp_path


def closure(root: Path, module: str) -> set[str]:
    files = dvc_deps.closure(module, dvc_deps.module_files(root))
    return {file.relative_to(root / "src/segline").as_posix() for file in files}


def test_every_way_of_importing_is_followed(package: Path) -> None:
    everything = {file.relative_to(package / "src/segline").as_posix() for file in (package / "src").rglob("*.py")}
    others = {"alone.py", "d/shipped.py", "stages/ship.py", "stages/none.py"}
    assert closure(package, "segline.stages.all") == everything - others


def test_who_imports_nothing_has_its_packages_alone(package: Path) -> None:
    assert closure(package, "segline.stages.none") == {"__init__.py", "stages/__init__.py", "stages/none.py"}


def test_who_takes_a_package_by_name_takes_all_of_it(package: Path) -> None:
    assert {"d/__init__.py", "d/four.py", "d/shipped.py"} <= closure(package, "segline.stages.ship")


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("importlib.import_module('segline.' + name)", "an import by a computed"),
        ("importlib.import_module(name='segline.a')", "an import by a computed"),
        ("importlib.import_module('.a', 'segline')", "or relative name"),
        ("il.import_module('segline.' + name)", "an import by a computed"),
        ("from importlib import import_module as load", "by its own name"),
        ("__import__('segline.a')", "__import__ has no closure"),
        ("load = __import__", "__import__ has no closure"),
        ("from ... import a", "climbs above"),
    ],
)
def test_an_import_that_cannot_be_followed_is_refused(package: Path, line: str, says: str) -> None:
    (package / "src/segline/alone.py").write_text(f"import importlib\n{line}")
    with pytest.raises(ValueError, match=rf"alone\.py:2: .*{says}"):
        closure(package, "segline.alone")


def test_import_module_is_followed_by_any_name_of_its_library(package: Path) -> None:
    (package / "src/segline/alone.py").write_text("import importlib as il\nil.import_module('segline.c.three')")
    assert "c/three.py" in closure(package, "segline.alone")


@pytest.mark.parametrize(
    ("code", "sections"),
    [
        ("params.read(params.Train)", ["train"]),
        (
            "def late():\n    return params.read(params.Augment, file), params.read_tuned()",
            ["augment", "data/tune/best.yaml"],
        ),
        ("from segline.params import Train, check", []),
        ("from segline import params\ndef f(a: params.Train) -> None:\n    print(params.TUNED_FILE)", []),
        ("from .. import params\nparams.read(params.Gate)", ["gate"]),
        ("files.read(x)", []),
        # Somebody else's params.
        ("def log(params):\n    return dict(params), params.items()", []),
    ],
)
def test_sections_that_are_read(tmp_path: Path, code: str, sections: list[str]) -> None:
    (tmp_path / "a.py").write_text(code)
    assert sorted(dvc_deps.params_read(tmp_path / "a.py", "segline.stages.a")) == sections


@pytest.mark.parametrize(
    "code",
    [
        "from segline.params import read",
        "from segline.params import read_tuned as tuned",
        "from segline.params import *",
        "from ..params import read",
        "params.read(section)",
        "params.load(params.Params, file)",
        "params.read()",
        "import segline.params; segline.params.read(segline.params.Train)",
        "import segline.params as p; p.read(p.Train)",
        "import segline.data; segline.params.read(segline.params.Train)",
        "from segline import params as p; p.read(p.Train)",
        "from .. import params as p; p.read(p.Train)",
        "r = params.read",
        "r = params.read_tuned",
        "partial(params.read, params.Train)",
        "from segline import params; p = params",
        "from segline import params; getattr(params, 'read')(params.Train)",
        "importlib.import_module('segline.params').read(x)",
        "sys.modules['segline.params'].read(x)",
        "params.PARAMS_FILE.read_text()",
    ],
)
def test_a_way_of_reading_that_cannot_be_followed_is_refused(tmp_path: Path, code: str) -> None:
    (tmp_path / "a.py").write_text(code)
    with pytest.raises(ValueError, match=r"a\.py:1: .*params\.read\(params\.SECTION\) or params\.read_tuned\(\)"):
        list(dvc_deps.params_read(tmp_path / "a.py", "segline.stages.a"))


def test_rewriting_keeps_what_is_written_by_hand(package: Path) -> None:
    file = package / "dvc.yaml"
    file.write_text(
        "# why\nstages:\n  none:\n    cmd: run\n    deps:\n      - data/x\n      - src/gone.py\n    params: []\n"
        "    outs:\n      # kept\n      - data/y:\n          persist: true\n"
    )
    (package / "src/segline/stages/none.py").write_text(
        "from segline import params\nparams.read(params.Gate), params.read(params.Runtime), params.read_tuned()"
    )
    dvc_deps.rewrite(package)
    expected = (
        "# why\nstages:\n  none:\n    cmd: run\n    deps:\n      - data/x\n      - src/segline/__init__.py\n"
        "      - src/segline/params.py\n      - src/segline/stages/__init__.py\n      - src/segline/stages/none.py\n"
        "      - requirements.txt\n    params:\n      - data/tune/best.yaml:\n      - gate\n"
        "    outs:\n      # kept\n      - data/y:\n          persist: true\n"
    )
    assert file.read_text() == expected
    dvc_deps.rewrite(package)
    assert file.read_text() == expected
