"""Where the server listens and who may ask it."""

import os
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any, TextIO

from pipeline.errors import BadInput

EVERYWHERE = "0.0.0.0"  # noqa: S104 - used where a platform stands in front


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

    @classmethod
    def of(cls, environ: Mapping[str, str], **values: Any) -> "Listen":
        """By these values, or by Vertex AI's variables, whose platform asks for credentials itself.

        https://cloud.google.com/vertex-ai/docs/predictions/custom-container-requirements

        Raises BadInput where others than this machine could ask without a token.
        """
        routes = {"health_route": environ.get("AIP_HEALTH_ROUTE"), "predict_route": environ.get("AIP_PREDICT_ROUTE")}
        if port := environ.get("AIP_HTTP_PORT"):
            if not port.isdigit():
                raise BadInput(f"AIP_HTTP_PORT={port} is no port: write a number")
            return cls(**values | routes | {"host": EVERYWHERE, "port": int(port), "grpc_port": None})
        found = cls(**values | routes)
        if found.token is None and not _is_loopback(found.host):
            raise BadInput(
                f"--host {found.host} lets other machines ask: give a --token-file, whose token they must send, or "
                "listen on 127.0.0.1"
            )
        return found

    @property
    def url(self) -> str:
        """The address of the page."""
        return f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}/"

    def bound(self) -> socket.socket:
        """A socket on which to answer HTTP; BadInput where the port is taken, or the address is not this machine's."""
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)[0]
            found = socket.socket(family, kind, protocol)
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            found.bind(address)
        except OSError as error:
            why = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
            raise BadInput(
                f"cannot listen on port {self.port} of {self.host} ({why}): choose another with --port or --host"
            ) from None
        return found


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
