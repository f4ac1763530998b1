"""The DAG `stackoverflow_tagger`: six tasks, one a stage. Wiring only; the work is in the package `pipeline`."""

import os
from typing import Any

from airflow.sdk import DAG, Asset, Param, TaskGroup, chain, task

from one_sentence import RETRIED, one_sentence
from pipeline.execution.runner import run_part, run_stage
from pipeline.settings import Settings
from pipeline.stages.plan import STAGES, Stage
from pipeline.store.runs import Run, identifier_of, name_of
from store_connection import store_of

DOC = """\
Turns Stack Overflow posts into a published tag classifier: a Keras bag-of-words network, converted to a TensorFlow
Estimator, trained, measured, and exported as a SavedModel that reads raw text.

- **To start a run**, press Trigger. The form's fields are the run's settings; each says what it is. The default source,
  `sample://`, is **invented** posts, to try the pipeline without data.
- **When a task is red**, its log ends in one sentence that says what is wrong and what to do. A refused input and a
  gate that was not passed are not retried; a disk, network or store that fails is, three times. The live model stays
  live until a run has earned its place.
- **Afterwards**, `tagger show RUN` prints its figures, `tagger models` the published versions, and
  `tagger predict TEXT` asks the live one.
"""

settings = Settings.read(os.environ)

published = Asset("stackoverflow_tagger_model")


def work(
    stage: Stage,
    params: Any = None,
    dag_run: Any = None,
    outlet_events: Any = None,
    logical_date: Any = None,
    index: int | None = None,
) -> dict[str, Any]:
    """Do one stage, or its part `index`, and begin its run if it is the first.

    Airflow fills in the arguments that default to None.
    """
    with one_sentence():
        identifier = identifier_of(dag_run.run_id, logical_date)
        run = Run(store_of(settings), name_of(identifier))
        if not stage.needs:
            run.begin(settings.triggered(params), logical_date or dag_run.run_after, identifier)
        summary = run_stage(stage.name, run) if index is None else run_part(stage.name, run, index)
    if stage.name == "export":
        outlet_events[published].extra = {name: summary[name] for name in ("version", "accuracy")}
    return summary


def as_task(stage: Stage) -> Any:
    """The stage's task; that of export also announces the published model."""
    if stage.parts and settings.shards > 1:
        return as_group(stage)
    outlets = [published] if stage.name == "export" else []
    return task(task_id=stage.name, doc_md=stage.does, outlets=outlets)(work)(stage)


def as_group(stage: Stage) -> TaskGroup:
    """The stage as a group: a part for each shard of the posts, and a task that gathers what they made."""
    with TaskGroup(stage.name, tooltip=stage.does) as group:
        part = task(task_id="part", doc_md=f"{stage.does} One shard of the posts.")(work)
        gather = task(task_id="gather", doc_md=f"{stage.does} All shards together.")(work)
        part.partial(stage=stage).expand(index=list(range(settings.shards))) >> gather(stage)
    return group


with DAG(
    "stackoverflow_tagger",
    description="Stack Overflow posts in, a published tag classifier out",
    doc_md=DOC,
    schedule=settings.schedule,
    catchup=False,
    max_active_runs=1,
    params={name: Param(**param) for name, param in settings.params().items()},
    tags=["stackoverflow", "tensorflow", "retraining"],
    default_args=RETRIED,
):
    chain(*map(as_task, STAGES.values()))
