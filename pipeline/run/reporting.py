"""Makes the report of a run. If that fails, the run goes on without one."""

import logging

from pipeline.store.runs import Run

log = logging.getLogger(__name__)


def make_report(run: Run) -> None:
    """Save the report of the run in its store; if that fails, log a warning, for the run itself is not in doubt."""
    try:
        # Not at the top: the DAG file imports this module, and is parsed without matplotlib.
        from pipeline.report import page

        log.info("the report of run %s is %s", run.name, page.save(run))
    except Exception as error:
        log.warning("the report of run %s could not be made: %s: %s", run.name, type(error).__name__, error)
