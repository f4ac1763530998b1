"""Makes tasks fail with one sentence at the end of their log, and retries them only where that can help."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from airflow.sdk import ExceptionRetryPolicy, RetryAction, RetryRule

from pipeline.errors import TaggerError, Unavailable

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
        log.error("%s", error)
        ended = (SystemExit if isinstance(error, Unavailable) else Refused)(error.exit_status)
        ended.sentence = str(error)  # type: ignore[attr-defined] # for whoever is told of it
        raise ended from None
