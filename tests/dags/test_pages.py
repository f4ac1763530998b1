"""The pages in Airflow's UI: who may see them, what they show of runs that the store holds, and how they are marked up.

The DAG is paused, so the runs that are triggered here stay queued: their reports come from runs put into the store.
"""

import json
import shutil
from collections.abc import Callable, Iterator
from urllib.parse import quote

import httpx
import pytest
from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from axe_playwright_python.sync_playwright import Axe
from fastapi.testclient import TestClient
from playwright.sync_api import Page, expect

from pipeline.registry.registry import Registry
from pipeline.report import page as page_of_run
from pipeline.store.run_files import PAGE, REPORT
from pipeline.store.runs import Run
from tests.conftest import CREATED, small_version
from tests.dags.conftest import DAG_ID, Airflow, Server, in_the_browser, servers, standalone, wait_for

DAG = f"/dags/{DAG_ID}"
AIRFLOW_ID = "weekly:2026+01~a"
NOT_BEGUN = {"airflow_run_id": "not_begun:1"}
REASON = "<b>it tags all as perl</b>"
PATHS = ["/tagger/models", "/tagger/report?run_id=finished", "/tagger/report?run_id=../x", "/tagger/"]


@pytest.fixture(scope="module")
def server(new_airflow: Callable[..., Airflow], finished_run: Run, hostile_run: Run) -> Iterator[Server]:
    """Airflow with a user who may read nothing, on a store with a published run, a hostile one, and a rollback."""
    airflow = new_airflow(**servers(), AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS="admin:admin,nobody:")
    shutil.copytree(finished_run.store.url, airflow.home / "store")
    shutil.copytree(f"{hostile_run.store.url}/runs/hostile", airflow.home / "store/runs/hostile")
    store = airflow.store
    record = Run(store, "hostile").existing()
    Run(store, "weekly_2026_01_a").begin(record.settings, CREATED, AIRFLOW_ID)
    Run(store, "not_begun_1").refuse("ingest", "the source that it was given is not a valid URL: correct it", NOT_BEGUN)
    small_version(store, 20260201000000, airflow.home / "small", created=CREATED.replace(month=2))
    Registry(store).rollback(REASON)
    with standalone(airflow) as server:
        wait_for("the DAG is listed", lambda: server.api.get(DAG).is_success, seconds=60, otherwise=server.logs)
        for run in ("finished", "hostile", AIRFLOW_ID, "unknown"):
            answer = server.api.post(f"{DAG}/dagRuns", json={"logical_date": None, "dag_run_id": run})
            answer.raise_for_status()
        yield server


def client(server: Server, user: str | None) -> httpx.Client:
    """A client in which this user has logged in; nobody if None."""
    this = httpx.Client(base_url=server.url, timeout=60, trust_env=False)
    if user:
        passwords = server.airflow.home / "simple_auth_manager_passwords.json.generated"
        login = {"username": user, "password": json.loads(passwords.read_text())[user]}
        this.headers["Authorization"] = f"Bearer {this.post('/auth/token', json=login).json()['access_token']}"
    return this


def routes() -> set[str]:
    """Every address of the app."""
    from tagger_airflow.pages import app

    return {route.path for route in app.routes}


def test_every_address_asks_for_a_login(server):
    assert {f"/tagger{path}" for path in routes()} <= {path.split("?")[0] for path in PATHS}
    for path in PATHS[:3]:
        answer = client(server, None).get(path)
        assert answer.status_code == 401, path
        assert "You are not logged in" in answer.text
        assert "finished" not in answer.text


def test_who_may_not_read_the_dag_sees_nothing(server):
    for path in PATHS[:3]:
        answer = client(server, "nobody").get(path)
        assert answer.status_code == 403, path
        assert f"You may not read the runs of the DAG {DAG_ID}" in answer.text


