"""Names are unique: no two modules whose names are equal or differ only in their ending, no two classes of one name.

The tables list the exceptions with their reasons. A table must not list a name that has become unique.
"""

import ast
from collections import defaultdict
from pathlib import Path

import pytest

PACKAGE = Path("src/segline")
ENDINGS = ("ions", "ion", "ings", "ing", "ers", "er", "ed", "es", "s", "e")
STAGE = "the stage, and the module for its"
SIMILAR_MODULES = {
    "objects": "importing/formats/objects.py and model/objects.py: to be renamed",
    "predict predicted predicting": "commands/: to be merged into one path for prediction",
    "serve served": "commands/serve.py, and model/served.py, a file name that registered versions carry",
    "prepare prepared": f"{STAGE} arrays",
    "sample sampler": "the stage that draws the default dataset, and the sampler of tiles: to be renamed",
    "tiled tiling": "data/tiled.py and model/tiling.py: to be renamed",
    "judge judging": "score/judge.py and gate/judging.py: to be renamed",
    "paired pairs": "importing/formats/pairs.py and score/paired.py: to be renamed",
    "train trained training": f"{STAGE} results and steps: to be renamed",
}
SHARED_CLASSES = {
    "Wishes": "options of an import, and options of a prediction: to be renamed",
    "Said": "commands/predicting.py and importing/formats/coco_json.py: to be renamed",
    "Dataset": "a dataset folder, and MLflow's record of a dataset: to be renamed",
    "Drawing": "data/synthetic.py and importing/formats/drawings.py: to be renamed",
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


def without_ending(name: str) -> str:
    for ending in ENDINGS:
        if name.endswith(ending) and len(name) >= len(ending) + 3:
            return name.removesuffix(ending)
    return name


def test_no_two_modules_have_similar_names(modules: list[Path]) -> None:
    groups = defaultdict(list)
    for path in modules:
        if path.stem not in ("__init__", "__main__"):
            groups[without_ending(path.stem)].append(path.stem)
    similar = {" ".join(sorted(set(names))) for names in groups.values() if len(names) > 1}
    assert similar == set(SIMILAR_MODULES)


def test_no_two_public_classes_have_the_same_name(modules: list[Path], repository: Path) -> None:
    names = defaultdict(list)
    for path in modules:
        for node in ast.walk(ast.parse((repository / path).read_text())):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                names[node.name].append(str(path))
    repeated = {name: files for name, files in names.items() if len(files) > 1}
    assert set(repeated) == set(SHARED_CLASSES), repeated
