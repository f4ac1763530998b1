"""Makes tasks fail with one sentence at the end of their log, and retries them only where that can help."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from airflow.sdk import ExceptionRetryPolicy, RetryAction, RetryRule

from pipeline.errors import BadInput, SourceRefused, TaggerError, Unavailable
from pipeline.stages.plan import FIRST
from pipeline.store.runs import Run

log = logging.getLogger("stackoverflow_tagger")


class Refused(SystemExit):
    """Ends a task without a retry, and without Airflow's traceback, which would hide the sentence."""


RETRIED = {
    "retries": 3,
    "retry_delay": timedelta(seconds=30),
    "retry_exponential_backoff": 2.0,
    "retry_policy": ExceptionRetryPolicy([RetryRule(Refused, RetryAction.FAIL, reason="trying again cannot help")]),
}
"""The arguments of every task: which failures are retried, how often and when."""


@contextmanager
def one_sentence() -> Iterator[None]:
    """End the task on a TaggerError: log its sentence, and exit so that only Unavailable is retried."""
    try:
        yield
    except TaggerError as error:
        if isinstance(error, Unavailable) and error.then:
            error.then = "clear the task"
        log.error("%s", error)
        ended = (SystemExit if isinstance(error, Unavailable) else Refused)(error.exit_status)
        ended.sentence = str(error)  # type: ignore[attr-defined] # for whoever is told of it
        raise ended from None


@contextmanager
def refusal_noted(run: Run, airflow_run_id: str) -> Iterator[None]:
    """If a run is refused before it has begun, note why in the store, because its tab Report finds nothing else.

    The sentence is noted without the source, which may hold a secret.
    """
    try:
        yield
    except BadInput as error:
        why = error.without_source if isinstance(error, SourceRefused) else str(error)
        try:
            if run.record() is None:
                run.refuse(FIRST, why, {"airflow_run_id": airflow_run_id})
        except TaggerError as fault:
            log.warning("that the run is refused could not be noted in the store: %s", fault)
        raise
