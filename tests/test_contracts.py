"""Contracts of the code that are checked here; each check is also shown to find a planted violation."""

import ast
import itertools
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from ruamel.yaml import YAML
from scmrepo.git import Git

from tests.closure import imported_names, module_files

# Libraries that only a few files may import, with the starts of the paths of these files.
DOORS = {
    "mlflow": ("track/", "model/served.py"),
    "optuna": ("train/search.py", "train/studies.py", "train/charts.py"),
    "albumentations": ("data/albumentations_transform.py", "transforms.py"),
    "dvc": ("track/clone.py",),  # its reader of settings, for the addresses of remotes
    "zarr": ("data/omezarr.py", "data/writers.py"),
}
OTHER_SPELLINGS = re.compile(r"(.*_)?lr|learn(ing)?_?rate", re.IGNORECASE)


@pytest.fixture
def house(repository: Path, tmp_path: Path) -> Path:
    """Copy the code, to plant violations in it."""
    ignore = shutil.ignore_patterns("__pycache__", ".*_cache", "*.egg-info")
    shutil.copytree(repository / "src", tmp_path / "src", ignore=ignore)
    for name in ("pyproject.toml", "dvc.yaml", "params.yaml"):
        shutil.copy(repository / name, tmp_path)
    return tmp_path


def append(file: Path, text: str) -> None:
    file.write_text(f"{file.read_text()}\n{text}\n")


# Floors


def broken_floors(root: Path) -> str:
    """Return the complaints of import-linter about the code under `root`; empty if all contracts are kept."""
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as run; run()", "--no-cache"]
    environment = {"PYTHONPATH": "src", "COLUMNS": "200"}
    result = subprocess.run(
        [*command, "--no-logo"], cwd=root, env=environment, capture_output=True, text=True, check=False
    )
    return "" if result.returncode == 0 else result.stdout + result.stderr


def test_floors_are_kept(repository: Path) -> None:
    assert broken_floors(repository) == ""


@pytest.mark.parametrize(
    ("file", "line", "complaint"),
    [
        (
            "data/__init__.py",
            "def late():\n    from segline.train import loop",
            "segline.data is not allowed to import segline.train",
        ),
        ("model/__init__.py", "from segline import params", "segline.model is not allowed to import segline.params"),
        (
            "score/__init__.py",
            "from segline.model import tiling",
            "segline.score is not allowed to import segline.model",
        ),
        (
            "train/__init__.py",
            "from segline.track import recording",
            "segline.train is not allowed to import segline.track",
        ),
        ("track/__init__.py", "from segline.data import labels", "segline.track is not allowed to import segline.data"),
        (
            "stages/train.py",
            "from segline.stages import tune",
            "segline.stages.train is not allowed to import segline.stages.tune",
        ),
        (
            "commands/preset.py",
            "import segline.stages.train",
            "segline.commands is not allowed to import segline.stages",
        ),
    ],
)
def test_an_import_of_a_higher_floor_is_found(house: Path, file: str, line: str, complaint: str) -> None:
    append(house / "src/segline" / file, line)
    assert complaint in re.sub(r"\s+", " ", broken_floors(house))


def test_a_new_file_must_be_given_a_floor(house: Path) -> None:
    (house / "src/segline/helpers.py").write_text("")
    assert "segline.helpers" in broken_floors(house)


# Doors, and the room that is shipped


def imports_outside_doors(root: Path) -> list[str]:
    found = []
    for module, file in module_files(root).items():
        inside = file.relative_to(root / "src/segline").as_posix()
        for name in imported_names(file, module):
            library = name.partition(".")[0]
            if not inside.startswith(DOORS.get(library, "")):
                found.append(f"{inside} imports {library}")
    return found


def test_libraries_stay_behind_their_doors(repository: Path) -> None:
    assert imports_outside_doors(repository) == []


@pytest.mark.parametrize("library", sorted(DOORS))
def test_a_library_outside_its_door_is_found(house: Path, library: str) -> None:
    append(house / "src/segline/score/__init__.py", f"def late():\n    from {library}.client import anything")
    assert imports_outside_doors(house) == [f"score/__init__.py imports {library}"]


def leaks_of_the_shipped_room(root: Path) -> list[str]:
    """List imports in model/ of other code of segline, or of model/ by a name that it does not have when shipped."""
    leaks = []
    for module, file in module_files(root).items():
        if module.split(".")[:2] != ["segline", "model"]:
            continue
        # Under another name, as when shipped: only relative imports stay inside the package.
        shipped = ".".join(["elsewhere", "room", *module.split(".")[2:]])
        for name in imported_names(file, shipped):
            library, _, rest = name.partition(".")
            if library == "segline" or (library == "elsewhere" and rest.partition(".")[0] != "room"):
                leaks.append(f"{file.name} imports {name}")
    return leaks


