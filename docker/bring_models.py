"""Keeps a folder for TensorFlow Serving up to date with the live version in the store."""

import logging
import os
import shutil
import sys
import time
from pathlib import Path

from pipeline.errors import Unavailable
from pipeline.registry.card import MODEL
from pipeline.registry.registry import Registry
from pipeline.settings import read
from pipeline.store.objects import Store

SECONDS = 15
"""Time between two looks at the store."""


def bring(registry: Registry, folder: Path) -> int | None:
    """Make the live version the only one in the folder, and return it; None where no version is live.

    The new version is complete before the old one is removed, so the server always has a model.
    """
    live = registry.live()
    if live is None:
        return None
    folder.mkdir(parents=True, exist_ok=True)
    place, incoming = folder / str(live), folder.with_name("coming")
    if not place.exists():
        shutil.rmtree(incoming, ignore_errors=True)
        incoming.mkdir()
        registry.fetch(live, incoming)
        incoming.rename(place)
        logging.info("version %d is ready to serve", live)
    for other in folder.iterdir():
        if other != place:
            shutil.rmtree(other)
    return live


def main(top: Path) -> None:
    """Update the folder every SECONDS, and touch the file `looked` after each success, for the health check."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    registry = Registry(Store(read(os.environ)[1].store))
    while True:
        try:
            bring(registry, top / MODEL)
            (top / "looked").touch()
        except Unavailable as error:
            logging.warning("%s", error)
        time.sleep(SECONDS)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
