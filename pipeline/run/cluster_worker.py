"""Runs a process of a TF_CONFIG cluster that is not the chief: it trains with the others, and commits nothing."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from subprocess import TimeoutExpired
from tempfile import TemporaryDirectory
from typing import Any

from pipeline import tf_config
from pipeline.errors import BadInput, CorruptArtifact, Unavailable
from pipeline.run.work import Work
from pipeline.stages.plan import LABELS, MODEL_DIR, Stage
from pipeline.store.manifest import Manifest
from pipeline.store.run_files import SHARDS
from pipeline.store.runs import Run

FOR_EVALUATOR = f"{SHARDS}/checkpoint"
"""Where the chief's last checkpoint is saved, for the evaluator. A retry cannot resume from it, because it is not known
which posts the workers had trained on."""

STATE_FILE = "checkpoint"
"""The file in which TensorFlow records which checkpoint is the latest."""


def place_in(stage: Stage) -> tf_config.Place | None:
    """The place of this process in a cluster; None for the chief, or without a cluster.

    Raises BadInput for a stage that a cluster does not do together.
    """
    place = tf_config.here()
    if place is None or place.leads:
        return None
    if not stage.by_cluster:
        raise BadInput(
            f"TF_CONFIG makes this process {place} of a cluster, which takes part in train only: start it with "
            f"--from train, and let the chief run {stage.name}"
        )
    return place


def take_part(work: Work, place: tf_config.Place, scratch: Path) -> None:
    """Train at this place of the cluster until the chief has committed the stage. Raises what _attend raises."""
    run, stage = work.run, work.stage.name
    before = run.manifest(stage)
    model_dir = scratch / "model"
    model_dir.mkdir()
    checkpoints = _Checkpoints(run, stage, work.inputs, model_dir)

    def is_over() -> bool:
        with suppress(Unavailable):  # if the store stays unavailable, the chief fails too, and _attend notices that
            if place.kind == tf_config.EVALUATOR:
                checkpoints.fetch_saved()
            return run.manifest(stage) not in (None, before)
        return False

    needed = ["fit_vocabulary"] if place.kind == tf_config.PS else list(work.inputs)
    folders = {name: scratch / "inputs" / name for name in needed}
    for name, folder in folders.items():
        run.files.fetch(work.inputs[name], folder)
    job = {
        "labels": str(folders["fit_vocabulary"] / LABELS),
        "vectors": str(folders.get("vectorize", "")),
        "model_dir": str(model_dir),
        "settings": work.settings.model_dump(mode="json"),
    }
    with _started(place, job) as child:
        _attend(child, place, is_over)
        if place.kind == tf_config.EVALUATOR:
            checkpoints.fetch_committed()
            with suppress(TimeoutExpired):
                child.wait(tf_config.LONGEST_WAIT)


@contextmanager
def _started(place: tf_config.Place, job: dict[str, Any]) -> Iterator[subprocess.Popen[str]]:
    """Start the subprocess that trains at this place, and kill it at the end. Raises Unavailable if its port is taken.

    It must be killed because a parameter server never ends by itself, and a worker that lost its parameter server tries
    for hours to reach it.
    """
    place.check_port()
    with subprocess.Popen(
        [sys.executable, "-m", "pipeline.model.cluster_process"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        try:
            print(json.dumps(job), file=child.stdin, flush=True)
            yield child
        finally:
            child.kill()


def _attend(child: subprocess.Popen[str], place: tf_config.Place, is_over: Callable[[], bool]) -> None:
    """Wait until the chief has committed the stage.

    Raises BadInput if the subprocess does, and Unavailable if the subprocess fails, if the chief is not reachable
    within LONGEST_WAIT seconds, or if it was and is not for LOST seconds.
    """
    chief, limit = place.addresses[tf_config.CHIEF][0], time.monotonic() + tf_config.LONGEST_WAIT
    while not is_over():
        if child.poll():
            sentence = child.stdout.read() if child.stdout else ""
            if child.returncode == BadInput.exit_status and sentence:
                raise BadInput(sentence)
            what = sentence or f"the process ended with status {child.returncode}, see its log"
            raise Unavailable(f"{place}: {what}; start all processes of the cluster again")
        if tf_config.answers(chief):
            limit = time.monotonic() + tf_config.LOST
        elif time.monotonic() > limit:
            raise Unavailable(
                f"{place}: the chief at {chief} does not answer; start all processes of the cluster again"
            )
        time.sleep(tf_config.POLL)


class _Checkpoints:
    """Copies the chief's checkpoints from the store to the model_dir that an evaluator watches."""

    def __init__(self, run: Run, stage: str, inputs: Mapping[str, Manifest], model_dir: Path) -> None:
        self.run, self.stage, self.inputs, self.model_dir = run, stage, inputs, model_dir
        self.path = ""  # of the last checkpoint copied
        self.before, self.latest = list[str](), list[str]()

    def fetch_saved(self) -> None:
        """Copy the checkpoint that is saved now, unless it was copied before or is being replaced."""
        saved = self.run.files.saved(self.stage, FOR_EVALUATOR)
        if saved is None or saved.path == self.path:
            return
        with TemporaryDirectory(dir=self.model_dir.parent) as scratch, suppress(CorruptArtifact):  # it was replaced
            if self.run.files.resume(self.stage, FOR_EVALUATOR, self.inputs, Path(scratch, "saved")):
                self._place(Path(scratch, "saved"))
                self.path = saved.path

    def fetch_committed(self) -> None:
        """Copy the final checkpoint, from the result that the chief has committed."""
        manifest = self.run.manifest(self.stage)
        if manifest:
            wanted = [name for name in manifest.files if Path(name).name.startswith((STATE_FILE, "model.ckpt-"))]
            with TemporaryDirectory(dir=self.model_dir.parent) as scratch:
                self.run.files.fetch(manifest, Path(scratch), wanted)
                self._place(Path(scratch, MODEL_DIR))

    def _place(self, folder: Path) -> None:
        """Move a checkpoint's files to model_dir, the state file last, and remove the checkpoint before the previous.

        The previous one stays, because the evaluator may be reading it.
        """
        arrived = sorted(folder.iterdir(), key=lambda file: file.name == STATE_FILE)
        for file in arrived:
            file.rename(self.model_dir / file.name)
        for name in self.before:
            (self.model_dir / name).unlink(missing_ok=True)
        self.before, self.latest = self.latest, [file.name for file in arrived if file.name != STATE_FILE]
