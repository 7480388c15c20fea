"""What the server says of itself: health, version, and why it refuses."""

import pydantic

from segline.serve.following import Follower


class Health(pydantic.BaseModel):
    """``status`` is ok, or degraded where the version that answers may not be the one that should."""

    status: str
    model: str
    version: str
    checked: str
    problem: str | None


class Version(pydantic.BaseModel):
    """The version that answers."""

    name: str
    version: str
    aliases: list[str]
    md5: str | None
    address: str


class Refusal(pydantic.BaseModel):
    """Why a request was not answered."""

    error_code: str
    message: str


def health(follower: Follower) -> Health:
    """The health of what `follower` holds."""
    serving, problem = follower.serving, follower.problem
    status = "degraded" if problem else "ok"
    return Health(status=status, model=serving.name, version=serving.number, checked=follower.checked, problem=problem)


def version(follower: Follower) -> Version:
    """The version that `follower` holds."""
    serving = follower.serving
    return Version(
        name=serving.name,
        version=serving.number,
        aliases=list(follower.aliases),
        md5=serving.tags.get("version.md5"),
        address=follower.address,
    )
