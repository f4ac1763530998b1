"""The DAG `stackoverflow_tagger_gc`: once a week, remove what retention lets go."""

import logging
import os
from typing import Any

from airflow.sdk import DAG, task

from pipeline.retention import removals, remove
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
    schedule="@weekly",
    catchup=False,
    max_active_runs=1,
    tags=["stackoverflow", "retention"],
):

    @task(doc_md=DOC, retries=2)
    def gc() -> dict[str, Any]:
        """Remove, and return how many folders and bytes went."""
        settings = Settings.read(os.environ)
        store, size = store_of(settings), 0
        found = removals(store, settings)
        for removal in found:
            remove(store, removal)
            size += removal.bytes
            log.info("removed %s (%s)", removal.path, removal.why)
        return {"folders": len(found), "bytes": size}

    gc()
