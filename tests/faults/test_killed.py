"""A stage killed at any write leaves no incomplete artifact that a reader could see, and a retry completes it."""

import json
import shutil

import pytest

from pipeline.data import posts
from pipeline.registry.registry import Registry
from pipeline.settings import Deployment
from pipeline.stages.plan import STAGES
from pipeline.store.runs import Run
from pipeline.upkeep.verify import verify
from tests.conftest import CREATED
from tests.faults.conftest import NEVER, assert_nothing_is_half, is_killed, kind

pytestmark = pytest.mark.usefixtures("forks")


def prepared(place, name, finished_run, artifacts, stage, shards=1):
    """A new store with a run in which every stage before this one is complete."""
    store = place.store(name)
    run = Run(store, "a")
    run.begin(finished_run.existing().settings, CREATED, deployment=Deployment(shards=shards))
    for earlier in list(STAGES)[: list(STAGES).index(stage)]:
        inputs = {need: run.manifest(need) for need in STAGES[earlier].needs}
        summary = json.loads((artifacts / f"{earlier}.json").read_text())
        run.commit(earlier, artifacts / earlier, inputs=inputs, summary=summary, seconds=1, peak_mib=None)
    return store, run


@pytest.mark.parametrize("stage", STAGES)
def test_killed_at_every_write(place, stage, finished_run, artifacts):
    tried = 0
    for first, how in enumerate(place.ways, 1):
        for last in range(first, NEVER, place.step):
            store, run = prepared(place, f"{stage}-{how}-{last}", finished_run, artifacts, stage)
            if not is_killed(place, store, stage, artifacts, last, how):
                break
            tried += 1
            assert_nothing_is_half(store)
            assert not is_killed(place, store, stage, artifacts, NEVER, how), "the retry completes it"
            assert run.manifest(stage).digest == finished_run.manifest(stage).digest
            assert verify(store).faults == []
            if stage == "export":
                assert Registry(store).live() == run.existing().first_version
                assert len(Registry(store).events()) == 1
        assert last > 1
    assert tried * place.step >= len(place.ways) * (len(finished_run.manifest(stage).files) + 1)
    print(f"{kind(place)} {stage}: {tried} kills")  # noqa: T201


def test_a_gate_that_refuses_killed_at_every_write(place, finished_run, artifacts):
    """The evidence is complete or absent, and nothing is published."""
    tried = 0
    for last in range(1, NEVER, place.step):
        store, run = prepared(place, f"refused-{last}", finished_run, artifacts, "evaluate")
        if not is_killed(place, store, "evaluate", artifacts, last, "before", "refused"):
            break
        tried += 1
        assert_nothing_is_half(store)
        assert not is_killed(place, store, "evaluate", artifacts, NEVER, "before", "refused")
        assert run.manifest("evaluate").digest == finished_run.manifest("evaluate").digest
        assert verify(store).faults == []
        assert Registry(store).events() == []
    assert tried * place.step > len(finished_run.manifest("evaluate").files)
    print(f"{kind(place)} evaluate, refused: {tried} kills")  # noqa: T201


def test_shards_killed_at_every_write(place, finished_run, artifacts):
    """An interrupted shard is done again, and nothing is gathered from incomplete shards."""
    stage, how, tried = "fit_vocabulary", "before", 0
    cut = artifacts.parent / "cut"
    if not cut.exists():
        shutil.copytree(artifacts, cut)
        for side in posts.SIDES:
            posts.reshard(cut / "ingest", posts.of_side(side), 2)
    for last in range(1, NEVER, place.step):
        store, run = prepared(place, f"shards-{last}", finished_run, cut, stage, shards=2)
        killed = is_killed(place, store, stage, cut, last, how, "1")
        assert_nothing_is_half(store)
        if killed:
            tried += 1
            assert not is_killed(place, store, stage, cut, NEVER, how, "1")
        assert not is_killed(place, store, stage, cut, NEVER, how, "0")
        assert not is_killed(place, store, stage, cut, NEVER, how)
        assert run.manifest(stage).digest == finished_run.manifest(stage).digest
        assert verify(store).faults == []
        if not killed:
            break
    assert tried * place.step >= 2, "the shard's file, and the document that names it"
