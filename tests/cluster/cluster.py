"""The parts of docker/compose.yaml as processes of this machine, each in a home of its own."""

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from signal import SIGCONT, SIGKILL, SIGSTOP
from typing import Any

import httpx

from tests.cluster.compose import ROOT, SERVICES, filled, writable
from tests.dags.conftest import PATIENCE, clean_environment, end_session, processes_of, tail, wait_for

IMAGE = "/opt/tagger"
"""The folder in which our services work."""

READ_ONLY = """
mount --bind "$0" "$0"
while [ "$1" != -- ]; do mount --bind "$1" "$1"; shift; done
mount -o remount,bind,ro "$0"
mount -o remount,bind,ro /
cd "$0"
shift
exec "$@"
"""
"""Start the command after `--` in the folder $0 where only the folders before it may be written."""


def may_mount() -> bool:
    """Whether a program may be shown its files read-only: by root, unless in a container that forbids it."""
    try:
        tried = ["unshare", "--mount", "mount", "-o", "remount,bind,ro", "/"]
        return subprocess.run(tried, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


@dataclass
class Cluster:
    """What runs, by name, and where each address of compose.yaml is on this machine.

    `variables` are set for every part, over those of compose.yaml. `api` is Airflow's REST API. Where `read_only`, our
    services may write what they may in their containers, and nothing else.
    """

    folder: Path
    addresses: dict[str, str]
    secrets: dict[str, str] = field(repr=False)
    variables: dict[str, str] = field(default_factory=dict)
    read_only: bool = field(default_factory=may_mount)
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    api: httpx.Client = field(default_factory=lambda: httpx.Client(timeout=30 * PATIENCE, trust_env=False), repr=False)

    def place(self, path: str, name: str) -> Path:
        """Where a folder of a container is for the part of this name."""
        return self.folder / name / path.removeprefix(IMAGE).lstrip("/")

    def here(self, text: str, service: str, name: str) -> str:
        """A text of the service in compose.yaml with its secrets, this machine's addresses, and this part's folders."""
        folders = {path: str(self.place(path, name)) for path in (*writable(service), IMAGE)}
        places = folders | self.addresses
        return re.sub("|".join(map(re.escape, places)), lambda found: places[found[0]], filled(text, self.secrets))

    def command(self, service: str, name: str) -> list[str]:
        return [self.here(word, service, name) for word in SERVICES[service]["command"]]

    def environment(self, service: str, name: str) -> dict[str, str]:
        """What the service has in its container, and nothing of this process's that it would not have there."""
        home = self.folder / name
        own = {key: self.here(value, service, name) for key, value in SERVICES[service].get("environment", {}).items()}
        if "AIRFLOW__API__HOST" in own:
            host, port = self.addresses["api-server:8080"].split(":")
            own |= {"AIRFLOW__API__HOST": host, "AIRFLOW__API__PORT": port}
        outside = {key: value for key, value in clean_environment().items() if not key.startswith("AWS_")}
        image = {"AIRFLOW_HOME": str(home), "HOME": str(home)}
        machine = {"HOSTNAME": name, "TMPDIR": str(home / "tmp")}
        return outside | image | own | machine | self.variables

    def contained(self, service: str, name: str, command: Sequence[str]) -> list[str]:
        """The command, so that it may write what the service may in its container."""
        if not self.read_only:
            return list(command)
        folders = [str(self.place(path, name)) for path in writable(service)]
        return ["unshare", "--mount", "sh", "-euc", READ_ONLY, str(self.folder / name), *folders, "--", *command]

    def furnish(self, service: str, name: str) -> Path:
        """Make a home with the project's files as the image has them, and with the service's volumes."""
        home = self.folder / name
        for path in writable(service):
            self.place(path, name).mkdir(parents=True)
        shutil.copy(ROOT / "airflow.cfg", home)
        for part in ("dags", "plugins"):
            shutil.copytree(ROOT / part, home / part, ignore=shutil.ignore_patterns("__pycache__"))
        (home / "docker").mkdir()
        shutil.copy(ROOT / "docker" / "bring_models.py", home / "docker")
        return home

    def start(self, service: str, name: str = "", options: Sequence[str] = (), **variables: str) -> None:
        """Start a service's command in a home of its own."""
        name = name or service
        command = self.contained(service, name, [*self.command(service, name), *options])
        self.spawn(name, command, self.furnish(service, name), self.environment(service, name) | variables)

    def spawn(self, name: str, command: list[str], home: Path, environment: dict[str, str], **how: Any) -> None:
        """Start a program in a session of its own, by which all it starts is found again."""
        with self.log(name).open("w") as log:
            self.running[name] = subprocess.Popen(
                command, cwd=home, env=environment, stdout=log, stderr=log, start_new_session=True, **how
            )

    def finish(self, name: str) -> None:
        """Wait for a part that ends by itself, and well."""
        assert self.finished(name), tail(self.log(name))

    def finished(self, name: str) -> bool:
        """Wait for a part that ends by itself: whether it ended well."""
        ended = self.running[name].wait(240 * PATIENCE)
        del self.running[name]
        return ended == 0

    def check_health(self, service: str, name: str = "") -> str:
        """Start the service's health check where the service runs; what the check is called here."""
        name = name or service
        kind, *words = SERVICES[service]["healthcheck"]["test"]
        told = [self.here(word, service, name) for word in words]
        command = self.contained(service, name, ["sh", "-c", *told] if kind == "CMD-SHELL" else told)
        self.spawn(f"{name}.health", command, self.folder / name, self.environment(service, name))
        return f"{name}.health"

    def wait(self, what: str, look: Callable[[], Any], seconds: float) -> Any:
        """What `look` finds, as wait_for; a part that failed fails the test at once."""

        def alive() -> Any:
            failed = [name for name, process in self.running.items() if process.poll()]
            assert not failed, f"{failed[0]} ended by itself\n{tail(self.log(failed[0]))}"
            return look()

        return wait_for(what, alive, seconds=seconds, otherwise=self.logs)

    def log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def logs(self) -> str:
        """The ends of all logs, for whoever reads a failure."""
        tasks = sorted(self.folder.glob("*/logs/dag_id=*/**/*.log"), key=lambda path: path.stat().st_mtime)
        return "\n".join(tail(path, 20) for path in [*sorted(self.folder.glob("*.log")), *tasks[-4:]])

    def get(self, path: str) -> Any:
        return self.api.get(path).raise_for_status().json()

    def kill_if(self, name: str, doomed: Callable[[], Any]) -> Any:
        """Stop all processes of a part; kill them if `doomed` finds something now, else let them go on."""
        leader, stopped = self.running[name].pid, set[int]()
        while more := set(processes_of(leader)) - stopped:
            for pid in more:
                with suppress(ProcessLookupError):
                    os.kill(pid, SIGSTOP)
            stopped |= more
        found = doomed()
        for pid in stopped:
            with suppress(ProcessLookupError):
                os.kill(pid, SIGKILL if found else SIGCONT)
        if found:
            self.running.pop(name).wait(10 * PATIENCE)
        return found

    def end(self) -> None:
        """Kill everything, as nothing of it is kept; but let PostgreSQL give back the memory it shares."""
        postgres = self.running.pop("postgres", None)
        for process in self.running.values():
            while alive := processes_of(process.pid):
                for pid in alive:
                    with suppress(ProcessLookupError):
                        os.kill(pid, SIGKILL)
                process.poll()
        if postgres:
            end_session(postgres)
