"""The DAG `stackoverflow_tagger`: one task for each of the six stages, which call the package `pipeline`."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from airflow.sdk import DAG, AssetOrTimeSchedule, CronTriggerTimetable, Param, TaskGroup, chain, task
from airflow.sdk.exceptions import AirflowSkipException

from pipeline.errors import GateNotPassed
from pipeline.run.publication import asks_person, unapproved
from pipeline.run.rendezvous import joined, processes
from pipeline.run.runner import run_shard, run_stage
from pipeline.settings import from_form, is_restricted, read, trigger_form
from pipeline.stages.plan import STAGES, Stage
from pipeline.store.runs import Run, identifier_of, name_of
from pipeline.tuning.winner import with_tuned
from tagger_airflow.assets import declined, published
from tagger_airflow.failures import RETRIED, one_sentence, refusal_noted
from tagger_airflow.google import google_credentials
from tagger_airflow.lineage import lineage_of
from tagger_airflow.links import ReportLink, report_link
from tagger_airflow.notify import Tell
from tagger_airflow.store import store_of

DOC = """\
Turns Stack Overflow posts into a published tag classifier: a Keras bag-of-words network, converted to a TensorFlow
Estimator, trained, evaluated, and exported as a SavedModel that reads raw text.

- **To start a run**, press Trigger. The form's fields are the run's settings, each with an explanation. The default
  source, `sample://`, generates **synthetic** posts, to try the pipeline without data.
- **When a task is red**, its log ends in one sentence that says what is wrong and what to do. Airflow does not retry
  a refused input or a gate that was not passed; it retries a disk, network or store that fails, three times. The live
  model stays live until a new one passes the gate.
- **A task `approve`** is there if the installation asks a person before it publishes, or where the gate cannot tell:
  answer it under Required Actions.
- **Afterwards**, the run's tab **Report** says whether its model may be trusted and why, also where it was refused; the
  page **Models** says what is live. On a terminal, `tagger show`, `tagger models` and `tagger predict TEXT` do.
"""

settings, deployment = read(os.environ)

tell = Tell(deployment)


def do_stage(
    stage: Stage,
    params: Any = None,
    dag_run: Any = None,
    outlet_events: Any = None,
    logical_date: Any = None,
    ti: Any = None,
    index: int | None = None,
    process: int | None = None,
) -> dict[str, Any]:
    """Run a stage, one shard of it, or one process of those that do it together; the first stage creates the run.

    Airflow supplies the arguments that default to None, by their names.
    """
    with one_sentence():
        identifier = identifier_of(dag_run.run_id, logical_date)
        run = Run(store_of(deployment), name_of(identifier))
        if not stage.needs:
            with refusal_noted(run, identifier):
                chosen, _ = from_form(settings, params)
                created = logical_date or dag_run.run_after
                known = run.record()
                chosen = with_tuned(run.store, chosen, known.settings if known else None)
                restricted = is_restricted(chosen, settings)
                run.begin(chosen, created, identifier, deployment=deployment, restricted=restricted)
        if stage.publishes:
            skip_unapproved(run)
        try:
            with google_credentials(deployment), among_trainers(run, stage, process):
                if index is None:
                    summary = run_stage(stage.name, run, needs_approval=deployment.approval)
                else:
                    summary = run_shard(stage.name, run, index)
        except GateNotPassed as error:
            ti.xcom_push("return_value", error.evidence)  # what a task that fails would not leave
            raise
    if stage.publishes:
        if summary["version"] is None:
            # A task that succeeds tells all who wait for the asset that there is a new model.
            raise AirflowSkipException("nothing is published, because the run's setting publish is false")
        outlet_events[published].extra = told(run, summary) | {"report": report_link(dag_run.dag_id, dag_run.run_id)}
    return summary


def among_trainers(run: Run, stage: Stage, process: int | None) -> AbstractContextManager[None]:
    """Make this process one of those that do the stage together, if it has a number among them."""
    if process is None:
        return nullcontext()
    return joined(run, stage.name, process, processes(deployment.trainers), deployment.cluster_host)


def skip_unapproved(run: Run) -> None:
    """Skip the task if the run's model may only be published with an approval, and has none."""
    if (
        not (asks_person(run) or deployment.approval)
        or not run.existing().settings.publish
        or run.approval() is not None
    ):
        return
    raise AirflowSkipException(unapproved(run, run.evaluated()))


