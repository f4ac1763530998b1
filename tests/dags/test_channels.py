"""Strings of strangers reach people as text only: each way to tell people, from each place where such a string is."""

import re
from datetime import UTC, datetime
from html.parser import HTMLParser
from types import SimpleNamespace

import pytest
from airflow.sdk import BaseNotifier
from markdown_it import MarkdownIt

from pipeline.settings import Deployment, Settings
from pipeline.store.objects import Store
from pipeline.store.runs import Run
from tagger_airflow import notify
from tagger_airflow.approval import _plain
from tagger_airflow.notify import CHANNELS, Tell, late

HOSTILE = {
    "channel": "<!channel> <!here> <!everyone>",
    "person": "<@U123> <#C123> @everyone @here",
    "link": "<http://evil.example|your report>",
    "markdown": "[your report](http://evil.example) **b** `c` ![x](http://evil.example/x.png)",
    "html": "<img src=x onerror=alert(1)><a href='http://evil.example'>your report</a>",
    "entity": "&lt;!channel&gt; &amp;",
    "template": "{{ 7 * 7 }} {% raw %}",
    "lines": "one\r\nBcc: all@example.org\n\n# heading\n- item",
    "control": "\x1b[31m \x9b31m \x7f \u202e \x00",
    "address": "http://evil.example/a?b=c www.evil.example evil@evil.example",
}


def dag_run(run_id="a_run"):
    return SimpleNamespace(run_id=run_id, dag_id="stackoverflow_tagger")


def context(run_id="a_run", **more):
    return {"dag_run": dag_run(run_id), "ti": SimpleNamespace(task_id="ingest"), "logical_date": None, **more}


def sentence_of_an_error(tell, hostile):
    tell.failed(context(exception=SimpleNamespace(sentence=f"posts.csv has no column {hostile}")))


def unexpected_error(tell, hostile):
    tell.failed(context(exception=ValueError(hostile)))


def run_id(tell, hostile):
    tell.asked(context(hostile))


def unwatched(tell, hostile):
    tell.not_watched(context(hostile, exception=ValueError(hostile)))


def late_run(tell, hostile):
    late({"dag_run": {"dag_id": "stackoverflow_tagger", "dag_run_id": hostile}})


def reason_of_a_rejection(tell, hostile):
    run = Run(Store(tell.deployment.store), "a_run")
    run.begin(Settings(), datetime.now(UTC))
    run.refuse("export", f"rejected by {hostile}: {hostile}")
    tell.answered(context())


PLACES = [sentence_of_an_error, unexpected_error, run_id, unwatched, late_run, reason_of_a_rejection]


@pytest.fixture
def told(monkeypatch, tmp_path):
    """A function that lets something be told over a channel, and returns what the provider's notifier would send."""

    class Recording(BaseNotifier):
        template_fields = ("text", "title", "body", "subject", "html_content", "channel", "tag", "to")
        sent: dict[str, str]

        def __init__(self, **arguments):
            super().__init__()
            for name in self.template_fields:
                setattr(self, name, arguments.get(name, ""))

        def notify(self, context):
            Recording.sent = {name: getattr(self, name) for name in self.template_fields if getattr(self, name)}

    module = SimpleNamespace(**{channel.notifier.rpartition(".")[2]: Recording for channel in CHANNELS.values()})
    monkeypatch.setattr(notify, "import_module", lambda _: module)

    def tell(channel, place, hostile):
        variables = {"notify": f"{channel}:ops", "store": str(tmp_path / "store"), "late_hours": 1.0}
        for name, value in variables.items():
            monkeypatch.setenv(f"TAGGER_{name}".upper(), str(value))
        place(Tell(Deployment.of(variables)), hostile)
        return Recording.sent

    return tell


class Elements(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.seen = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, *(name for name, _ in attrs)))


def is_text_in_a_mail(sent):
    assert "\n" not in sent["subject"]
    assert Elements(sent["html_content"]).seen == [("p",), ("p",), ("a", "href")]


def is_text_in_slack(sent):
    """Slack gives `<...>` a meaning, and takes these three entities for their characters."""
    [sentence, link] = sent["text"].split("\n")
    assert not re.search(r"[<>]|&(?!amp;|lt;|gt;)", sentence)
    assert not re.search(r"[<>]|&(?!amp;)", link)


def is_text_everywhere(sent):
    [body, _] = sent["body"].split("\n")
    for text in (sent["title"], body):
        assert not re.search(r"<[!@#\w/]|@\w|\]\(", text)


CHECKS = {"smtp": is_text_in_a_mail, "slack": is_text_in_slack, "apprise": is_text_everywhere}


@pytest.mark.parametrize("hostile", HOSTILE)
@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__)
@pytest.mark.parametrize("channel", CHANNELS)
def test_what_is_told_is_only_text(told, channel, place, hostile):
    sent = told(channel, place, HOSTILE[hostile])
    CHECKS[channel](sent)
    assert all(character.isprintable() or character in "\n\u200b" for text in sent.values() for character in text)
    if hostile == "template":
        assert any("{{ 7 * 7 }}" in text for text in sent.values())


def test_slack_shows_no_preview_of_an_address():
    assert CHANNELS["slack"].arguments("#ops").items() >= {("unfurl_links", False), ("unfurl_media", False)}


@pytest.mark.parametrize("hostile", HOSTILE)
def test_nothing_in_the_question_acts_as_markdown_or_as_an_address(hostile):
    """As Airflow's UI reads it, which also makes links of addresses."""
    as_in_airflow = MarkdownIt("gfm-like", {"html": True}).render(f"- {_plain(HOSTILE[hostile])}")
    assert [tag for tag, *_ in Elements(as_in_airflow).seen] == ["ul", "li"]
    assert "evil" not in hostile or "evil" in as_in_airflow


@pytest.mark.parametrize("hostile", HOSTILE)
def test_who_answered_and_why_are_kept_as_one_line(tmp_path, hostile):
    run = Run(Store(str(tmp_path / "store")), "a_run")
    run.begin(Settings(), datetime.now(UTC))
    (tmp_path / "out").mkdir()
    manifest = run.commit("evaluate", tmp_path / "out", inputs={}, summary={}, seconds=1, peak_mib=None)
    run.approve(HOSTILE[hostile], HOSTILE[hostile], manifest.attempt)
    run.refuse("export", HOSTILE[hostile])
    for text in (run.approval().by, run.approval().why, run.refusal().why):
        assert text.isprintable()
