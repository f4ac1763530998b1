"""A person at the browser, the clock, and the REST API, each starting runs of one `airflow standalone`."""

import json
import re
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import httpx
import pytest
from playwright import sync_api as playwright
from playwright.sync_api import Locator, Page, expect

from pipeline.registry.registry import Card, Registry
from pipeline.settings import Deployment, Settings, trigger_form
from pipeline.stages.plan import STAGES
from pipeline.store.runs import Run, name_of
from tests.dags.conftest import (
    DAG_ID,
    PATIENCE,
    SMALL,
    Airflow,
    Server,
    free_ports,
    in_the_browser,
    servers,
    standalone,
    wait_for,
)

TOLERANCE = 0.1
"""As max_regression: two epochs on other posts, as the clock starts them, are a little worse than the typed three."""

PARAMS = trigger_form(Settings(max_regression=TOLERANCE), Deployment())
"""The trigger form's fields."""

TYPED = {"source": "sample://posts?rows=2000&seed=3", "epochs": 3}
DAG = f"/dags/{DAG_ID}"
README_PICTURE = {"width": 1280, "height": 860}
"""The window in which `make picture` takes README's picture of a finished run."""

RUNS = f"{DAG}/dagRuns"


@pytest.fixture(scope="module")
def missing_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sources") / "posts.csv"


@pytest.fixture(scope="module")
def closed_port() -> str:
    return free_ports(1)[0]


@pytest.fixture(scope="module")
def allowed(missing_file: Path, closed_port: str) -> str:
    return f"sample://, {missing_file.parent}, http://127.0.0.1:{closed_port}"


@pytest.fixture(scope="module")
def server(new_airflow: Callable[..., Airflow], allowed: str) -> Iterator[Server]:
    airflow = new_airflow(
        **servers(),
        TAGGER_SCHEDULE="* * * * *",
        TAGGER_MAX_REGRESSION=str(TOLERANCE),
        TAGGER_ALLOWED_SOURCES=allowed,
        AIRFLOW__CORE__PARALLELISM="4",
    )
    with standalone(airflow) as server:
        wait_for("the DAG is listed", lambda: server.api.get(DAG).is_success, seconds=60, otherwise=server.logs)
        yield server


@contextmanager
def size_of(page: Page, size: dict[str, int]) -> Iterator[None]:
    """The window in another size for a while."""
    usual = page.viewport_size
    page.set_viewport_size(size)
    yield
    page.set_viewport_size(usual)


@dataclass(frozen=True)
class Started:
    """Run ids: the one typed into the form, and before it one started over REST, whose posts are not there.

    `answers` are the statuses of two requests, unpause and trigger, sent as the form sends them while the database was
    locked.
    """

    answers: tuple[int, int]
    typed: str
    refused: str
    missing_file: Path


@pytest.fixture(scope="module")
def started(request: pytest.FixtureRequest, server: Server, missing_file: Path) -> Started:
    """Where there is no browser, the run is not typed but started over REST, too."""
    with locked_for(7, server.airflow.home / "airflow.db"):
        unpause = server.api.patch(DAG, json={"is_paused": False})
        trigger = post_run(server, source=str(missing_file))
    refused = trigger.json()["dag_run_id"] if trigger.is_success else trigger_by_rest(server, source=str(missing_file))
    if shutil.which("chromium"):
        pause(server)  # the form is to unpause it
        window, picture = (request.getfixturevalue(name) for name in ("window", "picture"))
        typed = trigger_by_hand(server, window, picture)
        window.goto("about:blank")
    else:
        typed = trigger_by_rest(server, **TYPED)
    return Started(
        answers=(unpause.status_code, trigger.status_code),
        typed=typed,
        refused=refused,
        missing_file=missing_file,
    )


