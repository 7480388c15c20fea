"""What is refused, with the status and the reason that a client is told."""

import json
from collections.abc import Mapping
from http import HTTPStatus

from starlette.responses import Response


class RefusedError(ValueError):
    """A request that cannot be answered; the message says what was found and what is needed."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


def refusal(status: int, reason: str, headers: Mapping[str, str] | None = None) -> Response:
    """Make the answer to a refused request in the form that MLflow's clients know.

    It is ASCII, for a reason may quote what is no text. After 429 clients wait; 408 ends the connection.
    """
    content = json.dumps({"error_code": HTTPStatus(status).name, "message": reason})
    further = {429: {"Retry-After": "1"}, 408: {"Connection": "close"}}.get(status, {})
    return Response(content, status, {**further, **(headers or {})}, media_type="application/json")
