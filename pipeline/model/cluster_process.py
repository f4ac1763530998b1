"""The main program of a cluster's process other than the chief: `python -m pipeline.model.cluster_process`.

It reads its job as one line of JSON from standard input, and exits when that input is closed.
"""

import json
import logging
import os
import sys
import threading
from pathlib import Path

from pipeline import progress, tf_config
from pipeline.errors import TaggerError
from pipeline.files import read_lines
from pipeline.model import distributed
from pipeline.settings import Settings


def _main() -> None:
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    for name in (distributed.__name__, progress.__name__):
        logging.getLogger(name).setLevel(logging.INFO)
    job = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    tags, place = len(read_lines(Path(job["labels"]))), tf_config.here()
    if place:
        settings = Settings.of(job["settings"])
        distributed.take_part(Path(job["vectors"]), Path(job["model_dir"]), settings, tags, place)


def _end_with_parent() -> None:
    """Exit when standard input is closed, as it is when the parent process ends."""
    sys.stdin.read()
    os._exit(1)


if __name__ == "__main__":
    try:
        _main()
    except TaggerError as error:
        sys.stdout.write(str(error))
        sys.exit(error.exit_status)
