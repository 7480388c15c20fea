"""Names are unique: no two modules of one name, no two public classes of one name, no near-twin module names."""

import ast
from collections import defaultdict
from pathlib import Path

import pytest

PACKAGE = Path("src/segline")
SHARED_MODULES = {
    "objects": "importing/formats/objects.py and model/objects.py: to be renamed",
}
SHARED_CLASSES = {
    "Wishes": "options of an import, and options of a prediction: to be renamed",
    "Said": "commands/predicting.py and importing/formats/coco_json.py: to be renamed",
    "Dataset": "a dataset folder, and MLflow's record of a dataset: to be renamed",
    "Drawing": "data/drawn.py and importing/formats/drawings.py: to be renamed",
    "Place": "data/georeference.py, data/sampler.py and track/location.py: to be renamed",
    "Axis": "data/omezarr.py and params.py: to be renamed",
    "Outcome": "gate/champion.py and train/search.py: to be renamed",
    "Plan": "importing/cutting.py and train/space.py: to be renamed",
    "Facts": "importing/formats/census.py and model/metadata.py: to be renamed",
    "Image": "importing/formats/coco_json.py and track/trained.py: to be renamed",
    "Content": "serve/answering.py, track/trust.py and train/checkpoint.py: to be renamed",
}


@pytest.fixture(scope="module")
def modules(repository: Path) -> list[Path]:
    return [path.relative_to(repository) for path in sorted((repository / PACKAGE).rglob("*.py"))]


def repeated(names: dict[str, list[str]]) -> dict[str, list[str]]:
    """Return the names that occur in more than one file."""
    return {name: files for name, files in names.items() if len(files) > 1}


def test_no_two_modules_have_the_same_name(modules: list[Path]) -> None:
    names = defaultdict(list)
    for path in modules:
        if path.stem not in ("__init__", "__main__"):
            names[path.stem].append(str(path))
    assert set(repeated(names)) == set(SHARED_MODULES), repeated(names)


def test_no_two_public_classes_have_the_same_name(modules: list[Path], repository: Path) -> None:
    names = defaultdict(list)
    for path in modules:
        for node in ast.walk(ast.parse((repository / path).read_text())):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                names[node.name].append(str(path))
    assert set(repeated(names)) == set(SHARED_CLASSES), repeated(names)
