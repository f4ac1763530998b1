"""What a client may take of the server before its request is there, and what others are answered meanwhile."""

import http.client
import json
import os
import re
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path

import psutil
import pytest

from pipeline.server import connections
from pipeline.server.listen import Listen
from tests.conftest import free_port
from tests.server.conftest import MODEL, wait_for

PREDICT = f"{MODEL}:predict"
CONNECTIONS, HELD_BYTES, BODY_BYTES = 20, 4_000_000, 3_000_000
PROGRAM = """
import sys
from pipeline.registry.registry import Registry
from pipeline.server.app import Server
from pipeline.server.listen import Listen
from pipeline.server.versions import Limits
from pipeline.store.objects import Store

store, port, *numbers = sys.argv[1:]
connections, held, body = map(int, numbers)
limits = Limits(body_bytes=body, connections=connections, held_bytes=held)
listen = Listen(port=int(port), grpc_port=None, keep_alive_seconds=1, receive_seconds=1)
Server(Registry(Store(store)), listen, limits).run()
"""


@dataclass(frozen=True)
class Small:
    """A server with small limits, without a version."""

    port: int
    process: subprocess.Popen[bytes]
    errors: Path

    def connect(self, sent: bytes = b"") -> socket.socket:
        client = socket.create_connection(("127.0.0.1", self.port), timeout=60)
        client.sendall(sent)
        return client

    def ask(self, path: str, body: bytes | None = None) -> tuple[int, str]:
        """Ask as urllib does, which reads no answer before it has sent its body, and wants the connection closed."""
        try:
            request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", body)
            with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 - to the address above
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def count(self, status: int) -> float:
        """How many requests were answered with this status."""
        counts = re.findall(rf'^tagger_requests_total{{.*status="{status}"}} (\S+)', self.ask("/metrics")[1], re.M)
        return sum(map(float, counts))

    @property
    def files(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    @property
    def memory(self) -> int:
        return psutil.Process(self.process.pid).memory_info().rss


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Small]:
    folder, port = tmp_path_factory.mktemp("small"), free_port()
    arguments = map(str, (folder / "store", port, CONNECTIONS, HELD_BYTES, BODY_BYTES))
    with (folder / "errors").open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *arguments], stdout=subprocess.DEVNULL, stderr=errors
        )
    server = Small(port, process, folder / "errors")

    def is_alive() -> bool:
        assert process.poll() is None, server.errors.read_text()
        try:
            return server.ask("/healthz")[0] == 200
        except OSError:
            return False

    try:
        wait_for("the server answers", is_alive)
        yield server
    finally:
        process.terminate()
        process.wait(60)


def rest(client: socket.socket) -> bytes:
    """All that comes until the server closes the connection."""
    received = b""
    try:
        while part := client.recv(2**16):
            received += part
    except ConnectionResetError:
        pass
    client.close()
    return received


HEAD = f"POST {PREDICT} HTTP/1.1\r\nHost: localhost\r\n".encode()
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n"
ENDLESS = {
    "path": (b"GET /", b"a" * 10_000, 414),
    "header": (HEAD + b"X: ", b"a" * 10_000, 431),
    "name of a header": (HEAD, b"a" * 10_000, 431),
    "headers": (HEAD, b"X: a\r\n" * 1_000, 431),
    "long headers": (HEAD, (b"X: " + b"a" * 9_000 + b"\r\n"), 431),
    "empty lines": (b"", b"\r\n" * 5_000, None),
    "trailer": (CHUNKED + b"0\r\nX: ", b"a" * 10_000, 431),
    "trailers": (CHUNKED + b"0\r\n", b"X: a\r\n" * 1_000, 431),
    "extension of a chunk": (CHUNKED + b"2;a=", b"a" * 10_000, 431),
}


@pytest.mark.parametrize(("start", "more", "status"), ENDLESS.values(), ids=ENDLESS)
def test_a_head_without_an_end_is_refused_before_it_is_there(small, start, more, status):
    before = small.memory
    with small.connect(start) as client:
        client.setblocking(False)
        sent = 0
        for part in repeat(more, 3_000):  # 30 MB, if nobody stops it
            client.settimeout(60)
            try:
                client.sendall(part)
            except OSError:
                break
            sent += len(part)
            client.settimeout(0)
            try:
                client.recv(1, socket.MSG_PEEK)
                break
            except BlockingIOError:
                continue
            except ConnectionResetError:
                break
        client.settimeout(60)
        line = rest(client).partition(b"\r\n")[0]
    assert sent < 10_000_000
    assert line.split()[1:2] == ([str(status).encode()] if status else [])
    assert small.memory - before < 10_000_000
    assert small.ask("/healthz") == (200, "ok\n")


def test_as_many_headers_as_a_proxy_adds_are_read(small):
    headers = b"".join(b"X-%d: %s\r\n" % (number, b"a" * 500) for number in range(connections.HEADERS - 2))
    head = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n" + headers + b"\r\n"
    assert rest(small.connect(head)).startswith(b"HTTP/1.1 200")


