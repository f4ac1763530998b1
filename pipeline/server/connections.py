"""What a client may take of the server before its request is there: bytes, time, a place among all connections."""

import asyncio
import resource
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from pipeline.server.errors import Refused
from pipeline.server.guard import REFUSED, refusal

HEAD_BYTES, URL_BYTES, HEADERS = 64 * 2**10, 8 * 2**10, 100
"""How long the headers, trailers included, and the path may be, and how many headers there may be."""

AHEAD = 100
"""Requests that a client may send ahead of their answers."""

LINGER_SECONDS = 1.0
"""For so long the rest of a refused head is read and dropped: closing at once would take the answer from the client."""

IDLE, HEAD, BODY = "idle", "head", "body"


class Connections:
    """The open connections, and how many bytes of bodies they hold.

    Where either is too much, it ends what has been silent for longest of all that wait for their clients.
    """

    def __init__(self, most: int, body_bytes: int, seconds: float, count: Callable[[int], None]) -> None:
        """`seconds` is the time for a request to arrive, and for its answer to be taken; `count` is told statuses."""
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self.most = most if files == resource.RLIM_INFINITY else min(most, files // 2)
        self.body_bytes, self.seconds, self.count = body_bytes, seconds, count
        self.open = OrderedDict[Connection, None]()
        """In the order in which they were heard last."""
        self.held = 0

    def add(self, connection: "Connection") -> None:
        """Take up a connection, in place of another one if there are too many."""
        self.open[connection] = None
        if len(self.open) > self.most:
            next((each for each in self.open if each.waits), connection).drop(Refused(503, "too many connections"))

    def hold(self, size: int) -> None:
        """Count bytes of a body that has just arrived; if they are too many, refuse one that is arriving."""
        self.held += size
        if self.held > self.body_bytes:
            next(each for each in self.open if each.held and each.phase == BODY).refuse_body()


class _Joined:
    """A transport that sends at once what is written in one turn of the event loop: uvicorn writes head and body."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop, self._parts = transport, loop, list[bytes]()

    def write(self, data: bytes) -> None:
        """Send the bytes at the end of this turn."""
        if not self._parts:
            self._loop.call_soon(self._send)
        self._parts.append(data)

    def write_eof(self) -> None:
        """Say that nothing follows."""
        self._send()
        self._transport.write_eof()

    def close(self) -> None:
        """Close the connection once all was sent."""
        self._send()
        self._transport.close()

    def _send(self) -> None:
        if self._parts and not self._transport.is_closing():
            self._transport.write(b"".join(self._parts))
        self._parts.clear()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class Connection(HttpToolsProtocol):
    """uvicorn's connection, with limits on what is parsed and a deadline on what the client has to do."""

    def __init__(self, connections: Connections, **given: Any) -> None:
        super().__init__(**given)
        self.all, self.phase, self.held = connections, IDLE, 0
        self._waits_since: float | None = self.loop.time()
        self._writes_since: float | None = None
        self._head_bytes = self._unparsed = 0
        self._is_refused = self._is_ending = False

    @property
    def waits(self) -> bool:
        """Whether it is the client's turn: no answer is under way, but the request is not there."""
        return not self._is_ending and (self.phase == BODY or self._is_answered())

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to watch the client."""
        super().connection_made(transport)
        self.transport = _Joined(transport, self.loop)  # type: ignore[assignment]
        self._timer = self.loop.call_later(self.all.seconds, self._look)
        self.all.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Free what the connection held."""
        self._timer.cancel()
        self._release()
        self.all.open.pop(self, None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what has arrived; a head is refused before it is whole, if it is too long."""
        self._unset_keepalive_if_required()
        if self._is_ending:
            return
        self.all.open.move_to_end(self)
        if self._waits_since is None:
            self._waits_since = self.loop.time()
        self._unparsed += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # no other protocol is spoken here: the request is answered as it stands
        except httptools.HttpParserError as error:
            ours = error.__context__  # what a method below has raised
            self._end(ours if isinstance(ours, Refused) else Refused(400, f"this is not HTTP/1.1: {error}"))
        else:
            if self._unparsed > HEAD_BYTES:  # without an end of a head, or of a chunk's
                self._end(_too_long())

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self.phase, self._head_bytes, self._is_refused = HEAD, 0, False
        self._waits_since = self.loop.time()

    def on_url(self, url: bytes) -> None:
        """A part of the path has arrived."""
        super().on_url(url)
        if len(self.url) > URL_BYTES:
            raise Refused(414, f"the path has more than {URL_BYTES:,} bytes")

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header, or a trailer, has arrived."""
        self._head_bytes += len(name) + len(value)
        if self._head_bytes > HEAD_BYTES or len(self.headers) >= HEADERS:
            raise _too_long()
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head is whole: the request is answered now, or after those before it."""
        if len(self.pipeline) >= AHEAD:
            raise Refused(429, f"{AHEAD} requests were sent ahead of their answers")
        super().on_headers_complete()
        self.phase, self._unparsed = BODY, 0
        # An early answer must not close the connection under a client that is still sending.
        self._keeps_alive, self.cycle.keep_alive = self.cycle.keep_alive, True

    def on_body(self, body: bytes) -> None:
        """A part of the body has arrived."""
        self._unparsed = 0
        if not self._is_refused and not self.cycle.response_complete:
            super().on_body(body)
            self.held += len(body)
            self.all.hold(len(body))

    def on_message_complete(self) -> None:
        """The request is whole: it is the server's turn."""
        self.phase, self._unparsed, self._waits_since = IDLE, 0, None
        super().on_message_complete()
        if not self._keeps_alive:
            self.cycle.keep_alive = False
            if self.cycle.response_complete:
                self.transport.close()

    def on_response_complete(self) -> None:
        """The request is answered."""
        super().on_response_complete()
        if self._is_answered():
            self._release()

    def pause_writing(self) -> None:
        """The client takes its answer more slowly than it is written."""
        super().pause_writing()
        self._writes_since = self.loop.time()

    def resume_writing(self) -> None:
        """The client has taken what was written."""
        super().resume_writing()
        self._writes_since = None

    def drop(self, error: Refused) -> None:
        """Close the connection without a word; the log and the metrics tell the error."""
        self._is_ending = True
        if self.phase == BODY and not self._is_answered():
            self._raise(error)
            self.cycle.disconnected = True
        elif self.phase == HEAD:
            self.all.count(error.status)
        self.transport.close()

    def refuse_body(self) -> None:
        """Answer without waiting for the rest of the body, which is dropped as it arrives."""
        self._raise(Refused(429, f"bodies of {self.all.body_bytes:,} bytes are held already: try again in a second"))

    def _raise(self, error: Refused) -> None:
        """Have the guard raise the error where the body is read."""
        self._is_refused = True
        self._release()
        self.scope[REFUSED] = error  # type: ignore[literal-required]
        self.cycle.message_event.set()

    def _end(self, error: Refused) -> None:
        """Answer what cannot be read on with an error, after all that came before it, and read no more."""
        self._is_ending = True
        if not self._is_answered():
            self.cycle.keep_alive = False
            if self.phase == BODY:
                self._raise(error)
        elif self.phase == HEAD:
            self.all.count(error.status)
            response = refusal(error)
            headers = [*response.raw_headers, (b"connection", b"close")]
            head = b"".join(b"%s: %s\r\n" % header for header in headers)
            self.transport.write(STATUS_LINE[error.status] + head + b"\r\n" + response.body)
            self.transport.write_eof()
            self.loop.call_later(LINGER_SECONDS, self.transport.close)
        else:
            self.transport.close()

    def _look(self) -> None:
        """Close the connection if its client is too slow; else look again when it may be."""
        now, seconds = self.loop.time(), self.all.seconds
        if self._writes_since is not None and now - self._writes_since >= seconds:
            self.transport.abort()
            return
        if self._waits_since is not None and now - self._waits_since >= seconds:
            self._waits_since = None
            self.drop(Refused(408, f"the request was not there after {seconds:g} seconds"))
        if self.transport.is_closing() and self._writes_since is None:
            self._writes_since = now
        since = [start for start in (self._waits_since, self._writes_since) if start is not None]
        self._timer = self.loop.call_later(min(since, default=now) + seconds - now, self._look)

    def _is_answered(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _release(self) -> None:
        self.all.held -= self.held
        self.held = 0


def _too_long() -> Refused:
    return Refused(431, f"the headers are too long: send at most {HEADERS}, of {HEAD_BYTES:,} bytes in all")
