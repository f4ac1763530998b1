"""A person who approves or rejects a model in Airflow's UI before it is published, and runs in which nobody can."""

from collections.abc import Callable, Iterator
from urllib.parse import quote

import pytest
from markdown_it import MarkdownIt
from playwright.sync_api import Page, expect

from pipeline.registry.registry import Registry
from pipeline.run.runner import run_stage
from pipeline.store.runs import Run
from tagger_airflow.approval import question
from tests.dags.conftest import DAG_ID, Airflow, Server, in_the_browser, servers, standalone, wait_for
from tests.dags.mail import MailServer, mail_server

APPROVED, REJECTED, WHY = "approved_run", "rejected_run", "better on *c++*"
DAG = f"/dags/{DAG_ID}"
DATE = "2026-01-05"
SAME = {"TAGGER_MAX_REGRESSION": "0.2", "TAGGER_APPROVAL": "on"}


@pytest.fixture(scope="module")
def mail() -> Iterator[MailServer]:
    with mail_server() as server:
        yield server


@pytest.fixture(scope="module")
def server(new_airflow: Callable[..., Airflow], mail: MailServer) -> Iterator[Server]:
    told = mail.variables | {"TAGGER_NOTIFY": "smtp:ops@example.org", "TAGGER_LATE_HOURS": "0.002"}
    with standalone(new_airflow(**servers(), **SAME, **told, TAGGER_SCHEDULE="none")) as server:
        wait_for("the DAG is listed", lambda: server.api.get(DAG).is_success, seconds=60, otherwise=server.logs)
        yield server


@pytest.fixture(scope="module")
def ask(server: Server) -> Callable[[str, int], str]:
    """Start a run; the address of its question, once it waits for an answer.

    Airflow 3.3.2 takes the end of the process that asked for the end of one that resumes within those seconds, and
    asks again; so the scheduler must have seen that end.
    """

    def path(run: str) -> str:
        return f"{DAG}/dagRuns/{quote(run)}/taskInstances/approve"

    def begin(run: str, epochs: int) -> bool:
        conf = {"logical_date": None, "dag_run_id": run, "conf": {"epochs": epochs}}
        started = server.api.post(f"{DAG}/dagRuns", json=conf)
        return (started.is_success or started.status_code == 409) and server.api.patch(
            DAG, json={"is_paused": False}
        ).is_success

    def asked(run: str, epochs: int) -> str:
        wait_for("the run starts", lambda: begin(run, epochs), seconds=60, otherwise=server.logs)
        waits = lambda: server.get(path(run))["state"] == "awaiting_input"  # noqa: E731
        wait_for("the run asks", waits, seconds=180, otherwise=server.logs)
        ended = f"Finished: dag_id={DAG_ID}, task_id=approve, run_id={run},"
        seen = lambda: ended in server.log.read_text()  # noqa: E731
        wait_for("the scheduler sees that the question is asked", seen, seconds=60, otherwise=server.logs)
        return f"{server.url}{DAG}/runs/{quote(run)}/tasks/approve/required_actions"

    return asked


def answer(page: Page, button: str) -> None:
    """Press the button; then show nothing, because a page of Airflow's that is looked at takes a core to itself."""
    with page.expect_response(lambda response: response.request.method == "PATCH"):
        page.get_by_role("button", name=button).click()
    page.goto("about:blank")


def ended(server: Server, run: str) -> dict[str, str]:
    """The states of the run's tasks, once it has ended."""

    def look() -> bool:
        return server.get(f"{DAG}/dagRuns/{quote(run)}")["state"] in {"success", "failed"}

    wait_for("the run ends", look, seconds=180, otherwise=server.logs)
    tasks = server.get(f"{DAG}/dagRuns/{quote(run)}/taskInstances")["task_instances"]
    return {task["task_id"]: task["state"] for task in tasks}


@in_the_browser
def test_an_approved_model_goes_live_and_the_log_says_by_whom_and_why(server, page, picture, ask, mail):
    page.goto(ask(APPROVED, 3))
    expect(page.get_by_text("Passed: accuracy")).to_be_visible()
    expect(page.get_by_text("no model was live to compare with")).to_be_visible()
    link = page.get_by_role("link", name="The report").get_attribute("href")
    assert link == f"{server.url}{DAG}/runs/{APPROVED}/plugin/report"
    assert Registry(server.airflow.store).live() is None
    expect(page.get_by_role("button", name="Approve")).to_be_disabled()
    page.locator("[name=element_why]").fill(WHY)
    picture("approval")
    answer(page, "Approve")
    assert set(ended(server, APPROVED).values()) == {"success"}
    [event] = Registry(server.airflow.store).events()
    assert (event.live, event.by, event.reason) == (event.version, f"run {APPROVED}, approved by {server.user}", WHY)
    late, asked, published = mail.sentences
    assert late == f"run {APPROVED} is late: it has not ended within 0.002 hours"
    assert asked == f"run {APPROVED} waits for an approval in Airflow's UI, under Required Actions"
    assert published.startswith(f"run {APPROVED} published version {event.version}, accuracy ")
    page.goto(f"{server.url}/plugin/models")
    expect(page.frame_locator("iframe[title=Models]").get_by_text(WHY).first).to_be_visible()
    picture("models-approved")


