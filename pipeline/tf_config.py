"""A process's place in a cluster that trains together, as TF_CONFIG tells it, and its part but for TensorFlow's."""

import json
import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from threading import Event, Thread
from typing import Any, Self

from pipeline.errors import BadInput, Unavailable

VARIABLE = "TF_CONFIG"
CHIEF, WORKER, PS, EVALUATOR = KINDS = ("chief", "worker", "ps", "evaluator")

PATIENCE = 600.0
"""Seconds for which a process waits for the others to come: an image may have to be pulled first."""

LOST = 60.0
"""Seconds for which a chief that was there may not answer."""

POLL = 1.0

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Place:
    """One process of a cluster: `addresses` holds, for each kind but the evaluator, a host:port for each process."""

    kind: str
    index: int
    addresses: dict[str, list[str]]

    @classmethod
    def of(cls, text: str) -> Self | None:
        """What TF_CONFIG says; None where it names no cluster, or this process as the only one of it.

        Raises BadInput for what it cannot mean, and for a cluster that trains collectively.
        """
        config = _parsed(text)
        addresses = {kind: list(found) for kind, found in config.get("cluster", {}).items() if found}
        if not addresses:
            return None
        place = cls(*_task(config), addresses)
        _check(place)
        return None if place.alone else place

    def __str__(self) -> str:
        return f"{self.kind} {self.index}"

    @property
    def alone(self) -> bool:
        """Whether it trains, and no other process does or holds the weights."""
        named = [(kind, index) for kind in (CHIEF, WORKER, PS) for index in range(len(self.addresses.get(kind, [])))]
        return named == [(self.kind, self.index)] and self.kind != PS

    @property
    def leads(self) -> bool:
        """Whether it is the one process that commits what all have made."""
        return self.kind == CHIEF

    @property
    def rank(self) -> int:
        """Its number among those that train, from 0, the chief."""
        return 0 if self.leads else 1 + self.index

    @property
    def trainers(self) -> int:
        """How many train: the chief and the workers."""
        return 1 + len(self.addresses.get(WORKER, []))

    @property
    def share(self) -> tuple[int, int]:
        """Its part of the train posts, as input_fn.Share."""
        return self.rank, self.trainers

    @property
    def size(self) -> dict[str, int]:
        """How many processes of each kind shape the model."""
        return {kind: len(self.addresses.get(kind, [])) for kind in (CHIEF, WORKER, PS)}

    @property
    def config(self) -> str:
        """TF_CONFIG with what Estimator needs of it, and no more."""
        return json.dumps({"cluster": self.addresses, "task": {"type": self.kind, "index": self.index}})

    def check_port(self) -> None:
        """Raises Unavailable where this process cannot listen on its port; TensorFlow would end it with a trace."""
        if self.kind == EVALUATOR:
            return
        address = self.addresses[self.kind][self.index]
        with socket.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind(("", int(address.rpartition(":")[2])))
            except OSError as error:
                raise Unavailable(
                    f"{self} cannot listen on {address} ({error.strerror}): end what listens there, or give it another "
                    "port in every process's TF_CONFIG"
                ) from None


def here() -> Place | None:
    """The place of this process, None where it trains alone. Raises BadInput as Place.of does."""
    return Place.of(os.environ.get(VARIABLE, ""))


def _parsed(text: str) -> dict[str, Any]:
    try:
        config = json.loads(text or "{}")
    except json.JSONDecodeError as error:
        raise BadInput(f"TF_CONFIG is not JSON ({error}): write an object with cluster and task, or unset it") from None
    cluster = config.get("cluster", {}) if isinstance(config, dict) else None
    if not isinstance(cluster, dict) or not all(_are_addresses(found) for found in cluster.values()):
        raise BadInput(
            "TF_CONFIG is not an object whose cluster gives lists of host:port by kind, as "
            '{"cluster": {"chief": ["a:2222"], ...}, "task": {"type": "chief", "index": 0}}: write it so, or unset it'
        )
    return config  # type: ignore[no-any-return]


def _are_addresses(found: Any) -> bool:
    return isinstance(found, list) and all(
        isinstance(address, str) and address.rpartition(":")[0] and address.rpartition(":")[2].isdecimal()
        for address in found
    )


