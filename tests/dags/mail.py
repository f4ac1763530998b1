"""A mail server for the tests, which keeps what it is sent."""

import asyncore
import smtpd
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any


class MailServer(smtpd.SMTPServer):
    """Listens on a free port of this machine."""

    def __init__(self) -> None:
        self._channels: dict[int, Any] = {}
        super().__init__(("127.0.0.1", 0), None, map=self._channels, decode_data=False)
        self.mails: list[EmailMessage] = []

    @property
    def variables(self) -> dict[str, str]:
        """Airflow's default connection to this server, as environment variables."""
        address = f"smtp://127.0.0.1:{self.socket.getsockname()[1]}"
        query = "disable_tls=true&disable_ssl=true&from_email=airflow%40example.org"
        return {"AIRFLOW_CONN_SMTP_DEFAULT": f"{address}/?{query}"}

    @property
    def sentences(self) -> list[str]:
        """The subjects, in the order in which the mails came."""
        return [str(mail["subject"]) for mail in self.mails]

    def process_message(self, peer: Any, mailfrom: str, rcpttos: list[str], data: bytes, **_: Any) -> None:
        self.mails.append(message_from_bytes(data, _class=EmailMessage, policy=policy.default))

    def serve(self) -> None:
        while self._channels:
            asyncore.loop(timeout=0.1, map=self._channels, count=1)


@contextmanager
def mail_server() -> Iterator[MailServer]:
    server = MailServer()
    thread = threading.Thread(target=server.serve, daemon=True)
    thread.start()
    yield server
    asyncore.close_all(server._channels)
    thread.join(10)
