"""A cluster's process that is not its chief: it takes part in train, and leaves nothing."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from subprocess import TimeoutExpired
from tempfile import TemporaryDirectory

from pipeline import tf_config
from pipeline.errors import BadInput, CorruptArtifact, Unavailable
from pipeline.settings import Settings
from pipeline.stages.plan import CHECKPOINT
from pipeline.store.runs import PARTS, Manifest, Run

KEPT = f"{PARTS}/checkpoint"
"""The last checkpoint of a cluster's chief, for its evaluator; a later try could not tell which posts it has seen."""

NOTE = "checkpoint"
"""The file in which TensorFlow notes which checkpoint is the latest."""


def place_in(stage: str) -> tf_config.Place | None:
    """The place of this process in a cluster, unless it is the chief. Raises BadInput for any stage but train."""
    place = tf_config.here()
    if place is None or place.leads:
        return None
    if stage != "train":
        raise BadInput(
            f"TF_CONFIG makes this process {place} of a cluster, which takes part in train only: begin it with "
            f"--from train, and leave {stage} to the chief"
        )
    return place


def take_part(run: Run, inputs: Mapping[str, Manifest], settings: Settings, place: tf_config.Place) -> None:
    """Take part in train until the chief has committed it. Raises as tf_config.part and tf_config.attend do."""
    before = run.manifest("train")
    with TemporaryDirectory(prefix="tagger-train-") as scratch:
        model_dir = Path(scratch, "model")
        model_dir.mkdir()
        checkpoints = _Checkpoints(run, inputs, model_dir)

        def over() -> bool:
            with suppress(Unavailable):  # where the store stays away, the chief does too
                if place.kind == tf_config.EVALUATOR:
                    checkpoints.bring()
                return run.manifest("train") not in (None, before)
            return False

        wanted = ["fit_vocabulary"] if place.kind == tf_config.PS else list(inputs)
        folders = {name: Path(scratch, "inputs", name) for name in wanted}
        for name, folder in folders.items():
            run.fetch(inputs[name], folder)
        job = {
            "inputs": {name: str(folder) for name, folder in folders.items()},
            "model_dir": str(model_dir),
            "settings": settings.model_dump(mode="json"),
        }
        with tf_config.part(place, job) as child:
            tf_config.attend(child, place, over)
            if place.kind == tf_config.EVALUATOR:
                checkpoints.bring_last()
                with suppress(TimeoutExpired):
                    child.wait(tf_config.PATIENCE)


class _Checkpoints:
    """Brings the chief's checkpoints from the store into the folder that an evaluator watches."""

    def __init__(self, run: Run, inputs: Mapping[str, Manifest], model_dir: Path) -> None:
        self.run, self.inputs, self.model_dir = run, inputs, model_dir
        self.path = ""
        self.before, self.latest = list[str](), list[str]()

    def bring(self) -> None:
        """The one that is kept now, if it is another than before and is not replaced meanwhile."""
        kept = self.run.store.read(f"{self.run.path}/train/{KEPT}.json")
        if kept is None or kept["path"] == self.path:
            return
        # Another may take its place meanwhile.
        with TemporaryDirectory(dir=self.model_dir.parent) as scratch, suppress(CorruptArtifact):
            if self.run.resume("train", KEPT, self.inputs, Path(scratch, "kept")):
                self._place(Path(scratch, "kept"))
                self.path = kept["path"]

    def bring_last(self) -> None:
        """The one that the chief has committed."""
        manifest = self.run.manifest("train")
        if manifest:
            wanted = [name for name in manifest.files if Path(name).name.startswith((NOTE, "model.ckpt-"))]
            with TemporaryDirectory(dir=self.model_dir.parent) as scratch:
                self.run.fetch(manifest, Path(scratch), wanted)
                self._place(Path(scratch, CHECKPOINT))

    def _place(self, folder: Path) -> None:
        """Its files first, the note of it last; the one before it, which may be being read, stays until the next."""
        arrived = sorted(folder.iterdir(), key=lambda file: file.name == NOTE)
        for file in arrived:
            file.rename(self.model_dir / file.name)
        for name in self.before:
            (self.model_dir / name).unlink(missing_ok=True)
        self.before, self.latest = self.latest, [file.name for file in arrived if file.name != NOTE]
