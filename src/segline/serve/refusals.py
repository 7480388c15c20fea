"""Refusal of requests: the exception to raise, and the HTTP response with status and reason."""

import json
from collections.abc import Mapping
from http import HTTPStatus

from starlette.responses import Response


class RefusedError(ValueError):
    """A request that cannot be answered; the message tells the client what is wrong and what to send instead."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


def response(status: int, reason: str, headers: Mapping[str, str] | None = None) -> Response:
    """Build the response to a refused request, in the JSON format of MLflow's errors.

    The JSON is ASCII, because a reason may quote bytes that are not text. Status 429 asks the client to retry after
    one second; status 408 closes the connection.
    """
    content = json.dumps({"error_code": HTTPStatus(status).name, "message": reason})
    extra_headers = {429: {"Retry-After": "1"}, 408: {"Connection": "close"}}.get(status, {})
    return Response(content, status, {**extra_headers, **(headers or {})}, media_type="application/json")
