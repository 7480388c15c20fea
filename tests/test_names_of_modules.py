"""Names are unique: no two modules whose names are equal or differ only in their ending, no two classes of one name.

The tables list the exceptions with their reasons. A table must not list a name that has become unique.
"""

import ast
from collections import defaultdict
from pathlib import Path

import pytest

PACKAGE = Path("src/segline")
ENDINGS = ("ions", "ion", "ings", "ing", "ers", "er", "ed", "es", "s", "e")
SIMILAR_MODULES = {
    "serve served": "the command, and model/served.py, a file name that registered versions carry",
    "prepare prepared": "the stage, and its arrays",
}
SHARED_CLASSES: dict[str, str] = {}


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
