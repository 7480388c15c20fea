"""dvc.yaml tells the truth: the code that a stage imports lies in its rooms, and its params are the sections it reads.

Each rule is also shown to fail on a planted violation. The last test shows which change runs which stage again.
"""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dvc.repo import Repo
from ruamel.yaml import YAML

import segline
from segline.track import identity, installed, lineage
from tests.closure import PLANNED_SECTIONS, closure, imported_names, module_files, params_read

SOURCE = "src/segline"
PACKAGES = "requirements.txt"
LINES = 150  # of a dvc.yaml that a person reads
# Code that stages import although it shapes no result, with the reason; no stage depends on it.
SHAPES_NO_RESULT = {
    "__init__.py": "switches telemetry off, and sets how the threads of a matrix library wait for each other",
    "stages/__init__.py": "holds a docstring alone",
    "addresses.py": "reads the addresses of servers that record runs and searches",
    "failure.py": "words an error for the user; whoever sees it has no result",
    "process.py": "stops a process and returns its memory; what was finished by then is as it would have been",
    "progress.py": "shows how far a stage is",
    "terminal.py": "shows text and bars",
    "text.py": "cuts and escapes text in messages",
    "track": "records runs beside the results, and says by identity of code what may be resumed",
}
# segline/__init__.py imports this module at the first use of a public name. No code in src uses a public name.
INTERFACE = "segline.library"
NO_RESULT_BUT = {"register": {"track"}}  # versions are the result of register, and track makes them
NO_REASON_TO_RERUN = {"runtime"}  # section of params.yaml: where and how a stage runs


@pytest.fixture
def house(repository: Path, tmp_path: Path) -> Path:
    """Copy the code, to plant violations in it."""
    ignore = shutil.ignore_patterns("__pycache__", ".*_cache", "*.egg-info")
    shutil.copytree(repository / "src", tmp_path / "src", ignore=ignore)
    shutil.copy(repository / "dvc.yaml", tmp_path)
    return tmp_path


def stages_of(root: Path) -> dict[str, Any]:
    stages: dict[str, Any] = YAML(typ="safe").load((root / "dvc.yaml").read_text())["stages"]
    return stages


def untruths(root: Path) -> list[str]:
    """List where dvc.yaml and the code disagree."""
    stages, files = stages_of(root), {name: file for name, file in module_files(root).items() if name != INTERFACE}
    scripts = sorted(file.stem for file in (root / SOURCE / "stages").glob("[!_]*.py"))
    problems = [f"stages/{name}.py is not a stage of dvc.yaml" for name in scripts if name not in stages]
    problems += [f"{name}: there is no stages/{name}.py" for name in stages if name not in scripts]
    public = {INTERFACE, *(f"segline.{name}" for name in segline.__all__)}
    for module, file in files.items():
        names = imported_names(file, module)
        if module != "segline" and any(name in public or name.startswith(f"{INTERFACE}.") for name in names):
            problems.append(f"{module} uses the Python interface, which must shape no result")
    imported: set[str] = set()
    for name in stages.keys() & {*scripts}:
        paths = closure(f"segline.stages.{name}", files)
        code = {path.relative_to(root / SOURCE).as_posix() for path in paths}
        imported |= code
        problems += [f"{name}: {problem}" for problem in wrong_rooms(name, stages[name]["deps"], code)]
        sections = {
            section
            for module, path in files.items()
            if path in paths and module != "segline.params"
            for section in params_read(path, module)
        }
        problems += [f"{name}: {problem}" for problem in wrong_params(stages[name]["params"], sections)]
        if stages[name]["cmd"] != f"PYTHONPATH=src python -m segline {name}":
            problems.append(f"{name}: cmd {stages[name]['cmd']}")
    unused = [room for room in SHAPES_NO_RESULT if not any(is_in(path, {room}) for path in imported)]
    return problems + [f"no stage imports {room}" for room in unused]


def wrong_rooms(stage: str, deps: list[str], code: set[str]) -> Iterator[str]:
    """Yield what is wrong with the rooms of a stage, which imports the files of `code`."""
    rooms = {dep.removeprefix(f"{SOURCE}/") for dep in deps if dep.startswith("src")}
    shapeless = SHAPES_NO_RESULT.keys() - NO_RESULT_BUT.get(stage, set())
    for path in sorted(code):
        if not is_in(path, rooms) and not is_in(path, shapeless):
            yield f"{path} is imported, but is in none of its rooms"
    for room in sorted(rooms):
        if room in shapeless:
            yield f"{room} shapes no result: {SHAPES_NO_RESULT[room]}"
        elif "/" in room and room != f"stages/{stage}.py":
            yield f"{room} is not a room"
        elif not any(is_in(path, {room}) for path in code):
            yield f"{room} is not imported"
    if PACKAGES not in deps:
        yield f"{PACKAGES} is not a dependency"


