"""The server's routes: images to the version that answers, one at a time, and what is known of that version."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from http import HTTPStatus

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from segline.serve import answering, body, description, page, schema
from segline.serve.answering import Content, Output
from segline.serve.following import Follower, Serving
from segline.serve.refused import RefusedError

LOOK = 3  # seconds between two looks at the alias
LAST = 1  # seconds that the end of the server waits for the last one
WAITING = 32  # requests at once, the one in work among them; each may hold a body in memory


@dataclass(frozen=True)
class Limits:
    """What one request may bring: bytes of its body, pixels of all its images."""

    bytes: int
    pixels: int


def build(follower: Follower, limits: Limits) -> FastAPI:
    """The application that answers by what `follower` holds; it looks at the alias while it runs."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        over = threading.Event()
        # A daemon: a registry that does not answer would else hold the end of the server for as long.
        looking = threading.Thread(target=_look, args=(follower, over), daemon=True, name="looks at the alias")
        looking.start()
        yield
        over.set()
        looking.join(LAST)

    app = FastAPI(title="segline", version=schema.INTERFACE, lifespan=lifespan, docs_url=None, redoc_url=None)
    _add_refusals(app)
    _add_reports(app, follower)
    _add_invocations(app, follower, limits)
    return app


def _look(follower: Follower, over: threading.Event) -> None:
    while not over.wait(LOOK):
        follower.check()


class _Line:
    """Requests wait here for the one thread that answers: torch uses all cores for one image."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "answers")
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
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


def _add_invocations(app: FastAPI, follower: Follower, limits: Limits) -> None:
    line = _Line()

    @app.post("/invocations", response_class=Response, responses=schema.ANSWERS, openapi_extra=schema.ASKED)
    async def invocations(request: Request, output: Output = "labels", views: int = 0) -> Response:
        """Label images: one sent as an image is answered by an image, those sent as JSON by JSON."""
        used: list[Serving] = []

        def work() -> Content:
            used.append(follower.serving)
            if kind == "application/json":
                return answering.predictions(used[0], sent, limits.pixels)
            return answering.picture(used[0], sent, output, views, limits.pixels)

        with line.place():
            kind = _kind(request)
            reader = body.uploaded if kind == "multipart/form-data" else body.read
            sent = await reader(request, limits.bytes)
            content = await line.answer(work)
        headers = {"Model-Version": f"{used[0].name}/{used[0].number}"}
        return Response(content.data, media_type=content.media_type, headers=headers)


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
    @app.get("/ping")
    @app.get("/health")
    def health() -> description.Health:
        """Whether the model answers, and whether it is the one that should."""
        return description.health(follower)

    @app.get("/version")
    def version() -> description.Version:
        """Which version of which model answers."""
        return description.version(follower)

    @app.get("/", response_class=page.HTML)
    def form() -> str:
        """A page to try the model with."""
        return page.render(follower)


def _add_refusals(app: FastAPI) -> None:
    @app.exception_handler(RefusedError)
    async def refused(_: Request, error: RefusedError) -> Response:
        return _refusal(error.status, str(error), {"Retry-After": "1"} if error.status == 429 else None)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        reasons = (f"{each['loc'][-1]}: {each['msg']}" for each in error.errors())
        return _refusal(400, "; ".join(reasons))

    @app.exception_handler(HTTPException)
    async def unknown(_: Request, error: HTTPException) -> Response:
        return _refusal(error.status_code, f"{error.detail}; /openapi.json says what there is", error.headers)

    @app.exception_handler(ClientDisconnect)
    async def gone(_: Request, __: ClientDisconnect) -> Response:
        return _refusal(400, "the body ended early")

    @app.exception_handler(Exception)
    async def failed(_: Request, error: Exception) -> Response:
        return _refusal(500, f"the model failed ({type(error).__name__}); the server's log says where")


def _refusal(status: int, reason: str, headers: Mapping[str, str] | None = None) -> Response:
    """The reason in the form that MLflow's clients know, in ASCII: a reason may quote what is no text."""
    content = json.dumps({"error_code": HTTPStatus(status).name, "message": reason})
    return Response(content, status, headers, media_type="application/json")
