"""The DAG `stackoverflow_tagger_tune`: searches settings for the tagger, its trials in mapped tasks."""

import logging
import os
from typing import Any

from airflow.sdk import DAG, Param, task

from pipeline.settings import Tuning, from_form, read_all, trigger_form, tuning_form
from pipeline.store.runs import identifier_of, name_of
from tagger_airflow.failures import RETRIED, one_sentence
from tagger_airflow.google import google_credentials
from tagger_airflow.store import store_of

DOC = """\
Searches the settings with which the tagger tags most posts correctly. It measures them on a part of the train posts;
the test posts are dropped when the source is read, so that no choice can depend on them.

- **To start a tuning**, press Trigger. `search_space` says what is searched, and `trials` how often. Trials run in
  mapped tasks, as many at once as there are free slots; each learns from those that are done.
- **Afterwards**, the log of `choose` names the winner, and `tagger tunings` shows all trials. A run takes the winner's
  settings with `tuned=latest`, in its form or as TAGGER_TUNED.
- **A killed trial** is done again by Airflow's retry; what was scored is kept.
"""

log = logging.getLogger("stackoverflow_tagger")

settings, deployment, options = read_all(os.environ)


def tuning_of(dag_run: Any, logical_date: Any) -> Any:
    """The tuning that the Airflow run does."""
    from pipeline.tuning.tuning import TuningRun  # imports much, which parsing this file does not need

    return TuningRun(store_of(deployment), name_of(identifier_of(dag_run.run_id, logical_date)))


with DAG(
    "stackoverflow_tagger_tune",
    description="Search the settings that tag most posts correctly",
    doc_md=DOC,
    schedule=deployment.tuning_schedule,
    catchup=False,
    max_active_runs=1,
    params={
        name: Param(**param)
        for name, param in (tuning_form(options) | trigger_form(settings, deployment)).items()
        if name != "tuned"
    },
    tags=["stackoverflow", "tensorflow", "tuning"],
    default_args=RETRIED,
):

    @task(doc_md="Begins the tuning and ingests its posts; returns the numbers of its trials.")
    def begin(params: Any = None, dag_run: Any = None, logical_date: Any = None) -> list[int]:
        """Begin the tuning; Airflow supplies the arguments by their names."""
        with one_sentence():
            from pipeline.tuning.tuning import asked_of

            tuning = tuning_of(dag_run, logical_date)
            chosen = Tuning.of({name: params[name] for name in Tuning.model_fields if name in params})
            sent = {name: value for name, value in params.items() if name not in Tuning.model_fields}
            of_run, restricted = from_form(settings, sent)
            created = logical_date or dag_run.run_after
            asked = tuning.begin(asked_of(tuning.name, of_run, chosen, deployment, created, restricted=restricted))
        return list(range(len(asked.references) + chosen.trials))

    @task(
        doc_md="Trains one set of settings, and measures it on the validation posts.", map_index_template="{{ trial }}"
    )
    def trial(number: int, dag_run: Any = None, logical_date: Any = None) -> dict[str, Any]:
        """Do one trial; its name in the UI is its number and accuracy."""
        from airflow.sdk import get_current_context

        with one_sentence():
            tuning = tuning_of(dag_run, logical_date)
            asked = tuning.asked()
            if tuning.spent(asked):
                done, label = {}, "not begun"
            else:
                with google_credentials(deployment):
                    result = tuning.do_trial(asked, number)
                done = result.model_dump(mode="json", include={"number", "state", "accuracy", "settings"})
                label = f"{number}: {result.state if result.accuracy is None else f'{result.accuracy:.4f}'}"
        context: Any = get_current_context()
        context["trial"] = label
        return done

    @task(doc_md="Names the winner, and compares it with the present settings.", trigger_rule="all_done")
    def choose(dag_run: Any = None, logical_date: Any = None) -> dict[str, Any]:
        """Store the result of the tuning, and log it in one sentence."""
        with one_sentence():
            tuning = tuning_of(dag_run, logical_date)
            result = tuning.finish(tuning.asked())
            log.info("%s", result.sentence)
            return {"tuning": result.tuning, "winner": result.best.settings, "accuracy": result.best.accuracy}

    trial.expand(number=begin()) >> choose()
