"""The contracts that a machine keeps; each is also shown to fail on a planted violation."""

import ast
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from ruamel.yaml import YAML
from scmrepo.git import Git

import dvc_deps

# Libraries that only a few files may import, by the beginning of their names: what they do stays behind one door.
DOORS = {
    "mlflow": ("track/", "model/served.py"),
    "optuna": ("train/search.py", "stages/tune.py"),
    "albumentations": ("data/transform.py",),
    "dvc": (),
}
OTHER_SPELLINGS = re.compile(r"lr|learn(ing)?_?rate|learningRate", re.IGNORECASE)


@pytest.fixture
def house(repository: Path, tmp_path: Path) -> Path:
    """A copy of the code to plant violations in."""
    ignore = shutil.ignore_patterns("__pycache__", ".*_cache", "*.egg-info")
    shutil.copytree(repository / "src", tmp_path / "src", ignore=ignore)
    for name in ("pyproject.toml", "dvc.yaml", "params.yaml"):
        shutil.copy(repository / name, tmp_path)
    return tmp_path


def append(file: Path, text: str) -> None:
    file.write_text(f"{file.read_text()}\n{text}\n")


# Floors


def broken_floors(root: Path) -> str:
    """What import-linter says about the code under `root`, empty when all contracts are kept."""
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
            "from segline.model import tiles",
            "segline.score is not allowed to import segline.model",
        ),
        ("train/__init__.py", "from segline.track import runs", "segline.train is not allowed to import segline.track"),
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
def test_a_climbing_import_breaks_a_floor(house: Path, file: str, line: str, complaint: str) -> None:
    append(house / "src/segline" / file, line)
    assert complaint in re.sub(r"\s+", " ", broken_floors(house))


def test_a_new_file_must_be_given_a_floor(house: Path) -> None:
    (house / "src/segline/helpers.py").write_text("")
    assert "segline.helpers" in broken_floors(house)


# Doors, and the room that is shipped


def imports_outside_doors(root: Path) -> list[str]:
    found = []
    for module, file in dvc_deps.module_files(root).items():
        inside = file.relative_to(root / "src/segline").as_posix()
        for name in dvc_deps.imported_names(file, module):
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
    """Imports in model/ that lead out of it, or back into it by a name that it does not bear where it is shipped."""
    room = root / "src/segline/model"
    leaks = []
    for file in sorted(room.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom):
                name = f"{'.' * node.level}{node.module or ''}"
                # A dot is the package this file lies in, each further dot the one around it.
                if node.level > len(file.relative_to(room).parts) or name.partition(".")[0] == "segline":
                    leaks.append(f"{file.name} imports {name}")
            elif isinstance(node, ast.Import):
                leaks += [f"{file.name} imports {alias.name}" for alias in node.names if alias.name[:7] == "segline"]
    return leaks


def test_the_shipped_room_is_closed(repository: Path) -> None:
    assert leaks_of_the_shipped_room(repository) == []


@pytest.mark.parametrize(
    "line", ["from segline.model import tiles", "from ..params import Model", "import segline.score"]
)
def test_a_leak_of_the_shipped_room_is_found(house: Path, line: str) -> None:
    append(house / "src/segline/model/__init__.py", line)
    assert leaks_of_the_shipped_room(house) == [f"__init__.py imports {line.split()[1]}"]


# dvc.yaml tells the truth


def untruths(root: Path) -> list[str]:
    """Where dvc.yaml and the code disagree about what a stage depends on."""
    stages = YAML(typ="safe").load((root / "dvc.yaml").read_text())["stages"]
    files = sorted((root / "src/segline/stages").glob("[!_]*.py"))
    found = [f"{file.name} is no stage of dvc.yaml" for file in files if file.stem not in stages]
    for name, stage in stages.items():
        code, sections = dvc_deps.expected(name, root)
        declared_code, _, declared_sections = dvc_deps.declared(stage)
        for what, true, said in (("code", code, declared_code), ("params", sections, declared_sections)):
            found += [f"{name}: {what} {item} is not declared" for item in sorted(set(true) - set(said))]
            found += [f"{name}: {what} {item} is declared, not used" for item in sorted(set(said) - set(true))]
        if stage["cmd"] != f"PYTHONPATH=src python -m segline {name}":
            found.append(f"{name}: cmd {stage['cmd']}")
    return found


def test_dvc_yaml_tells_the_truth(repository: Path) -> None:
    assert untruths(repository) == [], "run `make generate`"


