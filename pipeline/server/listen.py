"""Where the server listens and who may ask it."""

import os
import re
import socket
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any, TextIO

from pipeline.errors import BadInput
from pipeline.server.errors import Refused

HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^\s:/@\[\]\\?#]+)(:\d*)?", re.IGNORECASE)
"""The value of a header Host: a name or an address, and perhaps a port."""

ROUTE = re.compile(r"(/[A-Za-z0-9._~!$&'()*+,;=:@-]+)+/?|/")
"""A path as Vertex AI's variables give it."""

EVERYWHERE = "0.0.0.0"  # noqa: S104 - used where a platform stands in front


class Hosts:
    """The names by which a server of this machine only is asked, so that no other site's page can ask it.

    Such a page lets its own name lead to 127.0.0.1 (DNS rebinding), which the header Host tells, or
    sends a form, which Origin tells. A name without a dot is nobody's in the public DNS: it may be
    one of this network, and is answered, too.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self.names = sorted({name.lower() for name in names})

    def refuse_misled(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Raise Refused where a request was sent to another name, 421, or by a page of another site, 403."""
        hosts = [value.decode("latin-1") for name, value in headers if name == b"host"]
        for host in hosts:
            name = _host_name(host)
            if name is None or (name not in self.names and ("." in name or ":" in name)):
                raise Refused(
                    421,
                    f"this server answers as {', '.join(self.names)}, not as {host[:100]!r}: ask it by one of these "
                    "names, or start it with --allow-host",
                )
        for origin in (value.decode("latin-1") for name, value in headers if name == b"origin"):
            authority = origin.partition("://")[2]
            if authority not in hosts and _host_name(authority) not in self.names:
                raise Refused(
                    403, f"a page of {origin[:100]!r} may not ask this server: start it with --allow-host if it may"
                )


@dataclass(frozen=True)
class Listen:
    """Addresses, routes of Vertex AI, and the token that clients must send. gRPC is off where its port is None."""

    host: str = "127.0.0.1"
    port: int = 8501
    grpc_port: int | None = 8500
    token: str | None = field(default=None, repr=False)
    health_route: str | None = None
    predict_route: str | None = None
    access_log: TextIO | None = sys.stdout
    keep_alive_seconds: int = 75
    receive_seconds: int = 30
    allowed_hosts: tuple[str, ...] = ()

    @classmethod
    def of(cls, environ: Mapping[str, str], **values: Any) -> "Listen":
        """By these values, or by Vertex AI's variables, whose platform asks for credentials itself.

        https://cloud.google.com/vertex-ai/docs/predictions/custom-container-requirements

        Raises BadInput where others than this machine could ask without a token, or where a variable makes no sense.
        """
        routes = {
            "health_route": _route(environ, "AIP_HEALTH_ROUTE"),
            "predict_route": _route(environ, "AIP_PREDICT_ROUTE"),
        }
        if port := environ.get("AIP_HTTP_PORT"):
            if not re.fullmatch("[0-9]{1,5}", port) or not 1 <= int(port) <= 65535:
                raise BadInput(f"AIP_HTTP_PORT={port} is not a port: write a number from 1 to 65535")
            return cls(**values | routes | {"host": EVERYWHERE, "port": int(port), "grpc_port": None})
        listen = cls(**values | routes)
        if listen.token is None and not _is_loopback(listen.host):
            raise BadInput(
                f"--host {listen.host} lets other machines ask: give a --token-file, whose token they must send, or "
                "listen on 127.0.0.1"
            )
        return listen

    @property
    def hosts(self) -> Hosts | None:
        """The names by which the server may be asked; None where a token, or a platform in front, decides who may."""
        if self.token is not None or not _is_loopback(self.host):
            return None
        return Hosts({"localhost", "127.0.0.1", "::1", self.host, *self.allowed_hosts})

    @property
    def url(self) -> str:
        """The address of the page."""
        return f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}/"

    def bound(self) -> socket.socket:
        """A socket on which to answer HTTP; BadInput where the port is taken, or the address is not this machine's."""
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)[0]
            bound = socket.socket(family, kind, protocol)
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(address)
        except OSError as error:
            why = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
            raise BadInput(
                f"cannot listen on port {self.port} of {self.host} ({why}): choose another with --port or --host"
            ) from None
        return bound


def _host_name(value: str) -> str | None:
    """The name or address of a header Host, without the port; None where it has none."""
    match = HOST.fullmatch(value.strip())
    return match[1].strip("[]").lower() if match else None


def _route(environ: Mapping[str, str], variable: str) -> str | None:
    """The path that a variable of Vertex AI gives. Raises BadInput where it is not a path."""
    path = environ.get(variable) or None
    if path and not ROUTE.fullmatch(path):
        raise BadInput(f"{variable}={path} is not a path: write one such as /predict")
    return path


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