def test_the_shipped_room_is_closed(repository: Path) -> None:
    assert leaks_of_the_shipped_room(repository) == []


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("from segline.model import tiling", "segline.model.tiling"),
        ("from ..params import Model", "elsewhere.params.Model"),
        ("from .. import params", "elsewhere.params"),
        ("import segline.score", "segline.score"),
        ("import segline", "segline"),
        ("def late():\n    importlib.import_module('segline.score')", "segline.score"),
    ],
)
def test_a_leak_of_the_shipped_room_is_found(house: Path, line: str, name: str) -> None:
    append(house / "src/segline/model/__init__.py", line)
    assert leaks_of_the_shipped_room(house) == [f"__init__.py imports {name}"]


@pytest.mark.parametrize("line", ["__import__('segline.score')", "from ... import anything"])
def test_a_leak_that_cannot_be_followed_is_refused(house: Path, line: str) -> None:
    append(house / "src/segline/model/__init__.py", line)
    with pytest.raises(ValueError, match=r"model/__init__\.py:\d+: "):
        leaks_of_the_shipped_room(house)


# One spelling per value


def other_spellings(root: Path) -> list[str]:
    """List names of the learning rate in code and settings other than `learning_rate`; torch alone may get `lr`."""
    named = []
    for file in sorted((root / "src").rglob("*.py")):
        named += [(name, f"{file.name}:{line}") for name, line in _names(ast.parse(file.read_text()))]
    for file in (root / "params.yaml", *sorted((root / "src").rglob("*.yaml"))):
        named += [(name, file.name) for name in _keys(YAML(typ="safe").load(file.read_text()))]
    return [f"{place} {name}" for name, place in named if name != "learning_rate" and OTHER_SPELLINGS.fullmatch(name)]


