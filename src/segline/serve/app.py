"""The server's routes: images to the version that answers, one at a time, and what is known of that version."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import cache
from typing import TypeVar
from urllib.parse import quote

import pydantic
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from segline.serve import answering, body, description, forms, invocation, page
from segline.serve.access import Access, Guard
from segline.serve.answering import Content, Output
from segline.serve.following import Follower, Serving
from segline.serve.refused import RefusedError, refusal

T = TypeVar("T")

LOOK = 3  # seconds between two looks at the alias
LAST = 1  # seconds that the end of the server waits for the last one
WAITING = (
    32  # requests at once, from the first byte of the body to the last of the answer; each may hold both in memory
)
PIECE = 2**18  # bytes of an answer handed to the connection at once, which then waits for the client


@dataclass(frozen=True)
class Limits:
    """What one request may bring: bytes of its body, pixels of all its images."""

    bytes: int
    pixels: int


def build(follower: Follower, limits: Limits, access: Access) -> FastAPI:
    """Make the application that answers with what `follower` holds, and looks at the alias while it runs."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        over = threading.Event()
        # A daemon: a registry that does not answer would else hold the end of the server for as long.
        looking = threading.Thread(target=_look, args=(follower, over), daemon=True, name="looks at the alias")
        looking.start()
        yield
        over.set()
        looking.join(LAST)

    app = FastAPI(title="segline", version=description.INTERFACE, lifespan=lifespan, openapi_url=None)
    app.add_middleware(Guard, access=access)
    _add_refusals(app)
    _add_reports(app, follower)
    _add_invocations(app, follower, limits)
    return app


def _look(follower: Follower, over: threading.Event) -> None:
    while not over.wait(LOOK):
        follower.check()


class _Line:
    """Requests wait here for the one thread that answers: torch uses all cores for one image.

    Another thread parses forms and JSON, so that neither the event loop nor the images wait for that.
    """

    def __init__(self) -> None:
        self._answers = ThreadPoolExecutor(1, "answers")
        self._parses = ThreadPoolExecutor(1, "parses")
        self._waiting = 0

    @contextmanager
    def place(self) -> Iterator[None]:
        """A place in the line; RefusedError when it is too long."""
        if self._waiting >= WAITING:
            raise RefusedError(429, f"{WAITING} requests are waiting; ask again in a second")
        self._waiting += 1
        try:
            yield
        finally:
            self._waiting -= 1

    async def answer(self, work: Callable[[], Content]) -> Content:
        """What `work` gives, when it is its turn."""
        return await asyncio.get_running_loop().run_in_executor(self._answers, work)

    async def parse(self, work: Callable[[], T]) -> T:
        """What `work` makes of a body, when it is its turn."""
        return await asyncio.get_running_loop().run_in_executor(self._parses, work)


class _Delivery(Response):
    """An answer that keeps its place in the line until the client has taken it."""

    def __init__(self, content: Content, serving: Serving, place: ExitStack) -> None:
        headers = {"Model-Version": f"{quote(serving.name, safe='')}/{serving.number}"}
        super().__init__(b"", media_type=content.media_type, headers=headers)
        self.headers["Content-Length"] = str(len(content.data))
        self._data, self._place = content.data, place

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        with self._place:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            for start in range(0, len(self._data), PIECE):
                await send({"type": "http.response.body", "body": self._data[start : start + PIECE], "more_body": True})
            await send({"type": "http.response.body", "body": b""})


def _add_invocations(app: FastAPI, follower: Follower, limits: Limits) -> None:
    line = _Line()

    @app.post("/invocations", response_class=Response, responses=description.ANSWERS, openapi_extra=description.ASKED)
    async def invocations(request: Request, output: Output = "labels", views: int = 0) -> Response:
        """Label images: one sent as an image is answered by an image, those sent as JSON by JSON."""
        used: list[Serving] = []
        with ExitStack() as place:
            place.enter_context(line.place())
            asked_for = await _asked_for(request, limits, line)

            def work() -> Content:
                used.append(follower.serving)
                if isinstance(asked_for, invocation.Invocation):
                    return answering.predictions(used[0], asked_for, limits.pixels)
                return answering.picture(used[0], asked_for, output, views, limits.pixels)

            content = await line.answer(work)
            return _Delivery(content, used[0], place.pop_all())


async def _asked_for(request: Request, limits: Limits, line: _Line) -> invocation.Invocation | bytes:
    """What the body of `request` asks for: an image, or what MLflow's JSON says."""
    kind = _kind(request)
    sent = await body.read(request, limits.bytes)
    content_type = request.headers["content-type"]

    def work() -> invocation.Invocation | bytes:
        if kind == "application/json":
            return invocation.parse(sent)
        return forms.file_of(sent, content_type) if kind == "multipart/form-data" else bytes(sent)

    return await line.parse(work)


def _kind(request: Request) -> str:
    """The type of the body: application/json, multipart/form-data, or an image."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind.startswith("image/") or kind in ("application/json", "multipart/form-data", "application/octet-stream"):
        return kind
    raise RefusedError(
        415,
        "send an image (Content-Type image/png, image/jpeg or image/tiff), a form with a file (curl -F file=@IMAGE) or "
        "MLflow's JSON (application/json)",
    )


def _add_reports(app: FastAPI, follower: Follower) -> None:
    @app.get("/ping", response_model=description.Health)
    @app.get("/health", response_model=description.Health)
    async def health() -> Response:
        """Whether the model answers, and whether it is the one that should."""
        return _report(description.health(follower))

    @app.get("/version", response_model=description.Version)
    async def version() -> Response:
        """Which version of which model answers."""
        return _report(description.version(follower))

    @cache
    def interface() -> str:
        return json.dumps(app.openapi())

    @app.get("/openapi.json", include_in_schema=False)
    async def openapi() -> Response:
        return Response(interface(), media_type="application/json")

    @app.get("/", response_class=page.HTML)
    async def form() -> str:
        """A page to try the model with."""
        return page.render(follower)


def _report(report: pydantic.BaseModel) -> Response:
    """JSON in ASCII."""
    return Response(json.dumps(report.model_dump()), media_type="application/json")


def _add_refusals(app: FastAPI) -> None:
    @app.exception_handler(RefusedError)
    async def refused(_: Request, error: RefusedError) -> Response:
        return refusal(error.status, str(error))

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        reasons = (f"{each['loc'][-1]}: {each['msg']}" for each in error.errors())
        return refusal(400, "; ".join(reasons))

    @app.exception_handler(HTTPException)
    async def unknown(_: Request, error: HTTPException) -> Response:
        return refusal(error.status_code, f"{error.detail}; /openapi.json says what there is", error.headers)

    @app.exception_handler(ClientDisconnect)
    async def gone(_: Request, __: ClientDisconnect) -> Response:
        return refusal(400, "the body ended early")

    @app.exception_handler(Exception)
    async def failed(_: Request, error: Exception) -> Response:
        return refusal(500, f"the model failed ({type(error).__name__}); the server's log says where")
