"""The bytes that a request brings: never more than are allowed in memory, and none waited for without end.

On the event loop they are only collected; `forms` and `invocation` parse them in a thread of their own.
"""

import asyncio

from starlette.requests import Request

from segline.serve.refused import RefusedError

PATIENCE = 60  # seconds in which a body must have come
PAUSE = 10  # seconds in which some of it must come


async def read(request: Request, most: int) -> bytearray:
    """The body of `request`.

    Raises
    ------
    RefusedError
        It is compressed, has more than `most` bytes, or takes too long.
    """
    if request.headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
        raise RefusedError(415, "a body with Content-Encoding; send it as it is")
    too_large = RefusedError(413, f"a body of more than {most / 1e6:g} MB; --max-megabytes of the server sets that")
    announced = request.headers.get("content-length", "0")
    if announced.isdigit() and int(announced) > most:
        raise too_large
    body = bytearray()  # it grows without copies; joining pieces would hold Python's lock
    stream = request.stream()
    loop = asyncio.get_running_loop()
    end = loop.time() + PATIENCE
    while True:
        seconds = min(PAUSE, end - loop.time())
        try:
            async with asyncio.timeout(seconds):
                piece = await anext(stream)
        except StopAsyncIteration:
            return body
        except TimeoutError:
            raise RefusedError(
                408, f"the body did not come within {PATIENCE} seconds, or none of it for {PAUSE}"
            ) from None
        if len(body) + len(piece) > most:
            raise too_large
        body += piece
