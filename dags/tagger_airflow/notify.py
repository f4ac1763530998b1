"""Tells people of failures, refusals, publications, late runs and approvals, by a notifier of Airflow's providers."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from importlib import import_module
from typing import Any

from airflow.sdk import BaseNotifier
from airflow.sdk.definitions.callback import SyncCallback
from airflow.sdk.definitions.deadline import DeadlineAlert, DeadlineReference

from pipeline.errors import BadInput, escape_control
from pipeline.report.runs import card_of
from pipeline.settings import Deployment, read
from pipeline.store.runs import Run
from tagger_airflow.links import models_link, report_link
from tagger_airflow.store import run_of

SENTENCE = "{{ told.sentence }}"
HTML = '<p>{{ told.sentence | e }}</p><p><a href="{{ told.link | e }}">More</a></p>'
SLACK = (
    "{{ told.sentence | replace('&', '&amp;') | replace('<', '&lt;') | replace('>', '&gt;') }}\n"
    "{{ told.link | replace('&', '&amp;') }}"
)
INERT = "{{ told.sentence | replace('<', '<\u200b') | replace('@', '@\u200b') | replace('](', ']\u200b(') }}"
"""What notifiers render: the sentence is a value, so nothing in it, such as the name of a tag, acts as a template.

Nor does it act as HTML, or as a mention or link of Slack's. Apprise sends to services of many kinds, so there a space
without width takes apart what is a tag, a mention or a link to one of them.
"""


@dataclass(frozen=True)
class Channel:
    """A way to tell people: the provider's notifier, and its arguments for the one that TAGGER_NOTIFY names."""

    package: str
    notifier: str
    arguments: Callable[[str], dict[str, Any]]


CHANNELS = {
    "smtp": Channel(
        "apache-airflow-providers-smtp",
        "airflow.providers.smtp.notifications.smtp.SmtpNotifier",
        lambda to: {"to": to, "subject": SENTENCE, "html_content": HTML},
    ),
    "slack": Channel(
        "apache-airflow-providers-slack",
        "airflow.providers.slack.notifications.slack.SlackNotifier",
        lambda channel: {"channel": channel, "text": SLACK, "unfurl_links": False, "unfurl_media": False},
    ),
    "apprise": Channel(
        "apache-airflow-providers-apprise",
        "airflow.providers.apprise.notifications.apprise.AppriseNotifier",
        lambda tag: {"tag": tag, "title": INERT, "body": f"{INERT}\n{{{{ told.link }}}}"},
    ),
}


def notifier(notify: str) -> BaseNotifier:
    """Make the notifier that TAGGER_NOTIFY names; BadInput if there is no such kind, or its provider is missing."""
    kind, _, to = notify.partition(":")
    if kind not in CHANNELS or not to:
        raise BadInput(f"TAGGER_NOTIFY={notify}: write smtp:ADDRESS, slack:CHANNEL or apprise:TAG, or unset it")
    channel = CHANNELS[kind]
    module, _, name = channel.notifier.rpartition(".")
    try:
        made = getattr(import_module(module), name)
    except ImportError:
        raise BadInput(f"TAGGER_NOTIFY={notify} needs the package {channel.package}: install it") from None
    found: BaseNotifier = made(**channel.arguments(to))
    return found


class Tell:
    """Callbacks of the tasks, each of which tells one sentence with the link to the run's report."""

    def __init__(self, deployment: Deployment) -> None:
        """Raises BadInput where TAGGER_NOTIFY cannot be followed."""
        self.deployment = deployment
        if deployment.notify:
            notifier(deployment.notify)

    def failed(self, context: Any) -> None:
        """The task failed for good: the run was refused, or what it needs did not work."""
        self._tell(context, f"failed in {context['ti'].task_id}: {_why(context)}")

    def published(self, context: Any) -> None:
        """The task that publishes has ended well; one that found its result in an earlier run published nothing."""
        if not self.deployment.notify:
            return
        run = self._run(context)
        card = card_of(run, run.manifests())
        if card and card.run == run.name:
            self._tell(context, f"published version {card.version}, accuracy {card.accuracy:.4f}")

    def asked(self, context: Any) -> None:
        """The run waits for an approval."""
        self._tell(context, "waits for an approval in Airflow's UI, under Required Actions")

    def answered(self, context: Any) -> None:
        """The approval was answered: what is told is a rejection, because an approval leads to a publication."""
        if self.deployment.notify and (refusal := self._run(context).refusal()):
            self._tell(context, f"was {refusal.why}")

    def declined(self, context: Any) -> None:
        """The live model's accuracy has fallen so far that a retraining starts."""
        if self.deployment.notify:
            seen = context["ti"].xcom_pull(task_ids="watch")
            what = (
                f"found the accuracy of the live version {seen['version']} to be {seen['accuracy']:.4f} on "
                f"{seen['posts']:,} new posts, below {seen['limit']:.4f}: a retraining starts"
            )
            _send(self.deployment.notify, context, context["dag_run"].run_id, models_link(), what)

    def not_watched(self, context: Any) -> None:
        """The live model could not be asked about new posts."""
        if self.deployment.notify:
            what = f"could not watch the live model: {_why(context)}"
            _send(self.deployment.notify, context, context["dag_run"].run_id, models_link(), what)

    def _run(self, context: Any) -> Run:
        return run_of(self.deployment, context["dag_run"].run_id, context.get("logical_date"))

    def _tell(self, context: Any, what: str) -> None:
        if self.deployment.notify:
            dag_run = context["dag_run"]
            link = report_link(dag_run.dag_id, dag_run.run_id)
            _send(self.deployment.notify, context, dag_run.run_id, link, what)

    def deadline(self) -> DeadlineAlert | None:
        """When Airflow calls `late` for a run; None unless somebody is to be told, and TAGGER_LATE_HOURS is set."""
        if not self.deployment.notify or self.deployment.late_hours is None:
            return None
        within = timedelta(hours=self.deployment.late_hours)
        return DeadlineAlert(DeadlineReference.DAGRUN_QUEUED_AT, within, SyncCallback(late), name="late")


def late(context: dict[str, Any]) -> None:
    """Tell that a run has not ended in time; Airflow's scheduler calls it with the run as in its REST API."""
    deployment, dag_run = read(os.environ)[1], context["dag_run"]
    what = f"is late: it has not ended within {deployment.late_hours:g} hours"
    if deployment.notify:
        link = report_link(dag_run["dag_id"], dag_run["dag_run_id"])
        _send(deployment.notify, context, dag_run["dag_run_id"], link, what)


def _why(context: Any) -> str:
    return getattr(context.get("exception"), "sentence", None) or f"{context.get('exception')!r}"


def _send(notify: str, context: Any, run_id: str, link: str, what: str) -> None:
    told = {"sentence": escape_control(f"run {run_id} {what}"), "link": link}
    notifier(notify)({**context, "told": told})  # logs an error where it cannot tell
