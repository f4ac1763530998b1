"""An Airflow of its own for the tests: home, database and store in a temporary folder, secrets made at random."""

import base64
import json
import os
import secrets
import select
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from signal import SIGKILL, SIGTERM
from typing import TypeVar

import httpx
import psutil
import pytest
from playwright import sync_api as playwright
from playwright.sync_api import Page

from pipeline.store.objects import Store
from tests.conftest import Once, programs

ROOT = Path(__file__).parents[2]
DAG_ID = "stackoverflow_tagger"
WATCH_ID = "stackoverflow_tagger_watch"
GC_ID = "stackoverflow_tagger_gc"
TUNE_ID = "stackoverflow_tagger_tune"
SMALL = "sample://posts?rows=2000&seed=1"

PATIENCE = 4
"""How many times slower than an idle laptop a machine may be before a wait is given up."""

Found = TypeVar("Found")

playwright.expect.set_options(timeout=30_000 * PATIENCE)

in_the_browser = pytest.mark.needs("chromium")

FLAGS = "--no-sandbox --disable-gpu --disable-dev-shm-usage --disable-background-networking --no-proxy-server".split()


def clean_environment() -> dict[str, str]:
    """This process's environment without what would steer Airflow or the settings, and with `airflow` on the path."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW_", "TAGGER_"))}
    ours.pop("PYTHONDONTWRITEBYTECODE", None)  # packages left uncompiled make each task import TensorFlow for 17 s
    return ours | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


class Forks:
    """A process that has imported Airflow, whose forks run commands: see tests/dags/forking.py."""

    PARSE = ("airflow.dag_processing.dagbag", "airflow.models")
    """Modules to import for commands that read the DAG files."""

    COMMANDS = (
        *PARSE,
        "airflow.__main__",
        "airflow.cli.commands.dag_command",
        "airflow.cli.commands.task_command",
        "airflow.sdk.execution_time.supervisor",
        "airflow.sdk.execution_time.task_runner",
    )
    """Modules to import for `airflow tasks test` and `airflow dags test`."""

    def __init__(self, environment: dict[str, str], folder: Path, modules: tuple[str, ...]) -> None:
        self.folder, self._environment, self._count = folder, environment, 0
        self._process = subprocess.Popen(
            [sys.executable, Path(__file__).with_name("forking.py"), *modules],
            env=environment,
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )

    def __call__(
        self, command: tuple[str, ...], variables: dict[str, str], folder: Path, *, apart: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end; where not `apart`, output and errors are both in `stdout`."""
        assert self._process.stdin
        assert self._process.stdout
        self._count += 1
        output, errors = (self.folder / f"{self._count}.{name}" for name in ("output", "errors" if apart else "output"))
        job = {
            "command": command,
            "environment": self._environment | variables,
            "folder": str(folder),
            "output": str(output),
            "errors": str(errors),
        }
        self._process.stdin.write(json.dumps(job).encode() + b"\n")
        self._process.stdin.flush()
        answered, _, _ = select.select([self._process.stdout], [], [], LIMIT)
        assert answered, f"{command} has not ended in {LIMIT} s\n{tail(output)}"
        status = int(self._process.stdout.readline())
        said = [path.read_text() for path in dict.fromkeys((output, errors))]
        for path in {output, errors}:
            path.unlink()
        return subprocess.CompletedProcess(command, status, *said)

    def end(self) -> None:
        end_session(self._process)


LIMIT = 200 * PATIENCE
"""Seconds that a command may take."""


