"""The DAG `stackoverflow_tagger_gc`: once a week, remove what retention lets go."""

import logging
import os
from typing import Any

from airflow.sdk import DAG, task

from one_sentence import RETRIED, one_sentence
from pipeline.execution.gc import collect
from pipeline.settings import Settings
from store_connection import store_of

DOC = """\
Removes from the store what nothing kept refers to. **Kept** are the live version, the `keep_versions` live before it,
the runs they descend from, and whatever is younger than `keep_days`. `tagger gc --dry-run` lists what would go, and
why.
"""

log = logging.getLogger("stackoverflow_tagger")

with DAG(
    "stackoverflow_tagger_gc",
    description="Remove old runs and versions from the store",
    doc_md=DOC,
    schedule="0 12 * * 0",  # not when `@weekly` runs the tagger, whose run is then under way
    catchup=False,
    max_active_runs=1,
    tags=["stackoverflow", "retention"],
    default_args=RETRIED,
):

    @task(doc_md=DOC)
    def gc() -> dict[str, Any]:
        """Remove, and return how many folders and bytes went."""
        folders = size = 0
        with one_sentence():
            settings = Settings.read(os.environ)
            for removal in collect(store_of(settings), settings):
                folders, size = folders + 1, size + removal.bytes
                log.info("removed %s (%s)", removal.path, removal.why)
        return {"folders": folders, "bytes": size}

    gc()
