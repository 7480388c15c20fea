"""Render the model card: a Markdown page about a model, its training data and its metrics."""

import re
from collections.abc import Mapping
from typing import Any

from segline.score.judge import METRICS

TEMPLATE = """\
# {{ dataset.name }}

A U-Net that assigns each pixel to one of {{ dataset.classes | length }} classes: \
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
| {{ name | literal }} | {{ value | metric }} | {{ result.dice[name] | metric }} |
{% endfor %}
| metric | value |
|---|---|
{% for name in names if name in result -%}
| {{ name }} | {{ result[name] | metric }} |
{% endfor %}
## How it is used

Input: {{ statistics.dtype }} images with {{ statistics.channels }} channel{{ "s" if statistics.channels > 1 }}, \
of any size{% if settings.get("model.input_norm") == "image" %}, each normalised by its own mean and standard \
deviation{% endif %}.
Foreground: {% if inference.threshold is none %}the class with the highest probability{% else %}above a probability \
of {{ inference.threshold }}{% endif %}{% if inference.segment_threshold is not none %}, gaps in borders closed \
between cells that are separate above {{ inference.segment_threshold }}{% if inference.segment_neck %} or joined at a \
neck {{ inference.segment_neck }} of the smaller cell's half width deep{% endif %}{% endif %}; \
{% if inference.separation is not none %}{% if inference.separation.depth is none %}objects are connected components\
{% elif inference.separation.depth >= 1024 %}objects are areas above a probability of 0.5, grown to this threshold\
{% else %}touching objects are separated by a watershed at necks and lines {{ inference.separation.depth }} px deep\
{% if inference.separation.neck %}, and at least {{ inference.separation.neck }} of the smaller object's half width\
{% endif %}\
{% endif %}, objects below {{ inference.separation.min_area }} px\
{% if inference.separation.min_probability %} or a mean probability of {{ inference.separation.min_probability }}\
{% endif %} left out; {% endif %}\
{{ inference.views }} view{{ "s" if inference.views > 1 }} averaged.

## How it was made

{% for name, value in settings.items() -%}
- {{ name }}: {{ value }}
{% endfor %}- best epoch: {{ best_epoch }}

The model was trained only on images of the kind described above. Test it on images with other stains, magnifications,
instruments or species before you use its predictions there.
"""


MARKUP = re.compile(r"([\\`*\[\]<>|~&]|\b_|_\b)")


def _literal(name: str) -> str:
    """Escape characters that Markdown or HTML would read as markup."""
    return MARKUP.sub(r"\\\1", name)


def render(**facts: Mapping[str, Any] | int) -> str:
    """Return the model card as Markdown text.

    `facts`: dataset (name, classes, licence, source), splits (name: images), result (from `judge.total`), statistics,
    inference, settings (flat, by full name) and best_epoch.
    """
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        undefined=StrictUndefined, autoescape=False, keep_trailing_newline=True, finalize=_on_one_line
    )
    environment.filters["metric"] = lambda value: "-" if value is None else f"{value:.4f}"
    environment.filters["literal"] = _literal
    return environment.from_string(TEMPLATE).render(names=METRICS, **facts)


def _on_one_line(value: object) -> object:
    """Replace line breaks with spaces, because a line break would end a table row or a list entry."""
    return " ".join(value.split()) if isinstance(value, str) else value
