"""One project for three datasets, in a subfolder of a repository, with a space and an umlaut in its path.

Three trainings serve all tests: the registry holds three models, and no later test trains again.
"""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from segline.data import imagefiles
from tests.checkout import SMALL, Project, read_only

pytestmark = pytest.mark.soak
INSIDE = Path("Abteilung 7", "Zellen für Müller")  # path of the project in its repository
DATASETS = ("discs", "bars", "rings")
WIDTHS = {"discs": 4, "bars": 5, "rings": 6}  # model.width of each dataset
SIDE = 64


def draw(folder: Path, name: str) -> None:
    """Draw six images with four objects each, and one mask per image with the ids of the objects."""
    rows, columns = np.mgrid[:SIDE, :SIDE]
    rng = np.random.default_rng(DATASETS.index(name))
    for number in range(6):
        mask = np.zeros((SIDE, SIDE), np.uint8)
        for label, (row, column) in enumerate(((16, 16), (16, 48), (48, 16), (48, 48)), start=1):
            down, right = (rows - row - rng.integers(-3, 4), columns - column - rng.integers(-3, 4))
            distance = np.hypot(down, right)
            inside = {
                "discs": distance < 9,
                "bars": (abs(down) < 4) & (abs(right) < 11),
                "rings": (distance < 10) & (distance > 5),
            }
            mask[inside[name]] = label
        image = 60 + 120 * (mask > 0) + rng.normal(0, 12, mask.shape)
        for kind, pixels in (("images", image.clip(0, 255).astype(np.uint8)), ("masks", mask)):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            imagefiles.write_png(folder / kind / f"{number}.png", pixels)


def in_use(project: Project, name: str) -> str:
    """Run the pipeline with the settings of one dataset, and return its output."""
    project.run("segline", "preset", f"settings/{name}.yaml")
    return project.run("dvc", "repro")


