"""Whole runs of Airflow with secrets planted in them, after which every byte they left is searched."""

import base64
import json
import re
import secrets
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from subprocess import CompletedProcess
from urllib.parse import quote, quote_plus

import pyarrow as pa
import pytest
from pyarrow import csv

from pipeline.registry.registry import Registry
from pipeline.sources import sample
from pipeline.store.objects import Store
from tests.dags.conftest import DAG_ID, Airflow, free_ports


def planted() -> str:
    """A secret no other text holds, with characters that URLs and base64 write otherwise."""
    return f"{secrets.token_hex(8)}/+= &{secrets.token_hex(8)}"


def forms(secret: str) -> list[bytes]:
    """The secret, and what of it can be seen where it stands in a URL, in JSON or anywhere in base64."""
    plain = [secret, quote(secret), quote(secret, safe=""), quote_plus(secret), secret.replace("/", r"\/")]
    shifted = [base64.b64encode(bytes(at) + secret.encode()).decode() for at in range(3)]
    inner = [text[4 * bool(at) : len(text) // 4 * 4 - 4] for at, text in enumerate(shifted)]
    urlsafe = [text.replace("+", "-").replace("/", "_") for text in inner]
    return [text.encode() for text in {*plain, *inner, *urlsafe}]


def found(texts: dict[str, bytes], *hidden: str) -> list[str]:
    """The names of the texts that hold one of the secrets in any form."""
    return sorted({name for name, text in texts.items() for secret in hidden for f in forms(secret) if f in text})


def left_by(airflow: Airflow, *calls: CompletedProcess[str]) -> dict[str, bytes]:
    """Every file of the home, among them logs, database and temporary files, and what the calls printed."""
    files = {str(path): path.read_bytes() for path in airflow.home.rglob("*") if path.is_file()}
    return files | {f"output {number}": call.stdout.encode() for number, call in enumerate(calls)}


@dataclass(frozen=True)
class Keys:
    """A pair that opens S3. The key has only the letters that S3's own have; moto accepts any pair."""

    key: str = field(default_factory=lambda: f"AKIA{secrets.token_hex(8).upper()}")
    secret: str = field(default_factory=planted)


OF_STORE, OF_SOURCE = Keys(), Keys()
"""Given by Airflow's connection, and by the environment."""

SECRETS = (OF_STORE.secret, OF_SOURCE.secret)
HIDDEN = (OF_STORE.key, OF_SOURCE.key, *SECRETS)


def connection(url: str, keys: Keys) -> str:
    extra = {"endpoint_url": url, "region_name": "us-east-1"}
    return json.dumps({"conn_type": "aws", "login": keys.key, "password": keys.secret, "extra": extra})


@pytest.fixture(scope="module")
def airflow(new_airflow: Callable[..., Airflow], s3: dict[str, str]) -> Airflow:
    """Store and source on S3, and temporary files where they can be searched."""
    with Store("s3://stores").fs.open("stores/posts.csv", "wb") as file:
        csv.write_csv(pa.Table.from_batches(sample.blocks(2000, 1)), file)
    variables = s3 | {
        "AIRFLOW_CONN_OURS": connection(s3["AWS_ENDPOINT_URL"], OF_STORE),
        "AWS_ACCESS_KEY_ID": OF_SOURCE.key,
        "AWS_SECRET_ACCESS_KEY": OF_SOURCE.secret,
        "AWS_MAX_ATTEMPTS": "1",
        "TAGGER_STORE": "s3://stores/secrets",
        "TAGGER_STORE_CONNECTION": "ours",
        "TAGGER_SOURCE": "s3://stores/posts.csv",
        "TAGGER_TAG_COLUMN": "tag",
    }
    made = new_airflow(**variables)
    made.environment["TMPDIR"] = str(made.home / "tmp")
    (made.home / "tmp").mkdir()
    return made


@pytest.fixture
def refusing() -> Iterator[tuple[str, set[str]]]:
    """An S3 server that refuses everybody, and tells about it as much as Amazon's; the keys that it was shown."""
    shown = set[str]()

    class Refuses(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"  # which answers a client that asks before it sends a body

        def do_GET(self) -> None:
            [key] = re.findall("Credential=([^/]+)/", self.headers["Authorization"])
            shown.add(key)
            said = f"<Code>SignatureDoesNotMatch</Code><Message>No.</Message><AWSAccessKeyId>{key}</AWSAccessKeyId>"
            answer = b"" if self.command == "HEAD" else f"<Error>{said}</Error>".encode()
            # Unread, what was sent would make the end of the connection look like its loss.
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(403)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        do_HEAD = do_PUT = do_POST = do_GET

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Refuses) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", shown
        server.shutdown()


@pytest.mark.parametrize("form", [str, quote, lambda text: base64.b64encode(f"user:{text}!".encode()).decode()])
def test_the_search_finds_what_is_there(tmp_path, form):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "log").write_text(f"before {form(OF_STORE.secret)} after")
    assert found(left_by(Airflow(tmp_path, {})), *HIDDEN) == [str(tmp_path / "deep" / "log")]


def test_a_whole_run_leaves_no_secret_anywhere(airflow):
    done = airflow("dags", "test", DAG_ID)
    assert done.returncode == 0, done.stdout
    files = left_by(airflow, done)
    assert {"airflow.db", "airflow.cfg"} <= {Path(name).name for name in files}
    store = Store("s3://stores/secrets")
    objects = store.fs.cat(store.fs.find("stores/secrets"))
    assert [name for name in objects if name.endswith("/run.json")]
    assert Registry(store).live()
    assert found(files | objects, *HIDDEN) == []


def test_a_refusal_by_the_store_shows_no_secret(airflow, refusing):
    url, shown = refusing
    done = airflow("tasks", "test", DAG_ID, "ingest", "2026-01-05", AIRFLOW_CONN_OURS=connection(url, OF_STORE))
    assert "store: s3://stores/secrets/" in done.stdout, done.stdout
    assert "give this user permission to read and write it" in done.stdout
    assert shown == {OF_STORE.key}, "the connection's key is the one used"
    assert found(left_by(airflow, done), *HIDDEN) == []


def test_a_store_that_is_gone_shows_no_secret_in_the_most_detailed_log(airflow):
    """There the clients' libraries show the key, as each request does."""
    gone = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{free_ports(1)[0]}", "TAGGER_STORE_CONNECTION": "none"}
    detailed = {"AIRFLOW__LOGGING__LOGGING_LEVEL": "DEBUG"}
    done = airflow.in_a_new_process("tasks", "test", DAG_ID, "ingest", "2026-01-05", **gone, **detailed)
    assert "store: s3://stores/secrets/" in done.stdout, done.stdout
    assert "trying again can help" in done.stdout
    assert found(left_by(airflow, done), OF_SOURCE.key) == ["output 0"], "the log is not as detailed as it should be"
    assert found(left_by(airflow, done), *SECRETS) == []
