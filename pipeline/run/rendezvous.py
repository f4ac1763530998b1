"""Lets the tasks that train a run together find one another, wherever a scheduler put them: each gets its TF_CONFIG.

Each process announces in the store where it listens. The chief waits until all others answer there, and then writes who
takes part; the others wait for that. A process that is started again announces itself again, and so begins a new round.
"""

import json
import logging
import os
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress

from pipeline import tf_config
from pipeline.errors import TaggerError, Unavailable
from pipeline.progress import repeated
from pipeline.store.documents import Document
from pipeline.store.run_files import CLUSTER
from pipeline.store.runs import Run

MEMBERS = "members.json"
"""The name of the document by which the chief says who takes part."""

WATCH = 2.0
"""Seconds between two looks whether a process was started again."""

log = logging.getLogger(__name__)


class Announcement(Document):
    """Where a process of the cluster listens, and a name that no other start of it has."""

    WHAT = "announcement of a process"

    address: str
    start: str


class Cluster(Document):
    """The processes that train together, by their numbers."""

    WHAT = "cluster"

    members: list[Announcement]


def processes(trainers: int) -> int:
    """How many processes train together with so many that read posts: those, and a parameter server."""
    return trainers + 1


def task_of(number: int) -> tuple[str, int]:
    """The kind of a process, and its index among those of its kind: the chief, the parameter server, the workers."""
    return {0: (tf_config.CHIEF, 0), 1: (tf_config.PS, 0)}.get(number, (tf_config.WORKER, number - 2))


@contextmanager
def joined(run: Run, stage: str, number: int, count: int, host: str | None = None) -> Iterator[None]:
    """Set TF_CONFIG for process `number` of `count`, once all have come to do the stage.

    `host` is the address by which the others reach this machine; if None, the one that its name has. Raises Unavailable
    if not all are there within tf_config.LONGEST_WAIT seconds.
    """
    with closing(_listening()) as listener:
        mine = Announcement(address=f"{host or _host()}:{listener.getsockname()[1]}", start=uuid.uuid4().hex)
        folder = f"{run.path}/{stage}/{CLUSTER}"
        run.store.write(f"{folder}/{number}.json", mine.to_dict())
        members = _gather(run, folder, mine, count) if number == 0 else _await(run, folder, mine, number)
    kind, index = task_of(number)
    addresses = [member.address for member in members]
    cluster = {tf_config.CHIEF: addresses[:1], tf_config.PS: addresses[1:2], tf_config.WORKER: addresses[2:]}
    before = os.environ.get(tf_config.VARIABLE)
    os.environ[tf_config.VARIABLE] = json.dumps({"cluster": cluster, "task": {"type": kind, "index": index}})
    try:
        with _exit_without_member(run, folder, members):
            yield
    finally:
        del os.environ[tf_config.VARIABLE]
        if before is not None:
            os.environ[tf_config.VARIABLE] = before


def _gather(run: Run, folder: str, mine: Announcement, count: int) -> list[Announcement]:
    """As the chief, wait until every other process answers where it announced itself, and write who takes part."""
    limit = time.monotonic() + tf_config.LONGEST_WAIT
    while True:
        found = [run.store.load(f"{folder}/{number}.json", Announcement) for number in range(1, count)]
        there = [other for other in found if other and tf_config.answers(other.address)]
        if len(there) == count - 1:
            break
        if time.monotonic() > limit:
            raise Unavailable(
                f"only {1 + len(there)} of the {count} processes that train together have come within "
                f"{tf_config.LONGEST_WAIT:.0f} seconds: give Airflow as many free task slots, or lower TAGGER_TRAINERS"
            )
        time.sleep(tf_config.POLL)
    members = [mine, *there]
    run.store.write(f"{folder}/{MEMBERS}", Cluster(members=members).to_dict())
    return members


def _await(run: Run, folder: str, mine: Announcement, number: int) -> list[Announcement]:
    """As another process, wait until the chief has written that this one takes part."""
    limit = time.monotonic() + tf_config.LONGEST_WAIT
    while time.monotonic() < limit:
        if cluster := run.store.load(f"{folder}/{MEMBERS}", Cluster):
            members = cluster.members
            if number < len(members) and members[number].start == mine.start:
                return members
        time.sleep(tf_config.POLL)
    raise Unavailable(
        f"the chief of the {tf_config.VARIABLE} cluster has not begun within {tf_config.LONGEST_WAIT:.0f} seconds: "
        "give Airflow enough free task slots for all processes that train together"
    )


@contextmanager
def _exit_without_member(run: Run, folder: str, members: list[Announcement]) -> Iterator[None]:
    """Exit with status 1 if another process of the cluster was started again: it was lost, and waits for a new round.

    The others would notice late or never, because TensorFlow waits for it in calls that no exception can interrupt.
    """

    def look() -> None:
        for number, member in enumerate(members):
            with suppress(TaggerError):  # the store fails for the stage, too, which says so
                now = run.store.load(f"{folder}/{number}.json", Announcement)
                if now and now.start != member.start:
                    log.error("process %d of the cluster was lost: start all of them again", number)
                    os._exit(1)

    with repeated(look, WATCH):
        yield


def _listening() -> socket.socket:
    """A socket by which others see that this process waits; its port is free again when it is closed."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("", 0))
    listener.listen(128)
    return listener


def _host() -> str:
    try:
        return socket.gethostbyname(socket.gethostname())
    except OSError:
        return "127.0.0.1"
