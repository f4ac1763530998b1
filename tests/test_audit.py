"""`tools/audit.py` as `make lint` starts it, against services on this machine that speak as the real ones do."""

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tools import images
from tools.audit import accepted

ROOT = Path(__file__).parents[1]
ROWS = accepted((ROOT / "SECURITY.md").read_text())
LISTED = ROWS[0]
UV = shutil.which("uv") or shutil.which(ROOT / ".uv" / "bin" / "uv")

Audit = Callable[..., subprocess.CompletedProcess[str]]


def advisory(name: str, package: str) -> dict:
    """One advisory as https://ossf.github.io/osv-schema/ has it."""
    events = [{"introduced": "0"}, {"fixed": "99.0"}]
    affected = [
        {"package": {"name": package, "ecosystem": "PyPI"}, "ranges": [{"type": "ECOSYSTEM", "events": events}]}
    ]
    return {"schema_version": "1.6.0", "id": f"PYSEC-{package}", "aliases": [name], "summary": "", "affected": affected}


class Services(BaseHTTPRequestHandler):
    """OSV's query and a package index.

    `known` has an advisory's id by package, `former` one that no version is asked about any more, and `yanked` the
    reason by package.
    """

    known: dict[str, str]
    former: dict[str, str]
    yanked: dict[str, str]

    def do_POST(self) -> None:
        query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        asked = query["package"]["name"]
        name = self.known.get(asked) or (None if "version" in query else self.former.get(asked))
        self.answer({"vulns": [advisory(name, asked)]} if name else {})

    def do_GET(self) -> None:
        if self.path.endswith(".metadata"):
            package, version, *_ = self.path.rsplit("/", 1)[-1].split("-")
            self.answer(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
            return
        package = self.path.strip("/")
        wheel = f"{package}-1.0-py3-none-any.whl"
        file = {"filename": wheel, "url": f"/files/{wheel}", "hashes": {}, "core-metadata": True}
        self.answer({"name": package, "files": [file | {"yanked": self.yanked.get(package, False)}]})

    def answer(self, body: object) -> None:
        data = (body if isinstance(body, str) else json.dumps(body)).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/vnd.pypi.simple.v1+json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def audit(tmp_path: Path) -> Iterator[Audit]:
    """The audit of two pinned packages by services that know what is given."""
    if not UV:
        pytest.skip("needs uv, which `make install` fetches")
    handler = type("Given", (Services,), {"known": {}, "former": {}, "yanked": {}})
    lock = tmp_path / "requirements.lock"
    lock.write_text("first==1.0\nsecond==1.0\n")

    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/"

        def run(service: str = url, options: Sequence[str] = (), **known: dict) -> subprocess.CompletedProcess[str]:
            for name, value in known.items():
                setattr(handler, name, value)
            program = [sys.executable, str(ROOT / "tools" / "audit.py")]
            return subprocess.run(
                [*program, "--lock", str(lock), "--osv-url", service, "--uv", str(UV), *options],
                env=os.environ | {"UV_DEFAULT_INDEX": url, "UV_CACHE_DIR": str(tmp_path / "cache"), "no_proxy": "*"},
                capture_output=True,
                text=True,
                check=False,
            )

        yield run
        server.shutdown()


def test_what_is_listed_is_passed_over(audit):
    done = audit(known={LISTED.package: LISTED.advisory, "first": LISTED.advisory})
    assert (done.returncode, done.stderr) == (0, "")
    assert "audit: 2 of 2 packages were audited" in done.stdout


def test_an_unlisted_advisory_is_red(audit):
    done = audit(known={LISTED.package: LISTED.advisory, "second": "CVE-1999-0001"})
    assert done.returncode == 1
    assert done.stderr == (
        "audit: second 1.0: PYSEC-second (CVE-1999-0001), fixed in 99.0; upgrade, or list it in SECURITY.md\n"
    )


@pytest.mark.parametrize("service", ["knows nothing", "is not there"])
def test_where_nothing_can_be_looked_up_nothing_is_said_to_be_clean(audit, service):
    closed = {"service": "http://127.0.0.1:9/"} if service == "is not there" else {}
    done = audit(known={"second": "CVE-1999-0001"}, **closed)
    assert (done.returncode, done.stderr) == (0, "")
    packages, compared, looked_up = done.stdout.splitlines()
    assert compared == "audit: 5 images were compared with the table in SECURITY.md"
    assert looked_up.startswith("audit: NOT LOOKED UP at http://127.0.0.1")
    assert packages.startswith("audit: NOTHING WAS AUDITED, because no advisory service could be asked")


def test_a_yanked_release_is_red(audit):
    done = audit(known={LISTED.package: LISTED.advisory}, yanked={"second": "it eats files"})
    assert done.returncode == 1
    assert done.stderr == 'audit: `second==1.0` is yanked (reason: "it eats files")\n'


DOCKER = ROOT / "docker"
IMAGES = list(images.images(DOCKER / "compose.yaml", DOCKER / "Dockerfile"))
MINIMUMS = images.minimums((ROOT / "SECURITY.md").read_text())


@pytest.mark.parametrize(
    ("former", "image", "says"),
    [
        ("redis:7.4.11-bookworm", "redis:7.4.5-bookworm", "older than 7.4.11, which mends"),
        ("redis:7.4.11-bookworm", "redis:7.4.10", "older than 7.4.11, which mends"),
        ("redis:7.4.11-bookworm", "docker.io:443/library/redis:7.4.11", "no row for docker.io:443/library/redis"),
        ("redis:7.4.11-bookworm", "redis:latest", "has no exact version; name one from 7.4.11 on"),
        ("redis:7.4.11-bookworm", "redis", "has no exact version"),
        ("redis:7.4.11-bookworm", "redis:7.4", "has no exact version"),
        ("redis:7.4.11-bookworm", f"redis@sha256:{'0' * 64}", "has no exact version"),
        ("redis:7.4.11-bookworm", "redis:8.0.3-bookworm", "row is about 7.4.11 and later of its series"),
        ("postgres:17.12-bookworm", "postgres:17.6-bookworm", "older than 17.12, which mends CVE-2026-6460"),
        ("postgres:17.12-bookworm", "postgres:18.1", "row is about 17.12 and later of its series"),
        ("python:3.11.16-slim-bookworm", "python:3.11.14-slim-bookworm", "older than 3.11.15"),
        ("python:3.11.16-slim-bookworm", "--platform=linux/amd64 python:3.11", "has no exact version"),
        ("versity/versitygw:v1.10.0", "minio/minio:RELEASE.2025-09-07T16-13-09Z", "has no row for minio/minio"),
        ("versity/versitygw:v1.10.0", "ghcr.io/versity/versitygw:v1.10.0", "no row for ghcr.io/versity/versitygw"),
        ("--from=tagger", "--from=busybox:1.37.0", "has no row for busybox"),
    ],
)
def test_an_image_that_the_table_does_not_allow_is_red(audit, tmp_path, former, image, says):
    options = []
    for option, name in (("--compose", "compose.yaml"), ("--dockerfile", "Dockerfile")):
        text = (DOCKER / name).read_text()
        (tmp_path / name).write_text(text.replace(former, image))
        options += [option, str(tmp_path / name)]
    done = audit(options=options, known={LISTED.package: LISTED.advisory})
    assert done.returncode == 1
    assert done.stderr.startswith(f"audit: {image.removeprefix('--platform=linux/amd64 ').removeprefix('--from=')}: ")
    assert says in done.stderr
    assert done.stderr.count("\n") == 1


def test_an_image_of_a_version_that_the_table_allows_is_not_red():
    allowed = ["redis:7.4.11", f"redis:7.4.12-alpine@sha256:{'0' * 64}", "postgres:17.100", "versity/versitygw:v1.10.1"]
    assert [images.fault(image, MINIMUMS) for image in [*IMAGES, *allowed]] == [None] * 9


def test_every_row_is_of_an_image_that_is_used():
    assert {image.partition(":")[0] for image in IMAGES} == set(MINIMUMS)


def test_an_advisory_that_the_service_has_for_an_image_is_red(audit):
    done = audit(known={LISTED.package: LISTED.advisory, "redis": "CVE-2025-49844"})
    assert done.returncode == 1
    assert done.stderr == "audit: redis:7.4.11-bookworm: CVE-2025-49844, PYSEC-redis; take a newer one\n"


def test_a_service_that_knows_an_images_former_advisories_only_says_that_it_is_clean(audit):
    done = audit(known={LISTED.package: LISTED.advisory}, former={"redis": "CVE-2025-49844"})
    assert (done.returncode, done.stderr) == (0, "")
    [line] = [line for line in done.stdout.splitlines() if "NOT LOOKED UP" in line]
    assert "redis" not in line
    assert "postgres:17.12-bookworm" in line


def test_each_listed_advisory_is_of_a_release_that_is_pinned():
    """A row outlives its release otherwise, and hides the advisory should it come back."""
    lock = (ROOT / "requirements.lock").read_text()
    assert ROWS
    assert [row for row in ROWS if f"\n{row.package}=={row.version} " not in lock] == []
    assert len({row.advisory for row in ROWS}) == len(ROWS)
    rows = [line for line in (ROOT / "SECURITY.md").read_text().splitlines() if line.startswith(("| CVE", "| GHSA"))]
    assert len(rows) == len(ROWS), "a row that the audit cannot read"
