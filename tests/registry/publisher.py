"""Publishes a model in a process of its own: STORE RUN MODEL FIRST MODEL_FOLDER START, at the time START."""

import sys
import time
from pathlib import Path

from pipeline.errors import StageOutOfOrder
from pipeline.files import entries
from pipeline.registry.card import Card
from pipeline.registry.registry import Registry
from pipeline.store.objects import Store


def card_of(run: str, model: str, first: int, folder: Path) -> Card:
    """The card of a run's model, whose files are in the folder `model` of the run and here in `folder`."""
    return Card(
        version=first,
        run=run,
        data="2026-01-05T00:00:00+00:00",
        path=f"runs/{run}/export/{model}",
        checkpoint=model,
        accuracy=0.9,
        macro_f1=0.8,
        tags=2,
        synthetic=False,
        published="2026-01-05T00:00:00+00:00",
        files=entries(folder),
    )


def publish(store: Store, card: Card, folder: Path) -> int:
    """Upload and publish the model, as often as another one goes live meanwhile, and return its version."""
    store.upload(folder, card.path)
    while True:
        try:
            return Registry(store).publish(card, compared_with=Registry(store).live()).version
        except StageOutOfOrder:
            pass  # what a run does then: it is evaluated again


if __name__ == "__main__":
    url, run, model, first, folder, start = sys.argv[1:]
    store = Store(url)
    time.sleep(max(0.0, float(start) - time.time()))
    print(publish(store, card_of(run, model, int(first), Path(folder)), Path(folder)))  # noqa: T201
