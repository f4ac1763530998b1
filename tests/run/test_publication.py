"""What is published by an approval is the result of evaluate that was approved."""

import shutil
from itertools import count
from pathlib import Path

import pytest

from pipeline.errors import GateNotPassed
from pipeline.registry.registry import Registry
from pipeline.run.publication import publish
from pipeline.run.work import Work
from pipeline.settings import Settings
from pipeline.sources.source import Source
from pipeline.stages.plan import STAGES
from pipeline.store.objects import Store
from pipeline.store.runs import Run
from tests.conftest import CREATED
from tests.registry.interleaving import at_call


def commit(run, stage, **summary):
    folder = Path(run.store.url).parent / "out"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    (folder / "saved_model.pb").write_text(f"{stage} {summary}")
    return run.commit(stage, folder, inputs={}, summary=summary, seconds=1, peak_mib=None)


def evaluate(run, accuracy, action="ask"):
    figures = {"accuracy": accuracy, "macro_f1": accuracy, "tags": 2, "champion": None, "warnings": []}
    return commit(run, "evaluate", verdict="cannot tell", action=action, **figures)


@pytest.fixture
def run(tmp_path):
    """A run whose model waits for a person, with accuracy 0.93."""
    run = Run(Store(str(tmp_path / "store")), "asked")
    run.begin(Settings(), CREATED)
    commit(run, "ingest", synthetic=True, rows=1)
    commit(run, "train", checkpoint="c", rows=1)
    evaluate(run, 0.93)
    commit(run, "export", rows=1)
    return run


def work_of(run, *, needs_approval=False):
    source = Source.parse(run.existing().settings.source)
    return Work(STAGES["export"], run, run.existing(), run.manifests(), source, None, needs_approval=needs_approval)


def exported(run, **options):
    """Whether the model is published; it may only be refused because nobody approved it."""
    try:
        return publish(work_of(run, **options), run.manifest("export"))["version"]
    except GateNotPassed as error:
        assert "nobody has approved this result, so nothing is published" in str(error)  # noqa: PT017
        return None


@pytest.mark.parametrize("action", ["ask", "publish"])
def test_only_an_approved_result_is_published_where_a_person_is_asked(run, action):
    """Either by the gate, or by the setting of the installation whatever the gate says."""
    options = {"needs_approval": action == "publish"}
    evaluate(run, 0.93, action)
    assert exported(run, **options) is None
    run.approve("ann", "fine", run.evaluated().attempt)
    evaluate(run, 0.51, action)
    assert exported(run, **options) is None
    assert Registry(run.store).events() == []
    run.approve("ann", "fine, too", run.evaluated().attempt)
    assert exported(run, **options)
    assert Registry(run.store).events()[-1].by == "run asked, approved by ann"


@pytest.mark.parametrize("needs_approval", [True, False])
def test_evaluate_or_an_approval_at_any_moment_of_export_publishes_nothing_that_was_not_approved(run, needs_approval):
    action = "publish" if needs_approval else "ask"
    kept = Path(run.store.url).parent / "kept"
    shutil.copytree(run.store.url, kept)
    outcomes = set()
    for number in count(1):
        shutil.rmtree(run.store.url)
        shutil.copytree(kept, run.store.url)
        fired = []

        def meanwhile(fired=fired):
            fired.append(1)
            run.approve("bob", "0.51 is fine, too", evaluate(run, 0.51, action).attempt)

        evaluate(run, 0.93, action)
        run.approve("ann", "0.93 is fine", run.evaluated().attempt)
        with at_call(number, meanwhile):
            version = exported(run, needs_approval=needs_approval)
        if version:
            card, [event] = Registry(run.store).card(version), Registry(run.store).events()
            assert (card.accuracy, event.by.rpartition(" ")[2]) in {(0.93, "ann"), (0.51, "bob")}
            outcomes.add(event.by)
        else:
            outcomes.add("refused")
        if not fired:
            break
    assert outcomes == {"run asked, approved by ann", "run asked, approved by bob", "refused"}
