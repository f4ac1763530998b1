"""What is told of a run that published and of one that the gate refused: mails to people, events to OpenLineage."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pipeline.errors import BadInput
from pipeline.registry.registry import Registry
from pipeline.stages.plan import STAGES
from pipeline.store.runs import Run
from tagger_airflow.lineage import address
from tagger_airflow.notify import notifier
from tests.dags.conftest import DAG_ID, SMALL, Airflow
from tests.dags.mail import MailServer, mail_server

TO = "ops@example.org"

Events = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Told:
    """The mails, and the last event of each task of both runs, by task."""

    airflow: Airflow
    mail: MailServer
    published: Events
    refused: Events


@pytest.fixture(scope="module")
def told(new_airflow: Callable[..., Airflow], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    file = tmp_path_factory.mktemp("lineage") / "events.jsonl"
    transport = {"type": "file", "log_file_path": str(file), "append": True}
    with mail_server() as mail:
        airflow = new_airflow(
            **mail.variables, TAGGER_NOTIFY=f"smtp:{TO}", AIRFLOW__OPENLINEAGE__TRANSPORT=json.dumps(transport)
        )
        assert airflow("dags", "test", DAG_ID).returncode == 0
        published = file.read_text()
        assert airflow("dags", "test", DAG_ID, TAGGER_MIN_ACCURACY="1").returncode != 0
        refused = file.read_text().removeprefix(published)
        yield Told(airflow, mail, events_of(published), events_of(refused))


def events_of(lines: str) -> Events:
    """The last event of each task."""
    events = [json.loads(line) for line in lines.splitlines()]
    return {event["job"]["name"].rpartition(".")[2]: event for event in events}


def test_one_mail_for_a_publication_and_one_for_a_refusal(told):
    airflow, mail = told.airflow, told.mail
    [card] = Registry(airflow.store).cards()
    published, refused = mail.mails[:2]
    assert str(published["subject"]).endswith(f" published version {card.version}, accuracy {card.accuracy:.4f}")
    assert " failed in evaluate: accuracy " in str(refused["subject"])
    assert "is below min_accuracy" in str(refused["subject"])
    assert {str(each["to"]) for each in mail.mails} == {TO}


def test_a_run_that_uses_an_earlier_result_tells_of_no_publication(told):
    airflow, mail = told.airflow, told.mail
    before = len(mail.mails)
    done = airflow("dags", "test", DAG_ID)
    assert done.returncode == 0, done.stdout
    assert len(Registry(airflow.store).cards()) == 1
    assert len(mail.mails) == before


def test_a_mail_links_to_the_report(told):
    body = told.mail.mails[0].get_body(("html",)).get_content()
    assert f"/dags/{DAG_ID}/runs/manual__" in body
    assert "/plugin/report" in body


def test_a_sentence_with_marks_of_templates_and_html_is_only_text(told):
    airflow, mail = told.airflow, told.mail
    source = airflow.home / "{{ 7 * 7 }}<b>.csv"
    done = airflow("dags", "test", DAG_ID, TAGGER_SOURCE=str(source))
    assert done.returncode != 0
    assert f"{source} does not exist" in str(mail.mails[-1]["subject"])
    assert "{{ 7 * 7 }}&lt;b&gt;" in mail.mails[-1].get_body(("html",)).get_content()


def test_a_mail_server_that_is_gone_does_not_fail_the_run(told):
    airflow, mail = told.airflow, told.mail
    before = len(mail.mails)
    gone = {"AIRFLOW_CONN_SMTP_DEFAULT": "smtp://127.0.0.1:1/?disable_tls=true&from_email=a%40example.org"}
    done = airflow("dags", "test", DAG_ID, TAGGER_EPOCHS="3", TAGGER_MAX_REGRESSION="1", **gone)
    assert done.returncode == 0, done.stdout
    assert "Failed to send notification" in done.stdout
    assert len(mail.mails) == before


@pytest.mark.parametrize(
    ("notify", "sentence"),
    [
        ("ops@example.org", "write smtp:ADDRESS, slack:CHANNEL or apprise:TAG"),
        ("smtp:", "write smtp:ADDRESS, slack:CHANNEL or apprise:TAG"),
        ("slack:#ops", "needs the package apache-airflow-providers-slack: install it"),
    ],
)
def test_what_cannot_be_followed_is_one_sentence(notify, sentence):
    with pytest.raises(BadInput, match=sentence):
        notifier(notify)


def names(datasets: list[dict[str, Any]]) -> list[str]:
    return [dataset["name"] for dataset in datasets]


def test_each_stage_reads_what_earlier_ones_wrote(told):
    events = told.published
    assert {name: events[name]["eventType"] for name in STAGES} == dict.fromkeys(STAGES, "COMPLETE")
    wrote = {name: names(events[name]["outputs"]) for name in STAGES}
    read = {name: names(events[name]["inputs"]) for name in STAGES}
    assert read.pop("ingest") == [address(SMALL)[1]]
    assert read == {name: [*(wrote[need][0] for need in STAGES[name].needs)] for name in read}


def test_a_dataset_is_an_address_in_the_store_with_rows_bytes_and_schema(told):
    airflow, events = told.airflow, told.published
    for name in STAGES:
        [output] = events[name]["outputs"]
        run = Run(airflow.store, output["name"].split("/")[-3])
        manifest = run.manifest(name)
        assert (output["namespace"], output["name"]) == ("file", airflow.store.path(manifest.path))
        statistics = output["outputFacets"]["outputStatistics"]
        assert statistics["rowCount"] == manifest.summary["rows"]
        files = [path for path in Path(output["name"]).rglob("*") if path.is_file()]
        assert statistics["size"] == sum(path.stat().st_size for path in files)
        assert statistics["fileCount"] == len(files)


@pytest.mark.parametrize(
    ("stage", "file"),
    [
        ("ingest", "posts/train/part-00000.parquet"),
        ("vectorize", "train/part-00000.parquet"),
        ("evaluate", "predictions/part-00000.parquet"),
        ("train", None),
        ("export", None),
    ],
)
def test_the_schema_is_that_of_the_files(told, stage, file):
    [output] = told.published[stage]["outputs"]
    fields = output["facets"].get("schema", {}).get("fields", [])
    expected = pq.read_schema(Path(output["name"], file)) if file else []
    assert {each["name"]: each["type"] for each in fields} == {each.name: str(each.type) for each in expected}


def test_a_refused_run_tells_what_it_left_and_names_the_run_whose_results_it_used(told):
    published, refused = told.published, told.refused
    assert refused["evaluate"]["eventType"] == "FAIL"
    assert names(refused["evaluate"]["outputs"]) != names(published["evaluate"]["outputs"])
    assert names(refused["evaluate"]["inputs"]) == names(published["evaluate"]["inputs"])
    assert "export" not in refused or refused["export"]["outputs"] == []


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("/data/posts.csv", ("file", "/data/posts.csv")),
        ("file:///data/posts.csv", ("file", "/data/posts.csv")),
        ("s3://bucket/a/b", ("s3://bucket", "a/b")),
        ("https://user:secret@example.org/posts.csv?day=1", ("https://example.org", "posts.csv?day=1")),
    ],
)
def test_an_address_is_named_as_openlineage_does(url, name):
    assert address(url) == name
