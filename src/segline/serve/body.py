"""The bytes that a request brings: never more than are allowed in memory, and none waited for without end."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from segline.serve.refused import RefusedError

PATIENCE = 60  # seconds in which a body must have come
FIELDS = 8  # of a form, beside the file


async def read(request: Request, most: int) -> bytes:
    """The body of `request`.

    Raises
    ------
    RefusedError
        It has more than `most` bytes, or takes too long.
    """
    async with _in_time():
        return b"".join([chunk async for chunk in _chunks(request, most)])


async def uploaded(request: Request, most: int) -> bytes:
    """The one file in the form that `request` brings, whatever its field is called; in memory only.

    Raises
    ------
    RefusedError
        The body is no form, holds no file or several, has more than `most` bytes, or takes too long.
    """
    async with _in_time():
        parser = MultiPartParser(request.headers, _chunks(request, most), max_files=1, max_fields=FIELDS)
        parser.spool_max_size = most + 1  # nothing is written to disk
        try:
            form = await parser.parse()
        except MultiPartException as error:
            raise RefusedError(400, f"not a readable form: {error.message}") from error
        try:
            for value in form.values():
                if isinstance(value, UploadFile):
                    return await value.read()
        finally:
            await form.close()
    raise RefusedError(400, "a form without a file; send one as curl -F file=@IMAGE does")


async def _chunks(request: Request, most: int) -> AsyncGenerator[bytes, None]:
    too_large = RefusedError(413, f"a body of more than {most / 1e6:g} MB; --max-megabytes of the server sets that")
    announced = request.headers.get("content-length", "0")
    if announced.isdigit() and int(announced) > most:
        raise too_large
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > most:
            raise too_large
        yield chunk


@asynccontextmanager
async def _in_time() -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(PATIENCE):
            yield
    except TimeoutError:
        raise RefusedError(408, f"the body did not come within {PATIENCE} seconds") from None
