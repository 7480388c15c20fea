"""The page to try a model with: an image is chosen, and shown beside what the model sees in it."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path

from jinja2 import Environment, StrictUndefined, Template
from starlette.responses import HTMLResponse

from segline.score.overlay import legend
from segline.serve.following import Follower
from segline.track.tags import classes

TEMPLATE = Path(__file__).with_name("page.html")
POLICY = "default-src 'self' blob:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; frame-ancestors 'none'"


class HTML(HTMLResponse):
    """A page that loads nothing from elsewhere."""

    def init_headers(self, headers: Mapping[str, str] | None = None) -> None:
        """As of any page, and what a browser is to refuse."""
        super().init_headers({"Content-Security-Policy": POLICY, **(headers or {})})


def render(follower: Follower) -> str:
    """The page for the model that `follower` holds."""
    serving = follower.serving
    colours = [(name, f"rgb{colour}") for name, colour in legend(classes(serving.tags), errors=False)]
    return _template().render(serving=serving, aliases=follower.aliases, colours=colours)


@cache
def _template() -> Template:
    return Environment(autoescape=True, undefined=StrictUndefined).from_string(TEMPLATE.read_text())
