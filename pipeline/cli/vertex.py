"""The command `upload`, and the program of a custom training job on Vertex AI: `python -m pipeline.cli.vertex`.

A job has Vertex AI's environment: AIP_CHECKPOINT_DIR, where the store is, so that a job that is started again goes on;
AIP_MODEL_DIR, where the SavedModel is put; AIP_TENSORBOARD_LOG_DIR for the learning curves; and TF_CONFIG for a
cluster, whose first pool is the chief, and which needs a pool of parameter servers. Its options are --source and --set.
"""

import argparse
import os
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from pipeline import tf_config
from pipeline.cli.app import StoreOption, say, say_aside, settings_of, store_of, track
from pipeline.errors import BadInput, Unavailable
from pipeline.registry.registry import Registry
from pipeline.run.runner import run_stage
from pipeline.stages.plan import STAGES
from pipeline.store.objects import Store
from pipeline.store.runs import Run

MOUNT = Path("/gcs")
"""Where Vertex AI mounts the buckets in a training job."""

NAME, TRAIN = "vertex", "train"
"""The run of a job's store, and the stage that a cluster does together."""

CHIEF_SECONDS = 24 * 3600.0
"""Seconds that the other processes wait for the chief to prepare the posts."""


def upload(
    project: Annotated[str, typer.Option(help="The project of Google Cloud.")],
    location: Annotated[str, typer.Option(help="The region, such as europe-west4.")],
    version: Annotated[
        int | None, typer.Argument(metavar="VERSION", help="A published version; by default the live one.")
    ] = None,
    image: Annotated[
        str | None,
        typer.Option(help="An image with this package, to serve by `tagger serve` instead of TensorFlow Serving."),
    ] = None,
    store: StoreOption = None,
) -> None:
    """Upload a published version to Vertex AI."""
    from pipeline.integrations import vertex

    name = vertex.upload(Registry(store_of(store).require()), version, project, location, image)
    say(f"uploaded as {name}")


def job(arguments: list[str] | None = None) -> None:
    """Train as a custom training job, and leave the SavedModel where Vertex AI expects it.

    Raises BadInput outside such a job, and what the stages raise.
    """
    parser = argparse.ArgumentParser(prog="python -m pipeline.cli.vertex")
    parser.add_argument("--source")
    parser.add_argument("--set", action="append", default=[], dest="pairs", metavar="NAME=VALUE")
    given = parser.parse_args(arguments)
    store = _folder("AIP_CHECKPOINT_DIR")
    settings, deployment = settings_of(store, given.source, given.pairs)
    run, place = Run(Store(store), NAME), tf_config.here()
    if place and not place.leads:
        _await_inputs(run)
        run_stage(TRAIN, run, track())
        return
    run.begin(settings, datetime.now(UTC) if run.record() is None else run.existing().created, deployment=deployment)
    for stage in STAGES:
        summary = run_stage(stage, run, track())
        say_aside(f"{stage} is complete")
    trained = run.manifests()[TRAIN]
    card = Registry(run.store).published(summary["version"])
    target = Store(_folder("AIP_MODEL_DIR"))
    _copy(run.store, card.path, list(card.files), target)
    if "AIP_TENSORBOARD_LOG_DIR" in os.environ:
        curves = [name for name in trained.files if ".tfevents" in name]
        _copy(run.store, trained.path, curves, Store(_folder("AIP_TENSORBOARD_LOG_DIR")))
    say(f"version {card.version}, accuracy {card.accuracy:.4f}, is in {target.url}")


def _folder(variable: str) -> str:
    """The folder that Vertex AI names in the variable, where it is mounted if it is; BadInput if it names none."""
    url = os.environ.get(variable)
    if not url:
        raise BadInput(
            f"{variable} is not set, as it is in a custom training job of Vertex AI with a base output directory: give "
            "the job one, or run `tagger run` elsewhere"
        )
    mounted = MOUNT / url.removeprefix("gs://")
    return str(mounted) if url.startswith("gs://") and MOUNT.is_dir() else url


def _await_inputs(run: Run) -> None:
    """Wait until the chief has prepared what the cluster trains on. Raises Unavailable after CHIEF_SECONDS."""
    limit = time.monotonic() + CHIEF_SECONDS
    while run.record() is None or not all(run.manifest(stage) for stage in STAGES[TRAIN].needs):
        if time.monotonic() > limit:
            raise Unavailable(f"the chief has not prepared the posts within {CHIEF_SECONDS:,.0f} seconds: see its log")
        time.sleep(tf_config.POLL)


def _copy(store: Store, path: str, names: list[str], target: Store) -> None:
    """Copy files of a store's folder to another store."""
    for name in names:
        with store.fs.open(store.path(f"{path}/{name}"), "rb") as source:
            target.fs.makedirs(target.path(name).rpartition("/")[0], exist_ok=True)
            with target.fs.open(target.path(name), "wb") as copied:
                copied.write(source.read())


if __name__ == "__main__":
    from pipeline.cli import run_and_exit

    run_and_exit(job)
