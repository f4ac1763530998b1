"""The outermost layer of the HTTP server: who may ask, how much a body may hold, one line of log and no traceback."""

import asyncio
import base64
import hmac
import logging
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TextIO

import orjson
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipeline.server.compression import ACCEPTED, decompressed
from pipeline.server.errors import Refused
from pipeline.server.http import Json
from pipeline.server.listen import Hosts
from pipeline.server.metrics import Metrics

log = logging.getLogger(__name__)

OPEN = ("/healthz", "/readyz")
"""Paths that answer without a token, and are not logged: a platform asks them every few seconds."""

ACCESS_LOG = "writes the access log"

FLUSH_SECONDS = 0.2
"""Lines of the access log are written this often."""

REFUSED = "refused"
"""Where a request's scope has the error by which the connection refuses a body that is still arriving."""

CLIENT_LEFT = 499
"""The status, as nginx counts it, of a request whose client left before its body was there."""

APIS = {"v1": "tensorflow-serving", "v2": "open-inference", "": "page", "metrics": "metrics"}


class Guard:
    """Wraps the application; each error becomes {"error": sentence}, as TensorFlow Serving and Open Inference do."""

    def __init__(
        self,
        app: ASGIApp,
        metrics: Metrics,
        *,
        token: str | None,
        body_bytes: int,
        hosts: Hosts | None = None,
        access_log: TextIO | None = sys.stdout,
        failed: Callable[[str, OSError], None],
    ) -> None:
        self.app, self.metrics, self.token, self.body_bytes = app, metrics, token, body_bytes
        self.hosts, self.access_log, self._failed = hosts, access_log, failed
        self._flushing = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, status = time.perf_counter(), 0
        scope["app"] = self  # so that Starlette's routes raise what they do not answer

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            try:
                headers = dict(scope["headers"])
                if self.hosts:
                    self.hosts.refuse_misled(scope["headers"])
                self._refuse_stranger(scope["path"], headers)
                self._refuse_large(headers)
                await self.app(scope, self._receiving(scope, receive, headers), sending)
            except Refused as error:
                await refusal(error)(scope, receive, sending)
            except ClientDisconnect:
                status = CLIENT_LEFT
            except asyncio.CancelledError:  # the server ends, and has waited for the body long enough
                await refusal(Refused(503, "the server ends: try again"))(scope, receive, sending)
            except HTTPException as error:
                await refusal(_as_refused(scope, error))(scope, receive, sending)
            except Exception as error:
                log.exception("a request failed")
                if not status:  # nothing has been sent yet
                    sentence = f"the server failed ({type(error).__name__}): its log says more"
                    await refusal(Refused(500, sentence))(scope, receive, sending)
        finally:
            self._note(scope, status, time.perf_counter() - started)

    def _refuse_stranger(self, path: str, headers: dict[bytes, bytes]) -> None:
        """Raise Refused unless the request has the token, as a Bearer token or as the password of Basic."""
        if self.token is None or path in OPEN:
            return
        if not admits(headers.get(b"authorization", b"").decode("latin-1"), self.token):
            raise Refused(401, "send the server's token: `Authorization: Bearer TOKEN`")

    def _refuse_large(self, headers: dict[bytes, bytes]) -> None:
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > self.body_bytes:
            raise Refused(413, f"the body has {int(length):,} bytes: send at most {self.body_bytes:,}")

    def _receiving(self, scope: Scope, receive: Receive, headers: dict[bytes, bytes]) -> Receive:
        """Receive, within the limit as it is sent and once it is decompressed."""
        encoding = headers.get(b"content-encoding", b"").decode("latin-1")
        return decompressed(_limited(scope, receive, self.body_bytes), encoding, self.body_bytes)

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        path = scope["path"]
        self.metrics.request(APIS.get(path.split("/")[1] if "/" in path else "", "other"), status, seconds)
        if self.access_log is None or path in OPEN:
            return
        line = {
            "time": datetime.now(UTC),
            "client": (scope.get("client") or ["", 0])[0],
            "method": scope["method"],
            "path": path,
            "status": status,
            "ms": round(seconds * 1000, 2),
        }
        try:
            self.access_log.write(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE).decode())
        except OSError as error:
            self._failed(ACCESS_LOG, error)
        if not self._flushing:  # once for many lines, because it takes as long as the rest of the guard
            self._flushing = True
            asyncio.get_running_loop().call_later(FLUSH_SECONDS, self._flush)

    def _flush(self) -> None:
        self._flushing = False
        try:
            if self.access_log is not None:
                self.access_log.flush()
        except OSError as error:
            self._failed(ACCESS_LOG, error)


def refusal(error: Refused) -> Json:
    """The answer that tells why a request was refused."""
    headers = dict(error.headers)
    if error.status in {429, 503}:
        headers["Retry-After"] = "1"
    if error.status == 401:
        headers["WWW-Authenticate"] = 'Basic realm="the password is the token"'
    if error.status == 415:
        headers["Accept-Encoding"] = ACCEPTED
    return Json({"error": str(error)}, error.status, headers)


def _as_refused(scope: Scope, error: HTTPException) -> Refused:
    path = scope["path"]
    sentences = {404: f"there is nothing at {path}", 405: f"{path} does not answer {scope['method']}"}
    return Refused(error.status_code, sentences.get(error.status_code, error.detail), error.headers)


def admits(authorization: str, token: str) -> bool:
    """Whether the header's value holds the token."""
    scheme, _, given = authorization.partition(" ")
    if scheme.lower() == "basic":
        try:
            given = base64.b64decode(given, validate=True).decode("latin-1").partition(":")[2]
        except ValueError:  # also where it is not ASCII
            return False
    elif scheme.lower() != "bearer":
        return False
    return hmac.compare_digest(given.strip().encode(), token.encode())


def _limited(scope: Scope, receive: Receive, limit: int) -> Receive:
    """Receive, but raise Refused where a body without a length turns out too large, or the connection refuses it."""
    size = 0

    async def receiving() -> Any:
        nonlocal size
        message = await receive()
        if REFUSED in scope:
            raise scope.pop(REFUSED)  # kept there, its traceback would keep the body
        size += len(message.get("body", b""))
        if size > limit:
            raise Refused(413, f"the body has more than {limit:,} bytes: send less")
        return message

    return receiving
