"""A client for http(s) that goes only where an allow-list lets it, whatever redirects and name servers say."""

import socket
from collections.abc import Iterable
from typing import Any

import httpcore
import httpx

from pipeline.errors import BadInput
from pipeline.source_policy import SETTING, checked, reachable


def client(allowed: tuple[str, ...], timeout: httpx.Timeout) -> httpx.Client:
    """A client whose requests, redirects too, raise BadInput where the URL or the address behind it is not allowed.

    It takes no proxy from the environment: a proxy would look the name up again, out of sight.
    """

    def check(request: httpx.Request) -> None:
        checked(str(request.url), allowed)

    hooks: dict[str, list[Any]] = {"request": [check]}
    return httpx.Client(transport=_Transport(allowed), event_hooks=hooks, timeout=timeout, follow_redirects=True)


class _Transport(httpx.HTTPTransport):
    def __init__(self, allowed: tuple[str, ...]) -> None:
        super().__init__()
        # httpx has no argument for httpcore's network backend.
        self._pool = httpcore.ConnectionPool(ssl_context=httpx.create_ssl_context(), network_backend=_Backend(allowed))


class _Backend(httpcore.SyncBackend):
    """Connects to the addresses that it checked, not to a name: the name's next answer may be another.

    TLS and the Host header keep the name, which httpcore hands on by itself.
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
                f"{host} is refused because its address is not one of the public internet; ask the operator to add the "
                f"address itself to {SETTING}, as http://ADDRESS:{port}/"
            )
        for address in addresses[:-1]:
            try:
                return super().connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                continue
        return super().connect_tcp(addresses[-1], port, timeout, local_address, socket_options)


def _resolved(host: str, port: int) -> list[str]:
    """Every address of the host, each once; httpcore.ConnectError where it has none."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise httpcore.ConnectError(str(error)) from error
    return list(dict.fromkeys(str(address[0]) for *_, address in found))
