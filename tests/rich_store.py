"""A store in which everything has happened that leaves a file, to be damaged and forged by tests."""

import contextlib
import shutil
from pathlib import Path

import pytest

from pipeline.errors import GateNotPassed
from pipeline.registry.registry import Registry
from pipeline.registry.series import Agreement, Series
from pipeline.run.rendezvous import joined
from pipeline.run.runner import run_shard, run_stage
from pipeline.settings import Deployment, Settings, Tuning
from pipeline.stages.plan import STAGES
from pipeline.store import feedback
from pipeline.store.objects import Store
from pipeline.store.run_files import CHECKPOINT
from pipeline.store.runs import Run
from pipeline.store.signatures import SIGNING_KEY, TRUSTED_KEYS
from pipeline.tuning.tuning import TuningRun, asked_of
from tests.conftest import CREATED, Once, begin_tiny, small_version


def rich_store(once: Once, folder: Path) -> Store:
    """A copy in this folder, which may be changed; nothing in it is signed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(SIGNING_KEY, raising=False)
        patch.delenv(TRUSTED_KEYS, raising=False)
        shutil.copytree(once("rich", _make), folder, dirs_exist_ok=True)
    return Store(str(folder / "store"))


def _make(folder: Path) -> None:
    """Leave the runs `first`, `same`, `unpublished`, `refused`, `approved` and `under_way`.

    The last version that was published is that of `approved`. It was rolled back, and promoted.
    """
    first = begin_tiny(folder, "first")
    store = first.store
    settings = first.existing().settings
    _do(first, settings)
    _do(Run(store, "same"), settings)
    _do(Run(store, "unpublished"), settings, publish=False)
    with contextlib.suppress(GateNotPassed):
        _do(Run(store, "refused"), settings, epochs=3)
    approved = Run(store, "approved")
    with contextlib.suppress(GateNotPassed):
        _do(approved, settings, warm_start="live", epochs=2, when_unsure="ask")
    approved.approve("a person", "it is good", approved.evaluated().attempt)
    run_stage("export", approved)
    _collect(store, folder)
    _move_live_version(Registry(store))
    _observe(store)
    under_way = Run(store, "under_way")
    under_way.begin(settings, CREATED)
    _leave_unfinished(under_way, folder / "checkpoint")
    _tune(TuningRun(store, "t"))


def _do(run: Run, settings: Settings, **changed: object) -> None:
    run.begin(settings.model_copy(update=changed), CREATED)
    for stage in STAGES:
        run_stage(stage, run)


def _collect(store: Store, folder: Path) -> None:
    """Publish a version, and remove its run as garbage collection does."""
    run = small_version(store, 20260301000000, folder / "small", created=CREATED.replace(month=3))
    Registry(store).rollback("it is small")
    Registry(store).note_collected(run.path, "old")
    store.remove(run.path)


def _move_live_version(registry: Registry) -> None:
    live = registry.live()
    assert live is not None
    registry.rollback("to see")
    registry.promote(live, "it was better")


def _observe(store: Store) -> None:
    """Record an agreement twice, and posts that were asked and tagged."""
    seen = {"at": CREATED.isoformat(), "live": 1, "shadow": 2, "posts": 3, "same": 3}
    for _ in range(2):
        Series(store).append(lambda number, previous, _: Agreement(number=number, previous=previous, **seen))
    row = {"id": "a-0.0", "at": CREATED, "version": 1, "sha256": "0", "predicted": "java"}
    row |= {"probability": 0.5}
    feedback.write(store, feedback.ASKED, "a", [row])
    feedback.write(store, feedback.TAGGED, "b", [row | {"tags": "java", "told": CREATED}])
    feedback.write(store, feedback.ASKED, "c", [row | {"id": "c-0.0"}])
    feedback.forget(store, ["c-0"])


def _leave_unfinished(run: Run, folder: Path) -> None:
    """Leave what is there while stages are done: a shard, a checkpoint, and a cluster that has announced itself."""
    run.begin(run.existing().settings, CREATED, deployment=Deployment.of({"shards": 2}))
    run_stage("ingest", run)
    run_shard("fit_vocabulary", run, 0)
    folder.mkdir()
    (folder / "weights").write_text("some")
    run.files.save("train", CHECKPOINT, folder, {})
    with joined(run, "train", 0, 1):
        pass


def _tune(tuning: TuningRun) -> None:
    """Do a tuning of one trial besides the present settings."""
    few = {"source": "sample://posts?rows=600&seed=4", "vocabulary_size": 200, "hidden_units": 8, "epochs": 1}
    options = Tuning.of({"search_space": {"hidden_units": [8, 16]}, "trials": 1, "max_epochs": 1})
    asked = tuning.begin(asked_of("t", Settings.of(few), options, Deployment(), CREATED))
    for number in range(len(asked.references) + 1):
        tuning.do_trial(asked, number)
    tuning.finish(asked)
