"""Shows the learning curves of the runs of a store, which may be on S3, in TensorBoard: each under the run's name."""

import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from pipeline.errors import CorruptArtifact, TaggerError
from pipeline.settings import read
from pipeline.store.objects import Store
from pipeline.store.runs import every_run

TENSORBOARD = str(Path(sys.executable).with_name("tensorboard"))

QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONWARNINGS": "ignore:pkg_resources:UserWarning"}
"""Variables against what TensorFlow prints of missing GPUs, and TensorBoard of its own imports."""


def collect(store: Store, folder: Path) -> list[str]:
    """Copy the curve of each run that was trained into `folder/<run>`, and return the runs' names.

    A training that several runs share is there under the name of each. A run whose files are damaged is left out, with
    a line on standard error.
    """
    names = []
    for run in every_run(store):
        try:
            manifest = run.manifest("train")
            found = next((name for name in manifest.files if "tfevents" in name), None) if manifest else None
            if manifest and found:
                path, file = f"{manifest.path}/{found}".rsplit("/", 1)
                store.download(path, {file: manifest.files[found]}, folder / run.name)
                names.append(run.name)
        except CorruptArtifact as error:
            print(f"run {run.name} is left out: {error}", file=sys.stderr)
    return names


def main() -> int:
    """Start TensorBoard on the runs of TAGGER_STORE; the arguments are passed to it."""
    try:
        store = Store(read(os.environ)[1].store).require()
        with TemporaryDirectory(prefix="tagger-curves-") as folder:
            names = collect(store, Path(folder))
            if not names:
                print(f"{store.url} has no trained run yet: start one with `tagger run`", file=sys.stderr)
                return 2
            print(f"{store.url}: {', '.join(names)}; start again to see later runs", flush=True)
            command, environment = [TENSORBOARD, "--logdir", folder, *sys.argv[1:]], os.environ | QUIET
            return subprocess.run(command, env=environment, check=False).returncode
    except TaggerError as error:
        print(error, file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        return 0


if __name__ == "__main__":
    sys.exit(main())
