"""Who is told of a run, by mail through Airflow's own notifier, and variables that cannot be followed."""

from collections.abc import Callable, Iterator

import pytest

from pipeline.errors import BadInput
from pipeline.registry.registry import Registry
from tagger_airflow.notify import notifier
from tests.dags.conftest import DAG_ID, Airflow
from tests.dags.mail import MailServer, mail_server

TO = "ops@example.org"


@pytest.fixture(scope="module")
def mail() -> Iterator[MailServer]:
    with mail_server() as server:
        yield server


@pytest.fixture(scope="module")
def airflow(new_airflow: Callable[..., Airflow], mail: MailServer) -> Airflow:
    """Told by mail of a run that published its model, and of one that the gate refused."""
    airflow = new_airflow(**mail.variables, TAGGER_NOTIFY=f"smtp:{TO}")
    assert airflow("dags", "test", DAG_ID).returncode == 0
    assert airflow("dags", "test", DAG_ID, TAGGER_MIN_ACCURACY="1").returncode != 0
    return airflow


def test_one_mail_for_a_publication_and_one_for_a_refusal(airflow, mail):
    [card] = Registry(airflow.store).cards()
    published, refused = mail.mails
    assert str(published["subject"]).endswith(f" published version {card.version}, accuracy {card.accuracy:.4f}")
    assert " failed in evaluate: accuracy " in str(refused["subject"])
    assert "is below min_accuracy" in str(refused["subject"])
    assert {str(each["to"]) for each in mail.mails} == {TO}


def test_a_mail_links_to_the_report(airflow, mail):
    body = mail.mails[0].get_body(("html",)).get_content()
    assert f"/dags/{DAG_ID}/runs/manual__" in body
    assert "/plugin/report" in body


def test_a_sentence_with_marks_of_templates_and_html_is_only_text(airflow, mail):
    source = airflow.home / "{{ 7 * 7 }}<b>.csv"
    done = airflow("dags", "test", DAG_ID, TAGGER_SOURCE=str(source))
    assert done.returncode != 0
    assert f"{source} does not exist" in str(mail.mails[-1]["subject"])
    assert "{{ 7 * 7 }}&lt;b&gt;" in mail.mails[-1].get_body(("html",)).get_content()


def test_a_mail_server_that_is_gone_does_not_fail_the_run(airflow, mail):
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
