"""A `tagger serve` of its own for the tests, on a store with two published versions."""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import httpx
import pytest

from pipeline.registry.registry import Registry
from pipeline.run.runner import run_stage
from pipeline.store.objects import Store
from pipeline.store.runs import Run
from tests.conftest import Once, free_port
from tests.dags.conftest import PATIENCE
from tests.dags.conftest import wait_for as patiently

MODEL = "/v1/models/stackoverflow_tagger"
SECONDS = 120
"""How long a wait may take on a slow machine."""


@dataclass(frozen=True)
class Serving:
    """A running `tagger serve`."""

    store: Store
    grpc: str
    process: subprocess.Popen[str]
    client: httpx.Client = field(repr=False)
    output: Path
    errors: Path

    @property
    def registry(self) -> Registry:
        return Registry(self.store)

    def states(self) -> dict[int, dict]:
        """What the server says of each version."""
        found = self.client.get(MODEL).json()["model_version_status"]
        return {int(each["version"]): each for each in found}

    def answers(self, version: int) -> bool:
        return self.states().get(version, {}).get("state") == "AVAILABLE"


wait_for = partial(patiently, seconds=SECONDS / PATIENCE, otherwise=str)


@contextmanager
def serving(store: Store, folder: Path, *options: str, **variables: str) -> Iterator[Serving]:
    """Start `tagger serve`, and end it as an operator would."""
    http, grpc = (str(free_port()) for _ in range(2))
    tagger = Path(sys.executable).with_name("tagger")
    command = [tagger, "serve", "--store", store.url, "--port", http, "--grpc-port", grpc]
    output, errors = folder / "output", folder / "errors"
    with output.open("w") as out, errors.open("w") as err:
        process = subprocess.Popen(
            [*command, *options], stdout=out, stderr=err, text=True, env=os.environ | variables, start_new_session=True
        )
    port = variables.get("AIP_HTTP_PORT", http)
    client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=SECONDS, trust_env=False)
    try:
        wait_for("the server answers", lambda: _alive(client, process, errors))
        yield Serving(store, f"127.0.0.1:{grpc}", process, client, output, errors)
    finally:
        client.close()
        process.terminate()
        try:
            process.wait(SECONDS)
        finally:
            process.kill()


def _alive(client: httpx.Client, process: subprocess.Popen[str], errors: Path) -> bool:
    assert process.poll() is None, errors.read_text()
    try:
        return client.get("/healthz").is_success
    except httpx.TransportError:
        return False


@pytest.fixture(scope="module")
def served(finished_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """A server of a copy of the finished run's store."""
    folder = tmp_path_factory.mktemp("served")
    shutil.copytree(finished_run.store.url, folder / "store")
    with serving(Store(str(folder / "store")), folder) as server:
        yield server


@pytest.fixture
def two_versions(once: Once, two_runs: Store, tmp_path: Path) -> Store:
    """A copy of a store with two published versions, the first of 20 tags and the second, which is live."""

    def make(folder: Path) -> None:
        shutil.copytree(two_runs.url, folder / "store")
        run_stage("export", Run(Store(str(folder / "store")), "second"))

    shutil.copytree(once("two_versions", make) / "store", tmp_path / "store")
    return Store(str(tmp_path / "store"))


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield taken.getsockname()[1]


@pytest.fixture
def tagger() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs `tagger` to its end."""
    program = Path(sys.executable).with_name("tagger")
    return lambda *options: subprocess.run(
        [program, *map(str, options)], capture_output=True, text=True, timeout=SECONDS, check=False
    )
