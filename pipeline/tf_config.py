"""Parses the environment variable TF_CONFIG, which gives a process its place in a cluster that trains together."""

import json
import os
import socket
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Self

from pipeline.errors import BadInput, Unavailable

VARIABLE = "TF_CONFIG"
CHIEF, WORKER, PS, EVALUATOR = KINDS = ("chief", "worker", "ps", "evaluator")

LONGEST_WAIT = 600.0
"""Seconds for which a process waits for the others to start, which may have to pull an image first."""

LOST = 60.0
"""Seconds without an answer after which a chief that had been reachable counts as lost."""

POLL = 1.0
"""Seconds between two checks whether another process is reachable."""


@dataclass(frozen=True)
class Place:
    """The place of one process in a cluster.

    `kind` and `index` are the task's type and index in TF_CONFIG; `addresses` lists, for each kind but the evaluator,
    the host:port of each process.
    """

    kind: str
    index: int
    addresses: dict[str, list[str]]

    @classmethod
    def of(cls, text: str) -> Self | None:
        """Parse TF_CONFIG; None if it names no cluster, or a cluster of this process alone.

        Raises BadInput if it is invalid, and for a cluster of MultiWorkerMirroredStrategy.
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
        """Whether it is the only process that trains, and there is no parameter server."""
        named = [(kind, index) for kind in (CHIEF, WORKER, PS) for index in range(len(self.addresses.get(kind, [])))]
        return named == [(self.kind, self.index)] and self.kind != PS

    @property
    def leads(self) -> bool:
        """Whether it is the chief, the one process that commits the result."""
        return self.kind == CHIEF

    @property
    def rank(self) -> int:
        """Its number among the processes that train: 0 for the chief, then the workers."""
        return 0 if self.leads else 1 + self.index

    @property
    def trainers(self) -> int:
        """The number of processes that train: the chief and the workers."""
        return 1 + len(self.addresses.get(WORKER, []))

    @property
    def share(self) -> tuple[int, int]:
        """Its share of the train posts, as input_fn.Share: its rank, of how many."""
        return self.rank, self.trainers

    @property
    def size(self) -> dict[str, int]:
        """The number of processes of each kind that the trained weights depend on."""
        return {kind: len(self.addresses.get(kind, [])) for kind in (CHIEF, WORKER, PS)}

    @property
    def config(self) -> str:
        """The value of TF_CONFIG, with only the fields that Estimator needs."""
        return json.dumps({"cluster": self.addresses, "task": {"type": self.kind, "index": self.index}})

    def check_port(self) -> None:
        """Raise Unavailable if this process cannot listen on its port: TensorFlow would die with a stack trace."""
        if self.kind == EVALUATOR:
            return
        address = self.addresses[self.kind][self.index]
        with socket.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind(("", int(address.rpartition(":")[2])))
            except OSError as error:
                raise Unavailable(
                    f"{self} cannot listen on {address} ({error.strerror}): stop the program that uses it, or "
                    "change the port in every process's TF_CONFIG"
                ) from None


def here() -> Place | None:
    """The place of this process; None if it trains alone. Raises BadInput as Place.of does."""
    return Place.of(os.environ.get(VARIABLE, ""))


def _parsed(text: str) -> dict[str, Any]:
    try:
        config = json.loads(text or "{}")
    except json.JSONDecodeError as error:
        raise BadInput(
            f"TF_CONFIG is not JSON ({error}): set it to an object with `cluster` and `task`, or unset it"
        ) from None
    cluster = config.get("cluster", {}) if isinstance(config, dict) else None
    if not isinstance(cluster, dict) or not all(_are_addresses(found) for found in cluster.values()):
        raise BadInput(
            "TF_CONFIG must be an object whose cluster lists the host:port of each process by kind, such as "
            '{"cluster": {"chief": ["a:2222"], ...}, "task": {"type": "chief", "index": 0}}: correct it, or unset it'
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
    raise BadInput(
        'TF_CONFIG names a cluster but no task: add which process this is, such as "task": {"type": "ps", "index": 0}'
    )


def _check(place: Place) -> None:
    addresses = place.addresses
    unknown = [kind for kind in (place.kind, *addresses) if kind not in KINDS]
    if unknown:
        raise BadInput(f"TF_CONFIG names the unknown process type {unknown[0]!r}: use one of {', '.join(KINDS)}")
    if place.alone:
        return
    # Its collective operations must be set up before TensorFlow does anything else in a process, but a stage may be
    # called in a process that has used TensorFlow already.
    if WORKER in addresses and PS not in addresses:
        raise BadInput(
            "TF_CONFIG names workers but no ps, as MultiWorkerMirroredStrategy does, which is not supported: add a ps "
            "to the cluster, or unset TF_CONFIG to train in one process"
        )
    if len(addresses.get(CHIEF, [])) != 1:
        raise BadInput("TF_CONFIG must name exactly one chief, which saves what all processes have trained: correct it")
    if place.kind == EVALUATOR and PS not in addresses:
        raise BadInput(
            f"TF_CONFIG makes this process {place}, but the chief trains alone and then saves no checkpoints for an "
            "evaluator: leave the evaluator out, or add a ps to every process's TF_CONFIG"
        )
    if place.kind != EVALUATOR and not 0 <= place.index < len(addresses.get(place.kind, [])):
        raise BadInput(
            f"TF_CONFIG makes this process {place}, but its cluster has no address for it: add one, or correct the task"
        )


def answers(address: str) -> bool:
    """Whether a process accepts connections at the address host:port."""
    host, _, port = address.rpartition(":")
    with suppress(OSError), socket.create_connection((host.strip("[]"), int(port)), timeout=POLL):
        return True
    return False
