"""An HTTP client protected against server-side request forgery: it connects to allowed URLs and addresses only."""

import socket
from collections.abc import Iterable
from typing import Any

import httpcore
import httpx

from pipeline.errors import BadInput
from pipeline.source_policy import SETTING, checked, reachable


def client(allowed: tuple[str, ...], timeout: httpx.Timeout) -> httpx.Client:
    """Make a client that raises BadInput for a request or redirect to a URL or IP address that is not allowed.

    It uses no proxy of the environment: a proxy would resolve the name again, so the checked address would not count.
    """

    def check(request: httpx.Request) -> None:
        checked(str(request.url), allowed)

    hooks: dict[str, list[Any]] = {"request": [check]}
    return httpx.Client(transport=_Transport(allowed), event_hooks=hooks, timeout=timeout, follow_redirects=True)


class _Transport(httpx.HTTPTransport):
    """A transport whose connections are checked by _Backend."""

    def __init__(self, allowed: tuple[str, ...]) -> None:
        super().__init__()
        # httpx has no argument for httpcore's network backend.
        self._pool = httpcore.ConnectionPool(ssl_context=httpx.create_ssl_context(), network_backend=_Backend(allowed))


class _Backend(httpcore.SyncBackend):
    """Connects to the addresses that were checked, never to a name, which could resolve to another address next.

    TLS and the Host header still use the name, which httpcore passes on by itself.
    """

    def __init__(self, allowed: tuple[str, ...]) -> None:
        self._allowed = allowed

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        addresses = _resolved(host, port)
        if not all(reachable(address, port, self._allowed) for address in addresses):
            raise BadInput(
                f"{host} is refused because its IP address is not a public one: ask the operator to add the address "
                f"itself to {SETTING}, as http://ADDRESS:{port}/"
            )
        for address in addresses[:-1]:
            try:
                return super().connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                continue
        return super().connect_tcp(addresses[-1], port, timeout, local_address, socket_options)


def _resolved(host: str, port: int) -> list[str]:
    """Look up the host's IP addresses, each once; httpcore.ConnectError where it has none."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise httpcore.ConnectError(str(error)) from error
    return list(dict.fromkeys(str(address[0]) for *_, address in found))