def is_in(path: str, rooms: set[str]) -> bool:
    """Return whether a file is one of `rooms`, or in a folder that is one."""
    return any(path == room or path.startswith(f"{room}/") for room in rooms)


def wrong_params(declared: list[Any], read: set[str]) -> Iterator[str]:
    """Yield what is wrong with the params of a stage, which reads the sections of `read`."""
    # A params file other than params.yaml is declared as a mapping with keys; without keys, all of it.
    names = {entry for entry in declared if not isinstance(entry, dict)}
    for file, keys in (item for entry in declared if isinstance(entry, dict) for item in entry.items()):
        names |= {f"{file}:{key}" for key in keys} if keys else {file}
    wanted = read - NO_REASON_TO_RERUN
    yield from (f"params {section} is read, but is not declared" for section in sorted(wanted - names))
    yield from (f"params {section} is declared, but is not read" for section in sorted(names - wanted))


def test_dvc_yaml_tells_the_truth(repository: Path) -> None:
    assert untruths(repository) == []


def test_dvc_yaml_is_short_enough_to_be_read(repository: Path) -> None:
    assert len((repository / "dvc.yaml").read_text().splitlines()) <= LINES


@pytest.mark.parametrize(
    ("file", "line", "untruth"),
    [
        (
            "stages/prepare.py",
            "def late():\n    import segline.score.counts",
            "prepare: score/counts.py is imported, but is in none of its rooms",
        ),
        (
            "data/splits.py",
            "from segline import addresses, serve",
            "prepare: serve/app.py is imported, but is in none of its rooms",
        ),
        (
            "stages/sample.py",
            "from segline import params\nparams.read(params.Gate)",
            "sample: params gate is read, but is not declared",
        ),
        (
            "stages/prepare.py",
            "from segline import params\nparams.read(params.Evaluate)",
            "prepare: params data/plan/plan.yaml:evaluate is read, but is not declared",
        ),
        (
            "stages/tune.py",
            "from segline import params\nparams.read_tuned()",
            "tune: params data/tune/best.yaml is read, but is not declared",
        ),
        ("stages/other.py", "", "stages/other.py is not a stage of dvc.yaml"),
    ],
)
def test_an_undeclared_dependency_is_found(house: Path, file: str, line: str, untruth: str) -> None:
    with (house / SOURCE / file).open("a") as stream:
        stream.write(f"\n{line}\n")
    assert untruth in untruths(house)


@pytest.mark.parametrize(
    ("old", "new", "untruth"),
    [
        ("/stages/sample.py", "/stages/sample.py, src/segline/cli.py", "sample: cli.py is not imported"),
        ("/stages/sample.py", "/stages/sample.py, src/segline/score", "sample: score is not imported"),
        ("/stages/train.py", "/stages/train.py, src/segline/track", "train: track shapes no result: records runs"),
        ("/stages/train.py", "/stages/train.py, src/segline/text.py", "train: text.py shapes no result"),
        ("/stages/train.py", "/stages/train.py, src", "train: src is not imported"),
        ("/stages/train.py", "/stages/train.py, src/segline", "train: src/segline is not a room"),
        ("/stages/train.py", "/stages/train.py, src/segline/data/gaps.py", "train: data/gaps.py is not a room"),
        ("/stages/train.py", "/stages/train.py, src/segline/stages/tune.py", "train: stages/tune.py is not a room"),
        ("src/segline/stages/train.py, ", "", "train: stages/train.py is imported, but is in none of its rooms"),
        ("src/segline/track,", "", "register: track/packaging.py is imported, but is in none of its rooms"),
        (", requirements.txt", "", "tune: requirements.txt is not a dependency"),
        ("params: [sample]", "params: [sample, runtime]", "sample: params runtime is declared, but is not read"),
        ("train.tile,", "train.tile, train.seed,", "plan: params train.seed is declared, but is not read"),
        ("plan.yaml: [weights]", "plan.yaml: [model]", "weights: params data/plan/plan.yaml:weights is read"),
        ("params: [sample]", "params: [sample, gate]", "sample: params gate is declared, but is not read"),
        ("PYTHONPATH=src python -m", "segline", "sample: cmd segline segline sample"),
        ("  sample:\n", "  draw:\n", "draw: there is no stages/draw.py"),
    ],
)
def test_a_wrong_declaration_is_found(house: Path, old: str, new: str, untruth: str) -> None:
    file = house / "dvc.yaml"
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))
    assert any(problem.startswith(untruth) for problem in untruths(house))


