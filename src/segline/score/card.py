"""The model card: what a model is, what it learned from and how well it does, for the person who meets it later."""

import re
from collections.abc import Mapping
from typing import Any

from segline.score.judge import FIGURES

TEMPLATE = """\
# {{ dataset.name }}

A U-Net that gives each pixel one of {{ dataset.classes | length }} classes: \
{{ dataset.classes.values() | map("literal") | join(", ") }}.
{% if dataset.source %}
Data: {{ dataset.source }}{% if dataset.licence %} ({{ dataset.licence }}){% endif %}.
{% endif %}
| split | images |
|---|---|
{% for split, number in splits.items() -%}
| {{ split }} | {{ number }} |
{% endfor %}
## On the test split

| class | IoU | Dice |
|---|---|---|
{% for name, value in result.iou.items() -%}
| {{ name | literal }} | {{ value | figure }} | {{ result.dice[name] | figure }} |
{% endfor %}
| figure | value |
|---|---|
{% for name in names if name in result -%}
| {{ name }} | {{ result[name] | figure }} |
{% endfor %}
## How it is used

Input: {{ statistics.dtype }} images with {{ statistics.channels }} channel{{ "s" if statistics.channels > 1 }}, \
of any size.
Foreground: {% if inference.threshold is none %}the likeliest class{% else %}above a probability of \
{{ inference.threshold }}{% endif %}{% if inference.segment_threshold is not none %}, borders closed between cells \
that are apart above {{ inference.segment_threshold }}{% endif %}; \
{% if inference.separation is not none %}{% if inference.separation.depth is none %}objects are what is connected\
{% else %}objects that touch are parted by a watershed at necks and lines {{ inference.separation.depth }} px deep\
{% endif %}, those below {{ inference.separation.min_area }} px\
{% if inference.separation.min_probability %} or a mean probability of {{ inference.separation.min_probability }}\
{% endif %} left out; {% endif %}\
{{ inference.views }} view{{ "s" if inference.views > 1 }} averaged.

## How it was made

{% for name, value in settings.items() -%}
- {{ name }}: {{ value }}
{% endfor %}- best epoch: {{ best_epoch }}

It has seen nothing but images like those above. Other stains, magnifications, instruments or species need a test of
their own before its answers are used.
"""


MARKUP = re.compile(r"([\\`*\[\]<>|~&]|\b_|_\b)")


def _literal(name: str) -> str:
    """A name with a backslash before what Markdown or HTML would take for markup."""
    return MARKUP.sub(r"\\\1", name)


def render(**facts: Mapping[str, Any] | int) -> str:
    """The card as Markdown.

    `facts`: dataset (name, classes, licence, source), splits (name: images), result (of `judge.total`), statistics,
    inference, settings (flat, by full name) and best_epoch.
    """
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        undefined=StrictUndefined, autoescape=False, keep_trailing_newline=True, finalize=_on_one_line
    )
    environment.filters["figure"] = lambda value: "-" if value is None else f"{value:.4f}"
    environment.filters["literal"] = _literal
    return environment.from_string(TEMPLATE).render(names=FIGURES, **facts)


def _on_one_line(value: object) -> object:
    """Return a text without line breaks, which would end a row of a table or an entry of a list."""
    return " ".join(value.split()) if isinstance(value, str) else value
