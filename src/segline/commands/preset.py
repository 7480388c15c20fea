"""`segline preset NAME`: write a set of settings into params.yaml, and keep the comments there.

A preset is `default`, `auto`, a recipe that is shipped with segline, or a YAML file of the user with some sections of
params.yaml.
"""

import stat
from collections.abc import Iterator
from importlib.resources import files
from io import StringIO
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.scalarstring import DoubleQuotedScalarString

from segline import parse
from segline.files import read_yaml, write_bytes
from segline.params import AUTO, PARAMS_FILE, PLANNED, Params, automatic, check, load, merged, nested, value_at

DEFAULT = "default"
REPLACED_WHOLE = ("space",)  # settings whose mapping is replaced as a whole, not merged


class PresetError(ValueError):
    """A preset cannot be written: it does not exist, or params.yaml or dvc.yaml does not allow it."""


def names() -> list[str]:
    """Return the names of the presets.

    Preset `auto` leaves to the plan all settings that it can choose. Preset `default` leaves nothing to the plan: every
    setting gets its default value, except those in section `runtime`. The other presets are shipped recipes.
    """
    shipped = [Path(entry.name).stem for entry in files("segline.presets").iterdir() if entry.name.endswith(".yaml")]
    return [DEFAULT, AUTO, *sorted(shipped)]


def settings(name: str) -> dict[str, Any]:
    """Return the params.yaml sections that preset `name` mentions, with the settings that the preset omits there.

    Where a shipped preset omits a setting, the setting gets its default, so that a published result can be repeated.
    Where a file of the user omits a setting, it gets `auto` if the plan can choose it, as in a new project, and its
    default otherwise. The result does not depend on the current params.yaml. Sections that the preset does not mention
    are left out. Preset `auto` has only the settings that the plan can choose.

    Parameters
    ----------
    name : name of a preset, or path of a YAML file that ends in .yaml or .yml.

    Raises
    ------
    PresetError
        There is no such preset or file.
    ParamsError, FileError
        The file is damaged, or has an unknown setting.
    """
    if name == DEFAULT:
        return {section: values for section, values in Params().model_dump(mode="json").items() if section != "runtime"}
    if name == AUTO:
        return nested(dict.fromkeys(PLANNED, AUTO))
    content = _content(name)
    values = check(Params, content, name).model_dump(mode="json")
    planned = automatic(merged(nested(dict.fromkeys(PLANNED, AUTO)), content) if _is_file(name) else content)
    complete = merged(values, nested(dict.fromkeys(planned, AUTO)))
    return {section: complete[section] for section in content}


def _is_file(name: str) -> bool:
    """Return whether `name` is the path of a file of the user."""
    return name.lower().endswith((".yaml", ".yml"))


def _content(name: str) -> dict[str, Any]:
    content: dict[str, Any]
    if _is_file(name):
        if not Path(name).is_file():
            raise PresetError(f"there is no file {name}; give the path of a YAML file with sections of params.yaml")
        content = read_yaml(Path(name))
        return content
    if name not in names():
        raise PresetError(
            f"there is no preset {name!r}; choose one of {', '.join(names())}, or give the path of a YAML file"
        )
    content = parse.from_yaml((files("segline.presets") / f"{name}.yaml").read_bytes())
    return content


def write(name: str, file: Path = PARAMS_FILE) -> list[str]:
    """Write preset `name` into `file` atomically; return one line of text for each changed setting.

    Raises
    ------
    PresetError
        As `settings`; or the preset has settings that are `auto`, and dvc.yaml beside `file` lacks the stage `plan`.
    """
    sections, pipeline = settings(name), file.with_name("dvc.yaml")
    if automatic(sections) and pipeline.exists() and value_at(read_yaml(pipeline), "stages.plan") is None:
        raise PresetError(
            f"preset {name} needs the stage plan, which {pipeline} lacks; `segline upgrade` shows what to change in it"
        )
    return change(sections, f"preset {name}", file)


def change(sections: dict[str, Any], origin: str, file: Path = PARAMS_FILE) -> list[str]:
    """Write settings into `file` atomically, and keep its comments; return one line of text for each changed setting.

    Parameters
    ----------
    sections : settings by section, as in params.yaml.
    origin : where the settings come from, for error messages.
    """
    load(Params, file)
    file = file.resolve()  # if params.yaml is a link, the file that it points to is changed
    mode = file.stat().st_mode
    if not mode & stat.S_IWUSR:
        raise PresetError(f"{file} is write-protected; allow writing with `chmod u+w {file}`")
    yaml = YAML()
    yaml.width = 1000
    yaml.preserve_quotes = True
    document = yaml.load(file.read_text(encoding="utf-8-sig"))
    changes = list(_change(document, sections, ""))
    text = StringIO()
    yaml.dump(document, text)
    check(Params, parse.from_yaml(text.getvalue()), origin)
    write_bytes(file, text.getvalue().encode(), settle=True)
    file.chmod(mode)
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
                document[key] = _flow(value) if isinstance(value, list) else _quoted(value)


def _quoted(value: object) -> object:
    """Put the word `off` in quotation marks, because YAML 1.1 parsers read the plain word as False."""
    return DoubleQuotedScalarString(value) if value == "off" else value


def _is_section(key: str, value: object) -> bool:
    return isinstance(value, dict) and key not in REPLACED_WHOLE


def _replace(mapping: CommentedMap, wanted: dict[str, Any]) -> None:
    """Replace the content of `mapping` in place, so that the YAML comment beside the mapping's key stays."""
    for key in set(mapping) - set(wanted):
        del mapping[key]
    for key, value in wanted.items():
        mapping[key] = _flow(value)


def _flow(values: list[Any] | dict[str, Any]) -> CommentedSeq | CommentedMap:
    """Return `values` in YAML's flow style: [a, b] or {a: b} on one line."""
    if isinstance(values, dict):
        inner = {key: _flow(value) if isinstance(value, list) else value for key, value in values.items()}
        flowing: CommentedSeq | CommentedMap = CommentedMap(inner)
    else:
        flowing = CommentedSeq(values)
    flowing.fa.set_flow_style()
    return flowing
