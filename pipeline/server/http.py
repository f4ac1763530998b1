"""Endpoints and answers of the HTTP server, lighter than Starlette's own, which take as long as tagging a post."""

from collections.abc import Awaitable, Callable
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

Handler = Callable[[Request], Awaitable[Response]]


class Json(Response):
    """An answer in JSON, which may hold arrays."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """The content as JSON; float32 with the digits that it needs."""
        return orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)


class _Endpoint:
    """An ASGI application that calls a handler; its exceptions are left to the guard."""

    def __init__(self, handler: Handler) -> None:
        self.handler = handler

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = await self.handler(Request(scope, receive))
        await response(scope, receive, send)


def route(path: str, handler: Handler, *methods: str) -> Route:
    """A route that answers GET, or these methods."""
    return Route(path, _Endpoint(handler), methods=list(methods) or ["GET"])
