"""Reports about the served model version: health and version as JSON, and an HTML page to try the model."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path

import pydantic
from jinja2 import Environment, StrictUndefined, Template
from starlette.responses import HTMLResponse

from segline.score.overlay import legend
from segline.serve.following import ServedModel
from segline.track.tags import classes

TEMPLATE = Path(__file__).with_name("page.html")
POLICY = "default-src 'self' blob:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; frame-ancestors 'none'"


class Health(pydantic.BaseModel):
    """Health of the server.

    ``status`` is "ok", or "degraded" if it is possible that the served version no longer holds the alias.
    """

    status: str
    model: str
    version: str
    checked: str
    problem: str | None


class Version(pydantic.BaseModel):
    """The model version that answers requests."""

    name: str
    version: str
    aliases: list[str]
    md5: str | None
    address: str


class Page(HTMLResponse):
    """HTML page whose Content-Security-Policy header allows only resources of this server."""

    def init_headers(self, headers: Mapping[str, str] | None = None) -> None:
        """Add the Content-Security-Policy to the usual headers."""
        super().init_headers({"Content-Security-Policy": POLICY, **(headers or {})})


def health(follower: ServedModel) -> Health:
    """Report the health of the server, and which model version `follower` holds."""
    serving, problem = follower.serving, follower.problem
    status = "degraded" if problem else "ok"
    return Health(status=status, model=serving.name, version=serving.number, checked=follower.checked, problem=problem)


def version(follower: ServedModel) -> Version:
    """Report the model version that `follower` holds."""
    serving = follower.serving
    return Version(
        name=serving.name,
        version=serving.number,
        aliases=list(follower.aliases),
        md5=serving.tags.get("version.md5"),
        address=follower.address,
    )


def page(follower: ServedModel) -> str:
    """Render the HTML page for the model version that `follower` holds."""
    serving = follower.serving
    colours = [(name, f"rgb{colour}") for name, colour in legend(classes(serving.tags), errors=False)]
    return _template().render(serving=serving, aliases=follower.aliases, colours=colours)


@cache
def _template() -> Template:
    return Environment(autoescape=True, undefined=StrictUndefined).from_string(TEMPLATE.read_text())
