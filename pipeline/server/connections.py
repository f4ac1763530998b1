"""What a client may take of the server before its request is there: bytes, time, a place among all connections."""

import asyncio
import resource
from collections.abc import Callable
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from pipeline.server.errors import Refused
from pipeline.server.guard import REFUSED, refusal

HEAD_BYTES, URL_BYTES, HEADERS = 64 * 2**10, 8 * 2**10, 100
"""How long the request line and the headers may be, trailers included, and how many headers there may be."""

AHEAD = 100
"""Requests that a client may send ahead of their answers."""

LINGER_SECONDS = 1.0
"""For so long the rest of a refused head is read and dropped, because a reset would take the answer from the client."""

IDLE, HEAD, BODY = "idle", "head", "body"


class Connections:
    """The open connections, and the bytes of bodies that they hold together.

    Where they are too many, that client loses its place which has been silent for longest while its request is awaited.
    """

    def __init__(self, most: int, body_bytes: int, seconds: float, count: Callable[[int], None]) -> None:
        """`seconds` is the time for a request to arrive, and for its answer to be taken; `count` is told statuses."""
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self.most = most if files == resource.RLIM_INFINITY else min(most, files // 2)
        self.body_bytes, self.seconds, self.count = body_bytes, seconds, count
        self.open = set[Connection]()
        self.held = 0

    def add(self, connection: "Connection") -> None:
        """Take up a connection; if it is one too many, close one."""
        self.open.add(connection)
        if len(self.open) > self.most:
            waiting = [each for each in self.open if each.is_awaited]
            min(waiting or [connection], key=lambda each: each.heard).drop()

    def hold(self, size: int) -> None:
        """Count bytes of a body that has just arrived; if they are too many, refuse a body."""
        self.held += size
        if self.held > self.body_bytes:
            arriving = [each for each in self.open if each.phase == BODY and each.held]
            sentence = f"bodies of {self.body_bytes:,} bytes are held already: try again in a second"
            min(arriving, key=lambda each: each.heard).refuse(Refused(429, sentence))


class Connection(HttpToolsProtocol):
    """uvicorn's connection, with limits on what is parsed and a deadline on what is awaited of the client."""

    def __init__(self, connections: Connections, **given: Any) -> None:
        super().__init__(**given)
        self.all, self.phase, self.held = connections, IDLE, 0
        self.heard = self.loop.time()
        self._awaited_since: float | None = self.heard
        self._untaken_since: float | None = None
        self._head_bytes = self._unparsed = 0
        self._deaf = False

    @property
    def is_awaited(self) -> bool:
        """Whether the next thing must come from the client, and no answer is under way."""
        return not self._deaf and (self.phase == BODY or self.cycle is None or self.cycle.response_complete)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to watch the connection."""
        super().connection_made(transport)
        self._timer = self.loop.call_later(self.all.seconds, self._look)
        self.all.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Free what the connection held."""
        self._timer.cancel()
        self._release()
        self.all.open.discard(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what has arrived; a head without an end is refused before it is whole."""
        self._unset_keepalive_if_required()
        self.heard = self.loop.time()
        if self._deaf:
            return
        if self._awaited_since is None:
            self._awaited_since = self.heard
        self._unparsed += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # no other protocol is spoken here: the request is answered as it stands
        except httptools.HttpParserError as error:
            ours = error.__context__  # what a method below has raised
            self.refuse(ours if isinstance(ours, Refused) else Refused(400, f"this is not HTTP/1.1: {error}"))
        else:
            if self._unparsed > HEAD_BYTES:
                self.refuse(_too_long())

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self.phase, self._head_bytes, self._awaited_since = HEAD, 0, self.heard

    def on_url(self, url: bytes) -> None:
        """A part of the request line has arrived."""
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
        """The head is whole: the request is answered, or waits for the answers to those before."""
        if len(self.pipeline) >= AHEAD:
            raise Refused(429, f"{AHEAD} requests were sent ahead of their answers")
        super().on_headers_complete()
        self.phase, self._unparsed = BODY, 0

    def on_body(self, body: bytes) -> None:
        """A part of the body has arrived; it is dropped where the request is answered already."""
        self._unparsed = 0
        if self.cycle.response_complete or REFUSED in self.scope:
            return
        super().on_body(body)
        self.held += len(body)
        self.all.hold(len(body))

    def on_message_complete(self) -> None:
        """The request is whole: it is the server's turn."""
        self.phase, self._unparsed, self._awaited_since = IDLE, 0, None
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """The request is answered."""
        super().on_response_complete()
        if self.cycle.response_complete:
            self._release()

    def pause_writing(self) -> None:
        """The client takes its answer more slowly than it is written."""
        super().pause_writing()
        self._untaken_since = self.loop.time()

    def resume_writing(self) -> None:
        """The client has taken what was written."""
        super().resume_writing()
        self._untaken_since = None

    def refuse(self, error: Refused) -> None:
        """Answer the request that is arriving with an error, in its turn, and read no other one."""
        answered = self.cycle is None or self.cycle.response_complete
        if self.phase == BODY and not answered:
            self.scope[REFUSED] = error  # type: ignore[literal-required]
            self.cycle.message_event.set()
            self._release()
            # With 429 the body may go on arriving, and is dropped: its client reads the answer after it.
            if error.status != 429:
                self._deaf, self.cycle.keep_alive = True, False
            return
        self._deaf = True
        if not answered:
            self.cycle.keep_alive = False
        elif self.phase == HEAD:
            self._answer(error)
        else:
            self.transport.close()

    def drop(self) -> None:
        """Close the connection at once, in favour of another one."""
        if self.phase == BODY:  # the guard tells, to the log and the metrics
            self.scope[REFUSED] = Refused(503, "too many connections")  # type: ignore[literal-required]
        self._deaf = True
        self.transport.abort()

    def _answer(self, error: Refused) -> None:
        """Write an error to a client whose request never became one."""
        self.all.count(error.status)
        response = refusal(error)
        head = [b"%s: %s\r\n" % header for header in [*response.raw_headers, (b"connection", b"close")]]
        self.transport.write(b"".join([STATUS_LINE[error.status], *head, b"\r\n", response.body]))
        self.transport.write_eof()
        self.loop.call_later(LINGER_SECONDS, self.transport.close)

    def _look(self) -> None:
        """Refuse a request that is overdue, drop an answer that is not taken, and look again when either may be."""
        now, seconds = self.loop.time(), self.all.seconds
        if self._untaken_since is not None and now - self._untaken_since >= seconds:
            self.transport.abort()
            return
        if self._awaited_since is not None and now - self._awaited_since >= seconds:
            self._awaited_since = None
            self.refuse(Refused(408, f"the request did not arrive within {seconds:g} seconds"))
        if self.transport.is_closing() and self._untaken_since is None:
            self._untaken_since = now
        since = [start for start in (self._awaited_since, self._untaken_since) if start is not None]
        self._timer = self.loop.call_later(min(since, default=now) + seconds - now, self._look)

    def _release(self) -> None:
        self.all.held -= self.held
        self.held = 0


def _too_long() -> Refused:
    return Refused(431, f"the headers are too long: send at most {HEADERS} with {HEAD_BYTES:,} bytes in all")
