"""The outermost layer of the gRPC server, for all its services: who may ask, errors as statuses, and no traceback."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from pipeline.server.errors import Refused
from pipeline.server.guard import admits
from pipeline.server.metrics import Metrics

log = logging.getLogger(__name__)

API = "grpc"

RECEIVE_SECONDS = 30.0
"""How long a call may take to send its message."""

CALLS = 256
"""Calls at once, of one connection and of all: each may hold a message of the size that a body may have."""

HANDSHAKE_MS = 10_000
"""How long a connection may take to begin to speak HTTP/2."""

IDLE_MS = 300_000
"""How long a connection may be open without a call, as one is whose other end is gone; clients open it again."""

CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    404: grpc.StatusCode.NOT_FOUND,
    408: grpc.StatusCode.DEADLINE_EXCEEDED,
    413: grpc.StatusCode.INVALID_ARGUMENT,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    503: grpc.StatusCode.UNAVAILABLE,
}


def options(message_bytes: int) -> list[tuple[str, int]]:
    """What gRPC itself limits: messages, also once they are unpacked, calls, and connections that say nothing."""
    return [
        ("grpc.max_receive_message_length", message_bytes),
        ("grpc.max_concurrent_streams", CALLS),
        ("grpc.so_reuseport", 0),
        ("grpc.server_handshake_timeout_ms", HANDSHAKE_MS),
        ("grpc.max_connection_idle_ms", IDLE_MS),
    ]


class Guard(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Stands before every method, also those that there are not. Methods raise Refused, and know nothing of tokens."""

    def __init__(self, metrics: Metrics, token: str | None) -> None:
        self.metrics, self.token = metrics, token

    async def intercept_service(self, continuation: Any, details: Any) -> Any:
        """Give gRPC a method that reads the message itself, so that a stranger's is neither received nor parsed."""
        method = await continuation(details)
        answer = partial(self._answer, method, details)
        return grpc.stream_unary_rpc_method_handler(answer, response_serializer=method and method.response_serializer)

    async def _answer(self, method: Any, details: Any, messages: AsyncIterator[bytes], context: Any) -> Any:
        """Answer one call, and count it by the status that it got."""
        started, status, sentence = time.perf_counter(), grpc.StatusCode.OK, ""
        try:
            self._refuse_stranger(details.invocation_metadata)
            if method is None or method.unary_unary is None:
                raise NotImplementedError
            return await method.unary_unary(await _received(method, details.method, messages), context)
        except asyncio.CancelledError:
            status = grpc.StatusCode.CANCELLED if _has_time(context) else grpc.StatusCode.DEADLINE_EXCEEDED
            raise
        except Exception as error:
            status, sentence = _told(error, details.method)
        finally:
            self.metrics.request(API, status.name, time.perf_counter() - started)
        # Not while the error is handled: it would be a part of what abort raises, with the request, for a long time.
        await context.abort(status, sentence)

    def _refuse_stranger(self, metadata: Any) -> None:
        """Raise Refused unless the call's metadata has the token, once."""
        if self.token is None:
            return
        given = [value for name, value in metadata or () if name == "authorization"]
        if len(given) != 1 or not admits(given[0], self.token):
            raise Refused(401, "send the server's token as metadata: `authorization: Bearer TOKEN`")


async def _received(method: Any, name: str, messages: AsyncIterator[bytes]) -> Any:
    """The request of a method. Raises Refused where it does not come, or is none of this method's."""
    try:
        message = await asyncio.wait_for(anext(aiter(messages)), RECEIVE_SECONDS)
        return method.request_deserializer(message)
    except TimeoutError:
        raise Refused(408, f"no message came within {RECEIVE_SECONDS:.0f} seconds: send it with the call") from None
    except (DecodeError, StopAsyncIteration):
        raise Refused(400, f"the message cannot be read: send the request that {name} takes") from None


def _told(error: Exception, name: str) -> tuple[grpc.StatusCode, str]:
    """The status and the sentence by which a client is told of an error."""
    if isinstance(error, Refused):
        return CODES.get(error.status, grpc.StatusCode.UNKNOWN), str(error)
    if isinstance(error, NotImplementedError):  # which the stubs' own methods raise
        return grpc.StatusCode.UNIMPLEMENTED, f"{name} is not answered: docs/how-to/serve.md names what is"
    log.error("a request failed", exc_info=error)
    return grpc.StatusCode.INTERNAL, f"the server failed ({type(error).__name__}): its log says more"


def _has_time(context: Any) -> bool:
    """Whether a call that was given up still had time, as its client told it."""
    remaining = context.time_remaining()
    return remaining is None or remaining > 0
