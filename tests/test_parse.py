"""Untrusted YAML and JSON is parsed, or refused with ParseError, within limits of size and depth."""

import json
import os
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from segline import files, params, parse
from segline.commands.prediction_records import Line
from segline.data.dataset import DatasetError, read_spec
from segline.model.saved import Description, Inference, ModelError
from segline.parse import ParseError, from_json, from_yaml
from segline.train.checkpoint import Rest


def bomb(levels: int) -> str:
    """Return YAML whose aliases expand to 10 ** levels values."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, levels)]
    return "\n".join(lines)


BAD_YAML = {
    "float": ("a: !!float x", "could not convert"),
    "bool": ("a: !!bool x", "not valid YAML"),
    "int": ("a: !!int ''", "not valid YAML"),
    "binary": ("a: !!binary 'ä'", "not valid YAML"),
    "timestamp": ("a: 2001-13-45", "not valid YAML"),
    "python": ("a: !!python/object/apply:os.system [ls]", "not valid YAML"),
    "set": ("a: !!set [x]", "not valid YAML"),
    "ordered": ("a: !!omap 7", "not valid YAML"),
    "merge": ("a: {<<: 7}", "not valid YAML"),
    "5000 digits": ("a: " + "9" * 5000, "not valid YAML"),
    "hexadecimal": ("a: 0x" + "f" * 5000, "larger than 64 bits"),
    "escape": ('a: "\\U0011ffff"', "not valid YAML"),
    "surrogate": ('a: "\\ud800"', "not a valid character"),
    "NUL": ('a: "\\0"', "not a valid character"),
    "raw control": ("a: \x07", "not valid YAML"),
    "deep": ("a: " + "[" * 3000, "nested too deeply"),
    "deep block": ("\n".join(" " * n + "a:" for n in range(200)), "nested too deeply"),
    "bomb": (bomb(9), "once its aliases are expanded"),
    "bomb within itself": ("a: &a [*a]", "a value that contains the alias"),
    "no such alias": ("a: *b", "not valid YAML"),
    "tab": ("a:\n\t- b", "not valid YAML"),
    "twice": ("a: 1\na: 2", "not valid YAML"),
    "two documents": ("a: 1\n---\nb: 2", "not valid YAML"),
    "key is a list": ("? [a]\n: 1\n? {b: 1}\n: 2", "not valid YAML"),
    "UTF-16": ("a: 1".encode("utf-16"), "not valid UTF-8"),
    "Latin-1": (b"a: \xe4", "not valid UTF-8"),
}


@pytest.mark.parametrize("name", BAD_YAML)
def test_invalid_yaml_is_refused(name: str) -> None:
    text, reason = BAD_YAML[name]
    with pytest.raises(ParseError) as refused:
        from_yaml(text)
    assert reason in str(refused.value)
    assert len(str(refused.value)) < 700


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("a: 1\r\nb: [x, 'y']\r\n", {"a": 1, "b": ["x", "y"]}),
        (b"\xef\xbb\xbfa: 1", {"a": 1}),
        ("a: &x {b: 3e-4}\nc: *x", {"a": {"b": 3e-4}, "c": {"b": 3e-4}}),
        ("- !!str 7", ["7"]),
        (bomb(3), None),
    ],
)
def test_valid_yaml_is_parsed(text: str | bytes, value: object) -> None:
    assert value is None or from_yaml(text) == value
    from_yaml(text)


BAD_JSON = {
    "deep": ("[" * 100_000, "nested too deeply"),
    "101 levels": ("[" * 101 + "]" * 101, "nested too deeply"),
    "5000 digits": ("[" + "9" * 5000 + "]", "not valid JSON"),
    "65 bits": (f"[{2**64}]", "larger than 64 bits"),
    "NaN": ('{"a": NaN}', "JSON has no number NaN"),
    "infinity": ("[-Infinity]", "JSON has no number -Infinity"),
    "twice": ('{"a": 1, "a": 2}', "the key 'a' occurs twice"),
    "surrogate": ('["\\ud800"]', "not a valid character"),
    "surrogate as a key": ('{"\\udc00": 1}', "not a valid character"),
    "NUL": ('["\\u0000"]', "not a valid character"),
    "empty": ("", "not valid JSON"),
    "half": ('{"a": ', "not valid JSON"),
    "not valid UTF-8": (b'["\xff"]', "not valid JSON"),
    "escape": ('["\\x"]', "not valid JSON"),
}


@pytest.mark.parametrize("name", BAD_JSON)
def test_invalid_json_is_refused(name: str) -> None:
    text, reason = BAD_JSON[name]
    with pytest.raises(ParseError) as refused:
        from_json(text)
    assert reason in str(refused.value)


def test_valid_json_is_parsed() -> None:
    value = {"a": [1, -2.5, None, True, "ä🙂", {}], "b": "[" * 50 + "]" * 50}
    assert from_json(json.dumps(value)) == from_json(json.dumps(value, ensure_ascii=False).encode()) == value
    assert from_json('["\\udcff"]', surrogates=True) == ["\udcff"]
    assert from_json("[Infinity]", loose=True) == [float("inf")]


def test_only_regular_files_up_to_the_limit_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ParseError, match="not a regular file"):
        parse.read(tmp_path / "pipe", 10)
    with pytest.raises(IsADirectoryError):
        parse.read(tmp_path, 10)
    (tmp_path / "a").write_bytes(b"x" * 2048)
    assert parse.read(tmp_path / "a", 2048) == b"x" * 2048
    with pytest.raises(ParseError, match="larger than the limit of 1 KiB"):
        parse.read(tmp_path / "a", 1024)


@pytest.mark.parametrize("text", [text for text, _ in BAD_YAML.values()])
def test_errors_in_settings_and_datasets_name_the_file(text: str | bytes, tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(params.ParamsError, match=r"x\.yaml"):
        params.load(params.Params, file)
    with pytest.raises((files.FileError, DatasetError), match=r"x\.yaml"):
        read_spec(file)


def test_long_values_and_many_errors_give_a_short_message(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_text(f"data: {{source: [{'y' * 10_000}]}}\n" + "".join(f"k{n}: 1\n" for n in range(500)))
    with pytest.raises(params.ParamsError) as refused:
        params.load(params.Params, file)
    assert len(str(refused.value)) < 10_000
    assert str(refused.value).endswith("and 481 more")


# Valid documents and their readers: each mutation must be read, or refused with one of segline's errors
SPEC = "name: cells\nlabels: instances\nclasses: {0: background, 1: cell}\nignore: 255\nlicence: CC0\n"
MODEL = {
    "network": {"width": 4, "depth": 1, "padding": "same", "norm": "batch", "upsampling": "transposed", "dropout": 0.0},
    "classes": {"0": "background", "1": "cell"},
    "labels": "instances",
    "statistics": {"dtype": "uint8", "channels": 1, "mean": [0.5], "std": [0.25]},
}
INFERENCE = {
    "threshold": 0.5,
    "segment_threshold": None,
    "views": 4,
    "tile": 0,
    "separation": {"depth": 1.5, "min_area": 3},
}
RECORD = {
    "stem": "a",
    "image_md5": "0" * 32,
    "version_md5": "1" * 32,
    "views": 4,
    "model": "models:/a/1",
    "files": {"labels": "a.png", "overlays": "a_overlay.png"},
}
STATE = {
    "epoch": 1,
    "step": 0,
    "seconds": 1.5,
    "last_epoch": 2,
    "time_spent": 3.5,
    "epoch_began": 0.0,
    "losses": [0.5, "nan"],
    "validation_losses": [0.25],
    "optimizer": {"param_groups": [{"lr": 0.1, "params": [0, 1]}], "state": {}},
    "scaler": {},
    "epochs": [],
    "files": ["weights.safetensors", "optimizer.safetensors"],
}
EXTREMES = (
    *(
        '"',
        "'",
        "[",
        "{",
        "}",
        "]",
        ":",
        ",",
        "&a ",
        "*a",
        "<<",
        "!!int ",
        "!!float ",
        "!!python/name:os ",
        "---\n",
        "\n",
    ),
    *(
        "\x00",
        "\x1b[2J",
        "\\ud800",
        "\\u0000",
        "\u202e",
        "\t",
        "NaN",
        "1e999",
        "-1",
        "0",
        "null",
        "true",
        "~",
        "..",
        "/",
    ),
    *("9" * 400, "9" * 5000, "0x" + "f" * 400, "[" * 200, '{"a":' * 200, "x" * 5000),
)


def _written(read: Callable[[Path], object], folder: Path) -> Callable[[bytes], object]:
    def call(data: bytes) -> object:
        (folder / "document").write_bytes(data)
        return read(folder / "document")

    return call


def targets(folder: Path, settings: bytes) -> dict[str, tuple[bytes, Callable[[bytes], object]]]:
    """Return a valid document and its reader for each file name."""
    rest = TypeAdapter(Rest)
    return {
        "params.yaml": (settings, _written(lambda file: params.load(params.Params, file), folder)),
        "dataset.yaml": (SPEC.encode(), _written(read_spec, folder)),
        "model.json": (json.dumps(MODEL).encode(), _written(Description.read, folder)),
        "inference.json": (json.dumps(INFERENCE).encode(), _written(Inference.read, folder)),
        "predictions.jsonl": (json.dumps(RECORD).encode(), Line.read),
        "state.json": (json.dumps(STATE).encode(), lambda data: rest.validate_python(from_json(data))),
    }


def fuzz(cases: int, seed: int, folder: Path, settings: bytes) -> Counter[str]:
    """Read `cases` mutations of each document, and count how many were read or refused; raise any other error."""
    rng, outcomes = random.Random(seed), Counter[str]()
    allowed = (params.ParamsError, files.FileError, DatasetError, ModelError)
    for name, (document, read) in targets(folder, settings).items():
        read(document)
        for _ in range(cases):
            mutated = document
            for _ in range(rng.randint(1, 3)):
                at, size = rng.randrange(len(mutated) + 1), rng.choice((0, 0, 1, 2, 5, 40))
                new = rng.choice((rng.choice(EXTREMES).encode(), rng.randbytes(rng.randint(1, 4)), b""))
                mutated = mutated[:at] + new + mutated[at + size :]
            try:
                value = read(mutated)
                outcomes[f"{name} read"] += 1
                if isinstance(value, Line):
                    allowed_names = {
                        f"{value.stem}{end}{suffix}"
                        for end in ("", "_overlay")
                        for suffix in (".png", ".tif", ".ome.zarr")
                    }
                    assert "/" not in value.stem
                    assert set(value.files.values()) <= allowed_names | {"a.png", "a_overlay.png"}
            except allowed:
                outcomes[f"{name} refused"] += 1
            except ValueError:
                assert name in ("predictions.jsonl", "state.json"), mutated
                outcomes[f"{name} refused"] += 1
    return outcomes


def test_damaged_documents_are_read_or_refused(tmp_path: Path) -> None:
    outcomes = fuzz(25, 0, tmp_path, b"train: {epochs: 3, learning_rate: 3e-4}\nmodel: {depth: 2, norm: batch}\n")
    assert all(outcomes[f"{name} refused"] for name in targets(tmp_path, b""))
