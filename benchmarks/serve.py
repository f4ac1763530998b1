"""How many posts a second `tagger serve` tags over HTTP, and whether it loses a request while the live version changes.

    python -m benchmarks.serve [--posts FILE] [--seconds 5] [--bentoml PYTHON] [--soak SECONDS]

The load is made by `hey` (https://github.com/rakyll/hey; Debian's package of that name), on the same machine. PYTHON is
that of an environment with BentoML and TensorFlow. A soak makes another version live every five seconds.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import pandas as pd
import psutil
from rich.console import Console
from rich.table import Table

from pipeline.published.model import PublishedModel
from pipeline.registry import model_cache
from pipeline.registry.registry import Registry
from pipeline.run.runner import run_stage
from pipeline.settings import Settings
from pipeline.stages.plan import STAGES
from pipeline.store.objects import Store
from pipeline.store.runs import Run
from tests.conftest import CREATED, REAL_POSTS, free_port

PREDICT = "/v1/models/stackoverflow_tagger:predict"
CLIENTS = (1, 8, 64)
PROMOTE_SECONDS, SAMPLE_SECONDS = 5, 10

BENTO = """
import os, bentoml, tensorflow as tf
@bentoml.service(traffic={"max_concurrency": 1000, "timeout": 60})
class Tagger:
    def __init__(self) -> None:
        self.loaded = tf.saved_model.load(os.environ["MODEL"])
    @bentoml.api(batchable=True, max_batch_size=64, max_latency_ms=1000)
    def predict(self, posts: list[str]) -> list[str]:
        answer = self.loaded.signatures["serving_default"](post=tf.constant(posts))
        return [tag.decode() for tag in answer["tag"].numpy()]
"""


@dataclass(frozen=True)
class Load:
    """What the clients of `hey` saw: requests a second, times in milliseconds, and answers by status."""

    per_second: float
    half: float
    slow: float
    statuses: dict[str, int]
    errors: int

    @property
    def lost(self) -> int:
        """Requests that were not answered with 200."""
        return self.errors + sum(count for status, count in self.statuses.items() if status != "200")


def load(url: str, body: Path, clients: int, seconds: float) -> Load:
    """Let so many clients send the same request again and again."""
    command = [
        "hey",
        "-z",
        f"{seconds:g}s",
        "-c",
        str(clients),
        "-m",
        "POST",
        "-T",
        "application/json",
        "-D",
        str(body),
        url,
    ]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    statuses = dict(re.findall(r"\[(\d{3})\]\s+(\d+) responses", said))
    errors = re.findall(r"^\s+\[(\d+)\]\s+\S", said.partition("Error distribution:")[2], re.MULTILINE)
    numbers = [re.search(pattern, said) for pattern in (r"Requests/sec:\s+(\S+)", r"50% in (\S+)", r"99% in (\S+)")]
    per_second, half, slow = (float(found[1]) if found else float("nan") for found in numbers)
    return Load(per_second, half * 1000, slow * 1000, {k: int(v) for k, v in statuses.items()}, sum(map(int, errors)))


def published(store: Store, posts: str) -> None:
    """Publish three versions: the article's settings, with two to four epochs."""
    for epochs in (2, 3, 4):
        run = Run(store, f"epochs{epochs}")
        settings = {"source": posts, "train_fraction": 0.5, "epochs": epochs, "max_regression": 1}
        run.begin(Settings.of(settings), CREATED.replace(day=epochs))
        for stage in STAGES:
            run_stage(stage, run)


@contextmanager
def server(store: Store, folder: Path) -> Iterator[tuple[str, psutil.Process]]:
    """`tagger serve` with its access log, which goes to a file."""
    port = free_port()
    command = [
        Path(sys.executable).with_name("tagger"),
        "serve",
        "--store",
        store.url,
        "--port",
        str(port),
        "--grpc-port",
        "0",
    ]
    with (folder / "access.log").open("w") as out, running(command, f"http://127.0.0.1:{port}/readyz", out) as process:
        yield f"http://127.0.0.1:{port}{PREDICT}", process


@contextmanager
def running(command: Sequence[object], ready: str, out: object, **variables: str) -> Iterator[psutil.Process]:
    """A server, once it is ready."""
    words = [str(word) for word in command]
    process = subprocess.Popen(words, stdout=out, stderr=subprocess.STDOUT, env=os.environ | variables)  # type: ignore[call-overload]
    try:
        for _ in range(600):
            if process.poll() is not None:
                raise SystemExit(f"{words[0]} ended by itself")
            try:
                if httpx.get(ready, trust_env=False).is_success:
                    break
            except httpx.TransportError:
                pass
            time.sleep(0.2)
        yield psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait()


def in_process(store: Store, texts: list[str], seconds: float) -> float:
    """Posts a second of the bare model in batches of 64, which is what a server cannot exceed by much."""
    with model_cache.opened(Registry(store), None) as folder:
        model = PublishedModel.open(folder)
        posts = [text.encode() for text in texts[:64]]
        model.answer(posts)
        started, count = time.perf_counter(), 0
        while time.perf_counter() - started < seconds:
            model.answer(posts)
            count += len(posts)
        return count / (time.perf_counter() - started)


