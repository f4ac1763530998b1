"""The DAG `stackoverflow_tagger_gc`: weekly garbage collection of old runs and versions."""

import logging
import os
from typing import Any

from airflow.sdk import DAG, task

from pipeline.settings import read
from pipeline.upkeep.gc import collect
from tagger_airflow.failures import RETRIED, one_sentence
from tagger_airflow.store import store_of

DOC = """\
Removes old runs and versions from the store. **Kept** are the live version, the last `keep_versions` live before it,
the runs they were made by, and everything of the last `keep_days` days. `tagger gc --dry-run` lists what would be
removed, and why.
"""

log = logging.getLogger("stackoverflow_tagger")

with DAG(
    "stackoverflow_tagger_gc",
    description="Remove old runs and versions from the store",
    doc_md=DOC,
    schedule="0 12 * * 0",  # not at midnight, when `@weekly` starts the tagger's run
    catchup=False,
    max_active_runs=1,
    tags=["stackoverflow", "garbage-collection"],
    default_args=RETRIED,
):

    @task(doc_md=DOC)
    def gc() -> dict[str, Any]:
        """Remove what is not kept, and return the number of folders and bytes, and of recorded posts, removed."""
        folders = size = 0
        with one_sentence():
            from pipeline.store.feedback import forget_older  # imports Arrow, which parsing does not need

            _, deployment = read(os.environ)
            for removal in collect(store_of(deployment), deployment):
                folders, size = folders + 1, size + removal.bytes
                log.info("removed %s (%s)", removal.path, removal.why)
            forgotten = forget_older(store_of(deployment), deployment.keep_feedback_days)
        return {"folders": folders, "bytes": size, "posts": forgotten}

    gc()
