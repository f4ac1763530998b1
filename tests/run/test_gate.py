"""The gate through the runner: what is compared, who decides what it cannot tell, and what a version remembers."""

import json
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest

from pipeline.data import posts
from pipeline.data.learned import FILE, Learned
from pipeline.errors import GateNotPassed
from pipeline.registry.registry import Registry
from pipeline.report import page
from pipeline.report.compare import Comparison
from pipeline.run.runner import run_stage
from pipeline.settings.run import OBJECTIONS
from pipeline.stages.plan import STAGES
from pipeline.store import feedback
from pipeline.store.runs import Run
from tests.conftest import CREATED, TINY, write_csv

NEW = [(f"{text} again", tag) for text, tag in TINY]


def next_run(first, days=7, **values):
    settings = first.existing().settings
    run = Run(first.store, f"after{days}")
    run.begin(settings.model_copy(update={"max_regression": 1} | values), CREATED + timedelta(days=days))
    return run


def run_all(run, until=None):
    for stage in STAGES:
        summary = run_stage(stage, run)
        if stage == until:
            break
    return summary


def learned_by(store, version, folder):
    Registry(store).fetch(version, folder)
    return Learned.read(folder / FILE)


def texts_of(run, folder, *sides):
    run.files.fetch(run.manifest("ingest"), folder)
    batches = [batch for side in sides for batch in posts.batches(folder, f"posts/{side}")]
    return pa.Table.from_batches(batches)["post"]


@pytest.mark.parametrize(("before", "now"), [("sequential", "hash"), ("hash", "sequential")])
def test_posts_that_the_live_model_learned_are_left_out(new_run, tmp_path, before, now):
    """Only by another split of the same posts some test posts of the one are train posts of the other."""
    rows = [(f"{text} number {number}", tag) for number in range(40) for text, tag in TINY]
    source = str(write_csv(tmp_path / "many.csv", rows))
    one = new_run("one", source=source, split=before, min_accuracy=0, epochs=1)
    run_all(one)
    other = next_run(one, split=now)
    run_all(other, until="evaluate")
    learned = set(texts_of(one, tmp_path / "one", "train").to_pylist())
    tested = texts_of(other, tmp_path / "other", "test").to_pylist()
    new = sum(text not in learned for text in tested)
    assert 0 < new < len(tested)
    summary = other.manifest("evaluate").summary
    assert summary["compared_posts"] == new
    assert summary["coverage"] == (
        f"compared on {new} of {len(tested)} test posts; the live model had learned the others"
    )
    assert f"It was {summary['coverage']}" in page.render(other)
    assert Comparison.of([one, other]).coverage == ["", summary["coverage"]]
    assert summary["coverage"] in Comparison.of([one, other]).render()


def test_a_version_remembers_what_it_learned_after_its_run_is_gone(first, tmp_path):
    version = first.existing().first_version
    card = Registry(first.store).card(version)
    known = texts_of(first, tmp_path / "ingest", "train", "validation")
    for stage in ("ingest", "fit_vocabulary", "vectorize", "train", "evaluate"):
        first.store.remove(f"runs/first/{stage}")
    learned = learned_by(first.store, version, tmp_path / "model")
    assert learned.complete
    assert learned.has(known).all()
    assert FILE in card.files
    assert card.path.startswith("runs/first/export/")


def test_feedback_that_a_run_learned_is_remembered(first, tmp_path):
    told = {"at": datetime.now(UTC), "version": 1, "sha256": "", "predicted": "java", "probability": 0.5}
    rows = [
        told | {"id": f"{at}", "post": f"{text} told", "tags": tag, "told": datetime.now(UTC)}
        for at, (text, tag) in enumerate(TINY)
    ]
    feedback.write(first.store, feedback.TAGGED, "told", rows)
    run = next_run(first, learn_feedback=True, split="hash", min_accuracy=0, fail_leaked=1)
    summary = run_all(run)
    known = texts_of(run, tmp_path / "ingest", "train")
    assert sum(text.endswith("told") for text in known.to_pylist()) > 0
    assert learned_by(run.store, summary["version"], tmp_path / "model").has(known).all()


