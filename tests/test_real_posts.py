"""The whole pipeline on 16,000 real posts, where they are beside the checkout."""

import json
from itertools import islice

import pytest

from pipeline.data import posts
from pipeline.errors import GateNotPassed
from pipeline.registry.registry import Registry
from pipeline.run.runner import run_stage
from pipeline.settings import Settings
from pipeline.stages.plan import STAGES
from pipeline.store.objects import Store
from pipeline.store.runs import Run
from tests.conftest import CREATED, context_of


@pytest.fixture(scope="module")
def real_run(real_posts, tmp_path_factory):
    run = Run(Store(str(tmp_path_factory.mktemp("real") / "store")), "real")
    run.begin(Settings.of({"source": str(real_posts), "train_fraction": 0.5}), CREATED)
    for stage in STAGES:
        run_stage(stage, run)
    return run


def test_the_published_halves_are_learnt_as_well_as_the_notebook_learns_them(real_run):
    """The article's notebook as one script scored 0.844 to 0.848 on these halves."""
    evaluated = real_run.manifest("evaluate").summary
    assert evaluated["accuracy"] >= 0.83
    assert (evaluated["rows"], evaluated["tags"]) == (8000, 4)
    assert real_run.manifest("export").summary["rows"] == 8000
    assert Registry(real_run.store).live() == real_run.existing().first_version


def test_no_row_of_them_is_set_aside(real_run, tmp_path):
    summary = real_run.manifest("ingest").summary
    assert (summary["posts"], summary["rejected"]) == (16000, 0)
    assert summary["posts_by_tag"] == dict.fromkeys(["c#", "java", "javascript", "python"], 4000)
    real_run.files.fetch(real_run.manifest("ingest"), tmp_path)
    rows = [
        row
        for batch in islice(posts.batches(tmp_path, posts.of_side("train"), ["row"]), 2)
        for row in batch[0].to_pylist()
    ]
    assert rows == list(range(1, len(rows) + 1))


def test_with_a_threshold_out_of_reach_nothing_is_published(real_run, tmp_path):
    """The same trained model, by the same stage, held against 0.99."""
    inputs = {}
    for name in STAGES["evaluate"].needs:
        inputs[name] = tmp_path / name
        real_run.files.fetch(real_run.manifest(name), inputs[name])
    from pipeline.stages import evaluate

    (tmp_path / "out").mkdir()
    strict = real_run.existing().settings.model_copy(update={"min_accuracy": 0.99})
    with pytest.raises(GateNotPassed, match=r"accuracy 0\.8\d+ on the test posts is below min_accuracy 0\.99"):
        evaluate.run(inputs, tmp_path / "out", strict, context_of(strict))
    assert json.loads((tmp_path / "out" / "evaluation.json").read_text())["verdict"] == "failed"