@pytest.mark.parametrize("path", ["/models", "/models?dag_id=another", "/report?run_id=x&dag_id=another"])
def test_it_is_this_dag_that_a_reader_must_be_allowed(monkeypatch, path):
    """A person who may read another DAG cannot name that one in the address."""
    from airflow.api_fastapi.core_api import security
    from airflow.models import DagModel

    from tagger_airflow import pages

    asked = []

    class AllButThis:
        def is_authorized_dag(self, *, method, access_entity, details, user):
            asked.append((method, access_entity, details.id))
            return details.id != DAG_ID

    monkeypatch.setattr(security, "get_auth_manager", AllButThis)
    monkeypatch.setattr(DagModel, "get_team_name", lambda _: None)  # which would ask Airflow's database
    monkeypatch.setitem(pages.app.dependency_overrides, security.get_user, object)
    answer = TestClient(pages.app).get(path)
    assert answer.status_code == 403
    assert asked == [("GET", DagAccessEntity.RUN, DAG_ID)]


@pytest.mark.parametrize(
    ("query", "status", "sentence"),
    [
        ("run_id=unknown", 404, "Run unknown has no report yet"),
        ("run_id=weekly_2026_01_a", 200, "Not evaluated yet"),
        (f"run_id={quote(AIRFLOW_ID, safe='')}", 200, "Not evaluated yet"),
        ("run_id=weekly%2F2026_01_a", 404, "Run weekly/2026_01_a has no report yet"),
        (
            "run_id=not_begun%3A1",
            404,
            "so it has no report: the source that it was given is not a valid URL: correct it.",
        ),
        ("run_id=not_begun_1", 404, "Run not_begun_1 was refused before it began, so it has no report: "),
        ("run_id=not_begun%2F1", 404, "Run not_begun/1 has no report yet"),
        ("run_id=..", 404, "cannot name a run"),
        (f"run_id=finished&dag_id={DAG_ID}_gc", 404, f"Only runs of {DAG_ID} have a report"),
        ("run_id=finished", 200, "Passed: accuracy"),
        ("run_id=<b>x</b>", 404, "Run &lt;b&gt;x&lt;/b&gt; has no report yet"),
    ],
)
def test_a_report_is_that_of_the_run_asked_for(server, query, status, sentence):
    answer = client(server, "admin").get(f"/tagger/report?{query}")
    assert (answer.status_code, sentence in answer.text) == (status, True), answer.text


def test_a_report_without_a_run_is_refused_with_a_sentence(server):
    assert client(server, "admin").get("/tagger/report").status_code == 422


def test_a_report_that_is_older_than_the_runs_results_is_made_again(server):
    run = Run(server.airflow.store, "weekly_2026_01_a")
    assert "Refused: no post" not in client(server, "admin").get("/tagger/report", params={"run_id": run.name}).text
    run.refuse("ingest", "no post was usable")
    assert "no post was usable" in client(server, "admin").get("/tagger/report", params={"run_id": run.name}).text
    run.withdraw_refusal("ingest")


SCRIPT = "<title>forged</title><script>document.title = 'ran'</script><img src=x onerror=\"document.title = 'ran'\">"


@pytest.fixture
def forged(server, tmp_path):
    """The address of a run whose report somebody who may write to the store has replaced by a script."""
    run = Run(server.airflow.store, "weekly_2026_01_a")
    (tmp_path / page_of_run.FILE).write_text(SCRIPT)
    run.files.save(REPORT, PAGE, tmp_path, run.manifests())
    yield f"{server.url}/tagger/report?run_id={run.name}"
    server.airflow.store.remove(f"{run.path}/{REPORT}")


