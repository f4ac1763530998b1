"""Links from Airflow's UI, and from what people are told, to the report of a run."""

from typing import Any
from urllib.parse import quote

from airflow.sdk import BaseOperatorLink
from airflow.sdk.configuration import conf


def _base() -> str:
    return (conf.get("api", "base_url", fallback="") or "").rstrip("/")


def report_link(dag_id: str, run_id: str) -> str:
    """The address of the tab Report of a run; without a host unless Airflow's setting [api] base_url names one."""
    return f"{_base()}/dags/{quote(dag_id, safe='')}/runs/{quote(run_id, safe='')}/plugin/report"


def models_link() -> str:
    """The address of the page Models."""
    return f"{_base()}/plugin/models"


class ReportLink(BaseOperatorLink):
    """A button on the task instance that opens the report of its run."""

    name = "Report"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """The report's address; `ti_key` is the running task instance."""
        return report_link(ti_key.dag_id, ti_key.run_id)
