"""Write the explanations in params.py to docs/params.md and to the comments of params.yaml, which keeps its values.

Also write the params.yaml of new projects, in which all settings are `auto` that the plan can choose.

python tools/params_text.py
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from ruamel.yaml import YAML

from segline.files import read_yaml
from segline.params import AUTO, PLANNED, Params, automatic, load


def params_yaml(settings: BaseModel, automatic: Sequence[str] = ()) -> str:
    """Return `settings` as YAML, each section below its purpose and each value beside its explanation.

    `automatic` : full names of the settings whose value is `auto`.
    """
    lines = [
        "# Every setting of segline. Limits and defaults are in docs/params.md; `segline preset` changes many at once."
    ]
    for name, section in settings:
        lines += ["", f"# {purpose(type(section))}", f"{name}:", *_settings(section, 1, f"{name}.", automatic)]
    return "\n".join(lines) + "\n"


def _settings(section: BaseModel, level: int, prefix: str, automatic: Sequence[str]) -> Iterator[str]:
    fields = type(section).model_fields
    plain = {
        name: f"{name}: {AUTO if f'{prefix}{name}' in automatic else _yaml(value)}"
        for name, value in section
        if not isinstance(value, BaseModel | dict)
    }
    column = max(map(len, plain.values())) + 2
    for name, value in section:
        if isinstance(value, BaseModel):
            yield f"{'  ' * level}{name}:  # {purpose(type(value))}"
            yield from _settings(value, level + 1, f"{prefix}{name}.", automatic)
        elif isinstance(value, dict):
            yield f"{'  ' * level}{name}:{'' if value else ' {}'}  # {fields[name].description}"
            yield from (f"{'  ' * (level + 1)}{key}: {_entry(entry)}" for key, entry in value.items())
        else:
            yield f"{'  ' * level}{plain[name]:<{column}}# {fields[name].description}"


def _entry(entry: BaseModel) -> str:
    """Return an entry of a mapping in flow style, on one line."""
    return f"{{{', '.join(f'{name}: {_yaml(value)}' for name, value in entry.model_dump(mode='json').items())}}}"


def _yaml(value: object) -> str:
    """Return a value in flow style; in quotes if YAML 1.1 or 1.2 would read the plain word as another value."""
    if isinstance(value, str) and value != "off" and YAML(typ="safe").load(f"- {value}") == [value]:
        return value
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return json.dumps(value, ensure_ascii=False)


def params_markdown() -> str:
    """Return the content of docs/params.md."""
    lines = [
        "# Settings",
        "",
        "All settings of `params.yaml`; `make generate` writes this page from `src/segline/params.py`. An unknown or",
        "invalid setting stops a stage before it starts, and the message has its full name. A stage runs again when a",
        "section that it reads changes; `runtime` makes no stage run again.",
        "",
        "Where `auto` is allowed, the stage `plan` chooses the value for the dataset and the machine",
        "([plan.md](plan.md)).",
    ]
    for name, section in Params():
        lines += [
            "",
            f"## {name}",
            "",
            purpose(type(section)),
            "",
            "| setting | default | allowed | meaning |",
            "|---|---|---|---|",
        ]
        lines += _rows(section, f"{name}.")
    return "\n".join(lines) + "\n"


def _rows(section: BaseModel, prefix: str) -> Iterator[str]:
    properties = type(section).model_json_schema()["properties"]
    for name, value in section:
        if isinstance(value, BaseModel):
            yield from _rows(value, f"{prefix}{name}.")
        elif isinstance(value, dict):
            default = "<br>".join(f"`{key}: {_entry(entry)}`" for key, entry in value.items())
            meaning = type(section).model_fields[name].description
            yield f"| `{prefix.partition('.')[2]}{name}` | {default} | one line per setting | {meaning} |"
        else:
            meaning = type(section).model_fields[name].description
            values = allowed(properties[name]) + (" or `auto`" if f"{prefix}{name}" in PLANNED else "")
            yield f"| `{prefix.partition('.')[2]}{name}` | `{_yaml(value)}` | {values} | {meaning} |"


def allowed(schema: dict[str, Any]) -> str:
    """Return the type and the limits of a setting in words."""
    if "anyOf" in schema:
        return " or ".join(allowed(choice) for choice in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(f"`{choice}`" for choice in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    kind = {"number": "number", "integer": "whole number", "string": "text", "boolean": "`true`, `false`"}
    words = kind.get(schema["type"]) or (
        "list of names" if schema["items"]["type"] == "string" else "list of transforms"
    )
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    limits = [f"{sign} {schema[key]:g}" for key, sign in signs.items() if key in schema]
    return " ".join([words, ", ".join(limits)]).strip()


def purpose(section: type[BaseModel]) -> str:
    """Return the first line of the docstring of a section."""
    return (section.__doc__ or "").strip().splitlines()[0]


if __name__ == "__main__":
    root = Path(__file__).parents[1]
    file = root / "params.yaml"
    if file.exists():
        file.write_text(params_yaml(load(Params, file), automatic(read_yaml(file))))
    else:
        file.write_text(params_yaml(Params(), PLANNED))
    (root / "src" / "segline" / "template" / "params.yaml").write_text(params_yaml(Params(), PLANNED))
    (root / "docs" / "params.md").write_text(params_markdown())
