"""The DAG `stackoverflow_tagger_watch`: asks the live model about newly tagged posts, and retrains when it declines."""

import logging
import os
from typing import Any

from airflow.sdk import DAG, Param, task
from airflow.sdk.exceptions import AirflowSkipException

from pipeline.settings import from_form, read, trigger_form
from pipeline.sources.source import Source
from tagger_airflow.assets import declined
from tagger_airflow.failures import RETRIED, one_sentence
from tagger_airflow.google import google_credentials
from tagger_airflow.notify import Tell
from tagger_airflow.store import store_of

DOC = """\
Asks the live model, and the one that was live before it, about newly tagged posts: its accuracy, also by tag, and how
far the posts have drifted from those that it learned from. The page **Models** shows each observation.

If the accuracy has fallen by more than `watch_drop` since the model was published, the task `retrain` starts the DAG
`stackoverflow_tagger`; the new model goes live only if it passes the gate. A version starts one retraining a week at
most.
"""

FIELDS = ("source", "text_column", "tag_column", "keep_tags")

settings, deployment = read(os.environ)
settings = settings.model_copy(update={"source": deployment.watch_source or settings.source})

tell = Tell(deployment)
log = logging.getLogger("stackoverflow_tagger")

with DAG(
    "stackoverflow_tagger_watch",
    description="Ask the live model about newly tagged posts, and retrain when its accuracy falls",
    doc_md=DOC,
    schedule=deployment.watch_schedule,
    catchup=False,
    max_active_runs=1,
    params={name: Param(**field) for name, field in trigger_form(settings, deployment).items() if name in FIELDS},
    tags=["stackoverflow", "tensorflow", "watching"],
    default_args=RETRIED | {"on_failure_callback": tell.not_watched},
):

    @task(doc_md="Asks the live model about the new posts, and appends what it finds to the series.")
    def watch(params: Any = None) -> dict[str, Any]:
        """Observe the live model; skipped if there is no new post."""
        with one_sentence(), google_credentials(deployment):
            from pipeline.scoring.watch import NOTHING_NEW  # imports TensorFlow, which parsing does not need
            from pipeline.scoring.watch import watch as observe

            form = settings.model_dump() | {name: params[name] for name in FIELDS}
            chosen, restricted = from_form(settings, form)
            source = Source.parse(chosen.source, deployment.allowed if restricted else None)
            seen = observe(store_of(deployment), source, chosen, deployment)
        if seen is None:
            raise AirflowSkipException(NOTHING_NEW)
        for line in seen.lines():
            log.info("%s", line)
        for warning in (*seen.warnings, *filter(None, [seen.decline])):
            log.warning("warning: %s", warning)
        return {
            "version": seen.live.version,
            "posts": seen.posts,
            "accuracy": seen.live.accuracy,
            "limit": seen.limit,
            "below": seen.below,
            "called": seen.called,
            "why_not_called": seen.why_not_called,
        }

    @task(
        doc_md="Starts a retraining if the live model has declined.",
        outlets=[declined],
        on_success_callback=tell.declined,
    )
    def retrain(seen: Any, outlet_events: Any = None) -> None:
        """Update the asset that starts a retraining; skipped where none is needed, or one was started already."""
        if not seen["called"]:
            raise AirflowSkipException(f"the accuracy is {seen['accuracy']:.4f}: {seen['why_not_called']}")
        outlet_events[declined].extra = seen

    retrain(watch())