HALF = {
    "nothing": b"",
    "an empty line": b"\r\n",
    "a method": b"GE",
    "a path": b"GET /healthz",
    "a header": HEAD + b"X: a",
    "a body": HEAD + b"Content-Length: 100\r\n\r\n{",
    "a body that is not read": b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{",
    "a chunk": CHUNKED,
    "a second request": b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\nGET /",
    "a rest that is dropped": HEAD + b"Content-Length: 10000000\r\n\r\n{",
}


def test_a_request_that_does_not_arrive_is_dropped(small):
    before = small.count(500)
    answered = {"a rest that is dropped": b"413", "a body that is not read": b"200", "a second request": b"200"}
    clients = {name: small.connect(half) for name, half in HALF.items()}
    for name, client in clients.items():
        assert re.findall(rb"HTTP/1.1 (\d+)", rest(client)) == ([answered[name]] if name in answered else [])
    assert small.count(500) == before


def test_one_that_comes_in_time_is_answered_however_small_its_parts(small):
    client = small.connect()
    for byte in HEAD + b"Connection: close\r\nContent-Length: 2\r\n\r\n{}":
        client.sendall(bytes([byte]))
    assert b"no version" in rest(client)


def test_a_dropped_request_is_counted_as_what_it_was(small):
    late, left = small.count(408), small.count(499)
    assert rest(small.connect(HEAD + b"Content-Length: 9\r\n\r\n{")) == b""
    assert rest(small.connect(b"GET /")) == b""
    assert small.count(408) == late + 2
    small.connect(HEAD + b"Content-Length: 9\r\n\r\n{").close()
    wait_for("it is counted", lambda: small.count(499) == left + 1)


def test_an_idle_connection_is_closed_after_the_time_for_that(small):
    client = http.client.HTTPConnection("127.0.0.1", small.port, timeout=60)
    client.request("GET", "/healthz")
    assert client.getresponse().read() == b"ok\n"
    assert client.sock.recv(1) == b""
    assert Listen().keep_alive_seconds > 60, "that of most proxies, which must be the first to close"


def test_an_answer_that_nobody_takes_is_dropped(small):
    before = small.files
    with small.connect() as client:
        client.settimeout(0.2)
        try:
            for _ in range(2_000):
                client.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n" * 20)
        except OSError:
            pass
        wait_for("the connection is dropped", lambda: small.files <= before)


def test_of_too_many_connections_the_one_that_was_silent_for_longest_goes(small):
    halves = [small.connect(half) for half in (b"GE", HEAD, HEAD + b"Content-Length: 9\r\n\r\n{") for _ in range(20)]
    assert small.ask("/healthz") == (200, "ok\n")
    assert rest(halves[0]) == b""
    halves[-1].sendall(b" " * 8)
    assert halves[-1].recv(12) == b"HTTP/1.1 400"
    assert small.files < CONNECTIONS + 20
    for half in halves:
        half.close()


def test_bodies_that_do_not_come_to_an_end_are_refused_in_favour_of_others(small):
    head, part = HEAD + b"Content-Length: 2000000\r\n\r\n", b"a" * 1_500_000
    before = small.memory
    stalled = [small.connect(head + part) for _ in range(15)]
    assert small.ask(PREDICT, b"a" * 1_000_000)[0] == 400
    assert small.memory - before < 4 * HELD_BYTES
    answer = stalled[0].recv(2**16)
    assert answer.startswith(b"HTTP/1.1 429")
    assert b"retry-after: 1\r\n" in answer
    stalled[0].sendall(b"a" * 500_000 + b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert stalled[0].recv(2**16).startswith(b"HTTP/1.1 200")
    for each in stalled:
        each.close()
    wait_for("what they held is free", lambda: small.ask(PREDICT, b"a" * BODY_BYTES)[0] == 400)


@pytest.mark.parametrize("number", [connections.AHEAD, 10 * connections.AHEAD])
def test_requests_ahead_of_their_answers_are_answered_in_order_up_to_a_number(small, number):
    one = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    answer = rest(small.connect(one * number))
    assert connections.AHEAD <= answer.count(b"HTTP/1.1 200 ") <= connections.AHEAD + 1
    assert answer.count(b"HTTP/1.1 ") == answer.count(b"ok\n")


def test_what_cannot_be_read_is_refused_after_the_answers_to_what_came_before(small):
    one = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    assert rest(small.connect(one + b"\0nonsense")).count(b"HTTP/1.1 200 ") == 1
    for bad in (b"\0nonsense", b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", CHUNKED + b"zz\r\n"):
        head, _, body = rest(small.connect(bad)).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 400")
        assert list(json.loads(body)) == ["error"]


def test_a_body_that_is_too_large_is_refused_in_a_way_that_its_client_reads(small):
    for _ in range(5):
        status, sentence = small.ask(PREDICT, b"a" * (BODY_BYTES + 1))
        assert (status, "send at most 3,000,000" in sentence) == (413, True)


def many(value: str, number: int) -> bytes:
    return f'{{"instances": [{",".join([value] * number)}]}}'.encode()


KEYS = ",".join(f'"{number}": 1' for number in range(150_000))
BOMBS = {
    "numbers": many("1", 1_400_000),
    "objects": many("{}", 900_000),
    "lists": many("[]", 900_000),
    "texts": many('""', 900_000),
    "keys": f"{{{KEYS}}}".encode(),
    "nested": b'{"a":' + b"[" * 150_000,
    "behind a text": b'{"\\\\\\"[{": "\\\\", ' + many("{}", 150_000)[1:],
}


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS)
def test_json_that_would_take_far_more_memory_than_its_bytes_is_not_decoded(small, bomb):
    assert len(bomb) < BODY_BYTES
    before = small.memory
    status, sentence = small.ask(PREDICT, bomb)
    assert (status, "1,048,576 values, or 100,000 texts" in sentence) == (413, True)
    assert small.memory - before < 20_000_000


def test_signs_inside_texts_are_no_values(small):
    for text in ('[{",\\' * 200_000, '"' * 400_000, "\\" * 400_000, '\\",' * 300_000):
        assert small.ask(PREDICT, json.dumps({"instances": [text]}).encode())[0] == 404


def test_nothing_of_all_this_left_a_traceback_or_a_line_for_each_request(small):
    assert small.count(500) == 0
    assert len(small.errors.read_text().splitlines()) == 1