def state(project: Project) -> tuple[int, dict[str, list[tuple[int, str, list[str]]]]]:
    """Return the number of runs in the store, and the versions of each model."""
    return project.runs(), project.versions()


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A committed project with one model for each of three datasets; params.yaml names the last one."""
    root = tmp_path_factory.mktemp("soak") / "Präparate 2026"
    root.mkdir()
    repository, project = Project(root), Project(root / INSIDE)
    repository.run("git", "init", "-q")
    repository.run("git", "config", "user.email", "test@segline.invalid")
    repository.run("git", "config", "user.name", "test")
    repository.run("segline", "init", str(INSIDE))
    project.set(**SMALL | {"tune": SMALL["tune"] | {"trials": 0}})
    (project.folder / "settings").mkdir()
    for name in DATASETS:
        draw(root.parent / name, name)
        project.run("segline", "import", str(root.parent / name), "--name", name, "--labels", "instances")
        settings = {"data": {"source": f"data/raw/{name}"}, "model": SMALL["model"] | {"width": WIDTHS[name]}}
        (project.folder / "settings" / f"{name}.yaml").write_text(json.dumps(settings))
    project.run("dvc", "add", *(f"data/raw/{name}" for name in DATASETS))
    for name in DATASETS:
        assert f"{name} version 1 (@challenger, @champion) is new" in in_use(project, name)
        project.commit(f"Model of {name}")
    return project


def test_one_registry_holds_a_champion_for_each_dataset(project: Project) -> None:
    runs, models = state(project)
    assert runs == len(DATASETS)  # one training each
    assert sorted(models) == sorted(DATASETS)
    versions = [version for of_name in models.values() for version in of_name]
    assert [(number, aliases) for number, _, aliases in versions] == [(1, ["challenger", "champion"])] * len(DATASETS)
    assert len({md5 for _, md5, _ in versions}) == len(DATASETS)
    (listed,) = json.loads(project.run("segline", "models", "list", "--name", "bars", "--json"))
    assert (listed["name"], listed["version"]) == ("bars", 1)


def test_an_earlier_dataset_is_taken_from_the_run_cache(project: Project) -> None:
    before = state(project)
    output = in_use(project, "discs")
    for stage in ("prepare", "weights", "tune", "train", "evaluate"):
        assert f"Stage '{stage}' is cached - skipping run" in output
    assert "discs version 1 (@challenger, @champion) existed already" in output
    assert state(project) == before
    project.commit("Back to discs")


def test_an_experiment_with_another_dataset_leaves_its_results_in_the_working_directory(project: Project) -> None:
    before = state(project)
    project.run("dvc", "exp", "run", "-S", "data.source=data/raw/rings", "-S", f"model.width={WIDTHS['rings']}")
    assert state(project) == before
    assert "source: data/raw/rings" in (project.folder / "params.yaml").read_text()
    assert (project.folder / "data/reports/model_card.md").read_text().startswith("# rings\n")
    project.commit("Rings, by an experiment")


def test_line_ends_of_windows_run_nothing_again(project: Project) -> None:
    before = state(project)
    for name in ("params.yaml", "dvc.yaml", "segline.yaml", "settings/bars.yaml"):
        file = project.folder / name
        file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
    assert "Running" not in project.run("dvc", "repro", "--dry")
    assert "nothing changes" in project.run("segline", "upgrade")
    assert "bars version 1 (@challenger, @champion) existed already" in in_use(project, "bars")
    assert state(project) == before
    project.commit("Bars, with line ends of Windows")
    assert project.run("git", "ls-files", "--eol", "params.yaml", "dvc.yaml", "segline.yaml").count("i/lf") == 3


def test_a_git_worktree_restores_all_models_without_training(project: Project, tmp_path: Path) -> None:
    place = tmp_path / "Kopie ß"
    project.run("git", "worktree", "add", "-q", "--detach", str(place))
    worktree = Project(place / INSIDE)
    # A copy of the cache, because DVC cannot write a path with an umlaut into its settings.
    shutil.copytree(project.folder / ".dvc" / "cache", worktree.folder / ".dvc" / "cache")
    worktree.run("dvc", "checkout")
    assert "Running" not in worktree.run("dvc", "repro", "--dry")
    worktree.run("segline", "models", "sync")
    restored, original = worktree.versions(), project.versions()
    assert {name: [md5 for _, md5, _ in versions] for name, versions in restored.items()} == {
        name: [md5 for _, md5, _ in versions] for name, versions in original.items()
    }
    assert all("champion" in aliases for ((_, _, aliases),) in restored.values())
    assert project.run("git", "status", "--porcelain") == worktree.run("git", "status", "--porcelain") == ""


def test_a_model_folder_in_a_read_only_checkout_predicts(project: Project, tmp_path: Path) -> None:
    images = str(project.folder / "data" / "raw" / "rings" / "images")
    clone = Project(tmp_path / "Nur lesen" / INSIDE)
    project.run("git", "clone", "-q", str(project.folder.parents[1]), str(tmp_path / "Nur lesen"))
    download = ("mlflow", "artifacts", "download", "-u", "models:/rings/1", "-d", str(clone.folder / "model"))
    project.run(*download, MLFLOW_TRACKING_URI=f"sqlite:///{project.folder / 'mlruns' / 'mlflow.db'}")
    with read_only(tmp_path / "Nur lesen"):
        clone.run("segline", "predict", images, "--model", "model", "--out", str(tmp_path / "folder"))
        refused = clone.attempt("segline", "predict", images, "--model", "model", "--out", "labels")
    project.run("segline", "predict", images, "--model", "models:/rings/1", "--out", str(tmp_path / "registry"))
    labels = {file.name: file.read_bytes() for file in (tmp_path / "registry").glob("*.png")}
    assert len(labels) == 6
    assert labels == {file.name: file.read_bytes() for file in (tmp_path / "folder").glob("*.png")}
    assert refused.returncode == 1
    assert re.search("read-only|permission", refused.stderr, re.IGNORECASE)
    assert "Traceback" not in refused.stderr
