"""Import closures of a small package, compared with lists made by hand."""

from pathlib import Path

import pytest

from segline.planning import recipe
from tests import closure as imports


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """Make a package in which every way of importing occurs once."""
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
    files = imports.closure(module, imports.module_files(root))
    return {file.relative_to(root / "src/segline").as_posix() for file in files}


def test_every_way_of_importing_is_followed(package: Path) -> None:
    everything = {file.relative_to(package / "src/segline").as_posix() for file in (package / "src").rglob("*.py")}
    others = {"alone.py", "d/shipped.py", "stages/ship.py", "stages/none.py"}
    assert closure(package, "segline.stages.all") == everything - others


def test_a_module_without_imports_needs_only_its_packages(package: Path) -> None:
    assert closure(package, "segline.stages.none") == {"__init__.py", "stages/__init__.py", "stages/none.py"}


def test_a_package_imported_by_name_is_needed_as_a_whole(package: Path) -> None:
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


def test_import_module_is_followed_under_any_name_of_importlib(package: Path) -> None:
    (package / "src/segline/alone.py").write_text("import importlib as il\nil.import_module('segline.c.three')")
    assert "c/three.py" in closure(package, "segline.alone")


@pytest.mark.parametrize(
    ("code", "sections"),
    [
        ("params.read(params.Train)", ["data/plan/plan.yaml:train", "train"]),
        ("params.read_fixed(recipe.TIMED)", sorted(recipe.TIMED)),
        (
            "def late():\n    return params.read(params.Augment, file), params.read_tuned()",
            ["augment", "data/plan/plan.yaml:augment", "data/tune/best.yaml"],
        ),
        ("from segline.params import Train, check", []),
        ("from segline import params\ndef f(a: params.Train) -> None:\n    print(params.TUNED_FILE)", []),
        ("from .. import params\nparams.read(params.Gate)", ["gate"]),
        ("files.read(x)", []),
        # A local variable of the same name.
        ("def log(params):\n    return dict(params), params.items()", []),
    ],
)
def test_the_sections_that_a_file_reads_are_found(tmp_path: Path, code: str, sections: list[str]) -> None:
    (tmp_path / "a.py").write_text(code)
    assert sorted(imports.params_read(tmp_path / "a.py", "segline.stages.a")) == sections


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
    with pytest.raises(ValueError, match=r"a\.py:1: .*params\.read\(params\.SECTION\), params\.read_fixed"):
        list(imports.params_read(tmp_path / "a.py", "segline.stages.a"))