def test_no_answer_lets_a_script_run(server, forged):
    assert SCRIPT in client(server, "admin").get(forged).text
    for user in (None, "nobody", "admin"):
        for path in (*PATHS, forged, "/tagger/report"):
            headers = client(server, user).get(path).headers
            policy = dict(rule.strip().partition(" ")[::2] for rule in headers["content-security-policy"].split(";"))
            assert policy["default-src"] == "'none'"
            assert not {"script-src", "script-src-elem", "script-src-attr", "object-src"} & policy.keys()
            assert (policy["base-uri"], policy["form-action"]) == ("'none'", "'none'")
            assert headers["x-content-type-options"] == "nosniff"


@in_the_browser
def test_a_script_in_a_stored_report_does_not_run(forged, page):
    page.goto(forged)
    page.wait_for_load_state("networkidle")
    assert page.title() == "forged"


def test_a_damaged_store_is_one_sentence(server):
    card = server.airflow.home / "store/registry"
    documents = sorted(path for path in card.rglob("*.json") if "20260201000000" in path.name)
    before = documents[0].read_bytes()
    documents[0].write_bytes(before.replace(b"accuracy", b"accurasy"))
    answer = client(server, "admin").get("/tagger/models")
    documents[0].write_bytes(before)
    assert answer.status_code == 503
    assert "20260201000000" in answer.text
    assert "Traceback" not in answer.text


@in_the_browser
def test_the_tab_of_a_run_is_its_report(server, page, picture):
    page.goto(f"{server.url}{DAG}/runs/finished")
    page.get_by_role("link", name="Report", exact=True).click()
    expect(page.frame_locator("iframe[title=Report]").get_by_text("Passed: accuracy")).to_be_visible()
    picture("report-passed")


@in_the_browser
def test_the_tab_of_a_task_is_the_report_of_its_run(server, page, picture):
    page.goto(f"{server.url}{DAG}/runs/finished/tasks/evaluate")
    page.get_by_role("link", name="Report", exact=True).click()
    expect(page.frame_locator("iframe[title=Report]").get_by_text("Passed: accuracy")).to_be_visible()
    picture("report-task")


@in_the_browser
def test_the_tab_works_for_a_run_id_with_signs(server, page):
    page.goto(f"{server.url}{DAG}/runs/{quote(AIRFLOW_ID, safe='')}/plugin/report")
    expect(page.frame_locator("iframe[title=Report]").get_by_text("Not evaluated yet")).to_be_visible()


@in_the_browser
def test_models_says_what_is_live_since_the_rollback_and_why(server, page, picture):
    page.goto(server.url)
    page.get_by_role("link", name="Models").click()
    shown = page.frame_locator("iframe[title=Models]")
    version = Run(server.airflow.store, "finished").existing().first_version
    expect(shown.get_by_text(f"Version {version} is live since")).to_be_visible()
    expect(shown.get_by_text("Rolled back by")).to_contain_text(REASON)
    expect(shown.get_by_role("table").first.get_by_role("row")).to_have_count(3)
    expect(shown.get_by_role("table").last.get_by_role("row")).to_have_count(4)
    picture("models")
    shown.get_by_role("link", name="finished").first.click()
    expect(shown.get_by_text("Passed: accuracy")).to_be_visible()


@in_the_browser
def test_hostile_posts_stay_text(server, page, picture):
    said = []
    page.on("dialog", lambda dialog: said.append(dialog.message) or dialog.dismiss())
    page.goto(f"{server.url}/tagger/report?run_id=hostile")
    expect(page.get_by_text("<script>alert(1)</script>").first).to_be_visible()
    assert page.locator("script, img, b").count() == 0
    assert said == []
    picture("report-hostile")


@in_the_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("path", ["report?run_id=finished", "report?run_id=hostile", "models", "report?run_id=unknown"])
def test_the_pages_are_accessible(server, page: Page, path, scheme):
    page.emulate_media(color_scheme=scheme)
    page.goto(f"{server.url}/tagger/{path}")
    found = Axe().run(page).response["violations"]
    page.emulate_media(color_scheme="no-preference")
    assert [(each["id"], each["impact"], [node["html"][:120] for node in each["nodes"][:3]]) for each in found] == []