def _task(config: dict[str, Any]) -> tuple[str, int]:
    match config.get("task"):
        case {"type": str(kind), "index": int(index)}:
            return kind, index
    raise BadInput('TF_CONFIG names a cluster and no task: add which process this is, as {"type": "ps", "index": 0}')


def _check(place: Place) -> None:
    addresses = place.addresses
    unknown = [kind for kind in (place.kind, *addresses) if kind not in KINDS]
    if unknown:
        raise BadInput(f"TF_CONFIG: no process is of type {unknown[0]!r}: the types are {', '.join(KINDS)}")
    if place.alone:
        return
    if WORKER in addresses and PS not in addresses:
        raise BadInput(
            "TF_CONFIG names workers and no ps, which is a cluster of MultiWorkerMirroredStrategy: its collective "
            "operations must be configured before TensorFlow does anything else in a process, which a stage, called in "
            "any process, cannot promise; add a ps to the cluster, or unset TF_CONFIG to train in one process"
        )
    if len(addresses.get(CHIEF, [])) != 1:
        raise BadInput("TF_CONFIG names a cluster without its one chief, which keeps what all have trained: name one")
    if place.kind == EVALUATOR and PS not in addresses:
        raise BadInput(
            f"TF_CONFIG makes this process {place} beside a chief that trains alone, which keeps no checkpoints for "
            "others: leave the evaluator out, or add a ps to every process's TF_CONFIG"
        )
    if place.kind != EVALUATOR and not 0 <= place.index < len(addresses.get(place.kind, [])):
        raise BadInput(f"TF_CONFIG: this process is {place}, which its cluster does not name: add its address, or mend")


@contextmanager
def part(place: Place, job: dict[str, Any]) -> Iterator[subprocess.Popen[str]]:
    """A process that takes part from this place, for as long as this one lives and this lasts.

    It is one of its own because a parameter server never ends, and a worker whose parameter server has gone tries for
    hours to reach it. Raises Unavailable where its port is taken.
    """
    place.check_port()
    with subprocess.Popen(
        [sys.executable, "-m", "pipeline.stages.train"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        try:
            print(json.dumps(job), file=child.stdin, flush=True)
            yield child
        finally:
            child.kill()


def attend(child: subprocess.Popen[str], place: Place, over: Callable[[], bool]) -> None:
    """Wait until the cluster's work is over.

    Raises BadInput with which the child refuses, and Unavailable where it fails, the chief does not come within
    PATIENCE, or was there and does not answer for LOST.
    """
    chief, limit = place.addresses[CHIEF][0], time.monotonic() + PATIENCE
    while not over():
        if child.poll():
            sentence = child.stdout.read() if child.stdout else ""
            if child.returncode == BadInput.exit_status and sentence:
                raise BadInput(sentence)
            what = sentence or f"ended with status {child.returncode}, its log says why"
            raise Unavailable(f"{place}: {what}; start all processes of the cluster again")
        if answers(chief):
            limit = time.monotonic() + LOST
        elif time.monotonic() > limit:
            raise Unavailable(
                f"{place}: the chief at {chief} does not answer; start all processes of the cluster again"
            )
        time.sleep(POLL)


@contextmanager
def servers_missed(place: Place) -> Iterator[None]:
    """While this lasts, end this process where a parameter server does not come, or was there and does not answer.

    TensorFlow waits for it for ever, where no exception reaches, so there is no other way but to exit, with status 1.
    """
    done, limit = Event(), time.monotonic() + PATIENCE

    def watch() -> None:
        nonlocal limit
        while place.kind in (CHIEF, WORKER) and not done.wait(POLL):
            if all(map(answers, place.addresses[PS])):
                limit = time.monotonic() + LOST
            elif time.monotonic() > limit:
                log.error("%s: a parameter server does not answer; start all processes of the cluster again", place)
                os._exit(1)

    watching = Thread(target=watch, daemon=True)
    watching.start()
    try:
        yield
    finally:
        done.set()
        watching.join()


def answers(address: str) -> bool:
    """Whether somebody listens there."""
    host, _, port = address.rpartition(":")
    with suppress(OSError), socket.create_connection((host.strip("[]"), int(port)), timeout=POLL):
        return True
    return False
