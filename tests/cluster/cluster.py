"""The parts of docker/compose.yaml as processes of this machine, each in a home of its own."""

import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from signal import SIGCONT, SIGKILL, SIGSTOP
from typing import Any

import httpx

from tests.cluster.compose import ROOT, SERVICES, filled
from tests.dags.conftest import PATIENCE, clean_environment, end_session, processes_of, tail, wait_for


@dataclass
class Cluster:
    """What runs, by name, and where each address of compose.yaml is on this machine.

    `variables` are set for every part, over those of compose.yaml. `api` is Airflow's REST API.
    """

    folder: Path
    addresses: dict[str, str]
    secrets: dict[str, str] = field(repr=False)
    variables: dict[str, str] = field(default_factory=dict)
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    api: httpx.Client = field(default_factory=lambda: httpx.Client(timeout=30 * PATIENCE, trust_env=False), repr=False)

    def here(self, text: str, home: Path) -> str:
        """A text of compose.yaml with its secrets, this machine's addresses, and this part's home."""
        text = filled(text, self.secrets).replace("/opt/tagger", str(home))
        for there, here in self.addresses.items():
            text = text.replace(there, here)
        return text

    def command(self, service: str, name: str) -> list[str]:
        return [self.here(word, self.folder / name) for word in SERVICES[service]["command"]]

    def environment(self, service: str, name: str) -> dict[str, str]:
        """What the service has in its container, and nothing of this process's that it would not have there."""
        home = self.folder / name
        own = {key: self.here(value, home) for key, value in SERVICES[service].get("environment", {}).items()}
        if "AIRFLOW__API__HOST" in own:
            host, port = self.addresses["api-server:8080"].split(":")
            own |= {"AIRFLOW__API__HOST": host, "AIRFLOW__API__PORT": port}
        outside = {key: value for key, value in clean_environment().items() if not key.startswith("AWS_")}
        machine = {"AIRFLOW_HOME": str(home), "HOSTNAME": name, "TMPDIR": str(home / "tmp")}
        return outside | own | machine | self.variables

    def start(self, service: str, name: str = "", options: Sequence[str] = (), **variables: str) -> None:
        """Start a service's command in a home of its own, which holds the project's files as the image does."""
        name = name or service
        home = self.folder / name
        for folder in (home / "tmp", home / "auth"):
            folder.mkdir(parents=True)
        shutil.copy(ROOT / "airflow.cfg", home)
        shutil.copytree(ROOT / "dags", home / "dags", ignore=shutil.ignore_patterns("__pycache__"))
        self.spawn(name, [*self.command(service, name), *options], home, self.environment(service, name) | variables)

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
        command = ["sh", "-c", *words] if kind == "CMD-SHELL" else words
        home = self.folder / name
        self.spawn(f"{name}.health", [self.here(w, home) for w in command], home, self.environment(service, name))
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
