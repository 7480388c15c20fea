"""Pack a model: complete, without pickles, and answering with its own code in any process."""

import ast
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import packages_distributions
from pathlib import Path

import mlflow.pyfunc
import numpy as np
import pandas as pd
import pytest

from segline.model.images import decode, encode_png
from segline.model.objects import encode as encode_objects
from segline.track.packaging import PACKAGES, ROOM, PackagingError, Parts, check, encode, pack, requirements

FRESH = """
import json, sys

class Refuse:
    def find_spec(self, name, *_):
        if name.split(".")[0] == "segline":
            raise ImportError(f"{name} is not importable here")

sys.meta_path.insert(0, Refuse())
import mlflow.pyfunc, pandas as pd

model = mlflow.pyfunc.load_model(sys.argv[1])
image = pd.DataFrame({"image": [open(sys.argv[2], "rb").read()]})
assert list(model.predict(image)) == ["labels"]
answer = model.predict(image, params={"instances": True})
open(sys.argv[3], "wb").write(answer["labels"][0])
open(sys.argv[3] + " instances", "wb").write(answer["instances"][0])
print([name for name in sys.modules if name.split(".")[0] == "segline"])
"""


@pytest.fixture
def packed(parts: Parts, tmp_path: Path) -> Path:
    pack(parts, tmp_path / "packed")
    return tmp_path / "packed"


def test_the_package_holds_code_model_and_example(packed: Path, parts: Parts) -> None:
    files = {str(path.relative_to(packed)) for path in packed.rglob("*") if path.is_file()}
    code = {f"code/{parts.package}/{path.name}" for path in parts.room.glob("*.py")}
    written_by_mlflow = {"MLmodel", "conda.yaml", "python_env.yaml", "requirements.txt", "entry.py"}
    examples = {"input_example.json", "serving_input_example.json"}
    ours = {"artifacts/model/weights.safetensors", "artifacts/model/model.json", "artifacts/model/inference.json"}
    assert files == code | written_by_mlflow | examples | ours | {
        "artifacts/example/image",
        "artifacts/example/labels.png",
        "artifacts/example/instances.png",
    }
    assert (packed / "artifacts/example/labels.png").read_bytes() == parts.answer
    assert (packed / "artifacts/example/instances.png").read_bytes() == parts.instances


def test_the_package_answers_without_segline(packed: Path, parts: Parts, tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(parts.example)
    arguments = [str(packed), str(tmp_path / "image"), str(tmp_path / "answer")]
    done = subprocess.run(
        [sys.executable, "-I", "-c", FRESH, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
    assert (tmp_path / "answer").read_bytes() == parts.answer
    assert (tmp_path / "answer instances").read_bytes() == parts.instances


def test_two_versions_in_one_process_keep_their_own_code(
    packed: Path, parts: Parts, other_code: Callable[[str, str, str], Parts], tmp_path: Path
) -> None:
    inverted = other_code("inference.py", "Prediction(class_labels(", "Prediction(1 - class_labels(")
    turned = encode_png(1 - decode(parts.answer)[..., 0])
    pack(replace(inverted, answer=turned), tmp_path / "other")
    champion = mlflow.pyfunc.load_model(str(packed))
    challenger = mlflow.pyfunc.load_model(str(tmp_path / "other"))
    image = pd.DataFrame({"image": [parts.example]})
    for _ in range(2):
        assert champion.predict(image)["labels"][0] == parts.answer
        assert challenger.predict(image)["labels"][0] == turned


def test_check_refuses_other_labels(packed: Path, parts: Parts) -> None:
    check(packed, parts)
    wrong = decode(parts.answer)[..., 0]
    wrong[:5] = 1 - wrong[:5]
    with pytest.raises(PackagingError, match="run stage evaluate again"):
        check(packed, replace(parts, answer=encode_png(wrong)))
    with pytest.raises(PackagingError, match=r"100\.00%"):
        check(packed, replace(parts, answer=encode_png(wrong[:, :-1])))


def test_check_refuses_missing_objects_but_allows_one_different_cut(packed: Path, parts: Parts) -> None:
    objects = decode(parts.instances)[..., 0].astype(np.int32)
    renumbered = np.where(objects > 0, objects.max() + 1 - objects, 0)
    check(packed, replace(parts, instances=encode_objects(renumbered)))
    joined = np.where(objects == objects.max(), objects.max() - 1, objects)
    check(packed, replace(parts, instances=encode_objects(joined)))
    with pytest.raises(PackagingError, match=r"it finds 0 of the 1 objects .* run stage evaluate again"):
        check(packed, replace(parts, instances=encode_objects(objects > 0)))


def test_packing_and_checking_unload_the_package(other_code: Callable[[str, str, str], Parts], tmp_path: Path) -> None:
    parts = other_code("inference.py", "MEMORY_BUDGET = 3 *", "MEMORY_BUDGET = 4 *")
    path = sys.path[:]
    pack(parts, tmp_path / "packed")
    check(tmp_path / "packed", parts)
    assert not [name for name in sys.modules if name.startswith(parts.package)]
    assert sys.path == path


def test_requirements_are_the_imports_of_the_code() -> None:
    imported = set()
    for file in ROOM.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                imported.add(node.module.split(".")[0])
    distributions = packages_distributions()
    imported.add("imagecodecs")  # tifffile imports it for compressed files
    needed = {name for module in imported - sys.stdlib_module_names for name in distributions[module][:1]}
    # Two distributions provide mlflow; serving needs the full one.
    assert {name.replace("mlflow-skinny", "mlflow").replace("mlflow-tracing", "mlflow") for name in needed} == set(
        PACKAGES
    )


def test_requirements_can_be_installed_from_pypi(packed: Path) -> None:
    assert all("==" in line and "+" not in line for line in requirements())
    assert (packed / "requirements.txt").read_text().splitlines() == requirements()


def test_version_md5_depends_on_all_that_decides_its_answers(
    parts: Parts, other_code: Callable[[str, str, str], Parts], tmp_path: Path
) -> None:
    def changed(name: str) -> Parts:
        folder = tmp_path / name
        folder.mkdir()
        for file in parts.model.iterdir():
            (folder / file.name).write_bytes(file.read_bytes() + (b" " if file.name == name else b""))
        return replace(parts, model=folder, inference=folder / "inference.json")

    decisive = [changed(name).md5 for name in ("weights.safetensors", "model.json", "inference.json")]
    decisive.append(other_code("inference.py", "MEMORY_BUDGET = 3 *", "MEMORY_BUDGET = 2 *").md5)
    assert len({parts.md5, *decisive}) == 5
    assert changed("nothing").md5 == parts.md5
    assert replace(parts, example=b"another", answer=b"another").md5 == parts.md5


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5])
def test_an_encoded_image_decodes_without_loss(dtype: str, channels: int) -> None:
    raw = (np.random.default_rng(0).random((5, 7, channels)) * (1 if dtype == "float32" else 255)).astype(dtype)
    decoded = decode(encode(raw))
    assert decoded.dtype == raw.dtype
    np.testing.assert_array_equal(decoded, raw)