def test_a_model_that_began_from_the_live_one_has_learned_its_posts_too(first, tmp_path):
    source = str(write_csv(tmp_path / "new.csv", NEW))
    run = next_run(first, source=source, warm_start="live", fail_word_drift=1, fail_unknown_words=1, min_accuracy=0)
    summary = run_all(run)
    learned = learned_by(run.store, summary["version"], tmp_path / "model")
    assert learned.complete
    assert learned.has(texts_of(first, tmp_path / "first", "train")).all()
    assert learned.has(texts_of(run, tmp_path / "second", "train")).all()


def test_what_cannot_be_told_keeps_the_live_model(first):
    run = next_run(first, max_regression=0.01)
    with pytest.raises(GateNotPassed, match=r"cannot be told .*compared on all 2 test posts, and min_compared_posts"):
        run_all(next_run(first, days=8, max_regression=0.01, epochs=61))
    assert Registry(run.store).live() == first.existing().first_version


def test_what_cannot_be_told_is_published_if_a_setting_says_so(first):
    run = next_run(first, max_regression=0.01, when_unsure="publish", epochs=61)
    summary = run_all(run)
    assert (summary["live"], run.manifest("evaluate").summary["verdict"]) == (True, "cannot tell")


def test_what_cannot_be_told_waits_for_a_person(first):
    run = next_run(first, max_regression=0.01, when_unsure="ask", epochs=61)
    with pytest.raises(GateNotPassed, match="nobody has approved this result, so nothing is") as refused:
        run_all(run)
    seen = run.evaluated().attempt
    assert f"`tagger approve {run.name} --evaluated {seen} --reason WHY`" in str(refused.value)
    assert Registry(run.store).live() == first.existing().first_version
    assert run.refusal().stage == "export"
    run.approve("Ada", "the posts are right", seen)
    summary = run_stage("export", run)
    assert summary["live"]
    event = Registry(run.store).events()[-1]
    assert (event.by, event.reason) == (f"run {run.name}, approved by Ada", "the posts are right")
    assert run.refusal() is None


def test_the_same_model_compared_with_another_one_is_not_published_again(first):
    """Its card says something else, which is no reason to publish the same weights twice."""
    run = next_run(first, max_regression=0.01, reuse=False)
    summary = run_all(run)
    assert summary["version"] == first.existing().first_version
    assert [event.action for event in Registry(run.store).events()] == ["publish"]
    assert run.manifest("evaluate").summary["verdict"] == "passed"


def test_the_card_the_decision_and_the_log_name_what_was_compared_and_forced(first, tmp_path):
    forced = {"force": "regression", "force_reason": "the test posts are wrong"}
    run = next_run(first, max_regression=0.01, epochs=61, **forced)
    summary = run_all(run)
    folder = tmp_path / "model"
    Registry(run.store).fetch(summary["version"], folder)
    assert f"version {first.existing().first_version}: accuracy" in (folder / "model-card.md").read_text()
    assert "compared on all 2 test posts." in (folder / "model-card.md").read_text()
    assert Registry(run.store).events()[-1].reason == "forced regression: the test posts are wrong"
    run.files.fetch(run.manifest("evaluate"), tmp_path / "evaluate", ["decision.json"])
    decision = json.loads((tmp_path / "evaluate" / "decision.json").read_text())
    assert decision["comparison"]["coverage"] == "compared on all 2 test posts"
    assert decision["thresholds"]["force"] == "regression"


def forcing(*names):
    return {"force": ",".join(names), "force_reason": "it is right"}


@pytest.mark.parametrize("name", ["newer", "withdrawn"])
def test_only_the_named_objection_of_the_registry_is_forced(first, name):
    """A model of older data, and one that a person took down, do not go live by the force of all other names."""
    days = -7 if name == "newer" else 7
    if name == "withdrawn":
        run_all(next_run(first, days=3, epochs=61))
        Registry(first.store).rollback("it is worse")
    others = [each for each in OBJECTIONS if each != name]
    assert not run_all(next_run(first, days=days, epochs=61, **forcing(*others)))["live"]
    assert Registry(first.store).live() == first.existing().first_version
    assert run_all(next_run(first, days=days - 1, epochs=61, **forcing(name)))["live"]