def told(run: Run, summary: dict[str, Any]) -> dict[str, Any]:
    """What the asset's event says of a published model: its version, and the figures that the gate judged by."""
    evaluated = run.manifests()["evaluate"].summary
    figures = ("accuracy", "champion", "champion_accuracy", "compared_posts", "verdict", "warnings")
    return {"version": summary["version"]} | {name: evaluated.get(name) for name in figures}


def as_task(stage: Stage) -> Any:
    """Make the stage's task; the one that publishes also updates the model's asset."""
    if stage.sharded_by and deployment.shards > 1:
        return as_group(stage)
    if stage.by_cluster and deployment.trainers > 1:
        return as_cluster(stage)
    outlets = [published] if stage.publishes else []
    when_done = [tell.published] if outlets else []
    made = task(task_id=stage.name, doc_md=stage.does, outlets=outlets, on_success_callback=when_done)
    return shown(made(do_stage)(stage), stage)


def shown(made: Any, stage: Stage) -> Any:
    """Give a task a button that opens the report of its run, and the method by which OpenLineage asks what it did."""
    made.operator.operator_extra_links = (ReportLink(),)
    made.operator.get_openlineage_facets_on_complete = lineage_of(stage, deployment)
    return made


def as_group(stage: Stage) -> TaskGroup:
    """Make the stage a group of tasks: one mapped over the shards of the posts, and one that combines the results."""
    with TaskGroup(stage.name, tooltip=stage.does) as group:
        shard = task(task_id="shard", doc_md=f"{stage.does} One shard of the posts.")(do_stage)
        gather = task(task_id="gather", doc_md=f"{stage.does} All shards together.")(do_stage)
        shard.partial(stage=stage).expand(index=list(range(deployment.shards))) >> shown(gather(stage), stage)
    return group


def as_cluster(stage: Stage) -> TaskGroup:
    """Make the stage a group of tasks that do it together: the chief, which leaves the result, and the others."""
    with TaskGroup(stage.name, tooltip=stage.does) as group:
        one = task(task_id="process", doc_md=f"{stage.does} One process of those that train together.")(do_stage)
        one.partial(stage=stage).expand(process=list(range(processes(deployment.trainers))))
    return group


def tasks() -> Iterator[Any]:
    """Make the DAG's tasks in their order: one for each stage, and the approval if a person may be asked for one."""
    for stage in STAGES.values():
        if stage.publishes and (deployment.approval or settings.when_unsure == "ask"):
            from tagger_airflow.approval import approval  # not at the top: it imports what few need

            yield approval(deployment, tell)
        yield as_task(stage)


def schedule() -> Any:
    """When the DAG runs by itself: at its times, and when the live model has declined."""
    if deployment.schedule is None:
        return [declined]
    return AssetOrTimeSchedule(timetable=CronTriggerTimetable(deployment.schedule, timezone="UTC"), assets=[declined])


with DAG(
    "stackoverflow_tagger",
    description="Stack Overflow posts in, a published tag classifier out",
    doc_md=DOC,
    schedule=schedule(),
    catchup=False,
    max_active_runs=1,
    params={name: Param(**param) for name, param in trigger_form(settings, deployment).items()},
    tags=["stackoverflow", "tensorflow", "retraining"],
    deadline=tell.deadline(),
    default_args=RETRIED | {"on_failure_callback": tell.failed},
):
    chain(*tasks())