def test_projects_without_sources_have_the_same_stages(repository: Path) -> None:
    """The template's dvc.yaml differs in how it declares the identity of the code, and in nothing else."""
    content = YAML(typ="safe").load((repository / "dvc.yaml").read_text())
    for name, stage in content["stages"].items():
        stage["cmd"] = f"segline {name}"
        stage["deps"] = [dep for dep in stage["deps"] if not dep.startswith(("src/", PACKAGES))]
        if not stage["deps"]:
            del stage["deps"]
        stage["params"].append({installed.FILE.name: [f"code.{name}"]})
    assert YAML(typ="safe").load((repository / SOURCE / "template/stages.yaml").read_text()) == content


def test_dvc_finds_one_pipeline_only(repository: Path) -> None:
    """DVC reads every dvc.yaml and *.dvc in the repository, and `dvc pull` fails if one was never run."""
    found = [
        *repository.glob("dvc.yaml"),
        *(repository / "src").rglob("dvc.yaml"),
        *(repository / "src").rglob("*.dvc"),
    ]
    assert [file.relative_to(repository).as_posix() for file in found] == ["dvc.yaml"]


def test_the_digest_of_a_stage_covers_the_rooms_of_the_stage(repository: Path) -> None:
    for name, stage in stages_of(repository).items():
        rooms = {dep.removeprefix(f"{SOURCE}/") for dep in stage["deps"] if dep.startswith("src/")}
        assert rooms == {f"stages/{name}.py", *installed.SHARED, *installed.ROOMS[name]}


def test_code_without_a_result_must_be_imported_to_be_named(house: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SHAPES_NO_RESULT, "gone.py", "")
    assert untruths(house) == ["no stage imports gone.py"]


@pytest.mark.parametrize(
    "line", ["from segline import load", "import segline.library", "from segline.library import load"]
)
def test_code_that_uses_the_python_interface_is_found(house: Path, line: str) -> None:
    file = house / SOURCE / "stages/sample.py"
    file.write_text(f"{file.read_text()}\n{line}\n")
    assert "segline.stages.sample uses the Python interface, which must shape no result" in untruths(house)


# Which change runs which stage again. Keys: of a search, of a training that can be resumed, of a version.

HEADER = ("changed", "runs again: a comment", "a statement", "new keys: a comment", "a statement")
AGAIN = """
| `__init__.py` | - | - | - | - |
| `__main__.py` | - | - | - | - |
| `addresses.py` | - | - | - | - |
| `cli.py` | - | - | - | - |
| `cli_models.py` | - | - | - | - |
| `commands` | - | - | - | - |
| `data` | all | all | - | search, training |
| `failure.py` | - | - | - | - |
| `files.py` | all | all | - | search, training |
| `gate` | register | register | - | - |
| `importing` | - | - | - | - |
| `library.py` | - | - | - | - |
| `model` | all | all | - | search, training, version |
| `names.py` | all | all | - | search, training |
| `params.py` | all | all | - | search, training |
| `parse.py` | all | all | - | search, training |
| `planning` | plan | plan | - | - |
| `presets` | - | - | - | - |
| `process.py` | - | - | - | - |
| `progress.py` | - | - | - | - |
| `score` | all but sample, prepare | all but sample, prepare | - | search, training |
| `serve` | - | - | - | - |
| `stages/__init__.py` | - | - | - | - |
| `stages/evaluate.py` | evaluate | evaluate | - | - |
| `stages/plan.py` | plan | plan | - | - |
| `stages/prepare.py` | prepare | prepare | - | - |
| `stages/register.py` | register | register | - | - |
| `stages/sample.py` | sample | sample | - | - |
| `stages/train.py` | train | train | - | training |
| `stages/tune.py` | tune | tune | - | search |
| `stages/weights.py` | weights | weights | - | - |
| `template` | - | - | - | - |
| `terminal.py` | - | - | - | - |
| `text.py` | - | - | - | - |
| `track` | register | register | - | - |
| `train` | plan, tune, train, evaluate | plan, tune, train, evaluate | - | search, training |
| `transforms.py` | all | all | - | search, training |
"""