@contextmanager
def locked_for(seconds: float, database: Path) -> Iterator[None]:
    """Hold the right to write to an SQLite database until so many seconds have passed."""
    taken = threading.Event()

    def hold() -> None:
        with closing(sqlite3.connect(database, timeout=60)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            taken.set()
            time.sleep(seconds)

    holder = threading.Thread(target=hold)
    holder.start()
    assert taken.wait(60)
    yield
    holder.join()


def pause(server: Server) -> None:
    wait_for(
        "the DAG is paused",
        lambda: server.api.patch(DAG, json={"is_paused": True}).is_success,
        seconds=60,
        otherwise=server.logs,
    )


def trigger_by_hand(server: Server, page: Page, picture: Callable[[str], None]) -> str:
    avoid_the_full_minute()
    form = open_form(server, page)
    open_section(form, "source")
    form.locator("[name=element_source]").fill(str(TYPED["source"]))
    picture("form-source")
    open_section(form, "epochs")
    form.locator("[name=element_epochs]").fill(str(TYPED["epochs"]))
    expect(form.get_by_role("checkbox", name=f"Unpause {DAG_ID} on trigger")).to_be_checked()
    picture("form-epochs")
    press_trigger(form, page)
    return unquote(page.url.rsplit("/", 1)[-1])


def press_trigger(form: Locator, page: Page) -> None:
    """Press until the page of the new run opens: a form that the server refused for a locked database stays open."""
    for last_try in (False, False, True):
        form.get_by_role("button", name="Trigger", exact=True).click()
        try:
            page.wait_for_url("**/runs/manual__*", timeout=15_000 * PATIENCE)
            return
        except playwright.TimeoutError:
            if last_try:
                raise


def avoid_the_full_minute() -> None:
    """The form proposes the present second as logical date, and the schedule takes every full minute's."""
    second = time.time() % 60
    if second > 45 or second < 1:
        time.sleep((62 - second) % 60)


def open_form(server: Server, page: Page) -> Locator:
    page.goto(server.url + DAG)
    page.get_by_role("button", name="Trigger Dag").click()
    return page.get_by_role("dialog")


def open_section(form: Locator, setting: str) -> None:
    """Airflow calls the section of settings that name none Run Parameters."""
    section = form.get_by_role("button", name=PARAMS[setting].get("section", "Run Parameters"), exact=True)
    section.wait_for()
    if section.get_attribute("aria-expanded") != "true":
        section.click()


def post_run(server: Server, **conf: object) -> httpx.Response:
    return server.api.post(RUNS, json={"logical_date": None, "conf": conf})


def trigger_by_rest(server: Server, **conf: object) -> str:
    """The new run's id. Airflow answers 500 where SQLite is locked by another of its processes: then asked again."""

    def post() -> str | None:
        answer = post_run(server, **conf)
        assert answer.is_success or answer.is_server_error, answer.text
        return answer.json()["dag_run_id"] if answer.is_success else None

    return wait_for("the server takes a run", post, seconds=60, otherwise=server.logs)


@pytest.fixture(scope="module")
def typed(server: Server, started: Started) -> str:
    """The run typed into the form, once it has succeeded."""

    def look() -> str | None:
        state = server.get(f"{RUNS}/{quote(started.typed)}")["state"]
        return state if state in {"success", "failed"} else None

    assert wait_for("the run has ended", look, seconds=300, otherwise=server.logs) == "success", server.logs()
    return started.typed


@pytest.fixture(scope="module")
def unreachable(server: Server, typed: str, closed_port: str) -> str:
    """A run whose source does not answer, queued behind one that the clock started: its retries would hold that up."""

    def look() -> bool:
        return bool(server.get(RUNS, run_type="scheduled")["dag_runs"])

    wait_for("the clock starts a run", look, seconds=120, otherwise=server.logs)
    return trigger_by_rest(server, source=f"http://127.0.0.1:{closed_port}/posts.csv")


@pytest.fixture(scope="module")
def scheduled(server: Server, unreachable: str) -> str:
    """The first run that the clock started, once it has succeeded."""

    def look() -> str | None:
        ended = server.get(RUNS, run_type="scheduled", state="success", order_by="run_after")["dag_runs"]
        return ended[0]["dag_run_id"] if ended else None

    return wait_for("a scheduled run succeeds", look, seconds=300, otherwise=server.logs)


@pytest.fixture(scope="module")
def tried(server: Server, started: Started, unreachable: str, scheduled: str) -> dict[str, dict[str, Any]]:
    """The task instances `ingest` of the two runs that cannot get posts; after that the DAG is paused."""

    def look() -> dict[str, dict[str, Any]] | None:
        runs = (started.refused, unreachable)
        ingests = {run: server.get(f"{RUNS}/{quote(run)}/taskInstances/ingest") for run in runs}
        return ingests if all(each["state"] in {"failed", "up_for_retry"} for each in ingests.values()) else None

    found = wait_for("both ingests without posts have failed", look, seconds=240, otherwise=server.logs)
    pause(server)
    return found


def card_of(server: Server, run: str) -> Card:
    """The one version that the run published."""
    [card] = [card for card in Registry(server.airflow.store).cards() if card.run == name_of(run)]
    return card


@in_the_browser
def test_the_documentation_is_shown(server, page, picture):
    page.goto(server.url + DAG)
    page.get_by_role("button", name="Dag Docs").click()
    expect(page.get_by_role("dialog").get_by_role("listitem")).to_have_count(4)
    picture("documentation")


@in_the_browser
def test_the_form_shows_and_explains_every_setting(server, page, allowed):
    form = open_form(server, page)
    for name, param in trigger_form(Settings(), Deployment.of({"allowed_sources": allowed})).items():
        open_section(form, name)
        expect(form.get_by_text(param["description"])).to_be_visible()
        expect(form.get_by_text(re.compile(rf"^{name}\b")).first).to_be_visible()


def test_a_trigger_that_unpauses_waits_for_a_locked_database(started):
    """By default Airflow gives up after five seconds: the form closes, and the run is queued for ever."""
    assert started.answers == (200, 200)


@in_the_browser
def test_a_run_typed_into_the_form_turns_green_in_the_browser(server, page, picture, typed):
    page.goto(f"{server.url}{DAG}/runs/{quote(typed)}")
    expect(page.get_by_test_id("state-badge").first).to_have_text("Success")
    expect(page.get_by_test_id("table-cell-state")).to_have_text(["Success"] * len(STAGES))
    assert sorted(page.get_by_test_id("table-list").get_by_role("link").all_inner_texts()) == sorted(STAGES)
    with size_of(page, README_PICTURE):
        expect(page.get_by_test_id("table-cell-state").last).to_be_in_viewport(ratio=1)
        picture("run")


def test_its_settings_are_those_typed(server, typed):
    settings = Run(server.airflow.store, name_of(typed)).existing().settings
    assert settings.model_dump() == Settings.of(TYPED | {"max_regression": TOLERANCE}).model_dump()


@in_the_browser
def test_its_log_tells_the_published_version(server, page, picture, typed):
    page.goto(f"{server.url}{DAG}/runs/{quote(typed)}/tasks/export")
    expect(page.get_by_text(f"version {card_of(server, typed).version} is published")).to_be_visible()
    picture("log")


def test_its_logs_hold_its_own_warnings_only_and_nothing_that_a_library_printed(server, typed):
    logs = [path.read_text() for path in server.airflow.home.glob(f"logs/*/run_id={typed}/*/*.log")]
    assert len(logs) == len(STAGES)
    events = [json.loads(line) for log in logs for line in log.splitlines()]
    loud = [each["event"] for each in events if each["level"] != "info" or each["logger"].startswith("task.std")]
    warnings = Run(server.airflow.store, name_of(typed)).manifests()["evaluate"].summary["warnings"]
    assert set(loud) == {f"warning: {warning}" for warning in warnings}


def test_a_scheduled_run_leaves_artifacts_of_its_own(server, typed, scheduled):
    run = Run(server.airflow.store, name_of(scheduled))
    assert run.existing().settings.source == SMALL
    assert list(run.manifests()) == list(STAGES)
    assert card_of(server, scheduled).version == run.existing().first_version != card_of(server, typed).version


def test_both_publications_are_asset_events(server, typed, scheduled):
    events = server.get("/assets/events", source_dag_id=DAG_ID)["asset_events"]
    told = {event["source_run_id"]: (event["extra"]["version"], event["extra"]["accuracy"]) for event in events}
    for run in (typed, scheduled):
        card = card_of(server, run)
        assert told[run] == (card.version, card.accuracy)


def test_the_event_says_what_the_gate_judged_by_and_where_the_report_is(server, typed):
    [event] = [
        event["extra"]
        for event in server.get("/assets/events", source_dag_id=DAG_ID)["asset_events"]
        if event["source_run_id"] == typed
    ]
    evaluated = Run(server.airflow.store, name_of(typed)).manifests()["evaluate"].summary
    assert {name: event[name] for name in ("accuracy", "champion", "champion_accuracy", "verdict")} == {
        name: evaluated[name] for name in ("accuracy", "champion", "champion_accuracy", "verdict")
    }
    assert event["report"] == f"{server.url}/dags/{DAG_ID}/runs/{quote(typed, safe='')}/plugin/report"


@in_the_browser
def test_the_button_on_a_task_opens_the_report(server, page, typed):
    page.goto(f"{server.url}{DAG}/runs/{quote(typed)}/tasks/evaluate/details")
    link = page.get_by_role("link", name="Report", exact=True).and_(page.locator("[href$='plugin/report']")).first
    page.goto(link.get_attribute("href"))
    shown = page.frame_locator("iframe[title=Report]")
    expect(shown.get_by_text(f"Published as version {card_of(server, typed).version}")).to_be_visible()


@in_the_browser
def test_a_refused_run_has_a_report_that_says_why(server, page, picture, started, tried):
    page.goto(f"{server.url}{DAG}/runs/{quote(started.refused)}/plugin/report")
    shown = page.frame_locator("iframe[title=Report]")
    expect(shown.get_by_text(f"{started.missing_file} does not exist").first).to_be_visible()
    picture("report-refused-source")


def test_a_refused_source_fails_at_once(started, tried):
    assert (tried[started.refused]["state"], tried[started.refused]["try_number"]) == ("failed", 1)


@in_the_browser
def test_its_log_has_one_sentence(server, page, picture, started, tried):
    page.goto(f"{server.url}{DAG}/runs/{quote(started.refused)}/tasks/ingest")
    expect(page.get_by_text(f"{started.missing_file} does not exist")).to_be_visible()
    expect(page.get_by_text("Traceback")).to_have_count(0)
    picture("refused")


def test_a_source_that_does_not_answer_is_tried_again(unreachable, tried):
    assert (tried[unreachable]["state"], tried[unreachable]["try_number"]) == ("up_for_retry", 1)