@dataclass(frozen=True)
class Airflow:
    """A home folder, and the environment in which `airflow` uses nothing else."""

    home: Path
    environment: dict[str, str] = field(repr=False)

    @property
    def store(self) -> Store:
        return Store(self.environment["TAGGER_STORE"])

    @cached_property
    def forks(self) -> Forks:
        """Made at the first command: its imports take as long as three commands."""
        return Forks(self.environment, self.home, Forks.COMMANDS)

    def __call__(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run `airflow` to its end; output and errors both in `stdout`."""
        return self.forks(arguments, variables, self.home, apart=False)

    def in_a_new_process(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """The same, also with variables that Airflow reads when it is imported."""
        return subprocess.run(
            ["airflow", *arguments],
            env=self.environment | variables,
            cwd=self.home,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=LIMIT,
            check=False,
        )

    def end(self) -> None:
        """End the process of the forks, if there is one."""
        if "forks" in vars(self):
            self.forks.end()


@cache
def database_of_make(home: Path) -> str:
    """Where `make airflow` has the server's database, with this folder as its home."""
    make = ["make", "--silent", "--eval", "database: ; @echo $$AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "database"]
    own = {name: value for name, value in clean_environment().items() if not name.startswith("MAKE")}
    done = subprocess.run(
        [*make, f"AIRFLOW_HOME={home}"], env=own, cwd=ROOT, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def airflow_in(home: Path, database: Path | None = None, /, **variables: str) -> Airflow:
    """A home as this checkout's: its airflow.cfg, dags and plugins, and a database: a copy of this, or a new one."""
    shutil.copy(ROOT / "airflow.cfg", home)
    for folder in ("dags", "plugins"):
        (home / folder).symlink_to(ROOT / folder)
    own = {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(32),
        "AIRFLOW__API__SECRET_KEY": secrets.token_hex(32),
        "AIRFLOW__CORE__FERNET_KEY": base64.urlsafe_b64encode(os.urandom(32)).decode(),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database_of_make(home),
        "TAGGER_STORE": str(home / "store"),
        "TAGGER_SOURCE": SMALL,
    }
    airflow = Airflow(home, clean_environment() | own | variables)
    if database:
        shutil.copy(database, home / "airflow.db")
    else:
        migrated = airflow.in_a_new_process("db", "migrate")
        assert migrated.returncode == 0, migrated.stdout
    return airflow


@pytest.fixture(scope="session")
def new_airflow(tmp_path_factory: pytest.TempPathFactory, once: Once) -> Iterator[Callable[..., Airflow]]:
    """Makes homes, each in a folder of its own, with a copy of one database of the present schema."""
    made: list[Airflow] = []

    def make(**variables: str) -> Airflow:
        database = once("database", airflow_in) / "airflow.db"
        made.append(airflow_in(tmp_path_factory.mktemp("airflow"), database, **variables))
        return made[-1]

    yield make
    for airflow in made:
        airflow.end()


def wait_for(what: str, look: Callable[[], Found | None], *, seconds: float, otherwise: Callable[[], str]) -> Found:
    """What `look` finds, once it finds something; where it never does, fail with what `otherwise` tells.

    `seconds` are an idle machine's.
    """
    seconds *= PATIENCE
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = look()
        if found:
            return found
        time.sleep(0.5)
    pytest.fail(f"{what}: not within {seconds:.0f} s\n{otherwise()}")


def tail(path: Path, lines: int = 40) -> str:
    text = path.read_text(errors="replace") if path.exists() else "(no such file)"
    return "\n".join([f"--- {path.name}", *text.splitlines()[-lines:]])


def free_ports(count: int) -> list[str]:
    """Ports that were free a moment ago, all different."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [str(each.getsockname()[1]) for each in sockets]
    for each in sockets:
        each.close()
    return ports


def servers() -> dict[str, str]:
    """The variables by which an `airflow standalone` listens here only, on ports of its own."""
    port, worker_logs, trigger_logs = free_ports(3)
    url = f"http://127.0.0.1:{port}"
    return {
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": port,
        "AIRFLOW__API__BASE_URL": url,
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
        "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": worker_logs,
        "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": trigger_logs,
    }


@dataclass(frozen=True)
class Server:
    """A running `airflow standalone`, and its REST API as the administrator sees it."""

    airflow: Airflow
    url: str
    log: Path
    user: str
    password: str = field(repr=False)
    api: httpx.Client = field(repr=False)

    def get(self, path: str, **query: str) -> dict:
        return self.api.get(path, params=query).raise_for_status().json()

    def logs(self) -> str:
        """The ends of every task's log and of the servers', for whoever reads a failure."""
        tasks = sorted(self.airflow.home.glob("logs/dag_id=*/**/*.log"), key=lambda path: path.stat().st_mtime)
        return "\n".join([tail(self.log), *(f"{path.parent.name}: {tail(path, 12)}" for path in tasks[-6:])])


@contextmanager
def standalone(airflow: Airflow) -> Iterator[Server]:
    """`airflow standalone`, ended with all it started."""
    url, log = airflow.environment["AIRFLOW__API__BASE_URL"], airflow.home / "standalone.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            ["airflow", "standalone"],
            env=airflow.environment,
            cwd=airflow.home,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield _ready(airflow, url, log, process)
    finally:
        end_session(process)


def _ready(airflow: Airflow, url: str, log: Path, process: subprocess.Popen[bytes]) -> Server:
    client = httpx.Client(base_url=url, timeout=30 * PATIENCE, trust_env=False)

    def healthy() -> bool:
        assert process.poll() is None, f"airflow standalone ended by itself\n{tail(log)}"
        try:
            health = client.get("/api/v2/monitor/health").json()
        except httpx.TransportError:
            return False
        return all(part["status"] == "healthy" for part in health.values())

    wait_for("airflow is healthy", healthy, seconds=120, otherwise=lambda: tail(log))
    passwords = airflow.home / "simple_auth_manager_passwords.json.generated"
    [user, password] = next(iter(json.loads(passwords.read_text()).items()))
    token = client.post("/auth/token", json={"username": user, "password": password}).json()["access_token"]
    client.base_url = f"{url}/api/v2"
    client.headers["Authorization"] = f"Bearer {token}"
    return Server(airflow, url, log, user, password, client)


@pytest.fixture(scope="module")
def window(server: Server) -> Iterator[Page]:
    """A browser window in which the administrator has logged in."""
    [chromium] = programs("chromium").values()
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=FLAGS)
        page = browser.new_page(viewport={"width": 1400, "height": 1000}, timezone_id="UTC")
        page.set_default_timeout(30_000 * PATIENCE)
        page.goto(server.url)
        page.locator("[name=username]").fill(server.user)
        page.locator("[name=password]").fill(server.password)
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_url(f"{server.url}/")
        yield page
        browser.close()


@pytest.fixture
def page(window: Page) -> Iterator[Page]:
    """The window, which afterwards shows nothing: a page of Airflow's that is looked at takes a core to itself."""
    yield window
    window.goto("about:blank")


@pytest.fixture(scope="module")
def picture(window: Page, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], None]:
    """Saves what the window shows; in the folder SCREENSHOTS, where that is set, else in one that is thrown away."""
    folder = Path(os.environ.get("SCREENSHOTS") or tmp_path_factory.mktemp("screenshots"))
    folder.mkdir(parents=True, exist_ok=True)
    return lambda name: window.screenshot(path=folder / f"{name}.png", animations="disabled") and None


def end_session(process: subprocess.Popen[bytes]) -> None:
    """Ask every process of the session to end, and kill those that do not."""
    for signal in (SIGTERM, SIGKILL):
        for pid in processes_of(process.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal)
        end = time.monotonic() + 10
        while time.monotonic() < end and (process.poll() is None or processes_of(process.pid)):
            time.sleep(0.2)


def processes_of(leader: int) -> list[int]:
    """The living processes of a session; a group would not do, as Airflow gives each task a group of its own."""
    found = list[int]()
    for process in psutil.process_iter():
        with suppress(ProcessLookupError, psutil.NoSuchProcess):
            if os.getsid(process.pid) == leader and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
    return found