@in_the_browser
def test_a_rejected_model_is_not_published_and_its_report_says_who_rejected_it(server, page, picture, ask, mail):
    before = Registry(server.airflow.store).events()
    page.goto(ask(REJECTED, 2))
    page.locator("[name=element_why]").fill("too sure of itself")
    answer(page, "Reject")
    states = ended(server, REJECTED)
    assert (states["approve"], states["export"]) == ("success", "skipped")
    assert Registry(server.airflow.store).events() == before
    said = f"rejected by {server.user}: too sure of itself"
    assert Run(server.airflow.store, REJECTED).refusal().why == said
    assert mail.sentences[-1] == f"run {REJECTED} was {said}"
    page.goto(f"{server.url}{DAG}/runs/{REJECTED}/plugin/report")
    shown = page.frame_locator("iframe[title=Report]")
    expect(shown.get_by_text(said)).to_be_visible()
    expect(shown.get_by_text("Passed the gate, but was refused after it")).to_be_visible()
    picture("report-rejected")


@pytest.fixture(scope="module")
def airflow(new_airflow: Callable[..., Airflow]) -> Airflow:
    """One store for the runs below, so that only the first of them trains."""
    return new_airflow(**SAME)


@pytest.mark.thorough
def test_an_experiment_is_not_asked_about(airflow):
    done = airflow("dags", "test", DAG_ID, TAGGER_PUBLISH="false")
    assert done.returncode == 0, done.stdout
    assert "nothing is asked, because the run's setting publish is false" in done.stdout
    [run] = airflow.store.names("runs")
    assert Run(airflow.store, run).manifest("export") is not None


def test_a_run_that_nobody_can_approve_ends_and_publishes_nothing(airflow):
    done = airflow("dags", "test", DAG_ID)
    assert done.returncode == 0, done.stdout
    assert "under `airflow dags test` or `tasks test` nobody can approve" in done.stdout
    assert Registry(airflow.store).events() == []


def test_export_alone_does_not_publish_what_nobody_approved(airflow):
    for stage in ("ingest", "fit_vocabulary", "vectorize", "train", "evaluate", "approve", "export"):
        done = airflow("tasks", "test", DAG_ID, stage, DATE)
    run = "test__2026-01-05T00_00_00_00_00"
    assert f"TAGGER_APPROVAL is on for run {run}, and nobody has approved this result" in done.stdout
    assert Registry(airflow.store).events() == []
    done = airflow("tasks", "test", DAG_ID, "export", DATE, TAGGER_APPROVAL="off")
    assert len(Registry(airflow.store).events()) == 1, done.stdout


def test_what_the_gate_cannot_tell_waits_for_an_approval_that_may_come_from_the_terminal(airflow):
    unsure = {"TAGGER_APPROVAL": "off", "TAGGER_WHEN_UNSURE": "ask", "TAGGER_MAX_REGRESSION": "0.01"}
    before = airflow.store.names("runs")
    done = airflow("dags", "test", DAG_ID, TAGGER_EPOCHS="3", TAGGER_MIN_COMPARED_POSTS="100000", **unsure)
    assert "a person is to approve the model" in done.stdout
    assert len(Registry(airflow.store).events()) == 1
    [name] = set(airflow.store.names("runs")) - set(before)
    run = Run(airflow.store, name)
    assert run.manifest("evaluate").summary["action"] == "ask"
    run.approve("Ada", "the posts are right", run.evaluated().attempt)
    assert run_stage("export", run)["live"]
    assert Registry(airflow.store).events()[-1].by == f"run {name}, approved by Ada"


def test_an_approval_counts_for_the_model_that_was_seen_only(finished_run):
    run = finished_run
    assert run.approval() is None
    run.approve("ann", "fine", run.evaluated().attempt)
    assert (run.approval().by, run.approval().why) == ("ann", "fine")
    evaluated = run.manifest("evaluate")
    run.adopt(evaluated.model_copy(update={"attempt": "20260101T000000-00000000"}))
    try:
        assert run.approval() is None
    finally:
        run.adopt(evaluated)
        run.store.remove(f"{run.path}/approved.json")


def test_nothing_in_the_question_acts_as_markdown(finished_run):
    """A warning names tags, which come from the posts."""
    hostile = "recall of tag '<img src=x>[a](http://evil.example)**b**' fell"
    evaluated = finished_run.manifest("evaluate")
    finished_run.adopt(evaluated.model_copy(update={"summary": evaluated.summary | {"warnings": [hostile]}}))
    try:
        asked = MarkdownIt().render(question(finished_run, "http://airflow.example/report", 72))
    finally:
        finished_run.adopt(evaluated)
    assert [part for part in ("<img", 'evil.example"', "<strong>b") if part in asked] == []
    assert '<a href="http://airflow.example/report">' in asked
    assert "<strong>Passed: accuracy" in asked
