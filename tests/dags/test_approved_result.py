"""The answer in Airflow's UI counts for the result of evaluate that the question showed, and for no other."""

from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
from airflow.providers.standard.operators import hitl
from airflow.sdk.exceptions import TaskAwaitingInput

from pipeline.settings import Deployment, Settings
from pipeline.store.objects import Store
from pipeline.store.runs import Run
from tagger_airflow.approval import Approval, approval
from tagger_airflow.failures import Refused
from tagger_airflow.notify import Tell
from tests.registry.interleaving import at_call

RUN = "manual__1"
CONTEXT = {
    "dag_run": SimpleNamespace(run_id=RUN, dag_id="stackoverflow_tagger", triggering_user_name="ann"),
    "logical_date": None,
    "task_instance": SimpleNamespace(id="1"),
    "ti": SimpleNamespace(id="1", task_id="approve", xcom_push=lambda **_: None),
}


@pytest.fixture
def run(tmp_path):
    run = Run(Store(str(tmp_path / "store")), RUN)
    run.begin(Settings(), datetime.now(UTC), RUN)
    evaluate(run, 0.93)
    return run


def evaluate(run, accuracy):
    folder = Path(run.store.url).parent / f"evaluated{accuracy}"
    folder.mkdir(exist_ok=True)
    (folder / "evaluation.json").write_text(f'{{"verdict": "passed", "accuracy": {accuracy}, "rows": 9}}')
    summary = {"accuracy": accuracy, "verdict": "passed", "warnings": []}
    run.commit("evaluate", folder, inputs={}, summary=summary, seconds=1, peak_mib=None)


@pytest.fixture
def ask(run, monkeypatch):
    """A function that asks as Airflow does, and returns the fields of the form, and the text."""

    def do():
        asked = {}
        monkeypatch.setattr(hitl, "upsert_hitl_detail", lambda **detail: asked.update(detail))
        monkeypatch.setattr(Tell, "asked", lambda *_: None)
        operator = operator_of(run)
        with pytest.raises(TaskAwaitingInput):
            operator.execute(CONTEXT)
        fields = {name: each["value"] for name, each in asked["params"].items()}
        return fields, asked["body"]

    return do


def operator_of(run) -> Approval:
    deployment = Deployment.of({"store": run.store.url, "approval": True})
    made = approval(deployment, Tell(deployment))
    made.notifiers = []
    return made


def answer(run, fields, chosen="Approve"):
    """Answer as Airflow does: by another object of the task, made from the file of the DAG."""
    event = {"chosen_options": [chosen], "params_input": fields, "responded_at": datetime.now(UTC)}
    operator_of(run).execute_complete(CONTEXT, event | {"responded_by_user": {"id": "1", "name": "ann"}})


def test_an_answer_approves_the_result_that_was_asked_about(run, ask):
    fields, text = ask()
    assert "0\\.9300" in text
    answer(run, fields | {"why": "0.93 is fine"})
    assert (run.approval().by, run.approval().why) == ("ann", "0.93 is fine")
    assert run.approval().evaluated == run.evaluated().path


def test_the_form_does_not_show_the_field_of_the_result(run, ask, monkeypatch):
    asked = {}
    monkeypatch.setattr(hitl, "upsert_hitl_detail", lambda **detail: asked.update(detail))
    with pytest.raises(TaskAwaitingInput):
        operator_of(run).execute(CONTEXT)
    assert asked["params"]["evaluated"]["schema"]["const"] == run.evaluated().attempt


@pytest.mark.parametrize(
    "fields", [None, {}, {"why": "x", "evaluated": ""}, {"why": "x", "evaluated": "20260101T000000-00000000"}]
)
def test_an_answer_that_does_not_say_what_was_seen_approves_nothing(run, ask, fields):
    ask()
    with pytest.raises(Refused):
        answer(run, fields)
    assert run.approval() is None


def test_evaluate_that_is_run_again_before_the_answer_makes_it_count_for_nothing(run, ask, caplog):
    fields, _ = ask()
    evaluate(run, 0.51)
    with pytest.raises(Refused):
        answer(run, fields)
    assert run.approval() is None
    assert "nothing is approved, because evaluate of run manual__1 left" in caplog.text
    assert "with accuracy 0.5100, and 20" in caplog.text
    again, text = ask()
    assert "0\\.5100" in text
    answer(run, again)
    assert run.approval().by == "ann"


@pytest.mark.parametrize("moment", ["question", "answer"])
def test_evaluate_that_is_run_again_at_any_moment_is_not_approved_by_the_figures_of_before(run, ask, moment):
    """At each call of the store while the question is made, or the answer is noted."""
    number, fired = 0, [True]
    while fired:
        number, fired = number + 1, []

        def again():
            fired.append(1)  # noqa: B023
            evaluate(run, 0.51)

        evaluate(run, 0.93)
        if moment == "question":
            with at_call(number, again):
                fields, text = ask()
        else:
            fields, text = ask()
        try:
            with at_call(number if moment == "answer" else 10_000, again):
                answer(run, fields)
        except Refused:
            assert run.approval() is None
        approved = run.approval()
        assert not approved or f"0\\.{round(run.evaluated().summary['accuracy'] * 10_000)}" in text
    assert number > 3
