"""Routes of the server. They predict images, one request at a time, and describe the model version in use."""

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

from segline.serve import answering, body, invocation, openapi, refusals, reports
from segline.serve.access import Access, Guard
from segline.serve.answering import DecodedImage, Output
from segline.serve.following import ServedModel, Serving
from segline.serve.refusals import RefusedError

T = TypeVar("T")

POLL_INTERVAL = 3  # seconds between two checks of the alias
LAST_CHECK = 1  # seconds that the shutdown waits for an unfinished check of the alias
# Maximum number of requests in progress. Each request may hold its whole body and whole response in memory.
MAX_REQUESTS = 32
PIECE = 2**18  # bytes of a response that are passed to the connection before it waits for the client


@dataclass(frozen=True)
class Limits:
    """Limits of one request: number of bytes in its body, and number of pixels in all its images together."""

    bytes: int
    pixels: int


def build(follower: ServedModel, limits: Limits, access: Access) -> FastAPI:
    """Build the web application, which serves the version in `follower` and regularly checks if the alias has moved."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        stop = threading.Event()
        # Make the thread a daemon; otherwise an unresponsive registry would delay the shutdown.
        poller = threading.Thread(target=_poll, args=(follower, stop), daemon=True, name="polls the alias")
        poller.start()
        yield
        stop.set()
        poller.join(LAST_CHECK)

    app = FastAPI(title="segline", version=openapi.API_VERSION, lifespan=lifespan, openapi_url=None)
    app.add_middleware(Guard, access=access)
    _add_refusals(app)
    _add_reports(app, follower)
    _add_invocations(app, follower, limits)
    return app


def _poll(follower: ServedModel, stop: threading.Event) -> None:
    while not stop.wait(POLL_INTERVAL):
        follower.check()


class _Queue:
    """Queue of requests for the single thread that predicts images. One thread is enough, because torch uses all cores.

    A second thread parses forms and JSON, so that parsing delays neither the event loop nor the predictions.
    """

    def __init__(self) -> None:
        self._answers = ThreadPoolExecutor(1, "answers")
        self._parses = ThreadPoolExecutor(1, "parses")
        self._waiting = 0

    @contextmanager
    def place(self) -> Iterator[None]:
        """Reserve a place in the queue; raise RefusedError if the queue is full."""
        if self._waiting >= MAX_REQUESTS:
            raise RefusedError(429, f"{MAX_REQUESTS} requests are waiting; try again in a second")
        self._waiting += 1
        try:
            yield
        finally:
            self._waiting -= 1

    async def answer(self, work: Callable[[], DecodedImage]) -> DecodedImage:
        """Run `work` in the thread that predicts images."""
        return await asyncio.get_running_loop().run_in_executor(self._answers, work)

    async def parse(self, work: Callable[[], T]) -> T:
        """Run `work` in the thread that parses forms and JSON."""
        return await asyncio.get_running_loop().run_in_executor(self._parses, work)


class _Delivery(Response):
    """Response that keeps its request in the queue until the whole response is sent."""

    def __init__(self, content: DecodedImage, serving: Serving, place: ExitStack) -> None:
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


def _add_invocations(app: FastAPI, follower: ServedModel, limits: Limits) -> None:
    queue = _Queue()

    @app.post("/invocations", response_class=Response, responses=openapi.RESPONSES, openapi_extra=openapi.REQUEST)
    async def invocations(request: Request, output: Output = "labels", views: int = 0) -> Response:
        """Predict the images of a request. A request in JSON gets a JSON response; an image or a form gets an image."""
        used: list[Serving] = []
        with ExitStack() as place:
            place.enter_context(queue.place())
            images = await _read_images(request, limits, queue)

            def work() -> DecodedImage:
                used.append(follower.serving)
                if isinstance(images, invocation.Invocation):
                    return answering.predictions(used[0], images, limits.pixels)
                return answering.picture(used[0], images, output, views, limits.pixels)

            content = await queue.answer(work)
            return _Delivery(content, used[0], place.pop_all())


async def _read_images(request: Request, limits: Limits, queue: _Queue) -> invocation.Invocation | bytes:
    """Read the body of `request`; return the bytes of one image file, or the images and options in MLflow's JSON."""
    media_type = _media_type(request)
    content = await body.read(request, limits.bytes)
    content_type = request.headers["content-type"]

    def work() -> invocation.Invocation | bytes:
        if media_type == "application/json":
            return invocation.parse(content)
        return body.extract_file(content, content_type) if media_type == "multipart/form-data" else bytes(content)

    return await queue.parse(work)


def _media_type(request: Request) -> str:
    """Return the media type of the body; raise RefusedError if the body is neither an image, a form nor JSON."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    supported = ("application/json", "multipart/form-data", "application/octet-stream")
    if media_type.startswith("image/") or media_type in supported:
        return media_type
    raise RefusedError(
        415,
        "the Content-Type is not supported; send an image (image/png, image/jpeg or image/tiff), a form with a file "
        "(curl -F file=@IMAGE) or MLflow's JSON (application/json)",
    )


def _add_reports(app: FastAPI, follower: ServedModel) -> None:
    @app.get("/ping", response_model=reports.Health)
    @app.get("/health", response_model=reports.Health)
    async def health() -> Response:
        """Report whether the server answers, and whether its model version still holds the alias."""
        return _report(reports.health(follower))

    @app.get("/version", response_model=reports.Version)
    async def version() -> Response:
        """Report the model version that answers requests."""
        return _report(reports.version(follower))

    @cache
    def schema() -> str:
        return json.dumps(app.openapi())

    @app.get("/openapi.json", include_in_schema=False)
    async def openapi_json() -> Response:
        return Response(schema(), media_type="application/json")

    @app.get("/", response_class=reports.Page)
    async def page() -> str:
        """Show an HTML page to try the model."""
        return reports.page(follower)


def _report(report: pydantic.BaseModel) -> Response:
    """Return a response that contains `report` as ASCII JSON."""
    return Response(json.dumps(report.model_dump()), media_type="application/json")


def _add_refusals(app: FastAPI) -> None:
    @app.exception_handler(RefusedError)
    async def refused(_: Request, error: RefusedError) -> Response:
        return refusals.response(error.status, str(error))

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        reasons = (f"{problem['loc'][-1]}: {problem['msg']}" for problem in error.errors())
        return refusals.response(400, "; ".join(reasons))

    @app.exception_handler(HTTPException)
    async def unknown(_: Request, error: HTTPException) -> Response:
        return refusals.response(error.status_code, f"{error.detail}; /openapi.json lists the paths", error.headers)

    @app.exception_handler(ClientDisconnect)
    async def gone(_: Request, __: ClientDisconnect) -> Response:
        return refusals.response(400, "the connection closed before the whole body arrived")

    @app.exception_handler(Exception)
    async def failed(_: Request, error: Exception) -> Response:
        return refusals.response(500, f"the model failed ({type(error).__name__}); the server's log has the traceback")
