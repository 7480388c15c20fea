"""`segline preset NAME`: writes the settings of a known dataset into params.yaml, its comments kept."""

from collections.abc import Iterator
from importlib.resources import files
from io import StringIO
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq

from segline import parse
from segline.files import write_bytes
from segline.params import PARAMS_FILE, Params, check, load

DEFAULT = "default"
WHOLE = ("space",)  # settings that are mappings: one replaces another, nothing of both is mixed


class PresetError(ValueError):
    """There is no such preset; the message names those there are."""


def names() -> list[str]:
    """Presets there are; `default` takes every setting but `runtime` back to its default."""
    shipped = [Path(entry.name).stem for entry in files("segline.presets").iterdir() if entry.name.endswith(".yaml")]
    return [DEFAULT, *sorted(shipped)]


def settings(name: str) -> dict[str, Any]:
    """Sections of params.yaml as preset `name` wants them: all of each that it mentions, its values over the defaults.

    What comes out does not depend on what was there; sections it does not mention are left out.
    """
    if name not in names():
        raise PresetError(f"there is no preset {name!r}; there are {', '.join(names())}")
    defaults = Params().model_dump(mode="json")
    if name == DEFAULT:
        return {section: values for section, values in defaults.items() if section != "runtime"}
    content: dict[str, Any] = parse.from_yaml((files("segline.presets") / f"{name}.yaml").read_bytes())
    return {section: _laid_over(defaults[section], values) for section, values in content.items()}


def _laid_over(defaults: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    inner = {key: _laid_over(defaults[key], value) for key, value in values.items() if _is_section(key, value)}
    return defaults | values | inner


def write(name: str, file: Path = PARAMS_FILE) -> list[str]:
    """Write preset `name` into `file`, all of it or nothing, and return a line for each setting that changed."""
    wanted = settings(name)
    load(Params, file)
    yaml = YAML()
    yaml.width = 1000
    yaml.preserve_quotes = True
    document = yaml.load(file.read_text(encoding="utf-8-sig"))
    changes = list(_change(document, wanted, ""))
    text = StringIO()
    yaml.dump(document, text)
    check(Params, parse.from_yaml(text.getvalue()), f"preset {name}")
    write_bytes(file, text.getvalue().encode(), settle=True)
    return changes


def _change(document: CommentedMap, wanted: dict[str, Any], prefix: str) -> Iterator[str]:
    for key, value in wanted.items():
        if _is_section(key, value):
            yield from _change(document.setdefault(key, CommentedMap()), value, f"{prefix}{key}.")
        elif key not in document or document[key] != value:
            yield f"{prefix}{key}: {document.get(key, '-')} -> {value}"
            if isinstance(value, dict):
                _replace(document.setdefault(key, CommentedMap()), value)
            else:
                document[key] = _flow(value) if isinstance(value, list) else value


def _is_section(key: str, value: object) -> bool:
    return isinstance(value, dict) and key not in WHOLE


def _replace(mapping: CommentedMap, wanted: dict[str, Any]) -> None:
    """Make `mapping` say what is `wanted`, in place: the comment beside its name is its own."""
    for key in set(mapping) - set(wanted):
        del mapping[key]
    for key, value in wanted.items():
        mapping[key] = _flow(value)


def _flow(values: list[Any] | dict[str, Any]) -> CommentedSeq | CommentedMap:
    """`values` as [a, b] or {a: b} on one line."""
    if isinstance(values, dict):
        inner = {key: _flow(value) if isinstance(value, list) else value for key, value in values.items()}
        flowing: CommentedSeq | CommentedMap = CommentedMap(inner)
    else:
        flowing = CommentedSeq(values)
    flowing.fa.set_flow_style()
    return flowing
