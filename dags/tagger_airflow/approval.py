"""A task that waits until a person approves or rejects the model that passed the gate, in Airflow's UI."""

import re
from datetime import timedelta
from typing import Any

from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import Param
from airflow.sdk.definitions.param import ParamsDict
from airflow.sdk.exceptions import AirflowSkipException

from pipeline.errors import escape_control
from pipeline.run.publication import asks_person
from pipeline.run.runner import refuse
from pipeline.settings import Deployment
from pipeline.stages.plan import LAST
from pipeline.store.runs import TEMPORARY, Run
from tagger_airflow.failures import one_sentence
from tagger_airflow.links import ReportLink, report_link
from tagger_airflow.notify import Tell
from tagger_airflow.store import run_of

WHY, SEEN = "why", "evaluated"
"""The fields of the form: the reason, and, hidden, the result of evaluate that the question is about."""

DOES = (
    "Waits until a person approves or rejects the model, under Required Actions. Without an answer in time "
    "it is rejected. A rejected model is not published, and the live one stays."
)


class Approval(ApprovalOperator):
    """Asks whether to publish the model of a run, and notes in the store who answered what, and why."""

    operator_extra_links = (ReportLink(),)

    def __init__(self, *, deployment: Deployment, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.deployment = deployment

    def execute(self, context: Any) -> Any:
        """Ask, unless nothing is to be decided; under `airflow dags test` and `tasks test`, nobody can answer."""
        with one_sentence():
            run = self._run(context)
            publishes = run.existing().settings.publish
            asks = self.deployment.approval or asks_person(run)
        if not publishes:
            self.log.info("nothing is asked, because the run's setting publish is false")
            return None
        if not asks:
            self.log.info("nothing is asked, because the gate could tell, and TAGGER_APPROVAL is off")
            return None
        if _tested(context["dag_run"]):
            raise AirflowSkipException(
                "nothing is published: a person is to approve the model, and under `airflow dags test` or `tasks test` "
                "nobody can approve; trigger the run in the UI, or set TAGGER_APPROVAL=off and TAGGER_WHEN_UNSURE=keep"
            )
        link = report_link(context["dag_run"].dag_id, context["dag_run"].run_id)
        with one_sentence():
            # Before the question is made: if evaluate is run again meanwhile, the answer counts for neither result.
            self.params = ParamsDict(form(run.evaluated().attempt))
            self.body = question(run, link, self.deployment.approval_hours)
        return super().execute(context)

    def execute_complete(self, context: Any, event: dict[str, Any]) -> Any:
        """Note the answer: an approval is what export looks for, and a rejection refuses the run."""
        answer = super(ApprovalOperator, self).execute_complete(context, event)  # refuses what is no valid answer
        user, given = event.get("responded_by_user"), event.get("params_input") or {}
        why = given.get(WHY) or ""
        with one_sentence():
            run = self._run(context)
            if answer["chosen_options"] == [self.APPROVE]:
                run.approve(user["name"] if user else "Airflow", why, given.get(SEEN))
                run.withdraw_refusal(LAST)  # of an earlier answer
            else:
                hours = f"{self.deployment.approval_hours:g}"
                by = f"by {user['name']}" if user else f"because nobody answered within {hours} hours"
                refuse(run, LAST, f"rejected {by}{f': {why}' if why else ''}")
        return super().execute_complete(context, event)

    def _run(self, context: Any) -> Run:
        return run_of(self.deployment, context["dag_run"].run_id, context.get("logical_date"))


def approval(deployment: Deployment, tell: Tell) -> Approval:
    """Make the task; people are told when it waits, and when the model is rejected."""
    return Approval(
        task_id="approve",
        doc_md=DOES,
        deployment=deployment,
        subject="Publish the model of this run?",
        body="",  # known when the task runs
        params=form(""),
        defaults=Approval.REJECT,
        response_timeout=timedelta(hours=deployment.approval_hours),
        notifiers=[tell.asked],
        on_success_callback=tell.answered,
    )


def form(seen: str) -> dict[str, Param]:
    """The fields of the question about the result `seen` of evaluate; Airflow's form does not show a constant."""
    described = "The result of evaluate that is approved."
    schema: Any = {"type": "string"} | ({"const": seen} if seen else {})
    return {
        WHY: Param("", type="string", title="Why", description="One sentence, kept in the log of the models."),
        SEEN: Param(seen, title="Result", description=described, **schema),
    }


def _tested(dag_run: Any) -> bool:
    """Whether this is `airflow dags test`, which waits for ever for an answer, or `airflow tasks test`."""
    return dag_run.triggering_user_name == "dag_test" or str(dag_run.run_id).startswith(TEMPORARY)


def question(run: Run, link: str, hours: float) -> str:
    """What a person reads before the answer, as Markdown: the verdict, the warnings, and where the report is."""
    from pipeline.report.facts import Facts  # not at the top: the DAG file is parsed without pyarrow

    facts = Facts.of(run)
    lines = [f"**{_plain(facts.verdict)}**", ""]
    lines += [f"- {_plain(warning)}" for warning in facts.warnings]
    lines += [
        "",
        f"[The report]({link}) says the rest. Without an answer within {hours:g} hours the model is rejected.",
    ]
    return "\n".join(lines)


def _plain(text: str) -> str:
    """The text so that nothing in it, such as the name of a tag, acts as Markdown, or is taken for an address."""
    return re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", escape_control(text))