@pytest.mark.parametrize(
    ("file", "line", "untruth"),
    [
        (
            "stages/prepare.py",
            "def late():\n    import segline.data.drawn",
            "prepare: code src/segline/data/drawn.py is not declared",
        ),
        (
            "stages/sample.py",
            "from segline import params\nparams.read(params.Gate)",
            "sample: params gate is not declared",
        ),
        (
            "stages/tune.py",
            "from segline import params\nparams.read_tuned()",
            "tune: params data/tune/best.yaml is not declared",
        ),
        ("stages/other.py", "", "other.py is no stage of dvc.yaml"),
    ],
)
def test_an_undeclared_dependency_is_found(house: Path, file: str, line: str, untruth: str) -> None:
    planted = house / "src/segline" / file
    planted.touch()
    append(planted, line)
    assert untruth in untruths(house)


@pytest.mark.parametrize(
    ("old", "new", "untruth"),
    [
        (
            "    deps:\n",
            "    deps:\n      - src/segline/cli.py\n",
            "prepare: code src/segline/cli.py is declared, not used",
        ),
        ("    params:\n", "    params:\n      - runtime\n", "sample: params runtime is declared, not used"),
        ("PYTHONPATH=src python -m", "segline", "sample: cmd segline segline sample"),
    ],
)
def test_a_dependency_too_many_is_found(house: Path, old: str, new: str, untruth: str) -> None:
    file = house / "dvc.yaml"
    file.write_text(file.read_text().replace(old, new))
    assert untruth in untruths(house)


# One spelling per value


def other_spellings(root: Path) -> list[str]:
    """Names for the learning rate other than `learning_rate`; only calls to torch may say `lr`."""
    found = []
    for file in sorted((root / "src").rglob("*.py")):
        for name, line in _names(ast.parse(file.read_text())):
            if name != "learning_rate" and OTHER_SPELLINGS.fullmatch(name):
                found.append(f"{file.name}:{line} {name}")
    return found


def _names(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Every name that a file gives: variables, arguments, attributes, and the keys of dictionaries."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield node.id, node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno
        elif isinstance(node, ast.Attribute):
            yield node.attr, node.lineno
        elif isinstance(node, ast.Dict):
            yield from ((str(key.value), key.lineno) for key in node.keys if isinstance(key, ast.Constant))


def test_the_learning_rate_has_one_spelling(repository: Path) -> None:
    assert other_spellings(repository) == []


@pytest.mark.parametrize("line", ["lr = 0.1", "def fit(lr): ...", "settings.learn_rate", "log({'learningRate': 1})"])
def test_another_spelling_is_found(house: Path, line: str) -> None:
    append(house / "src/segline/train/__init__.py", line)
    assert len(other_spellings(house)) == 1


# Pins, and what DVC and git each own


def test_every_requirement_is_pinned_without_a_place_to_get_it_from(repository: Path) -> None:
    for name in ("requirements.txt", "requirements-dev.txt"):
        lines = [line.partition("#")[0].strip() for line in (repository / name).read_text().splitlines()]
        odd = [line for line in lines if line and not re.fullmatch(r"[\w.-]+==[\w.]+", line)]
        assert odd == ([] if name == "requirements.txt" else ["-r requirements.txt"])


def test_what_is_imported_is_required_by_name(repository: Path) -> None:
    direct = (repository / "requirements.txt").read_text().partition("# What those need")[0].lower()
    distributions = packages_distributions()
    for module, file in dvc_deps.module_files(repository).items():
        for name in dvc_deps.imported_names(file, module):
            library = name.partition(".")[0]
            if library not in sys.stdlib_module_names | {"segline"}:
                assert any(f"\n{each.lower()}==" in direct for each in distributions[library]), f"{file}: {library}"


def test_dvc_and_git_agree_on_what_is_ignored(repository: Path, tmp_path: Path) -> None:
    # DVC reads .gitignore by rules of its own; where it takes data/ for ignored, it finds no dataset in data/raw.
    shutil.copy(repository / ".gitignore", tmp_path)
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    tracked = ["data/", "data/.gitkeep", "data/raw/", "data/raw/mine.dvc", "data/model/", "data/model/metrics.json"]
    tracked += [
        "data/reports/",
        "data/reports/test.json",
        "src/segline/data/files.py",
        "mlruns/.gitkeep",
        "params.yaml",
    ]
    owned = ["data/raw/mine/", "data/raw/mine/images/a.png", "data/prepared/", "data/model/weights.safetensors"]
    owned += ["data/reports/predictions/", "data/tune/best.yaml", "mlruns/mlflow.db", ".venv/"]
    scm = Git(str(tmp_path))
    for path in (*tracked, *owned):
        by_git = subprocess.run(["git", "check-ignore", "--quiet", path], cwd=tmp_path, check=False).returncode == 0
        assert (path, by_git, scm.is_ignored(path)) == (path, path in owned, path in owned)