@pytest.fixture
def skeleton(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a project with one file for each room, in which all stages are up to date; the working directory."""
    for room in rooms_of(repository):
        file = tmp_path / SOURCE / (room if room.endswith(".py") else f"{room}/code.py")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("NUMBER = 1\n")
    for name in ("dvc.yaml", "params.yaml", PACKAGES, ".dvcignore"):
        shutil.copy(repository / name, tmp_path)
    shutil.copytree(repository / "data/encoders", tmp_path / "data/encoders")
    monkeypatch.chdir(tmp_path)
    repo = Repo.init(no_scm=True)
    for stage in stages_of(tmp_path).values():
        for out in (out for kind in ("outs", "metrics", "plots") for out in stage.get(kind, ())):
            path = Path(out if isinstance(out, str) else next(iter(out)))
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.name == "best.yaml":
                path.write_text("searched: []\n")
            elif path.name == "plan.yaml":
                path.write_text("".join(f"{section}: {{}}\n" for section in PLANNED_SECTIONS))
            elif path.suffix:
                path.write_text(path.name)
            else:
                path.mkdir()
                (path / "file").write_text("content")
    repo.commit(force=True)
    repo.close()
    return tmp_path


def rooms_of(root: Path) -> list[str]:
    """List the rooms of segline: folders, single files beside them, and the files of the stages."""
    folder = root / SOURCE
    singles = [file.name for file in folder.glob("*.py")]
    rooms = [room.name for room in folder.iterdir() if (room / "__init__.py").exists() and room.name != "stages"]
    return sorted([*singles, *rooms, *(f"stages/{file.name}" for file in (folder / "stages").glob("*.py"))])


def changed_stages() -> set[str]:
    with Repo() as repo:
        return {*repo.status()}


def keys() -> dict[str, str]:
    """Return the parts that code has in the keys of a search, a training and a version."""
    code = {
        key: lineage.combined_md5(lineage.code(stage)) for key, stage in (("search", "tune"), ("training", "train"))
    }
    return {**code, "version": identity.of_folder(Path(SOURCE, "model"))}


def in_words(changed: set[str], everything: list[str]) -> str:
    unchanged = [name for name in everything if name not in changed]
    if not unchanged:
        return "all"
    few = [name for name in everything if name in changed]
    return f"all but {', '.join(unchanged)}" if len(few) > len(unchanged) + 1 else ", ".join(few) or "-"


def test_a_change_in_a_room_runs_the_stages_that_depend_on_it(skeleton: Path) -> None:
    assert changed_stages() == set()
    stages, before = [*stages_of(skeleton)], keys()
    rows = []
    for room in rooms_of_skeleton(skeleton):
        file = skeleton / SOURCE / (room if room.endswith(".py") else f"{room}/code.py")
        runs, new_keys = [], []
        for line in ("# a comment\n", "OTHER = 2\n"):
            file.write_text(f"NUMBER = 1\n{line}")
            runs.append(in_words(changed_stages(), stages))
            new_keys.append(", ".join(key for key, value in keys().items() if value != before[key]) or "-")
        file.write_text("NUMBER = 1\n")
        rows.append((f"`{room}`", *runs, *new_keys))
    table = "".join(f"| {' | '.join(row)} |\n" for row in rows)
    sys.stdout.write(f"| {' | '.join(HEADER)} |\n{'|---' * len(HEADER)}|\n{table}")  # seen with pytest -s
    assert table == AGAIN.lstrip()


def rooms_of_skeleton(root: Path) -> list[str]:
    """List the rooms of a skeleton, whose folders hold no package."""
    files = [file.relative_to(root / SOURCE).as_posix() for file in (root / SOURCE).rglob("*.py")]
    return sorted(file.removesuffix("/code.py") for file in files)


def test_bytecode_and_copies_of_an_editor_change_no_stage(skeleton: Path) -> None:
    for name in ("__pycache__/code.cpython-311.pyc", ".code.py.swp", "code.py~"):
        file = skeleton / SOURCE / "data" / name
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(b"0")
    assert changed_stages() == set()