@contextmanager
def bentoml(python: Path, store: Store, folder: Path) -> Iterator[str]:
    """BentoML with the same SavedModel, batching too."""
    (folder / "service.py").write_text(BENTO)
    port = free_port()
    command = [
        python,
        "-m",
        "bentoml",
        "serve",
        "service:Tagger",
        "--port",
        str(port),
        "--working-dir",
        str(folder),
    ]
    model = Path(store.url, Registry(store).published(None).path)
    with (
        (folder / "bentoml.log").open("w") as out,
        running(
            command,
            f"http://127.0.0.1:{port}/readyz",
            out,
            MODEL=str(model),
            PATH=f"{python.parent}:{os.environ['PATH']}",
        ),
    ):
        yield f"http://127.0.0.1:{port}/predict"


def table(store: Store, texts: list[str], folder: Path, seconds: float, peer: Path | None) -> Table:
    """Measure each number of clients and posts."""
    shown = Table("server", "clients", "posts a request", "requests/s", "posts/s", "half within", "99 % within", "lost")
    bodies = {}
    for count in (1, 100):
        bodies[count] = {key: folder / f"{key}{count}.json" for key in ("instances", "posts")}
        for key, path in bodies[count].items():
            path.write_text(json.dumps({key: texts[:count]}))

    def measure(name: str, url: str, key: str) -> None:
        for count in bodies:
            load(url, bodies[count][key], 8, 1)  # unmeasured
            for clients in CLIENTS:
                seen = load(url, bodies[count][key], clients, seconds)
                speeds = f"{seen.per_second:,.0f}", f"{seen.per_second * count:,.0f}"
                times = f"{seen.half:.1f} ms", f"{seen.slow:.1f} ms"
                shown.add_row(name, str(clients), str(count), *speeds, *times, str(seen.lost))

    with server(store, folder) as (url, _):
        measure("tagger serve", url, "instances")
    if peer:
        with bentoml(peer, store, folder) as url:
            measure("BentoML", url, "posts")
    shown.add_row("model in process", "", "64", "", f"{in_process(store, texts, seconds):,.0f}", "", "", "")
    return shown


def soak(store: Store, texts: list[str], folder: Path, seconds: float) -> str:
    """Ask with eight clients while the live version changes; what was lost, and the memory by minute."""
    body = folder / "soak.json"
    body.write_text(json.dumps({"instances": texts[:1]}))
    registry, memory, changes = Registry(store), list[int](), 0
    with server(store, folder) as (url, process):
        seen: list[Load] = []
        thread = threading.Thread(target=lambda: seen.append(load(url, body, 8, seconds)))
        thread.start()
        versions = [card.version for card in registry.cards()]
        started = last = time.monotonic()
        while thread.is_alive():
            if time.monotonic() - last >= PROMOTE_SECONDS:
                last = time.monotonic()
                if changes % 2:
                    registry.rollback("soak")
                else:  # one of the two that are not live, in turn
                    registry.promote(versions[1 + changes // 2 % 2], "soak")
                changes += 1
            if time.monotonic() - started >= len(memory) * SAMPLE_SECONDS:
                memory.append(process.memory_info().rss >> 20)
            time.sleep(0.2)
        thread.join()
        metrics = httpx.get(url.replace(PREDICT, "/metrics"), trust_env=False).text
    loads = re.findall(r'^tagger_version_changes_total\{result="(\w+)"\} (\S+)', metrics, re.MULTILINE)
    # hey counts the statuses of its first million answers only.
    statuses = re.findall(r'^tagger_requests_total\{api="[^"]+",status="(\d+)"\} (\S+)', metrics, re.MULTILINE)
    answered = sum(int(float(count)) for status, count in statuses if status == "200")
    refused = sum(int(float(count)) for status, count in statuses if status != "200")
    [found] = seen
    return (
        f"{answered:,} requests in {seconds:g} s, {max(found.lost, refused)} lost, 99 % within {found.slow:.1f} ms; "
        f"{changes} promotions and rollbacks, {loads}; MiB every {SAMPLE_SECONDS} s: {memory}"
    )


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--posts", default=str(REAL_POSTS), help="CSV with the columns post and tags")
    parser.add_argument("--seconds", type=float, default=5, help="how long each row is measured")
    parser.add_argument("--bentoml", type=Path, help="the Python of an environment with BentoML and TensorFlow")
    parser.add_argument("--soak", type=float, default=0, help="seconds of load with changing versions")
    given = parser.parse_args()
    if not shutil.which("hey"):
        raise SystemExit("hey makes the load: apt-get install hey")
    with TemporaryDirectory(prefix="tagger-bench-") as scratch:
        store = Store(str(Path(scratch, "store")))
        published(store, given.posts)
        frame = pd.read_csv(given.posts)
        texts = sorted(map(str, frame["post"]), key=len)[len(frame) // 2 :][:100]  # of middle length
        if given.seconds:
            Console(width=130).print(table(store, texts, Path(scratch), given.seconds, given.bentoml))
        if given.soak:
            print(soak(store, texts, Path(scratch), given.soak))


if __name__ == "__main__":
    main()
