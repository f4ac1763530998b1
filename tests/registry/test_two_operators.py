"""Two people at once: the whole of one operation happens at each store call of another one."""

import re
import shutil
from datetime import UTC, datetime
from itertools import count, permutations
from pathlib import Path

import pytest

from pipeline.errors import BadInput, StageOutOfOrder
from pipeline.registry.registry import Registry
from pipeline.settings import Settings
from pipeline.store.objects import Store
from pipeline.store.runs import Run
from pipeline.upkeep.verify import verify
from tests.conftest import attempts, small_version
from tests.registry.interleaving import at_call

BEFORE = datetime(2026, 1, 5, tzinfo=UTC)
NEW_RUN = "run4"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A store with versions 1 to 3, a fourth run that can be published, and one that is evaluated with 0.93."""
    folder = tmp_path_factory.mktemp("made")
    store = Store(str(folder / "store"))
    for number in (1, 2, 3):
        small_version(store, number, folder, created=BEFORE.replace(day=number))
    small_version(store, 4, folder, created=BEFORE.replace(day=4), publish=False)
    run = Run(store, "asked")
    run.begin(Settings(), BEFORE)
    evaluate(run, 0.93)
    return folder / "store"


def evaluate(run, accuracy):
    folder = Path(run.store.url).parent / f"evaluated{accuracy}"
    folder.mkdir(exist_ok=True)
    (folder / "evaluation.json").write_text(str(accuracy))
    run.commit("evaluate", folder, inputs={}, summary={"accuracy": accuracy}, seconds=1, peak_mib=1)


def promote(store):
    return Registry(store).promote(1, "the oldest was best")


def roll_back(store):
    return Registry(store).rollback("3 is bad", 3)


def publish(store):
    run, third = Run(store, NEW_RUN), Registry(store).card(3)
    exported = run.manifest("export")
    changed = {"version": 4, "run": run.name, "path": exported.path, "checkpoint": "4", "files": exported.files}
    return Registry(store).publish(third.model_copy(update=changed | {"data": BEFORE.isoformat()}), compared_with=3)


def approve(store):
    run = Run(store, "asked")
    run.approve("ann", "0.93 is fine", attempts(run, "evaluate")[0])


def evaluate_again(store):
    evaluate(Run(store, "asked"), 0.51)


LIVE = {promote: 1, roll_back: 2, publish: 4}
"""The operations that change what is live, with the version that each makes live."""

REFUSALS = {
    roll_back: (BadInput, r"nothing was changed|completed just now"),
    publish: (StageOutOfOrder, "went live since"),
    approve: (StageOutOfOrder, "nothing is approved"),
}
"""The operations that may be refused, with the error and its sentence."""


def attempt(act, store):
    """Whether the operation succeeded; it may only be refused in its own sentence."""
    refusal, said = REFUSALS.get(act, ((), ""))
    try:
        act(store)
    except refusal as error:
        if re.search(said, str(error)):
            return False
        raise
    return True


def interleaved(act, other, made, folder):
    """The store, and which of the two succeeded, for each call of `act` at which the whole of `other` happens."""
    for number in count(1):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(made, folder)
        done = {}

        def meanwhile(done=done):
            done["other"] = attempt(other, Store(str(folder)))

        with at_call(number, meanwhile):
            done["act"] = attempt(act, Store(str(folder)))
        if "other" not in done:
            assert number > 2, "so many calls there were"
            return
        yield Store(str(folder)), [each for each, who in ((other, "other"), (act, "act")) if done[who]]


@pytest.mark.parametrize("other", LIVE)
@pytest.mark.parametrize("act", LIVE)
def test_the_log_has_what_each_was_told_and_the_serving_directory_follows(act, other, made, tmp_path):
    for store, succeeded in interleaved(act, other, made, tmp_path / "store"):
        registry = Registry(store)
        events = registry.events()[3:]
        once = dict.fromkeys(succeeded) if act == publish else succeeded  # of two exports of a run one publishes
        assert [event.live for event in events] in ([LIVE[each] for each in order] for order in permutations(once))
        assert registry.disagreement() is None
        assert verify(store).faults == []


def test_a_rollback_that_names_no_version_takes_down_the_one_it_found(made, tmp_path):
    """But where the other one has ended before this one looks what is live, which is at its first call."""

    def roll_back_the_live_one(store):
        return Registry(store).rollback("it is bad")

    REFUSALS[roll_back_the_live_one] = REFUSALS[roll_back]
    outcomes = [
        [event.live for event in Registry(store).events()[3:]]
        for store, _ in interleaved(roll_back_the_live_one, roll_back, made, tmp_path / "store")
    ]
    assert outcomes[0] == [2, 1]
    assert outcomes[1:] == [[2]] * len(outcomes[1:])


def test_an_approval_counts_for_what_was_seen_whenever_evaluate_is_run_again(made, tmp_path):
    outcomes = set()
    for store, succeeded in interleaved(approve, evaluate_again, made, tmp_path / "store"):
        run = Run(store, "asked")
        assert run.evaluated().summary["accuracy"] == 0.51
        assert run.approval() is None
        outcomes.add(approve in succeeded)
    assert outcomes == {True, False}


@pytest.mark.parametrize("again", [approve, evaluate_again])
def test_what_export_publishes_is_what_was_approved(again, made, tmp_path):
    """It reads the manifest once, and asks for the approval of that one."""
    for store, _ in interleaved(lambda store: export_asks(store), again, made, tmp_path / "store"):
        approved = store.read("runs/asked/export-saw.json")
        assert approved is None or approved["accuracy"] == 0.93


def export_asks(store):
    run = Run(store, "asked")
    evaluated = run.manifests()["evaluate"]
    if run.approval(evaluated):
        store.write("runs/asked/export-saw.json", {"accuracy": evaluated.summary["accuracy"]})


def begin_and_ingest(epochs):
    """What a command does that runs two stages, with these settings."""

    def act(store):
        run = Run(store, "new")
        run.begin(Settings(epochs=epochs), BEFORE)
        for stage, needs in (("ingest", []), ("fit_vocabulary", ["ingest"])):
            settings, inputs = run.existing().settings, run.inputs(stage, needs)
            folder = Path(store.url).parent / f"out{epochs}"
            folder.mkdir(exist_ok=True)
            (folder / "file").write_text(f"made with {settings.epochs}")
            run.commit(stage, folder, inputs=inputs, summary={}, seconds=1, peak_mib=1)

    REFUSALS[act] = ((BadInput, StageOutOfOrder), "other settings")
    return act


def test_of_two_that_begin_a_run_with_other_settings_no_two_go_on(made, tmp_path):
    five, seven = begin_and_ingest(5), begin_and_ingest(7)
    outcomes = set()
    for store, succeeded in interleaved(five, seven, made, tmp_path / "store"):
        assert len(succeeded) <= 1
        run = Run(store, "new")
        expected = f"made with {run.existing().settings.epochs}".encode()
        made_with = [store.read_bytes(f"{each.path}/file") for each in run.manifests().values()]
        if made_with == [expected, expected]:
            assert run.inputs("vectorize", ["ingest", "fit_vocabulary"])
            outcomes.add("consistent")
            continue
        # One that had been refused has written its manifest over the other's: whoever goes on is told.
        with pytest.raises(StageOutOfOrder, match=r"other settings than run\.json has now|is not complete"):
            run.inputs("vectorize", ["ingest", "fit_vocabulary"])
        outcomes.add("refused")
    assert outcomes == {"consistent", "refused"}
