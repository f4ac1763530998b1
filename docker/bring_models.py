"""Brings the live version from the store to a folder that TensorFlow Serving watches, and looks again and again."""

import logging
import os
import shutil
import sys
import time
from pathlib import Path

from pipeline.errors import Unavailable
from pipeline.registry.card import MODEL
from pipeline.registry.registry import Registry
from pipeline.settings import Settings
from pipeline.store.objects import Store

SECONDS = 15


def bring(registry: Registry, folder: Path) -> int | None:
    """Make the live version the only one in `folder`; None where none is live.

    The new one is there, whole, before the old one goes: the server is never without.
    """
    live = registry.live()
    if live is None:
        return None
    folder.mkdir(parents=True, exist_ok=True)
    place, beside = folder / str(live), folder.with_name("coming")
    if not place.exists():
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir()
        registry.fetch(live, beside)
        beside.rename(place)
        logging.info("version %d is there", live)
    for other in folder.iterdir():
        if other != place:
            shutil.rmtree(other)
    return live


def main(top: Path) -> None:
    """Look for ever. A store that does not answer is asked again, and `looked` grows old meanwhile."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    registry = Registry(Store(Settings.read(os.environ).store))
    while True:
        try:
            bring(registry, top / MODEL)
            (top / "looked").touch()
        except Unavailable as error:
            logging.warning("%s", error)
        time.sleep(SECONDS)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
