"""The web app behind the UI's tabs: the report of a run, and the page of the models, for whoever may read the DAG."""

import os
from collections.abc import Awaitable, Callable
from typing import Annotated
from urllib.parse import urlencode

from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.api_fastapi.core_api.security import requires_access_dag
from fastapi import Depends, FastAPI, Query, Request, Response
from fastapi.responses import HTMLResponse
from starlette.exceptions import HTTPException

from pipeline.errors import BadInput, TaggerError
from pipeline.registry.registry import Registry
from pipeline.report import html, models, page
from pipeline.settings import read
from pipeline.store.objects import Store
from pipeline.store.runs import Run, find_run, name_of
from tagger_airflow.store import store_of

DAG_ID = "stackoverflow_tagger"

REFUSALS = {
    401: "You are not logged in: open Airflow, log in, and come back to this page.",
    403: f"You may not read the runs of the DAG {DAG_ID}: ask Airflow's administrator for that.",
    404: "There is no such page.",
}

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:; "
    "form-action 'none'; base-uri 'none'; frame-ancestors 'self'",
    "X-Content-Type-Options": "nosniff",
}
"""What every answer has. A report may come from the store, and whoever may write there could put a
script in it, which would act in Airflow for whoever reads it."""

# Every route asks, so a route that is added cannot forget to.
app = FastAPI(
    title="Reports and models of the tagger",
    docs_url=None,
    redoc_url=None,
    openapi_url=None,
    dependencies=[Depends(requires_access_dag("GET", DagAccessEntity.RUN, param_dag_id=DAG_ID))],
)


def store() -> Store:
    """The deployment's store."""
    return store_of(read(os.environ)[1])


@app.middleware("http")
async def without_scripts(request: Request, answer: Callable[[Request], Awaitable[Response]]) -> Response:
    """Answer with HEADERS, whatever the route and the status."""
    response = await answer(request)
    response.headers.update(HEADERS)
    return response


@app.get("/report")
def report(
    run_id: Annotated[str, Query(description="An Airflow run id, or the name of a run in the store.")],
    dag_id: str = DAG_ID,
) -> HTMLResponse:
    """The report of a run: the page in the store, or, where there is none yet, one made of what the store has."""
    if dag_id != DAG_ID:
        return _said(f"Only runs of {DAG_ID} have a report, and this is a run of {dag_id}.", 404)
    if run := find_run(store(), run_id):
        return HTMLResponse(page.latest(run))
    name = name_of(run_id)
    refusal = Run(store(), name).refusal()
    if refusal and run_id in {name, refusal.evidence.get("airflow_run_id")}:
        return _said(f"Run {run_id} was refused before it began, so it has no report: {refusal.why}.", 404)
    return _said(
        f"Run {run_id} has no report yet: it appears once ingest has begun the run; where ingest is red, the end "
        "of its log says why.",
        404,
    )


@app.get("/models")
def published(
    request: Request,
    before: Annotated[int | None, Query(description="Show what is before the log's entry of this number.")] = None,
) -> HTMLResponse:
    """What is live, since when, by whom and why, and what was before."""
    root = request.scope.get("root_path", "")
    return HTMLResponse(
        models.render(
            Registry(store()),
            lambda run: f"{root}/report?{urlencode({'run_id': run})}",
            lambda number: f"{root}/models?{urlencode({'before': number})}",
            before,
        )
    )


@app.exception_handler(HTTPException)
def refused(_: Request, error: HTTPException) -> HTMLResponse:
    """Say why there is no page in a sentence, because a person sees it in a frame."""
    return _said(REFUSALS.get(error.status_code, str(error.detail)), error.status_code)


@app.exception_handler(TaggerError)
def failed(_: Request, error: TaggerError) -> HTMLResponse:
    """Say what a store that cannot be read, or a run that cannot be, says."""
    return _said(str(error), 404 if isinstance(error, BadInput) else 503)


def _said(sentence: str, status: int) -> HTMLResponse:
    return HTMLResponse(html.render("sentence", sentence=sentence), status)