def _names(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Yield every name and text in a file with its line: variables, arguments, attributes, functions, keys."""
    for_torch = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("torch.optim."):
            for_torch |= {id(keyword) for keyword in node.keywords}
        # The param_groups of torch's optimizers.
        elif isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and node.value.id == "group":
            for_torch.add(id(node.slice))
    for node in ast.walk(tree):
        line = getattr(node, "lineno", 0)
        if id(node) in for_torch:
            continue
        if isinstance(node, ast.Name):
            yield node.id, line
        elif isinstance(node, ast.Attribute):
            yield node.attr, line
        elif isinstance(node, ast.arg | ast.keyword):
            yield node.arg or "", line
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name, line
        elif isinstance(node, ast.alias):
            yield node.asname or "", line
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value, line


def _keys(content: object) -> Iterator[str]:
    if isinstance(content, dict):
        for key, value in content.items():
            yield str(key)
            yield from _keys(value)


def test_the_learning_rate_has_one_spelling(repository: Path) -> None:
    assert other_spellings(repository) == []


@pytest.mark.parametrize(
    "line",
    [
        "lr = 0.1",
        "def fit(lr): ...",
        "def base_lr(): ...",
        "fit(lr=0.1)",
        "optim.SGD(lr=0.1)",
        "base_lr = 0.1",
        "settings.learn_rate",
        "log({'learningRate': 1})",
        "d['lr']",
        "d['lr'] = 1",
        "groups['base_lr']",
        "group.get('lr')",
        "from a import rate as lr",
    ],
)
def test_another_spelling_is_found(house: Path, line: str) -> None:
    append(house / "src/segline/train/__init__.py", line)
    assert len(other_spellings(house)) == 1


@pytest.mark.parametrize("line", ["torch.optim.SGD(parameters, lr=rate)", "group['lr'] = rate", "colr = 'lrs'"])
def test_arguments_of_torch_are_not_another_spelling(house: Path, line: str) -> None:
    append(house / "src/segline/train/__init__.py", line)
    assert other_spellings(house) == []


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("params.yaml", "  learning_rate:", "  lr:"),
        ("params.yaml", "    gamma:", "    base_lr: 1\n    gamma:"),
        ("src/segline/presets/isbi2012_paper.yaml", "  learning_rate:", "  lr:"),
        ("src/segline/params.py", "    learning_rate: Positive", "    lr: Positive"),
    ],
)
def test_another_spelling_of_a_setting_is_found(house: Path, file: str, old: str, new: str) -> None:
    text = (house / file).read_text()
    assert text.count(old) == 1
    (house / file).write_text(text.replace(old, new))
    found = other_spellings(house)
    assert len(found) == 1
    assert found[0].startswith(Path(file).name)


# Pins, and what DVC and git each own


def test_every_requirement_is_pinned_without_a_source(repository: Path) -> None:
    for name in ("requirements.txt", "requirements-dev.txt"):
        lines = [line.partition("#")[0].strip() for line in (repository / name).read_text().splitlines()]
        odd = [line for line in lines if line and not re.fullmatch(r"[\w.-]+(\[\w+\])?==[\w.]+", line)]
        assert odd == ([] if name == "requirements.txt" else ["-r requirements.txt"])


def test_every_imported_library_is_required_by_name(repository: Path) -> None:
    direct = (repository / "requirements.txt").read_text().partition("# What those need")[0].lower()
    distributions = packages_distributions()
    for module, file in module_files(repository).items():
        for name in imported_names(file, module):
            library = name.partition(".")[0]
            if library not in sys.stdlib_module_names | {"segline"}:
                assert any(f"\n{each.lower()}==" in direct for each in distributions[library]), f"{file}: {library}"


def test_pyproject_has_a_range_for_every_direct_pin(repository: Path) -> None:
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    ranges = [*project["dependencies"], *itertools.chain(*project["optional-dependencies"].values())]
    pins = dict(re.findall(r"^([\w.-]+)(?:\[\w+\])?==([\w.]+)", pinned_text(repository), re.MULTILINE))
    direct = pinned_text(repository).partition("# What those need")[0]
    required = {canonicalize_name(Requirement(text).name) for text in ranges}
    named = {canonicalize_name(name) for name in re.findall(r"^([\w.-]+)(?:\[\w+\])?==", direct, re.MULTILINE)}
    assert named - required == {"setuptools", "psycopg-binary"}  # builds the package; is installed by psycopg[binary]
    pinned = {canonicalize_name(name): version for name, version in pins.items()}
    for text in ranges:
        requirement = Requirement(text)
        assert pinned[canonicalize_name(requirement.name)] in requirement.specifier, text


def pinned_text(repository: Path) -> str:
    return "".join((repository / name).read_text() for name in ("requirements.txt", "requirements-dev.txt"))


def test_all_places_name_the_same_pythons(repository: Path) -> None:
    settings = tomllib.loads((repository / "pyproject.toml").read_text())
    versions = re.findall(r"Python :: (3\.\d+)", "\n".join(settings["project"]["classifiers"]))
    supported = SpecifierSet(settings["project"]["requires-python"])
    assert versions == [version for version in (f"3.{minor}" for minor in range(30)) if version in supported]
    assert settings["tool"]["mypy"]["python_version"] == versions[0]
    makefile = (repository / "Makefile").read_text()
    assert re.findall(r"python(3\.\d+)", makefile.partition("PYTHON ?=")[2].partition("done)")[0]) == versions[::-1]
    for name in ("README.md", "CONTRIBUTING.md", "Makefile"):
        assert f"Python {versions[0]} to {versions[-1]}" in (repository / name).read_text()


def test_dvc_and_git_agree_on_what_is_ignored(repository: Path, tmp_path: Path) -> None:
    # DVC reads .gitignore by rules of its own; where it takes data/ for ignored, it finds no dataset in data/raw.
    shutil.copy(repository / ".gitignore", tmp_path)
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    tracked = [
        "data/",
        "data/.gitkeep",
        "data/encoders/.gitkeep",
        "data/encoders/a.pth.dvc",
        "data/raw/",
        "data/raw/mine.dvc",
        "data/model/",
        "data/model/metrics.json",
    ]
    tracked += [
        "data/reports/",
        "data/reports/test.json",
        "src/segline/files.py",
        "mlruns/.gitkeep",
        "params.yaml",
    ]
    owned = ["data/raw/mine/", "data/raw/mine/images/a.png", "data/prepared/", "data/model/weights.safetensors"]
    owned += ["data/reports/predictions/", "data/tune/best.yaml", "mlruns/mlflow.db", ".venv/"]
    scm = Git(str(tmp_path))
    for path in (*tracked, *owned):
        by_git = subprocess.run(["git", "check-ignore", "--quiet", path], cwd=tmp_path, check=False).returncode == 0
        assert (path, by_git, scm.is_ignored(path)) == (path, path in owned, path in owned)


def test_no_tracked_file_has_windows_line_ends(repository: Path) -> None:
    listed = subprocess.run(["git", "ls-files", "--eol"], cwd=repository, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not in a git repository")
    assert [line for line in listed.stdout.splitlines() if line.split()[0] in ("i/crlf", "i/mixed")] == []
