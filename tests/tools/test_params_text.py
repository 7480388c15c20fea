"""The texts about settings agree with params.py."""

from pathlib import Path

import pytest
from pydantic import BaseModel
from ruamel.yaml import YAML

import params_text
from segline.files import read_yaml
from segline.params import PLANNED, Params, automatic, check, load


def test_docs_params_md_is_up_to_date(repository: Path) -> None:
    assert (repository / "docs/params.md").read_text() == params_text.params_markdown(), "run `make generate`"


def test_params_yaml_holds_and_explains_every_setting(repository: Path) -> None:
    # Users change values and may add comments; no setting and no explanation may be missing.
    text = (repository / "params.yaml").read_text()
    assert missing(Params(), YAML(typ="safe").load(text), text) == [], "run `make generate`"


def test_a_new_project_leaves_to_the_plan_what_it_can_choose(repository: Path) -> None:
    template = repository / "src/segline/template/params.yaml"
    assert template.read_text() == params_text.params_yaml(Params(), PLANNED), "run `make generate`"
    assert automatic(read_yaml(template)) == [*PLANNED]


def test_the_repository_leaves_to_the_plan_all_but_the_trials_and_the_views(repository: Path) -> None:
    # `make run` always has a search, and one view is enough for the drawn cells.
    planned = automatic(read_yaml(repository / "params.yaml"))
    assert {*PLANNED} - {*planned} == {"tune.trials", "evaluate.views"}


def test_generating_keeps_values_and_auto(repository: Path) -> None:
    file = repository / "params.yaml"
    assert file.read_text() == params_text.params_yaml(load(Params, file), automatic(read_yaml(file)))


def missing(section: BaseModel, content: dict[str, object], text: str) -> list[str]:
    names = []
    for name, value in section:
        inner = content.get(name)
        if isinstance(value, BaseModel):
            names += missing(value, inner, text) if isinstance(inner, dict) else [name]
        elif name not in content or f"# {type(section).model_fields[name].description}" not in text:
            names.append(name)
    return names


def test_a_setting_left_out_or_unexplained_is_found(repository: Path) -> None:
    text = (repository / "params.yaml").read_text()
    content = YAML(typ="safe").load(text)
    del content["train"]["schedule"]
    del content["weights"]["sigma"]
    assert missing(Params(), content, text.replace("# number of views to average", "# number of views to mean")) == [
        "sigma",
        "schedule",
        "views",
    ]


def test_text_and_settings_are_inverse() -> None:
    odd = {
        "data": {"source": "data/raw/a b: c #1"},
        "prepare": {"test": ["06", "a, b", "ä"]},
        "train": {"learning_rate": 1e-05, "amp": "off", "momentum": 0.5},
        "evaluate": {"threshold": 0.25},
        "registration": {"name": "off"},
    }
    settings = check(Params, odd, "odd")
    assert check(Params, YAML(typ="safe").load(params_text.params_yaml(settings)), "written") == settings


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "integer", "minimum": 3}, "whole number ≥ 3"),
        ({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}, "number > 0, < 1"),
        ({"anyOf": [{"enum": ["auto", "argmax"], "type": "string"}, {"type": "number"}]}, "`auto`, `argmax` or number"),
        ({"type": "boolean"}, "`true`, `false`"),
    ],
)
def test_limits_are_put_into_words(schema: dict[str, object], words: str) -> None:
    assert params_text.allowed(schema) == words
