"""How a task fails: its log ends in one sentence, and it is tried again only where that can help."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from airflow.sdk import ExceptionRetryPolicy, RetryAction, RetryRule

from pipeline.errors import TaggerError, Unavailable

log = logging.getLogger("stackoverflow_tagger")


class Refused(SystemExit):
    """Ends a task without Airflow's traceback, which would bury the one sentence; trying again cannot help."""


RETRIED = {
    "retries": 3,
    "retry_delay": timedelta(seconds=30),
    "retry_exponential_backoff": 2.0,
    "retry_policy": ExceptionRetryPolicy([RetryRule(Refused, RetryAction.FAIL, reason="trying again cannot help")]),
}
"""The arguments of every task."""


@contextmanager
def one_sentence() -> Iterator[None]:
    """End the task with the sentence of a TaggerError."""
    try:
        yield
    except TaggerError as error:
        log.error("%s", error)
        raise (SystemExit if isinstance(error, Unavailable) else Refused)(error.exit_status) from None
