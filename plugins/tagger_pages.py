"""Shows reports and models in Airflow's UI: a tab on runs and on tasks, and a page in the navigation."""

from typing import Any

from airflow.plugins_manager import AirflowPlugin

PREFIX = "/tagger"
ICON = (
    "data:image/svg+xml,<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 24 24' fill='none' stroke='%2394a3b8' "
    "stroke-width='2'><path d='M4 4h9l7 7-9 9-7-7z'/><circle cx='9' cy='9' r='1'/></svg>"
)


async def pages(scope: Any, receive: Any, send: Any) -> None:
    """The ASGI app of the pages, imported at its first request: every process of Airflow's loads this file."""
    from tagger_airflow.pages import app

    await app(scope, receive, send)


def view(name: str, destination: str, route: str, path: str) -> dict[str, str]:
    """A page of the app in a frame of the UI, at the place that `destination` names."""
    return {"name": name, "destination": destination, "url_route": route, "href": PREFIX + path, "icon": ICON}


class TaggerPages(AirflowPlugin):
    """The pages, and where the UI shows them."""

    name = "stackoverflow_tagger_pages"
    fastapi_apps = [{"app": pages, "url_prefix": PREFIX, "name": "Reports and models"}]  # noqa: RUF012 - as the class it overrides
    external_views = [  # noqa: RUF012
        view("Report", "dag_run", "report", "/report?dag_id={DAG_ID}&run_id={RUN_ID}"),
        view("Report", "task_instance", "task-report", "/report?dag_id={DAG_ID}&run_id={RUN_ID}"),
        view("Models", "nav", "models", "/models"),
    ]
