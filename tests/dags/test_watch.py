"""The DAG that watches the live model starts a retraining by itself, under the real scheduler, and only one."""

from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

import pytest

from pipeline.registry.registry import Registry
from pipeline.registry.series import Series
from tests.conftest import write_csv
from tests.dags.conftest import DAG_ID, WATCH_ID, Airflow, Server, in_the_browser, servers, standalone, wait_for
from tests.dags.mail import MailServer, mail_server
from tests.scoring.test_watch import mistagged, posts


@pytest.fixture(scope="module")
def mail() -> Iterator[MailServer]:
    with mail_server() as server:
        yield server


@pytest.fixture(scope="module")
def server(
    new_airflow: Callable[..., Airflow], mail: MailServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("posts")
    write_csv(folder / "old.csv", posts(1000, 5))
    write_csv(folder / "new.csv", mistagged(posts(300, 9)))
    variables = mail.variables | {
        "TAGGER_NOTIFY": "smtp:ops@example.org",
        "TAGGER_EPOCHS": "4",
        "TAGGER_HIDDEN_UNITS": "32",
        "TAGGER_LEARNING_RATE": "0.01",
        "TAGGER_SOURCE": f"{folder}/old.csv",
        "TAGGER_WATCH_SOURCE": f"{folder}/new.csv",
    }
    made = new_airflow(**servers(), **variables)
    done = made("dags", "test", DAG_ID)
    assert done.returncode == 0, done.stdout
    with standalone(made) as server:
        listed = lambda: server.api.get(f"/dags/{WATCH_ID}").is_success  # noqa: E731
        wait_for("the DAG is listed", listed, seconds=60, otherwise=server.logs)
        yield server


def runs(server: Server, dag: str, **query: str) -> list[dict[str, Any]]:
    return server.get(f"/dags/{dag}/dagRuns", **query)["dag_runs"]


def states(server: Server, dag: str, run: str) -> dict[str, str]:
    tasks = server.get(f"/dags/{dag}/dagRuns/{quote(run)}/taskInstances")["task_instances"]
    return {task["task_id"]: task["state"] for task in tasks}


def ended(server: Server, dag: str, run: str) -> dict[str, str]:
    """The states of the run's tasks, once it has ended."""

    def look() -> bool:
        return server.get(f"/dags/{dag}/dagRuns/{quote(run)}")["state"] in {"success", "failed"}

    wait_for("the run ends", look, seconds=180, otherwise=server.logs)
    return states(server, dag, run)


def watch_once(server: Server, run: str) -> dict[str, str]:
    def begin() -> bool:
        conf = {"logical_date": None, "dag_run_id": run, "conf": {}}
        started = server.api.post(f"/dags/{WATCH_ID}/dagRuns", json=conf)
        return (started.is_success or started.status_code == 409) and server.api.patch(
            f"/dags/{WATCH_ID}", json={"is_paused": False}
        ).is_success

    wait_for("the run starts", begin, seconds=60, otherwise=server.logs)
    return ended(server, WATCH_ID, run)


@in_the_browser
def test_a_fall_starts_one_retraining(server, page, picture, mail):
    wait_for(
        "the DAG is unpaused",
        lambda: server.api.patch(f"/dags/{DAG_ID}", json={"is_paused": False}).is_success,
        seconds=60,
        otherwise=server.logs,
    )
    mails = len(mail.sentences)
    assert watch_once(server, "first") == {"watch": "success", "retrain": "success"}

    def triggered() -> dict[str, Any] | None:
        return next((run for run in runs(server, DAG_ID) if run["run_type"] == "asset_triggered"), None)

    run = wait_for("the retraining starts", triggered, seconds=60, otherwise=server.logs)
    path = f"/dags/{DAG_ID}/dagRuns/{quote(run['dag_run_id'])}/upstreamAssetEvents"
    told = lambda: (answer := server.api.get(path)).is_success and answer.json()["asset_events"]  # noqa: E731
    [event] = wait_for("the API tells why it started", told, seconds=60, otherwise=server.logs)
    [seen] = Series(server.airflow.store).observations()
    assert seen.called
    assert event["extra"]["accuracy"] == seen.live.accuracy
    assert event["source_dag_id"] == WATCH_ID
    assert mail.sentences[mails] == (
        f"run first found the accuracy of the live version {seen.live.version} to be {seen.live.accuracy:.4f} on 300 "
        f"new posts, below {seen.limit:.4f}: a retraining starts"
    )
    assert ended(server, DAG_ID, run["dag_run_id"])["evaluate"] == "success"
    assert watch_once(server, "second") == {"watch": "success", "retrain": "skipped"}
    assert [each.called for each in Series(server.airflow.store).observations()] == [True, False]
    assert len([run for run in runs(server, DAG_ID) if run["run_type"] == "asset_triggered"]) == 1
    assert Registry(server.airflow.store).live() == seen.live.version
    page.goto(f"{server.url}/plugin/models")
    frame = page.frame_locator("iframe[title=Models]")
    frame.get_by_text("started a retraining").first.scroll_into_view_if_needed()
    picture("models-watched")
    page.goto(f"{server.url}/dags/{DAG_ID}")
    page.get_by_text("Asset", exact=False).first.wait_for()
    picture("dag-by-time-or-asset")
